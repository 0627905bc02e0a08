"""Cross-layer equalisation: neighbouring layers share out their ranges, and high biases move on to the next layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.core.errors import RecipeError
from lilliput.graph.products import as_rows, geometry
from lilliput.graph.trace import Traced
from lilliput.graph.weights import bias_name, has_own_weight, weight_name, weight_of
from lilliput.quantize.operators import LAYERS, TRANSPOSED, name_of
from lilliput.quantize.rewriting.statistics import Moments, clamp_ends, normal, over_inputs, renormal

aten = torch.ops.aten
# `f(s x) = s f(x)` for every positive `s` of a channel.
_HOMOGENEOUS = frozenset({"relu", "leaky_relu", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
                          "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "dropout"})
_LIMITED = frozenset({"relu6", "hardtanh", "clamp"})


@dataclass(frozen=True)
class Pair:
    """Two layers, and the operators between them, each the only reader of the one before."""

    first: fx.Node
    between: tuple[fx.Node, ...]
    second: fx.Node


def pairs(traced: Traced) -> list[Pair]:
    """Layers of which one alone reads the other, through operators that scale with their input, in the order in which they run.

    Clamps to `[0, c]` (ReLU6) count as such; who scales across them has to lift their limit.
    """
    return [pair for node in traced.graph.nodes if _is_plain(node) for pair in _from(node)]


def _is_plain(node: fx.Node) -> bool:
    if node.target not in LAYERS or node.target in TRANSPOSED or not has_own_weight(node):
        return False
    bias = node.args[2] if len(node.args) > 2 else None
    return bias is None or (isinstance(bias, fx.Node) and bias.op == "get_attr" and len(bias.users) == 1)


def _from(first: fx.Node) -> Iterator[Pair]:
    between: list[fx.Node] = []
    node = first
    while len(node.users) == 1:
        node = next(iter(node.users))
        if _is_plain(node) and node.args[0] is (between[-1] if between else first):
            # Channels are the second dimension of images and the last of what linear layers read.
            if (node.target is aten.linear.default) == (first.target is aten.linear.default):
                yield Pair(first, tuple(between), node)
            return
        limited = name_of(node) in _LIMITED and clamp_ends(node)[0] == 0
        if not limited and name_of(node) not in _HOMOGENEOUS:
            return
        between.append(node)


def _by_input(weight: Tensor, layer: fx.Node) -> Tensor:
    """A copy of the weight's magnitudes as `(inputs of the layer, everything else)`."""
    rows = as_rows(weight, layer)  # groups, outputs, inputs times kernel
    return rows.reshape(*rows.shape[:2], weight.shape[1], -1).movedim(2, 1).flatten(2).flatten(0, 1).abs()


def scale_inputs_(traced: Traced, layer: fx.Node, factor: Tensor) -> None:
    """Multiply what a layer's weight takes of each input channel, `(inputs,)`."""
    weight = weight_of(traced, layer)
    rows = as_rows(weight, layer)
    per_group = factor.to(weight).reshape(rows.shape[0], 1, -1, 1)
    traced.set_tensor(weight_name(layer), (rows.reshape(*rows.shape[:2], weight.shape[1], -1) * per_group).reshape(weight.shape))


def scale_outputs_(traced: Traced, layer: fx.Node, factor: Tensor) -> None:
    """Multiply each output channel of a layer, `(outputs,)`: weight, bias and what is remembered of its batch norm."""
    for name in (weight_name(layer), bias_name(layer)):
        if name is not None:
            tensor = traced.tensor(name).detach()
            traced.set_tensor(name, tensor * factor.to(tensor).reshape(-1, *[1] * (tensor.ndim - 1)))
    moments = normal(layer)
    if moments is not None:
        renormal(layer, Moments(moments.mean * factor.cpu(), moments.variance * factor.cpu().square()))


