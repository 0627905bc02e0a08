"""Structures before training: gates learned on weights that stay random, and weights drawn anew for what they leave."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph import Traced
from lilliput.graph.products import LAYERS
from lilliput.graph.rules import NORMS, argument, op_name, scaled_norms
from lilliput.graph.weights import bias_name, parameter
from lilliput.train import Fit, Hook, State


def draw_anew_(traced: Traced, seed: int) -> None:
    """Forget what a network has learned.

    Weights of layers are drawn from `N(0, 2 / inputs)`, biases are 0, normalisations the identity, their statistics those of a standard
    normal distribution; any other parameter is drawn with the mean and the deviation of its present values. (he2015delving)
    """
    generator = torch.Generator().manual_seed(seed)
    constant = _starts(traced)
    weights = {name for node in traced.graph.nodes if node.target in LAYERS and (name := parameter(node.args[1])) is not None}
    with torch.no_grad():
        for name, tensor in [*traced.named_parameters(), *traced.named_buffers()]:
            if name in constant:
                tensor.fill_(constant[name])
            elif isinstance(tensor, nn.Parameter):
                mean, deviation = (0.0, math.sqrt(2 / tensor[0].numel())) if name in weights else _moments(tensor)
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * deviation + mean)


def _starts(traced: Traced) -> dict[str, float]:
    """Values of biases and of normalisations."""
    found: dict[str, float] = {}
    for node in traced.graph.nodes:
        if node.op != "call_function":
            continue
        name = op_name(node)
        given: list[tuple[Any, float]] = []
        if name in NORMS:
            given = [(argument(node, at, key), start) for at, key, start in zip(NORMS[name], ("weight", "bias"), (1.0, 0.0), strict=False)]
            if NORMS[name][0] == 1:
                given += [(argument(node, 3, "running_mean"), 0.0), (argument(node, 4, "running_var"), 1.0)]
            found |= {str(tensor.target): value for tensor, value in given if isinstance(tensor, fx.Node) and tensor.op == "get_attr"}
        elif node.target in LAYERS and (bias := bias_name(node)) is not None:
            found[bias] = 0.0
    return found


def _moments(tensor: Tensor) -> tuple[float, float]:
    values = tensor.detach().double()
    return float(values.mean()), float(values.std(correction=0))


class DrawAnew(Hook):
    """Training starts from weights drawn anew."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __repr__(self) -> str:
        return f"DrawAnew(seed={self.seed})"

    def start(self, state: State) -> None:
        """Forget what the network has learned."""
        assert isinstance(state.model, Traced)
        draw_anew_(state.model, self.seed)


class TrainGates(Hook):
    """Only gates learn: the scales of batch norms, from 1/2 on and within [0, 1], everything else random and frozen.

    The loss is the task's and `strength * (sum g / count - share)^2` over all gates `g`. (wang2020scratch)
    """

    def __init__(self, names: tuple[str, ...], settings: FrozenGates) -> None:
        self.names, self.settings = names, settings
        self._needed: dict[str, bool] = {}

    def __repr__(self) -> str:
        return f"TrainGates({self.settings!r})"

    def start(self, state: State) -> None:
        """Draw weights, open gates half, freeze the rest."""
        assert isinstance(state.model, Traced)
        draw_anew_(state.model, self.settings.fit.seed)
        self._needed = {name: p.requires_grad for name, p in state.model.named_parameters()}
        for name, p in state.model.named_parameters():
            p.requires_grad_(name in self.names)
        with torch.no_grad():
            for gate in self._gates(state):
                gate.fill_(0.5)

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:  # noqa: ARG002
        """Add the penalty."""
        return loss + self.settings.strength * (torch.cat(self._gates(state)).mean() - self.settings.share).square()

    def step(self, state: State) -> None:
        """Keep gates within [0, 1]."""
        with torch.no_grad():
            for gate in self._gates(state):
                gate.clamp_(0, 1)

    def end(self, state: State) -> None:
        """Everything may learn again that could before."""
        for name, p in state.model.named_parameters():
            p.requires_grad_(self._needed[name])

    def _gates(self, state: State) -> list[Tensor]:
        parameters = dict(state.model.named_parameters())
        return [parameters[name] for name in self.names]


@dataclass(frozen=True, kw_only=True)
class FrozenGates:
    """Training before pruning in which only the gates on batch norms learn, on weights drawn anew that stay random. (wang2020scratch)

    With the batch norm the identity but for its gate, the gate is its scale. `share` is what the mean gate is drawn to, whatever the budget,
    as in the paper. Coupled channels have a gate in each batch norm behind them, and their score is the mean.
    """

    fit: Fit = field(default_factory=Fit)
    strength: float = 0.5
    share: float = 0.5

    def __post_init__(self) -> None:
        if not (self.strength >= 0 and 0 <= self.share <= 1):
            raise RecipeError(f"gates are drawn to a share in [0, 1] with a strength from 0, not {self.share} and {self.strength}")

    def hooks(self, traced: Traced) -> tuple[Hook, ...]:
        """Raises `PreconditionError` where there is no batch norm."""
        targets = {scale for scale, _ in scaled_norms(traced)}
        names = tuple(name for name, _ in traced.named_parameters() if name in targets)
        if not names:
            raise PreconditionError("gates stand on batch norms, and this network has no batch norm: pass one that has")
        return (TrainGates(names, self),)
