"""Every quantization row that works: values on the grid, deployed integers equal simulated ones, accuracy kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.conformance.deployed import rounded_by_the_runtime

from lilliput import methods
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.quantize import Binary, Scheme, StraightThrough, Table, Train
from lilliput.quantize.calibrate import quantizers
from lilliput.quantize.recipes import learned
from lilliput.quantize.rounding.admm import LayerwiseADMM
from lilliput.quantize.rounding.reconstruct import Descent
from lilliput.train import SGD, AdamW, Fit, evaluate

ROWS = [row.id for row in methods.rows() if row.works and row.family == "quantize" and row.check == "tests/conformance/test_quantize.py"]
FIT = Fit(epochs=1, batch_size=64, optimizer=SGD(lr=0.005))
# How rows that train are trained; signs change too seldom under small steps of SGD.
TRAINS = {row.id: FIT for row in methods.rows() if row.id in ROWS and row.build.partition(":")[2] in {*learned.__all__, "lsq", "octav", "qat"} - {"multi_bit_mixed"}}
TRAINS |= {name: Fit(epochs=3, batch_size=64, optimizer=AdamW(lr=1e-3, weight_decay=0.0)) for name in ("quantize.bnn", "quantize.xnor_net")}
# These move their ranges as well as weights, which one epoch is short for; what they are compared with trains as long.
TRAINS |= {name: replace(FIT, epochs=3) for name in ("quantize.qil", "quantize.sat", "quantize.apot")}
# Options that save time.
BRIEF = {"quantize.adaround": {"descent": Descent(iterations=150)}, "quantize.brecq": {"descent": Descent(iterations=150)},
         "quantize.layerwise_few_shot": {"rounding": LayerwiseADMM(update=5)}}


@pytest.fixture(scope="module")
def quantized(trained, digits):
    made = {}

    def make(name):
        if name not in made:
            options = {"fit": TRAINS[name]} if name in TRAINS else {"samples": 256, **BRIEF.get(name, {})}
            made[name] = methods.build(name)(**options)(trained, digits)
        return made[name]

    return make


def _accuracy(model, digits):
    """Of both splits that nothing was trained on, since one of them alone is small."""
    parts = (digits.val, digits.test)
    return sum(evaluate(model, part) * len(part) for part in parts) / sum(map(len, parts))


@pytest.fixture(scope="module")
def references(trained, digits):
    """Accuracy of plain straight-through training of min-max grids with the same bits, and the same clamps gone, by row that trains."""
    made = {}

    def make(name):
        step = methods.build(name)(fit=TRAINS[name])
        bits = step.scheme.bits
        key = (bits, step.fit)
        if key not in made:
            scheme = Scheme(bits=bits) if bits.weights > 1 else Scheme(weights=Binary(axis=0), activations=Binary(), bits=bits)
            plain = Train(scheme=scheme, estimator=StraightThrough(), fit=step.fit, rewrites=step.rewrites)
            made[key] = _accuracy(plain(trained, digits).model, digits)
        return made[key]

    return make


def _grid_tensors(model, inputs):
    """Every result of a fake quantization, with its scale and what else the operator takes."""
    seen = []

    class Recorder(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if "fake_quantize" in str(function) or "fake_levels" in str(function):
                seen.append((result.detach(), *args[1:]))
            return result

    with torch.no_grad(), Recorder():
        model.eval()(inputs)
    return seen


@pytest.mark.parametrize("name", ROWS)
def test_values_lie_on_the_declared_grid(name, quantized, digits):
    found = _grid_tensors(quantized(name).model, digits.example(8))
    assert len(found) > 20
    for value, scale, *rest, axis in found:
        shape = [1] * value.ndim
        if axis >= 0:
            shape[axis] = -1
        if len(rest) == 2:
            table = rest[0].double()
            levels = table.reshape([len(table) if size == -1 else 1 for size in shape] + [-1]) if table.ndim == 2 else table
            gaps = ((value.double() / scale.detach().double().reshape(shape))[..., None] - levels).abs().amin(-1)
            assert float(gaps.max()) < 1e-5
            continue
        zero_point, low, high = rest
        codes = value.double() / scale.detach().double().reshape(shape) + zero_point.double().reshape(shape)
        assert float((codes - codes.round()).abs().max()) < 1e-2
        if high < 2**20:
            assert low <= codes.round().min()
            assert codes.round().max() <= high


@pytest.mark.parametrize("name", ROWS)
def test_deployed_integers_are_the_simulated_ones(name, quantized, digits, tmp_path):
    model = quantized(name).model.eval()
    session = Session(export(model, tmp_path / "model.onnx", digits.example(8)))
    inputs = torch.cat([x for x, _ in digits.test.batches(256)])
    with torch.no_grad():
        simulated = model(inputs).numpy()
    deployed = session(inputs.numpy())
    # One step of the output grid: the smallest gap between different output values.
    step = np.diff(np.unique(simulated.round(6))).min()
    near = np.abs(simulated - deployed).max(1) <= 1.05 * step
    # Sums of levels that are no integers are rounded, as are those of integers below eight bits, for which the runtime computes in floats;
    # a coarse level further on that is half-way may go either way.
    tables = any(isinstance(q.grid, Table) for q in quantizers(model))
    assert near.mean() >= (0.98 if tables else 0.995)
    assert tables or near.all() or rounded_by_the_runtime(model, tmp_path / "model.onnx", inputs[~near])
    assert (simulated.argmax(1) == deployed.argmax(1)).mean() >= 0.995


@pytest.mark.parametrize("name", ROWS)
def test_accuracy_is_not_below_rounding_to_nearest(name, quantized, references, trained, digits):
    """Within what 629 samples can tell: one point is 6.3 of them. With fewer than 8 bits nearest rounding is trained, too."""
    if name in TRAINS and name not in ("quantize.qat", "quantize.lsq"):
        assert _accuracy(quantized(name).model, digits) >= references(name) - 1.0
        return
    reference = _accuracy(quantized("quantize.minmax").model, digits)
    assert reference >= _accuracy(trained, digits) - 1.0
    assert evaluate(quantized(name).model, digits.test) >= reference - 1.0


@pytest.mark.parametrize("name", ROWS)
def test_entry_records_the_recipe_and_every_layer(name, quantized):
    entry = quantized(name).report.entries[0]
    assert entry.method == name
    assert "0x" not in entry.recipe
    weighted = [row for row in entry.layers if "weight_bits" in row]
    assert len(weighted) >= 8
    assert all(row["weight_sqnr_db"] > 10 for row in weighted)
