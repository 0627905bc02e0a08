"""Growth: sparse from the first step to the last, with masks that move: what is dropped grows back somewhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lilliput.core.errors import RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.allocation import global_threshold
from lilliput.prune.criteria import Magnitude
from lilliput.prune.during import Pruning
from lilliput.prune.fitting import meet
from lilliput.prune.hooks import HoldMasks
from lilliput.prune.schedules import Curve, cosine_decay
from lilliput.prune.statistics import Stats
from lilliput.train import State

Tensors = Mapping[str, Tensor]


class Drop(Protocol):
    """What goes at a rewiring."""

    def __call__(self, weights: Tensors, masks: Tensors, share: float, memory: dict[str, float]) -> dict[str, Tensor]:
        """The masks of what survives when about `share` of the weights go; `memory` is kept from one rewiring to the next."""
        ...


class Grow(Protocol):
    """What comes in its place: where `potential` is highest among what is not there."""

    @property
    def smoothing(self) -> float:
        """How much of its signal is of earlier steps: `signal <- smoothing signal + (1 - smoothing) gradient`, of all weights."""
        ...

    def __call__(self, signal: Tensor, generator: torch.Generator) -> Tensor:
        """The potential of every weight."""
        ...


Redistribution = Callable[[Tensors, Tensors, Tensors], dict[str, int]]


@dataclass(frozen=True)
class Smallest:
    """The same share of each layer's weights, rounded down, goes: those of the smallest magnitude. (evci2020rigl)"""

    def __call__(self, weights: Tensors, masks: Tensors, share: float,
                 memory: dict[str, float]) -> dict[str, Tensor]:  # noqa: ARG002
        """The masks of what survives."""
        counts = {name: int(mask.sum()) for name, mask in masks.items()}
        left = {name: count - int(share * count) for name, count in counts.items()}
        return {name: highest(weights[name].abs(), mask, left[name]) for name, mask in masks.items()}


@dataclass(frozen=True, kw_only=True)
class AdaptiveThreshold:
    """Weights under one threshold for all layers go, which then doubles or halves to bring their number nearer to what is wanted.

    It doubles after fewer than `1 - tolerance` times as many as wanted, and halves after more than `1 + tolerance` times. The
    first is the one that drops the share exactly, where the paper starts from a number; the largest weight of a layer always
    stays. (mostafa2019dsr)
    """

    tolerance: float = 0.1

    def __call__(self, weights: Tensors, masks: Tensors, share: float, memory: dict[str, float]) -> dict[str, Tensor]:
        """The masks of what survives."""
        present = torch.cat([weights[name].abs()[mask] for name, mask in masks.items()]).sort().values
        wanted = share * len(present)
        first = float(present[min(int(wanted), len(present) - 1)])
        threshold = memory.get("threshold") or max(first, torch.finfo(present.dtype).tiny)
        far = {name: weights[name].abs() for name in masks}
        survivors = {name: mask & (far[name] >= min(threshold, float(far[name].max()))) for name, mask in masks.items()}
        dropped = len(present) - sum(int(mask.sum()) for mask in survivors.values())
        factor = 2.0 if dropped < (1 - self.tolerance) * wanted else 0.5 if dropped > (1 + self.tolerance) * wanted else 1.0
        memory["threshold"] = threshold * factor
        return survivors


