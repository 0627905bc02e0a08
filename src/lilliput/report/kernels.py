"""The last network on the machine that made it: what its layers fused to, and its times over threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lilliput.report.format import plain, quantity, share, significant

FIRST = 10


@dataclass(frozen=True, kw_only=True)
class KernelRow:
    """One kernel: the layer, its operator, what it stands for, time and share as text, and the share as a percentage of the largest."""

    layer: str
    kernel: str
    made_of: str
    time: str
    share: str
    percent: float


@dataclass(frozen=True, kw_only=True)
class ThreadRow:
    """One number of threads: latency, samples a second, speed-up and efficiency, each with its interval where it has one."""

    threads: int
    latency: tuple[str, str]
    throughput: str
    speedup: tuple[str, str]
    efficiency: str
    percent: float


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The section: its first sentence, the slowest kernels, the others, and rows over threads."""

    label: str
    summary: str
    slowest: tuple[KernelRow, ...]
    others: tuple[KernelRow, ...]
    threads: tuple[ThreadRow, ...]


def machine(found: Mapping[str, Any]) -> Machine | None:
    """The section for a `kernels.json` that `read.kernels` has vetted; None where it is empty."""
    kernels: Sequence[Mapping[str, Any]] = sorted(found.get("kernels", ()), key=lambda row: -row["seconds"])
    if not kernels:
        return None
    unit = quantity("latency").scale([row["seconds"] for row in kernels if row["seconds"] >= 1e-6])
    most = max(row["share"] for row in kernels)
    rows = tuple(KernelRow(
        layer=plain(row["layer"], 120), kernel=_kernel(row), made_of=plain(row["sentence"], 300),
        time=f"{significant(round(row['seconds'] / unit[0], 6))}{unit[1]}",
        share=share(row["share"]), percent=100 * row["share"] / most if most else 0.0) for row in kernels)
    nodes = sum(len(row["ops"]) for row in kernels)
    added = sum(not row["ops"] and not row["part_of"] for row in kernels)
    gone = f" {found['removed']:,} were computed ahead of time, folded into others' constants, or had no effect." if found["removed"] else ""
    extra = f" {added:,} {'was' if added == 1 else 'were'} added to change layouts." if added else ""
    summary = f"{nodes:,} operators became {len(rows) - added:,} kernels.{extra}{gone}"
    return Machine(label=plain(found["label"], 60), summary=summary, slowest=rows[:FIRST], others=rows[FIRST:], threads=_threads(found["scaling"]))


def _threads(rows: Sequence[Mapping[str, Any]]) -> tuple[ThreadRow, ...]:
    unit = quantity("latency").scale([row["latency"][0] for row in rows])
    return tuple(ThreadRow(
        threads=row["threads"], latency=_interval([quantity("latency").show(value, unit) for value in row["latency"]], unit[1]),
        throughput=significant(row["throughput"]), speedup=_interval([f"{significant(value)}×" for value in row["speedup"]], "×"),
        efficiency=share(row["efficiency"][0]), percent=min(max(100 * row["efficiency"][0], 0.0), 100.0)) for row in rows)


def _interval(shown: Sequence[str], unit: str) -> tuple[str, str]:
    return shown[0], f"{shown[1].removesuffix(unit)} to {shown[2]}"


def _kernel(row: Mapping[str, Any]) -> str:
    domain = plain(row["domain"], 40)
    return plain(row["op"], 60) if domain in ("", "ai.onnx") else f"{plain(row['op'], 60)} ({domain})"
