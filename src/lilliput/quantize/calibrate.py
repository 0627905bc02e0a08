"""Calibration: from data to scales, in memory that does not grow with the samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.core.errors import DataError, PreconditionError
from lilliput.data.drawing import ROOM, batches_within, sample_batches
from lilliput.graph.trace import Traced
from lilliput.graph.walk import sample_bytes
from lilliput.quantize.grids import Parameters
from lilliput.quantize.quantizer import BiasQuantizer, Quantizer
from lilliput.quantize.ranges import Ranges, channel_bounds

# Fewer samples than this leave the ranges to chance.
FEW = 32


def quantizers(traced: torch.nn.Module) -> list[Quantizer]:
    """All quantizers with a scale of their own, in the order in which they were placed."""
    return [module for module in traced.modules() if isinstance(module, Quantizer)]


def is_quantized(model: torch.nn.Module) -> bool:
    """Whether simulated quantization is in the network, as modules or already as operators."""
    if quantizers(model):
        return True
    graph = model.graph.nodes if isinstance(model, fx.GraphModule) else ()
    return any("lilliput.fake_quantize" in str(node.target) for node in graph if node.op == "call_function")


def check_calibrated(model: torch.nn.Module) -> None:
    """Raise `PreconditionError` naming the first quantizer that was never calibrated."""
    for quantizer in quantizers(model):
        if not quantizer.calibrated:
            raise PreconditionError(f"{quantizer.layer} was never calibrated: run lilliput.quantize.calibrate_(model, data, ranges=...) first")


def calibration_batches(reference: Traced, data: Any, samples: int, *, room: int = ROOM) -> tuple[list[Tensor], list[str]]:
    """Up to `samples` inputs of `data.train` in batches, as many as two walks have room for, and notes.

    Raises `DataError` without samples.
    """
    batches, notes = batches_within(data.train, samples, 2 * sample_bytes(reference), room=room)
    device = next((p.device for p in reference.parameters()), torch.device("cpu"))
    return [inputs.to(device) for inputs in batches], notes


def calibrate_(traced: Traced, data: Any, *, ranges: Ranges, weight_ranges: Ranges, samples: int = 512) -> list[str]:
    """Set every scale from the weights and from up to `samples` inputs from all over `data.train`; returns notes.

    Raises `DataError` without samples or with values that are not finite.
    """
    notes: list[str] = []
    activations = [q for q in quantizers(traced) if not q.weight]
    for quantizer, tensor in constants(traced):
        quantizer.set(quantizer.grid.parameters(*channel_bounds(weight_ranges, tensor, quantizer.grid)))
        if quantizer.dead:
            notes.append(f"{quantizer.layer}: {quantizer.dead} of {max(quantizer.scale.numel(), 1)} output channels are all zero; "
                         "they take the largest scale of the others, and stay exactly zero")
    seen = _observe(traced, activations, data, ranges, samples)
    if seen < min(samples, FEW):
        notes.append(f"calibrated on {seen} samples only; ranges need {FEW} or more to mean anything")
    elif seen < samples:
        notes.append(f"calibrated on {seen} samples, all there are, of {samples} asked for")
    for quantizer in activations:
        stream, quantizer.stream = quantizer.stream, None
        assert stream is not None
        if not stream.count:
            raise PreconditionError(f"{quantizer.layer} saw no values in calibration: the layer does not run on this data; exclude it")
        low, high = ranges(stream, quantizer.grid)
        quantizer.set(quantizer.grid.parameters(torch.tensor(low), torch.tensor(high)))
        if quantizer.dead:
            notes.append(f"{quantizer.layer}: the result is zero on all calibration samples; its scale says nothing")
    notes.extend(widen_(traced))
    return notes


def _observe(traced: Traced, activations: list[Quantizer], data: Any, ranges: Ranges, samples: int) -> int:
    training = traced.training
    traced.eval()
    for quantizer in activations:
        quantizer.stream = ranges.stream()
    device = next((p.device for p in traced.parameters()), torch.device("cpu"))
    seen = 0
    try:
        with torch.no_grad():
            for inputs in sample_batches(data.train, samples):
                _run(traced, inputs.to(device))
                seen += len(inputs)
    except BaseException:
        for quantizer in activations:
            quantizer.stream = None
        raise
    finally:
        traced.train(training)
    return seen


def _run(traced: Traced, inputs: Tensor) -> None:
    """Run the network; raises `DataError` where it does not take such inputs."""
    try:
        traced(inputs)
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        fixed = "" if traced.dynamic_batch else f"; it takes {len(traced.example[0])} samples at once and no other number, which quantization needs"
        raise DataError(f"the network does not run on calibration inputs of shape {tuple(inputs.shape)} and type {inputs.dtype}: {reason}{fixed}. "
                        "Give it data of the shape, type and range of values that it was made for") from error


def constants(traced: Traced) -> Iterator[tuple[Quantizer, Tensor]]:
    """Quantizers of weights and constants, with the tensor that each quantizes."""
    return ((quantizer, traced.tensor(name)) for quantizer, name in constant_names(traced))


def constant_names(traced: Traced) -> Iterator[tuple[Quantizer, str]]:
    """Quantizers of weights and constants, with the name of the tensor that each quantizes."""
    for node in traced.graph.nodes:
        if node.op == "call_module":
            module = traced.get_submodule(str(node.target))
            if isinstance(module, Quantizer) and module.weight:
                yield module, str(node.args[0].target)


def widen_(traced: Traced) -> list[str]:
    """Enlarge the weight scales under which a bias would not fit into 31 bits, then fix the scales of the biases."""
    notes = []
    for node in traced.graph.nodes:
        module = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, BiasQuantizer) or not module.integer:
            continue
        inputs, weights = module.sources
        bias = traced.tensor(str(node.args[0].target)).detach().abs().double()
        least = bias / (2.0**30 * inputs.scale.double())
        needed = (least if weights.scale.ndim else least.max()).float()
        small = weights.scale < needed
        if bool(small.any()):
            weights.set(Parameters(torch.maximum(weights.scale.detach(), needed), weights.zero_point, torch.zeros_like(small)))
            notes.append(f"{module.layer}: {int(small.sum())} weight scales enlarged, so that the bias fits 32 bits")
        module.settle()
    return notes
