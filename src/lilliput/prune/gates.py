"""Gates: what stands between a stored weight and the layer that reads it while a network learns which weights to keep."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from lilliput.graph import Traced

HOME = "gates"


class Rule(Protocol):
    """How weights pass: `values` of them, with gradients, and how they rank."""

    def start(self, weight: Tensor) -> Tensor | None:
        """What a gate learns, as it starts; None where it learns nothing beside the weight."""
        ...

    def scores(self, weight: Tensor, gate: Gate) -> Tensor:
        """What each weight is worth to the gate: those above its level pass."""
        ...

    def values(self, weight: Tensor, gate: Gate) -> Tensor:
        """The weight that the layer gets."""
        ...

    def penalty(self, gate: Gate) -> Tensor | None:
        """What is added to the loss."""
        ...


class Gate(nn.Module):
    """One weight tensor's gate: a rule, what it learns, and what the budget asks of it.

    `mask` is 1 where the weight is to pass, `level` lies between the scores of the two kinds, `time` is how far the schedule
    has come, from 0 to 1. All are buffers, so they are saved with the network; learned values of few dimensions know no weight
    decay.
    """

    mask: Tensor
    level: Tensor
    time: Tensor

    def __init__(self, name: str, weight: Tensor, rule: Rule) -> None:
        super().__init__()
        self.name, self.rule = name, rule
        self.register_buffer("mask", torch.ones_like(weight, requires_grad=False))
        self.register_buffer("level", weight.new_zeros(()))
        self.register_buffer("time", weight.new_zeros(()))
        start = rule.start(weight.detach())
        self.learned = None if start is None else nn.Parameter(start)

    @property
    def parameter(self) -> Tensor:
        """What the gate learns."""
        assert self.learned is not None
        return self.learned

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the layer gets."""
        return self.rule.values(weight, self)

    def scores(self, weight: Tensor) -> Tensor:
        """What each weight is worth, without a gradient."""
        with torch.no_grad():
            return self.rule.scores(weight.detach(), self).detach()

    def choose_(self, mask: Tensor, scores: Tensor) -> None:
        """Let those of `mask` pass, which have the highest scores; the level is the highest score of the others, or under all.

        Where one threshold shares out the sparsity, the levels of all layers lie right under it.
        """
        passing = mask.to(scores.device, torch.bool)
        gone = scores[~passing]
        lowest = scores.min()
        self.level.copy_(gone.max() if gone.numel() else torch.nextafter(lowest, lowest - 1).clamp(max=0.0))
        self.mask.copy_(passing)

    def settle(self, weight: Tensor) -> Tensor:
        """The final values: exact zeros where the mask has them."""
        with torch.no_grad():
            return self.rule.values(weight, self) * self.mask


def gated(traced: Traced, names: Iterable[str], rule: Rule) -> Traced:
    """A copy of a network whose weights of those names each pass a gate, whoever reads them and by whatever name."""
    return inserted(traced, {name: Gate(name, traced.tensor(name), rule) for name in names})


def inserted(traced: Traced, modules: Mapping[str, nn.Module]) -> Traced:
    """A copy of a network whose weights each pass the module given by their name."""
    out = copy.deepcopy(traced)
    for name, module in modules.items():
        weight = out.tensor(name)
        aliases = {alias for alias, tensor in out.named_parameters(remove_duplicate=False) if tensor is weight}
        target = f"{HOME}.{name}"
        out.add_submodule(target, module)
        for node in [n for n in out.graph.nodes if n.op == "get_attr" and n.target in aliases]:
            with out.graph.inserting_after(node):
                call = out.graph.call_module(target, (node,))
            node.replace_all_uses_with(call, delete_user_cb=lambda user, call=call: user is not call)
    out.graph.lint()
    out.recompile()
    return out


def withdraw_(traced: Traced, kind: type[nn.Module]) -> None:
    """Take out the modules that weights pass."""
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and isinstance(traced.get_submodule(str(node.target)), kind):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    traced.delete_submodule(HOME)
    traced.graph.lint()
    traced.recompile()


def gates(network: nn.Module) -> dict[str, Gate]:
    """The gates of a network by the names of their weights."""
    return {module.name: module for module in network.modules() if isinstance(module, Gate)}


def settled(traced: Traced) -> Traced:
    """A copy without gates, its weights what the gates make of them."""
    out = copy.deepcopy(traced)
    for name, gate in gates(out).items():
        weight = out.tensor(name)
        with torch.no_grad():
            weight.copy_(gate.settle(weight))
    withdraw_(out, Gate)
    return out
