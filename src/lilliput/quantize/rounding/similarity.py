"""PTQ for vision transformers: scales for which products stay similar, and attention keeps its order."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.graph.trace import Traced
from lilliput.graph.walk import Values, Walk, evaluate, needed
from lilliput.quantize.calibrate import calibration_batches, widen_
from lilliput.quantize.layers import held_quantizer, weight_quantizer
from lilliput.quantize.operators import LAYERS, is_transparent, keeps_grid, name_of
from lilliput.quantize.quantizer import Quantizer, SameQuantizer
from lilliput.quantize.rounding.search import factors, take_best_
from lilliput.train.progress import Bar

_PRODUCTS = frozenset({"matmul", "bmm"})
_TOKENS = 64  # at most that many of a row's scores are compared pair by pair


@dataclass(frozen=True, kw_only=True)
class SimilaritySearch:
    """A rounding: the scale of each weight and activation is the multiple, from `low` to `high`, that keeps products similar.

    `maximise Pearson(O, O') - weight L`, with the products `O` of the float network and, for attention scores `A` (products
    that a softmax reads), the ranking loss `L = E max(0, margin - (A'_i - A'_j) sign(A_i - A_j))` over pairs of a row's scores,
    in units of their deviation. One pass: an activation when its turn comes, then the weight. Departs from the paper in that
    (it alternates), and in `weight` and `margin`, which are guesses; activations that no product reads keep their ranges.
    (liu2021ptqvit)
    """

    low: float = 0.5
    high: float = 1.2
    steps: int = 20
    weight: float = 0.1
    margin: float = 0.2
    samples: int = 32

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:
        """Choose scales in place."""
        tried = factors(self.low, self.high, self.steps)
        batches, notes = calibration_batches(reference, data, min(samples, self.samples))
        mine, theirs = Walk(quantized, batches), Walk(reference, batches)
        changed = total = 0
        with Bar(total=len(mine.nodes)) as bar:
            for index, node in enumerate(mine.nodes):
                quantizer, readers = self._turn(quantized, node)
                if quantizer is not None and readers:
                    changed += take_best_(quantizer, tried, self._loss(mine, theirs, node, readers)) != 1
                    total += 1
                    bar.update(index + 1, quantizer.layer)
        return [*notes, f"{changed} of {total} scales moved to keep products similar", *widen_(quantized)]

    def _turn(self, traced: Traced, node: fx.Node) -> tuple[Quantizer | None, list[fx.Node]]:
        """The quantizer whose turn comes at a node, and the products to judge it by."""
        if node.target in LAYERS:
            return weight_quantizer(traced, node), [node]
        quantizer = held_quantizer(traced, node)
        return (None, []) if quantizer is None or quantizer.weight else (quantizer, products(traced, node))

    def _loss(self, mine: Walk, theirs: Walk, node: fx.Node, readers: list[fx.Node]) -> Callable[[], float]:
        mine.before(node)
        originals = [theirs.named[reader.name] for reader in readers]
        if node.op == "call_module":
            theirs.through(theirs.named[quantized_node(node).name])
        else:
            theirs.before(theirs.named[node.name])
        wanted = [_results(theirs, originals, i) for i in range(len(theirs.values))]
        ranked = [feeds_softmax(reader) for reader in readers]

        def loss() -> float:
            total = 0.0
            for i, targets in enumerate(wanted):
                for found, target, scores in zip(_results(mine, readers, i), targets, ranked, strict=True):
                    total -= similarity(found, target)
                    if scores:
                        total += self.weight * ranking(found, target, self.margin)
            return total

        return loss


def products(traced: Traced, node: fx.Node) -> list[fx.Node]:
    """The layers and matrix products that read a value, past operators that only move values."""
    found: list[fx.Node] = []
    front = [node]
    while front:
        for user in front.pop().users:
            module = traced.get_submodule(str(user.target)) if user.op == "call_module" else None
            if user.target in LAYERS or name_of(user) in _PRODUCTS:
                found.append(user)
            elif isinstance(module, SameQuantizer) or keeps_grid(user) or is_transparent(user):
                front.append(user)
    return [node for node in traced.graph.nodes if node in found]


def quantized_node(quantizer: fx.Node) -> fx.Node:
    """The operator whose result a quantizer rounds, perhaps after another quantizer."""
    node = quantizer
    while node.op == "call_module" and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def feeds_softmax(node: fx.Node) -> bool:
    """Whether a softmax reads the node, past quantizers, masks and additions of constants."""
    for user in node.users:
        if name_of(user) in ("softmax", "_softmax", "_safe_softmax"):
            return True
        if (user.op == "call_module" or name_of(user) in ("masked_fill", "add", "mul", "div")) and feeds_softmax(user):
            return True
    return False


def similarity(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of all values; 1 for two constants."""
    a, b = (t.double().flatten() - t.double().mean() for t in (a, b))
    norm = float(a.norm() * b.norm())
    return float(a @ b) / norm if norm else float(torch.equal(a, b))


def ranking(found: Tensor, wanted: Tensor, margin: float) -> float:
    """`E max(0, margin - (A'_i - A'_j) sign(A_i - A_j))` over pairs within the rows, in units of the wanted scores' deviation."""
    step = max(-(-wanted.shape[-1] // _TOKENS), 1)
    a, b = (t[..., ::step] / wanted.std().clamp(min=1e-12) for t in (found, wanted))
    order = (b[..., :, None] - b[..., None, :]).sign()
    # A value and itself have no order.
    lost = (margin - (a[..., :, None] - a[..., None, :]) * order).clamp(min=0) * (order != 0)
    return float(lost.sum() / (order != 0).sum().clamp(min=1))


def _results(walk: Walk, nodes: list[fx.Node], batch: int) -> list[Tensor]:
    """What nodes compute of a batch, from where the walk stands."""
    known = walk.values[batch]
    values: Values = {}
    with torch.no_grad():
        for end in nodes:
            for node in needed(end, ChainMap(values, known)):
                values[node] = evaluate(walk.traced, node, ChainMap(values, known))
    return [values[node] if node in values else known[node] for node in nodes]
