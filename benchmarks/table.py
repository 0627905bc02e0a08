"""The table of figures in `benchmarks/README.md`, written from the result files.

    python -m benchmarks.table [--check]
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent
_BEGIN, _END = "<!-- table -->", "<!-- end of table -->"
Rows = dict[str, dict[str, Any]]
Cell = tuple[str, str, bool]
"""What was measured, what the peer reached, whether the bar is met."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table; `cell` reads it from the rows of `benchmarks/results/FILE.json`."""

    name: str
    bar: str
    file: str
    cell: Callable[[Rows], Cell]


# What a trace leaves out because evaluation does not use it, and torchvision counts.
_AUXILIARY = {"inception_v3": 3_326_696}


def _traced(rows: Rows) -> Cell:
    exact = [n for n, r in rows.items() if "error" not in r and r["params"] + _AUXILIARY.get(n, 0) == r["params_published"]]
    # Published to three decimals, so half of the last one is rounding.
    near = [n for n in exact if abs(rows[n]["gmacs"] - rows[n]["gmacs_published"]) <= max(0.01 * rows[n]["gmacs_published"], 0.0005)]
    text = (f"{len(exact)}/{len(rows)} trace with exact parameters (Inception's less its auxiliary head), "
            f"{len(near)}/{len(rows)} with MACs within 1% of the published ones")
    return text, "", len(near) == len(rows) == 80


def _pruned(rows: Rows) -> Cell:
    good = [r for r in rows.values() if "error" not in r and r["gradients"] and r["difference"] <= 1e-4]
    worst = max(r.get("difference", float("inf")) for r in rows.values())
    return f"{len(good)}/{len(rows)}, largest difference {worst:.1e}", "", len(good) == len(rows) == 80


def _prune_time(model: str) -> Callable[[Rows], Cell]:
    def cell(rows: Rows) -> Cell:
        r = rows[model]
        return (f"{r['warm']:.2f} s warm, {r['cold']:.2f} s the first time in a process",
                f"{r['peer']}: {r['peer_warm']:.2f} s, {r['peer_cold']:.2f} s", r["warm"] <= 1.5)

    return cell


def _halved(rows: Rows) -> Cell:
    found = {name: r for name, r in rows["l1_norm"].items() if name.startswith("round_to_")}
    text = ", ".join(f"{r['ratio']:.2f}x ({name.rpartition('_')[2]})" for name, r in found.items())
    return f"{text}; in brackets the multiple that channels are rounded to", "", min(r["high"] for r in found.values()) <= 0.62


def _int8(model: str) -> Callable[[Rows], Cell]:
    def cell(rows: Rows) -> Cell:
        r = rows[model]
        others = {tool: r[tool] for tool in ("ort_s8", "ort_u8", "nncf") if tool in r}
        ort = [other for tool, other in others.items() if tool.startswith("ort")]
        worst = max(other["ours_takes"][0] for other in ort)
        agreement = max(other["agreement"] for other in ort)
        theirs = "; ".join(f"{tool}: ours takes {o['ours_takes'][0]:.3f}x of it, agreement {o['agreement']:.2f}%" for tool, o in others.items())
        text = (f"{worst:.3f}x of the faster; agreement {r['ours']['agreement']:.2f}%; "
                f"{1 / r['float']['ours_takes'][0]:.2f}x faster than fp32")
        return text, theirs, worst <= 1.02 and r["ours"]["agreement"] >= agreement

    return cell


def _kernels(model: str) -> Callable[[Rows], Cell]:
    def cell(rows: Rows) -> Cell:
        r = rows[model]
        chosen, speedups = r["chosen"], {n: s for n, s in r["scaling"].items() if n != "1"}
        text = (f"{chosen['again'][0]:.3f}x of all integers ({chosen['again'][1]:.3f} to {chosen['again'][2]:.3f}), {chosen['float']} of {chosen['layers']} "
                f"layers in floats; {', '.join(f'{n} threads {s[0]:.2f}x as fast ({s[1]:.2f} to {s[2]:.2f})' for n, s in speedups.items())}")
        return text, f"fp32 {r['all_float'][0]:.2f}x", chosen["again"][1] <= 1

    return cell


def _memory(rows: Rows) -> Cell:
    text = ", ".join(f"{name} {100 * (r['ratio'] - 1):+.1f}%" for name, r in rows.items())
    return text, "", all(r["ratio"] <= 1.05 for r in rows.values())


