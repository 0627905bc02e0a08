"""Statistics without data: what batch norms say of the results of the layers that they are folded into."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, fx

from lilliput.graph.fold import foldable
from lilliput.graph.products import as_rows, is_supported
from lilliput.graph.trace import Traced
from lilliput.graph.weights import bias_name, parameter, weight_of
from lilliput.quantize.lower import is_float
from lilliput.quantize.operators import CLAMPS, LAYERS, name_of

aten = torch.ops.aten
_META = "lilliput_norm"
# Operators that keep the mean of each channel.
_AVERAGING = frozenset({"avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
                        "dropout"})
_MOVING = frozenset({"flatten", "view", "reshape", "squeeze"})
_FAR = 1e12  # stands for infinity, and gives zero times a density of zero


class Moments(NamedTuple):
    """Mean and variance of each channel, `(channels,)`, float64."""

    mean: Tensor
    variance: Tensor


def remember_norms_(traced: Traced) -> None:
    """Note at each layer, before folding, what the batch norm behind it makes of its results: mean `beta`, variance `gamma^2`."""
    for node in traced.graph.nodes:
        if node.target is aten.batch_norm.default and foldable(traced, node):
            gain, shift = (None if n is None else traced.tensor(str(n.target)).detach().double() for n in node.args[1:3])
            channels = traced.tensor(str(node.args[3].target)).numel()
            ones, zeros = torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
            node.args[0].meta[_META] = Moments(zeros if shift is None else shift.cpu(), ones if gain is None else gain.square().cpu())


def normal(layer: fx.Node) -> Moments | None:
    """What is remembered of a layer's results, before any activation function."""
    found = layer.meta.get(_META)
    return found if isinstance(found, Moments) else None


def renormal(layer: fx.Node, moments: Moments) -> None:
    """Remember something else, after a layer was changed."""
    layer.meta[_META] = moments


def clipped(moments: Moments, low: float, high: float) -> Moments:
    """Mean and variance of a normal variable after a clamp. (nagel2019dfq)

    With `a = (low - m) / s`, `b = (high - m) / s` and the normal density and distribution `p`, `P`:
    `E = low P(a) + high (1 - P(b)) + m (P(b) - P(a)) + s (p(a) - p(b))`, and likewise for the square.
    """
    low, high = max(low, -_FAR), min(high, _FAR)
    mean, deviation = moments.mean, moments.variance.sqrt().clamp(min=1e-12)
    a, b = (low - mean) / deviation, (high - mean) / deviation
    below, inside, above = torch.special.ndtr(a), torch.special.ndtr(b) - torch.special.ndtr(a), torch.special.ndtr(-b)
    at_a, at_b = (torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi) for t in (a, b))
    first = low * below + high * above + mean * inside + deviation * (at_a - at_b)
    second = (low**2 * below + high**2 * above + (mean.square() + deviation.square()) * inside
              + deviation * (at_a * (mean + low) - at_b * (mean + high)))
    return Moments(first, (second - first.square()).clamp(min=0))


def clamp_ends(node: fx.Node) -> tuple[float, float]:
    """Between which values a clamp keeps its input."""
    name = name_of(node)
    if name in ("relu", "relu6"):
        return 0.0, 6.0 if name == "relu6" else math.inf
    low, high = [*node.args[1:], *(None,) * 2][:2]
    if name == "hardtanh":
        low, high = -1.0 if low is None else low, 1.0 if high is None else high
    ends = (node.kwargs.get("min", low), node.kwargs.get("max", high))
    first, last = ends
    return float(first) if isinstance(first, int | float) else -math.inf, float(last) if isinstance(last, int | float) else math.inf


def channel_moments(traced: Traced) -> dict[fx.Node, Moments]:
    """Mean and variance of each channel of every value that batch norms tell of, as if values were normal and independent.

    Layers without a norm pass on those of their inputs, additions add, clamps clip. Borders of padded images are left out of
    account. Values that depend on the input alone, or come out of any other operator, are not in the result.
    """
    from lilliput.graph.shapes import fake_values

    values = fake_values(traced, traced.example)
    found: dict[fx.Node, Moments] = {}
    for node in traced.graph.nodes:
        moments = _moments(traced, node, found) if is_float(values.get(node)) else None
        if moments is not None and len(moments.mean) in values[node].shape[1:]:
            found[node] = moments
    return found


def _moments(traced: Traced, node: fx.Node, found: dict[fx.Node, Moments]) -> Moments | None:
    if node.target in LAYERS:
        return normal(node) or _through_layer(traced, node, found)
    known = [found[source] for source in node.all_input_nodes if source in found]
    if not known or len(known) < len(node.all_input_nodes):
        return None
    if node.target in CLAMPS:
        return clipped(known[0], *clamp_ends(node))
    if node.target is aten.add.Tensor and len(known) == 2:
        return Moments(known[0].mean + known[1].mean, known[0].variance + known[1].variance)
    if node.target is aten.cat.default and len(node.args) > 1 and node.args[1] == 1:
        return Moments(torch.cat([m.mean for m in known]), torch.cat([m.variance for m in known]))
    return known[0] if name_of(node) in _AVERAGING | _MOVING else None


def _through_layer(traced: Traced, node: fx.Node, found: dict[fx.Node, Moments]) -> Moments | None:
    source, bias = node.args[0], bias_name(node)
    if not isinstance(source, fx.Node) or source not in found or parameter(node.args[1]) is None or not is_supported(node):
        return None
    moments, tensor = found[source], weight_of(traced, node).double().cpu()
    shift = 0.0 if bias is None else traced.tensor(bias).detach().double().cpu()
    if tensor.shape[1] * as_rows(tensor, node).shape[0] != len(moments.mean):
        return None
    return Moments(over_inputs(node, tensor, moments.mean) + shift, over_inputs(node, tensor.square(), moments.variance))


def over_inputs(layer: fx.Node, weight: Tensor, channels: Tensor) -> Tensor:
    """`sum w x` for each output of a layer, where every position of an input channel holds the same value: `(outputs,)`."""
    rows = as_rows(weight, layer)
    per_group = rows.reshape(*rows.shape[:2], weight.shape[1], -1).sum(3)  # groups, outputs, inputs
    return torch.einsum("goi,gi->go", per_group, channels.reshape(rows.shape[0], -1)).flatten()
