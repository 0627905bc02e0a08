"""Stochastic gradient descent whose every result is rounded to a narrow format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.core.errors import RecipeError
from lilliput.quantize.low_precision.casts import Rounded
from lilliput.train import SGD, Optimizer
from lilliput.train.optimizers import parameter_groups

_PRIME = 1_000_003


@dataclass(frozen=True, kw_only=True)
class RoundedSGD:
    """`g <- R(g + wd w)`, `v <- R(m v + g)`, `w <- R(w - lr v)`: weights and momenta are numbers of `number`, at any time.

    `R` rounds as `number` says. Chance comes from `seed` and the count of steps alone: all processes of a data-parallel run
    round alike, and a run that resumes goes on as it would have. Weights that do not lie on the grid are put there, to
    nearest, when the optimizer is built. (wang2018fp8, gupta2015limited)
    """

    number: Rounded
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_vectors: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self._plain()

    def _plain(self) -> SGD:
        """The same without rounding; checks the settings."""
        return SGD(lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=False,
                   decay_vectors=self.decay_vectors)

    @staticmethod
    def like(plain: Optimizer, number: Rounded) -> RoundedSGD:
        """With the settings of `SGD` (without Nesterov's momentum); raises `RecipeError` for other optimizers."""
        if isinstance(plain, RoundedSGD):
            return plain
        if not isinstance(plain, SGD):
            raise RecipeError(f"rounded updates are defined for SGD, not {type(plain).__name__}: use Fit(optimizer=SGD(...))")
        return RoundedSGD(number=number, lr=plain.lr, momentum=plain.momentum, weight_decay=plain.weight_decay,
                          decay_vectors=plain.decay_vectors)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimizer; puts the parameters on the grid."""
        groups = parameter_groups(parameters, self.weight_decay, self.decay_vectors)
        with torch.no_grad():
            for group in groups:
                for parameter in group["params"]:
                    parameter.copy_(self.number.nearest().round(parameter))
        return _RoundedSGD(groups, self)


class _RoundedSGD(torch.optim.Optimizer):
    def __init__(self, groups: list[dict[str, Any]], settings: RoundedSGD) -> None:
        defaults = {"lr": settings.lr, "momentum": settings.momentum, "weight_decay": settings.weight_decay, "steps": 0}
        super().__init__(groups, defaults)
        self._settings = settings

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        assert closure is None
        settings = self._settings
        for index, group in enumerate(self.param_groups):
            group["steps"] += 1
            generators: dict[torch.device, torch.Generator] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    where = parameter.device
                    if where not in generators:
                        seed = ((settings.seed * _PRIME + index) * _PRIME + group["steps"]) % 2**63
                        generators[where] = torch.Generator(where).manual_seed(seed)
                    self._move_(parameter, group, settings.number, generators[where])

    def _move_(self, parameter: nn.Parameter, group: dict[str, Any], number: Rounded, generator: torch.Generator) -> None:
        assert parameter.grad is not None
        direction: Tensor = parameter.grad
        if group["weight_decay"]:
            direction = direction + group["weight_decay"] * parameter
        direction = number.round(direction, generator)
        if group["momentum"]:
            state = self.state[parameter]
            if "momentum" in state:
                direction = number.round(group["momentum"] * state["momentum"] + direction, generator)
            state["momentum"] = direction
        parameter.copy_(number.round(parameter - group["lr"] * direction, generator))
