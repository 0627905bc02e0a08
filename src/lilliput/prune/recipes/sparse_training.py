"""Methods whose masks move, or are learned, while the network trains."""

from __future__ import annotations

from pathlib import Path

from lilliput.core import Budget
from lilliput.prune.allocation import Allocation, deviations, erdos_renyi_kernel, global_threshold, uniform
from lilliput.prune.criteria import Magnitude, Random
from lilliput.prune.fitting import Measure
from lilliput.prune.gates import Rule
from lilliput.prune.gating import Gated
from lilliput.prune.growth import AdaptiveThreshold, AtRandom, Rewiring, Steepest, to_momentum, to_survivors
from lilliput.prune.penalty import GrowingPenalty
from lilliput.prune.recipes.basic import recovery
from lilliput.prune.rewinding import Rewinding
from lilliput.prune.rules import Feedback, SigmoidGate, SoftThreshold, Surgery, TrainableThreshold
from lilliput.prune.schedules import Gradual, constant
from lilliput.prune.step import Prune
from lilliput.prune.units import Channels, Element
from lilliput.train import Fit


def rigl(budget: Budget, *, fine_tune: Fit = Fit(), allocation: Allocation = erdos_renyi_kernel, rewiring: Rewiring = Rewiring(),
         unit: Element = Element(), checkpoint: Path | None = None) -> Prune:
    """Random masks from the start; the smallest weights go and those with the steepest gradient come (Evci 2020, `evci2020rigl`).

    With `allocation=uniform` the paper leaves the first layer dense: `unit=Element(exclude=...)`.
    """
    return Prune(method="prune.rigl", budget=budget, criterion=Random(), unit=unit, allocation=allocation, schedule=rewiring,
                 recover=recovery(fine_tune), checkpoint=checkpoint)


_MOSTAFA = Rewiring(drop=AdaptiveThreshold(), grow=AtRandom(), redistribute=to_survivors, share=0.05, decay=constant)
_DETTMERS = Rewiring(grow=Steepest(smoothing=0.9), redistribute=to_momentum, share=0.5, end=1.0)


def dsr(budget: Budget, *, fine_tune: Fit = Fit(), rewiring: Rewiring = _MOSTAFA, unit: Element = Element(),
        checkpoint: Path | None = None) -> Prune:
    """Weights under one adaptive threshold go, and come at random in layers that kept many (Mostafa 2019, `mostafa2019dsr`).

    The paper prunes a number of weights each time; the share here, a twentieth, is ours.
    """
    return Prune(method="prune.dsr", budget=budget, criterion=Random(), unit=unit, schedule=rewiring, recover=recovery(fine_tune),
                 checkpoint=checkpoint)


def sparse_momentum(budget: Budget, *, fine_tune: Fit = Fit(), rewiring: Rewiring = _DETTMERS, unit: Element = Element(),
                    checkpoint: Path | None = None) -> Prune:
    """Half of the weights go, fewer with time, and come where momentum is largest (Dettmers 2019, `dettmers2019momentum`).

    The running mean of gradients is the method's own, so any optimizer serves; the paper rewires once an epoch.
    """
    return Prune(method="prune.sparse_momentum", budget=budget, criterion=Random(), unit=unit, schedule=rewiring,
                 recover=recovery(fine_tune), checkpoint=checkpoint)


def _gated(method: str, budget: Budget, schedule: Gated, fine_tune: Fit, unit: Element, checkpoint: Path | None, *,
           allocation: Allocation = global_threshold) -> Prune:
    return Prune(method=f"prune.{method}", budget=budget, criterion=Magnitude(), unit=unit, allocation=allocation,
                 schedule=schedule, recover=recovery(fine_tune), checkpoint=checkpoint)


def dst(budget: Budget, *, fine_tune: Fit = Fit(), rule: Rule = TrainableThreshold(), ramp: Gradual = Gradual(),
        unit: Element = Element(), checkpoint: Path | None = None) -> Prune:
    """Neurons learn thresholds under which their weights are masked (Liu 2020, `liu2020dst`); the budget sets a common level."""
    return _gated("dst", budget, Gated(rule=rule, ramp=ramp), fine_tune, unit, checkpoint)


