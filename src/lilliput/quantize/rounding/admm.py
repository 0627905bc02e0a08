"""L-DNQ: each layer is rounded by ADMM on the Hessian of its inputs, and the layers after it make up for the error."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.core.errors import RecipeError
from lilliput.graph.moments import Moments
from lilliput.graph.products import as_rows, is_supported
from lilliput.graph.trace import Traced
from lilliput.graph.walk import Values, Walk, evaluate, needed
from lilliput.graph.weights import has_own_weight, weight_name, weight_of
from lilliput.quantize.calibrate import calibration_batches, widen_
from lilliput.quantize.grids import SMALLEST_SCALE, Integer, Parameters
from lilliput.quantize.layers import weight_quantizer
from lilliput.quantize.operators import LAYERS, layer_name
from lilliput.quantize.quantizer import Quantizer
from lilliput.train.progress import Bar


@dataclass(frozen=True, kw_only=True)
class LayerwiseADMM:
    """A rounding: layer by layer `minimise tr((Q - W) H (Q - W)')` over scales and integers `Q`, then train what follows.

    The three steps of ADMM, repeated: `V = (H W' + rho (Q - U)') (H + rho I)^-1`; `Q`, the nearest values to `V + U`, with the
    scale `<V + U, k> / <k, k>` for the codes `k` in turn; `U <- U + V - Q`. The best `Q` met counts, the nearest values among
    them, and three rounds without a better one end it. Then `update` steps of SGD move the weights that are still to be
    rounded, so that the network's outputs stay those of the float one.

    Departs from the authors' code in `rho`, a multiple of the mean of `H`'s diagonal and not of its first element; in integers,
    where they have powers of two; and in activations, which are quantized throughout. (chen2019limited)
    """

    rho: float = 1.0
    iterations: int = 100
    update: int = 20
    lr: float = 1e-3

    def __post_init__(self) -> None:
        if self.rho <= 0 or self.iterations < 1 or self.update < 0:
            raise RecipeError("rho is positive, iterations are 1 or more and updates 0 or more, "
                              f"not {self.rho}, {self.iterations} and {self.update}")

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:
        """Round in place, layer after layer; the note says what part of the error was left."""
        batches, notes = calibration_batches(reference, data, samples)
        walk, wanted = Walk(quantized, batches), _outputs(reference, batches)
        layers = [node for node in walk.nodes if node.target in LAYERS and _quantizer(quantized, node) is not None]
        left = []
        with Bar(total=len(layers)) as bar:
            for index, layer in enumerate(layers):
                walk.before(layer)
                left.append(self._layer(walk, layer))
                bar.update(index + 1, layer_name(layer))
                if self.update and index + 1 < len(layers):
                    _update_(walk, layers[index + 1:], wanted, self)
        mean = math.exp(sum(math.log(max(part, 1e-12)) for part in left) / max(len(left), 1))
        notes.append(f"{len(layers)} layers rounded by ADMM: {100 * mean:.0f}% of the error of nearest values is left")
        return notes + widen_(quantized)

    def _layer(self, walk: Walk, layer: fx.Node) -> float:
        quantizer, weight, source = _quantizer(walk.traced, layer), weight_of(walk.traced, layer), layer.args[0]
        assert quantizer is not None
        assert isinstance(source, fx.Node)
        moments = Moments(layer, weight)
        for values in walk.values:
            moments.update(values[source])
        rows = as_rows(weight.double(), layer)
        shape = (*rows.shape[:2], 1) if quantizer.scale.ndim else (1, 1, 1)
        start = quantizer.scale.detach().double().reshape(shape)
        assert isinstance(quantizer.grid, Integer)
        codes, scale, left = self.rounded(rows, moments.hessian.to(rows.device), start, quantizer.grid.qmax)
        scale = scale.float().reshape(quantizer.scale.shape)
        quantizer.set(Parameters(scale, quantizer.zero_point, torch.zeros_like(scale, dtype=torch.bool)))
        values32 = codes.float() * scale.reshape(shape)
        walk.traced.set_tensor(weight_name(layer), values32.reshape(weight.shape).to(weight.dtype))
        return left

    def rounded(self, rows: Tensor, hessian: Tensor, scale: Tensor, top: int) -> tuple[Tensor, Tensor, float]:
        """Codes of the weight `(groups, outputs, inputs)`, the scales, and what part of the nearest values' error is left.

        `scale` is `(groups, outputs, 1)`, or `(1, 1, 1)` for one to the tensor.
        """
        rho = self.rho * hessian.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-30)[:, None, None]
        factor = torch.linalg.cholesky(hessian + rho * torch.eye(hessian.shape[1], dtype=hessian.dtype, device=hessian.device))
        fixed, dual = rows @ hessian, torch.zeros_like(rows)
        codes = (rows / scale).round().clamp(-top, top)
        best = first = _error(codes * scale, rows, hessian)
        answer, worse = (codes, scale), 0
        for _ in range(self.iterations):
            near = torch.cholesky_solve((fixed + rho * (codes * scale - dual)).transpose(1, 2), factor).transpose(1, 2)
            codes, scale = _project(near + dual, scale, top)
            dual = dual + near - codes * scale
            error = _error(codes * scale, rows, hessian)
            worse = 0 if error < best else worse + 1
            if error < best:
                best, answer = error, (codes, scale)
            if worse == 3:
                break
        return *answer, best / first if first else 1.0


def _quantizer(traced: Traced, layer: fx.Node) -> Quantizer | None:
    """The quantizer of a layer's weight, where this file can deal with both."""
    quantizer = weight_quantizer(traced, layer)
    fits = quantizer is not None and isinstance(quantizer.grid, Integer) and quantizer.grid.symmetric and quantizer.grid.axis in (None, 0)
    return quantizer if fits and has_own_weight(layer) and is_supported(layer) else None


