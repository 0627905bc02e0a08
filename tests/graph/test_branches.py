"""Residual branches: found in any network, counted, and gone as if their output were multiplied by zero."""

import copy
from importlib.util import find_spec

import pytest
import torch
from benchmarks.masked import randomise_constants_
from torch import fx, nn
from torch.nn import functional as F

from benchmarks import torchvision_models
from lilliput import zoo
from lilliput.graph import Coupling, profile, shrink, trace
from lilliput.graph.branches import Residuals, without

IMAGES, TOKENS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.randint(0, 20, (2, 12), generator=torch.Generator().manual_seed(0))
ZOO = {"resnet8": (IMAGES, {}, 3), "resnet20": (IMAGES, {}, 9), "vit_tiny": (IMAGES, {"dim": 32, "depth": 3}, 6),
       "decoder": (TOKENS, {"dim": 24, "depth": 2, "heads": 2}, 4),
       "mobilenet_v2": (IMAGES, {"width": 0.25, "small_input": True}, 12), "unet": (IMAGES, {}, 5)}


class Multiplied(fx.Interpreter):
    """Runs a graph with what some nodes give multiplied by zero."""

    def __init__(self, traced, names):
        super().__init__(traced)
        self.names = names

    def run_node(self, n):
        result = super().run_node(n)
        return result * 0 if n.name in self.names else result


def traced_zoo(name):
    example, options, count = ZOO[name]
    model = zoo.create(name, seed=0, options=options, **({"num_classes": 20, "in_chans": 12} if name == "decoder" else {}))
    randomise_constants_(model)
    return trace(model, example).eval(), example, count


def assert_equal_to_zeroed(traced, example, removed):
    small = without(traced, removed)
    with torch.no_grad():
        wanted = Multiplied(traced, {b.output for b in removed}).run(example, enable_io_processing=False)
        wanted = wanted[0] if isinstance(wanted, tuple) else wanted
        torch.testing.assert_close(small(example), wanted, atol=1e-5, rtol=1e-5)
    return small


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_s_blocks_are_found_and_gone_they_leave_what_a_zero_leaves(name):
    traced, example, count = traced_zoo(name)
    residuals = Residuals(traced)
    assert len(residuals.found) == count
    assert residuals.unresolved == {}
    assert len({b.name for b in residuals.found}) == count
    whole = profile(traced)
    assert residuals.cost(()) == {"macs": whole.macs, "params": whole.params}
    some = residuals.found[::2]
    for removed in (some, residuals.found):
        small = assert_equal_to_zeroed(traced, example, removed)
        left = profile(small)
        assert residuals.cost(removed) == {"macs": left.macs, "params": left.params}
        assert sum(p.numel() for p in small.parameters()) == left.params
    for branch in residuals.found:
        left = residuals.cost([branch])
        assert (branch.params, branch.macs) == (whole.params - left["params"], whole.macs - left["macs"])
        assert branch.params > 0
        assert branch.macs > 0


def test_names_counts_and_kinds_of_a_transformer_and_a_resnet():
    traced, _, _ = traced_zoo("vit_tiny")
    found = {b.name: b for b in Residuals(traced).found}
    assert list(found)[:3] == ["blocks.0.attn", "blocks.0.mlp", "blocks.1.attn"]
    # Projections of 32 x 96 and 32 x 32 with biases and a norm of 64; of 32 x 128 and back.
    assert found["blocks.0.attn"].params == 32 * 96 + 96 + 32 * 32 + 32 + 64
    assert found["blocks.0.mlp"].params == 32 * 128 + 128 + 128 * 32 + 32 + 64
    assert found["blocks.0.mlp"].macs == 64 * 2 * 32 * 128
    assert found["blocks.0.attn"].layers == ("blocks.0.attn.qkv", "blocks.0.attn.proj")
    traced, _, _ = traced_zoo("resnet8")
    assert [(b.name, b.projected) for b in Residuals(traced).found] == [("layer1.0", False), ("layer2.0", True), ("layer3.0", True)]


def test_the_result_trains_shrinks_further_and_leaves_the_original_alone():
    traced, example, _ = traced_zoo("resnet20")
    before = copy.deepcopy(traced.state_dict())
    residuals = Residuals(traced)
    small = without(traced, residuals.found[1:4])
    assert all(torch.equal(before[k], v) for k, v in traced.state_dict().items())
    assert not any(k.startswith("layer1.1") for k in small.state_dict())
    small.train()(example).sum().backward()
    assert all(p.grad is not None for p in small.parameters())
    again = Residuals(small.eval())
    assert [b.name for b in again.found] == [b.name for b in residuals.found if b not in residuals.found[1:4]]
    coupling = Coupling(small)
    keep = coupling.keep({g.name: [i < g.units - 1 for i in range(g.units)] for g in coupling.groups})
    assert_equal_to_zeroed(shrink(coupling, keep), example, again.found[:2])


