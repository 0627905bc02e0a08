"""Methods that ask the loss, or the layers around, what a weight is worth; some before any training."""

from __future__ import annotations

from pathlib import Path

from lilliput.core import Budget
from lilliput.prune.allocation import global_threshold, uniform
from lilliput.prune.fitting import Measure
from lilliput.prune.recipes.basic import recovery
from lilliput.prune.saliency import ConnectionSensitivity, DiagonalHessian, FeatureTaylor, GradientFlow, Lamp, Lookahead
from lilliput.prune.schedules import Gradual, OneShot, Progressive, linear
from lilliput.prune.statistics import Gradient, HessianDiagonal, HessianGradient
from lilliput.prune.step import Prune
from lilliput.prune.units import Channels, Element
from lilliput.train import Fit


def lamp(budget: Budget, *, fine_tune: Fit | None = None, unit: Element = Element(), checkpoint: Path | None = None) -> Prune:
    """The lowest `w^2` over the sum of no smaller ones of the layer go, over the whole network (Lee 2021, `lee2021lamp`)."""
    return Prune(method="prune.lamp", budget=budget, criterion=Lamp(), unit=unit, allocation=global_threshold, recover=recovery(fine_tune),
                 checkpoint=checkpoint)


def lookahead(budget: Budget, *, fine_tune: Fit | None = None, unit: Element = Element(), checkpoint: Path | None = None) -> Prune:
    """Weights between weak neighbours go, the same share of every layer (Park 2020, `park2020lookahead`)."""
    return Prune(method="prune.lookahead", budget=budget, criterion=Lookahead(), unit=unit, allocation=uniform, recover=recovery(fine_tune),
                 checkpoint=checkpoint)


def obd(budget: Budget, *, fine_tune: Fit | None = None, unit: Element = Element(), curvature: HessianDiagonal = HessianDiagonal(),
        checkpoint: Path | None = None) -> Prune:
    """Weights with the least `h w^2 / 2` go, a tenth at a time while it is trained (LeCun 1990, `lecun1990obd`); without training all at once."""
    schedule = OneShot() if fine_tune is None else Gradual(curve=linear, updates=10)
    return Prune(method="prune.obd", budget=budget, criterion=DiagonalHessian(curvature=curvature), unit=unit, allocation=global_threshold,
                 schedule=schedule, recover=recovery(fine_tune), checkpoint=checkpoint)


def snip(budget: Budget, *, fine_tune: Fit | None = None, unit: Element = Element(), gradient: Gradient = Gradient(),
         checkpoint: Path | None = None) -> Prune:
    """Connections with the least `|g w|` go before training (Lee 2019, `lee2019snip`): give it a network as it was created, and a full training."""
    return Prune(method="prune.snip", budget=budget, criterion=ConnectionSensitivity(gradient=gradient), unit=unit, allocation=global_threshold,
                 recover=recovery(fine_tune), checkpoint=checkpoint)


def grasp(budget: Budget, *, fine_tune: Fit | None = None, unit: Element = Element(), product: HessianGradient = HessianGradient(),
          checkpoint: Path | None = None) -> Prune:
    """Weights whose loss hurts the gradient's norm least, or helps it, go before training (Wang 2020, `wang2020grasp`)."""
    return Prune(method="prune.grasp", budget=budget, criterion=GradientFlow(product=product), unit=unit, allocation=global_threshold,
                 recover=recovery(fine_tune), checkpoint=checkpoint)


def force(budget: Budget, *, fine_tune: Fit | None = None, rounds: int = 20, unit: Element = Element(), gradient: Gradient = Gradient(batches=2),
          checkpoint: Path | None = None) -> Prune:
    """SNIP in rounds, each with the gradients of the network as it is by then; what went may come back (de Jorge 2021, `dejorge2021force`).

    Scores are of the weights before pruning times gradients at the masked network.
    """
    return Prune(method="prune.force", budget=budget, criterion=ConnectionSensitivity(gradient=gradient), unit=unit, allocation=global_threshold,
                 schedule=Progressive(rounds=rounds), recover=recovery(fine_tune), checkpoint=checkpoint)


def taylor_activation(budget: Budget, *, fine_tune: Fit | None = None, updates: int = 10, unit: Channels = Channels(per_layer=False),
                      measure: Measure | None = None, checkpoint: Path | None = None) -> Prune:
    """Channels whose maps times their gradients are least go, in steps while it is trained (Molchanov 2017, `molchanov2017taylor`).

    Without training all go at once. The paper's penalty by the operations of each layer is not part of it.
    """
    schedule = OneShot() if fine_tune is None else Gradual(curve=linear, updates=updates)
    return Prune(method="prune.taylor_activation", budget=budget, criterion=FeatureTaylor(), unit=unit, allocation=global_threshold, schedule=schedule,
                 recover=recovery(fine_tune), measure=measure, checkpoint=checkpoint)
