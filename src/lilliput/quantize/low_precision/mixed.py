"""Mixed-precision training as a step."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from lilliput.core.errors import RecipeError
from lilliput.core.report import Entry, Report
from lilliput.core.step import Result
from lilliput.graph.trace import trace
from lilliput.quantize.low_precision.loss_scaling import LossScale, ScaleLoss
from lilliput.quantize.low_precision.step import fine_tuning
from lilliput.train import Fit, Hook, fit
from lilliput.train.config import Precision


@dataclass(frozen=True, kw_only=True)
class MixedPrecision:
    """A Step: layers compute in half precision, on copies of float32 weights that the optimizer updates in float32.

    "16-mixed" is IEEE half precision and wants `loss_scale`; "bf16-mixed" has float32's exponents and needs none. The
    arithmetic is the machine's own, through torch's autocast, which decides operator by operator: convolutions and products,
    with their gradients, in half precision with the machine's accumulators; what needs the range in float32. Gradients of
    weights become float32 before they are unscaled, and the loss is float32. Half precision without hardware for it (most
    CPUs) is exact but slow. (micikevicius2018mixed)
    """

    precision: Precision = "16-mixed"
    loss_scale: LossScale | None = field(default_factory=LossScale)
    fit: Fit = field(default_factory=fine_tuning)
    hooks: tuple[Hook, ...] = ()
    checkpoint: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.precision == "32-true":
            raise RecipeError("mixed precision is '16-mixed' or 'bf16-mixed'; for float32 use lilliput.train.fit")

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """The trained network, float32, after the last epoch."""
        started = time.perf_counter()
        network = copy.deepcopy(trace(model, data.example()))
        scaling: tuple[Hook, ...] = () if self.loss_scale is None else (ScaleLoss(self.loss_scale),)
        config = replace(self.fit, precision=self.precision)
        trained = fit(network, data, config, hooks=(*scaling, *self.hooks), checkpoint=self.checkpoint)
        skipped = int(sum(row.get("skipped_steps", 0.0) for row in trained.history))
        scale = trained.history[-1].get("loss_scale") if trained.history else None
        said = f"loss scale {scale:g} at the end; {skipped} steps were left out, since gradients overflowed" if scale else ""
        layers = tuple({"layer": name, "weight_format": "float32", "compute": self.precision} for name, _ in _weights(network))
        entry = Entry(method="quantize.mixed_precision_training", recipe=repr(self), layers=layers, notes=(said,) if said else (),
                      seconds=time.perf_counter() - started)
        return Result(trained.model.eval(), Report((entry,)))


def _weights(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name.removesuffix(".weight"), p) for name, p in network.named_parameters() if p.ndim > 1]
