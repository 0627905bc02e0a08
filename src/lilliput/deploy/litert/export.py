"""A quantized network as a full-integer `.tflite` file, by LiteRT's own converter."""

from __future__ import annotations

import copy
import io
import re
import tempfile
from contextlib import redirect_stdout
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from lilliput.core.errors import CorruptFileError, PreconditionError
from lilliput.deploy.litert.extra import needed, quiet
from lilliput.deploy.litert.flatbuffer import File, Operator
from lilliput.deploy.litert.grids import Edge, to_pairs_
from lilliput.deploy.litert.prepare import split_padding_, split_silu_
from lilliput.deploy.litert.runtime import Kernels, Session, decode
from lilliput.deploy.shortcuts import means_for_pools_
from lilliput.graph.fold import fold_batchnorm
from lilliput.graph.trace import as_inputs, export_program, trace

# What the converter makes of a node's place in the module tree is the only name that it hands on to the file's tensors.
_MARK = re.compile(r"<([\w.]+)>")


def export(model: nn.Module, path: str | PathLike[str], example: Tensor | tuple[Tensor, ...], *, tolerance: float = 0.1) -> Path:
    """Write the statically quantized network as LiteRT with int8 input and output, no operator in floating point, and a batch of one.

    Every simulated quantizer becomes the pair of quantize and dequantize with its own scale and zero point, codes from 0 to 255 moved
    down by 128, and the converter fuses the pairs to integer operators; biases are int32 with `s_input s_weight`. Tensors are
    named as in the ONNX file of the same network, so that `difference` can put the two side by side, and images stay `(1, C, H, W)` at
    the border. LiteRT computes `example` (real samples) before anything is written, and no output may differ from torch's by more
    than `tolerance` times the largest magnitude in it: last bits may round either way.

    Raises `PreconditionError` for a network that is not quantized, for grids that int8 does not hold (activations of other than
    eight bits, weights with a zero point or the code -128), for operators that stay in floating point, by name, for an output
    that diverges, and without the optional packages; `TraceError`.
    """
    converter = needed("litert_torch")
    traced = fold_batchnorm(copy.deepcopy(trace(model, example)).eval())
    if not traced.dynamic_batch:
        raise PreconditionError("the network fixes its batch size, and a LiteRT file takes one sample: let its forward pass keep x.shape[0] free")
    means_for_pools_(traced)
    program, _ = export_program(traced, traced.example)
    graph = program.module(check_guards=False)
    assert isinstance(graph, fx.GraphModule)
    layers = _parameters(graph)
    split_silu_(graph)
    edges = to_pairs_(graph)
    split_padding_(graph)
    _mark_(graph, edges)
    inputs = as_inputs(example)
    file = File(_converted(converter, graph, tuple(x[:1] for x in inputs)))
    _integer(file)
    file = file.rename(_names(file, edges, layers))
    with torch.no_grad():
        _compare(file, inputs, torch.utils._pytree.tree_leaves(traced(*inputs)), tolerance)
    return file.write(path)


def _parameters(graph: fx.GraphModule) -> dict[str, list[str]]:
    """The names of weight and bias of each layer, by the name of its node."""
    names: dict[str, list[str]] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function" and len(node.args) > 1:
            sources = [a.args[0] if isinstance(a, fx.Node) and a.op == "call_function" and a.args else a for a in node.args[1:3]]
            names[node.name] = [str(a.target) for a in sources if isinstance(a, fx.Node) and a.op == "get_attr"]
    return names


def _mark_(graph: fx.GraphModule, edges: dict[str, Edge]) -> None:
    """Put each node's name, and a pair's edge, where the converter takes the names of tensors from."""
    for node in graph.graph.nodes:
        name = next((name for name, edge in edges.items() if node in edge.pair), node.name)
        node.meta["nn_module_stack"] = {"": ("", f"<{name}>")}
    graph.recompile()


