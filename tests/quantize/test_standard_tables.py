"""Standard tables: codes and scales by hand, errors that only fall, and nothing stored but codes and scales."""

import numpy as np
import pytest
import torch
from quantize_nets import NETS, arrays
from torch import nn

from lilliput import data
from lilliput.core import RecipeError
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.graph import trace
from lilliput.quantize import Share
from lilliput.quantize.density import Gaussian, Laplace, density_levels
from lilliput.quantize.sharing import Outputs, Standard, Subvectors, Tune, Weight
from lilliput.quantize.sharing.standard import descended, nearest
from lilliput.quantize.sharing.weighting import Moment
from lilliput.train import SGD, Fit


def test_rows_on_the_table_are_found_again():
    table = torch.tensor(density_levels(Gaussian(), 8), dtype=torch.float64)
    codes = torch.randint(0, 8, (5, 40), generator=torch.Generator().manual_seed(0))
    scales = torch.tensor([0.1, 1.0, 2.5, 7.0, 0.0], dtype=torch.float64)
    found, fitted = nearest(scales[:, None] * table[codes], table)
    assert torch.equal(found[:4], codes[:4])
    assert fitted[:4].tolist() == pytest.approx([0.1, 1.0, 2.5, 7.0])
    assert float((fitted[:, None] * table[found])[4].abs().max()) < 1e-12


def test_coordinate_descent_by_hand():
    # e = (0.4, 0.4) at codes (0, 0). Weight 0 wants 0 + 0.4 + 0.9 * 0.4 = 0.76, so 1; then weight 1 wants 0.4 - 0.54 = -0.14, so 0.
    # The scale of (1, 0) is w'Hq / q'Hq = 0.4 + 0.36.
    w, table = torch.tensor([[0.4, 0.4]], dtype=torch.float64), torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    moment = torch.tensor([[[1.0, 0.9], [0.9, 1.0]]], dtype=torch.float64)
    start = (torch.tensor([[1, 1]]), torch.tensor([1.0], dtype=torch.float64))
    codes, scales = descended(w, table, start, moment, 1)
    assert codes.tolist() == [[2, 1]]
    assert scales.tolist() == pytest.approx([0.76], abs=2e-3)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_output_error_falls_with_every_sweep(groups):
    random = np.random.default_rng(1)
    rows = torch.tensor(random.normal(size=(6, 12)))
    factor = torch.tensor(random.normal(size=(groups, 12, 30)) + 1.0)
    moment = factor @ factor.transpose(1, 2) / 30

    def error(shared):
        e = (rows - shared.values().double()).reshape(groups, -1, 12)
        return float(torch.einsum("gri,gij,grj->", e, moment, e))

    found = [error(Standard(entries=4, sweeps=sweeps)(Weight(shape=(6, 12), rows=rows, importance=Moment(moment)))) for sweeps in (0, 1, 4)]
    assert found[0] > 1.5 * found[1]
    assert found[1] >= found[2] * (1 - 1e-6)


def test_bits_are_those_of_codes_and_scales():
    rows = torch.randn(8, 9, generator=torch.Generator().manual_seed(0))
    shared = Standard(entries=8)(Weight(shape=(8, 1, 3, 3), rows=rows, stored=torch.float16))
    assert shared.bits == 8 * 9 * 3 + 8 * 16


def test_a_network_runs_with_them_and_trains_all_but_the_table(tmp_path):
    samples = arrays(2, 8, 8)
    torch.manual_seed(0)
    network = NETS["residual"][0]().eval()
    step = Share(method="codebooks", codebooks=Standard(entries=16), weighting=Outputs(), tune=Tune(fit=Fit(epochs=1, batch_size=16, optimizer=SGD(lr=0.01))))
    result = step(network, samples)
    tables = {name: value for name, value in result.model.named_buffers() if name.endswith("_table")}
    assert tables
    assert all(value.flatten().tolist() == pytest.approx(density_levels(Gaussian(), 16)) for value in tables.values())
    assert not any(name.endswith("_table") for name, _ in result.model.named_parameters())
    example = samples.example(4)
    with torch.no_grad():
        wanted = result.model.eval()(example).numpy()
    assert np.allclose(Session(export(result.model, tmp_path / "net.onnx", example))(example.numpy()), wanted, atol=1e-4)


def test_eight_levels_beat_rounding_in_outputs_on_the_digits():
    digits = data.load("digits")
    torch.manual_seed(0)
    traced = trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits.example())
    made = {sweeps: Share(method="c", codebooks=Standard(entries=4, sweeps=sweeps, density=Laplace()), weighting=Outputs())(traced, digits).model
            for sweeps in (0, 4)}
    x = next(digits.val.batches(128))[0]
    with torch.no_grad():
        errors = {sweeps: float((model(x) - traced(x)).norm()) for sweeps, model in made.items()}
    assert errors[4] < 0.6 * errors[0]


def test_what_does_not_fit_is_refused():
    with pytest.raises(RecipeError, match="2 to 256 entries"):
        Standard(entries=1)
    with pytest.raises(RecipeError, match=r"use Scalars\(\)"):
        Share(method="c", codebooks=Standard(), partition=Subvectors(size=2))(nn.Linear(4, 4), arrays(4))
