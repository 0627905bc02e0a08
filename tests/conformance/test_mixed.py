"""Every mixed-precision row that works: the budget is met, accuracy is not below uniform bits, deployed values are the simulated ones."""

import math

import numpy as np
import pytest
import torch
from tests.conformance.deployed import rounded_by_the_runtime

from lilliput import methods
from lilliput.core import Budget
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.quantize import Integer, Quantizer, Static, Table, Train, exact, hawq, minmax, qat
from lilliput.quantize.calibrate import constants
from lilliput.quantize.mixed.episodes import Episodes
from lilliput.quantize.mixed.hierarchy import Hierarchical
from lilliput.quantize.mixed.rewards import AccuracyKept, ShapedReward
from lilliput.train import SGD, Fit, evaluate
from lilliput.train.agents import DDPG, PPO

ROWS = [row.id for row in methods.rows() if row.works and row.check == "tests/conformance/test_mixed.py"]
BITS = 4.0
FIT = Fit(epochs=2, batch_size=64, optimizer=SGD(lr=0.01))
LEARNED = {"train": Train(fit=FIT, samples=256)}
NEAREST = {"inner": Static(samples=256)}
SEARCHED = {"quantize.haq": Episodes(agent=DDPG(hidden=(64, 64), warmup=10), reward=AccuracyKept(), episodes=40),
            "quantize.releq": Episodes(agent=PPO(hidden=32), reward=ShapedReward(), episodes=40)}
SMALL = DDPG(hidden=(64, 64), warmup=10, memory=2048)
SEARCHED["quantize.autoq"] = Hierarchical(high=SMALL, low=SMALL, episodes=40)
TRAINED = ("quantize.fracbits", "quantize.dq", "quantize.dnas_bits", "quantize.dmbq", "quantize.alq_bits")
OPTIONS = {**dict.fromkeys(TRAINED, LEARNED),
           **{name: {**NEAREST, "search": search} for name, search in SEARCHED.items()}}


@pytest.fixture(scope="module")
def quantized(trained, digits):
    made = {}

    def make(name):
        if name not in made:
            made[name] = methods.build(name)(Budget(bits=BITS), **OPTIONS.get(name, NEAREST))(trained, digits)
        return made[name]

    return make


@pytest.fixture(scope="module")
def uniform(trained, digits):
    made = {}

    def accuracy(name):
        learned = OPTIONS.get(name) is LEARNED
        if learned not in made:
            step = qat(weights=int(BITS), fit=FIT) if learned else minmax(weights=int(BITS), samples=256)
            made[learned] = evaluate(step(trained, digits).model, digits.test)
        return made[learned]

    return accuracy


def _bits(quantizer, values, single):
    """Bits of all values, counted anew: by output channel those of the largest code, or of the number of levels; by `single`
    weight the places of its code down to the last one that is set."""
    rows = values.detach().movedim(quantizer.grid.axis, 0).flatten(1)
    if not isinstance(quantizer.grid, Integer):
        return sum(math.ceil(math.log2(len(row.unique()))) for row in rows) * rows.shape[1]
    codes = (rows / quantizer.scale.reshape(-1, 1)).round().abs().int()
    if single:
        return sum(quantizer.grid.bits - (code & -code).bit_length() + 1 for code in codes.flatten().tolist() if code)
    return sum(math.ceil(math.log2(code + 1)) + 1 if code else 0 for code in codes.amax(1).tolist()) * rows.shape[1]


@pytest.mark.parametrize("name", ROWS)
def test_the_budget_is_met(name, quantized):
    result = quantized(name)
    (entry,) = result.report.entries
    assert entry.promised == {"bits": BITS}
    assert entry.measured == {"bits": entry.metrics["bits"]}
    assert entry.metrics["bits"] <= BITS
    held = list(constants(result.model))
    seen = sum(_bits(quantizer, quantizer(tensor), name == "quantize.aq") for quantizer, tensor in held) / sum(tensor.numel() for _, tensor in held)
    # What the values need is what was written down, or less where a width is not used to the end.
    assert BITS - 1.5 < seen <= entry.metrics["bits"] + 1e-9
    assert len({row["layer"] for row in entry.layers if "weight_bits" in row}) == len(held)


