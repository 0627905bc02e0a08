"""`profile` and `bench`: figures of one model, and paired times of several ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from lilliput.core import PreconditionError
from lilliput.graph.latency import Comparison, compare

if TYPE_CHECKING:
    from lilliput.deploy.kernels import Fusions, Scaling


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Totals of one model for one sample, counts and bytes; `layers` has a row per layer with at least `layer`, `params` and
    `macs`.
    """

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
    from lilliput.deploy.runtime import Session, noise

    if len(set(files)) != len(files):
        raise PreconditionError("the same file is given twice")
    runners: dict[str, Callable[[], object]] = {}
    for path in files:
        _check_exists(path)
        session = Session(path, threads=threads)
        runners[str(path)] = _runner(session, list(noise(path, input_shape).values()))
    return compare(runners, rounds=rounds)


def kernel_rows(found: Fusions) -> list[dict[str, Any]]:
    """The kernels as a table for people, slowest first."""
    return [{"layer": kernel.layer, "kernel": kernel.op, "domain": kernel.domain, "stands for": kernel.sentence, "us": f"{1e6 * kernel.seconds:,.0f}",
             "share": f"{100 * kernel.share:.1f}%"} for kernel in found.slowest()]


def scaling_rows(found: Sequence[Scaling]) -> list[dict[str, Any]]:
    """Times over threads as a table for people."""
    return [{"threads": row.threads, "p50 ms": f"{1e3 * row.latency.median:.3f}",
             "interval ms": f"{1e3 * row.latency.low:.3f} to {1e3 * row.latency.high:.3f}", "per second": f"{row.throughput:,.0f}",
             "speed-up": f"{row.speedup.median:.2f}", "speed-up interval": f"{row.speedup.low:.2f} to {row.speedup.high:.2f}",
             "efficiency": f"{100 * row.efficiency.median:.0f}%"} for row in found]


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise PreconditionError(f"there is no file {path}")


def _runner(session: Callable[..., object], samples: Sequence[NDArray[Any]]) -> Callable[[], object]:
    return lambda: session(*samples)
