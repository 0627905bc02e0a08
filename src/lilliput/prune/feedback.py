"""A threshold that feels its way: how fast filters go while the network trains follows what the loss says of going further."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.during import Pruning
from lilliput.prune.hooks import HoldMasks, apply_masks_
from lilliput.prune.inactivity import norms
from lilliput.prune.units import ChannelPlan, Scores
from lilliput.train import Batch, Loss, State, loss_of
from lilliput.train.evaluate import device_of


@dataclass(frozen=True, kw_only=True)
class SensitivityFeedback:
    """Channels whose score lies under a threshold are masked for good; the threshold rises as the loss allows. (zhang2022aster)

    From the paper's abstract: no penalty, so what stays is changed by training alone; the threshold moves while the network trains; the
    sensitivity of the loss to it, `dL*/dh` with `L*(h)` the least loss over scales and shifts of batch norms, is had by L-BFGS on these
    alone; and it is weighed against what is saved.

    All else is our reading. `updates` times in the share `end` of the training, on a batch of `batch_size`, `L*` is compared at the threshold
    and at one `stride` higher. Where it rises by no more than `balance` times the share of multiplications that this saves, the threshold
    goes there and the stride doubles, else the stride is halved. Scores are squared norms over their layer's mean, and the first stride
    is `stride`. A step that would pass the budget ends on it, and at `end` the threshold goes to the budget in any case.
    """

    updates: int = 20
    end: float = 0.5
    stride: float = 0.05
    balance: float = 3.0
    batch_size: int = 128
    iterations: int = 4

    def __post_init__(self) -> None:
        if not (min(self.updates, self.batch_size, self.iterations) >= 1 and 0 < self.end <= 1 and self.stride > 0 and self.balance >= 0):
            raise RecipeError("SensitivityFeedback has updates, a batch size and iterations from 1, an end in (0, 1], a positive stride "
                              f"and a balance from 0, not {self}")

    def carry_out(self, traced: Traced, pruning: Pruning) -> tuple[Traced, list[Keep]]:
        """Train with the threshold, and remove what is masked; raises `PreconditionError` without channels or batch norm."""
        if not isinstance(pruning.plan, ChannelPlan):
            raise PreconditionError("the threshold is on channels: pass unit=Channels()")
        if not norms(traced):
            raise PreconditionError("the loss's sensitivity is measured on batch norms, and this network has no batch norm: pass one that has")
        trained = pruning.train(traced, pruning.fit, (AdaptThreshold(pruning, self),), "recover")
        keep = pruning.kept(pruning.scores(trained), trained)
        return pruning.plan.apply(keep, trained), keep


class AdaptThreshold(HoldMasks):
    """Moves the threshold, and holds what is under it at zero."""

    def __init__(self, pruning: Pruning, settings: SensitivityFeedback) -> None:
        super().__init__({})
        self.pruning, self.settings = pruning, settings
        self.threshold, self.stride, self.taken, self.done = 0.0, settings.stride, 0, False

    def __repr__(self) -> str:
        return f"AdaptThreshold({self.settings!r})"

    def step(self, state: State) -> None:
        """Move the threshold when it is time, and hold."""
        position = min(state.progress / self.settings.end, 1.0)
        due = math.floor(position * self.settings.updates)
        if due > self.taken and not self.done:
            assert isinstance(state.model, Traced)
            self.taken = due
            self.update(state.model, state.config.seed + due, last=position >= 1)
        super().step(state)

    def update(self, model: Traced, seed: int, *, last: bool) -> None:
        """Compare, and go on or wait."""
        plan, scores = self.pruning.plan, self.pruning.scores(model)
        present, further = self._above(scores, self.threshold), self._above(scores, self.threshold + self.stride)
        last = last or self._met(present, model)
        ends = last or self._met(further, model)
        if ends:
            further = self.pruning.kept(scores, model)
        saved = (self._macs(present) - self._macs(further)) / self._macs(plan.everything())
        if last or self._rise(model, present, further, seed) <= self.settings.balance * saved:
            self.masks, self.done = plan.masks(further), ends
            self.threshold, self.stride = self.threshold + self.stride, 2 * self.stride
        else:
            self.masks, self.stride = plan.masks(present), self.stride / 2

    def _met(self, keep: list[Keep], model: Traced) -> bool:
        return self.pruning.target.met(self.pruning.target.cost(self.pruning.plan, keep, lambda: self.pruning.plan.apply(keep, model)))

    def _above(self, scores: Scores, threshold: float) -> list[Keep]:
        # What is zero goes with any threshold.
        return self.pruning.plan.keep(scores, np.array([float(np.mean(values <= threshold)) for values in scores]))

    def _macs(self, keep: list[Keep]) -> float:
        return self.pruning.plan.cost(keep)["macs"]

    def _rise(self, model: Traced, present: list[Keep], further: list[Keep], seed: int) -> float:
        if all(np.array_equal(a, b) for a, b in zip(present, further, strict=True)):
            return 0.0
        inputs, targets = next(iter(self.pruning.data.train.batches(self.settings.batch_size, seed=seed)))
        device = device_of(model)
        batch, loss = (inputs.to(device), targets.to(device)), loss_of(self.pruning.data)
        after, before = (least_loss(model, self.pruning.plan.masks(keep), batch, loss, self.settings.iterations) for keep in (further, present))
        return after - before if math.isfinite(after) else math.inf

    def state_dict(self) -> dict[str, Any]:
        """The masks, and where the threshold is."""
        return {**super().state_dict(), "threshold": self.threshold, "stride": self.stride, "taken": self.taken, "done": int(self.done)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The masks, and where the threshold is."""
        super().load_state_dict(state)
        self.threshold, self.stride = float(state["threshold"]), float(state["stride"])
        self.taken, self.done = int(state["taken"]), bool(state["done"])


def least_loss(traced: Traced, masks: Mapping[str, Tensor], batch: Batch, loss: Loss, iterations: int) -> float:
    """The loss on a batch under masks after `iterations` steps of L-BFGS on scales and shifts of batch norms; the network stays as it is."""
    model = copy.deepcopy(traced).eval()
    apply_masks_(model, masks)
    learned = dict.fromkeys(name for pair in norms(model) for name in pair)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learned)
    parameters = {name: p for name, p in model.named_parameters() if name in learned}
    optimizer = torch.optim.LBFGS(list(parameters.values()), max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(model(batch[0]), batch[1])
        value.backward()  # type: ignore[no-untyped-call]
        for name, p in parameters.items():
            if p.grad is not None and name in masks:
                p.grad.mul_(masks[name].to(p.grad))  # a shift alone would bring a masked channel back
        return value

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return float(loss(model(batch[0]), batch[1]))
