"""How an exported model scales with threads, measured on the machine at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from lilliput.core.errors import PreconditionError
from lilliput.deploy.onnx import read
from lilliput.deploy.runtime import Array, cannot_run, noise, open_session, session_options
from lilliput.graph import latency
from lilliput.graph.latency import Timing


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """One number of threads: seconds of one batch, samples a second, and how often as fast as the fewest threads.

    `efficiency = speedup * fewest / threads`; all but `threads` and `throughput` carry their 95% interval.
    """

    threads: int
    latency: Timing
    throughput: float
    speedup: Timing
    efficiency: Timing

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return asdict(self)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_counts(available: int) -> tuple[int, ...]:
    """1, 2, 4 and so on up to the number of cores, which is the last.

    >>> thread_counts(1), thread_counts(2), thread_counts(6)
    ((1,), (1, 2), (1, 2, 4, 6))
    """
    powers = [2**k for k in range(available.bit_length()) if 2**k <= available]
    return tuple(dict.fromkeys([*powers, available]))


def scaling(path: str | PathLike[str], threads: Sequence[int] | None = None, *, rounds: int = 30,
            input_shape: tuple[int, ...] | None = None) -> tuple[Scaling, ...]:
    """Time a file in ONNX Runtime with each number of threads, in turns, on one sample of noise.

    By default 1, 2, 4 and so on up to the cores that this process may use. Threads stop spinning when a run ends, so that
    those of one session do not slow the next. Raises `PreconditionError` for counts below one or given twice; otherwise
    as `fusions`.
    """
    counts = tuple(threads) if threads is not None else thread_counts(cores())
    if not counts or min(counts) < 1 or len(set(counts)) < len(counts):
        raise PreconditionError(f"scaling needs different numbers of threads, one or more each, not {counts}")
    read(path)
    feeds = noise(path, input_shape)
    compared = latency.compare({str(count): _runner(path, count, feeds) for count in counts}, rounds=rounds)
    fewest = min(counts)
    samples = next((array.shape[0] for array in feeds.values() if array.ndim), 1)
    rows = []
    for count in sorted(counts):
        timing, speedup = compared[str(count)], compared.ratio(str(fewest), str(count))
        rows.append(Scaling(threads=count, latency=timing, throughput=samples / timing.median, speedup=speedup, efficiency=_times(speedup, fewest / count)))
    return tuple(rows)


def _times(timing: Timing, factor: float) -> Timing:
    return Timing(median=timing.median * factor, low=timing.low * factor, high=timing.high * factor, rounds=timing.rounds)


def _runner(path: str | PathLike[str], threads: int, feeds: dict[str, Array]) -> Callable[[], object]:
    options = session_options(threads)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = open_session(str(Path(path)), threads, options)
        session.run(None, feeds)
    except Exception as error:
        raise cannot_run(path, error) from error
    return lambda: session.run(None, feeds)
