"""Concrete shapes of every value of a traced network, without running it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from lilliput.graph.trace import Traced

Shape = tuple[int, ...]
Shapes = dict[fx.Node, Any]  # a Shape, or a list of them for nodes with several results
_BATCH_NORM = torch.ops.aten.batch_norm.default


class _Recorder(fx.Interpreter):
    """Runs a graph on fake tensors and keeps what each node returned."""

    def __init__(self, traced: Traced, mode: FakeTensorMode) -> None:
        super().__init__(traced, garbage_collect_values=True)
        self.values: dict[fx.Node, Any] = {}
        self._mode = mode
        self._fake: dict[str, Any] = {}

    def fetch_attr(self, target: str) -> Any:
        if target not in self._fake:
            value = super().fetch_attr(target)
            self._fake[target] = self._mode.from_tensor(value, static_shapes=True) if isinstance(value, Tensor) else value
        return self._fake[target]

    def run_node(self, n: fx.Node) -> Any:
        # A batch norm in training would divide by zero for one sample of one pixel; its result has its input's shape.
        norm = n.target is _BATCH_NORM
        result = torch.empty_like(self.fetch_args_kwargs_from_env(n)[0][0]) if norm else super().run_node(n)
        self.values[n] = result
        return result

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        fake: dict[str, Tensor] = {name: self._mode.from_tensor(value, static_shapes=True)
                                   for name, value in [*module.named_parameters(), *module.named_buffers()]}
        return torch.func.functional_call(module, fake, args, kwargs)


def fake_values(traced: Traced, inputs: tuple[Tensor, ...]) -> dict[fx.Node, Any]:
    """Fake results of every node for inputs of these shapes and types; no arithmetic on data is done."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        fakes = [mode.from_tensor(x, static_shapes=True) for x in inputs]
        recorder = _Recorder(traced, mode)
        # Interpreter.run handles the pytree of the original signature; traced inputs are positional.
        recorder.run(*fakes, enable_io_processing=False)
    return recorder.values


def shapes(traced: Traced) -> Shapes:
    """Shapes for the traced example, a batch of at least two.

    A network that was just traced carries them already; one that was changed since is run on fake tensors.
    """
    nodes = [n for n in traced.graph.nodes if n.op in ("placeholder", "call_function", "call_module")]
    if all("val" in n.meta for n in nodes):
        return {node: _shape(node.meta["val"]) for node in nodes} | _attribute_shapes(traced)
    return {node: _shape(value) for node, value in fake_values(traced, traced.example).items()}


def forget_shapes(traced: Traced) -> None:
    """Drop the recorded shapes; to be called by whatever changes them."""
    for node in traced.graph.nodes:
        node.meta.pop("val", None)


def _attribute_shapes(traced: Traced) -> Shapes:
    return {n: tuple(traced.tensor(n.target).shape) for n in traced.graph.nodes if n.op == "get_attr"}


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(_size(s) for s in value.shape)
    if isinstance(value, torch.SymInt):
        return _size(value)
    if isinstance(value, (list, tuple)):
        return [_shape(v) for v in value]
    return value


def _size(size: Any) -> int:
    return size if isinstance(size, int) else int(size.node.hint)
