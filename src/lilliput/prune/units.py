"""Units: what is removed as one piece, as a pair of reduce (scores) and expand (masks, networks)."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced, profile
from lilliput.graph.cost import Cost
from lilliput.graph.coupling import Coupling, Group, Keep, Slot
from lilliput.graph.shrink import shrink
from lilliput.prune.criteria import Criterion, Joint, Layer
from lilliput.prune.reasons import indices
from lilliput.prune.statistics import Stats

Scores = list[NDArray[np.float64]]
Row = dict[str, Any]


class Plan(Protocol):
    """What can be removed from one network, in groups of units."""

    def everything(self) -> list[Keep]:
        """The choice that removes nothing."""
        ...

    def scores(self, criterion: Criterion, stats: Stats, traced: Traced) -> Scores:
        """Reduce: one score per unit, per group, with the weights of `traced`."""
        ...

    def keep(self, scores: Scores, sparsity: NDArray[np.float64]) -> list[Keep]:
        """The best units of each group, given the share of each to remove."""
        ...

    def cost(self, keep: Sequence[Keep]) -> dict[str, float]:
        """What a choice costs, as far as structure alone tells."""
        ...

    def masks(self, keep: Sequence[Keep]) -> dict[str, Tensor]:
        """Expand: ones and zeros by tensor name."""
        ...

    def apply(self, keep: Sequence[Keep], traced: Traced) -> Traced:
        """Expand: the pruned network, with the weights of `traced`."""
        ...

    def rows(self, keep: Sequence[Keep], sensitivity: Sequence[float] | None = None) -> list[Row]:
        """A row per layer for the report; with `sensitivity` per group where it was measured."""
        ...

    def notes(self) -> tuple[str, ...]:
        """What a reader of the report should know."""
        ...


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Coupled channels and heads: the result is a smaller dense network.

    `round_to` rounds the number of units kept in each group up to a multiple (what vector units like), `exclude`
    names layers by pattern whose groups stay whole, `per_layer` divides every layer's scores by their mean, so that
    layers coupled by a residual sum, or compared globally, count alike.
    """

    round_to: int = 1
    exclude: tuple[str, ...] = ()
    per_layer: bool = True

    def plan(self, traced: Traced) -> Plan:
        """Find the coupled channels of a network."""
        return ChannelPlan(traced, self)


