"""The one composer of weight sharing: blocks, codebooks, what errors cost, and training with the codes fixed."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from lilliput.core.errors import PreconditionError
from lilliput.core.patterns import matching
from lilliput.core.report import Entry, Report, Row, describe
from lilliput.core.step import Result
from lilliput.data.drawing import check_samples
from lilliput.graph.trace import Traced, trace
from lilliput.quantize.calibrate import is_quantized
from lilliput.quantize.codebook import Shared, rounded, share_
from lilliput.quantize.operators import LAYERS, layer_name
from lilliput.quantize.prepare import check_finite, check_inputs
from lilliput.quantize.sharing.fitting import Codebooks, Partition, Scalars, Weight
from lilliput.quantize.sharing.weighting import Even, Weighting
from lilliput.train import Fit, Hook, fit, recalibrate_batchnorm


class Guide(Protocol):
    """Makes the hook through which the original network guides training."""

    def __call__(self, original: nn.Module) -> Hook:
        """The hook."""


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Training with the codes fixed: tables, biases and normalisations learn; an entry's gradient is the sum of its members'."""

    fit: Fit
    hooks: tuple[Hook, ...] = ()
    guide: Guide | None = None


@dataclass(frozen=True, kw_only=True)
class Share:
    """A Step: store the weights of convolutions and linear layers as codes and tables.

    `partition` cuts weights into blocks, `codebooks` finds codes and tables, `weighting` says what errors cost, on up to
    `samples` inputs of `data.train`. Batch norms stay as they are: their factors act like a scale to each channel. Without
    `tune`, or with no epochs of it, their statistics are estimated anew. Tables are kept as numbers of type `stored`. A layer
    whose codes and tables would take as much as its weights stays as it is. `exclude` lists patterns (`fnmatch`) of layers to
    leave alone.
    """

    method: str
    codebooks: Codebooks
    partition: Partition = field(default_factory=Scalars)
    weighting: Weighting = field(default_factory=Even)
    tune: Tune | None = None
    stored: torch.dtype = torch.float32
    samples: int = 256
    exclude: tuple[str, ...] = ()
    checkpoint: Path | None = field(default=None, repr=False)

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """The network with shared weights, and rows with each layer's bits, codes and tables over weights."""
        started = time.perf_counter()
        check_samples(self.samples)
        check_inputs(model, data)
        if is_quantized(model):
            raise PreconditionError("the network is quantized already: share the weights first, then quantize")
        original = copy.deepcopy(trace(model, data.example())).eval()
        check_finite(original)
        layers, notes = find(original, self.exclude)
        weigher, more = self.weighting(original, data, self.samples)
        small, notes, start = copy.deepcopy(original), notes + more, 0
        rows: list[Row] = []
        tables: list[str] = []
        bits = weights = 0
        for name, layer in layers.items():
            tensor = original.tensor(name).detach()
            shape = tuple(tensor.shape)
            shared = self.codebooks(Weight(shape=shape, rows=tensor.flatten(1), block=self.partition(shape), start=start,
                                           importance=weigher(layer, name), stored=self.stored))
            start += tensor.numel()
            if shared.bits >= tensor.numel() * tensor.element_size() * 8:
                notes.append(f"{layer_name(layer)} left as it is: it would take {shared.bits_per_weight:.0f} bits a weight")
                continue
            values = shared.values().to(tensor)
            weigher.took(name, values)
            tables += share_(small, name, shared)
            rows.append(_row(layer, shared, (tensor, values)))
            bits, weights = bits + shared.bits, weights + tensor.numel()
        if not rows:
            raise PreconditionError("no layer became smaller: use fewer entries or larger blocks; " + "; ".join(notes))
        notes.append(f"{bits / weights:.2f} bits per weight for {weights} weights, {math.ceil(bits / 8)} bytes in all")
        small = self._tuned(small, original, data)
        for name in tables:
            small.set_tensor(name, rounded(small.tensor(name).detach(), self.stored))
        entry = Entry(method=self.method, recipe=describe(self), layers=tuple(rows), notes=tuple(notes),
                      metrics={"bits_per_weight": bits / weights}, seconds=time.perf_counter() - started)
        return Result(small.train(model.training), Report((entry,)))

    def _tuned(self, small: Traced, original: Traced, data: Any) -> Traced:
        if self.tune is None or not self.tune.fit.epochs:
            tuned = recalibrate_batchnorm(small, data.train)
        else:
            guides = () if self.tune.guide is None else (self.tune.guide(original),)
            tuned = fit(small, data, self.tune.fit, hooks=(*guides, *self.tune.hooks), checkpoint=self.checkpoint).model
        assert isinstance(tuned, Traced)
        return tuned


def find(traced: Traced, exclude: tuple[str, ...] = ()) -> tuple[dict[str, fx.Node], list[str]]:
    """The stored weights of all layers in order, each with the first layer that reads it; and notes on those left out.

    Raises `UnknownNameError` for a pattern that matches nothing, `PreconditionError` where no layer has a stored weight.
    """
    nodes = [node for node in traced.graph.nodes if node.op == "call_function" and node.target in LAYERS]
    known = [layer_name(node) for node in nodes]
    excluded = matching(exclude, known)
    found: dict[str, fx.Node] = {}
    notes: list[str] = []
    seen: set[int] = set()
    for node, name in zip(nodes, known, strict=True):
        weight = node.args[1]
        if name in excluded:
            notes.append(f"{name} left as it is: excluded")
        elif not isinstance(weight, fx.Node) or weight.op != "get_attr":
            notes.append(f"{name} left as it is: its weight is computed in the graph")
        elif id(traced.tensor(str(weight.target))) not in seen:
            seen.add(id(traced.tensor(str(weight.target))))
            found[str(weight.target)] = node
    if not found:
        raise PreconditionError("no convolution and no linear layer has a stored weight of its own, so there is nothing to share")
    return found, notes


def _row(layer: fx.Node, shared: Shared, weights: tuple[Tensor, Tensor]) -> Row:
    before, after = (w.double() for w in weights)
    noise, signal = float((before - after).square().sum()), float(before.square().sum())
    sqnr = math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf
    table = shared.stages[0].table
    entries = sum(len(stage.table) for stage in shared.stages)
    return {"layer": layer_name(layer), "weights": before.numel(), "weight_bits": shared.bits_per_weight, "entries": entries,
            "block": table.shape[1], "weight_sqnr_db": sqnr}
