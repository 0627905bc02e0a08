"""Every row that trains in narrow arithmetic: values on the declared grid, an ordinary network out, accuracy kept."""

import numpy as np
import pytest
import torch

from lilliput import methods
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.quantize import is_quantized, minmax
from lilliput.quantize.low_precision import FP8, FP16, FixedPoint
from lilliput.train import SGD, Fit, evaluate

ROWS = [row.id for row in methods.rows() if row.works and row.check == "tests/conformance/test_low_precision.py"]


@pytest.fixture(scope="module")
def results(trained, digits):
    made = {}

    def make(name):
        if name not in made:
            parallel = name == "quantize.alq_amq"
            # Half precision is slow on a CPU, so that its row sees fewer samples.
            data = digits.head(300) if name == "quantize.mixed_precision_training" else digits
            fit = Fit(epochs=1, batch_size=64, optimizer=SGD(lr=0.005), devices=2 if parallel else 1)
            made[name] = methods.build(name)(fit=fit)(trained, data)
        return made[name]

    return make


@pytest.mark.parametrize("name", ROWS)
def test_accuracy_is_not_below_rounding_to_nearest(name, results, trained, digits):
    """Within what 359 test samples can tell: one point is 3.6 of them."""
    assert evaluate(results(name).model, digits.test) >= evaluate(minmax()(trained, digits).model, digits.test) - 1.0


@pytest.mark.parametrize("name", ROWS)
def test_training_moved_the_weights_and_the_entry_says_how(name, results, trained):
    (entry,) = results(name).report.entries
    assert entry.method == name
    assert "0x" not in entry.recipe
    before, after = (dict(model.named_parameters())["conv1.weight"] for model in (trained, results(name).model))
    assert not torch.equal(before, after)
    assert torch.isfinite(after).all()


@pytest.mark.parametrize("name", [name for name in ROWS if name in ("quantize.fixed_point_sr", "quantize.fp8_training")])
def test_weights_lie_on_the_declared_grid(name, results):
    fp8 = name == "quantize.fp8_training"
    for key, value in results(name).model.named_parameters():
        wide = value.ndim == 1 or key.startswith("fc.")
        grid = (FP16 if wide else FP8) if fp8 else FixedPoint(integer=2, fraction=14)
        assert torch.equal(grid.round(value), value), key


@pytest.mark.parametrize("name", [name for name in ROWS if name != "quantize.int8_training"])
def test_the_trained_network_deploys_as_it_is(name, results, digits, tmp_path):
    model = results(name).model.eval()
    assert not is_quantized(model)
    session = Session(export(model, tmp_path / "model.onnx", digits.example(8)))
    inputs = digits.example(64)
    with torch.no_grad():
        np.testing.assert_allclose(session(inputs.numpy()), model(inputs).numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in ROWS if name == "quantize.int8_training"])
def test_deployed_integers_are_the_simulated_ones(name, results, digits, tmp_path):
    model = results(name).model.eval()
    session = Session(export(model, tmp_path / "model.onnx", digits.example(8)))
    inputs = torch.cat([x for x, _ in digits.test.batches(256)])
    with torch.no_grad():
        simulated = model(inputs).numpy()
    deployed = session(inputs.numpy())
    step = np.diff(np.unique(simulated.round(6))).min()
    assert np.abs(simulated - deployed).max() <= 1.05 * step
    assert (simulated.argmax(1) == deployed.argmax(1)).mean() >= 0.995


@pytest.mark.parametrize("name", [name for name in ROWS if name == "quantize.alq_amq"])
def test_the_bytes_on_the_wire_fall(name, results):
    metrics = results(name).report.entries[0].metrics
    assert 0 < metrics["bytes_sent"] < 0.1 * metrics["bytes_float32"]