def _error(values: Tensor, rows: Tensor, hessian: Tensor) -> float:
    return float(((values - rows) @ hessian * (values - rows)).sum())


def _project(wanted: Tensor, scale: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Codes and scales near to `wanted`, by turns, until the scales stay."""
    dims = [dim for dim in range(3) if scale.shape[dim] == 1]
    codes = (wanted / scale).round().clamp(-top, top)
    for _ in range(10):
        power = codes.square().sum(dims, keepdim=True)
        found = (wanted * codes).sum(dims, keepdim=True) / power.clamp(min=1)
        found = torch.where((power > 0) & (found > SMALLEST_SCALE), found, scale)
        if bool(((found - scale).abs() <= 1e-6 * scale).all()):
            break
        scale = found
        codes = (wanted / scale).round().clamp(-top, top)
    return codes, scale


def _outputs(reference: Traced, batches: list[Tensor]) -> list[list[Tensor]]:
    """The float network's results on every batch."""
    walk = Walk(reference, batches)
    return [list(results) for results in zip(*(walk.through(node) for node in walk.nodes[-1].all_input_nodes), strict=True)]


@contextmanager
def _bypassed(quantizers: list[Quantizer]) -> Iterator[None]:
    for quantizer in quantizers:
        quantizer.bypassed = True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.bypassed = False


def _update_(walk: Walk, layers: list[fx.Node], wanted: list[list[Tensor]], config: LayerwiseADMM) -> None:
    """Train the weights of `layers`, in floating point, towards the wanted outputs, from where the walk stands."""
    traced, outputs = walk.traced, walk.nodes[-1].all_input_nodes
    rest = [node for node in walk.nodes if node in {n for out in outputs for n in needed(out, walk.values[0])}]
    names = {weight_name(layer) for layer in layers}
    parameters = [traced.tensor(name).requires_grad_() for name in names]
    optimizer = torch.optim.SGD(parameters, lr=config.lr, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    found = [quantizer for layer in layers if (quantizer := _quantizer(traced, layer)) is not None]
    with _bypassed(found), torch.enable_grad():
        for _ in range(config.update):
            batch = int(torch.randint(len(wanted), (1,), generator=generator))
            values: Values = {}
            for node in rest:
                values[node] = evaluate(traced, node, ChainMap(values, walk.values[batch]))
            pairs = zip(outputs, wanted[batch], strict=True)
            loss = torch.stack([(values[out] - target).square().mean() for out, target in pairs if out in values]).sum()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)
