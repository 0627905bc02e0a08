"""Every low-rank and transform row that works: smaller or fewer bits, outputs near, deployed alike, every layer in the report."""

import inspect

import numpy as np
import pytest
import torch

from lilliput import methods, quantize
from lilliput.core import Budget, PreconditionError
from lilliput.deploy import Session, export
from lilliput.factorize import Refit, total_bits
from lilliput.factorize.layers import find
from lilliput.graph import profile
from lilliput.graph.saving import load, save
from lilliput.train import SGD, Fit, evaluate

ROWS = [row.id for row in methods.rows() if row.works and row.build.startswith("lilliput.factorize.")]
LOW_RANK = [name for name in ROWS if "budget" in inspect.signature(methods.build(name)).parameters]
CODED = [name for name in ROWS if name not in LOW_RANK]
# How far the outputs may be without training, relative to their norm.
NEAR = {"quantize.gsvd": 0.3, "quantize.transform_quantization": 0.04, "quantize.cnnpack": 0.1}
BITS = 5.0


@pytest.fixture(scope="module")
def made(trained, digits):
    results = {}

    def make(name):
        if name not in results:
            options = {"budget": Budget(macs=0.6, params=0.7)} if name in LOW_RANK else {"bits": BITS}
            results[name] = methods.build(name)(**options)(trained, digits)
        return results[name]

    return make


def distance(model, trained, digits):
    inputs = torch.cat([x for x, _ in digits.val.batches(256)])
    with torch.no_grad():
        wanted = trained.eval()(inputs)
        return float((model.eval()(inputs) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", LOW_RANK)
def test_gets_smaller_and_says_by_how_much(name, made, trained):
    entry, counted, original = made(name).report.entries[0], profile(made(name).model), profile(trained)
    assert counted.macs <= 0.6 * original.macs
    assert counted.params <= 0.7 * original.params
    assert entry.measured == {"macs": counted.macs, "params": counted.params}
    assert entry.promised == pytest.approx({"macs": 0.6 * original.macs, "params": 0.7 * original.params})


@pytest.mark.parametrize("name", CODED)
def test_takes_no_more_bits_than_asked_for_and_decodes_to_the_network(name, made, trained, digits):
    result, step = made(name), methods.build(name)(bits=BITS)
    coded, layers = step.encode(trained, digits), find(trained)[0]
    assert list(coded) == [layer.name for layer in layers]
    assert sum(total_bits(c) for c in coded.values()) <= BITS * sum(layer.params for layer in layers)
    for layer in layers:
        np.testing.assert_array_equal(coded[layer.name].decode(), result.model.tensor(layer.weight).detach().numpy())
        assert all(bits >= 0 for bits in coded[layer.name].bits.values())
    assert profile(result.model).totals() == profile(trained).totals()


@pytest.mark.parametrize("name", ROWS)
def test_outputs_stay_near(name, made, trained, digits):
    """Without training; weights that are nearly noise after four epochs do not lose two fifths of their cost for nothing."""
    assert distance(made(name).model, trained, digits) < NEAR.get(name, 0.75)
    if name in CODED:
        assert evaluate(made(name).model, digits.test) > evaluate(trained, digits.test) - 1


@pytest.mark.parametrize("name", LOW_RANK)
def test_training_recovers(name, trained, digits):
    config = Fit(epochs=3, batch_size=64, optimizer=SGD(lr=0.02))
    model = methods.build(name)(Budget(macs=0.6, params=0.7), fine_tune=config)(trained, digits).model
    assert evaluate(model, digits.test) > evaluate(trained, digits.test) - 3
    assert profile(model).macs <= 0.6 * profile(trained).macs


@pytest.mark.parametrize("name", ROWS)
def test_the_deployed_network_agrees(name, made, digits, tmp_path):
    model = made(name).model.eval()
    session = Session(export(model, tmp_path / "model.onnx", digits.example(8)))
    inputs = torch.cat([x for x, _ in digits.test.batches(256)])
    with torch.no_grad():
        wanted = model(inputs).numpy()
    assert np.abs(session(inputs.numpy()) - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("name", ROWS)
def test_the_report_names_every_layer(name, made, trained):
    entry = made(name).report.entries[0]
    assert entry.method == name
    assert "0x" not in entry.recipe
    layers = [layer.name for layer in find(trained)[0]]
    assert [row["layer"] for row in entry.layers] == layers
    if name in CODED:
        assert all(0 < row["code_bits"] <= row["weight_bits"] and 0 <= row["output_error"] < 0.5 for row in entry.layers)
        return
    left = [row["layer"] for row in entry.layers if row["rank"] == "full"]
    assert len(left) < len(layers)
    assert all(any(note.startswith(f"{layer} left as it is: ") for note in entry.notes) for layer in left)
    cut = [row for row in entry.layers if row["rank"] != "full"]
    assert all(row["macs_after"] < row["macs_before"] and row["params_after"] < row["params_before"] for row in cut)
    assert all({"weight_error", "output_error"} <= set(row) for row in cut)


@pytest.mark.parametrize("name", ROWS)
def test_deterministic_and_the_original_is_left_alone(name, made, trained, digits):
    """What is coded was coded a second time above."""
    before = {k: v.clone() for k, v in trained.state_dict().items()}
    if name in LOW_RANK:
        again = methods.build(name)(Budget(macs=0.6, params=0.7))(trained, digits).model.state_dict()
        assert all(torch.equal(v, again[k]) for k, v in made(name).model.state_dict().items())
    else:
        methods.build(name)(bits=BITS, exclude=("layer*",))(trained, digits)
    assert all(torch.equal(before[k], v) for k, v in trained.state_dict().items())


@pytest.mark.parametrize("name", ROWS)
def test_can_be_quantized_saved_and_is_then_refused(name, made, digits, tmp_path):
    model = made(name).model.eval()
    save(model, tmp_path / "small.pt2")
    example = digits.example(8)
    torch.testing.assert_close(load(tmp_path / "small.pt2")(example), model(example))
    integer = quantize.minmax(samples=128)(model, digits).model.eval()
    assert evaluate(integer, digits.test) > evaluate(model, digits.test) - 1.5
    options = {"budget": Budget(macs=0.6)} if name in LOW_RANK else {"bits": BITS}
    with pytest.raises(PreconditionError, match="quantized"):
        methods.build(name)(**options)(integer, digits)


def test_looking_at_outputs_beats_looking_at_weights(trained, digits):
    """At the same cost and without training: the response-aware pair, then the refitted one, then plain singular values."""
    from dataclasses import replace

    plain = methods.build("quantize.svd")(Budget(macs=0.5))
    steps = [methods.build("quantize.gsvd")(Budget(macs=0.5)), replace(plain, recover=Refit()), plain]
    distances = [distance(step(trained, digits).model, trained, digits) for step in steps]
    assert distances == sorted(distances)
    assert distances[0] < 0.6 * distances[2]
