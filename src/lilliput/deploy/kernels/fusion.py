"""What a runtime made of a model: which layers became one kernel, which kernel, and how long each takes."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from statistics import median
from typing import Any

import onnx
import onnx.inliner

from lilliput.core.errors import CorruptFileError, DataError, PreconditionError
from lilliput.deploy.kernels.attribution import Attribution, subgraphs, tag
from lilliput.deploy.onnx import read
from lilliput.deploy.runtime import Array, cannot_run, noise, open_session, session_options

PRODUCTS = ("Conv", "ConvTranspose", "ConvInteger", "Gemm", "MatMul", "MatMulInteger")
_WARMUP, _LEAST, _PATIENCE = 3, 5, 1.0  # runs that do not count, runs that must, seconds after which the others are spared


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One node of the optimised graph: its kernel, the original nodes it stands for, median seconds and share of the sum.

    `layer` is the layer whose weights it reads, else the node it is named by. No `nodes`: the runtime added it, or took an
    operator apart, and then `part_of` says what the kernel that completes it stands for.
    """

    layer: str
    op: str
    domain: str
    provider: str
    nodes: tuple[str, ...]
    ops: tuple[str, ...]
    seconds: float
    share: float
    part_of: str = ""

    @property
    def sentence(self) -> str:
        """What it stands for: `2 DequantizeLinear + Add + Relu`."""
        return summed(self.ops) or (f"part of {self.part_of}" if self.part_of else "added by the runtime")


@dataclass(frozen=True, kw_only=True)
class Fusions:
    """Kernels in the order they run, and the nodes that no kernel stands for: constants, and what had no effect.

    `seconds` is the sum of the kernels' medians; the profiler's own cost is in it, so time whole models without it.
    """

    kernels: tuple[Kernel, ...]
    removed: tuple[str, ...]
    seconds: float
    runs: int
    threads: int

    def slowest(self) -> tuple[Kernel, ...]:
        """The kernels, slowest first."""
        return tuple(sorted(self.kernels, key=lambda kernel: -kernel.seconds))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, each kernel with its `sentence`."""
        return {**asdict(self), "kernels": [{**asdict(kernel), "sentence": kernel.sentence} for kernel in self.kernels]}


def fusions(path: str | PathLike[str], threads: int = 1, *, runs: int = 30, input_shape: tuple[int, ...] | None = None) -> Fusions:
    """Run a file in ONNX Runtime under its profiler and say what its graph became on this machine.

    Medians over `runs` runs on one sample of noise, fewer (5 at least) where they would take more than a second. Nodes
    are known by their name, or by their first output where it is missing or not theirs alone. Raises `CorruptFileError`
    for files that cannot be read or run, `PreconditionError` for open shapes and `DataError` where noise is refused.
    """
    return profiled(load(path), path, noise(path, input_shape), threads=threads, runs=runs)


def load(path: str | PathLike[str]) -> onnx.ModelProto:
    """A file with all its constants and no functions, which may be changed."""
    model = read(path)
    try:
        onnx.load_external_data_for_model(model, str(Path(path).parent))
        if model.ByteSize() >= 2**31:
            raise PreconditionError(f"{path} takes {model.ByteSize()} bytes with its constants, and a model is changed in one piece of 2 GiB at most")
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise CorruptFileError(f"{path} cannot be loaded: {' '.join(str(error).split())[:300]}. Export it again") from error


def profiled(model: onnx.ModelProto, path: str | PathLike[str], feeds: Mapping[str, Array], *, threads: int, runs: int) -> Fusions:
    """`fusions` of a model in memory; `path` is the file that errors name."""
    if runs < 1:
        raise PreconditionError(f"a profile needs at least one run, not {runs}")
    named = onnx.ModelProto()
    named.CopyFrom(model)
    for index, node in enumerate(named.graph.node):
        node.name = tag(index)
        _hide_bodies(node)
    optimised, events = _run(named, path, feeds, threads, runs)
    traced = Attribution(named.graph)
    stands_for = traced(optimised)
    whole = [stands_for[part] if part is not None else () for part in traced.parts(optimised, stands_for)]
    times = _times(optimised, events)
    names, total = node_names(model.graph), sum(seconds for seconds, _ in times)
    attribution = Attribution(model.graph)
    kernels = tuple(Kernel(
        layer=_layer(attribution, owned or part, names) or node.op_type, op=node.op_type, domain=node.domain or "ai.onnx", provider=provider,
        nodes=tuple(names[i] for i in owned), ops=tuple(model.graph.node[i].op_type for i in owned),
        seconds=seconds, share=seconds / total if total else 0.0, part_of=summed([model.graph.node[i].op_type for i in part]))
        for node, owned, part, (seconds, provider) in zip(optimised, stands_for, whole, times, strict=True))
    covered = {index for owned in stands_for for index in owned}
    removed = tuple(name for index, name in enumerate(names) if index not in covered)
    counted = max((len(found) for found in events.values()), default=0) - _WARMUP
    return Fusions(kernels=kernels, removed=removed, seconds=total, runs=max(counted, 0), threads=threads)


def summed(ops: Sequence[str]) -> str:
    """Operators in words.

    >>> summed(["DequantizeLinear", "Add", "DequantizeLinear"])
    '2 DequantizeLinear + Add'
    """
    counts = {op: ops.count(op) for op in ops}
    return " + ".join(f"{count} {op}" if count > 1 else op for op, count in counts.items())


def node_names(graph: onnx.GraphProto) -> list[str]:
    """A name for every node that no other has: its own, else its first output's."""
    taken: set[str] = {name for node in graph.node for name in node.output}
    names = []
    for index, node in enumerate(graph.node):
        first = next(iter(node.output), "")
        name = node.name if node.name and (node.name not in taken or node.name == first) else first or f"node {index}"
        taken.add(name)
        names.append(name)
    return names


