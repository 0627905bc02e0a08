"""Training of codewords: averaged gradients, and the original network as the teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph.trace import Traced
from lilliput.quantize.codebook import member_counts
from lilliput.train import Hook, State


class Averaged(Hook):
    """The gradient of a table's entry is the mean over the blocks that share it, not their sum. (stock2020bit)"""

    def __init__(self) -> None:
        self._counts: dict[str, Tensor] = {}

    def __repr__(self) -> str:
        return "Averaged()"

    def start(self, state: State) -> None:
        """Count members; codes stay as they are."""
        if not isinstance(state.model, Traced):
            raise PreconditionError("codebooks stand in the graph of a traced network: pass what a sharing step returns to fit")
        self._counts = {name: count.clamp(min=1)[:, None] for name, count in member_counts(state.model).items()}

    def gradients(self, state: State) -> None:
        """Divide."""
        for name, parameter in state.model.named_parameters():
            if name in self._counts and parameter.grad is not None:
                parameter.grad /= self._counts[name].to(parameter.grad)


@dataclass(frozen=True, kw_only=True)
class Imitation:
    """The loss is the divergence from the original's prediction, without labels.

    `T^2 KL(softmax(z0 / T) || softmax(z / T))`; for data without classes it is the mean squared difference of the outputs.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise RecipeError(f"the temperature is positive, not {self.temperature!r}")

    def __call__(self, original: nn.Module) -> Hook:
        """The hook for one run."""
        return _Imitate(self, original)


class _Imitate(Hook):
    def __init__(self, settings: Imitation, original: nn.Module) -> None:
        self.settings, self.original = settings, original

    def __repr__(self) -> str:
        return repr(self.settings)

    def start(self, state: State) -> None:
        """Put the original where the training is."""
        self.original = self.original.to(state.fabric.device).eval()

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:  # noqa: ARG002
        """Replaces the task's loss."""
        with torch.no_grad():
            wanted = self.original(state.inputs)
        if not state.data.num_classes:
            return F.mse_loss(outputs, wanted)
        t = self.settings.temperature
        ours, theirs = F.log_softmax(outputs / t, -1), F.log_softmax(wanted / t, -1)
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * t**2
