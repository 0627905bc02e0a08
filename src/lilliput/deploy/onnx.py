"""ONNX: a traced network written as a small, clean file that was run before it counts as written; and safe reading."""

from __future__ import annotations

import copy
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from torch import Tensor, nn

from lilliput.core.atomic import write_bytes
from lilliput.core.errors import CorruptFileError, LilliputError, PreconditionError
from lilliput.deploy import dynamic, levels, lookup
from lilliput.deploy.floating import subtract_biases_
from lilliput.deploy.integer import global_pools_, integer_biases_, transpose_constants_
from lilliput.deploy.qdq import DOMAIN, lower_, needed_opset, translate
from lilliput.deploy.shortcuts import means_for_pools_, short_cuts
from lilliput.deploy.softmax import keep_softmax_
from lilliput.graph.fold import fold_batchnorm
from lilliput.graph.trace import as_inputs, export_program, trace

_OPSET = 21
_MAX_BYTES = 2**31 - 1  # protobuf's own limit


def export(model: nn.Module, path: str | PathLike[str], example: Tensor | tuple[Tensor, ...], *,
           opset: int | None = None, check: bool = True, tolerance: float | None = None) -> Path:
    """Write the model as ONNX with a dynamic batch, inputs `input` and outputs `output` (`input_1`... where there are several).

    Batch norms are folded, simulated quantization becomes QuantizeLinear and DequantizeLinear with integer constants, and
    values keep the names of the network's nodes. `opset` is 21 unless constants of two bits need 25. With `check`, ONNX Runtime
    computes `example` (real samples) before anything is written, and no output may differ from torch's by more than
    `tolerance` times the largest magnitude in it: 1e-3, or 0.1 for quantized networks, whose last bits may round either way.

    Raises `PreconditionError` naming the first output that diverges, and for what ONNX cannot express; `TraceError`.
    """
    inputs = as_inputs(example)
    traced = fold_batchnorm(copy.deepcopy(trace(model, example)).eval())
    means_for_pools_(traced)
    program, _ = export_program(traced, traced.example)
    exported = _convert(program, max(opset or _OPSET, _OPSET))
    lookup.lower_lookups_(exported)
    if opset is None:
        exported.opset_imports[""] = needed_opset(exported, _OPSET)
    quantized = levels.lower_levels_(exported) + lower_(exported)
    _clean(exported)
    data = ir.to_proto(exported).SerializeToString(deterministic=True)
    if len(data) > _MAX_BYTES:
        raise PreconditionError(f"the model takes {len(data)} bytes, and one ONNX file holds 2 GiB at most: make it smaller first")
    if check:
        with torch.no_grad():
            wanted = torch.utils._pytree.tree_leaves(traced(*inputs))
        _compare(data, inputs, wanted, tolerance if tolerance is not None else (0.1 if quantized else 1e-3))
    write_bytes(path, data)
    return Path(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress, and warns of every later opset."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _convert(program: torch.export.ExportedProgram, opset: int) -> ir.Model:
    table: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.aten.embedding.default: lookup.translate}
    for name, translation in (("fake_quantize", translate), ("fake_levels", levels.translate), ("hashed", lookup.translate_hashed),
                              ("dynamic_quantize", dynamic.translate)):
        if hasattr(torch.ops.lilliput, name):
            table[getattr(torch.ops.lilliput, name).default] = translation
    try:
        with _quiet(), short_cuts():
            result = torch.onnx.export(program, dynamo=True, opset_version=opset, custom_translation_table=table, verbose=False, optimize=True)
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())[:600]
        raise PreconditionError(f"the network cannot be written as ONNX: {reason}. Replace the operator it names, or export a part without it") from error
    assert result is not None
    exported = result.model
    assert isinstance(exported, ir.Model)
    return exported


