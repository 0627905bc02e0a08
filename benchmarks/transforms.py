"""Coded weights at equal bits: what each layer's response loses, transform quantization and peers beside plain rounding.

    python -m benchmarks.transforms --json benchmarks/results/transforms.json [NETWORK:BITS ...]

A case is a network of `benchmarks.networks28` (seed 0, batch norms folded) and a number of bits. The reference rounds every weight to nearest on
`2^bits` levels with the scale of least squared error for each output channel, and pays `bits` for each weight and 16 for each scale.
Every method gets what that takes in the same layer, its tables and side information included; `network` methods get its total for
the whole network. `rounding, entropy coded` is the stronger reference: one step for each layer, rounding to nearest, and the
entropy of the codes with their table (ECSQ), so with a finer step at the same bits.

Errors are relative norms of a layer's response to inputs of the validation split, everything else as in the original; methods see 512
training images. A set is all layers of one kind, its error the root of the mean of squared relative errors. Rates of coded methods are
estimates: empirical entropies plus all tables and side information. Accuracy is on the test split, weights alone being coded.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.codebooks import codebooks, kmeans, own_tables
from benchmarks.networks28 import original
from benchmarks.results import main
from lilliput import data
from lilliput.core import Entry, Report, Result, Step, describe
from lilliput.factorize import CodeWeights, Each, EndToEnd, OutputError, WeightError, cnnpack, transform_quantization
from lilliput.factorize.bases import Identity
from lilliput.factorize.coded import TransformCoded
from lilliput.factorize.compress import output_errors
from lilliput.factorize.entropy import Codes
from lilliput.factorize.layers import LAYERS, Layer, find, matrix
from lilliput.factorize.observe import values
from lilliput.factorize.rate import entropy_bits, table_bits
from lilliput.factorize.sensitivity import Metric
from lilliput.graph import Traced
from lilliput.graph.fold import fold_batchnorm
from lilliput.graph.profile import weight_source
from lilliput.train import evaluate

NETWORKS = ("resnet8", "resnet20", "mobilenet_v2", "vit")
BITS = (2, 3, 4)
SCALE_BITS = 16
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """Nearest of `2^bits` levels with zero among them and the scale of least squared error for each output channel."""

    bits: int

    def __call__(self, model: nn.Module, data: Any) -> Result:  # noqa: ARG002
        """A rounded copy; rows hold the fixed-length rate, and what entropy coding of the same codes would take."""
        assert isinstance(model, Traced)
        traced, rows = copy.deepcopy(model).eval(), []
        for layer in find(traced)[0]:
            weight = matrix(traced.tensor(layer.weight)).numpy()
            codes, scales = self.rounded(weight)
            traced.set_tensor(layer.weight, torch.from_numpy(codes * scales).float().reshape(layer.shape))
            counts, side = np.bincount((codes - codes.min()).astype(np.int64).ravel()), SCALE_BITS * len(weight)
            coded = float(entropy_bits(counts) + table_bits(counts))
            rows.append({"layer": layer.name, "weight_bits": self.bits + side / weight.size, "entropy_coded": (coded + side) / weight.size})
        return Result(traced, Report((Entry(method="rounding", recipe=describe(self), layers=tuple(rows)),)))

    def rounded(self, weight: Array) -> tuple[Array, Array]:
        """Codes and scales `(out, 1)`; scales of either sign are tried, since there is one level more below zero than above."""
        low, high = -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        reach = np.maximum(np.abs(weight).max(1, keepdims=True), 1e-30) / high
        best, codes, scales = np.full(len(weight), np.inf), np.zeros_like(weight), reach.copy()
        for share in np.concatenate([np.linspace(0.05, 1.0, 191), -np.linspace(0.05, 1.0, 191)]):
            tried = np.rint(weight / (share * reach)).clip(low, high)
            # The scale of least error for these codes.
            fitted = (tried * weight).sum(1, keepdims=True) / np.maximum((tried**2).sum(1, keepdims=True), 1)
            error = ((tried * fitted - weight) ** 2).sum(1)
            better = error < best
            best[better], codes[better], scales[better] = error[better], tried[better], fitted[better]
        return codes, scales


@dataclass(frozen=True)
class Lattice:
    """A coder without any transform: one step, rounding to nearest, one table."""

    slopes: ClassVar[tuple[float, float]] = (-20.0, 10.0)

    def __call__(self, weight: Array, metric: Metric) -> LatticeSource:  # noqa: ARG002
        """Ready at any step."""
        return LatticeSource(weight)


@dataclass(frozen=True, eq=False)
class LatticeSource:
    """One weight."""

    weight: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's."""
        return self.weight.shape

    def coded(self, strength: float) -> TransformCoded:
        """With a step of `2^strength` standard deviations."""
        flat, none = self.weight.reshape(len(self.weight), -1), np.zeros(1, np.int16)
        step = float(np.float32(self.weight.std() * 2.0**strength))
        codes = Codes(codes=np.rint(flat / step).astype(np.int32), rows=none.repeat(len(flat)), columns=none.repeat(flat.shape[1]),
                      tables=none, shifts=none.astype(np.int8))
        bases = tuple(Identity(n) for n in (*self.shape[:2], math.prod(self.shape[2:])))
        return TransformCoded(shape=self.shape, bases=bases, step=step, row_steps=none.astype(np.int8).repeat(len(flat)),  # type: ignore[arg-type]
                              column_steps=none.astype(np.int8).repeat(flat.shape[1]), codes=codes)

    def settle_(self, strength: float) -> None:
        """There is nothing to choose."""