class Net(nn.Module):
    """One addition of each kind, between a stem and a head."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(4))
        self.stem, self.fc, self.scale = nn.Conv2d(3, 6, 1), nn.Linear(6, 4), nn.Parameter(torch.full((6, 1, 1), 0.5))
        self.body = forward

    def forward(self, x):
        return self.fc(self.body(self, self.stem(x)).mean((2, 3)))


def residuals_of(forward):
    traced = trace(Net(forward), IMAGES[:, :, :8, :8]).eval()
    return traced, Residuals(traced)


RESOLVED = {
    "layer scale and dropout": (lambda m, x: x + F.dropout(m.scale * m.b(F.gelu(m.a(x))), 0.3, m.training), [("a", "b")]),
    "side by side": (lambda m, x: x + m.a(F.relu(x)) + m.b(F.relu(x)), [("a",), ("b",)]),
    "side by side, shortcut last": (lambda m, x: m.b(F.relu(x)) + (m.a(F.relu(x)) + x), [("a",), ("b",)]),
    "nested": (lambda m, x: x + m.c((y := m.a(x)) + m.b(F.relu(y))), [("b",), ("a", "b", "c")]),
    "norm behind": (lambda m, x: F.layer_norm(x + m.a(x), [6, 8, 8]), [("a",)]),
    "pooled and padded": (lambda m, x: F.pad(F.avg_pool2d(x, 2), (0, 0)) + m.b(F.relu(F.avg_pool2d(m.a(x), 2))), [("a", "b")]),
    "projected": (lambda m, x: m.c(x) + m.b(F.relu(m.a(x))), [("a", "b")]),
    "broadcast": (lambda m, x: x + m.a(x).mean((2, 3), keepdim=True), [("a",)]),
    "scaled": (lambda m, x: torch.add(x, m.a(x), alpha=0.3), [("a",)]),
    "twice": (lambda m, x: m.a(F.relu(y := x + m.a(x))) + y, [("a",), ("a",)]),
}


@pytest.mark.parametrize("name", RESOLVED)
def test_kinds_of_additions(name):
    forward, layers = RESOLVED[name]
    traced, residuals = residuals_of(forward)
    assert residuals.unresolved == {}
    assert [b.layers for b in residuals.found] == layers
    assert len({b.name for b in residuals.found}) == len(layers)
    example = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    for branch in residuals.found:
        small = assert_equal_to_zeroed(traced, example, [branch])
        assert (small(example) - traced(example)).abs().max() > 1e-4, "the branch did nothing, so equality says nothing"
    assert_equal_to_zeroed(traced, example, residuals.found)


UNRESOLVED = {
    "as much": (lambda m, x: m.a(F.relu(m.b(x))) + m.c(F.relu(m.d(x))), "neither is a shortcut"),
    "one layer each": (lambda m, x: m.a(x) + m.b(x), "neither is a shortcut"),
    "both shortcuts": (lambda m, x: (x + m.a(x)) + (x + m.b(x)), "could be the shortcut of the other"),
    "smaller shortcut": (lambda m, x: (y := x.mean((2, 3), keepdim=True)) + F.interpolate(m.a(y), size=8), "another shape"),
    "scaled shortcut": (lambda m, x: torch.add(m.a(x), x, alpha=0.3), "changes its shortcut"),
}


@pytest.mark.parametrize("name", UNRESOLVED)
def test_what_cannot_be_resolved_is_named(name):
    forward, reason = UNRESOLVED[name]
    _, residuals = residuals_of(forward)
    assert any(reason in text for text in residuals.unresolved.values())
    assert len(residuals.unresolved) == 1


def test_additions_that_hold_no_layer_are_no_branches():
    _, residuals = residuals_of(lambda m, x: m.a(x * 2 + F.relu(x) + m.scale + 1))
    assert residuals.found == ()
    assert residuals.unresolved == {}


def test_branches_of_two_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x, y):
            z = self.a(x) + self.b(y)
            return z + self.c(torch.relu(z))

    residuals = Residuals(trace(Two(), (torch.zeros(2, 4), torch.zeros(2, 4))))
    assert [b.name for b in residuals.found] == ["c"]
    assert list(residuals.unresolved.values()) == ["the summands come from different inputs"]


@pytest.mark.parametrize("kind", ["resnet18", "vit", "convnext"])
def test_torchvision_s_networks(kind):
    if find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed; make test installs it")
    models = torchvision_models.models()
    torch.manual_seed(0)
    if kind == "resnet18":
        model, count = models.resnet18(num_classes=5), 8
    elif kind == "vit":
        model, count = models.VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24), 4
    else:
        from torchvision.models.convnext import CNBlockConfig, ConvNeXt

        # Layer scale, and stochastic depth while it trains.
        model, count = ConvNeXt([CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)], stochastic_depth_prob=0.5), 3
    randomise_constants_(model)
    traced = trace(model.eval(), IMAGES)
    residuals = Residuals(traced)
    assert len(residuals.found) == count
    assert residuals.unresolved == {}
    assert_equal_to_zeroed(traced, IMAGES, residuals.found[::2])
    assert_equal_to_zeroed(traced, IMAGES, residuals.found)
