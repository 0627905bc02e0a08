"""Channels and heads that pruning of single weights or blocks has left empty, removed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lilliput.core.errors import BudgetError
from lilliput.graph import Traced
from lilliput.graph.coupling import Coupling, Group, Keep
from lilliput.graph.shrink import shrink
from lilliput.train import evaluating

_STATISTICS = ("running_mean", "running_var")


def without_empty_channels(traced: Traced) -> Traced:
    """The network without coupled channels and heads that compute nothing: what made them is all zero, or what reads them is.

    A channel whose weights are zero and whose bias is not is a constant; it goes only where nothing reads it. Whether the outputs stay
    what they are, to `1e-5` of the largest, is seen on noise, and groups that would change them stay whole: a layer norm counts silent
    channels, a sigmoid makes zero a half.
    """
    with torch.no_grad(), evaluating(traced):
        inputs = _noise(traced)
        wanted = torch.utils._pytree.tree_leaves(traced(*inputs))
        coupling = Coupling(traced)
        keep = coupling.keep_all()
        for group in coupling.groups:
            trials = (_without(group, empty, keep) for empty in _candidates(group, traced) if empty.any())
            keep = next((trial for trial in trials if _same(coupling, trial, inputs, wanted)), keep)
        return shrink(coupling, keep)


def _candidates(group: Group, traced: Traced) -> Iterator[NDArray[np.bool_]]:
    """Units of a group that may be empty: those that are silent or not read, or, if that was too much, the one or the other."""
    silent, unread = _silent(group, traced, ("out", "norm", "other")), _silent(group, traced, ("in",))
    yield silent | unread
    if silent.any() and unread.any():
        yield from (unread, silent)


def _without(group: Group, empty: NDArray[np.bool_], keep: Keep) -> Keep:
    """Flags without these units of a group, the first of which stays where they are all."""
    trial = keep.copy()
    trial[group.components[empty]] = False
    if empty.all():
        trial[group.components[0]] = True
    return trial


def _silent(group: Group, traced: Traced, roles: tuple[str, ...]) -> NDArray[np.bool_]:
    """Units all of whose slices of tensors with these roles are zero; none where there are no such tensors."""
    slots = [s for s in group.slots if s.role in roles and s.tensor.rpartition(".")[2] not in _STATISTICS]
    silent = np.full(group.units, bool(slots))
    for slot in slots:
        slices = traced.tensor(slot.tensor).detach().movedim(slot.dim, 0)
        used = (slices.reshape(len(slices), -1) != 0).any(1).cpu().numpy()
        silent[slot.unit[used & (slot.unit >= 0)]] = False
    return silent


def _same(coupling: Coupling, keep: Keep, inputs: tuple[Tensor, ...], wanted: list[Tensor]) -> bool:
    try:
        small = shrink(coupling, keep)
    except BudgetError:  # a tensor would lose its last slice
        return False
    found = torch.utils._pytree.tree_leaves(small.eval()(*inputs))
    return all(a.shape == b.shape and bool(((a - b).abs() <= 1e-5 * b.abs().max().clamp(min=1e-6)).all()) for a, b in zip(found, wanted, strict=True))


def _noise(traced: Traced) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(x.shape, generator=generator).to(x) if x.is_floating_point() else x for x in traced.example)
