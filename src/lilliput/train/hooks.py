"""Hooks: how pruning, distillation and quantization act inside the one loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lilliput.core.errors import PreconditionError
from lilliput.train.config import Fit
from lilliput.train.protocols import Dataset

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric
    from torch.nn.parallel import DistributedDataParallel

Batch = tuple[Tensor, Tensor]
Row = dict[str, float]


@dataclass(kw_only=True)
class State:
    """What hooks see of a run.

    `model` is the network itself, without wrappers of any strategy; `optimizer` is None in `start`; `step` counts
    the optimizer steps completed before the present batch, `epoch` from zero; `history` has a row per finished epoch.
    """

    model: nn.Module
    fabric: Fabric
    data: Dataset
    config: Fit
    total_steps: int
    optimizer: torch.optim.Optimizer | None = None
    epoch: int = 0
    step: int = 0
    inputs: Tensor | None = None
    targets: Tensor | None = None
    history: list[Row] = field(default_factory=list)

    @property
    def progress(self) -> float:
        """The share of training done, at the middle of the present step."""
        return min((self.step + 0.5) / max(self.total_steps, 1), 1.0)


class Hook:
    """Eight moments of a run, all of them no-ops here.

    Several hooks run in the order given, each seeing what the one before made of batch and loss. What a hook keeps
    from step to step it returns from `state_dict` (tensors, numbers, strings, and lists, tuples and dicts of them).
    """

    def start(self, state: State) -> None:
        """Before the optimizer is built: parameters and buffers may be added to `state.model` here, and only here.

        Called again when a run resumes, before the saved state is loaded, so it must add the same ones each time.
        """

    def connect(self, state: State, network: DistributedDataParallel) -> None:
        """Before the first step of a run of several processes: change what they send each other (`register_comm_hook`)."""

    def batch(self, state: State, batch: Batch) -> Batch:  # noqa: ARG002
        """Change inputs and targets of a step, already on the device."""
        return batch

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:  # noqa: ARG002
        """Change the loss of a step, given the network's outputs."""
        return loss

    def gradients(self, state: State) -> None:
        """Change gradients, between backward and the optimizer's step."""

    def step(self, state: State) -> None:
        """After the optimizer's step."""

    def epoch(self, state: State) -> None:
        """After an epoch and its validation."""

    def end(self, state: State) -> None:
        """After the last epoch: undo what the trained network should not carry."""

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; runs after `start`."""


class Hooks(Hook):
    """Hooks in order, as one."""

    def __init__(self, hooks: tuple[Hook, ...]) -> None:
        self.hooks = hooks

    def start(self, state: State) -> None:
        """All, in order."""
        for hook in self.hooks:
            hook.start(state)

    def connect(self, state: State, network: DistributedDataParallel) -> None:
        """All, in order."""
        for hook in self.hooks:
            hook.connect(state, network)

    def batch(self, state: State, batch: Batch) -> Batch:
        """All, in order, each on the one before's batch."""
        for hook in self.hooks:
            batch = hook.batch(state, batch)
        return batch

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:
        """All, in order, each on the one before's loss."""
        for hook in self.hooks:
            loss = hook.loss(state, outputs, loss)
        return loss

    def gradients(self, state: State) -> None:
        """All, in order."""
        for hook in self.hooks:
            hook.gradients(state)

    def step(self, state: State) -> None:
        """All, in order."""
        for hook in self.hooks:
            hook.step(state)

    def epoch(self, state: State) -> None:
        """All, in order."""
        for hook in self.hooks:
            hook.epoch(state)

    def end(self, state: State) -> None:
        """All, in order."""
        for hook in self.hooks:
            hook.end(state)

    def state_dict(self) -> dict[str, Any]:
        """Their states by position."""
        return {str(i): hook.state_dict() for i, hook in enumerate(self.hooks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Their states by position; `PreconditionError` when the number of hooks differs."""
        if len(state) != len(self.hooks):
            raise PreconditionError(f"the checkpoint holds {len(state)} hooks and this run has {len(self.hooks)}: pass the same hooks")
        for i, hook in enumerate(self.hooks):
            hook.load_state_dict(state[str(i)])
