"""Planted outliers: the same function, with activations that have a few large features."""

import pytest
import torch
from benchmarks.language import CASES, QUANTIZERS, QUOTED, with_outliers

from lilliput import data, zoo
from lilliput.core import PreconditionError
from lilliput.graph import trace


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    text = data.from_text("fox", "the quick brown fox jumps over the lazy dog. " * 60, context=12)
    options = {"dim": 32, "depth": 2, "heads": 2}
    net = zoo.create("decoder", num_classes=text.num_classes, in_chans=12, seed=0, options=options).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return trace(net, text.example()), text.example(4)


def norms(network, ids):
    """What every layer norm gives."""
    seen = []

    class Record(torch.fx.Interpreter):
        def run_node(self, n):
            out = super().run_node(n)
            if n.target is torch.ops.aten.layer_norm.default:
                seen.append(out)
            return out

    with torch.no_grad():
        Record(network).run(ids, enable_io_processing=False)
    return seen


@torch.no_grad()
def test_a_power_of_two_changes_no_bit_and_others_only_the_last(model):
    network, ids = model
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert torch.equal(with_outliers(network, count=4, factor=32.0)(ids), network(ids))
    torch.testing.assert_close(with_outliers(network, count=4, factor=50.0)(ids), network(ids), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_same_features_stand_out_after_every_norm(model):
    network, ids = model
    plain, planted = norms(network, ids), norms(with_outliers(network, count=4, factor=32.0, seed=3), ids)
    assert len(plain) == 5
    for before, after in zip(plain, planted, strict=True):
        grown = (after.abs().amax((0, 1)) / before.abs().amax((0, 1))).round()
        assert sorted(grown.tolist()) == [1.0] * 28 + [32.0] * 4
        chosen = grown > 1
        assert torch.equal(chosen, (planted[0].abs().amax((0, 1)) / plain[0].abs().amax((0, 1))).round() > 1)


def test_a_network_without_such_norms_is_refused():
    with pytest.raises(PreconditionError, match="pre-norm transformer"):
        with_outliers(trace(torch.nn.Linear(3, 2), torch.zeros(2, 3)))


def test_every_quantizer_has_a_case_on_both_networks():
    first = {f"{network}: {name}" for network in ("trained", "outliers") for name in ("float", *QUANTIZERS)}
    assert {case for case in CASES if "seed" not in case} == first
    assert {case for case in CASES if "seed" in case} == {f"{case}, seed {seed}" for case in QUOTED for seed in (1, 2)}
    assert first >= set(QUOTED)
