"""Methods that train the network with quantization in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lilliput.quantize.bits import Uniform
from lilliput.quantize.clipping import NewtonClip
from lilliput.quantize.estimators import LSQ, StraightThrough
from lilliput.quantize.magnitudes import MeanMagnitude
from lilliput.quantize.newton import NewtonClipped
from lilliput.quantize.scheme import Scheme
from lilliput.quantize.training import Train
from lilliput.quantize.training import train as train_quantized
from lilliput.train import SGD, Fit, Hook

__all__ = ["lsq", "octav", "qat"]


def qat(*, weights: int = 8, activations: int = 8, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
        exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Training with simulated integers. Axes: integer grid, moving extremes, nearest, uniform, straight-through.

    What departs from the paper stands at `Train`. (jacob2018quantization)
    """
    scheme = Scheme(bits=Uniform(weights=weights, activations=activations), exclude=exclude)
    return train_quantized(estimator=StraightThrough(), scheme=scheme, fit=fit, hooks=hooks, checkpoint=checkpoint)


def lsq(*, weights: int = 4, activations: int = 8, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
        exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Learned step sizes; first and last layer at 8 bits. Axes: integer grid, learned, nearest, uniform, LSQ.

    As in the paper weights decay half as much with 3 bits and a quarter with 2, where `fit` is not given. What departs from the
    paper stands at `LSQ` and `Train`. (esser2020lsq)
    """
    fit = fit or Fit(epochs=3, optimizer=SGD(lr=0.01, weight_decay=5e-4 * {2: 0.25, 3: 0.5}.get(weights, 1.0)))
    scheme = Scheme(ranges=MeanMagnitude(), bits=Uniform(weights=weights, activations=activations, ends=8), exclude=exclude)
    return train_quantized(estimator=LSQ(), scheme=scheme, fit=fit, hooks=hooks, checkpoint=checkpoint)


def octav(*, weights: int = 4, activations: int = 8, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
          exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Clips of least squared error, found anew in every step of training.

    Axes: integer grid, Newton iteration, nearest, uniform, magnitude-aware.

    First and last layer have 8 bits. The range alone is `static(ranges=NewtonClip())`. What departs from the paper stands at
    `NewtonClipped` and `Train`. (sakr2022octav)
    """
    bits = Uniform(weights=weights, activations=activations, ends=8)
    scheme = Scheme(ranges=NewtonClip(), weight_ranges=NewtonClip(), bits=bits, exclude=exclude)
    step = train_quantized(estimator=NewtonClipped(), scheme=scheme, fit=fit, hooks=hooks, checkpoint=checkpoint)
    return replace(step, method="quantize.octav")
