"""Resolution: a network that shrinks its images first, and computes on the smaller ones."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.core.errors import PreconditionError
from lilliput.graph.rules.base import op_name
from lilliput.graph.shapes import fake_values, forget_shapes
from lilliput.graph.trace import Traced


def side(traced: Traced) -> tuple[int, int]:
    """Height and width of the images `(N, C, H, W)` that a network takes; raises `PreconditionError` where it takes anything else."""
    if len(traced.example) != 1 or traced.example[0].ndim != 4 or not traced.example[0].is_floating_point():
        raise PreconditionError("only a network of one input (N, C, H, W) has a resolution: pass one that takes images")
    return int(traced.example[0].shape[2]), int(traced.example[0].shape[3])


def resized(traced: Traced, size: tuple[int, int]) -> Traced:
    """A new network that takes the same images and scales them to `(height, width)` first, bilinearly (corners apart, no antialiasing).

    Everything behind the first operator runs on smaller maps, and is counted and timed so. Who has images of that size at hand leaves the
    operator out. Raises `PreconditionError` where the network is bound to its resolution: a table of positions, a linear layer over a map
    of fixed size, or outputs that are maps themselves.
    """
    side(traced)
    out = copy.deepcopy(traced)
    image, = out.graph.find_nodes(op="placeholder")
    with out.graph.inserting_after(image):
        small = out.graph.call_function(torch.ops.aten.upsample_bilinear2d.vec, (image, list(size), False, None))
    image.replace_all_uses_with(small, delete_user_cb=lambda user: user is not small)
    forget_shapes(out)
    out.recompile()
    try:
        values = fake_values(out, out.example)
    except Exception as error:  # whatever an operator says of shapes that do not fit
        reason = " ".join(str(error).split())[:200]
        raise PreconditionError(f"the network is bound to its resolution ({reason}): leave it as it is") from error
    before = fake_values(traced, traced.example)
    if _outputs(out, values) != _outputs(traced, before):
        raise PreconditionError(f"the network gives outputs of another shape for images of {size[0]} x {size[1]}: leave its resolution as it is")
    here = {node.name: node for node in traced.graph.nodes}
    for node in out.graph.nodes:
        if node.name in here and _alike(here[node.name], before) and not _alike(node, values):
            raise PreconditionError(f"the network is bound to its resolution ({node.name} would repeat one of its operands): leave it as it is")
    return out


def _outputs(traced: Traced, values: dict[fx.Node, Any]) -> list[Any]:
    leaves = torch.utils._pytree.tree_leaves(values[traced.graph.output_node()])
    return [tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf for leaf in leaves]


def _alike(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    """Whether the operands of elementwise arithmetic are of one shape, the batch aside; any other operator's are."""
    if node.op != "call_function" or op_name(node) not in ("add", "sub", "mul", "div"):
        return True
    return len({tuple(values[n].shape[1:]) for n in node.args if isinstance(n, fx.Node) and isinstance(values[n], Tensor)}) <= 1
