"""Measures: what quantization costs each layer, on data."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, fx, nn

from lilliput.core.report import Row
from lilliput.data.drawing import sample_batches
from lilliput.graph.trace import Traced
from lilliput.quantize.calibrate import constant_names, quantizers
from lilliput.quantize.grids import Integer
from lilliput.quantize.op import along
from lilliput.quantize.quantizer import Quantizer


def _axis(quantizer: Quantizer) -> int:
    return -1 if quantizer.grid.axis is None else quantizer.grid.axis


def exact(quantized: Traced) -> Traced:
    """A copy that computes in float64, where the sums of a layer's integer products are exact: what an integer runtime computes.

    In float32 a result next to the middle between two steps may be rounded the other way.
    """
    out = copy.deepcopy(quantized).eval()
    with torch.no_grad():
        # Weights and biases keep the codes that they have in float32, as they are exported.
        for node in out.graph.nodes:
            source = node.args[0] if node.op == "call_module" else None
            if isinstance(source, fx.Node) and source.op == "get_attr":
                out.set_tensor(str(source.target), out.get_submodule(str(node.target))(out.tensor(str(source.target))))
            if node.kwargs.get("dtype") is torch.float32:  # tensors that the network makes, such as the first states of a recurrent cell
                node.kwargs = {**node.kwargs, "dtype": torch.float64}
    out.recompile()
    return out.double()


class _Tally:
    """Power of signal and error, and values beyond the range, in float64."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0
        self.beyond = self.count = 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, Quantizer)
        x = inputs[0].detach()
        error = (output.detach() - x).abs_()
        if isinstance(module.grid, Integer):
            # Rounding alone errs by half a step at most; the rest is saturation.
            self.beyond += int((error > along(module.scale.detach(), x, _axis(module)) * 0.501).sum())
        else:
            reach = along(module.scale.detach() * module.levels.abs().amax(-1), x, _axis(module)).abs()
            self.beyond += int((x.abs() > reach * 1.001).sum())
        self.signal += float(x.double().square().sum())
        self.noise += float(error.double().square().sum())
        self.count += x.numel()

    @property
    def sqnr(self) -> float:
        """`10 log10(E x^2 / E (x - q(x))^2)` in dB; infinite without error."""
        return math.inf if self.noise == 0 else -math.inf if self.signal == 0 else 10 * math.log10(self.signal / self.noise)


def layer_rows(traced: Traced, data: Any, *, samples: int = 32, reference: Traced | None = None) -> tuple[Row, ...]:
    """One row per layer: bits, SQNR in dB of weight and result, and percent of the result's values that saturate.

    Each tensor is compared with itself before its own quantizer, so that a bad row is that layer's own doing; weights with those
    of the same name in `reference`, where given: a rounding may have put them on the grid already.
    """
    found = quantizers(traced)
    tallies = {quantizer: _Tally() for quantizer in found}
    handles = [quantizer.register_forward_hook(tally) for quantizer, tally in tallies.items()]
    training = traced.training
    traced.eval()
    try:
        with torch.no_grad():
            for inputs in sample_batches(data.train, samples):
                traced(inputs)
    finally:
        for handle in handles:
            handle.remove()
        traced.train(training)
    if reference is not None:
        for quantizer, name in constant_names(traced):
            tallies[quantizer] = _Tally()
            with torch.no_grad():
                tallies[quantizer](quantizer, (reference.tensor(name),), quantizer(traced.tensor(name)))
    rows: dict[str, Row] = defaultdict(dict)
    for quantizer, tally in tallies.items():
        row = rows[quantizer.layer]
        row["layer"] = quantizer.layer
        kind = "weight" if quantizer.weight else "activation"
        row[f"{kind}_bits"], row[f"{kind}_sqnr_db"] = quantizer.grid.bits, tally.sqnr
        if not quantizer.weight:
            row["saturation"] = tally.beyond / max(tally.count, 1)
    return tuple(rows.values())
