"""Every codebook row that works: values from the declared codebook, deployed values equal simulated ones, accuracy kept."""

import math

import numpy as np
import onnx
import pytest
import torch

from lilliput import methods
from lilliput.core.cosine import cosine
from lilliput.deploy import Session, export
from lilliput.graph.walk import Walk
from lilliput.quantize import Integer, Quantizer, minmax
from lilliput.quantize.operators import LAYERS, layer_name
from lilliput.quantize.sharing import Residual, Subvectors
from lilliput.train import SGD, AdamW, Fit, evaluate

ROWS = [row.id for row in methods.rows() if row.works and row.check == "tests/conformance/test_codebook.py"]
LEVELS = {"quantize.lloyd_max", "quantize.log_quant"}
HASHED = {"quantize.hashed_nets", "quantize.freshnets"}
SHORT = Fit(epochs=1, batch_size=64, optimizer=AdamW(lr=1e-3, weight_decay=0.0))
AVERAGED = Fit(epochs=3, batch_size=64, optimizer=SGD(lr=0.01, weight_decay=0.0))
LONG = Fit(epochs=5, batch_size=64, optimizer=SGD(lr=0.05))
OPTIONS = {
    "quantize.kmeans_sharing": {"fit": SHORT},
    "quantize.product_quantization": {"codebooks": Residual(entries=64), "partition": Subvectors(3), "fit": SHORT},
    "quantize.hashed_nets": {"fit": LONG},
    "quantize.freshnets": {"fit": LONG},
    "quantize.bit_goes_down": {"entries": 64, "samples": 128, "fit": AVERAGED},
    "quantize.lloyd_max": {"samples": 128},
    "quantize.log_quant": {"samples": 128},
}
# Rows whose `does` says that accuracy is below rounding to nearest.
BELOW = {row.id for row in methods.rows() if row.id in ROWS and "less accurate" in row.does}


@pytest.fixture(scope="module")
def made(trained, digits):
    """The row's own result, and that with quantized activations."""
    found = {}

    def make(name):
        if name not in found:
            result = methods.build(name)(**OPTIONS[name])(trained, digits)
            found[name] = result, (result.model if name in LEVELS else minmax(samples=128)(result.model, digits).model)
        return found[name]

    return make


def bits_of(entry):
    """Bits per weight: what codes and tables take, or the width of the levels."""
    if "bits_per_weight" in entry.metrics:
        return entry.metrics["bits_per_weight"]
    return max(row["weight_bits"] for row in entry.layers if "weight_bits" in row)


def decoded(model):
    """The weight of every layer that is looked up in tables, with its tables."""
    walk = Walk(model, [])
    for node in model.graph.nodes:
        if node.target in LAYERS and node.args[1].op != "get_attr":
            name = layer_name(node)
            tables = [tensor.detach() for key, tensor in model.named_parameters() if key.startswith(f"{name}.weight_table")]
            yield walk.constants({node.args[1]})[node.args[1]], tables


@pytest.mark.parametrize("name", sorted(set(ROWS) - LEVELS))
def test_weights_are_entries_of_the_tables(name, made):
    weights = list(decoded(made(name)[0].model.eval()))
    assert len(weights) >= 8
    for weight, tables in weights:
        if name in HASHED:
            values = weight.flatten(1)
            if name == "quantize.freshnets" and weight.shape[2:].numel() > 1:
                values = weight.flatten(2).double() @ torch.from_numpy(cosine(tuple(weight.shape[2:])))
            values, possible = values.flatten(), tables[0].abs()[:, 0].sort().values.to(values.dtype)
            at = torch.searchsorted(possible, values.abs().contiguous()).clamp(max=len(possible) - 1)
            nearest = torch.minimum((possible[at] - values.abs()).abs(), (possible[(at - 1).clamp(min=0)] - values.abs()).abs())
        else:
            sums = tables[0]
            for table in tables[1:]:
                sums = (sums[:, None] + table[None]).flatten(0, 1)
            nearest = torch.cdist(weight.reshape(-1, sums.shape[1]), sums, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        assert float(nearest.max()) < 1e-5


@pytest.mark.parametrize("name", sorted(LEVELS & set(ROWS)))
def test_weights_are_levels_of_the_declared_number(name, made):
    model = made(name)[1].eval()
    found = [module for module in model.modules() if isinstance(module, Quantizer) and module.weight]
    assert len(found) >= 8
    for quantizer in found:
        assert not isinstance(quantizer.grid, Integer)
        assert len(quantizer.levels) <= 2**4
        if name == "quantize.log_quant":
            exponents = (quantizer.scale[:, None] * quantizer.levels[quantizer.levels > 0]).log2()
            assert torch.equal(exponents, exponents.round())


@pytest.mark.parametrize("name", ROWS)
def test_deployed_values_are_the_simulated_ones(name, made, digits, tmp_path):
    model = made(name)[1].eval()
    path = export(model, tmp_path / "model.onnx", digits.example(8))
    inputs = torch.cat([x for x, _ in digits.test.batches(256)])
    with torch.no_grad():
        simulated = model(inputs).numpy()
    deployed = Session(path)(inputs.numpy())
    step = np.diff(np.unique(simulated.round(6))).min()
    assert np.abs(simulated - deployed).max() <= 1.05 * step
    assert (simulated.argmax(1) == deployed.argmax(1)).mean() >= 0.995
    # Codes and tables take what the report says, up to the last byte of each.
    rows = [row for row in made(name)[0].report.entries[0].layers if "weights" in row]
    told = sum(row["weights"] * row["weight_bits"] for row in rows) / 8
    held = {t.name: onnx.numpy_helper.to_array(t).nbytes for t in onnx.load(path).graph.initializer}
    found = sum(size for key, size in held.items() if ("weight_codes" in key and key.endswith(".codes")) or "weight_table" in key)
    assert found == pytest.approx(told, abs=len(rows))


@pytest.mark.parametrize("name", ROWS)
def test_accuracy_is_not_below_rounding_to_nearest(name, made, trained, digits):
    """At the same bits per weight, and both with activations of 8 bits; one point is 3.6 of the test samples."""
    bits = min(max(math.floor(bits_of(made(name)[0].report.entries[0])), 2), 8)
    reference = evaluate(minmax(weights=bits, samples=128)(trained, digits).model, digits.test)
    accuracy = evaluate(made(name)[1], digits.test)
    assert accuracy >= 90
    assert accuracy >= reference - (4.0 if name in BELOW else 1.0)


@pytest.mark.parametrize("name", ROWS)
def test_entry_records_the_recipe_and_every_layer(name, made):
    entry = made(name)[0].report.entries[0]
    assert entry.method == name
    assert "0x" not in entry.recipe
    weighted = [row for row in entry.layers if "weight_bits" in row]
    assert len(weighted) >= 8
    least = 0.1 if name in HASHED else 2.0 if name == "quantize.bit_goes_down" else 10.0
    assert all(row["weight_sqnr_db"] > least for row in weighted)
