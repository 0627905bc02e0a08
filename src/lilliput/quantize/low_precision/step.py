"""Training in emulated arithmetic as a step: the one loop on a rewritten network, and an ordinary network out of it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lilliput.core.errors import PreconditionError
from lilliput.core.report import Entry, Report, Row
from lilliput.core.step import Result
from lilliput.graph.trace import Traced, trace
from lilliput.quantize.calibrate import is_quantized
from lilliput.quantize.low_precision.arithmetic import Arithmetic, Plan
from lilliput.quantize.low_precision.casts import Rounded
from lilliput.quantize.low_precision.loss_scaling import LossScale, ScaleLoss
from lilliput.quantize.low_precision.optimizer import RoundedSGD
from lilliput.quantize.low_precision.place import emulated, layer_names, original_, weight_names
from lilliput.quantize.low_precision.range_norm import RangeNorm
from lilliput.quantize.measure import layer_rows
from lilliput.quantize.prepare import check_finite, check_inputs, prepare
from lilliput.quantize.scheme import Scheme
from lilliput.train import SGD, Fit, Hook, fit

# From the trained network, the arithmetic of its layers and the data to the network that is handed out, with notes on it.
Finish = Callable[[Traced, dict[str, Arithmetic], Any], tuple[Traced, list[str]]]


def fine_tuning() -> Fit:
    """A tenth of the usual learning rate: the network is trained already."""
    return Fit(epochs=3, optimizer=SGD(lr=0.01, nesterov=False))


@dataclass(frozen=True)
class AsTrained:
    """The weights as the optimizer left them, to be run in float32."""

    def __call__(self, network: Traced, arithmetic: dict[str, Arithmetic], data: Any) -> tuple[Traced, list[str]]:  # noqa: ARG002
        """The network."""
        return network, []


@dataclass(frozen=True)
class OnWeightGrid:
    """Each layer's weight as its arithmetic multiplied it, to nearest; the other parameters as the optimizer left them."""

    def __call__(self, network: Traced, arithmetic: dict[str, Arithmetic], data: Any) -> tuple[Traced, list[str]]:  # noqa: ARG002
        """The network, its weights changed in place."""
        with torch.no_grad():
            for layer, name in weight_names(network).items():
                weight = network.tensor(name)
                weight.copy_(arithmetic[layer].operands.weight.nearest()(weight).dense())
        return network, []


@dataclass(frozen=True, kw_only=True)
class Simulate:
    """The trained network with simulated integers on every edge, calibrated on `samples` inputs, as it is exported."""

    scheme: Scheme = field(default_factory=Scheme)
    samples: int = 512

    def __call__(self, network: Traced, arithmetic: dict[str, Arithmetic], data: Any) -> tuple[Traced, list[str]]:  # noqa: ARG002
        """The simulated quantized network."""
        return prepare(network, data, self.scheme, samples=self.samples)


@dataclass(frozen=True, kw_only=True)
class LowPrecision:
    """A Step: train with the arithmetic that `plan` gives each layer, then hand out what `finish` makes of the result.

    Between layers (normalisation, activations, pooling, additions, loss) the numbers are float32; a layer casts what
    enters it. `norm` puts range batch norms in the place of batch norms; `update` is the format in which the optimizer
    computes and keeps weights, None for float32; `loss_scale` amplifies errors on their way back. Validation in between
    runs in the same arithmetic, rounded to nearest.

    Raises `PreconditionError` for networks that are quantized already, `RecipeError` for optimizers other than SGD where
    `update` is set.
    """

    method: str
    plan: Plan
    norm: RangeNorm | None = None
    update: Rounded | None = None
    loss_scale: LossScale | None = None
    fit: Fit = field(default_factory=fine_tuning)
    hooks: tuple[Hook, ...] = ()
    finish: Finish = field(default_factory=AsTrained)
    checkpoint: Path | None = field(default=None, repr=False)

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """The trained network, after the last epoch."""
        started = time.perf_counter()
        check_inputs(model, data)
        if is_quantized(model):
            raise PreconditionError("the network is quantized already: start from the network as it was before")
        network = copy.deepcopy(trace(model, data.example()))
        check_finite(network)
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        rewritten, notes = emulated(network, self.plan, self.norm)
        scaling: tuple[Hook, ...] = () if self.loss_scale is None else (ScaleLoss(self.loss_scale),)
        trained = fit(rewritten, data, self._fit(), hooks=(*scaling, *self.hooks), checkpoint=self.checkpoint)
        arithmetic = self.plan(layer_names(network))
        finished, more = self.finish(original_(network, trained.model).eval(), arithmetic, data)
        rows = (layer_rows(finished, data) if is_quantized(finished)
                else tuple(_row(network, before, *item) for item in arithmetic.items()))
        skipped = sum(row.get("skipped_steps", 0.0) for row in trained.history)
        notes += more + ([f"{int(skipped)} steps were left out, since gradients overflowed"] if skipped else [])
        entry = Entry(method=self.method, recipe=repr(self), layers=rows, notes=tuple(notes),
                      seconds=time.perf_counter() - started)
        return Result(finished.eval(), Report((entry,)))

    def _fit(self) -> Fit:
        if self.update is None:
            return self.fit
        return replace(self.fit, optimizer=RoundedSGD.like(self.fit.optimizer, self.update))


def _row(network: Traced, before: dict[str, torch.Tensor], layer: str, arithmetic: Arithmetic) -> Row:
    operands = arithmetic.operands
    row: Row = {"layer": layer, "weight_format": repr(operands.weight), "activation_format": repr(operands.activation)}
    name = weight_names(network).get(layer)
    if name in before:
        old = before[name]
        row["relative_change"] = float((network.tensor(name).detach() - old).norm() / old.norm().clamp_min(1e-12))
    return row
