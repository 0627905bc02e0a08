"""Two short cuts through torch's ONNX exporter, which takes seconds otherwise; without what they rest on it runs as it is.

Before it translates, the exporter traces the program once more to decompose operators that it has no translation for. Traced
networks are pure graphs of operators that mostly all have one, and then the program comes out of that as it went in. It also
builds its registry of translations anew at each call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest import mock

import torch

from lilliput.graph.trace import Traced

try:
    from torch.onnx._internal.exporter import _decomp, _fx_passes, _registration
except ImportError:  # another torch; everything still works, at the exporter's own pace
    _decomp = _fx_passes = _registration = None  # type: ignore[assignment]

aten = torch.ops.aten


def means_for_pools_(traced: Traced) -> None:
    """Pooling to one position is the mean over all positions, for which there is a translation; in place."""
    for node in traced.graph.find_nodes(op="call_function", target=aten.adaptive_avg_pool2d.default):
        if list(node.args[1]) == [1, 1]:
            node.target, node.args = aten.mean.dim, (node.args[0], [-2, -1], True)
    traced.recompile()


@contextmanager
def short_cuts() -> Iterator[None]:
    """Meanwhile `torch.onnx.export` keeps its registry and leaves programs as they are that need no decomposition."""
    with ExitStack() as stack:
        if _usable():
            stack.enter_context(mock.patch.object(_fx_passes, "decompose_with_registry", _decomposed(_fx_passes.decompose_with_registry)))
            stack.enter_context(mock.patch.object(_registration.ONNXRegistry, "from_torchlib", classmethod(_registry)))
        yield


def _usable() -> bool:
    return (hasattr(_fx_passes, "decompose_with_registry") and hasattr(_decomp, "get_onnx_implemented_overloads")
            and hasattr(getattr(_registration, "ONNXRegistry", None), "from_torchlib"))


def _decomposed(original: Any) -> Any:
    def decompose(program: torch.export.ExportedProgram, registry: Any) -> torch.export.ExportedProgram:
        known = set(_decomp.get_onnx_implemented_overloads(registry))
        nodes = [node for node in program.graph.nodes if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)]
        if all(node.target in known and not node.target._schema.is_mutable for node in nodes):
            return program
        return original(program, registry)  # type: ignore[no-any-return]

    return decompose


_FROM_TORCHLIB = getattr(getattr(_registration, "ONNXRegistry", None), "from_torchlib", None)


@cache
def _translations(*arguments: int) -> Any:
    assert _FROM_TORCHLIB is not None
    return _FROM_TORCHLIB(*arguments)


def _registry(kind: Any, opset_version: int | None = None) -> Any:
    """A registry of the caller's own, since calls add to it."""
    base, own = _translations() if opset_version is None else _translations(opset_version), kind()
    own._opset_version = base._opset_version
    own.functions = {key: list(found) for key, found in base.functions.items()}
    return own
