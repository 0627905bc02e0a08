"""How well predictions order allocations: predicted against true loss over random ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lilliput.quantize.mixed.evaluator import Evaluator
from lilliput.quantize.mixed.sensitivity import Sensitivity
from lilliput.quantize.mixed.task import Task


@dataclass(frozen=True)
class Agreement:
    """Predicted and true rises of the loss, one for each allocation, and Spearman's rank correlation of the two."""

    predicted: tuple[float, ...]
    true: tuple[float, ...]
    rank: float


def agreement(task: Task, sensitivity: Sensitivity, *, allocations: int = 40, samples: int = 512, seed: int = 0) -> Agreement:
    """Draw `allocations` at random, layer by layer, and compare the sum of sensitivities with the loss on `data.val`.

    Activations stay in floating point. The rank is NaN where all allocations are predicted, or cost, the same.
    """
    from scipy.stats import spearmanr

    rng = np.random.default_rng(seed)
    table, layers = sensitivity(task), np.arange(len(task.layers))
    evaluate = Evaluator.of(task.network, task.data, samples)
    base = evaluate({}).loss
    drawn = rng.integers(0, len(task.widths.weights), (allocations, len(layers)))
    predicted = tuple(float(table[layers, options].sum()) for options in drawn)
    true = tuple(evaluate(task.weights([int(c) for c in options])).loss - base for options in drawn)
    return Agreement(predicted, true, float(spearmanr(predicted, true).statistic))
