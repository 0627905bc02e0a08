"""AdaRound and BRECQ: rounding learned on the errors of results."""

import copy

import pytest
import torch
from quantize_nets import NETS, arrays
from torch import nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph.walk import Walk
from lilliput.quantize import MSE, Integer, PowerOfTwo, Quantizer, Scheme, Static, Uniform, adaround, brecq
from lilliput.quantize.calibrate import constant_names
from lilliput.quantize.grids import Parameters
from lilliput.quantize.rounding.importance import Fisher, surprise
from lilliput.quantize.rounding.partition import blocks, layers
from lilliput.quantize.rounding.problem import pose
from lilliput.quantize.rounding.reconstruct import Descent, Reconstruct, learn_
from lilliput.quantize.rounding.soft import LearnedScale, SoftRounding
from lilliput.zoo import create

FAST = Descent(iterations=120)


def _quantizer(bits=3, scale=0.5):
    quantizer = Quantizer(Integer(bits=bits), layer="x", weight=True)
    quantizer.set(Parameters(torch.tensor(scale), torch.tensor(0, dtype=torch.int32), torch.tensor(False)))
    return quantizer


def test_soft_rounding_starts_at_the_weight_and_ends_up_or_down():
    weight = torch.tensor([0.1, -0.3, 0.74, 1.2, -1.49, 5.0])
    soft = SoftRounding(_quantizer(), weight)
    torch.testing.assert_close(soft(weight), torch.tensor([0.1, -0.3, 0.74, 1.2, -1.49, 1.5]))
    # rest of 0.1 / 0.5 is 0.2: V = -ln(1.2 / (0.2 + 0.1) - 1) = -ln 3.
    assert float(soft.v[0]) == pytest.approx(-1.0986123, abs=1e-5)
    with torch.no_grad():
        soft.v.copy_(torch.tensor([1.0, -1.0, -9.0, 9.0, 0.0, -1.0]))
    assert soft.settle(_quantizer(), weight).tolist() == [0.5, -0.5, 0.5, 1.5, -1.0, 1.5]


def test_the_penalty_counts_undecided_weights():
    soft = SoftRounding(_quantizer(), torch.tensor([0.25, 0.5]))  # h of 0.5 and of 0
    assert float(soft.undecided(2.0)) == pytest.approx(1.0, abs=1e-4)
    assert Descent(iterations=100, warmup=0.2).exponent(19) is None
    assert Descent(iterations=100, warmup=0.2).exponent(20) == 20
    assert Descent(iterations=100, warmup=0.2).exponent(60) == pytest.approx(11)
    assert Descent(iterations=100, warmup=0.2).exponent(100) == pytest.approx(2)
    with pytest.raises(RecipeError, match="warm-up"):
        Descent(warmup=1.0)
    with pytest.raises(PreconditionError, match="integer"):
        SoftRounding(Quantizer(PowerOfTwo(), layer="x", weight=True), torch.zeros(2))


def test_learned_scales_have_the_gradient_of_the_step_size_and_are_left_behind():
    quantizer = _quantizer()
    quantizer.weight = False
    learned = LearnedScale(quantizer)
    x = torch.tensor([0.3, 0.6, 9.0])
    learned(x).sum().backward()
    # s times (round(v) - v), and qmax beyond the range: 0.5 (0.4 - 0.2 + 3).
    assert float(learned.t.grad) == pytest.approx(0.5 * (0.4 - 0.2 + 3), abs=1e-5)
    with torch.no_grad():
        learned.t.fill_(0.1)
    quantizer.simulation = learned
    before = quantizer(x)
    quantizer.settle(None)
    assert torch.allclose(quantizer(x), before)
    assert float(quantizer.scale) == pytest.approx(0.5 * 1.1051709, abs=1e-6)


def _case(partition, scales=False, importance=None, bits=3):
    torch.manual_seed(0)
    data = arrays(2, 8, 8, samples=64)
    model = NETS["residual"][0]().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
    scheme = Scheme(weight_ranges=MSE(), bits=Uniform(weights=bits, activations=8))
    rounding = Reconstruct(partition=partition, descent=FAST, scales=scales, importance=importance)
    plain = Static(scheme=scheme, samples=64)(model, data).model
    return model, data, plain, Static(scheme=scheme, roundings=(rounding,), samples=64)(model, data)


