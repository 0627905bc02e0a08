"""Figures of tracing, profiling, export and the way through."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.figures.base import Cell, Figure, Rows

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


def _import(rows: Rows) -> Cell:
    r = rows["import lilliput"]
    return f"{r['median']:.3f} s (median of 10 processes)", "", r["median"] < 0.3 and not r["imports_torch"]


FIGURES = (
    Figure(name="torchvision's 80 classification models: trace and profile", bar="80/80, parameters exact", file="torchvision80", cell=_traced),
    Figure(name="the same, pruned to half the channels: equal to the masked network, and trains", bar="80/80", file="torchvision80",
           cell=_pruned),
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
    Figure(name="`import lilliput`", bar="< 0.3 s", file="import_time", cell=_import),
)