class ChannelPlan:
    """Channels of one network."""

    def __init__(self, traced: Traced, unit: Channels) -> None:
        self.unit = unit
        self.coupling = Coupling(traced)
        self.groups = tuple(g for g in self.coupling.groups if not self._excluded(g))
        self._cost = Cost(self.coupling)

    def _excluded(self, group: Group) -> bool:
        return any(fnmatch.fnmatch(layer, pattern) for layer in group.layers for pattern in self.unit.exclude)

    def everything(self) -> list[Keep]:
        """The choice that removes nothing."""
        return [np.ones(g.units, dtype=np.bool_) for g in self.groups]

    def scores(self, criterion: Criterion, stats: Stats, traced: Traced) -> Scores:
        """One score per unit: over a unit's slices of a tensor the sum, over coupled tensors the mean; or what a `Joint` criterion says."""
        return [self._group_scores(group, criterion, stats, traced) for group in self.groups]

    def _group_scores(self, group: Group, criterion: Criterion, stats: Stats, traced: Traced) -> NDArray[np.float64]:
        if isinstance(criterion, Joint):
            return criterion.joined(self.parts(group, criterion, stats, traced)).numpy()
        total, counted = np.zeros(group.units), np.zeros(group.units)
        for slot in _scored(group, criterion):
            part = _slot_scores(slot, criterion, stats, traced, group.units)
            present = np.zeros(group.units, dtype=np.bool_)
            present[slot.unit[slot.unit >= 0]] = True
            mean = part[present].mean()
            total += part / mean if self.unit.per_layer and mean > 0 else part
            counted += present
        return total / np.maximum(counted, 1)

    def parts(self, group: Group, criterion: Joint, stats: Stats, traced: Traced) -> list[Tensor]:
        """What a criterion says of a group's units together, `(units, k)`, for each tensor that it looks at."""
        return [_over_units(slot, _values(slot, criterion, stats, traced), group.units) for slot in _scored(group, criterion)]

    def keep(self, scores: Scores, sparsity: NDArray[np.float64]) -> list[Keep]:
        """Keep the best units of each group; at least one, and at least one slice of every tensor."""
        chosen = []
        for values, share in zip(scores, sparsity, strict=True):
            count = len(values) - round(float(share) * len(values))
            multiple = self.unit.round_to
            count = min(len(values), max(1, -(-count // multiple) * multiple))
            kept = np.zeros(len(values), dtype=np.bool_)
            kept[np.argsort(-values, kind="stable")[:count]] = True
            chosen.append(kept)
        return self._repaired(chosen, scores)

    def _repaired(self, chosen: list[Keep], scores: Scores) -> list[Keep]:
        """Give the best unit back to every tensor that would lose its last slice."""
        flat = np.full(self.coupling.count, np.inf)
        flags = self.flags(chosen)
        for group, values in zip(self.groups, scores, strict=True):
            flat[group.components] = values
        for dims in self.coupling.dims.values():
            for components in dims.values():
                if not flags[components].any():
                    flags[components[np.argmax(flat[components])]] = True
        return [flags[group.components] for group in self.groups]

    def flags(self, keep: Sequence[Keep]) -> Keep:
        """A choice as one flag per component of the coupling."""
        flags = self.coupling.keep_all()
        for group, kept in zip(self.groups, keep, strict=True):
            flags[group.components] = kept
        return flags

    def cost(self, keep: Sequence[Keep]) -> dict[str, float]:
        """MACs and parameters of what is kept."""
        return self._cost(self.flags(keep))

    def masks(self, keep: Sequence[Keep]) -> dict[str, Tensor]:
        """Ones and zeros for every tensor that makes or shifts a removed channel: zeroed, the channel is silent."""
        out: dict[str, Tensor] = {}
        for group, kept in zip(self.groups, keep, strict=True):
            for slot in group.slots:
                if slot.role == "in" or slot.tensor.rpartition(".")[2] in ("running_mean", "running_var"):
                    continue
                tensor = self.coupling.traced.tensor(slot.tensor)
                flags = np.where(slot.unit >= 0, kept[slot.unit], True)
                shape = [1] * tensor.ndim
                shape[slot.dim] = -1
                mask = torch.from_numpy(flags).reshape(shape).expand(tensor.shape)
                out[slot.tensor] = out[slot.tensor] & mask if slot.tensor in out else mask
        return out

    def apply(self, keep: Sequence[Keep], traced: Traced) -> Traced:
        """The smaller network, with the weights of `traced` (the planned network, perhaps trained since)."""
        return shrink(self.coupling, self.flags(keep), weights=traced)

    def rows(self, keep: Sequence[Keep], sensitivity: Sequence[float] | None = None) -> list[Row]:
        """Channels before and after, per layer, and which went."""
        flags, rows = self.flags(keep), list[Row]()
        rises: dict[str, float] = {}
        for group, rise in zip(self.groups, sensitivity or (), strict=False):
            rises |= {layer: max(rise, rises.get(layer, rise)) for layer in group.layers}
        for (tensor, dim) in dict.fromkeys((s.tensor, s.dim) for g in self.groups for s in g.slots if s.role == "out"):
            components = self.coupling.dims[tensor][dim]
            layer = tensor.rpartition(".")[0] or tensor
            rows.append({"layer": layer, "channels_before": len(components), "channels_after": int(flags[components].sum()),
                         "removed": indices(~flags[components]), **({"sensitivity": rises[layer]} if layer in rises else {})})
        return rows

    def notes(self) -> tuple[str, ...]:
        """What stays whole because it could not be resolved."""
        return tuple(f"{name} kept whole: {reason}" for name, reason in self.coupling.excluded.items())


def _scored(group: Group, criterion: Criterion) -> list[Slot]:
    found = [s for s in group.slots if s.role in criterion.roles]
    return found or [s for s in group.slots if s.role == "out"]


def _slot_scores(slot: Slot, criterion: Criterion, stats: Stats, traced: Traced, units: int) -> NDArray[np.float64]:
    values = _values(slot, criterion, stats, traced)
    return _over_units(slot, values.flatten(1).sum(1) if values.ndim > 1 else values, units).numpy()


def _values(slot: Slot, criterion: Criterion, stats: Stats, traced: Traced) -> Tensor:
    tensor = traced.tensor(slot.tensor).detach()
    return criterion(Layer(name=slot.tensor, weight=tensor.movedim(slot.dim, 0), dim=slot.dim, role=slot.role), stats)


def _over_units(slot: Slot, values: Tensor, units: int) -> Tensor:
    """Sums over the indices of each unit, of numbers or vectors per index."""
    inside = slot.unit >= 0
    out = torch.zeros(units, *values.shape[1:], dtype=torch.float64)
    return out.index_add_(0, torch.from_numpy(slot.unit[inside]), values.double().cpu()[torch.from_numpy(inside)])


@dataclass(frozen=True, kw_only=True)
class Element:
    """Single weights of every layer that makes channels: the result has zeros, not fewer channels."""

    exclude: tuple[str, ...] = ()

    def plan(self, traced: Traced) -> Plan:
        """Find the weights of a network."""
        return ElementPlan(traced, self)


@dataclass(eq=False)
class ElementPlan:
    """Weights of one network; every weight tensor is a group, every weight a unit."""

    traced: Traced
    unit: Element
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        layers = {row.layer: row for row in self._profile.layers if row.macs}
        self._macs = {f"{name}.weight": row.macs for name, row in layers.items()}
        weights = {name: p for name, p in self.traced.named_parameters() if p.ndim > 1 and name in self._macs}
        self.names = tuple(n for n in weights
                           if not any(fnmatch.fnmatch(n.rpartition(".")[0], pattern) for pattern in self.unit.exclude))

    @cached_property
    def _profile(self) -> Any:
        return profile(self.traced)

    def everything(self) -> list[Keep]:
        """The choice that removes nothing."""
        return [np.ones(self.traced.tensor(n).numel(), dtype=np.bool_) for n in self.names]

    def scores(self, criterion: Criterion, stats: Stats, traced: Traced) -> Scores:
        """One score per weight, laid out as the tensor: an allocation may look at shapes."""
        found = []
        for name in self.names:
            weight = traced.tensor(name).detach()
            values = criterion(Layer(name=name, weight=weight), stats)
            if values.shape != weight.shape:
                raise PreconditionError(f"{type(criterion).__name__} scores channels and not single weights: pass unit=Channels()")
            found.append(values.double().cpu().numpy())
        return found

    def keep(self, scores: Scores, sparsity: NDArray[np.float64]) -> list[Keep]:
        """Keep the best weights of each tensor, at least one."""
        chosen = []
        for values, share in zip(scores, sparsity, strict=True):
            drop = min(round(float(share) * values.size), values.size - 1)
            kept = np.ones(values.size, dtype=np.bool_)
            if drop > 0:
                kept[np.argpartition(values.ravel(), drop - 1)[:drop]] = False
            chosen.append(kept)
        return chosen

    def cost(self, keep: Sequence[Keep]) -> dict[str, float]:
        """Non-zero parameters, and MACs with non-zero weights."""
        removed = sum(int((~k).sum()) for k in keep)
        saved = sum(self._macs[n] * float((~k).mean()) for n, k in zip(self.names, keep, strict=True))
        return {"params": self._profile.params - removed, "macs": self._profile.macs - saved}

    def masks(self, keep: Sequence[Keep]) -> dict[str, Tensor]:
        """Ones and zeros for every weight tensor."""
        return {n: torch.from_numpy(k).reshape(self.traced.tensor(n).shape) for n, k in zip(self.names, keep, strict=True)}

    def apply(self, keep: Sequence[Keep], traced: Traced) -> Traced:
        """The network with zeros in place."""
        import copy

        out = copy.deepcopy(traced)
        with torch.no_grad():
            for name, mask in self.masks(keep).items():
                out.tensor(name).mul_(mask.to(out.tensor(name)))  # in place, since it may have other names
        return out

    def present(self, traced: Traced) -> list[Keep]:
        """The choice that the zeros of a network make."""
        return [(traced.tensor(n).detach() != 0).cpu().numpy().ravel() for n in self.names]

    def rows(self, keep: Sequence[Keep], sensitivity: Sequence[float] | None = None) -> list[Row]:
        """Sparsity per layer."""
        rows: list[Row] = [{"layer": n.rpartition(".")[0], "sparsity": float((~k).mean())} for n, k in zip(self.names, keep, strict=True)]
        for row, rise in zip(rows, sensitivity or (), strict=False):
            row["sensitivity"] = rise
        return rows

    def notes(self) -> tuple[str, ...]:
        """Nothing is left unresolved."""
        return ("zeros save time only where the runtime skips them; the dense MACs are unchanged",)