def _each(bits: int) -> Each:
    return Each(bits=bits, row_bits=SCALE_BITS)


# Methods by name, made for a number of bits; a peer is one line more. Rows of their reports should hold `weight_bits`.
METHODS: dict[str, Callable[[int], Step]] = {
    "rounding": lambda bits: Rounding(bits=bits),
    "rounding, entropy coded": lambda bits: CodeWeights(method="ecsq", coder=Lattice(), sharing=_each(bits), distortion=WeightError()),
    "transform_quantization": lambda bits: transform_quantization(sharing=_each(bits), distortion=OutputError()),
    "cnnpack": lambda bits: cnnpack(sharing=_each(bits)),
    "codebooks": lambda bits: codebooks(bits),
    "codebooks, nearest": lambda bits: codebooks(bits, sweeps=0),
    "own tables": lambda bits: own_tables(bits, SCALE_BITS),
    "kmeans, a table more": kmeans,
}
# The same total number of bits, shared among the layers by the method; given the average for each weight.
NETWORK_METHODS: dict[str, Callable[[float], Step]] = {
    "transform_quantization, network": lambda bits: transform_quantization(bits=bits, distortion=EndToEnd()),
    "cnnpack, network": lambda bits: cnnpack(bits=bits),
}


def kind(layer: Layer) -> str:
    """Which set a layer belongs to."""
    if not layer.kernel:
        return "linear"
    side = "x".join(map(str, layer.kernel))
    return f"{side} depthwise" if layer.groups > 1 else side


def weights_seen(model: Traced, layers: tuple[Layer, ...], example: Tensor) -> dict[str, Tensor]:
    """The weight that every layer multiplies with, quantizers in the graph included."""
    nodes = {}
    for node in model.graph.nodes:
        if node.op == "call_function" and node.target in LAYERS:
            source = weight_source(node.args[1])
            if source is not None:
                nodes[str(source.target).removesuffix("_table")] = node.args[1]
    with torch.no_grad():
        seen = values(model, example, nodes.values())
    return {layer.name: seen[nodes[layer.weight]] for layer in layers}


def measured(result: Result, network: Traced, layers: tuple[Layer, ...], fashion: Any) -> dict[str, Any]:
    """Bits, errors and accuracy of one method."""
    model = result.model.eval()
    assert isinstance(model, Traced)
    errors = output_errors(network, layers, weights_seen(model, layers, fashion.example(2)), fashion.val, samples=256)
    by_layer = {layer.name: errors[layer.name]["output_error"] for layer in layers}
    sets: dict[str, list[float]] = {}
    for layer in layers:
        for name in ("all", kind(layer)):
            sets.setdefault(name, []).append(by_layer[layer.name] ** 2)
    rows = {row["layer"]: row for entry in result.report.entries for row in entry.layers}
    total = sum(layer.params for layer in layers)
    out: dict[str, Any] = {"sets": {name: math.sqrt(sum(found) / len(found)) for name, found in sets.items()}, "layers": by_layer,
                           "test": evaluate(model, fashion.test)}
    for name in ("weight_bits", "entropy_coded"):
        if all(name in rows.get(layer.name, {}) for layer in layers):
            out[name] = sum(rows[layer.name][name] * layer.params for layer in layers) / total
    return out


def row(case: str) -> dict[str, Any]:
    """Every method on one network at one number of bits."""
    name, _, bits = case.partition(":")
    fashion, network = data.load("fashion_mnist"), fold_batchnorm(original(name, 0).eval())
    layers, _ = find(network)
    average = int(bits) + SCALE_BITS * sum(la.shape[0] for la in layers) / sum(la.params for la in layers)
    out: dict[str, Any] = {"float": evaluate(network, fashion.test), "kinds": {layer.name: kind(layer) for layer in layers}}
    for method, make in METHODS.items():
        out[method] = measured(make(int(bits))(network, fashion), network, layers, fashion)
    for method, make_network in NETWORK_METHODS.items():
        out[method] = measured(make_network(average)(network, fashion), network, layers, fashion)
    reference = out["rounding"]
    for method in (*METHODS, *NETWORK_METHODS):
        found = out[method]
        found["below_rounding"] = {"sets": all(found["sets"][s] < reference["sets"][s] for s in reference["sets"]),
                                   "layers": sum(found["layers"][la] < reference["layers"][la] for la in reference["layers"]),
                                   "of": len(reference["layers"])}
    return out


if __name__ == "__main__":
    main(row, [f"{name}:{bits}" for name in NETWORKS for bits in BITS], threads=1)