@pytest.mark.parametrize(("partition", "scales"), [(layers, False), (blocks, True)])
def test_weights_go_up_or_down_and_results_come_nearer(partition, scales):
    model, data, plain, result = _case(partition, scales, Fisher() if scales else None)
    wanted = model(data.train.inputs)
    nearest, learned = ((net(data.train.inputs) - wanted).square().mean() for net in (plain, result.model))
    assert learned < 0.7 * nearest
    moved = 0
    for quantizer, name in constant_names(result.model):
        values, original = result.model.tensor(name), plain.tensor(name)
        codes = values.double() / quantizer.scale.double().reshape(-1, *[1] * (values.ndim - 1))
        assert (codes - codes.round()).abs().max() < 1e-4
        assert torch.equal(quantizer(values), values)
        scale = quantizer.scale.reshape(-1, *[1] * (values.ndim - 1))
        inside = original.abs() <= scale * quantizer.grid.qmax
        assert ((values - original).abs() <= scale * 1.0001)[inside].all()
        moved += int(((values - original).abs() > scale * 0.5001)[inside].sum())
    assert moved >= 8
    assert "of the error of nearest values is left" in result.report.entries[0].notes[-1]
    assert all(row["weight_sqnr_db"] < 40 for row in result.report.entries[0].layers if "weight_bits" in row)


def test_a_piece_that_learning_makes_worse_keeps_its_nearest_values():
    data = arrays(2, 8, 8)
    scheme = Scheme(bits=Uniform(weights=8, activations=8))
    step = Static(scheme=scheme, roundings=(Reconstruct(descent=Descent(iterations=1, lr=100.0)),))
    model = NETS["residual"][0]().eval()
    rounded, plain = step(model, data), Static(scheme=scheme)(model, data)
    assert "3 pieces kept those" in rounded.report.entries[0].notes[-1]
    assert torch.equal(rounded.model(data.example(8)), plain.model(data.example(8)))


def test_the_inputs_of_a_piece_are_those_of_the_quantized_network():
    from lilliput.quantize.calibrate import calibrate_
    from lilliput.quantize.place import place_
    from lilliput.quantize.prepare import lowered
    from lilliput.quantize.ranges import MinMax

    data = arrays(2, 8, 8)
    reference, _ = lowered(NETS["residual"][0]().eval(), data)
    quantized = copy.deepcopy(reference)
    place_(quantized, Scheme(bits=Uniform(weights=2)))
    calibrate_(quantized, data, ranges=MinMax(), weight_ranges=MinMax(), samples=32)
    mine, theirs = Walk(quantized.eval(), [data.example(8)]), Walk(reference, [data.example(8)])
    for piece in layers(reference):
        problem = pose(mine, piece, theirs.through(piece.end), None, scales=False)
        assert list(problem.weights.values()) == [f"{piece.name}.weight"]
        expected = {}

        def record(module, inputs, output, expected=expected):
            expected.setdefault(module, output)  # moved values pass again

        handles = [m.register_forward_hook(record) for m in quantized.modules() if isinstance(m, Quantizer)]
        quantized(data.example(8))
        for handle in handles:
            handle.remove()
        outputs = {m.layer: value for m, value in expected.items() if not m.weight}
        held = next(m for m in expected if m.layer == piece.name and not m.weight)
        assert torch.equal(held(problem.result(0)), outputs[piece.name])
        left = learn_(problem, Descent(iterations=5), lambda step: None)
        assert left <= 1


def test_fisher_information_of_a_known_network():
    # z = (a, b) and a class drawn with the probabilities of (3 a, 0): d L / d a = 3 (p - y), nothing for b.
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[1].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 0.0]]))
    data = arrays(2, samples=64)
    data = type(data)(data.train, num_classes=2)
    from lilliput.graph.trace import trace

    walk = Walk(trace(model, data.example()).eval(), [data.example(64)])
    end = next(node for node in walk.nodes if node.name == "linear")
    walk.through(end)
    weights = Fisher(floor=0.0)(walk, end, data)
    assert weights.shape == (1, 2)
    assert weights.tolist()[0] == pytest.approx([2.0, 0.0])
    assert Fisher(floor=0.5)(walk, end, data).tolist()[0] == pytest.approx([1.5, 0.5])


def test_outputs_that_are_no_classes_count_as_normal():
    generator = torch.Generator().manual_seed(0)
    out = torch.zeros(1000, 3, requires_grad=True)
    surprise(out, 10, generator).backward()
    assert float(out.grad.square().mean()) == pytest.approx(1.0, abs=0.1)


def test_transformers_and_integer_inputs():
    ids = arrays(6, samples=32)
    ids = type(ids)(type(ids.train)((ids.train.inputs.abs() * 3).long() % 7, torch.randint(0, 7, (32, 6))), num_classes=7)
    model = create("decoder", num_classes=7, in_chans=6, seed=0, options={"dim": 8, "depth": 1, "heads": 2})
    result = brecq(samples=32, descent=Descent(iterations=20))(model, ids)
    x = ids.example(4)
    assert (result.model(x) - model(x)).square().mean() < 0.05 * model(x).square().mean()
    assert result.report.entries[0].method == "quantize.brecq"
    assert adaround().method == "quantize.adaround"
