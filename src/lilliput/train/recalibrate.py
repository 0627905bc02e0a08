"""Batch-norm statistics estimated anew, after weights have changed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from lilliput.core.errors import PreconditionError
from lilliput.train.evaluate import device_of
from lilliput.train.protocols import Split

# Positions of running mean, running variance, training flag and momentum in the operator's arguments.
_MEAN, _VAR, _TRAINING, _MOMENTUM = 3, 4, 5, 6


def recalibrate_batchnorm(model: nn.Module, split: Split, *, batches: int = 32, batch_size: int = 128) -> nn.Module:
    """A copy of `model` whose batch norms hold the mean, over `batches` batches, of the batch's mean and variance.

    Batches come from all over the split, in order and not augmented; dropout stays off. A model without batch norm comes back
    as a plain copy. Raises `PreconditionError` when there is no batch of at least two samples.
    """
    model = copy.deepcopy(model)
    mode = model.training
    model.eval()
    statistics = _record_batches(model)
    if statistics:
        _accumulate(model, split, statistics, batches, batch_size)
    _restore(model)
    return model.train(mode)


def batch_statistics_(model: nn.Module) -> None:
    """From now on batch norms take the mean and variance of the batch at hand, in evaluation; until `train` or `eval` is called."""
    model.eval()
    _record_batches(model)


def _accumulate(model: nn.Module, split: Split, statistics: list[Tensor], batches: int, batch_size: int) -> None:
    sums = [torch.zeros_like(value) for value in statistics]
    seen, device = 0, device_of(model)
    with torch.no_grad():
        part = split.head(batches * batch_size) if batches * batch_size < len(split) else split
        for inputs, _ in part.batches(batch_size):
            if len(inputs) < 2:
                continue
            for value in statistics:
                value.zero_()
            model(inputs.to(device))
            seen += len(inputs)
            for total, value in zip(sums, statistics, strict=True):
                total += value * len(inputs)
    if not seen:
        raise PreconditionError("recalibration needs a batch of at least two samples: pass a larger split, batches= or batch_size=")
    for total, value in zip(sums, statistics, strict=True):
        value.copy_(total / seen)


def _nodes(model: nn.Module) -> list[fx.Node]:
    if not isinstance(model, fx.GraphModule):
        return []
    norms = (n for n in model.graph.nodes if n.op == "call_function" and n.target is torch.ops.aten.batch_norm.default)
    return [n for n in norms if isinstance(n.args[_MEAN], fx.Node)]


def _modules(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]


def _record_batches(model: nn.Module) -> list[Tensor]:
    """Make each batch norm write the plain statistics of a batch (momentum 1); return its buffers."""
    buffers: list[Tensor] = []
    for module in _modules(model):
        module._usual_momentum, module.momentum = module.momentum, 1.0  # type: ignore[assignment]
        module.training = True
        assert module.running_mean is not None
        assert module.running_var is not None
        buffers += [module.running_mean, module.running_var]
    nodes = _nodes(model)
    for node in nodes:
        arguments = list(node.args)
        node.meta["usual_momentum"] = arguments[_MOMENTUM]
        arguments[_TRAINING], arguments[_MOMENTUM] = True, 1.0
        node.args = tuple(arguments)
        for place in (_MEAN, _VAR):
            source = node.args[place]
            if isinstance(source, fx.Node) and source.op == "get_attr":
                owner, _, leaf = str(source.target).rpartition(".")
                buffers.append(getattr(model.get_submodule(owner), leaf))
    if nodes:
        assert isinstance(model, fx.GraphModule)
        model.recompile()
    return buffers


def _restore(model: nn.Module) -> None:
    for module in _modules(model):
        module.momentum = module.__dict__.pop("_usual_momentum")
        module.training = False
    nodes = _nodes(model)
    for node in nodes:
        arguments = list(node.args)
        arguments[_TRAINING], arguments[_MOMENTUM] = False, node.meta.pop("usual_momentum")
        node.args = tuple(arguments)
    if nodes:
        assert isinstance(model, fx.GraphModule)
        model.recompile()
