"""Ordered dropout: each image of a batch passes a sub-network of its own, so that one pass trains many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.graph.rules import op_name
from lilliput.graph.shapes import fake_values, forget_shapes
from lilliput.prune.branches import ZERO_STAYS
from lilliput.prune.gates import HOME, withdraw_
from lilliput.prune.soft_masks import before_norms
from lilliput.prune.structures import StructurePlan
from lilliput.prune.units import Scores
from lilliput.train import Batch, Hook, State

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One direction in which a network can be smaller: `units` of a group, by its number, and at width 0 a residual branch less.

    A `group` all of whose layers are of one `branch` has that width; others have at least one unit. A branch without such a
    group is a dimension of its own, of one unit.
    """

    group: int | None
    branch: int | None
    units: int

    @property
    def least(self) -> int:
        """The narrowest width."""
        return int(self.branch is None)

    def widths(self, levels: int) -> Ints:
        """Up to `levels + 1` widths, evenly spread from the narrowest to all units."""
        spread: Ints = np.unique(np.round(np.linspace(self.least, self.units, levels + 1)).astype(np.int64))
        return spread


def dimensions(plan: StructurePlan) -> list[Dimension]:
    """Groups, with the innermost branch that holds them, then branches that hold none."""
    found, branches = [], plan.branches.branches
    for index, group in enumerate(plan.channels.groups):
        around = [place for place, branch in enumerate(branches) if set(group.layers) <= set(branch.layers)]
        inner = min(around, key=lambda place: len(branches[place].layers), default=None)
        found.append(Dimension(group=index, branch=inner, units=group.units))
    held = {dimension.branch for dimension in found}
    return found + [Dimension(group=None, branch=place, units=1) for place in range(len(branches)) if place not in held]


def kept(plan: StructurePlan, scores: Scores, sizes: Sequence[Dimension], widths: Sequence[int]) -> list[Keep]:
    """The best units, as many as these widths say; a branch goes as soon as one of its groups has none."""
    groups = len(plan.channels.groups)
    shares = np.zeros(len(scores))
    for dimension, width in zip(sizes, widths, strict=True):
        if dimension.group is not None:
            shares[dimension.group] = 1 - max(width, 1) / dimension.units
        if dimension.branch is not None and not width:
            shares[groups + dimension.branch] = 1.0
    return plan.keep(scores, shares)


class SubNetworks:
    """Flags of many sub-networks of one network: a column for every component of its coupling, then one for every branch."""

    def __init__(self, plan: StructurePlan, scores: Scores, sizes: Sequence[Dimension]) -> None:
        self.sizes, self.components = list(sizes), plan.channels.coupling.count
        self.branches = len(plan.branches.branches)
        self._columns: dict[int, tuple[Ints, Ints]] = {}
        for place, dimension in enumerate(self.sizes):
            if dimension.group is not None:
                rank = np.argsort(np.argsort(-scores[dimension.group], kind="stable"), kind="stable")
                self._columns[place] = (plan.channels.groups[dimension.group].components, rank)

    def drawn(self, generator: np.random.Generator, samples: int, levels: int) -> Ints:
        """Widths `(samples, dimensions)`, each of its dimension's levels as likely."""
        return np.stack([generator.choice(dimension.widths(levels), samples) for dimension in self.sizes], 1)

    def flags(self, widths: Ints) -> NDArray[np.bool_]:
        """What each sub-network has, `(samples, components + branches)`.

        Within a branch that is gone groups of width 0 have all: nothing of that comes out, and batch norms there see no zeros.
        """
        found = np.ones((len(widths), self.components + self.branches), np.bool_)
        for place, (components, rank) in self._columns.items():
            width = widths[:, place]
            found[:, components] = rank[None] < np.where(width > 0, width, len(rank))[:, None]
        for place, dimension in enumerate(self.sizes):
            if dimension.branch is not None:
                found[:, self.components + dimension.branch] &= widths[:, place] > 0
        return found


@dataclass(frozen=True, kw_only=True)
class Site:
    """A node whose value is masked: the dimension of the samples, and the columns of flags along others (None: of the value)."""

    node: str
    sample: int
    columns: tuple[tuple[int | None, tuple[int, ...]], ...]


class Masking(nn.Module):
    """Values times the flags `(samples, columns)` of each sample's sub-network, while it trains; None is the whole network."""

    def __init__(self, sites: Sequence[Site]) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.flags: Tensor | None = None

    def forward(self, x: Tensor, index: int) -> Tensor:
        """The value at a site."""
        if self.flags is None or not self.training:
            return x
        site = self.sites[index]
        for dim, columns in site.columns:
            x = x * _laid(self.flags[:, list(columns)].to(x), x, site.sample, dim)
        return x


