"""Sensitivity: what every width of every layer alone is predicted, or measured, to cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from lilliput.core.errors import RecipeError
from lilliput.quantize.mixed.evaluator import Evaluator, batches_of
from lilliput.quantize.mixed.task import Array, Layer, Task
from lilliput.train.evaluate import device_of
from lilliput.train.losses import loss_of


class Sensitivity(ABC):
    """`(task) -> (layers, widths)`: the cost of each width, in a unit that adds up over layers."""

    @abstractmethod
    def __call__(self, task: Task) -> Array:
        """The table."""


def errors(task: Task, layer: Layer, width: int) -> dict[str, Tensor]:
    """`Q(w) - w` of a layer's weights at a width, by name, in float64."""
    quantized = task.quantized(layer, width).items()
    return {name: values.double() - task.network.tensor(name).detach().double() for name, values in quantized}


def squared(task: Task) -> Array:
    """`|Q(w) - w|^2`, summed over each layer's weights, `(layers, widths)`."""
    return np.array([[sum(float(e.square().sum()) for e in errors(task, layer, width).values()) for width in task.widths.weights]
                     for layer in task.layers])


@dataclass(frozen=True, kw_only=True)
class WeightNoise(Sensitivity):
    """Noise over signal of the weights, `|Q(w) - w|^2 / |w|^2`: no data needed."""

    def __call__(self, task: Task) -> Array:
        """The table."""
        held = [[task.network.tensor(name).detach().double() for name in layer.tensors] for layer in task.layers]
        power = [sum(float(w.square().sum()) for w in weights) for weights in held]
        return np.asarray(squared(task) / np.maximum(np.array(power), 1e-30)[:, None])


@dataclass(frozen=True, kw_only=True)
class Fisher(Sensitivity):
    """`sum_i g_i^2 (Q(w) - w)_i^2 / 2`, `g^2` the mean squared gradient of one sample's loss: the diagonal of the Fisher matrix.

    Estimated from gradients of batches of `batch` samples, whose squares are that many times smaller in the mean.
    """

    samples: int = 256
    batch: int = 8

    def __post_init__(self) -> None:
        at_least_one("samples", self.samples)
        at_least_one("batch", self.batch)

    def __call__(self, task: Task) -> Array:
        """The table."""
        squares = gradient_squares(task, self.samples, self.batch)
        return np.array([[0.5 * sum(float((squares[name] * e.square()).sum()) for name, e in errors(task, layer, width).items())
                          for width in task.widths.weights] for layer in task.layers])


def gradient_squares(task: Task, samples: int, batch: int) -> dict[str, Tensor]:
    """`b E[(mean gradient of b samples)^2]` of every weight, on samples of `data.train`, by name, float64."""
    names = [name for layer in task.layers for name in layer.tensors]
    out = {name: torch.zeros_like(task.network.tensor(name), dtype=torch.float64) for name in names}
    batches = batches_of(task.data.train, samples, size=batch, device=device_of(task.network))
    loss = loss_of(task.data)
    for inputs, targets in batches:
        own = {name: task.network.tensor(name).detach().requires_grad_() for name in names}
        grads = torch.autograd.grad(loss(functional_call(task.network, own, (inputs,)), targets), list(own.values()))
        for name, grad in zip(names, grads, strict=True):
            out[name] += grad.double().square() * len(inputs)
    return {name: value / len(batches) for name, value in out.items()}


@dataclass(frozen=True, kw_only=True)
class LossRise(Sensitivity):
    """The rise of the loss on `data.val` when this layer alone is quantized: measured, one run for each layer and width.

    Falls are taken as they are: noise that helps on these samples counts as help.
    """

    samples: int = 512

    def __post_init__(self) -> None:
        at_least_one("samples", self.samples)

    def __call__(self, task: Task) -> Array:
        """The table."""
        evaluate = Evaluator.of(task.network, task.data, self.samples)
        base = evaluate({}).loss
        return np.array([[evaluate(task.quantized(layer, width)).loss - base for width in task.widths.weights]
                         for layer in task.layers])


@dataclass(frozen=True, kw_only=True)
class OutputNoise(Sensitivity):
    """The error of the network's output, `E|y_q - y|^2 / E|y|^2` on `data.val`, when this layer alone is quantized."""

    samples: int = 512

    def __post_init__(self) -> None:
        at_least_one("samples", self.samples)

    def __call__(self, task: Task) -> Array:
        """The table."""
        evaluate = Evaluator.of(task.network, task.data, self.samples)
        wanted = torch.cat([y.flatten() for y in evaluate.outputs({})]).double()
        power = float(wanted.square().sum()) or 1.0

        def noise(layer: Layer, width: int) -> float:
            found = torch.cat([y.flatten() for y in evaluate.outputs(task.quantized(layer, width))]).double()
            return float((found - wanted).square().sum()) / power

        return np.array([[noise(layer, width) for width in task.widths.weights] for layer in task.layers])


def at_least_one(name: str, value: int) -> None:
    """Raise `RecipeError` for a count below one."""
    if value < 1:
        raise RecipeError(f"{name} is a whole number from 1, not {value!r}")
