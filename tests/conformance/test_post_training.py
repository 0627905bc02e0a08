"""Rows about transformers, and those that find ranges when the network runs: values on the grid, deployed values equal simulated ones, accuracy kept."""

import numpy as np
import pytest
import torch
from tests.conformance.deployed import rounded_by_the_runtime

from lilliput import methods, zoo
from lilliput.deploy import Session, export
from lilliput.graph import trace
from lilliput.quantize import Quantizer, minmax
from lilliput.train import AdamW, Cosine, Fit, evaluate, fit

ROWS = [row.id for row in methods.rows() if row.works and row.family == "quantize" and row.check == "tests/conformance/test_post_training.py"]
OPTIONS = {"quantize.dynamic": {}}


@pytest.fixture(scope="module")
def vit(digits):
    options = {"image_size": 8, "patch": 4, "dim": 32, "depth": 2, "heads": 2}
    model = trace(zoo.create("vit_tiny", num_classes=10, in_chans=1, seed=0, options=options), digits.example())
    return fit(model, digits, Fit(epochs=10, batch_size=16, optimizer=AdamW(lr=3e-3), schedule=Cosine(warmup=0.1)), progress=False).model.eval()


@pytest.fixture(scope="module")
def quantized(vit, digits):
    made = {}

    def make(name):
        if name not in made:
            made[name] = methods.build(name)(**OPTIONS.get(name, {"samples": 128}))(vit, digits)
        return made[name]

    return make


@pytest.fixture(scope="module")
def plain(vit, digits):
    return evaluate(minmax(samples=128)(vit, digits).model, digits.test)


@pytest.mark.parametrize("name", ROWS)
def test_weights_lie_on_the_declared_grid(name, quantized, digits):
    model, seen = quantized(name).model, {}

    def record(module, inputs, output):
        seen[module] = output

    handles = [m.register_forward_hook(record) for m in model.modules() if isinstance(m, Quantizer)]
    with torch.no_grad():
        model(digits.example(8))
    for handle in handles:
        handle.remove()
    assert sum(m.weight for m in seen) >= 10
    for quantizer, value in seen.items():
        shape = [1] * value.ndim
        if quantizer.grid.axis is not None:
            shape[quantizer.grid.axis] = -1
        codes = value.double() / quantizer.scale.double().reshape(shape) + quantizer.zero_point.double().reshape(shape)
        assert float((codes - codes.round()).abs().max()) < 1e-2
        assert quantizer.grid.qmin <= codes.round().min()
        assert codes.round().max() <= quantizer.grid.qmax


@pytest.mark.parametrize("name", ROWS)
def test_deployed_values_are_the_simulated_ones(name, quantized, digits, tmp_path):
    model = quantized(name).model.eval()
    session = Session(export(model, tmp_path / "model.onnx", digits.example(8)))
    inputs = torch.cat([x for x, _ in digits.test.batches(256)])
    with torch.no_grad():
        simulated = model(inputs).numpy()
    deployed = session(inputs.numpy())
    # Float arithmetic may round a value the other way, though seldom; what follows from that stays within a step of an 8-bit output, or the
    # file itself is right and the runtime's floats are not.
    off = np.abs(simulated - deployed)
    far = (off > 1.1 * np.ptp(simulated) / 255).any(1)
    assert not far.any() or rounded_by_the_runtime(model, tmp_path / "model.onnx", inputs[far])
    assert (off > 1e-4 * np.ptp(simulated)).mean() < 0.01
    assert (simulated.argmax(1) == deployed.argmax(1)).mean() >= 0.995


@pytest.mark.parametrize("name", ROWS)
def test_accuracy_is_not_below_rounding_to_nearest(name, quantized, vit, plain, digits):
    """Within what 359 test samples can tell: one point is 3.6 of them."""
    assert evaluate(vit, digits.test) > 90
    assert evaluate(quantized(name).model, digits.test) >= plain - 1.0


@pytest.mark.parametrize("name", ROWS)
def test_entry_records_the_recipe_and_every_layer(name, quantized):
    entry = quantized(name).report.entries[0]
    assert entry.method == name
    assert "0x" not in entry.recipe
    weighted = [row for row in entry.layers if "weight_bits" in row]
    assert len(weighted) >= 9
    assert all(row["weight_sqnr_db"] > 10 for row in weighted)
