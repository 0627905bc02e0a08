"""APQ-ViT: scales chosen block by block, softmaxes that keep their largest values."""

import pytest
import torch
from quantize_nets import NETS, arrays

from lilliput.core.errors import RecipeError
from lilliput.graph import trace
from lilliput.graph.walk import Walk
from lilliput.quantize import Percentile, Quantizer, Scheme, Static, Uniform, apq_vit
from lilliput.quantize.prepare import lowered
from lilliput.quantize.rounding.blockwise import BlockwiseCalibration, eliminated, preserve_softmaxes_
from lilliput.zoo import create


def _vit():
    torch.manual_seed(0)
    model = create("vit_tiny", num_classes=4, in_chans=2, seed=0, options={"image_size": 8, "patch": 2, "dim": 16, "depth": 1, "heads": 2})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return trace(model, torch.zeros(2, 2, 8, 8)).eval(), arrays(2, 8, 8, samples=32)


class _Problem:
    """Errors of two batches."""

    wanted = (torch.zeros(1, 4), torch.zeros(1, 4))
    importance = torch.tensor([[1.0, 1.0, 10.0, 1.0]])

    def result(self, batch):
        return torch.tensor([[3.0, -1.0, 0.5, 2.0]]) if batch else torch.zeros(1, 4)


def test_the_smallest_errors_count_for_nothing():
    assert eliminated(_Problem(), 0.0) == pytest.approx(9 + 1 + 2.5 + 4)
    assert eliminated(_Problem(), 0.5) == pytest.approx(9 + 4)
    problem = _Problem()
    problem.importance = None
    assert eliminated(problem, 0.25) == pytest.approx(9 + 1 + 4)
    with pytest.raises(RecipeError, match="share"):
        BlockwiseCalibration(eliminated=1.0)


def test_softmaxes_keep_their_largest_value():
    model, data = _vit()
    scheme = Scheme(ranges=Percentile(percentile=60), bits=Uniform(activations=4))
    quantized = Static(scheme=scheme, samples=32)(model, data).model
    reference, _ = lowered(model, data)
    softmax = next(n for n in reference.graph.nodes if "softmax" in str(n.target))
    (wanted,) = Walk(reference, [data.train.inputs]).through(softmax)
    held = quantized.get_submodule(f"quantizers.{softmax.name}")
    assert float(held(wanted).amax()) < 0.9 * float(wanted.amax())
    assert preserve_softmaxes_(quantized, reference, [data.train.inputs]) == {held}
    assert float(held(wanted).amax()) == pytest.approx(float(wanted.amax()), rel=1e-5)
    assert int(held.zero_point) == 0
    assert (held(wanted) >= 0).all()


@pytest.mark.parametrize("bits", [4, 3])
def test_results_come_nearer(bits):
    model, data = _vit()
    x = data.train.inputs
    scheme = Scheme(bits=Uniform(weights=bits, activations=bits))
    plain, found = (Static(scheme=scheme, roundings=r, samples=32)(model, data) for r in ((), (BlockwiseCalibration(),)))
    errors = [float((net.model(x) - model(x)).detach().square().mean()) for net in (plain, found)]
    assert errors[1] < 0.9 * errors[0]
    (note,) = [note for note in found.report.entries[0].notes if "scales moved" in note]
    assert note.endswith("1 softmaxes range up to their largest value")
    assert int(note.split()[0]) > 5


def test_a_second_round_never_errs_more():
    torch.manual_seed(0)
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()
    x = data.train.inputs
    scheme = Scheme(bits=Uniform(weights=3, activations=4))
    errors = []
    for rounds in (0, 1, 2):
        rounding = BlockwiseCalibration(eliminated=0.0, rounds=rounds)
        net = Static(scheme=scheme, roundings=(rounding,), samples=32)(model, data).model
        errors.append(float((net(x) - model(x)).detach().square().mean()))
    assert errors[1] < errors[0]
    assert errors[2] < 1.1 * errors[1]


def test_the_recipe():
    model, data = _vit()
    result = apq_vit(weights=4, activations=4, samples=32)(model, data)
    assert result.report.entries[0].method == "quantize.apq_vit"
    assert all(not isinstance(m, Quantizer) or m.calibrated for m in result.model.modules())
