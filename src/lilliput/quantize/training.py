"""Quantization-aware training: the quantized network in the one training loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.core.report import Entry, Report
from lilliput.core.step import Result
from lilliput.graph.trace import Traced
from lilliput.quantize.calibrate import check_calibrated, constant_names, constants, quantizers
from lilliput.quantize.estimators import Estimator, StraightThrough
from lilliput.quantize.folding import fold_quantized_
from lilliput.quantize.measure import layer_rows
from lilliput.quantize.prepare import Rewrite, prepare
from lilliput.quantize.quantizer import BiasQuantizer
from lilliput.quantize.scheme import Scheme
from lilliput.train import SGD, Fit, Hook, State, fit

# The most by which a learned scale may grow or shrink in one step of the optimizer.
_TRUST = 1.1


def equip(model: nn.Module, data: Any, scheme: Scheme, *, estimator: Estimator = StraightThrough(), samples: int = 512,
          rewrites: Sequence[Rewrite] = ()) -> tuple[Traced, list[str]]:
    """Prepare a network for training with quantization; together with the hook `Aware` it goes into any `fit`.

    Batch norms after layers stay, and train, until `settle_`.
    """
    traced, notes = prepare(model, data, scheme, samples=samples, rewrites=rewrites, fold=False)
    tensors = dict(constants(traced))
    for quantizer in quantizers(traced):
        estimator.equip_(quantizer, tensors.get(quantizer))
    return traced.eval(), notes


def settle_(traced: Traced) -> list[str]:
    """End training with quantization, in place: final grids, weights on them, batch norms folded; returns notes."""
    traced.eval()
    tensors = dict(constant_names(traced))
    for quantizer in quantizers(traced):
        name = tensors.get(quantizer)
        values = quantizer.settle(None if name is None else traced.tensor(name).detach())
        if values is not None and name is not None:
            traced.set_tensor(name, values)
    return fold_quantized_(traced)


@dataclass(frozen=True, kw_only=True)
class Aware(Hook):
    """Keeps quantizers sound in a `fit`, beside the hooks of pruning and distillation.

    Ranges that follow the data stop at `freeze` (share of training), so that the last steps train on the final grid;
    learned scales stay positive, since they change by a tenth at most in one step (a departure from Esser 2020: the scale
    of a tensor with few values, such as a small image, can overshoot zero); at the end the biases' scales are fixed.
    Weights that a mask holds at zero stay exactly zero on grids that hold zero: all but those of signs.
    """

    freeze: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.freeze <= 1:
            raise RecipeError(f"freeze is a share of training between 0 and 1, not {self.freeze!r}")

    def start(self, state: State) -> None:
        """Raises `PreconditionError` on a network without quantizers, or with uncalibrated ones."""
        if not quantizers(state.model):
            raise PreconditionError("the network has no quantizers: pass what lilliput.quantize.equip(model, data, scheme) returns to fit")
        check_calibrated(state.model)

    def gradients(self, state: State) -> None:
        """Remember the scales before the step."""
        for quantizer in quantizers(state.model):
            quantizer.before = [scale.detach().clone() for scale in quantizer.learned]

    def step(self, state: State) -> None:
        """Limit the step of the scales, and freeze ranges when it is time."""
        frozen = state.progress >= self.freeze
        with torch.no_grad():
            for quantizer in quantizers(state.model):
                for scale, before in zip(quantizer.learned, quantizer.before, strict=False):
                    scale.copy_(scale.clamp(before / _TRUST, before * _TRUST))
                quantizer.before = []
                if frozen:
                    quantizer.follow = None

    def end(self, state: State) -> None:
        """Ranges stop for good."""
        for quantizer in quantizers(state.model):
            quantizer.follow = None
            quantizer._buffers.pop("bounds", None)
        for module in state.model.modules():
            if isinstance(module, BiasQuantizer):
                module.settle()


def fine_tuning() -> Fit:
    """A tenth of the usual learning rate: the network is trained already."""
    return Fit(epochs=3, optimizer=SGD(lr=0.01))


@dataclass(frozen=True, kw_only=True)
class Train:
    """A Step: quantize, then train the network as the integers will run it.

    Batch norms train behind the quantized weights and are folded when training ends. With a scale to each channel that is the
    paper's folding, whose factor would multiply weights and scales alike, but for its correction between the statistics of the
    batch and the running ones; the biases that come of it are rounded then. (jacob2018quantization)
    """

    scheme: Scheme = field(default_factory=Scheme)
    estimator: Estimator = field(default_factory=StraightThrough)
    fit: Fit = field(default_factory=fine_tuning)
    hooks: tuple[Hook, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()
    samples: int = 512
    method: str = "quantize.qat"
    checkpoint: Path | None = field(default=None, repr=False)

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """The trained simulated quantized network, after the last epoch."""
        started = time.perf_counter()
        quantized, notes = equip(model, data, self.scheme, estimator=self.estimator, samples=self.samples, rewrites=self.rewrites)
        trained = fit(quantized, data, self.fit, hooks=(Aware(), *self.hooks), checkpoint=self.checkpoint).model
        assert isinstance(trained, Traced)
        notes += settle_(trained)
        entry = Entry(method=self.method, recipe=repr(self), layers=layer_rows(trained, data), notes=tuple(notes),
                      seconds=time.perf_counter() - started)
        return Result(trained, Report((entry,)))


def train(*, estimator: Estimator = StraightThrough(), scheme: Scheme = Scheme(), fit: Fit | None = None,
          hooks: tuple[Hook, ...] = (), rewrites: tuple[Rewrite, ...] = (), checkpoint: Path | None = None) -> Train:
    """Quantization-aware training with any estimator, on any scheme."""
    method = "quantize.qat" if isinstance(estimator, StraightThrough) else f"quantize.{type(estimator).__name__.lower()}"
    return Train(scheme=scheme, estimator=estimator, fit=fit or fine_tuning(), hooks=hooks, rewrites=rewrites, checkpoint=checkpoint,
                 method=method)
