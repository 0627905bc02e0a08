"""The composer of weight coding: a coder, what distortion it spends bits against, and how bits are shared among layers."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lilliput.core import Entry, PreconditionError, Report, Result, describe
from lilliput.core.report import Row
from lilliput.data.drawing import sample_batches
from lilliput.factorize.coded import Coded, total_bits
from lilliput.factorize.layers import Layer, find, matrix, prepared
from lilliput.factorize.observe import inputs_and_outputs, needs_data, patches
from lilliput.factorize.sensitivity import Distortion, EndToEnd
from lilliput.factorize.shares import Average, Coder, Sharing
from lilliput.graph.trace import Traced
from lilliput.train import Split


@dataclass(frozen=True, kw_only=True)
class CodeWeights:
    """Replace every weight by what its code decodes to; the network keeps its shape, and its other tensors.

    Rates are an estimate: codes at their empirical entropy (or in real Huffman codes, as the coder says) plus every
    table and all side information; nothing is written to a file here. `encode` gives the codes themselves.
    """

    method: str
    coder: Coder
    sharing: Sharing = field(default_factory=Average)
    distortion: Distortion = field(default_factory=EndToEnd)
    exclude: tuple[str, ...] = ()
    samples: int = 512

    def encode(self, model: nn.Module, data: Any) -> dict[str, Coded]:
        """The coded weight of every layer, by the layer's name, in the order in which they run."""
        traced, layers, _ = self._found(model, data)
        return self._coded(traced, layers, data)

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """Code a copy of `model`; raises `BudgetError` when the bits do not even pay for the tables."""
        began = time.perf_counter()
        traced, layers, notes = self._found(model, data)
        coded = self._coded(traced, layers, data)
        weights = {layer.name: torch.from_numpy(coded[layer.name].decode()) for layer in layers}
        errors = {} if data is None else output_errors(traced, layers, weights, data.train)
        rows = tuple(_row(traced, layer, coded[layer.name]) | errors.get(layer.name, {}) for layer in layers)
        for layer in layers:
            traced.set_tensor(layer.weight, weights[layer.name].to(traced.tensor(layer.weight).dtype))
        count, bits = sum(layer.params for layer in layers), math.fsum(total_bits(c) for c in coded.values())
        counted = f"{bits / count:.4f} bits per weight over {count} weights, tables and side information included"
        entry = Entry(method=self.method, recipe=describe(self), layers=rows, notes=(counted, *notes),
                      metrics={"weight_bits": bits / count}, seconds=time.perf_counter() - began)
        return Result(traced.train(model.training), Report((entry,)))

    def _found(self, model: nn.Module, data: Any) -> tuple[Traced, tuple[Layer, ...], tuple[str, ...]]:
        traced = prepared(model, data, self.method)
        layers, notes = find(traced, self.exclude)
        if not layers:
            raise PreconditionError(f"this network has no weights that {self.method} could code: {'; '.join(notes)}")
        return traced, layers, notes

    def _coded(self, traced: Traced, layers: tuple[Layer, ...], data: Any) -> dict[str, Coded]:
        split = needs_data(self.method, data).train if self.distortion.needs_data else None
        metrics = self.distortion(traced, layers, split, self.samples)
        sources = {layer.name: self.coder(traced.tensor(layer.weight).detach().double().numpy(), metrics[layer.name]) for layer in layers}
        return self.sharing(sources, self.coder.slopes)


def output_errors(traced: Traced, layers: Sequence[Layer], weights: Mapping[str, Tensor], split: Split, *, samples: int = 64) -> dict[str, Row]:
    """How far every layer's response with another weight is from its own, biases aside, to the same inputs: relative norms."""
    sums = {layer.name: [0.0, 0.0] for layer in layers}
    for inputs in sample_batches(split, samples):
        seen = inputs_and_outputs(traced, layers, inputs)
        for layer in layers:
            x, weight = patches(layer, seen[layer.name][0]).double(), matrix(traced.tensor(layer.weight))
            for place, rows in enumerate((matrix(weights[layer.name]) - weight, weight)):
                sums[layer.name][place] += float((x @ rows.reshape(len(x), -1, x.shape[-1]).mT).square().sum())
    return {name: {"output_error": math.sqrt(error / max(power, 1e-300))} for name, (error, power) in sums.items()}


def _row(traced: Traced, layer: Layer, coded: Coded) -> Row:
    """One layer: bits for each weight, all of them and the codes alone, and the relative norm of the weight's error."""
    weight = matrix(traced.tensor(layer.weight)).numpy()
    error = coded.decode().astype(np.float64).reshape(weight.shape) - weight
    return {"layer": layer.name, "weights": layer.params, "weight_bits": total_bits(coded) / layer.params,
            "code_bits": coded.bits["codes"] / layer.params,
            "weight_error": float(np.linalg.norm(error)) / max(float(np.linalg.norm(weight)), 1e-300)}
