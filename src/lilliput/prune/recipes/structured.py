"""Methods that say which channels matter from their maps, from slopes of masks, or from batch norms; and one that says how sparse layers may be."""

from __future__ import annotations

from pathlib import Path

from lilliput.core import Budget
from lilliput.prune.allocation import Allocation, FromNetwork, global_threshold, uniform
from lilliput.prune.criteria import Magnitude
from lilliput.prune.features import Rank, TraceRatio
from lilliput.prune.fisher import Collaborative, GroupFisher
from lilliput.prune.fitting import Measure
from lilliput.prune.inactivity import ActiveChance, SoftChannels
from lilliput.prune.knockoffs import ScientificControl
from lilliput.prune.rate import RateDistortion
from lilliput.prune.recipes.basic import recovery
from lilliput.prune.sampler import LearntCriterion
from lilliput.prune.savings import PerSaving
from lilliput.prune.schedules import Gradual, OneShot, linear
from lilliput.prune.step import Prune
from lilliput.prune.units import Channels, Element
from lilliput.train import Fit


def group_fisher(budget: Budget, *, fine_tune: Fit | None = None, updates: int = 10, allocation: Allocation | FromNetwork = PerSaving(),
                 measure: Measure | None = None, checkpoint: Path | None = None) -> Prune:
    """Coupled channels with the least Fisher importance for the memory of their maps go, in steps while it is trained (Liu 2021, `liu2021gfp`).

    `allocation=PerSaving(macs)` weighs by multiplications instead, `global_threshold` by nothing. The paper removes one channel every few steps; here `updates` times
    several. Without training all go at once.
    """
    schedule = OneShot() if fine_tune is None else Gradual(curve=linear, updates=updates)
    return Prune(method="prune.group_fisher", budget=budget, criterion=GroupFisher(), unit=Channels(per_layer=False), allocation=allocation,
                 schedule=schedule, recover=recovery(fine_tune), measure=measure, checkpoint=checkpoint)


def hrank(budget: Budget, *, fine_tune: Fit | None = None, criterion: Rank = Rank(), unit: Channels = Channels(), measure: Measure | None = None,
          checkpoint: Path | None = None) -> Prune:
    """Filters whose maps have the lowest mean rank go (Lin 2020, `lin2020hrank`).

    The paper gives every layer a share by hand; here it is the same for all. It trains layer after layer; here once, at the end.
    """
    return Prune(method="prune.hrank", budget=budget, criterion=criterion, unit=unit, allocation=uniform, recover=recovery(fine_tune),
                 measure=measure, checkpoint=checkpoint)


def scop(budget: Budget, *, fine_tune: Fit | None = None, criterion: ScientificControl = ScientificControl(), measure: Measure | None = None,
         checkpoint: Path | None = None) -> Prune:
    """Filters whose maps do no better than those of other samples go, the same share of every layer (Tang 2020, `tang2020scop`)."""
    return Prune(method="prune.scop", budget=budget, criterion=criterion, unit=Channels(per_layer=False), allocation=uniform,
                 recover=recovery(fine_tune), measure=measure, checkpoint=checkpoint)


def catro(budget: Budget, *, fine_tune: Fit | None = None, criterion: TraceRatio = TraceRatio(), measure: Measure | None = None,
          checkpoint: Path | None = None) -> Prune:
    """Channels that tell classes apart least go, the same share of every layer (Hu 2023, `hu2023catro`)."""
    return Prune(method="prune.catro", budget=budget, criterion=criterion, allocation=uniform, recover=recovery(fine_tune), measure=measure,
                 checkpoint=checkpoint)


def ccp(budget: Budget, *, fine_tune: Fit | None = None, criterion: Collaborative = Collaborative(), measure: Measure | None = None,
        checkpoint: Path | None = None) -> Prune:
    """Channels whose joint removal raises the loss least go, the same share of every layer (Peng 2019, `peng2019ccp`)."""
    return Prune(method="prune.ccp", budget=budget, criterion=criterion, allocation=uniform, recover=recovery(fine_tune), measure=measure,
                 checkpoint=checkpoint)


def scp(budget: Budget, *, train: SoftChannels = SoftChannels(), fine_tune: Fit | None = None, measure: Measure | None = None,
        checkpoint: Path | None = None) -> Prune:
    """Train under soft channel masks, then the channels that are least likely to be active go, over the whole network (Kang 2020, `kang2020scp`).

    The paper removes what its masks have shut by the end; here the budget says how many.
    """
    return Prune(method="prune.scp", budget=budget, criterion=ActiveChance(), unit=Channels(per_layer=False), allocation=global_threshold,
                 prepare=train, recover=recovery(fine_tune), measure=measure, checkpoint=checkpoint)


def lfpc(budget: Budget, *, fine_tune: Fit | None = None, criterion: LearntCriterion = LearntCriterion(), measure: Measure | None = None,
         checkpoint: Path | None = None) -> Prune:
    """Filters go by the criterion that was learnt for their layer, the same share of every layer (He 2020, `he2020lfpc`)."""
    return Prune(method="prune.lfpc", budget=budget, criterion=criterion, allocation=uniform, recover=recovery(fine_tune), measure=measure,
                 checkpoint=checkpoint)


def rd_prune(budget: Budget, *, fine_tune: Fit | None = None, allocation: RateDistortion = RateDistortion(), unit: Element = Element(),
             checkpoint: Path | None = None) -> Prune:
    """The smallest weights of each layer go, as many as costs the network's output least in all (Xu 2023, `xu2023rd`)."""
    return Prune(method="prune.rd_prune", budget=budget, criterion=Magnitude(1.0), unit=unit, allocation=allocation, recover=recovery(fine_tune),
                 checkpoint=checkpoint)
