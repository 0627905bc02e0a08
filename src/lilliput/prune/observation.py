"""What an agent that prunes a network layer by layer sees of the layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.graph.fold import CONVOLUTIONS
from lilliput.graph.rules.base import argument
from lilliput.graph.shapes import shapes
from lilliput.graph.weights import weight_name
from lilliput.prune.maps import layers
from lilliput.prune.units import ChannelPlan, ElementPlan, Plan

Floats = NDArray[np.float64]


def weights(plan: Plan) -> list[str]:
    """For every group the weight that makes its channels, of coupled layers the first; raises `PreconditionError` for other units."""
    if isinstance(plan, ChannelPlan):
        return [next(slot.tensor for slot in group.slots if slot.role == "out") for group in plan.groups]
    if isinstance(plan, ElementPlan):
        return list(plan.names)
    raise PreconditionError("agents look at layers: pass unit=Channels() or unit=Element()")


def looks(plan: Plan, traced: Traced) -> Floats:
    """Output channels, input channels, height and width of the input, stride and kernel of every group's layer, `(groups, 6)`. (he2018amc)

    Of what is no convolution, channels alone; stride and kernel are those of the first axis.
    """
    nodes = {weight_name(layer): layer for layer in layers(traced)}
    known = shapes(traced)
    return np.array([_look(nodes.get(name), tuple(traced.tensor(name).shape), known) for name in weights(plan)], dtype=np.float64)


def _look(node: fx.Node | None, weight: tuple[int, ...], known: dict[fx.Node, Any]) -> list[float]:
    if node is None or node.target not in CONVOLUTIONS:
        return [weight[0], weight[1] if len(weight) > 1 else 1, 1, 1, 1, 1]
    read, given = known[node.args[0]], known[node]  # type: ignore[index]
    height, width = read[2], read[3] if len(read) > 3 else 1
    stride: Any = argument(node, 3, "stride") or 1
    return [given[1], read[1], height, width, stride if isinstance(stride, int) else stride[0], weight[2]]