def _fashion(rows: Rows) -> Cell:
    drop, size, time = ([r[key] for r in rows.values()] for key in ("drop", "size_ratio", "latency_ratio"))
    text = (f"{' / '.join(f'{d:+.2f}' for d in drop)} points lost; file 1/{1 / max(size):.1f}; "
            f"latency {' / '.join(f'{t:.2f}x' for t in time)}")
    return text, "", len(drop) >= 3 and max(drop) <= 0.5 and max(size) <= 1 / 7 and max(time) <= 0.5


def _binary(rows: Rows) -> Cell:
    r = rows["1024"]
    times, packing = ({name: 1 / share[0] for name, share in r[f"{ours} takes"].items()} for ours in ("ours", "ours, packing"))
    int8, fp32 = (min(t for name, t in times.items() if name.startswith(who)) for who in ("ort", "torch"))
    packed = min(t for name, t in packing.items() if name.startswith("ort"))
    text = f"{int8:.1f}x int8, {fp32:.1f}x fp32; with packing the activations {packed:.1f}x int8; {r['ms']['ours']:.2f} ms"
    theirs = "; ".join(f"{name} {ms:.2f} ms" for name, ms in r["ms"].items() if not name.startswith("ours"))
    return text, theirs, int8 >= 4 and fp32 >= 10


def _coded(rows: Rows) -> Cell:
    """Layer sets of all cases: how many lose less than under a reference, and by how many decibels."""
    ours = [(case, name) for case, r in rows.items() for name in r["rounding"]["sets"]]

    def gains(reference: str) -> list[float]:
        return [20 * math.log10(rows[case][reference]["sets"][name] / rows[case]["transform_quantization"]["sets"][name]) for case, name in ours]

    plain, coded = gains("rounding"), gains("rounding, entropy coded")
    layers, of = (sum(r["transform_quantization"]["below_rounding"][key] for r in rows.values()) for key in ("layers", "of"))
    text = f"below on {sum(g > 0 for g in plain)}/{len(plain)} sets, by {min(plain):.1f} to {max(plain):.1f} dB, and on {layers}/{of} layers"
    theirs = f"entropy-coded rounding at the same bits: below on {sum(g > 0 for g in coded)}/{len(coded)} sets, {min(coded):+.1f} to {max(coded):+.1f} dB"
    return text, theirs, min(plain) > 0 and len(rows) == 12


def _import(rows: Rows) -> Cell:
    r = rows["import lilliput"]
    return f"{r['median']:.3f} s (median of 10 processes)", "", r["median"] < 0.3 and not r["imports_torch"]


def _agreement(rows: Rows) -> Cell:
    text = "; ".join(f"{name} {r['each_largest']} step in {r['each_share']:.1e} of values, simulation {r['output_reference_exact']:.0f}"
                     for name, r in rows.items())
    return text, "", all(r["each_largest"] <= 1 and r["output_reference_exact"] == 0 for r in rows.values())


def _static8(network: str, bar: float) -> Callable[[Rows], Cell]:
    def cell(rows: Rows) -> Cell:
        found = [r for r in rows.values() if r["network"] == network]
        if not found:
            raise KeyError(network)
        drop, seconds, nncf, theirs = (" / ".join(f"{r[key]:{style}}" for r in found) for key, style in
                                       (("drop", "+.2f"), ("ours_seconds", ".1f"), ("nncf_drop", "+.2f"), ("nncf_seconds", ".1f")))
        text, peer = f"{drop} points lost; {seconds} s", f"nncf: {nncf}; {theirs} s"
        good = all(r["drop"] <= bar and r["drop"] <= r["nncf_drop"] and r["ours_seconds"] <= r["nncf_seconds"] for r in found)
        return text, peer, good and len(found) >= 3

    return cell


def _gptq(bits: int) -> Callable[[Rows], Cell]:
    def cell(rows: Rows) -> Cell:
        exact, ours, nearest = (rows[f"trained: {name}"]["test"] for name in ("float", f"gptq w{bits}", f"rtn w{bits}"))
        return f"{ours:.3f}; rounding to nearest {nearest:.3f}; float {exact:.3f}", "", ours < nearest

    return cell


def _outliers(rows: Rows) -> Cell:
    exact, ours, plain = (rows[f"outliers: {name}"]["test"] for name in ("float", "llm_int8", "rtn 8/8"))
    others = ", ".join(f"{name} {rows[f'outliers: {name}']['test']:.3f}" for name in ("smoothquant 8/8", "peg 8/8") if f"outliers: {name}" in rows)
    return f"{ours:.3f}, {100 * (ours / exact - 1):+.2f}%; plain int8 {plain:.3f}, {others}; float {exact:.3f}", "", ours <= 1.005 * exact


