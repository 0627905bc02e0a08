"""Methods whose sparsities an agent learns by reinforcement, before the network runs or while it does."""

from __future__ import annotations

from pathlib import Path

from lilliput.core import Budget
from lilliput.prune.criteria import Magnitude
from lilliput.prune.fitting import Measure
from lilliput.prune.ratios import LayerRatios
from lilliput.prune.recipes.basic import recovery
from lilliput.prune.runtime import AtRuntime, Turns
from lilliput.prune.selection import LassoSelection
from lilliput.prune.step import FineTune, Prune
from lilliput.prune.thresholds import DeviationThresholds
from lilliput.prune.units import Channels, Element
from lilliput.train import Fit


def amc(budget: Budget, *, allocation: LayerRatios = LayerRatios(), criterion: Magnitude | LassoSelection = Magnitude(1.0),
        fine_tune: Fit | None = None, measure: Measure | None = None, checkpoint: Path | None = None) -> Prune:
    """A DDPG agent gives each layer its share, and in it the filters with the smallest L1 norm go (He 2018, `he2018amc`).

    With `criterion=LassoSelection()` least squares fits the layers behind to the channels that stay, once the shares are chosen.
    """
    compensate = criterion.reconstruction if isinstance(criterion, LassoSelection) else None
    return Prune(method="prune.amc", budget=budget, criterion=criterion, unit=Channels(), allocation=allocation, recover=recovery(fine_tune),
                 compensate=compensate, measure=measure, checkpoint=checkpoint)


def purl(budget: Budget, *, allocation: DeviationThresholds = DeviationThresholds(), unit: Element = Element(), fine_tune: Fit | None = None,
         checkpoint: Path | None = None) -> Prune:
    """Weights under a multiple of their layer's deviation go; a DQN agent, rewarded after each layer, picks it (Gupta 2020, `gupta2020purl`)."""
    return Prune(method="prune.purl", budget=budget, criterion=Magnitude(1.0), unit=unit, allocation=allocation, recover=recovery(fine_tune),
                 checkpoint=checkpoint)


def runtime_neural_pruning(budget: Budget, *, fine_tune: Fit = Fit(), zones: int = 4, turns: Turns = Turns(), unit: Channels = Channels(),
                           checkpoint: Path | None = None) -> AtRuntime:
    """A policy in the network chooses, for each sample and layer, how many channels are computed (Lin 2017, `lin2017rnp`).

    The budget is of multiplications, on average over validation samples; it learns by Q-learning in turns with the network.
    """
    return AtRuntime(budget=budget, recover=FineTune(fit=fine_tune), zones=zones, turns=turns, unit=unit, checkpoint=checkpoint)
