"""Every quantization row that works: values on the grid, deployed integers equal simulated ones, accuracy kept."""

import numpy as np
import pytest
import torch

from lilliput import methods
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.train import SGD, Fit, evaluate

ROWS = [row.id for row in methods.rows() if row.works and row.family == "quantize"]
TRAINS = {"quantize.qat", "quantize.lsq"}


@pytest.fixture(scope="module")
def quantized(trained, digits):
    made = {}

    def make(name):
        if name not in made:
            options = {"fit": Fit(epochs=1, batch_size=64, optimizer=SGD(lr=0.005))} if name in TRAINS else {"samples": 256}
            made[name] = methods.build(name)(**options)(trained, digits)
        return made[name]

    return make


def _grid_tensors(model, inputs):
    """Every result of a fake quantization, with its scale, zero point and range."""
    seen = []

    class Recorder(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if "fake_quantize" in str(function):
                seen.append((result.detach(), *args[1:6]))
            return result

    with torch.no_grad(), Recorder():
        model.eval()(inputs)
    return seen


@pytest.mark.parametrize("name", ROWS)
def test_values_lie_on_the_declared_grid(name, quantized, digits):
    found = _grid_tensors(quantized(name).model, digits.example(8))
    assert len(found) > 20
    for value, scale, zero_point, low, high, axis in found:
        shape = [1] * value.ndim
        if axis >= 0:
            shape[axis] = -1
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
    assert np.abs(simulated - deployed).max() <= 1.05 * step
    assert (simulated.argmax(1) == deployed.argmax(1)).mean() >= 0.995


@pytest.mark.parametrize("name", ROWS)
def test_accuracy_is_not_below_rounding_to_nearest(name, quantized, trained, digits):
    """Within what 359 test samples can tell: one point is 3.6 of them."""
    reference = evaluate(quantized("quantize.minmax").model, digits.test)
    assert reference >= evaluate(trained, digits.test) - 1.0
    assert evaluate(quantized(name).model, digits.test) >= reference - 1.0


@pytest.mark.parametrize("name", ROWS)
def test_entry_records_the_recipe_and_every_layer(name, quantized):
    entry = quantized(name).report.entries[0]
    assert entry.method == name
    assert "0x" not in entry.recipe
    weighted = [row for row in entry.layers if "weight_bits" in row]
    assert len(weighted) >= 8
    assert all(row["weight_sqnr_db"] > 10 for row in weighted)
