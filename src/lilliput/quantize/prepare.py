"""Preparation: from any network to one with calibrated quantizers on every edge."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from lilliput.core.errors import DataError, PreconditionError
from lilliput.data.drawing import check_samples
from lilliput.graph.fold import fold_batchnorm_
from lilliput.graph.recurrent import unroll_
from lilliput.graph.trace import Traced, trace
from lilliput.quantize.calibrate import calibrate_, is_quantized, quantizers
from lilliput.quantize.lower import lower_
from lilliput.quantize.operators import LAYERS, TRANSPOSED
from lilliput.quantize.place import place_
from lilliput.quantize.rewriting.statistics import remember_norms_
from lilliput.quantize.scheme import Scheme


class Rewrite(Protocol):
    """Changes a float network in place before it is quantized, and keeps its function; returns notes."""

    def __call__(self, traced: Traced, data: Any) -> list[str]:
        """Rewrite `traced`, whose batch norms are folded unless it will be trained."""


def check_finite(traced: Traced) -> None:
    """Raise `DataError` naming the first parameter that holds NaN or infinity."""
    for name, parameter in traced.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise DataError(f"{name} holds NaN or infinity: train the network again with a smaller learning rate, or load an earlier checkpoint")


def check_inputs(model: object, data: Any) -> None:
    """Raise `PreconditionError` for what is no network or no data, `DataError` where inputs of the splits differ in shape."""
    if not isinstance(model, nn.Module):
        raise PreconditionError(f"a torch.nn.Module is quantized, not {type(model).__name__}: pass the network itself")
    if not (hasattr(data, "train") and hasattr(data, "example")):
        raise PreconditionError(f"quantization looks at samples: pass data= with splits, such as lilliput.data.load(name), not {type(data).__name__}")
    first, example = next(iter(data.train.batches(1)), None), data.example()
    if first is not None and first[0].shape[1:] != example.shape[1:]:
        raise DataError(f"training inputs have shape {tuple(first[0].shape[1:])} and validation inputs {tuple(example.shape[1:])}: bring them to one shape")


def lowered(model: nn.Module, data: Any, *, rewrites: Sequence[Rewrite] = (), fold: bool = True) -> tuple[Traced, list[str]]:
    """Trace a copy, unroll recurrent layers, fold batch norms if `fold`, rewrite and lower: the float network to quantize.

    Raises `PreconditionError` for a network that is quantized already, or whose time steps lie where the samples should,
    `DataError` for parameters or data that cannot be used.
    """
    check_inputs(model, data)
    if is_quantized(model):
        raise PreconditionError("the network is quantized already: start from the network as it was before")
    traced = copy.deepcopy(trace(model, data.example())).eval()
    unroll_(traced)
    remember_norms_(traced)
    # One weight channel of a transposed convolution in groups has several outputs, so that its scales could not take the norm.
    fold_batchnorm_(traced, keep=() if fold else LAYERS - {*TRANSPOSED})
    check_finite(traced)
    notes = [note for rewrite in rewrites for note in rewrite(traced, data)]
    lower_(traced)
    return traced, notes


def prepare(model: nn.Module, data: Any, scheme: Scheme, *, samples: int = 512, rewrites: Sequence[Rewrite] = (),
            fold: bool = True) -> tuple[Traced, list[str]]:
    """Trace, fold batch norms, rewrite, lower, place quantizers and calibrate; the network and notes on it.

    Without `fold`, the batch norm after a layer stays until `fold_quantized_` (for training; edges lie after it). Ranges are
    then those of the network with its weights in floating point: what few bits do to them before training, when batch norms
    still have the statistics of the float network, is no guide to what comes.
    Raises `PreconditionError` for a network that is quantized already, or has nothing to quantize.
    """
    check_samples(samples)
    traced, notes = lowered(model, data, rewrites=rewrites, fold=fold)
    notes += place_(traced, scheme)
    weights = [] if fold else [quantizer for quantizer in quantizers(traced) if quantizer.weight]
    for quantizer in weights:
        quantizer.bypassed = True
    notes += calibrate_(traced, data, ranges=scheme.ranges, weight_ranges=scheme.weight_ranges, samples=samples)
    for quantizer in weights:
        quantizer.bypassed = False
    return traced.eval(), notes
