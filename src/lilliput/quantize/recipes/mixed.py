"""Methods that give every layer, or every channel, a width of its own under a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lilliput.core.budget import Budget
from lilliput.quantize.mixed.channels import LossAware, LossGuided
from lilliput.quantize.mixed.costs import Cost
from lilliput.quantize.mixed.episodes import Episodes
from lilliput.quantize.mixed.hessian import HessianEigenvalue, HessianTrace
from lilliput.quantize.mixed.hierarchy import Hierarchical
from lilliput.quantize.mixed.learned import LearnMixed
from lilliput.quantize.mixed.learners import FractionalBits, LearnedStep, SampledBranches
from lilliput.quantize.mixed.lowering import LowerMixed
from lilliput.quantize.mixed.rewards import AccuracyKept, ShapedReward
from lilliput.quantize.mixed.step import Additive, Mixed
from lilliput.quantize.mixed.task import Widths
from lilliput.quantize.mixed.tolerance import Tolerance
from lilliput.quantize.mixed.written import FineMixed
from lilliput.quantize.posttraining import Static
from lilliput.quantize.training import Train
from lilliput.train.agents import DDPG, PPO

__all__ = ["alq_bits", "aq", "autoq", "dmbq", "dnas_bits", "dq", "fracbits", "haq", "hawq", "releq"]

_NEAREST, _TRAINED = Static(), Train()


def _kept(train: Train, checkpoint: Path | None) -> Train:
    return train if checkpoint is None else replace(train, checkpoint=checkpoint)


def _saved(inner: Static | Train, checkpoint: Path | None) -> Static | Train:
    return _kept(inner, checkpoint) if isinstance(inner, Train) else inner


def hawq(budget: Budget, *, sensitivity: HessianTrace | HessianEigenvalue = HessianTrace(), widths: Widths = Widths(),
         costs: Mapping[str, Cost] | None = None, inner: Static | Train = _NEAREST, checkpoint: Path | None = None) -> Mixed:
    """Widths by the curvature of the loss: `HessianEigenvalue()` (v1) or `HessianTrace()` (v2), chosen exactly (v3).

    Axes: integer grid, min-max, nearest, Hessian spectrum. `inner` quantizes with the widths found; the papers train then
    (`Train()`). Activations all have one width, where the papers choose theirs too. (dong2019hawq, dong2020hawqv2,
    yao2021hawqv3)
    """
    search = Additive(sensitivity=sensitivity)
    return Mixed(method="quantize.hawq", budget=budget, search=search, widths=widths, costs=costs or {},
                 inner=_saved(inner, checkpoint))


def fracbits(budget: Budget, *, learner: FractionalBits = FractionalBits(), widths: Widths = Widths(),
             costs: Mapping[str, Cost] | None = None, train: Train = _TRAINED, checkpoint: Path | None = None) -> LearnMixed:
    """Widths between whole numbers, interpolations of the two neighbours, are learned and then fixed. (yang2020fracbits)

    Axes: integer grid, moving extremes, nearest, fractional interpolation, straight-through. Departs from the paper in
    ranges that are the extremes instead of learned clips, and in fixing the widths exactly within the budget.
    """
    return LearnMixed(method="quantize.fracbits", budget=budget, learner=learner, widths=widths, costs=costs or {},
                      train=_kept(train, checkpoint))


def dq(budget: Budget, *, learner: LearnedStep = LearnedStep(), widths: Widths = Widths(),
       costs: Mapping[str, Cost] | None = None, train: Train = _TRAINED, checkpoint: Path | None = None) -> LearnMixed:
    """Step and range of every layer are learned, and the width follows from the two. (uhlich2020dq)

    Axes: integer grid, learned step and range, nearest, inferred, straight-through. What departs from the paper stands at
    `StepAndRange`; the power-of-two grid of the paper is left out, and widths are fixed exactly within the budget before
    training ends.
    """
    return LearnMixed(method="quantize.dq", budget=budget, learner=learner, widths=widths, costs=costs or {},
                      train=_kept(train, checkpoint))


def dnas_bits(budget: Budget, *, learner: SampledBranches = SampledBranches(), widths: Widths = Widths(),
              costs: Mapping[str, Cost] | None = None, train: Train = _TRAINED, checkpoint: Path | None = None) -> LearnMixed:
    """Every layer has a branch of each width, mixed by a Gumbel softmax whose logits are learned; the most probable ones stay.

    Axes: integer grid, nearest, differentiable search, Gumbel softmax. What departs from the paper stands at
    `SampledBranches`. (wu2018dnas)
    """
    return LearnMixed(method="quantize.dnas_bits", budget=budget, learner=learner, widths=widths, costs=costs or {},
                      train=_kept(train, checkpoint))


def haq(budget: Budget, *, search: Episodes = Episodes(agent=DDPG(), reward=AccuracyKept()), widths: Widths = Widths(),
        costs: Mapping[str, Cost] | None = None, inner: Static | Train = _NEAREST, checkpoint: Path | None = None) -> Mixed:
    """An agent (DDPG) chooses layer after layer; `costs` is what the hardware answers, seconds or joules by layer and width.

    Axes: integer grid, min-max, nearest, RL with hardware feedback. Departs from the paper in what stands at `Episodes`, in
    activations of one width, and in min-max ranges where the paper clips by divergence (pass `inner` with other ranges).
    (wang2019haq)
    """
    return Mixed(method="quantize.haq", budget=budget, search=search, widths=widths, costs=costs or {},
                 inner=_saved(inner, checkpoint))


def releq(budget: Budget, *, search: Episodes = Episodes(agent=PPO(), reward=ShapedReward()), widths: Widths = Widths(),
          costs: Mapping[str, Cost] | None = None, inner: Static | Train = _NEAREST, checkpoint: Path | None = None) -> Mixed:
    """An agent (PPO, recurrent) chooses layer after layer; its reward trades accuracy kept for bits saved.

    Axes: integer grid, min-max, nearest, RL per layer. Departs from the paper in what stands at `Episodes`: there the reward
    alone balances bits and accuracy, and there is no budget. (elthakeb2018releq)
    """
    return Mixed(method="quantize.releq", budget=budget, search=search, widths=widths, costs=costs or {},
                 inner=_saved(inner, checkpoint))


def aq(budget: Budget, *, search: Tolerance = Tolerance(), widths: Widths = Widths(weights=(0, 2, 3, 4, 5, 6, 7, 8)),
       inner: Static = _NEAREST) -> FineMixed:
    """Every single weight has the fewest bits whose error the loss tolerates. (khoram2018aq)

    Axes: integer grid, min-max, nearest, loss tolerance per parameter. What departs from the paper stands at `Tolerance`.
    """
    return FineMixed(method="quantize.aq", budget=budget, search=search, widths=widths, inner=inner)


def autoq(budget: Budget, *, search: Hierarchical = Hierarchical(), widths: Widths = Widths(),
          inner: Static = _NEAREST) -> FineMixed:
    """Two agents choose: one an average width for each layer, the other a width for each of its output channels. (lou2020autoq)

    Axes: integer grid, min-max, nearest, hierarchical RL per channel. What departs from the paper stands at `Hierarchical`.
    """
    return FineMixed(method="quantize.autoq", budget=budget, search=search, widths=widths, inner=inner)


def dmbq(budget: Budget, *, channels: LossGuided = LossGuided(), bases: int = 6, activations: int = 8, train: Train = _TRAINED,
         checkpoint: Path | None = None) -> LowerMixed:
    """Multi-bit weights with tabulated coordinates; channels that the loss minds least lose bits in training. (zhao2021dmbq)

    Axes: distribution-aware multi-bit grid, tabulated, nearest, loss-guided per channel, straight-through. What departs from
    the paper stands at `LossGuided`; the first and the last layer are no exceptions here, and activations all have one
    width.
    """
    return LowerMixed(method="quantize.dmbq", budget=budget, channels=channels, bases=bases, activations=activations,
                      train=_kept(train, checkpoint))


def alq_bits(budget: Budget, *, channels: LossAware = LossAware(), bases: int = 6, activations: int = 8, train: Train = _TRAINED,
             checkpoint: Path | None = None) -> LowerMixed:
    """Multi-bit weights fitted in view of the loss, pruned coordinate by coordinate, also below 1 bit on average. (qu2020alq)

    Axes: multi-bit binary grid, loss-aware rounding, pruned bases, loss-aware. What departs from the paper stands at
    `LossAware`.
    """
    return LowerMixed(method="quantize.alq_bits", budget=budget, channels=channels, bases=bases, activations=activations,
                      train=_kept(train, checkpoint))
