"""Search: of some multiples of a quantizer's scale the one that serves the results best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lilliput.core.errors import RecipeError
from lilliput.quantize.grids import Parameters
from lilliput.quantize.quantizer import Quantizer


def factors(low: float, high: float, steps: int) -> tuple[float, ...]:
    """1, and `steps` factors from `low` to `high`; raises `RecipeError` where these are none."""
    if not 0 < low <= high or steps < 1:
        raise RecipeError(f"scales are searched from a positive factor upwards in one step or more, not {low} to {high} in {steps}")
    return (1.0, *torch.linspace(low, high, steps).tolist())


def take_best_(quantizer: Quantizer, tried: Sequence[float], loss: Callable[[], float]) -> float:
    """Leave in the quantizer the multiple of its scale with the least loss, the first of equals; the factor."""
    scale, zero = quantizer.scale.detach().clone(), quantizer.zero_point.clone()
    alive = torch.zeros_like(scale, dtype=torch.bool)

    def lost(factor: float) -> float:
        quantizer.set(Parameters(scale * factor, zero, alive))
        return loss()

    best = min(tried, key=lost)
    quantizer.set(Parameters(scale * best, zero, alive))
    return best
