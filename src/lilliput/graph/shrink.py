"""Shrinking: remove components from a traced network and return a smaller plain network."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from lilliput.core.errors import BudgetError
from lilliput.graph.coupling import Coupling, Ints, Keep
from lilliput.graph.rules import argument, op_name
from lilliput.graph.shapes import forget_shapes
from lilliput.graph.trace import Traced, collection_paused, own_copy

aten = torch.ops.aten


@collection_paused()
def shrink(coupling: Coupling, keep: Keep, *, weights: Traced | None = None) -> Traced:
    """The network without the components where `keep` is False; shapes in tensors and operators follow.

    `keep` has one flag per component (`Coupling.keep`). `weights` is the network to take tensors from, where the
    analysed one was trained since. Networks passed in are left as they were. Raises `BudgetError` when a tensor
    would lose its last channel.
    """
    source = coupling.traced if weights is None else weights
    # A deep copy that finds every tensor made already: the ones that shrink are never copied at their full size.
    small = copy.deepcopy(source, _tensors(source, coupling, keep))
    nodes = dict(zip(small.graph.nodes, coupling.traced.graph.nodes, strict=True))
    for node, old in list(nodes.items()):
        if node.op == "call_function":
            rewrite = _REWRITES.get(op_name(node))
            if rewrite is not None:
                rewrite(_Site(coupling, keep, old, node))
    forget_shapes(small)
    small.recompile()
    return small


def _tensors(source: Traced, coupling: Coupling, keep: Keep) -> dict[int, Any]:
    """The tensors of the smaller network, by the `id` of the one that each is made from; tied ones stay tied."""
    made: dict[int, Any] = {}
    kept = {name: _kept(name, dims, keep) for name, dims in coupling.dims.items()}
    named = [*source.named_parameters(remove_duplicate=False), *source.named_buffers(remove_duplicate=False)]
    for name, tensor in sorted(named, key=lambda pair: pair[0] not in kept):
        if id(tensor) not in made:
            made[id(tensor)] = _selected(tensor, kept.get(name, {}))
    return made


def _kept(name: str, dims: dict[int, Ints], keep: Keep) -> dict[int, torch.Tensor]:
    """Indices that stay, for every dimension that loses some."""
    flags = {dim: keep[components] for dim, components in dims.items()}
    if not all(kept.any() for kept in flags.values()):
        raise BudgetError(f"{name} would lose its last channel; keep at least one unit of every group")
    return {dim: torch.from_numpy(np.flatnonzero(kept)) for dim, kept in flags.items() if not kept.all()}


def _selected(tensor: torch.Tensor, indices: dict[int, torch.Tensor]) -> torch.Tensor:
    value = tensor.detach()
    for dim, index in indices.items():
        value = value.index_select(dim, index.to(value.device))
    value = value if indices else own_copy(value)
    return torch.nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else value


class _Site:
    """One node to rewrite: the original node for its fields, the copy to change."""

    def __init__(self, coupling: Coupling, keep: Keep, old: fx.Node, new: fx.Node) -> None:
        self.coupling, self.keep, self.old, self.new = coupling, keep, old, new

    def kept(self, node: Any, item: int | None = None) -> dict[int, tuple[int, int]]:
        """(old, new) extent of every dimension of a value that changes."""
        dims = self.coupling.node_dims(node)
        chosen: dict[int, Ints] = dims[item] if isinstance(dims, list) and item is not None else dims  # type: ignore[assignment]
        sizes = {d: (len(c), int(self.keep[c].sum())) for d, c in chosen.items()}
        return {d: (old, new) for d, (old, new) in sizes.items() if old != new}

    def flags(self, node: Any, axis: int) -> Keep | None:
        """Which indices of a value stay along one axis; None when all do."""
        dims = self.coupling.node_dims(node)
        assert isinstance(dims, dict)
        kept = self.keep[dims[axis]] if axis in dims else None
        return None if kept is None or kept.all() else kept

    def kept_tensor(self, name: str, dim: int) -> int:
        """New extent of one dimension of a tensor."""
        components = self.coupling.dims.get(name, {}).get(dim)
        size = int(self.coupling.traced.tensor(name).shape[dim])
        return size if components is None else int(self.keep[components].sum())

    def set_arg(self, position: int, name: str, value: Any) -> None:
        """Set an argument where it stands."""
        if position < len(self.new.args):
            self.new.args = (*self.new.args[:position], value, *self.new.args[position + 1 :])
        else:
            self.new.kwargs = {**self.new.kwargs, name: value}


def _scaled(site: _Site, size: Any, old: int, new: int) -> Any:
    """A size argument that held `old` (times other factors) so that it holds `new` (times them)."""
    if isinstance(size, int):
        return size if size == -1 else size * new // old
    with site.new.graph.inserting_before(site.new):
        product = site.new.graph.call_function(operator.mul, (size, new))
        return site.new.graph.call_function(operator.floordiv, (product, old))


def _sizes(site: _Site, position: int, name: str, offset: int = 0) -> None:
    sizes = argument(site.new, position, name)
    changed = site.kept(site.old)
    if isinstance(sizes, (list, tuple)) and changed:
        site.set_arg(position, name, [_scaled(site, s, *changed[d + offset]) if d + offset in changed else s
                                      for d, s in enumerate(sizes)])


def _view(site: _Site) -> None:
    _sizes(site, 1, "size")


def _unflatten(site: _Site) -> None:
    axis = int(argument(site.new, 1, "dim")) % len(site.coupling.size_of(site.old.args[0]))  # type: ignore[arg-type]
    _sizes(site, 2, "sizes", offset=axis)


def _convolution(site: _Site) -> None:
    groups = argument(site.new, 6, "groups", 1)
    if groups == 1:
        return
    name = str(site.old.args[1].target)  # type: ignore[union-attr]
    channels = groups * int(site.coupling.traced.tensor(name).shape[1])
    inputs = site.kept(site.old.args[0]).get(1, (channels, channels))[1]
    site.set_arg(6, "groups", inputs // site.kept_tensor(name, 1))


def _layer_norm(site: _Site) -> None:
    shape = list(site.new.args[1])  # type: ignore[arg-type]
    first = len(site.coupling.size_of(site.old)) - len(shape)
    for dim, (_, new) in site.kept(site.old).items():
        if dim >= first:
            shape[dim - first] = new
    site.set_arg(1, "normalized_shape", shape)


def _group_norm(site: _Site) -> None:
    changed = site.kept(site.old).get(1)
    groups = int(site.new.args[1])  # type: ignore[arg-type]
    if changed and groups > 1:
        site.set_arg(1, "num_groups", groups * changed[1] // changed[0])


def _split(site: _Site) -> None:
    pieces = site.coupling.size_of(site.old)
    axis = int(argument(site.new, 2, "dim", 0)) % len(pieces[0])
    if site.flags(site.old.args[0], axis) is None:
        return
    sizes = [site.kept(site.old, item=i).get(axis, (0, piece[axis]))[1] for i, piece in enumerate(pieces)]
    site.new.target = aten.split_with_sizes.default
    site.new.args, site.new.kwargs = (site.new.args[0], sizes, axis), {}


def _slice(site: _Site) -> None:
    axis = int(argument(site.new, 1, "dim", 0)) % len(site.coupling.size_of(site.old))
    flags = site.flags(site.old.args[0], axis)
    if flags is None:
        return
    start, end = argument(site.new, 2, "start", 0) or 0, argument(site.new, 3, "end")
    bounds = slice(start, end).indices(len(flags))
    site.set_arg(2, "start", int(flags[: bounds[0]].sum()))
    site.set_arg(3, "end", int(flags[: bounds[1]].sum()))


def _narrow(site: _Site) -> None:
    axis = int(argument(site.new, 1, "dim", 0)) % len(site.coupling.size_of(site.old))
    flags = site.flags(site.old.args[0], axis)
    if flags is None:
        return
    start, length = int(site.new.args[2]), int(site.new.args[3])  # type: ignore[arg-type]
    site.set_arg(2, "start", int(flags[:start].sum()))
    site.set_arg(3, "length", int(flags[start : start + length].sum()))


def _select(site: _Site) -> None:
    axis = int(site.new.args[1]) % len(site.coupling.size_of(site.old.args[0]))  # type: ignore[arg-type]
    flags = site.flags(site.old.args[0], axis)
    if flags is not None:
        site.set_arg(2, "index", int(flags[: int(site.new.args[2])].sum()))  # type: ignore[arg-type]


def _attention(site: _Site) -> None:
    """The default scale is 1/sqrt(width): keep the original's when the width itself shrinks."""
    width = len(site.coupling.size_of(site.old.args[0])) - 1  # type: ignore[arg-type]
    changed = site.kept(site.old.args[0]).get(width)
    if changed and argument(site.new, 6, "scale") is None:
        site.new.kwargs = {**site.new.kwargs, "scale": 1 / math.sqrt(changed[0])}


_REWRITES: dict[str, Callable[[_Site], None]] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "expand", "broadcast_to"), _view),
    "unflatten": _unflatten,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    "group_norm": _group_norm,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_split", "unsafe_chunk"), _split),
    "slice": _slice,
    "narrow": _narrow,
    "select": _select,
    "scaled_dot_product_attention": _attention,
}
