"""Residual branches as units: whole attention, feed-forward and convolution blocks that go and leave their shortcut."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.graph.branches import Branch, Residuals, inside, without
from lilliput.graph.coupling import Keep
from lilliput.graph.rules import NORMS, op_name
from lilliput.prune.criteria import Criterion, Joint, Layer
from lilliput.prune.statistics import Stats
from lilliput.prune.units import Plan, Row, Scores

BRANCH = "branch"
# Positions of scale and shift, or of weight and bias, in operators that give zero where both are.
_AFFINE = {**NORMS, **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), (1, 2))}
ZERO_STAYS = frozenset({"dropout", "feature_dropout", "relu", "relu6", "hardtanh", "leaky_relu", "gelu", "silu", "hardswish", "tanh", "mean",
                         "view", "reshape", "flatten", "permute", "transpose", "contiguous", "clone", "avg_pool2d", "adaptive_avg_pool2d"})


@dataclass(frozen=True, kw_only=True)
class Branches:
    """Residual branches, each a group of one unit: what stays of a block is its shortcut, so the result is a shallower network.

    `exclude` names branches or their layers by pattern that stay. A criterion of whole branches (`RemovalLoss`, `Similarity`) scores them
    itself; of one of weights a branch's score is the sum over its weights, or with `per_weight` their mean. All branches of the network
    compare with each other, and all of them may go.
    """

    exclude: tuple[str, ...] = ()
    per_weight: bool = True

    def plan(self, traced: Traced) -> Plan:
        """Find the branches of a network."""
        return BranchPlan(traced, self)


class BranchPlan:
    """Branches of one network."""

    def __init__(self, traced: Traced, unit: Branches) -> None:
        self.traced, self.unit, self.residuals = traced, unit, Residuals(traced)
        self.silencers: dict[str, tuple[str, ...]] = {}
        self.branches: list[Branch] = []
        self._whole: list[str] = []
        for branch in self.residuals.found:
            if any(fnmatch.fnmatch(name, pattern) for name in (branch.name, *branch.layers) for pattern in unit.exclude):
                continue
            found = silencers(traced, branch)
            if found is None:
                self._whole.append(branch.name)
            else:
                self.branches.append(branch)
                self.silencers[branch.name] = found

    def removed(self, keep: Sequence[Keep]) -> list[Branch]:
        """The branches that a choice removes."""
        return [branch for branch, kept in zip(self.branches, keep, strict=True) if not kept[0]]

    def everything(self) -> list[Keep]:
        """The choice that removes nothing."""
        return [np.ones(1, dtype=np.bool_) for _ in self.branches]

    def scores(self, criterion: Criterion, stats: Stats, traced: Traced) -> Scores:
        """One score per branch, of itself or of its weights."""
        if isinstance(criterion, Joint):
            raise PreconditionError(f"{type(criterion).__name__} scores coupled channels together: pass unit=Channels()")
        return [np.array([self._score(branch, criterion, stats, traced)]) for branch in self.branches]

    def _score(self, branch: Branch, criterion: Criterion, stats: Stats, traced: Traced) -> float:
        if BRANCH in criterion.roles:
            weight = traced.tensor(self.silencers[branch.name][0]).detach()
            return float(criterion(Layer(name=branch.name, weight=weight, role=BRANCH), stats).double().sum())
        found = _weights(traced, branch)
        chosen = [(name, role) for name, role in found if role in criterion.roles] or [(name, role) for name, role in found if role == "out"]
        total, count = 0.0, 0
        for name, role in chosen:
            weight = traced.tensor(name).detach()
            total += float(criterion(Layer(name=name, weight=weight, role=role), stats).double().sum())
            count += weight.numel()
        return total / count if self.unit.per_weight else total

    def keep(self, scores: Scores, sparsity: NDArray[np.float64]) -> list[Keep]:
        """As many branches go as the shares add up to: those with the highest share first, and among equals the lowest score."""
        going = round(float(sparsity.sum()))
        order = np.lexsort((np.array([float(values[0]) for values in scores]), -sparsity)) if len(scores) else np.empty(0, np.int64)
        gone = set(order[:going].tolist())
        return [np.array([i not in gone]) for i in range(len(scores))]

    def cost(self, keep: Sequence[Keep]) -> dict[str, float]:
        """MACs and parameters of what is kept."""
        return self.residuals.cost(self.removed(keep))

    def masks(self, keep: Sequence[Keep]) -> dict[str, Tensor]:
        """Ones and zeros for the tensors that a branch's output is the product of: zeroed, the branch is silent."""
        return {name: torch.full(self.traced.tensor(name).shape, bool(kept[0]))
                for branch, kept in zip(self.branches, keep, strict=True) for name in self.silencers[branch.name]}

    def apply(self, keep: Sequence[Keep], traced: Traced) -> Traced:
        """The shallower network, with the weights of `traced`."""
        return without(traced, self.removed(keep))

    def rows(self, keep: Sequence[Keep], sensitivity: Sequence[float] | None = None) -> list[Row]:
        """A row per branch; `sparsity` is 1 where it is gone."""
        rows: list[Row] = [{"layer": b.name, "sparsity": float(not kept[0])} for b, kept in zip(self.branches, keep, strict=True)]
        for row, rise in zip(rows, sensitivity or (), strict=False):
            row["sensitivity"] = rise
        return rows

    def notes(self) -> tuple[str, ...]:
        """What stays because it could not be resolved."""
        return (*(f"the addition {name} is kept: {reason}" for name, reason in self.residuals.unresolved.items()),
                *(f"{name} is kept: its output is not the product of tensors of its own" for name in self._whole))


