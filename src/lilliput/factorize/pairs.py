"""Pairs: one layer of the original beside itself in the network as far as it is factorized, on the same samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from lilliput.factorize.layers import Layer, node_of
from lilliput.factorize.observe import inputs_and_outputs, responses
from lilliput.graph.rules import argument, op_name
from lilliput.graph.trace import Traced

# Operators that clamp: their ends, or where they are given.
_CLAMPS = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0), "hardtanh": (-1.0, 1.0), "clamp": (-math.inf, math.inf)}
_NAMES = {"hardtanh": ("min_val", "max_val"), "clamp": ("min", "max")}


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """One layer in the network as far as it is factorized, beside the original, on the same samples.

    `inputs` is what the layer reads in the former; `made` is its own response to that, and `wanted` the original's response,
    at the same positions `(positions, out)`, which are those of `rows` out of all. `clamp` holds the ends of the clamp
    that alone reads the response (ReLU: zero and infinity), or `None`.
    """

    inputs: Tensor
    made: Tensor
    wanted: Tensor
    rows: Tensor
    clamp: tuple[float, float] | None = None


def pair(original: Traced, small: Traced, layer: Layer, inputs: Sequence[Tensor], most: int = 8192) -> Pair:
    """The pair of a layer that stands in both networks, on these batches; `most` positions, drawn with a fixed seed."""
    theirs = [inputs_and_outputs(original, (layer,), x)[layer.name][1] for x in inputs]
    ours = [inputs_and_outputs(small, (layer,), x)[layer.name] for x in inputs]
    wanted, made = responses(torch.cat(theirs), layer), responses(torch.cat([y for _, y in ours]), layer)
    rows = torch.arange(len(made))
    if len(made) > most:
        rows = torch.randperm(len(made), generator=torch.Generator().manual_seed(0))[:most]
    return Pair(inputs=torch.cat([x for x, _ in ours]), made=made[rows], wanted=wanted[rows], rows=rows,
                clamp=_clamp(node_of(original, layer)))


def _clamp(node: fx.Node) -> tuple[float, float] | None:
    """Ends of the clamp that alone reads a node."""
    user = next(iter(node.users)) if len(node.users) == 1 else None
    name = op_name(user) if user is not None and user.op == "call_function" else ""
    if user is None or name not in _CLAMPS:
        return None
    given = [argument(user, 1 + place, key) for place, key in enumerate(_NAMES.get(name, ()))]
    low, high = (usual if not isinstance(value, int | float) else float(value)
                 for value, usual in zip(given or (None, None), _CLAMPS[name], strict=True))
    return low, high