@dataclass(frozen=True, kw_only=True)
class Steepest:
    """`|dL/dw|` of weights that are not there too, or of its running mean, a momentum. (evci2020rigl, dettmers2019momentum)"""

    smoothing: float = 0.0

    def __call__(self, signal: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """The potential of every weight."""
        return signal.abs()


@dataclass(frozen=True)
class AtRandom:
    """Anywhere alike, but first where the gradient is not zero: behind a dead channel a weight would stay so. (mostafa2019dsr)"""

    smoothing: float = 0.0

    def __call__(self, signal: Tensor, generator: torch.Generator) -> Tensor:
        """The potential of every weight."""
        return torch.rand(signal.shape, generator=generator).to(signal) + (signal != 0)


def in_place(masks: Tensors, survivors: Tensors, signal: Tensors) -> dict[str, int]:  # noqa: ARG001
    """Every layer grows what it dropped. (evci2020rigl)"""
    return {name: int(mask.sum()) - int(survivors[name].sum()) for name, mask in masks.items()}


def to_survivors(masks: Tensors, survivors: Tensors, signal: Tensors) -> dict[str, int]:
    """Layers grow in proportion to how many of their weights survive. (mostafa2019dsr)"""
    return _redistributed(masks, survivors, [float(survivors[name].sum()) for name in masks], signal)


def to_momentum(masks: Tensors, survivors: Tensors, signal: Tensors) -> dict[str, int]:
    """Layers grow in proportion to the mean of `|signal|` over the weights that they had. (dettmers2019momentum)"""
    means = [float(signal[name].abs()[mask].mean()) if bool(mask.any()) else 0.0 for name, mask in masks.items()]
    return _redistributed(masks, survivors, means, signal)


def _redistributed(masks: Tensors, survivors: Tensors, weights: Sequence[float], signal: Tensors) -> dict[str, int]:
    """Portions, of no more than can learn: where the gradient is exactly zero nothing would."""
    total = sum(in_place(masks, survivors, signal).values())
    room = [int((~survivors[name] & (signal[name] != 0)).sum()) for name in masks]
    if sum(room) < total:
        room = [mask.numel() - int(survivors[name].sum()) for name, mask in masks.items()]
    return dict(zip(masks, portions(weights, total, room), strict=True))


def portions(weights: Sequence[float], total: int, room: Sequence[int]) -> list[int]:
    """`total` things shared in proportion to `weights`, with no more than `room` for each; what does not fit goes to the others.

    What rounding leaves goes to those with the largest share of it.
    """
    counts, limits = np.zeros(len(room), dtype=np.int64), np.asarray(room, dtype=np.int64)
    total = min(total, int(limits.sum()))
    while (left := total - int(counts.sum())) > 0:
        free = limits > counts
        wanted = np.where(free, np.asarray(weights, dtype=np.float64), 0.0)
        wanted = wanted if wanted.sum() > 0 else free.astype(np.float64)
        ideal = left * wanted / wanted.sum()
        given = np.minimum(np.floor(ideal).astype(np.int64), limits - counts)
        if not given.any():
            given[np.argsort(np.where(free, -ideal, np.inf), kind="stable")[: min(left, int(free.sum()))]] = 1
        counts += given
    return [int(count) for count in counts]


def highest(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """A mask of the `count` highest scores where `among` is true; of equal ones the first in memory."""
    order = torch.where(among, scores, -torch.inf).flatten().sort(descending=True, stable=True).indices
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order[:count]] = True
    return mask.view(scores.shape) & among


@dataclass(frozen=True, kw_only=True)
class Rewiring:
    """Every `interval` steps the share `share * decay(t / end)` of the weights is dropped and as many grow, until `t = end`.

    The criterion chooses where the network starts. Weights that grow start from zero, with nothing in the optimizer's memory,
    unless they were dropped at the same rewiring. The gradient that decides is that of the step, before the optimizer moves the
    weights; the optimizer then moves those of the new masks, where the papers leave that step out. A budget of MACs, which
    weights that change layers can exceed, is met at last by leaving out the smallest weights.
    """

    drop: Drop = field(default_factory=Smallest)
    grow: Grow = field(default_factory=Steepest)
    redistribute: Redistribution = in_place
    share: float = 0.3
    decay: Curve = cosine_decay
    interval: int = 100
    end: float = 0.75

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and 0 < self.end <= 1 and self.interval >= 1):
            raise RecipeError("Rewiring has a share and an end in (0, 1] and an interval from 1, "
                              f"not {self.share}, {self.end} and {self.interval}")

    def fraction(self, t: float) -> float:
        """The share of weights that moves at the share `t` of training."""
        return self.share * self.decay(t / self.end) if t < self.end else 0.0

    def carry_out(self, traced: Traced, pruning: Pruning) -> tuple[Traced, list[Keep]]:
        """Train with masks that move; what is kept is what is not zero at the end."""
        plan = pruning.elements()
        hook = Rewire(plan.masks(pruning.keep), self)
        trained = pruning.train(plan.apply(pruning.keep, traced), pruning.fit, (hook,), "recover")
        keep = plan.present(trained)
        if not pruning.target.met(pruning.target.cost(plan, keep, lambda: trained)):
            keep = meet(plan, plan.scores(Magnitude(), Stats(), trained), global_threshold, pruning.target, trained)[1]
            trained = plan.apply(keep, trained)
            keep = plan.present(trained)
        return trained, keep


class Rewire(HoldMasks):
    """Masks that move by a `Rewiring`."""

    def __init__(self, masks: Tensors, rewiring: Rewiring) -> None:
        super().__init__(masks)
        self.rewiring = rewiring
        self.smoothed: dict[str, Tensor] = {}
        self.memory: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"Rewire({self.rewiring!r})"

    def gradients(self, state: State) -> None:
        """Hear the gradients of all weights, rewire when it is time, and leave those of masked weights out."""
        parameters = dict(state.model.named_parameters())
        self.masks = {name: mask.to(parameters[name].device) for name, mask in self.masks.items()}
        gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name in self.masks for p in (parameters[name],)}
        signal = self._heard(gradients)
        fraction = self.rewiring.fraction(state.progress)
        if fraction > 0 and state.step > 0 and state.step % self.rewiring.interval == 0:
            with torch.no_grad():
                self._rewire(state, {name: parameters[name] for name in self.masks}, signal, fraction)
        for name, mask in self.masks.items():
            gradients[name].mul_(mask)

    def _heard(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        keep = self.rewiring.grow.smoothing
        if keep == 0:
            return gradients
        self.smoothed = {name: keep * self.smoothed[name].to(g) + (1 - keep) * g if name in self.smoothed else (1 - keep) * g
                         for name, g in gradients.items()}
        return self.smoothed

    def _rewire(self, state: State, parameters: dict[str, nn.Parameter], signal: Tensors, fraction: float) -> None:
        assert state.optimizer is not None
        survivors = self.rewiring.drop(parameters, self.masks, fraction, self.memory)
        counts = self.rewiring.redistribute(self.masks, survivors, signal)
        generator = torch.Generator().manual_seed(state.config.seed * 1_000_003 + state.step)
        for name, kept in survivors.items():
            mask = kept | highest(self.rewiring.grow(signal[name], generator), ~kept, counts[name])
            stayed = mask & self.masks[name]
            parameters[name].mul_(mask)
            for value in state.optimizer.state[parameters[name]].values():
                if isinstance(value, Tensor) and value.shape == mask.shape:
                    value.mul_(stayed)
            self.masks[name] = mask

    def state_dict(self) -> dict[str, Any]:
        """The masks, the running mean of gradients, and what dropping remembers."""
        return {**super().state_dict(), "smoothed": self.smoothed, "memory": self.memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The masks, the running mean of gradients, and what dropping remembers."""
        super().load_state_dict(state)
        self.smoothed, self.memory = dict(state["smoothed"]), {name: float(value) for name, value in state["memory"].items()}