def layer_name(attribution: Attribution, index: int, name: str) -> str:
    """The layer whose weight a product reads, as the file names the weight; else the node's name."""
    node = attribution.graph.node[index]
    if node.op_type not in PRODUCTS or len(node.input) < 2:
        return name
    weight = node.input[1]
    while weight in attribution.producers and attribution.producers[weight] in attribution.constants:
        source = attribution.graph.node[attribution.producers[weight]]
        if not source.input:
            return name
        weight = source.input[0]
    stem, found, _ = weight.rpartition(".weight")
    return stem if found and stem and weight not in attribution.producers else name


def _layer(attribution: Attribution, owned: Sequence[int], names: Sequence[str]) -> str:
    if not owned:
        return ""
    product = next((i for i in owned if attribution.graph.node[i].op_type in PRODUCTS), None)
    if product is not None:
        return layer_name(attribution, product, names[product])
    plain = [i for i in owned if attribution.graph.node[i].op_type not in ("QuantizeLinear", "DequantizeLinear")]
    return names[(plain or list(owned))[0]]


def _hide_bodies(node: onnx.NodeProto) -> None:
    """Nodes within control flow get no tag, so that their events are not taken for those of the graph."""
    for graph in subgraphs(node):
        for inner in graph.node:
            inner.name = "body"
            _hide_bodies(inner)


def _run(model: onnx.ModelProto, path: str | PathLike[str], feeds: Mapping[str, Array], threads: int,
         runs: int) -> tuple[list[onnx.NodeProto], dict[str, list[dict[str, Any]]]]:
    """The optimised nodes, and the events of every node, one for each run."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads)
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        try:
            session = open_session(model.SerializeToString(), threads, options)
        except Exception as error:
            raise cannot_run(path, error) from error
        try:
            begun = time.perf_counter()
            for run in range(_WARMUP + runs):
                session.run(None, dict(feeds))
                if run + 1 >= _WARMUP + _LEAST and time.perf_counter() - begun > _PATIENCE:
                    break
        except Exception as error:
            raise DataError(f"{path} refuses a sample of noise: {' '.join(str(error).split())[:300]}") from error
        finally:
            profile = session.end_profiling()
        optimised = onnx.load(Path(folder) / "optimised.onnx", load_external_data=False)
        return list(optimised.graph.node), _events(Path(profile))


def _events(profile: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for event in json.loads(profile.read_text(encoding="utf-8", errors="replace")):
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            found.setdefault(name.removesuffix("_kernel_time"), []).append(event)
    return found


def _times(optimised: Sequence[onnx.NodeProto], events: Mapping[str, list[dict[str, Any]]]) -> list[tuple[float, str]]:
    """Median seconds and provider of every node; nodes without a name have events named by operator and number, in the same order."""
    named = {node.name for node in optimised}
    spare = {op: [name for name in events if name not in named and re.fullmatch(rf"{re.escape(op)}_\d+", name)]
             for op in {node.op_type for node in optimised if not node.name}}
    result = []
    for node in optimised:
        key = node.name or (spare[node.op_type].pop(0) if spare[node.op_type] else "")
        counted = events.get(key, [])[_WARMUP:] or events.get(key, [])
        provider = str(counted[0].get("args", {}).get("provider", "")) if counted else ""
        result.append((median(event["dur"] for event in counted) / 1e6 if counted else 0.0, provider))
    return result