def _laid(flags: Tensor, x: Tensor, sample: int, dim: int | None) -> Tensor:
    """Flags `(samples, units)` along two dimensions of a value, or along the one that merges the two."""
    shape = [1] * x.ndim
    if dim is None or dim == sample:
        flags = flags.flatten()
    else:
        shape[dim] = flags.shape[1]
    flags = flags.repeat_interleave(x.shape[sample] // len(flags), 0)  # samples may be merged with what is not masked
    shape[sample] = len(flags)
    return (flags.T if dim is not None and dim < sample else flags).reshape(shape)


def sites(traced: Traced, plan: StructurePlan) -> list[Site]:
    """Where masks make a sample's value what its smaller network gives: behind what makes or shifts channels, and on branches.

    Layers that batch norms alone read are masked behind those, so that their statistics are of images that have the channel and
    of images that do not alike. Layer norms count silent channels. Raises `PreconditionError` for a network of fixed batch.
    """
    if not traced.dynamic_batch:
        raise PreconditionError("images of a batch pass sub-networks of their own: trace the network with a batch that may vary")
    held = set(np.concatenate([group.components for group in plan.channels.groups]).tolist()) if plan.channels.groups else set()
    samples, found = _sample_dims(traced), []
    own = dict(zip(traced.graph.nodes, plan.channels.coupling.traced.graph.nodes, strict=True))
    for node in traced.graph.nodes:
        if node.op != "call_function" or node not in samples or op_name(node) in ZERO_STAYS or before_norms(node):
            continue
        dims = plan.channels.coupling.node_dims(own[node])
        if isinstance(dims, dict):
            columns = tuple((dim, tuple(c.tolist())) for dim, c in dims.items() if held & set(c.tolist()))
            if columns:
                found.append(Site(node=node.name, sample=samples[node], columns=columns))
    nodes, first = {node.name: node for node in traced.graph.nodes}, plan.channels.coupling.count
    return found + [Site(node=branch.output, sample=samples[nodes[branch.output]], columns=((None, (first + place,)),))
                    for place, branch in enumerate(plan.branches.branches)]


def _sample_dims(traced: Traced) -> dict[fx.Node, int]:
    """The dimension of every value that grows with the number of samples."""
    once, twice = (fake_values(traced, tuple(x.repeat(n, *[1] * (x.ndim - 1)) for x in traced.example)) for n in (1, 2))
    found = {}
    for node, value in once.items():
        if isinstance(value, Tensor):
            grown = [dim for dim, (few, many) in enumerate(zip(value.shape, twice[node].shape, strict=True)) if few != many]
            if len(grown) == 1:
                found[node] = grown[0]
    return found


class OrderedDropout(Hook):
    """Each image of a batch trains a sub-network drawn anew; masks stand in the network only while it trains."""

    def __init__(self, plan: StructurePlan, networks: SubNetworks, levels: int) -> None:
        self.plan, self.networks, self.levels = plan, networks, levels

    def __repr__(self) -> str:
        return f"OrderedDropout(levels={self.levels})"

    def start(self, state: State) -> None:
        """Lay masks on."""
        assert isinstance(state.model, Traced)
        lay_(state.model, sites(state.model, self.plan))

    def batch(self, state: State, batch: Batch) -> Batch:
        """Draw sub-networks, by the seed, the step and the process."""
        generator = np.random.default_rng([state.config.seed, state.step, state.fabric.global_rank])
        widths = self.networks.drawn(generator, len(batch[0]), self.levels)
        masking_of(state.model).flags = torch.from_numpy(self.networks.flags(widths)).to(batch[0].device)
        return batch

    def end(self, state: State) -> None:
        """Take masks off."""
        assert isinstance(state.model, Traced)
        withdraw_(state.model, Masking)


def lay_(traced: Traced, where: Sequence[Site]) -> None:
    """Put masks at these sites."""
    traced.add_submodule(HOME, Masking(where).train(traced.training))
    nodes = {node.name: node for node in traced.graph.nodes}
    for index, site in enumerate(where):
        node = nodes[site.node]
        with traced.graph.inserting_after(node):
            call = traced.graph.call_module(HOME, (node, index))
        node.replace_all_uses_with(call, delete_user_cb=lambda user, call=call: user is not call)
    forget_shapes(traced)
    traced.graph.lint()
    traced.recompile()


def masking_of(network: nn.Module) -> Masking:
    """The masks of a network that has them."""
    found = network.get_submodule(HOME)
    assert isinstance(found, Masking)
    return found
