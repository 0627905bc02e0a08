"""Soft masks: a factor on every channel, head and branch of a plan that learns how much of it is needed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from lilliput.graph import Traced
from lilliput.graph.products import LAYERS
from lilliput.graph.rules.base import op_name
from lilliput.graph.weights import bias_name, parameter
from lilliput.prune.gates import HOME, inserted, withdraw_
from lilliput.prune.structures import StructurePlan
from lilliput.prune.units import Scores


class Mask(nn.Module):
    """The factors of one group's units, ones at first.

    `values` is where the network is evaluated, `settled` what the optimiser of masks has come to, and `margin` the same before what lies under
    zero was cut off, so that units of factor zero still rank.
    """

    settled: Tensor
    margin: Tensor

    def __init__(self, group: int, units: int) -> None:
        super().__init__()
        self.group = group
        self.values = nn.Parameter(torch.ones(units))
        self.register_buffer("settled", torch.ones(units))
        self.register_buffer("margin", torch.ones(units))


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """One dimension of one tensor that a group's mask lies along: `unit[i]` is the unit of index `i`, -1 for none."""

    tensor: str
    dim: int
    group: int
    unit: Tensor


class Masked(nn.Module):
    """A tensor times the masks that lie on it."""

    def __init__(self, places: list[Place], masks: list[Mask]) -> None:
        super().__init__()
        self.dims = [place.dim for place in places]
        self.masks = nn.ModuleList(masks)
        for i, place in enumerate(places):
            self.register_buffer(f"unit_{i}", place.unit)

    def forward(self, tensor: Tensor) -> Tensor:
        """The product."""
        return self._times(tensor, [mask.values for mask in self.masks])  # type: ignore[misc]

    def settle(self, tensor: Tensor) -> Tensor:
        """The product with what was learnt in the end."""
        return self._times(tensor, [mask.settled for mask in self.masks])  # type: ignore[misc]

    def _times(self, tensor: Tensor, factors: list[Tensor]) -> Tensor:
        for i, (dim, factor) in enumerate(zip(self.dims, factors, strict=True)):
            # The last one is for indices of no unit.
            along = torch.cat([factor, factor.new_ones(1)])[self.get_buffer(f"unit_{i}")]
            tensor = tensor * along.reshape(-1, *[1] * (tensor.ndim - 1 - dim)).to(tensor)
        return tensor


def masked(traced: Traced, plan: StructurePlan) -> Traced:
    """A copy of a network with soft masks on what makes the channels of each group and the output of each branch.

    They lie on the tensors that pruning would zero; not on layers that batch norms alone read, which would divide a factor out again: there the
    norm's scale and shift have it. At ones the network computes what it did.
    """
    masks = [Mask(group, len(units)) for group, units in enumerate(plan.everything())]
    found: dict[str, list[Place]] = {}
    for place in places(traced, plan):
        found.setdefault(place.tensor, []).append(place)
    return inserted(traced, {name: Masked(lying, [masks[place.group] for place in lying]) for name, lying in found.items()})


def places(traced: Traced, plan: StructurePlan) -> Iterator[Place]:
    """Where the masks of a plan lie."""
    divided, parameters = _normalised(traced), dict(traced.named_parameters())
    for group, channels in enumerate(plan.channels.groups):
        for slot in channels.slots:
            if slot.role != "in" and slot.tensor in parameters and slot.tensor not in divided:
                yield Place(tensor=slot.tensor, dim=slot.dim, group=group, unit=torch.from_numpy(slot.unit))
    for group, branch in enumerate(plan.branches.branches, len(plan.channels.groups)):
        for name in plan.branches.silencers[branch.name]:
            if name in parameters:
                yield Place(tensor=name, dim=0, group=group, unit=torch.zeros(len(parameters[name]), dtype=torch.long))


def masks_of(network: nn.Module) -> dict[int, Mask]:
    """The masks of a network by the number of their group."""
    return {module.group: module for module in network.modules() if isinstance(module, Mask)}


def margins(network: nn.Module, plan: StructurePlan) -> Scores:
    """What each unit's mask has come to, below zero where it was cut off; a group that no mask lies on has ones."""
    found = {group: mask.margin.double().cpu().numpy() for group, mask in masks_of(network).items()}
    return [found.get(group, units.astype(float)) for group, units in enumerate(plan.everything())]


def settled(traced: Traced) -> Traced:
    """A copy without masks, its tensors what the masks make of them."""
    out = copy.deepcopy(traced)
    home = out.get_submodule(HOME)
    for path, module in home.named_modules():
        if isinstance(module, Masked):
            with torch.no_grad():
                tensor = out.tensor(path)
                tensor.copy_(module.settle(tensor))
    withdraw_(out, Masked)
    return out


def _normalised(traced: Traced) -> set[str]:
    """Weights and biases of layers that batch norms alone read."""
    found: set[str] = set()
    for node in traced.graph.nodes:
        if node.target in LAYERS and before_norms(node):
            found |= {name for name in (parameter(node.args[1]), bias_name(node)) if name is not None}
    return found


def before_norms(node: fx.Node) -> bool:
    """Whether batch norms alone read a value."""
    return bool(node.users) and all(user.op == "call_function" and op_name(user) == "batch_norm" for user in node.users)
