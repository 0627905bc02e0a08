"""Saving a traced network as a `.pt2`, and loading one without executing anything in it."""

from __future__ import annotations

import copy
from os import PathLike
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from lilliput.core.atomic import atomic_path
from lilliput.core.errors import LilliputError
from lilliput.graph.archive import Archive
from lilliput.graph.program import ProgramReader
from lilliput.graph.trace import Traced, assemble, export_program

Inputs = tuple[tuple[tuple[int, ...], torch.dtype], ...]

_MAX_PARTS = 2**16
# What only says where a node came from: paths on the machine that saved it, and most of the file's text.
_PROVENANCE = ("stack_trace", "from_node")


def save(traced: Traced, path: str | PathLike[str]) -> None:
    """Write the network as a `.pt2` of `torch.export`, in evaluation mode, atomically.

    It is exported anew, so what is written has been validated; `torch.export.load` reads it as well. Nothing in the file
    is pickled. Raises `TraceError` when a transformation left a graph that cannot be exported.
    """
    program, _ = export_program(copy.deepcopy(traced).eval(), traced.example)
    program._example_inputs = None
    for node in program.graph.nodes:
        for key in _PROVENANCE:
            node.meta.pop(key, None)
    with atomic_path(path) as temporary, open(temporary, "w+b") as stream:
        torch.export.save(program, stream)


def load(path: str | PathLike[str]) -> Traced:
    """Read a `.pt2`, from `save` or `torch.export.save`, in evaluation mode.

    The file is treated as data from a stranger: records are bounded by the file's size and checked against their CRC, only
    tensor operators may be called, pickles are never opened and expressions never evaluated. Raises `CorruptFileError`
    that names file, reason and remedy for anything else, and `FileNotFoundError` when there is no file.
    """
    with Archive(path) as archive:
        if archive.text("archive_format") != "pt2" or archive.text("byteorder") != "little":
            raise archive.refuse("it is not a little-endian pt2 archive")
        try:
            return _read(archive)
        except LilliputError:
            raise
        except Exception as error:
            reason = f"its program is not consistent ({' '.join(str(error).split())[:300]})"
            raise archive.refuse(reason) from error


def _read(archive: Archive) -> Traced:
    reader = ProgramReader(archive, archive.json("models/model.json"))
    graph = reader.read()
    inputs = list(reader.inputs())
    tensors = archive.tensors("data/constants", "model_constants_config.json")
    tensors.update(archive.tensors("data/weights", "model_weights_config.json"))
    root = nn.Module()
    for name in reader.targets:
        if name not in tensors:
            raise archive.refuse(f"tensor {name!r} is missing")
        _attach(root, name, tensors[name])
    shapes = tuple((shape, dtype) for shape, dtype, _ in inputs)
    traced = assemble(root, graph, shapes, bool(inputs) and all(dynamic for shape, _, dynamic in inputs if shape))
    traced.eval()
    _check(traced, shapes)
    return traced


def _attach(root: nn.Module, name: str, tensor: Tensor) -> None:
    *path, leaf = name.split(".")
    module = root
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(leaf, tensor)
    else:
        module.register_buffer(leaf, tensor)


class _Bounded(FakeTensorProp):
    """Shape propagation that stays small: no integer beyond 64 bits, no operator that returns tensors by the million."""

    def run_node(self, n: fx.Node) -> Any:
        if isinstance(n.target, torch._ops.OpOverload) and any("List" in str(r.type) for r in n.target._schema.returns):
            self._limit(n)
        result = super().run_node(n)
        if isinstance(result, int) and not -(2**63) <= result < 2**63:
            raise OverflowError(f"{n.name} exceeds 64 bits")
        return result

    def _limit(self, n: fx.Node) -> None:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        for value in torch.utils._pytree.tree_leaves((args, kwargs)):
            largest = max(value.shape, default=0) if isinstance(value, Tensor) else value
            if isinstance(largest, int) and largest > _MAX_PARTS:
                raise OverflowError(f"{n.name} might return {largest} tensors")


def _check(traced: Traced, inputs: Inputs) -> None:
    """Run the network on shapes alone, so that wrong arguments show now and not at the first use."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True, allow_non_fake_inputs=True)
    with torch.no_grad(), mode:
        example = [torch.zeros(shape, dtype=dtype) for shape, dtype in inputs]
    with torch.no_grad():
        _Bounded(traced, mode).propagate_dont_convert_inputs(*example)