def _clean(model: ir.Model) -> None:
    """Names that mean something, and nothing in the file that no runtime reads."""
    global_pools_(model)
    transpose_constants_(model)
    integer_biases_(model)
    dynamic.keep_inputs_(model)
    keep_softmax_(model)
    subtract_biases_(model)
    for step in (passes.IdentityEliminationPass(), passes.RemoveUnusedNodesPass(), passes.LiftConstantsToInitializersPass(),
                 passes.DeduplicateInitializersPass(), passes.RemoveUnusedNodesPass(), passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
                 passes.RemoveUnusedOpsetsPass(), passes.ClearMetadataAndDocStringPass()):
        step(model)
    graph = model.graph
    _number(graph.inputs, "input")
    _number(graph.outputs, "output")
    ends = {*graph.inputs, *graph.outputs}
    for node in graph:
        node.name = node.outputs[0].name
        for value in node.outputs:
            if value not in ends:
                value.shape = value.type = None
            value.metadata_props.clear()
    for value in ends:
        value.metadata_props.clear()
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape = ir.Shape(["batch", *list(value.shape)[1:]])
    passes.NameFixPass()(model)
    passes.TopologicalSortPass()(model)
    model.metadata_props.clear()
    model.producer_name, model.producer_version, graph.name = DOMAIN, None, "network"


def _number(values: Sequence[ir.Value], name: str) -> None:
    for index, value in enumerate(values):
        value.name = f"{name}_{index}" if index else name


def _compare(data: bytes, inputs: tuple[Tensor, ...], wanted: list[Any], tolerance: float) -> None:
    from lilliput.deploy.runtime import open_session

    try:
        session = open_session(data, threads=1)
        feeds = {value.name: x.detach().numpy() for value, x in zip(session.get_inputs(), inputs, strict=True)}
        got = session.run(None, feeds)
    except Exception as error:
        reason = " ".join(str(error).split())[:400]
        raise PreconditionError(f"ONNX Runtime cannot run the exported network: {reason}. Nothing was written; check=False writes it regardless") from error
    for value, ours, theirs in zip(session.get_outputs(), got, wanted, strict=True):
        reference = theirs.detach().numpy()
        if ours.shape != reference.shape:
            raise PreconditionError(f"the exported {value.name!r} has shape {ours.shape}, torch's {reference.shape}; nothing was written")
        difference = np.abs(ours.astype(np.float64) - reference)
        limit = tolerance * max(float(np.abs(reference).max(initial=0.0)), 1e-6)
        if not difference.max(initial=0.0) <= limit:
            sample = int(np.unravel_index(int(np.nanargmax(difference)), difference.shape)[0]) if difference.ndim else 0
            raise PreconditionError(
                f"the exported {value.name!r} differs from torch's by {difference.max():.3g} at sample {sample}, where {limit:.3g} is allowed; nothing "
                "was written. Look for a layer that overflows its integers (quantize.report), or pass tolerance= if this is expected")


def read(path: str | PathLike[str]) -> onnx.ModelProto:
    """Read an ONNX file that a stranger may have written.

    Raises `CorruptFileError` for what is truncated, damaged, no ONNX, or refers to data outside of its own folder, and
    `FileNotFoundError` when there is no file.
    """
    target = Path(path)
    data = target.read_bytes()
    if not data or len(data) > _MAX_BYTES:
        raise _corrupt(target, f"it has {len(data)} bytes")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
        for tensor in _tensors(model.graph):
            _vet(tensor, target)
        onnx.checker.check_model(model)
    except LilliputError:
        raise
    except (DecodeError, onnx.checker.ValidationError, ValueError, TypeError, RuntimeError, RecursionError, OverflowError) as error:
        raise _corrupt(target, " ".join(str(error).split())[:300]) from error
    return model


def _corrupt(path: Path, reason: str) -> CorruptFileError:
    return CorruptFileError(f"{path} cannot be read as an ONNX model: {reason}. Copy it again from its source, or export it again")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant, those in attributes and subgraphs too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _vet(tensor: onnx.TensorProto, path: Path) -> None:
    if any(size < 0 for size in tensor.dims):
        raise _corrupt(path, f"tensor {tensor.name!r} has a negative size")
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, folder = entries.get("location", ""), path.parent.resolve()
    other = (folder / location).resolve()
    if not location or os.path.isabs(location) or not other.is_relative_to(folder) or not other.is_file():
        raise _corrupt(path, f"tensor {tensor.name!r} lies in {location!r}, which is not a file in the model's folder")
    begin, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
    if begin < 0 or length < 0 or begin + length > other.stat().st_size:
        raise _corrupt(path, f"tensor {tensor.name!r} reaches beyond the end of {location!r}")
