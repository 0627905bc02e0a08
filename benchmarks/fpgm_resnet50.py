"""FPGM's published share of ResNet-50's FLOPs, and what really goes: arithmetic on an untrained network, nothing is trained.

    python -m benchmarks.fpgm_resnet50 --json benchmarks/results/fpgm_resnet50.json [PERCENT ...]

The published figures, 42.2% of the FLOPs for 30% of the filters and 53.5% for 40% [he2019fpgm], come out to the last digit by this rule:
ResNet-50 as first published, striding in the first 1x1 convolution of a bottleneck; every convolution loses the filters nearest to the
geometric median, those of the projections on shortcuts aside; a convolution reads fewer channels where one convolution alone makes
them, and all of them behind an addition, whose other summand is still there; multiplications of convolutions and of the
last layer count; shares are not rounded to whole filters. So what the last convolution of a bottleneck lost is counted, though its
channels go on to exist: `published_rule`, and with whole filters `whole_filters`. `inner` removes the same filters where nothing is added to them, which makes a smaller dense network; `coupled` removes the
same share of all coupled channels, shortcuts included, as `prune.fpgm` does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.results import main
from lilliput import prune, zoo
from lilliput.graph import profile, trace
from lilliput.prune.allocation import uniform
from lilliput.prune.criteria import Layer
from lilliput.zoo.resnet import Bottleneck

PUBLISHED = {"30": 42.2, "40": 53.5}


def network() -> nn.Module:
    """ResNet-50 that strides where the paper does."""
    model = zoo.create("resnet50", seed=0).eval()
    for block in model.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return model


def kept(conv: nn.Conv2d, share: float) -> float:
    """The share of a convolution's filters that FPGM keeps."""
    scores = prune.GeometricMedian()(Layer(name="", weight=conv.weight.detach()), prune.Stats())
    gone = scores.argsort()[:int(len(scores) * share)]
    return 1 - len(gone) / len(scores)


def published_rule(model: nn.Module, kept: Callable[[nn.Conv2d], float]) -> float:
    """The share of the multiplications that goes, as the paper counts, given the share that each convolution keeps."""
    macs = {row.layer: row.macs for row in profile(model, torch.zeros(1, 3, 224, 224)).layers if row.macs}
    left: dict[str, float] = {"conv1": kept(model.get_submodule("conv1")), "fc": 1.0}  # type: ignore[arg-type]
    reads = left["conv1"]  # through the pooling; behind an addition everything
    for name, block in model.named_modules():
        if isinstance(block, Bottleneck):
            first, second, third = (kept(conv) for conv in (block.conv1, block.conv2, block.conv3))
            left |= {f"{name}.conv1": reads * first, f"{name}.conv2": first * second, f"{name}.conv3": second * third}
            left |= {f"{name}.downsample.0": reads} if block.downsample is not None else {}
            reads = 1.0
    return 1 - sum(macs[name] * part for name, part in left.items()) / sum(macs.values())


def structural(model: nn.Module, share: float, only_inner: bool) -> float:
    """The share that goes with whole channels, as a smaller dense network has it."""
    traced = trace(model, torch.zeros(2, 3, 224, 224))
    plan = prune.Channels(exclude=("*.conv3", "*.downsample.*") if only_inner else ()).plan(traced)
    scores = plan.scores(prune.GeometricMedian(), prune.Stats(), traced)
    small = plan.apply(plan.keep(scores, np.clip(uniform(scores, share), 0, 1)), traced)
    return 1 - profile(small).macs / profile(traced).macs


def row(percent: str) -> dict[str, Any]:
    """Per cent of the multiplications removed."""
    model, share = network(), float(percent) / 100
    found = {"published_rule": published_rule(model, lambda conv: 1 - share), "whole_filters": published_rule(model, partial(kept, share=share)),  # noqa: ARG005
             "inner": structural(model, share, True), "coupled": structural(model, share, False)}
    return {"filters": share, "published": PUBLISHED.get(percent), **{name: round(100 * value, 2) for name, value in found.items()}}


if __name__ == "__main__":
    main(row, list(PUBLISHED), threads=1)