FIGURES = (
    Figure(name="torchvision's 80 classification models: trace and profile", bar="80/80, parameters exact", file="torchvision80", cell=_traced),
    Figure(name="the same, pruned to half the channels: equal to the masked network, and trains", bar="80/80", file="torchvision80",
           cell=_pruned),
    Figure(name="ResNet-50 pruned to half the channels, tracing included", bar="<= 1.5 s", file="prune_time", cell=_prune_time("resnet50")),
    Figure(name="ViT-B/16 pruned to half the channels, tracing included", bar="<= 1.5 s", file="prune_time", cell=_prune_time("vit_b_16")),
    Figure(name="ResNet-18 at 224², MACs halved: latency, one thread", bar="<= 0.62x", file="resnet18_latency", cell=_halved),
    Figure(name="int8 ResNet-18 at 224²: latency and agreement with fp32", bar="<= 1.02x of ONNX Runtime's, agreement >= its", file="int8",
           cell=_int8("resnet18")),
    Figure(name="int8 MobileNetV2 at 224²: latency and agreement with fp32", bar="<= 1.02x of ONNX Runtime's, agreement >= its", file="int8",
           cell=_int8("mobilenet_v2")),
    Figure(name="int8 ResNet-18 at 224², kernels chosen by measurement: latency, one thread; scaling", bar="not slower", file="kernels",
           cell=_kernels("resnet18")),
    Figure(name="the same, MobileNetV2", bar="not slower", file="kernels", cell=_kernels("mobilenet_v2")),
    Figure(name="calibration on 4,096 samples instead of 64: peak memory", bar="within 5%", file="calibration_memory", cell=_memory),
    Figure(name="ResNet-20 on Fashion-MNIST, prune 2x + distil + int8, three seeds: test accuracy, file, latency",
           bar="within 0.5 points, <= 1/7, <= 0.5x", file="fashion", cell=_fashion),
    Figure(name="product of signs, 1024 x 1024 x 1024, one thread: speed against ONNX Runtime's int8 and torch's fp32",
           bar=">= 4x int8, >= 10x fp32", file="binary_gemm", cell=_binary),
    Figure(name="int8 after training, ResNet-20 on Fashion-MNIST, by seed: points lost, and wall time with export",
           bar="<= 0.2, not below NNCF, no slower", file="static8", cell=_static8("resnet20", 0.2)),
    Figure(name="the same, MobileNetV2", bar="<= 0.4, not below NNCF, no slower", file="static8", cell=_static8("mobilenet_v2", 0.4)),
    Figure(name="the same, small ViT", bar="<= 0.4, not below NNCF, no slower", file="static8", cell=_static8("vit", 0.4)),
    Figure(name="int8: largest difference in any tensor, ONNX Runtime against the integer reference; the simulation's output against it",
           bar="1 step; exact", file="agreement", cell=_agreement),
    Figure(name="transform quantization at the bits of 2-, 3- and 4-bit rounding, tables counted: error of responses, four networks",
           bar="below rounding on every layer set", file="transforms", cell=_coded),
    Figure(name="language model, weights of 4 bits: test perplexity of GPTQ", bar="below rounding to nearest", file="language", cell=_gptq(4)),
    Figure(name="the same, 3 bits", bar="below rounding to nearest", file="language", cell=_gptq(3)),
    Figure(name="the same with planted outlier channels: test perplexity of LLM.int8", bar="within 0.5% of float", file="language",
           cell=_outliers),
    Figure(name="`import lilliput`", bar="< 0.3 s", file="import_time", cell=_import),
)


def table(results: Path) -> str:
    """The table in Markdown; a figure without its result file is marked as not measured."""
    lines = ["| figure | bar | measured | peer | met | command |", "|---|---|---|---|---|---|"]
    machines = set()
    for figure in FIGURES:
        path = results / f"{figure.file}.json"
        measured, peer, met = "not measured", "", "no"
        if path.exists():
            found = json.loads(path.read_text())
            machines.add(", ".join(f"{key} {value}" for key, value in found["environment"].items() if key != "threads"))
            try:
                measured, peer, good = figure.cell(found["rows"])
                met = "yes" if good else "no"
            except KeyError as missing:
                measured = f"not measured ({missing.args[0]})"
        lines.append(f"| {figure.name} | {figure.bar} | {measured} | {peer} | {met} | `benchmarks.{figure.file}` |")
    return "\n".join([*lines, "", *(f"Measured with: {machine}." for machine in sorted(machines))])


def main() -> int:
    """Write the table, or with `--check` say whether it is current."""
    readme = HOME / "README.md"
    text = readme.read_text()
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    new = f"{before}{_BEGIN}\n{table(HOME / 'results')}\n{_END}{after}"
    if "--check" in sys.argv[1:]:
        return int(new != text)
    readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