@pytest.mark.parametrize("name", ROWS)
def test_accuracy_is_not_below_uniform_bits(name, quantized, uniform, digits):
    """Within what 359 test samples can tell: one point is 3.6 of them."""
    assert evaluate(quantized(name).model, digits.test) >= uniform(name) - 1.0


def test_mixed_bits_reach_where_uniform_ones_fail(trained, digits):
    two = evaluate(minmax(weights=2, samples=256)(trained, digits).model, digits.test)
    mixed = hawq(Budget(bits=2.5), inner=Static(samples=256))(trained, digits)
    assert mixed.report.entries[0].measured["bits"] <= 2.5
    assert evaluate(mixed.model, digits.test) >= two + 40


def _fakes(model, inputs):
    """Every result of a fake quantization, with its operator's other arguments."""
    seen = []

    class Recorder(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if "fake_quantize" in str(function) or "fake_levels" in str(function):
                seen.append((str(function), result.detach(), args[1:]))
            return result

    with torch.no_grad(), Recorder():
        model.eval()(inputs)
    return seen


@pytest.mark.parametrize("name", ROWS)
def test_values_lie_on_the_declared_grid(name, quantized, digits):
    found = _fakes(quantized(name).model, digits.example(8))
    assert len(found) > 20
    for function, value, (scale, second, *rest) in found:
        axis = rest[-1]
        shape = [-1 if dim == axis else 1 for dim in range(value.ndim)]
        steps = value.double() / scale.double().reshape(shape if axis >= 0 else [])
        if "levels" in function:
            rows = steps.movedim(axis, 0).flatten(1) if axis >= 0 else steps.reshape(1, -1)
            table = second.double().expand(len(rows), -1)
            assert float((rows[:, :, None] - table[:, None, :]).abs().amin(2).max()) < 1e-5
        else:
            codes = steps + second.double().reshape(shape if axis >= 0 else [])
            assert float((codes - codes.round()).abs().max()) < 1e-2
            assert rest[1] >= 2**20 or rest[0] <= codes.round().min() <= codes.round().max() <= rest[1]


@pytest.mark.parametrize("name", ROWS)
def test_deployed_values_are_the_simulated_ones(name, quantized, digits, tmp_path):
    model = quantized(name).model.eval()
    session = Session(export(model, tmp_path / "model.onnx", digits.example(8)))
    inputs = torch.cat([x for x, _ in digits.test.batches(256)])
    with torch.no_grad():
        simulated = exact(model)(inputs.double()).float().numpy()  # where sums of integers are exact, as they are in integers
    deployed = session(inputs.numpy())
    step = np.diff(np.unique(simulated.round(6))).min()
    near = np.abs(simulated - deployed).max(1) <= 1.05 * step
    # Sums of levels that are no integers are rounded, as are those of integers below eight bits, for which the runtime computes in floats;
    # one further on that is half-way may go either way.
    assert near.mean() >= 0.995
    tables = any(isinstance(q.grid, Table) for q, _ in constants(model))
    assert tables or near.all() or rounded_by_the_runtime(model, tmp_path / "model.onnx", inputs[~near])
    assert (simulated.argmax(1) == deployed.argmax(1)).mean() >= 0.995


@pytest.mark.parametrize("name", ROWS)
def test_entry_records_the_recipe_and_every_layer(name, quantized):
    entry = quantized(name).report.entries[0]
    assert entry.method == name
    assert "0x" not in entry.recipe
    assert "bits=4.0" in entry.recipe
    assert len([row for row in entry.layers if "weight_bits" in row]) >= 8
    assert any(isinstance(module, Quantizer) for module in quantized(name).model.modules())
