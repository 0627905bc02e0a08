"""`profile` and `bench`: figures of one model, and paired times of several ONNX files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.core import PreconditionError
from lilliput.graph.latency import Comparison, compare


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Totals of one model for one sample, counts and bytes; `layers` has a row per layer with at least `layer`, `params` and `macs`."""

    model: str
    input_shape: tuple[int, ...]
    totals: dict[str, int]
    layers: tuple[dict[str, Any], ...]


def parse_shape(text: str) -> tuple[int, ...]:
    """`3,224,224` or `3x224x224` as numbers, without the batch; raises `PreconditionError` for anything else."""
    parts = text.replace("x", ",").replace(" ", "").split(",")
    if not all(part.isascii() and part.isdigit() and 0 < len(part) < 8 and int(part) > 0 for part in parts):
        raise PreconditionError(f"cannot read the input shape {text!r}; write channels, height and width without the batch: 3,224,224")
    return tuple(int(part) for part in parts)


def profile(reference: str, input_shape: tuple[int, ...] | None = None) -> Figures:
    """Profile a zoo name, `package.module:factory`, `model.pt2` or `model.onnx`.

    Raises `PreconditionError` where the input shape must be given, `TraceError` where `torch.export` refuses.
    """
    if Path(reference).suffix == ".onnx":
        from lilliput.deploy import profile_onnx

        _check_exists(Path(reference))
        found = profile_onnx(reference)
        totals = {"params": found.params, "macs": found.macs, "size": found.size}
        return Figures(model=reference, input_shape=(), totals=totals, layers=tuple(asdict(row) for row in found.rows))
    return _profile_torch(reference, input_shape)


def _profile_torch(reference: str, input_shape: tuple[int, ...] | None) -> Figures:
    import torch

    from lilliput import zoo
    from lilliput.graph import Traced, trace
    from lilliput.graph.profile import profile as count
    from lilliput.pipelines import models

    known = reference in zoo.names()
    shape = input_shape or (zoo.input_shape(reference) if known else None)
    model = models.find(reference, input_shape=shape or ()).model.eval()
    if isinstance(model, Traced) and input_shape is None:
        example: Any = model.example
        shape = tuple(example[0].shape[1:])
    elif shape is None:
        raise PreconditionError(f"the input shape of {reference} is unknown; give it without the batch: --input-shape 3,224,224")
    else:
        example = torch.zeros(2, *shape, dtype=zoo.input_dtype(reference) if known else torch.float32)
    found = count(trace(model, example), example)
    return Figures(model=reference, input_shape=tuple(shape), totals=found.totals(), layers=tuple(asdict(row) for row in found.layers))


def bench(files: Sequence[Path], *, threads: int = 1, rounds: int = 50, input_shape: tuple[int, ...] | None = None) -> Comparison:
    """Time ONNX files in turns on one sample each; the names in the comparison are the paths as given."""
    from lilliput.deploy.runtime import Session

    if len(set(files)) != len(files):
        raise PreconditionError("the same file is given twice")
    runners: dict[str, Callable[[], object]] = {}
    for path in files:
        _check_exists(path)
        session = Session(path, threads=threads)
        runners[str(path)] = _runner(session, _sample(path, input_shape))
    return compare(runners, rounds=rounds)


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise PreconditionError(f"there is no file {path}")


def _runner(session: Callable[[Any], object], sample: NDArray[Any]) -> Callable[[], object]:
    return lambda: session(sample)


def _sample(path: Path, input_shape: tuple[int, ...] | None) -> NDArray[Any]:
    """Normal noise of the file's input shape and type, a batch of one."""
    import onnx

    from lilliput.deploy import read

    graph = read(path).graph
    stored = {t.name for t in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1:
        raise PreconditionError(f"{path} has {len(inputs)} inputs; bench times networks with one")
    tensor = inputs[0].type.tensor_type
    dims = [d.dim_value for d in tensor.shape.dim]
    shape = input_shape or tuple(dims[1:])
    if not all(shape):
        raise PreconditionError(f"{path} leaves its input shape open; give it without the batch: --input-shape 3,224,224")
    if math.prod(shape) > 1 << 28:
        raise PreconditionError(f"{path} asks for an input of {math.prod(shape):,} values; give a smaller --input-shape")
    noise = np.random.default_rng(0).standard_normal((dims[0] if dims and dims[0] else 1, *shape))
    return noise.astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
