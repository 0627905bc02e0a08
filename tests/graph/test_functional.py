"""Writes into memory become values: the traced network computes what the model does, and no operator writes."""

import pytest
import torch
from torch import nn

from lilliput.graph import Coupling, shrink, trace
from lilliput.graph.functional import functional_


class Writes(nn.Module):
    """Calls a function on the features of a linear layer, as `(N, 3, 4, 5)`."""

    def __init__(self, change):
        super().__init__()
        self.first, self.last, self.change = nn.Linear(6, 60), nn.Linear(60, 2), change

    def forward(self, x):
        return self.last(self.change(self.first(x).relu().view(-1, 3, 4, 5) * 2).flatten(1))


def adds_to_the_end(x):
    x[:, :, 1:] += x[:, :, :3].exp()
    return x


def adds_inside(x):
    x[:, :, 1:3, 2:] += 1.5
    return x


def writes(x):
    y = x.exp()
    x[:, 1:2] = y[:, 2:]
    return x * y


def writes_twice(x):
    x[:, :, :2] *= 3.0
    x[:, :, 1:] += x[:, :, :3].exp()
    return x


def everything(x):
    x[:] = x.cos()
    return x


def an_unshared_view(x):
    y = x[:, 1:]
    y.add_(1.0)
    return y.sum(1).repeat(1, 3, 1)


PURE = [adds_to_the_end, adds_inside, writes, writes_twice, everything, an_unshared_view]


@pytest.mark.parametrize("change", PURE)
def test_writes_through_slices_make_the_value_anew(change):
    model = Writes(change).eval()
    x = torch.randn(3, 6)
    with torch.no_grad():
        expected = model(x)
    traced = trace(model, x)
    assert not [n for n in traced.graph.nodes if str(n.target).partition(".default")[0].split(".")[-1].endswith("_")]
    assert not [n for n in traced.graph.nodes if "_." in str(n.target)]
    torch.testing.assert_close(traced(x), expected, rtol=1e-6, atol=1e-6)


def seen_through_an_older_view(x):
    old = x[:, :1]
    x[:, :, 1:] += 2.0
    return x + old


def by_a_stride(x):
    x[:, :, ::2] += 2.0
    return x


@pytest.mark.parametrize("change", [seen_through_an_older_view, by_a_stride])
def test_other_writes_stay_and_are_right(change):
    model = Writes(change).eval()
    x = torch.randn(3, 6)
    with torch.no_grad():
        expected = model(x)
    traced = trace(model, x)
    assert [n for n in traced.graph.nodes if "_." in str(n.target)]
    torch.testing.assert_close(traced(x), expected, rtol=1e-6, atol=1e-6)
    functional_(traced.graph)
    traced.recompile()
    torch.testing.assert_close(traced(x), expected, rtol=1e-6, atol=1e-6)


class PooledResidual(nn.Module):
    """Adds queries to what attention gives all tokens but the first, as MViT does."""

    def __init__(self):
        super().__init__()
        self.v, self.q, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        mixed = torch.softmax(x @ x.transpose(1, 2), -1) @ self.v(x)
        mixed[:, 1:, :] += self.q(x)[:, 1:, :]
        return self.out(mixed)


def test_channels_behind_a_write_are_coupled_and_go():
    traced = trace(PooledResidual().eval(), torch.randn(2, 5, 6))
    coupling = Coupling(traced)
    assert not coupling.excluded
    group, = (g for g in coupling.groups if "v" in g.layers)
    assert "q" in group.layers
    keep = coupling.keep_all()
    keep[group.components[:3]] = False
    small = shrink(coupling, keep)
    assert small.tensor("v.weight").shape == small.tensor("q.weight").shape == (5, 6)
    masked = trace(PooledResidual().eval(), torch.randn(2, 5, 6))
    masked.load_state_dict(traced.state_dict())
    with torch.no_grad():
        for name in ("v.weight", "v.bias", "q.weight", "q.bias"):
            masked.tensor(name)[:3] = 0
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(small(x), masked(x), rtol=1e-5, atol=1e-6)
