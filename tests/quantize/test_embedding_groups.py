"""PEG: feature dimensions of similar range share a scale."""

import numpy as np
import pytest
import torch
from quantize_nets import NETS, arrays
from torch import nn

from lilliput.core.errors import RecipeError
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.quantize import BiasQuantizer, Quantizer, minmax, peg
from lilliput.quantize.rounding.groups import EmbeddingGroups, grouped
from lilliput.zoo import create


def test_groups_are_of_one_size_and_ordered_by_range():
    low, high = torch.tensor([-1.0, -9.0, 0.0, -2.0, -0.5]), torch.tensor([1.0, 9.0, 1.0, 0.0, 5.0])
    # Ranges 2, 18, 1, 2, 5.5: features 2, 0 and 3 (a tie keeps its order) in one group, 4 and 1 in the other.
    found = grouped(low, high, 2)
    assert found[0].tolist() == [-2, -9, -2, -2, -9]
    assert found[1].tolist() == [1, 9, 1, 1, 9]
    assert torch.equal(torch.stack(grouped(low, high, 9)), torch.stack([low, high]))
    assert grouped(low, high, 1)[0].tolist() == [-9] * 5
    with pytest.raises(RecipeError, match="group"):
        EmbeddingGroups(groups=0)


def _planted():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 24), nn.LayerNorm(24), nn.Linear(24, 12), nn.GELU(), nn.Linear(12, 4)).eval()
    with torch.no_grad():
        model[1].weight[[4, 9]] *= 60
        model[2].weight[:, [4, 9]] /= 60
    return model, arrays(5, 8)


def test_outliers_do_not_widen_the_steps_of_the_others():
    model, data = _planted()
    x = data.train.inputs
    plain, found = minmax(samples=48)(model, data), peg(samples=48, groups=4)(model, data)
    errors = [float((result.model(x) - model(x)).detach().square().mean()) for result in (plain, found)]
    assert errors[1] < 0.3 * errors[0]
    (entry,) = found.report.entries
    assert entry.method == "quantize.peg"
    assert entry.notes[-1] == "6 activations quantized in 4 groups of features"
    activations = {m.layer: m for m in found.model.modules() if isinstance(m, Quantizer) and not m.weight}
    norm = activations["1"]
    assert norm.grid.axis == 2
    assert norm.scale.shape == (24,)
    assert len({(float(s), int(z)) for s, z in zip(norm.scale, norm.zero_point, strict=True)}) <= 4
    assert norm.scale[4] == norm.scale[9] > 10 * norm.scale.median()
    assert not any(isinstance(m, BiasQuantizer) for m in found.model.modules())
    assert all(row["saturation"] < 0.02 for row in entry.layers if "saturation" in row)


@pytest.mark.parametrize("name", ["planted", "attention", "decoder"])
def test_deployed_values_are_the_simulated_ones(name, tmp_path):
    model, data = _planted()
    if name == "attention":
        model, data = NETS["attention"][0]().eval(), arrays(5, 8)
    if name == "decoder":
        ids = torch.randint(0, 7, (48, 6))
        data = type(data)(type(data.train)(ids, ids), num_classes=7)
        model = create("decoder", num_classes=7, in_chans=6, seed=0, options={"dim": 12, "depth": 1, "heads": 2}).eval()
    result = peg(samples=48)(model, data)
    assert int(result.report.entries[0].notes[-1].split()[0]) >= 3
    quantized, x = result.model, data.example(8)
    with torch.no_grad():
        simulated, reference = quantized(x), model(x)
    assert float((simulated - reference).square().mean()) < 0.01 * float(reference.square().mean())
    session = Session(export(quantized, tmp_path / "model.onnx", x))
    off = np.abs(session(x.numpy()) - simulated.numpy())
    last = [m for m in quantized.modules() if isinstance(m, Quantizer) and not m.weight][-1]
    assert off.max() <= 1.05 * float(last.scale.max())
    assert (off > 1e-5).mean() < 0.02


def test_networks_without_embeddings_stay_as_they_are():
    model, data = NETS["residual"][0]().eval(), arrays(2, 8, 8)
    result = peg(samples=48)(model, data)
    assert result.report.entries[0].notes[-1] == "0 activations quantized in 6 groups of features"
    assert torch.equal(result.model(data.example(8)), minmax(samples=48)(model, data).model(data.example(8)))
