"""Methods that remove whole blocks together with channels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lilliput.core import Budget
from lilliput.prune.adversarial import Adversarial
from lilliput.prune.criteria import Magnitude
from lilliput.prune.dimensions import Samples, ThreeDimensions
from lilliput.prune.ranking import Ranking
from lilliput.prune.recipes.basic import recovery
from lilliput.prune.step import Prune
from lilliput.prune.structures import Structures
from lilliput.prune.units import Channels
from lilliput.train import SGD, Fit

_SHORT = Fit(epochs=1, batch_size=64, optimizer=SGD(lr=0.02))


def three_d(budget: Budget, *, collect: Fit | None = _SHORT, fine_tune: Fit | None = None, unit: Channels = Channels(), samples: Samples = Samples(),
            checkpoint: Path | None = None) -> ThreeDimensions:
    """Depth, width and resolution go by a polynomial of accuracy, fitted to a few pruned networks (Wang 2021, `wang2021three`).

    `collect` trains each of those. The result scales its images down itself, where resolution goes.
    """
    return ThreeDimensions(method="prune.three_d", budget=budget, unit=unit, samples=samples, collect=collect, recover=recovery(fine_tune),
                           checkpoint=checkpoint)


def gal(budget: Budget, *, train: Fit = Fit(), fine_tune: Fit | None = None, adversarial: Adversarial = Adversarial(), unit: Structures = Structures(),
        checkpoint: Path | None = None) -> Prune:
    """Channels and blocks go whose masks, trained without labels against a discriminator, come out smallest (Lin 2019, `lin2019gal`).

    `train` is that training; `fine_tune`, with labels, follows the removal.
    """
    schedule = adversarial if fine_tune is None else replace(adversarial, fine_tune=fine_tune)
    return Prune(method="prune.gal", budget=budget, criterion=Magnitude(), unit=unit, allocation=Ranking(), schedule=schedule,
                 recover=recovery(train), checkpoint=checkpoint)
