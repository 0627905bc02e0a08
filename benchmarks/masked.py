"""The reference for structured pruning: the large network with removed channels silenced, nothing removed.

After every operator the channels that pruning removes are multiplied by zero; layer norms over pruned channels take
their statistics over those that stay. What is left of the large network's output is what the small one must give.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from lilliput.graph import Coupling, Traced, profile, shrink
from lilliput.graph.rules import argument, op_name


class Masked(fx.Interpreter):
    """Runs a traced network with components silenced."""

    def __init__(self, coupling: Coupling, keep: np.ndarray) -> None:
        super().__init__(coupling.traced)
        self.coupling, self.keep = coupling, keep

    def mask(self, node: fx.Node, value: Any) -> Any:
        """Zero removed channels of a value."""
        dims = self.coupling.node_dims(node)
        if isinstance(value, (list, tuple)):
            return type(value)(self._silenced(v, d) for v, d in zip(value, dims, strict=True)) if isinstance(dims, list) and dims else value
        return self._silenced(value, dims) if isinstance(value, Tensor) else value

    def _silenced(self, value: Tensor, dims: dict[int, np.ndarray]) -> Tensor:
        for dim, components in dims.items():
            flags = torch.from_numpy(self.keep[components]).to(value.dtype)
            shape = [1] * value.ndim
            shape[dim] = -1
            # A dimension that merges the batch repeats its labels for every sample.
            flags = flags.repeat(value.shape[dim] // len(flags))
            value = value * flags.reshape(shape)
        return value

    def run_node(self, n: fx.Node) -> Any:
        """Run, then silence."""
        if n.op == "call_function" and op_name(n) in ("layer_norm", "rms_norm"):
            dims = self.coupling.node_dims(n)
            first = len(self.coupling.size_of(n)) - len(n.args[1])
            if any(d >= first for d in dims):
                args, kwargs = self.fetch_args_kwargs_from_env(n)
                return self._norm(n, dims, first, args, kwargs)
        return self.mask(n, super().run_node(n))

    def _norm(self, n: fx.Node, dims: dict[int, np.ndarray], first: int, args: Any, kwargs: Any) -> Tensor:
        x = args[0]
        ones = self._silenced(torch.ones_like(x), dims)
        axes = tuple(range(first, x.ndim))
        count = ones.sum(axes, keepdim=True)
        centre = op_name(n) == "layer_norm"
        mean = (x * ones).sum(axes, keepdim=True) / count if centre else 0
        variance = ((x - mean).square() * ones).sum(axes, keepdim=True) / count
        eps = argument(n, 4 if centre else 3, "eps", 1e-5)
        out = (x - mean) * torch.rsqrt(variance + eps)
        weight, bias = args[2] if len(args) > 2 else kwargs.get("weight"), args[3] if centre and len(args) > 3 else kwargs.get("bias")
        out = out if weight is None else out * weight
        return (out if bias is None else out + bias) * ones


def masked_output(coupling: Coupling, keep: np.ndarray, *inputs: Tensor) -> Any:
    """Output of the large network with removed channels silenced."""
    with torch.no_grad():
        return Masked(coupling, keep).run(*inputs)


def half(coupling: Coupling, seed: int = 0) -> np.ndarray:
    """Keep a random half of every group's units, and at least one slice of every tensor."""
    generator = np.random.default_rng(seed)
    keep = coupling.keep_all()
    for group in coupling.groups:
        dropped = generator.permutation(group.units)[: group.units // 2]
        keep[group.components[dropped]] = False
    for dims in coupling.dims.values():
        for components in dims.values():
            if not keep[components].any():
                keep[components[0]] = True
    return keep


def halved(traced: Traced, example: Tensor) -> dict[str, Any]:
    """A network without half of its channels and heads: what is left, how far it is from the masked one, whether it trains."""
    began = time.perf_counter()
    coupling = Coupling(traced)
    keep = half(coupling)
    small = shrink(coupling, keep)
    out: dict[str, Any] = {"prune_seconds": round(time.perf_counter() - began, 2)}
    before, after = profile(traced), profile(small)
    out |= {"groups": len(coupling.groups), "excluded": coupling.excluded, "params_share": after.params / before.params,
            "macs_share": after.macs / before.macs}
    reference = _one(masked_output(coupling, keep, example))
    pruned = _one(small(example))
    out |= {"difference": float((pruned.detach() - reference).abs().max()), "output_scale": float(reference.abs().max())}
    pruned.sum().backward()
    out["gradients"] = all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in small.parameters())
    return out


def _one(output: Any) -> Tensor:
    """All results of a network in one row."""
    parts = list(output.values()) if isinstance(output, dict) else [output]
    return torch.cat([part.flatten() for part in parts])


def randomise_constants_(model: torch.nn.Module) -> None:
    """Give vectors (norms, biases, layer scales) and constant tensors (zeroed heads) random values, so that nothing
    agrees by being zero or one."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        if tensor.ndim <= 1 or bool((tensor == tensor.flatten()[0]).all()):
            positive = "var" in name or (tensor.ndim <= 1 and "weight" in name)
            values = torch.rand(tensor.shape, generator=generator)
            tensor.data.copy_(values + 0.5 if positive else 0.2 * values - 0.1)
