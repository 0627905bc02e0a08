"""What a classifier sees last: its network without the last linear layer."""

from __future__ import annotations

import copy

import torch
from torch import fx

from lilliput.core.errors import PreconditionError
from lilliput.graph.fold import drop_unused_tensors_
from lilliput.graph.shapes import forget_shapes
from lilliput.graph.trace import Traced


def penultimate(traced: Traced) -> Traced:
    """A new network that returns the input of the last linear layer, the features `(N, d)` of a classifier.

    Raises `PreconditionError` where there is no linear layer.
    """
    traced = copy.deepcopy(traced)
    linear = traced.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    if not linear:
        raise PreconditionError("the network has no linear layer, so nothing stands before its last one: pass a classifier")
    features, output = linear[-1].args[0], traced.graph.output_node()
    assert isinstance(features, fx.Node)
    output.args = (fx.node.map_arg(output.args[0], lambda _: features),)
    forget_shapes(traced)
    traced.graph.eliminate_dead_code()
    drop_unused_tensors_(traced)
    traced.recompile()
    return traced
