"""Sensitivity from the loss's curvature: largest eigenvalue or average trace of each layer's block of the Hessian."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from lilliput.quantize.mixed.evaluator import batches_of
from lilliput.quantize.mixed.sensitivity import Sensitivity, at_least_one, squared
from lilliput.quantize.mixed.task import Array, Task
from lilliput.train.evaluate import device_of
from lilliput.train.losses import loss_of


@dataclass(frozen=True, kw_only=True)
class HessianTrace(Sensitivity):
    """`(Tr(H) / n) |Q(w) - w|^2 / 2` for each layer of `n` weights: the loss's rise for errors without direction.

    The trace is Hutchinson's `E v' H v` over random signs `v`, drawn for all layers at once: what other layers' signs add has
    mean zero. A negative trace, which no minimum of the loss has, counts by its magnitude. The factor 1/2 of the Taylor
    expansion, which changes no choice, is not in the paper's measure. (dong2020hawqv2)
    """

    probes: int = 16
    samples: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        at_least_one("probes", self.probes)
        at_least_one("samples", self.samples)

    def __call__(self, task: Task) -> Array:
        """The table."""
        traces = np.abs(hessian_traces(task, self.probes, self.samples, self.seed))
        return np.asarray(0.5 * (traces / np.array([layer.count for layer in task.layers]))[:, None] * squared(task))


@dataclass(frozen=True, kw_only=True)
class HessianEigenvalue(Sensitivity):
    """`(lambda / n) |Q(w) - w|^2 / 2`, `lambda` the largest eigenvalue of the Hessian's block of a layer of `n` weights.

    By power iteration in each layer. The paper orders layers by `lambda / n` and picks widths by hand along that order; here that
    times the squared change is a loss, as the trace over `n` is in its successor, and the choice is exact. `lambda |Q(w) - w|^2`, by
    which the paper orders the fine-tuning, supposes that all of a change lies in the worst direction: with it large layers
    got bits that small ones needed (ResNet-8, four bits on average: below four bits everywhere). Negative eigenvalues
    count by their magnitude. (dong2019hawq)
    """

    iterations: int = 8
    samples: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        at_least_one("iterations", self.iterations)
        at_least_one("samples", self.samples)

    def __call__(self, task: Task) -> Array:
        """The table."""
        values = np.abs(hessian_eigenvalues(task, self.iterations, self.samples, self.seed))
        return np.asarray(0.5 * (values / np.array([layer.count for layer in task.layers]))[:, None] * squared(task))


def _gradients(task: Task, samples: int) -> Iterator[tuple[list[list[Tensor]], list[list[Tensor]], float]]:
    """Batch by batch: each layer's weights, their gradients, which can be derived again, and the batch's share."""
    batches = batches_of(task.data.train, samples, device=device_of(task.network))
    total, loss = sum(len(inputs) for inputs, _ in batches), loss_of(task.data)
    for inputs, targets in batches:
        own = {name: task.network.tensor(name).detach().requires_grad_() for layer in task.layers for name in layer.tensors}
        value = loss(functional_call(task.network, own, (inputs,)), targets)
        grads = dict(zip(own, torch.autograd.grad(value, list(own.values()), create_graph=True), strict=True))
        yield ([[own[name] for name in layer.tensors] for layer in task.layers],
               [[grads[name] for name in layer.tensors] for layer in task.layers], len(inputs) / total)


def hessian_traces(task: Task, probes: int, samples: int, seed: int) -> Array:
    """Trace of each layer's block of the Hessian of the mean training loss, `(layers,)`, by Hutchinson's estimator."""
    out = np.zeros(len(task.layers))
    for weights, grads, share in _gradients(task, samples):
        generator = torch.Generator().manual_seed(seed)
        flat, slopes = [w for layer in weights for w in layer], [g for layer in grads for g in layer]
        for _ in range(probes):
            signs = [(torch.randint(0, 2, w.shape, generator=generator) * 2 - 1).to(w) for w in flat]
            products = iter(zip(signs, torch.autograd.grad(slopes, flat, signs, retain_graph=True), strict=True))
            for i, layer in enumerate(weights):
                for v, hv in (next(products) for _ in layer):
                    out[i] += share / probes * float((v.double() * hv.double()).sum())
    return out


def hessian_eigenvalues(task: Task, iterations: int, samples: int, seed: int) -> Array:
    """Eigenvalue of largest magnitude of each layer's block of the Hessian of the mean training loss, `(layers,)`:

    Rayleigh's quotient in the end.
    """
    batches = list(_gradients(task, samples))
    generator = torch.Generator().manual_seed(seed)
    out = np.zeros(len(task.layers))
    for i in range(len(task.layers)):
        v = _unit([torch.randn(w.shape, generator=generator).to(w) for w in batches[0][0][i]])
        for _ in range(iterations):
            product = [torch.zeros_like(part) for part in v]
            for weights, grads, share in batches:
                for total, part in zip(product, torch.autograd.grad(grads[i], weights[i], v, retain_graph=True), strict=True):
                    total += share * part
            out[i] = sum(float((a.double() * b.double()).sum()) for a, b in zip(v, product, strict=True))
            v = _unit(product)
    return out


def _unit(parts: list[Tensor]) -> list[Tensor]:
    norm = sum(float(part.double().square().sum()) for part in parts) ** 0.5
    return [part / norm if norm > 0 else part for part in parts]
