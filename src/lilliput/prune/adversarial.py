"""Pruning without labels: masks learn which structures are needed for outputs that nobody can tell from the original's."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.during import Pruning
from lilliput.prune.fitting import Target
from lilliput.prune.soft_masks import margins, masked, masks_of, settled
from lilliput.prune.structures import StructurePlan
from lilliput.train import SGD, Fit, Hook, Optimizer, State, evaluating

_WIDTHS = (128, 256, 128)


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """Masks and weights are trained against a discriminator, then the units of the smallest masks go. (lin2019gal)

    With `f_b` the original's outputs and `f_g` those under masks, weights and masks minimise
    `BCE(D(f_g), 1) + data mean (f_b - f_g)^2 + strength |m|_1`, the masks by FISTA of step `rate`, cut at zero; the discriminator `D`, layers
    of 128, 256 and 128 with ReLU and one output, minimises `BCE(D(f_b), 1) + BCE(D(f_g), 0) + BCE(D(f_g), 1)`, where the last is the paper's
    adversarial regularisation. The L2 term on weights is the weight decay of the training's optimizer. No label is used.

    Departs from the paper: masks start at one (the authors' code draws them from a normal distribution), lie on coupled channels and on
    residual branches at once, and move at every step (every 200 steps there). The L1 term acts only while the network without what is zero
    costs more than the budget, and in the end the smallest masks go until the budget is met, those at zero by how far under it they were
    pressed; the paper removes what is zero. The last layer of the discriminator is ours: the code's ends at 128. `fine_tune` trains what is
    left, with labels.
    """

    strength: float = 0.1
    rate: float = 0.1
    data: float = 1.0
    discriminator: Optimizer = field(default_factory=lambda: SGD(lr=0.01, nesterov=False))
    fine_tune: Fit | None = None

    def __post_init__(self) -> None:
        if min(self.strength, self.rate, self.data) <= 0:
            raise RecipeError(f"strength, rate and data are positive, not {self.strength}, {self.rate} and {self.data}")

    def carry_out(self, traced: Traced, pruning: Pruning) -> tuple[Traced, list[Keep]]:
        """Train under masks, fold them into the weights, and remove; raises `PreconditionError` for another unit."""
        plan = pruning.plan
        if not isinstance(plan, StructurePlan):
            raise PreconditionError("these masks lie on channels and branches: pass unit=Structures(...)")
        if not pruning.target.structural(plan):
            raise PreconditionError("masks are trained until a count is met: give the budget as macs or params")
        hook = Adversary(traced, plan, pruning.target, self)
        trained = pruning.train(masked(traced, plan), pruning.fit, (hook,), "recover")
        whole = settled(trained)
        # Units whose gradients have vanished, in a branch that is gone, are pressed alike: norms order those.
        norms = [values / max(values.max(), 1e-30) for values in pruning.scores(traced)]
        scores = [margin + 1e-6 * norm for margin, norm in zip(margins(trained, plan), norms, strict=True)]
        keep = pruning.kept(scores, whole)
        small = plan.apply(keep, whole)
        return (small if self.fine_tune is None else pruning.train(small, self.fine_tune, (), "after")), keep


def shrunk(values: Tensor, slope: Tensor, rate: float, strength: float) -> Tensor:
    """`y - rate (g + strength)`: cut at zero, the proximal step of `strength |m|_1` for masks `m >= 0`."""
    return values - rate * (slope + strength)


def momentum(a: float) -> tuple[float, float]:
    """FISTA's next `a' = (1 + sqrt(1 + 4 a^2)) / 2`, and the factor `(a - 1) / a'` of the last move.

    >>> [round(x, 4) for x in momentum(1.0)]
    [1.618, 0.0]
    """
    after = (1 + math.sqrt(1 + 4 * a * a)) / 2
    return after, (a - 1) / after


class Adversary(Hook):
    """Replaces the task's loss by the adversarial and the data loss, and moves masks by FISTA."""

    def __init__(self, original: Traced, plan: StructurePlan, target: Target, schedule: Adversarial) -> None:
        self.original, self.plan, self.target, self.schedule = copy.deepcopy(original), plan, target, schedule
        self.judge: nn.Sequential | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._a = 1.0

    def __repr__(self) -> str:
        return f"Adversary({self.schedule!r}, target={self.target!r})"

    def start(self, state: State) -> None:
        """Draw the discriminator."""
        device = state.fabric.device
        self.original.to(device)
        with evaluating(self.original):
            width = self._outputs(*(x.to(device) for x in self.original.example)).shape[-1]
        sizes = (width, *_WIDTHS)
        hidden = [layer for i in range(len(_WIDTHS)) for layer in (nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU())]
        self.judge = nn.Sequential(*hidden, nn.Linear(_WIDTHS[-1], 1)).to(device)
        self._optimizer = self.schedule.discriminator.build(self.judge.parameters())
        self._a = 1.0

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:  # noqa: ARG002
        """Train the discriminator on this batch, and the masked network to fool it."""
        assert self.judge is not None
        assert self._optimizer is not None
        assert state.inputs is not None
        with evaluating(self.original):
            real = self._outputs(state.inputs)
        self._optimizer.zero_grad()
        fake = self.judge(outputs.detach())
        told = _entropy(self.judge(real), 1.0) + _entropy(fake, 0.0) + _entropy(fake, 1.0)
        told.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.judge.requires_grad_(False)
        wanted = _entropy(self.judge(outputs), 1.0) + self.schedule.data * F.mse_loss(outputs, real)
        self.judge.requires_grad_(True)
        return wanted

    def gradients(self, state: State) -> None:
        """Move the masks, and leave the optimizer nothing to do for them."""
        after, factor = momentum(self._a)
        strength = 0.0 if self._met(state) else self.schedule.strength
        for mask in masks_of(state.model).values():
            slope, mask.values.grad = mask.values.grad, None
            if slope is None:
                continue
            with torch.no_grad():
                mask.margin.copy_(shrunk(mask.values, slope, self.schedule.rate, strength))
                found = mask.margin.clamp(min=0)
                mask.values.copy_(found + factor * (found - mask.settled))
                mask.settled.copy_(found)
        self._a = after

    def end(self, state: State) -> None:
        """Leave the network with the masks that were found."""
        with torch.no_grad():
            for mask in masks_of(state.model).values():
                mask.values.copy_(mask.settled)

    def _met(self, state: State) -> bool:
        """Whether the network without what is zero is within the budget."""
        found = margins(state.model, self.plan)
        keep = self.plan.keep(found, np.array([float(np.mean(values <= 0)) for values in found]))
        costs = self.plan.cost(keep)
        return self.target.met({name: costs[name] for name in self.target.limits})

    def _outputs(self, *inputs: Tensor) -> Tensor:
        found = self.original(*inputs)
        if not isinstance(found, Tensor):
            raise PreconditionError(f"the network returns a {type(found).__name__}, and a discriminator judges one tensor: "
                                    "pass a network that returns one")
        return found

    def state_dict(self) -> dict[str, Any]:
        """The discriminator, its optimizer, and how fast the masks are."""
        assert self.judge is not None
        assert self._optimizer is not None
        return {"judge": dict(self.judge.state_dict()), "optimizer": self._optimizer.state_dict(), "a": self._a}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The same."""
        assert self.judge is not None
        assert self._optimizer is not None
        self.judge.load_state_dict(state["judge"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._a = float(state["a"])


def _entropy(scores: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, label))