def soft_threshold(budget: Budget, *, fine_tune: Fit = Fit(), rule: Rule = SoftThreshold(), ramp: Gradual = Gradual(),
                   unit: Element = Element(), checkpoint: Path | None = None) -> Prune:
    """Layers learn thresholds by which their weights shrink (STR, Kusupati 2020, `kusupati2020str`).

    The budget sets a common level.
    """
    return _gated("str", budget, Gated(rule=rule, ramp=ramp), fine_tune, unit, checkpoint)


def continuous_sparsification(budget: Budget, *, fine_tune: Fit = Fit(), rule: Rule = SigmoidGate(), ramp: Gradual = Gradual(),
                              unit: Element = Element(), checkpoint: Path | None = None) -> Prune:
    """Every weight learns a gate that hardens with time (Savarese 2020, `savarese2020continuous`).

    The budget sets a common level.
    """
    return _gated("continuous_sparsification", budget, Gated(rule=rule, ramp=ramp), fine_tune, unit, checkpoint)


def dnw(budget: Budget, *, fine_tune: Fit = Fit(), allocation: Allocation = uniform, unit: Element = Element(),
        checkpoint: Path | None = None) -> Prune:
    """The largest weights pass, chosen anew at every step; all get gradients (Wortsman 2019, `wortsman2019dnw`).

    The wirings are those among the weights of the network's layers, not among single channels of any two.
    """
    schedule = Gated(rule=Feedback(), ramp=Gradual(curve=constant))
    return _gated("dnw", budget, schedule, fine_tune, unit, checkpoint, allocation=allocation)


def dns(budget: Budget, *, fine_tune: Fit = Fit(), rule: Rule = Surgery(), ramp: Gradual = Gradual(), interval: int = 10,
        checkpoint: Path | None = None) -> Prune:
    """Weights are cut under one threshold and spliced in again over a higher one (Guo 2016, `guo2016dns`).

    Thresholds lie as many standard deviations over the mean magnitude of their layer in all layers; how many, the budget says.
    The paper updates masks at random steps, ever fewer; here it is every `interval` steps.
    """
    schedule = Gated(rule=rule, ramp=ramp, interval=interval)
    return _gated("dns", budget, schedule, fine_tune, Element(), checkpoint, allocation=deviations)


def dpf(budget: Budget, *, fine_tune: Fit = Fit(), ramp: Gradual = Gradual(), interval: int = 16, unit: Element = Element(),
        checkpoint: Path | None = None) -> Prune:
    """Gradients of the pruned network move all weights, so that what went too early comes back (Lin 2020, `lin2020dpf`)."""
    return _gated("dpf", budget, Gated(rule=Feedback(), ramp=ramp, interval=interval), fine_tune, unit, checkpoint)


def growing_regularisation(budget: Budget, *, fine_tune: Fit = Fit(), penalty: GrowingPenalty = GrowingPenalty(),
                           unit: Element | Channels = Element(), measure: Measure | None = None,
                           checkpoint: Path | None = None) -> Prune:
    """The smallest of every layer, weights or filters, are pressed ever harder until they go (Wang 2021, `wang2021greg`)."""
    return Prune(method="prune.growing_regularisation", budget=budget, criterion=Magnitude(), unit=unit, schedule=penalty,
                 recover=recovery(fine_tune), measure=measure, checkpoint=checkpoint)


def lottery_ticket(budget: Budget, *, fine_tune: Fit = Fit(), rewinding: Rewinding = Rewinding(),
                   allocation: Allocation = global_threshold, unit: Element = Element(), checkpoint: Path | None = None) -> Prune:
    """Train, prune the smallest weights, go back to early ones, round after round (Frankle 2019, `frankle2019lottery`).

    The network given is the one to go back to: pass it as it was created.
    """
    return Prune(method="prune.lottery_ticket", budget=budget, criterion=Magnitude(), unit=unit, allocation=allocation,
                 schedule=rewinding, recover=recovery(fine_tune), checkpoint=checkpoint)