@dataclass(frozen=True, kw_only=True)
class Equalize:
    """A rewrite: in each pair of layers, channel `i` is scaled so that its ranges in both are the same.

    `s_i = sqrt(r1_i r2_i) / r2_i` with the largest magnitudes `r1_i` of the first layer's output channel and `r2_i` of the
    second's input channel; `W1, b1` are divided by it, `W2` multiplied. Repeated until no `s_i` is further from 1 than
    `tolerance`. A ReLU6 between the two becomes a ReLU first, which changes the function where it saturates, and is noted.
    (nagel2019dfq)
    """

    tolerance: float = 1e-4
    rounds: int = 100

    def __post_init__(self) -> None:
        if self.tolerance <= 0 or self.rounds < 1:
            raise RecipeError(f"equalisation takes a positive tolerance and one round or more, not {self.tolerance} and {self.rounds}")

    def __call__(self, traced: Traced, data: Any) -> list[str]:  # noqa: ARG002
        """Equalise in place."""
        found = pairs(traced)
        notes = lift_limits_(traced, found)
        for _ in range(self.rounds):
            furthest = max((_equalize_(traced, pair) for pair in found), default=1.0)
            if furthest <= 1 + self.tolerance:
                break
        return [*notes, f"ranges of {len(found)} pairs of layers equalised"]


def lift_limits_(traced: Traced, found: list[Pair]) -> list[str]:
    """Replace clamps from zero to a limit by ReLUs, in place, between the layers of pairs; returns notes."""
    limited = [node for pair in found for node in pair.between if name_of(node) in _LIMITED]
    for node in limited:
        node.target, node.args, node.kwargs = aten.relu.default, node.args[:1], {}
    if limited:
        traced.recompile()
    return [f"{len(limited)} activation functions with an upper limit became ReLUs"] if limited else []


def _equalize_(traced: Traced, pair: Pair) -> float:
    first = as_rows(weight_of(traced, pair.first), pair.first).flatten(0, 1).double().abs().amax(1)
    second = _by_input(weight_of(traced, pair.second), pair.second).double().amax(1)
    live = (first > 0) & (second > 0)
    scale = torch.where(live, (first / second.clamp(min=1e-300)).sqrt(), 1.0)
    scale_outputs_(traced, pair.first, 1 / scale)
    scale_inputs_(traced, pair.second, scale)
    return float(torch.maximum(scale, 1 / scale).max())


@dataclass(frozen=True, kw_only=True)
class AbsorbBias:
    """A rewrite: what a channel's results before a ReLU exceed practically always, the next layer's bias takes over.

    `c = max(0, beta - 3 gamma)` of the batch norm that was folded into the first layer; `b1 -= c` and `b2 += W2 c`, which is
    exact for the 99.87% of a normal variable that lie above `c`. Wants a ReLU and nothing else between the two layers, and no
    padding in the second, whose border would see a zero for a `c`. (nagel2019dfq)
    """

    deviations: float = 3.0

    def __call__(self, traced: Traced, data: Any) -> list[str]:  # noqa: ARG002
        """Absorb in place."""
        channels = touched = 0
        for pair in pairs(traced):
            moments = normal(pair.first)
            if moments is None or bias_name(pair.first) is None or [name_of(node) for node in pair.between] != ["relu"]:
                continue
            shift = (moments.mean - self.deviations * moments.variance.sqrt()).clamp(min=0)
            if not bool(shift.any()) or _pads(pair.second) or bias_name(pair.second) is None:
                continue
            _shift_(traced, pair.first, -shift)
            _shift_(traced, pair.second, over_inputs(pair.second, weight_of(traced, pair.second).double().cpu(), shift))
            renormal(pair.first, Moments(moments.mean - shift, moments.variance))
            channels, touched = channels + int((shift > 0).sum()), touched + 1
        return [f"high biases of {channels} channels absorbed by the next of {touched} layers"]


def _pads(layer: fx.Node) -> bool:
    if layer.target is aten.linear.default:
        return False
    padding = geometry(layer)[1]
    return padding == "same" or (padding != "valid" and any(padding if isinstance(padding, list | tuple) else [padding]))


def _shift_(traced: Traced, layer: fx.Node, change: Tensor) -> None:
    name = bias_name(layer)
    assert name is not None
    bias = traced.tensor(name).detach()
    traced.set_tensor(name, bias + change.to(bias))
