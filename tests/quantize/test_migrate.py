"""SmoothQuant: outliers migrate from activations to weights."""

import pytest
import torch
from quantize_nets import arrays
from torch import nn
from torch.nn import functional as F

from lilliput.core.errors import DataError, RecipeError
from lilliput.graph.walk import Walk
from lilliput.quantize import minmax, smoothquant
from lilliput.quantize.prepare import lowered
from lilliput.quantize.rewriting.migrate import Migrate
from lilliput.quantize.rewriting.observe import largest


class Gated(nn.Module):
    """A pre-norm block with several readers of a norm, a gate, and a layer behind a ReLU; outliers planted in each."""

    def __init__(self, norm):
        super().__init__()
        self.norm, self.q, self.k = norm, nn.Linear(8, 8), nn.Linear(8, 8)
        self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12, bias=False), nn.Linear(12, 6)
        self.last, self.head = nn.Linear(6, 5), nn.Linear(5, 4)
        with torch.no_grad():
            self.norm.weight[2] *= 40
            self.up.weight[5] *= 60
            self.last.weight[1] *= 50

    def forward(self, x):
        y = self.norm(x)
        y = x + torch.tanh(self.q(y) * self.k(y))
        y = self.down(F.silu(self.gate(y)) * self.up(y))
        return self.head(F.relu(self.last(y))).mean(1)


def _ratios(traced, data):
    """Largest over mean channel of what each linear layer reads."""
    walk = Walk(traced, [data.train.inputs])
    out = {}
    for node in walk.nodes:
        if "linear" in str(node.target):
            walk.before(node)
            channels = walk.values[0][node.args[0]].abs().flatten(0, -2).amax(0)
            out[str(node.args[1].target)] = float(channels.max() / channels.mean())
    return out


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.RMSNorm(8)], ids=["layer_norm", "rms_norm"])
def test_the_function_stays_and_outliers_shrink(norm):
    torch.manual_seed(0)
    data, model = arrays(5, 8), Gated(norm).eval()
    x = data.train.inputs
    (before, _), (after, notes) = (lowered(model, data, rewrites=r) for r in ((), (Migrate(),)))
    assert notes == ["activation outliers of 5 linear layers migrated to their weights"]
    torch.testing.assert_close(after(x), before(x), rtol=1e-4, atol=1e-5 * float(before(x).abs().max()))
    was, is_now = _ratios(before, data), _ratios(after, data)
    for name in ("q.weight", "k.weight", "down.weight", "head.weight"):
        assert is_now[name] < 0.7 * was[name]
    for name in ("gate.weight", "up.weight"):  # their input is a sum that others read
        assert is_now[name] == pytest.approx(was[name], rel=1e-3)
    full, _ = lowered(model, data, rewrites=(Migrate(alpha=1.0),))
    assert _ratios(full, data)["q.weight"] == pytest.approx(1.0, abs=1e-3)


def test_scales_by_hand():
    model = nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([16.0, 1.0]))
        model[1].weight.copy_(torch.tensor([[0.25, -4.0]]))
    data = arrays(2)
    traced, _ = lowered(model.eval(), data, rewrites=(Migrate(),))
    # Normalised pairs are (1, -1) or (-1, 1): activations reach 16 and 1, s = sqrt(16 / 0.25) = 8 and sqrt(1 / 4) = 1/2.
    assert traced.tensor("0.weight").tolist() == pytest.approx([2.0, 2.0], rel=1e-3)
    assert traced.tensor("1.weight").flatten().tolist() == pytest.approx([2.0, -2.0], rel=1e-3)


def test_what_others_read_too_stays():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.a = nn.LayerNorm(4), nn.Linear(4, 4)

        def forward(self, x):
            y = self.norm(x)
            return self.a(y) + y + self.a(y * 2)

    data, model = arrays(4), Shared().eval()
    traced, notes = lowered(model, data, rewrites=(Migrate(),))
    assert notes == ["activation outliers of 0 linear layers migrated to their weights"]
    assert torch.equal(traced.tensor("a.weight"), model.a.weight)
    with pytest.raises(RecipeError, match="alpha"):
        Migrate(alpha=2)


def test_magnitudes_of_features():
    data = arrays(3, 4)
    traced, _ = lowered(nn.Sequential(nn.ReLU(), nn.Linear(4, 2)).eval(), data)
    node = next(n for n in traced.graph.nodes if "relu" in n.name)
    assert torch.equal(largest(traced, [node], data, 40)[node], data.train.head(40).inputs.relu().flatten(0, 1).amax(0))
    with pytest.raises(DataError, match="no samples"):
        largest(traced, [node], arrays(3, 4, samples=0), 40)


def test_eight_bits_lose_less_than_without():
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 8)).eval()
    with torch.no_grad():  # the same function, out of balance
        model[0].weight[3] *= 64
        model[1].weight[:, 3] /= 64
    data = arrays(5, 16)
    x = data.train.inputs
    results = [step(samples=48)(model, data) for step in (minmax, smoothquant)]
    errors = [float((r.model(x) - model(x)).detach().square().mean()) for r in results]
    assert errors[1] < 0.1 * errors[0]
    assert results[1].report.entries[0].method == "quantize.smoothquant"
