"""Weights from latent vectors: a hypernetwork for every layer, whose shared inputs are pressed to zero one by one."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, fx, nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.graph.weights import weight_name
from lilliput.prune.during import Pruning
from lilliput.prune.gates import inserted, withdraw_
from lilliput.prune.maps import layers
from lilliput.prune.rewinding import Part
from lilliput.prune.units import ChannelPlan, Scores
from lilliput.train import Fit, Hook, State


class Latents(nn.Module):
    """One number `z` for each unit of coupled channels, all groups in one vector, and which of them stay once that is `chosen`."""

    kept: Tensor
    chosen: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(start)
        self.register_buffer("kept", torch.ones(len(start), dtype=torch.bool))
        self.register_buffer("chosen", torch.zeros((), dtype=torch.bool))

    def of(self, places: Tensor) -> Tensor:
        """The numbers at some places; 1 for place -1, which is of no unit."""
        return torch.cat([self.values, self.values.new_ones(1)])[places]


class HyperLayer(nn.Module):
    """`W_ij = w2_ij (w1_ij Z_ij + b1_ij) + b2_ij`, `Z = z_out z_in' + b0`, with `w1`, `b1` of `embedding` numbers for each pair of an output and an
    input, and `w2`, `b2` for each element of its kernel. (li2020dhp)

    Biases start at 0, `w1` at `1 / sqrt(embedding)` and `w2` so that the weight is what it was.
    """

    outputs: Tensor
    inputs: Tensor

    def __init__(self, weight: Tensor, latents: Latents, places: tuple[Tensor, Tensor], embedding: int) -> None:
        super().__init__()
        self.latents, self.shape = latents, tuple(weight.shape)
        self.register_buffer("outputs", places[0])
        self.register_buffer("inputs", places[1])
        flat = weight.detach().reshape(*weight.shape[:2], -1)
        pairs, root = flat.shape[:2], math.sqrt(embedding)
        self.b0 = nn.Parameter(flat.new_zeros(pairs))
        self.w1 = nn.Parameter(flat.new_full((*pairs, embedding), 1 / root))
        self.b1 = nn.Parameter(flat.new_zeros(*pairs, embedding))
        outer = torch.outer(latents.of(places[0]), latents.of(places[1])).detach()
        self.w2 = nn.Parameter((flat / (root * outer[..., None]))[..., None].repeat(1, 1, 1, embedding))
        self.b2 = nn.Parameter(torch.zeros_like(flat))

    def forward(self, weight: Tensor) -> Tensor:  # noqa: ARG002
        """The weight that the layer gets, in place of the stored one."""
        pairs = torch.outer(self.latents.of(self.outputs), self.latents.of(self.inputs)) + self.b0
        embedded = pairs[..., None] * self.w1 + self.b1
        return ((self.w2 * embedded[:, :, None]).sum(3) + self.b2).reshape(self.shape)


def with_hypernetworks(traced: Traced, plan: ChannelPlan, scores: Scores, embedding: int) -> Traced:
    """A copy of a network whose convolutions and linear layers get their weights from hypernetworks.

    Latents start at the scores of their units, over the mean of the group, at least a hundredth of it.
    """
    starts = [np.maximum(values / (values.mean() or 1.0), 0.01) for values in scores]
    latents = Latents(torch.from_numpy(np.concatenate(starts)).to(next(traced.parameters())))
    place = np.full(plan.coupling.count, -1, np.int64)
    for group, start in zip(plan.groups, _starts(plan), strict=True):
        place[group.components] = start + np.arange(group.units)

    def places(name: str, dim: int) -> Tensor:
        components = plan.coupling.dims.get(plan.coupling.canonical(name), {}).get(dim)
        size = traced.tensor(name).shape[dim]
        return torch.full((size,), -1) if components is None else torch.from_numpy(place[components])

    names = dict.fromkeys(weight_name(layer) for layer in layers(traced))
    return inserted(traced, {name: HyperLayer(traced.tensor(name), latents, (places(name, 0), places(name, 1)), embedding) for name in names})


def without_hypernetworks(traced: Traced) -> Traced:
    """A copy whose weights are what the hypernetworks gave."""
    out = copy.deepcopy(traced)
    with torch.no_grad():
        for node in [n for n in out.graph.nodes if n.op == "call_module"]:
            module = out.get_submodule(str(node.target))
            if isinstance(module, HyperLayer):
                assert isinstance(node.args[0], fx.Node)
                weight = out.tensor(str(node.args[0].target))
                weight.copy_(module(weight))
    withdraw_(out, HyperLayer)
    return out


def _latents(traced: nn.Module) -> Latents:
    return next(module for module in traced.modules() if isinstance(module, Latents))


def _starts(plan: ChannelPlan) -> list[int]:
    return list(itertools.accumulate((group.units for group in plan.groups[:-1]), initial=0))


def _by_group(plan: ChannelPlan, values: Tensor) -> Scores:
    return [values[start:start + group.units].double().cpu().numpy() for group, start in zip(plan.groups, _starts(plan), strict=True)]


@dataclass(frozen=True, kw_only=True)
class MetaPruning:
    """Train latent vectors of hypernetworks under an L1 penalty until what is left meets the budget, then the weights that they gave.

    After each step `z <- sign(z) max(|z| - rate * strength, 0)`, the proximal step of `strength * |z|_1`, with the learning rate of the moment.
    In the step in which the latents that are left would meet the budget, the smallest go that it takes, for good, and the penalty
    ends. So they do after the share `search` of the epochs at the latest. The rest of them, and of the learning rate's schedule, trains
    the smaller network. A unit of the coupled channels has one latent wherever it is made or read. (li2020dhp)

    Departs from the paper in where it starts: there latents and hypernetworks are drawn at random, here they give the network as it
    came, and the latents of a group are to each other as the criterion's scores. Its penalty's strength, and its rule for latents that
    are near zero but not at it, are not known to us.
    """

    embedding: int = 8
    strength: float = 1e-2
    search: float = 0.25

    def __post_init__(self) -> None:
        if not (self.embedding >= 1 and self.strength > 0 and 0 < self.search <= 1):
            raise RecipeError("MetaPruning has embeddings from 1, a positive strength and a search in (0, 1], "
                              f"not {self.embedding}, {self.strength} and {self.search}")

    def carry_out(self, traced: Traced, pruning: Pruning) -> tuple[Traced, list[Keep]]:
        """Search, remove, and train what is left; raises `PreconditionError` for single weights."""
        plan = pruning.plan
        if not isinstance(plan, ChannelPlan):
            raise PreconditionError("latent vectors are of channels: pass unit=Channels()")
        opening, rest = self._parts(pruning.fit)
        hook = ShrinkLatents(pruning, plan, traced, self.strength)
        found = pruning.train(with_hypernetworks(traced, plan, pruning.scores(traced), self.embedding), opening, (hook,), "search")
        latents = _latents(found)
        keep = ([kept > 0 for kept in _by_group(plan, latents.kept)] if bool(latents.chosen) else
                pruning.kept(_by_group(plan, latents.values.detach().abs()), traced))
        small = plan.apply(keep, without_hypernetworks(found))
        return (pruning.train(small, rest, (), "recover") if rest.epochs else small), keep

    def _parts(self, fit: Fit) -> tuple[Fit, Fit]:
        epochs = min(max(round(self.search * fit.epochs), 1), fit.epochs)
        share = epochs / max(fit.epochs, 1)
        return (replace(fit, epochs=epochs, schedule=Part(schedule=fit.schedule, start=0.0, end=share)),
                replace(fit, epochs=fit.epochs - epochs, schedule=Part(schedule=fit.schedule, start=share, end=1.0)))


class ShrinkLatents(Hook):
    """The proximal step on latents until the budget is met; then what has gone stays at zero."""

    def __init__(self, pruning: Pruning, plan: ChannelPlan, traced: Traced, strength: float) -> None:
        self.pruning, self.plan, self.traced, self.strength = pruning, plan, traced, strength

    def __repr__(self) -> str:
        return f"ShrinkLatents(strength={self.strength!r})"

    def step(self, state: State) -> None:
        """Shrink, and see what is left."""
        latents = _latents(state.model)
        assert state.optimizer is not None
        with torch.no_grad():
            if not bool(latents.chosen):
                before = latents.values.detach().abs()
                rate = float(state.optimizer.param_groups[0]["lr"])
                latents.values.copy_(torch.nn.functional.softshrink(latents.values, rate * self.strength))
                if self._met(latents.values, before):
                    keep = self.pruning.kept(_by_group(self.plan, before), self.traced)
                    latents.kept.copy_(torch.from_numpy(np.concatenate(keep)))
                    latents.chosen.fill_(True)
            latents.values.mul_(latents.kept)

    def _met(self, values: Tensor, before: Tensor) -> bool:
        if not self.pruning.target.structural(self.plan):
            return False
        keep = [left != 0 for left in _by_group(self.plan, values)]
        for left, size in zip(keep, _by_group(self.plan, before), strict=True):
            left[size.argmax()] = True
        return self.pruning.target.met(self.plan.cost(keep))
