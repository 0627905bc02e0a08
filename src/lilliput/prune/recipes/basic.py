"""Methods that rank weights and channels by norms and first derivatives."""

from __future__ import annotations

from pathlib import Path

from lilliput.core import Budget
from lilliput.prune.allocation import global_threshold, uniform
from lilliput.prune.criteria import GeometricMedian, GroupMagnitude, Magnitude, NormScale, Random, Taylor
from lilliput.prune.fitting import Measure
from lilliput.prune.schedules import Gradual, OneShot, Soft
from lilliput.prune.selection import LassoSelection
from lilliput.prune.step import FineTune, Prune, Slim
from lilliput.prune.units import Channels, Element
from lilliput.train import Fit


def recovery(fine_tune: Fit | None) -> FineTune | None:
    """Training, where some is given."""
    return None if fine_tune is None else FineTune(fit=fine_tune)


def l1_norm(budget: Budget, *, criterion: Magnitude | LassoSelection = Magnitude(1.0), fine_tune: Fit | None = None, unit: Channels = Channels(),
            measure: Measure | None = None, checkpoint: Path | None = None) -> Prune:
    """Filters with the smallest L1 norm go, the same share of every layer (Li 2017, `li2017pruning`).

    With `criterion=LassoSelection()` it is the channels that LASSO takes last to make up what the layers behind give, and least squares
    fits those layers' weights to the channels that stay (He 2017, `he2017channel`).
    """
    compensate = criterion.reconstruction if isinstance(criterion, LassoSelection) else None
    return Prune(method="prune.l1_norm", budget=budget, criterion=criterion, unit=unit, recover=recovery(fine_tune), compensate=compensate,
                 measure=measure, checkpoint=checkpoint)


def fpgm(budget: Budget, *, fine_tune: Fit | None = None, unit: Channels = Channels(), measure: Measure | None = None,
         checkpoint: Path | None = None) -> Prune:
    """Filters nearest the geometric median of their layer go (He 2019, `he2019fpgm`)."""
    return Prune(method="prune.fpgm", budget=budget, criterion=GeometricMedian(), unit=unit, recover=recovery(fine_tune),
                 measure=measure, checkpoint=checkpoint)


def taylor(budget: Budget, *, fine_tune: Fit | None = None, unit: Channels = Channels(per_layer=False),
           measure: Measure | None = None, checkpoint: Path | None = None) -> Prune:
    """Filters with the least `E[(g w)^2]` of the whole network go (Molchanov 2019, `molchanov2019importance`)."""
    return Prune(method="prune.taylor", budget=budget, criterion=Taylor(), unit=unit, allocation=global_threshold,
                 recover=recovery(fine_tune), measure=measure, checkpoint=checkpoint)


def dependency_groups(budget: Budget, *, fine_tune: Fit | None = None, unit: Channels = Channels(),
                      measure: Measure | None = None, checkpoint: Path | None = None) -> Prune:
    """Coupled channels with the smallest norm over every tensor they touch go (Fang 2023, `fang2023depgraph`)."""
    return Prune(method="prune.dependency_groups", budget=budget, criterion=GroupMagnitude(), unit=unit, allocation=uniform,
                 recover=recovery(fine_tune), measure=measure, checkpoint=checkpoint)


def network_slimming(budget: Budget, *, train: Fit = Fit(), strength: float = 1e-4, fine_tune: Fit | None = None,
                     measure: Measure | None = None, checkpoint: Path | None = None) -> Prune:
    """Train with an L1 penalty on batch-norm scales, then the smallest scales go globally (Liu 2017, `liu2017slimming`)."""
    return Prune(method="prune.network_slimming", budget=budget, criterion=NormScale(), unit=Channels(per_layer=False),
                 allocation=global_threshold, prepare=Slim(fit=train, strength=strength), recover=recovery(fine_tune),
                 measure=measure, checkpoint=checkpoint)


def sfp(budget: Budget, *, fine_tune: Fit = Fit(), unit: Channels = Channels(), measure: Measure | None = None,
        checkpoint: Path | None = None) -> Prune:
    """Filters with the smallest L2 norm are zeroed after each epoch, may grow back, and go at the end (He 2018, `he2018sfp`)."""
    return Prune(method="prune.sfp", budget=budget, criterion=Magnitude(2.0), unit=unit, schedule=Soft(),
                 recover=recovery(fine_tune), measure=measure, checkpoint=checkpoint)


def magnitude_global(budget: Budget, *, fine_tune: Fit | None = None, schedule: OneShot | Gradual = OneShot(),
                     unit: Element = Element(), checkpoint: Path | None = None) -> Prune:
    """The smallest weights of the whole network go, in one shot or gradually (Gupta 2022, `gupta2022globalmp`)."""
    return Prune(method="prune.magnitude_global", budget=budget, criterion=Magnitude(1.0), unit=unit, schedule=schedule,
                 allocation=global_threshold, recover=recovery(fine_tune), checkpoint=checkpoint)


def magnitude_gradual(budget: Budget, *, fine_tune: Fit = Fit(), schedule: Gradual = Gradual(), unit: Element = Element(),
                      checkpoint: Path | None = None) -> Prune:
    """The smallest weights of every layer go while training, along a cubic schedule (Zhu 2018, `zhu2018prune`)."""
    return Prune(method="prune.magnitude_gradual", budget=budget, criterion=Magnitude(1.0), unit=unit, schedule=schedule,
                 recover=recovery(fine_tune), checkpoint=checkpoint)


def random(budget: Budget, *, fine_tune: Fit | None = None, unit: Channels = Channels(), measure: Measure | None = None,
           checkpoint: Path | None = None) -> Prune:
    """Channels drawn at random go: the baseline that every method must beat."""
    return Prune(method="prune.random", budget=budget, criterion=Random(), unit=unit, recover=recovery(fine_tune),
                 measure=measure, checkpoint=checkpoint)
