"""Pruning inside the one training loop: masks that hold, tighten, or zero softly; sparsity penalties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from lilliput.graph import Traced
from lilliput.graph.coupling import Group
from lilliput.prune.allocation import Allocation
from lilliput.prune.criteria import Criterion
from lilliput.prune.schedules import Gradual, Soft
from lilliput.prune.statistics import Statistic, Stats, gather
from lilliput.prune.units import Plan, Scores
from lilliput.train import Hook, State


class Compensation(Protocol):
    """`(network, stats, masks) -> weights`: a recovery that makes up for what the masks are about to remove."""

    @property
    def needs(self) -> frozenset[Statistic]:
        """The statistics that it reads."""
        ...

    def __call__(self, traced: Traced, stats: Stats, masks: Mapping[str, Tensor], /) -> Mapping[str, Tensor]:
        """New weights by their names."""
        ...


def removed_units(group: Group, masks: Mapping[str, Tensor]) -> Tensor:
    """Flags of the units of coupled channels that masks silence."""
    gone = torch.zeros(group.units, dtype=torch.bool)
    for slot in group.slots:
        if slot.role == "out" and slot.tensor in masks:
            silent, unit = ~masks[slot.tensor].movedim(slot.dim, 0).flatten(1).bool().any(1), torch.from_numpy(slot.unit)
            gone[unit[(unit >= 0) & silent]] = True
    return gone


def change_weights_(model: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give parameters new values in place."""
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            tensors[name].copy_(value)


def apply_masks_(model: torch.nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Zero masked weights in place."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, mask in masks.items():
            tensors[name].mul_(mask.to(tensors[name]))


class HoldMasks(Hook):
    """Masked weights stay exactly zero: before the first step and after every one."""

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self.masks = dict(masks)

    def start(self, state: State) -> None:
        """Zero what the mask removes."""
        apply_masks_(state.model, self.masks)

    def step(self, state: State) -> None:
        """Zero what momentum or decay brought back."""
        apply_masks_(state.model, self.masks)

    def state_dict(self) -> dict[str, Any]:
        """The masks."""
        return {"masks": self.masks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The masks."""
        self.masks = dict(state["masks"])


class TightenMasks(HoldMasks):
    """Masks that follow a schedule while the network trains, towards the sparsity that `amount` asks for by the scores of the moment.

    See `Gradual` and `Soft`.
    """

    def __init__(self, plan: Plan, criterion: Criterion, allocation: Allocation, amount: Callable[[Scores], float], schedule: Gradual | Soft,
                 compensate: Compensation | None = None) -> None:
        super().__init__({})
        self.plan, self.criterion, self.allocation, self.amount, self.schedule = plan, criterion, allocation, amount, schedule
        self.compensate = compensate
        self.fraction = 0.0

    def start(self, state: State) -> None:
        """Nothing is masked yet."""

    def step(self, state: State) -> None:
        """Tighten when the schedule says so, and hold."""
        if isinstance(self.schedule, Gradual):
            fraction = self.schedule.fraction(state.progress)
            if fraction > self.fraction:
                self._update(state, fraction)
            super().step(state)

    def epoch(self, state: State) -> None:
        """Soft pruning zeroes once an epoch and holds nothing."""
        if isinstance(self.schedule, Soft):
            self._update(state, 1.0)
            apply_masks_(state.model, self.masks)

    def _update(self, state: State, fraction: float) -> None:
        assert isinstance(state.model, Traced)
        self.fraction = fraction
        needs = self.criterion.needs | (frozenset() if self.compensate is None else self.compensate.needs)
        stats = gather(state.model, state.data, needs, seed=state.config.seed)
        scores = self.plan.scores(self.criterion, stats, state.model)
        keep = self.plan.keep(scores, self.allocation(scores, self.amount(scores) * fraction))
        self.masks = self.plan.masks(keep)
        if self.compensate is not None:
            change_weights_(state.model, self.compensate(state.model, stats, self.masks))

    def state_dict(self) -> dict[str, Any]:
        """The masks and how far they have tightened."""
        return {"masks": self.masks, "fraction": self.fraction}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The masks and how far they have tightened."""
        super().load_state_dict(state)
        self.fraction = float(state["fraction"])


class NormPenalty(Hook):
    """`strength * sum |gamma|` over batch-norm scales, as a subgradient (Liu 2017, `liu2017slimming`)."""

    def __init__(self, names: tuple[str, ...], strength: float) -> None:
        self.names, self.strength = names, strength

    def gradients(self, state: State) -> None:
        """Add `strength * sign(gamma)`."""
        parameters = dict(state.model.named_parameters())
        for name in self.names:
            gradient = parameters[name].grad
            if gradient is not None:
                gradient.add_(parameters[name].detach().sign(), alpha=self.strength)

