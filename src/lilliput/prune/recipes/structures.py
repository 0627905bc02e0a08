"""Methods that choose a whole structure: by masks without any training, by gates before it, by a threshold or latent vectors during it."""

from __future__ import annotations

from pathlib import Path

from lilliput.core import Budget
from lilliput.prune.allocation import global_threshold
from lilliput.prune.criteria import Magnitude, NormScale
from lilliput.prune.feedback import SensitivityFeedback
from lilliput.prune.fisher import InputSlopes
from lilliput.prune.fitting import Measure
from lilliput.prune.from_scratch import DrawAnew, FrozenGates
from lilliput.prune.hypernetwork import MetaPruning
from lilliput.prune.mask_search import LeastRemoved, MaskFisher, Swaps
from lilliput.prune.mask_tuning import Drawn, TunedMasks
from lilliput.prune.recipes.basic import recovery
from lilliput.prune.step import FineTune, Prune
from lilliput.prune.units import Channels
from lilliput.train import Fit


def kwon_post_training(budget: Budget, *, samples: int = 2048, damping: float = 1e-2, unit: Channels = Channels(per_layer=False),
                       allocation: LeastRemoved = LeastRemoved(), measure: Measure | None = None) -> Prune:
    """Heads and hidden units with the least Fisher information of their masks go, and masks are tuned; nothing is trained.

    (Kwon 2022, `kwon2022posttraining`) Masks are searched within the multiplications that are left, then swapped within each layer, then
    tuned on `samples` samples of the training split, drawn in batches of 64. In other networks it is the channels inside of residual
    branches, and batch norms take their statistics anew. One head and one hidden unit of each layer always stay.
    """
    batches = max(-(-samples // 64), 1)
    reading, drawn = InputSlopes(batches=batches), Drawn(batches=batches)
    return Prune(method="prune.kwon_post_training", budget=budget, criterion=MaskFisher(reading=reading), unit=unit,
                 allocation=allocation, rearrange=Swaps(criterion=MaskFisher(reading=reading)),
                 compensate=TunedMasks(samples=drawn, damping=damping), measure=measure)


def prune_from_scratch(budget: Budget, *, train: FrozenGates = FrozenGates(), fine_tune: Fit = Fit(), measure: Measure | None = None,
                       checkpoint: Path | None = None) -> Prune:
    """Channel gates learn on random weights, those above one threshold stay, and what they leave is trained with new random weights.

    (Wang 2020, `wang2020scratch`) Of the network that comes only the structure counts: `train` and `fine_tune` each draw weights anew, by
    their seeds. The threshold is found by bisection.
    """
    return Prune(method="prune.prune_from_scratch", budget=budget, criterion=NormScale(), unit=Channels(per_layer=False),
                 allocation=global_threshold, prepare=train, recover=FineTune(fit=fine_tune, hooks=(DrawAnew(fine_tune.seed + 1),)),
                 measure=measure, checkpoint=checkpoint)


def aster(budget: Budget, *, fine_tune: Fit = Fit(), schedule: SensitivityFeedback = SensitivityFeedback(), unit: Channels = Channels(),
          measure: Measure | None = None, checkpoint: Path | None = None) -> Prune:
    """Filters under a threshold of their norm go while the network trains, as fast as the loss's sensitivity to it allows.

    (Zhang 2022, `zhang2022aster`) Made after the paper's abstract: `SensitivityFeedback` says what of it is our reading.
    """
    return Prune(method="prune.aster", budget=budget, criterion=Magnitude(2.0), unit=unit, allocation=global_threshold, schedule=schedule,
                 recover=recovery(fine_tune), measure=measure, checkpoint=checkpoint)


def dhp(budget: Budget, *, fine_tune: Fit = Fit(), schedule: MetaPruning = MetaPruning(), unit: Channels = Channels(),
        measure: Measure | None = None, checkpoint: Path | None = None) -> Prune:
    """Hypernetworks make the weights from latent vectors, which lose those under a penalty that matter least (Li 2020, `li2020dhp`)."""
    return Prune(method="prune.dhp", budget=budget, criterion=Magnitude(), unit=unit, allocation=global_threshold, schedule=schedule,
                 recover=recovery(fine_tune), measure=measure, checkpoint=checkpoint)