def silencers(traced: Traced, branch: Branch) -> tuple[str, ...] | None:
    """Names of the tensors that make a branch's output zero when they are: scale and shift of its last norm, or weight and bias of its last
    layer, or a layer scale; None where there are none that nothing else reads.
    """
    within = inside(traced, branch)
    output = next(node for node in within if node.name == branch.output)
    found = _silencers(output, within)
    if found is None:
        return None
    readers = [reader for name in found for node in traced.graph.find_nodes(op="get_attr")
               if traced.tensor(str(node.target)) is traced.tensor(name) for reader in node.users]
    return tuple(found) if len(readers) == len(found) else None


def _silencers(node: object, within: set[fx.Node]) -> list[str] | None:
    if not isinstance(node, fx.Node) or node not in within:
        return None
    if node.op == "get_attr":
        return [str(node.target)]
    name = op_name(node) if node.op == "call_function" else ""
    if name in _AFFINE:
        tensors = [node.args[i] if i < len(node.args) else None for i in _AFFINE[name]]
        present = [t for t in tensors if t is not None]
        named = [str(t.target) for t in present if isinstance(t, fx.Node) and t.op == "get_attr"]
        return named if tensors[0] is not None and len(named) == len(present) else None
    if name == "mul":
        return next((found for factor in node.args if (found := _silencers(factor, within)) is not None), None)
    if name == "add":
        parts = [_silencers(summand, within) for summand in node.args]
        return None if None in parts else [tensor for part in parts for tensor in part or ()]
    return _silencers(node.args[0], within) if name in ZERO_STAYS else None


def _weights(traced: Traced, branch: Branch) -> list[tuple[str, str]]:
    """Parameters of a branch and their roles, as those of a coupled group are called: weights are `out`, batch-norm scales `norm`."""
    found: dict[str, str] = {}
    for node in inside(traced, branch):
        if node.op == "get_attr" and isinstance(tensor := traced.tensor(str(node.target)), torch.nn.Parameter):
            scales = any(op_name(user) == "batch_norm" and user.args[1] is node for user in node.users if user.op == "call_function")
            found[str(node.target)] = "norm" if scales else "out" if tensor.ndim > 1 else "other"
    return sorted(found.items())