def _converted(converter: Any, graph: fx.GraphModule, inputs: tuple[Tensor, ...]) -> bytes:
    quantizer, config = needed("litert_torch.quantize.pt2e_quantizer"), needed("litert_torch.quantize.quant_config")
    # Only the mode is read from it: that the pairs in the graph are static quantization.
    static = config.QuantConfig(pt2e_quantizer=quantizer.PT2EQuantizer().set_global(quantizer.get_symmetric_quantization_config()))
    settings = needed("litert_torch._config").config
    shown, settings.show_progress = settings.show_progress, False
    try:
        with quiet(), redirect_stdout(io.StringIO()):
            data: bytes = converter.convert(graph, inputs, quant_config=static).model_content()
            return data
    except Exception as error:
        reason = " ".join(str(error).split())[:600]
        raise PreconditionError(f"the LiteRT converter refuses the network: {reason}. Replace the operator it names, or export a part without it") from error
    finally:
        settings.show_progress = shown


def _integer(file: File) -> None:
    """Refuse a file with operators in floating point, each by its name in the network."""
    stray: dict[str, list[str]] = {}
    for operator in file.operators:
        if operator.float_values and operator.kind not in ("QUANTIZE", "DEQUANTIZE"):
            stray.setdefault((_marks(operator) or [operator.outputs[0].name])[0], []).append(operator.kind)
    if stray or not all(value.integer for value in (*file.inputs, *file.outputs)):
        named = [f"{name} ({', '.join(dict.fromkeys(kinds))})" for name, kinds in stray.items()] or ["input or output"]
        more = f" and {len(named) - 12} more" if len(named) > 12 else ""
        raise PreconditionError(f"LiteRT has no integer form of the network; these stayed in floating point: {', '.join(named[:12])}{more}. Quantize what "
                                "was excluded, and replace operators without integer kernels (layer norm by batch norm), or export to ONNX")


def _compare(file: File, inputs: tuple[Tensor, ...], wanted: list[Tensor], tolerance: float) -> None:
    """Refuse a file that LiteRT cannot run, or with an output that leaves torch's."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = Session(file.write(Path(folder) / "model.tflite"), kernels=Kernels.BUILTIN).values(*(x.numpy() for x in inputs))
        except CorruptFileError as error:
            raise PreconditionError(f"LiteRT refuses what its converter made of the network: {error.__cause__}. Replace the operator it names, "
                                    "or export to ONNX") from error
    for value, expected in zip(file.outputs, wanted, strict=True):
        got, target = decode(found[value.index], value), expected.numpy()
        limit = tolerance * float(np.abs(target).max(initial=0.0))
        difference = float(np.abs(got - target).max(initial=0.0))
        if not difference <= limit:
            raise PreconditionError(f"output {value.name!r} differs from torch's by {difference:.3g}, where {limit:.3g} is allowed; nothing was written. "
                                    "Export to ONNX and look at `difference` of the two, or pass tolerance= if this is expected")


def _marks(operator: Operator) -> list[str]:
    """Names of the nodes that an operator was made of, its last first; of one that makes an output, those its constants bear."""
    constants = [value.name for value in operator.inputs if value is not None and value.data is not None]
    return _MARK.findall(operator.outputs[0].name) or _MARK.findall(" ".join(constants))


def _names(file: File, edges: dict[str, Edge], layers: dict[str, list[str]]) -> dict[int, str]:
    """Our names for the file's tensors.

    A result is named for the edge whose grid it lies on; a second one on that edge, or one that the converter added, has its operator's
    kind behind the name. Constants are named for the parameters of their layer.
    """
    names: dict[int, str] = {}

    def name(index: int, wanted: str) -> None:
        taken = set(names.values())
        names[index] = next(key for key in (wanted, *(f"{wanted}_{i}" for i in range(1, len(taken) + 2))) if key not in taken)

    for kind, values in (("input", file.inputs), ("output", file.outputs)):
        for i, value in enumerate(values, 1):
            name(value.index, kind if len(values) == 1 else f"{kind}_{i}")
    for operator in file.operators:
        marks = _marks(operator)
        for value in operator.outputs:
            if value.index not in names:
                found = next((edges[mark].name for mark in marks if mark in edges and edges[mark].same(value)), None)
                plain = found is not None and found not in names.values()
                name(value.index, str(found) if plain else f"{found or (marks or ['value'])[0]}.{operator.kind.lower()}")
        for mark in marks:
            for value, wanted in zip(operator.inputs[1:3], layers.get(mark, ()), strict=False):
                if value is not None and value.data is not None and value.index not in names:
                    name(value.index, wanted)
    return names
