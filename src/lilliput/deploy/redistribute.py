"""Receptive field moved behind the stage that is computed patch by patch, where it costs nothing twice. (lin2021mcunetv2)"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional as F

from lilliput.core import Entry, PreconditionError, Report, Result, describe
from lilliput.core.report import Row
from lilliput.graph.fold import CONVOLUTIONS
from lilliput.graph.profile import profile
from lilliput.graph.receptive import Field, per_axis, receptive_fields
from lilliput.graph.rules.base import argument
from lilliput.graph.shapes import forget_shapes, shapes
from lilliput.graph.trace import Traced, trace
from lilliput.graph.weights import has_own_weight, weight_name, weight_of
from lilliput.train import Fit, fit, recalibrate_batchnorm


@dataclass(frozen=True, kw_only=True)
class Redistribute:
    """Kernels of one pixel in the first stage, larger ones behind it, until the receptive field is what it was.

    Patches overlap by the receptive field of their stage, and what they share is computed twice. In the stage, all that lies before a
    total stride of `stride`, every convolution that does not stride itself becomes one of a single pixel: the sum of its taps, so that
    even areas stay what they were. Behind it the kernels that cost least for what they see grow by a ring of zeros, up to `largest`,
    which changes nothing yet. Training with `fit` fills them; without it the statistics of batch norms are estimated anew.

    Departs from the paper, which redesigns MobileNetV2 by hand or by search: what exactly it moves there is not followed. `checkpoint` makes
    the training resumable. (lin2021mcunetv2)
    """

    stride: int = 8
    largest: int = 7
    fit: Fit | None = None
    checkpoint: Path | None = field(default=None, repr=False)

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """A changed copy; raises `PreconditionError` where there is nothing to move, or no kernel behind the stage that could take it."""
        began = time.perf_counter()
        traced = copy.deepcopy(model) if isinstance(model, Traced) else trace(model, data.example())
        before, macs = _reach(traced), profile(traced).macs
        rows = [*self._shrink_(traced), *self._grow_(traced, before)]
        trained = fit(traced, data, self.fit, checkpoint=self.checkpoint).model if self.fit else recalibrate_batchnorm(traced, data.train)
        metrics = {"receptive_field": float(min(_reach(traced))), "macs": float(profile(traced).macs)}
        entry = Entry(method="deploy.patch_inference", recipe=describe(self), layers=tuple(rows), metrics=metrics, seconds=time.perf_counter() - began,
                      notes=(f"receptive field {' x '.join(map(str, before))} before, {macs} multiplications",))
        return Result(trained.train(model.training), Report((entry,)))

    def _shrink_(self, traced: Traced) -> Iterator[Row]:
        found = [(node, one) for node, one in _kernels(traced) if max(one.stride) < self.stride and max(per_axis(argument(node, 3, "stride"), 1)) == 1]
        if not found:
            raise PreconditionError(f"no convolution without a stride lies before a total stride of {self.stride}: raise stride=, or leave the network")
        for node, _ in found:
            weight = weight_of(traced, node)
            yield _row(node, weight, 1)
            axes = tuple(range(2, weight.ndim))
            _set_(traced, node, weight.sum(axes, keepdim=True), (0,) * len(axes))

    def _grow_(self, traced: Traced, before: tuple[int, ...]) -> Iterator[Row]:
        while any(now < then for now, then in zip(_reach(traced), before, strict=True)):
            known = shapes(traced)
            open_ = [(cost(known[node], weight_of(traced, node), one), node) for node, one in _kernels(traced)
                     if max(one.stride) >= self.stride and max(weight_of(traced, node).shape[2:]) + 2 <= self.largest]
            if not open_:
                raise PreconditionError(f"the receptive field cannot stay at {before} pixels: no kernel behind a total stride of {self.stride} may grow; "
                                        f"lower stride= or raise largest={self.largest}")
            node = min(open_, key=lambda pair: pair[0])[1]
            weight = weight_of(traced, node)
            yield _row(node, weight, max(weight.shape[2:]) + 2)
            axes = weight.ndim - 2
            padding = per_axis(argument(node, 4, "padding"), axes)
            holes = per_axis(argument(node, 5, "dilation"), axes)
            _set_(traced, node, F.pad(weight, (1, 1) * axes), tuple(p + hole for p, hole in zip(padding, holes, strict=True)))


def cost(output: tuple[int, ...], weight: Tensor, one: Field) -> float:
    """Multiplications of one image for each pixel of receptive field that another ring of the kernel brings."""
    rings = math.prod(size + 2 for size in weight.shape[2:]) - math.prod(weight.shape[2:])
    return rings * weight.shape[1] * math.prod(output[1:]) / (2 * min(one.stride))


def _kernels(traced: Traced) -> Iterator[tuple[fx.Node, Field]]:
    """Convolutions of more than a pixel with an odd kernel and their size kept but for the stride, and the field of what they read."""
    fields = receptive_fields(traced)
    for node in traced.graph.nodes:
        read = node.args[0] if node.args else None
        if node.target not in CONVOLUTIONS[:3] or read not in fields or not _own(node):
            continue
        kernel = weight_of(traced, node).shape[2:]
        padding, holes = (per_axis(argument(node, place, name), len(kernel)) for place, name in ((4, "padding"), (5, "dilation")))
        if max(kernel) > 1 and all(k % 2 and p == hole * (k // 2) for k, p, hole in zip(kernel, padding, holes, strict=True)):
            yield node, fields[read]


def _own(node: fx.Node) -> bool:
    """Whether the weight is stored as it is read, by this layer alone."""
    return isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr" and has_own_weight(node)


def _set_(traced: Traced, node: fx.Node, weight: Tensor, padding: tuple[int, ...]) -> None:
    traced.set_tensor(weight_name(node), weight.contiguous())
    axes = len(padding)
    step, holes = (list(per_axis(argument(node, place, name), axes)) for place, name in ((3, "stride"), (5, "dilation")))
    node.args = (*node.args[:2], argument(node, 2, "bias"), step, list(padding), holes, argument(node, 6, "groups", 1))
    forget_shapes(traced)
    traced.recompile()


def _row(node: fx.Node, weight: Tensor, kernel: int) -> Row:
    return {"layer": weight_name(node).rpartition(".")[0], "kernel": max(weight.shape[2:]), "new_kernel": kernel}


def _reach(traced: Traced) -> tuple[int, ...]:
    """The largest receptive field there is, per axis."""
    return tuple(map(max, zip(*(one.size for one in receptive_fields(traced).values()), strict=True)))
