"""Schemes: how the teacher comes to be, and how it runs beside the student."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from lilliput.train import State


class Scheme(Protocol):
    """Gives the teacher of a run, and its outputs on a batch."""

    def prepare(self, teacher: nn.Module, state: State, /) -> nn.Module:
        """The teacher to use, before the student's optimizer is built."""
        ...

    def run(self, teacher: nn.Module, inputs: Tensor, state: State, /) -> Tensor:
        """The teacher's outputs on the inputs of a step."""
        ...


@dataclass(frozen=True, kw_only=True)
class Offline:
    """A teacher trained before: a frozen copy in evaluation mode that receives no gradient."""

    def prepare(self, teacher: nn.Module, state: State, /) -> nn.Module:
        """The frozen copy."""
        return copy.deepcopy(teacher).to(state.fabric.device).eval().requires_grad_(False)

    def run(self, teacher: nn.Module, inputs: Tensor, state: State, /) -> Tensor:
        """The teacher's outputs, in the precision of the run."""
        with torch.no_grad(), state.fabric.autocast():
            outputs = teacher(inputs)
        assert isinstance(outputs, Tensor)
        return outputs.float()
