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
    """One row of the table; `cell` reads it from the rows of `benchmarks/results/FILE.json`, or of the folder that holds a file to a row."""

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


def _coded(method: str) -> Callable[[Rows], Cell]:
    """Layer sets of all cases: how many lose less than under a reference, and by how many decibels."""

    def cell(rows: Rows) -> Cell:
        ours = [(case, name) for case, r in rows.items() for name in r["rounding"]["sets"]]

        def gains(reference: str) -> list[float]:
            return [20 * math.log10(rows[case][reference]["sets"][name] / rows[case][method]["sets"][name]) for case, name in ours]

        plain, coded = gains("rounding"), gains("rounding, entropy coded")
        layers, of = (sum(r[method]["below_rounding"][key] for r in rows.values()) for key in ("layers", "of"))
        text = f"below on {sum(g > 0 for g in plain)}/{len(plain)} sets, by {min(plain):.1f} to {max(plain):.1f} dB, and on {layers}/{of} layers"
        theirs = f"entropy-coded rounding at the same bits: below on {sum(g > 0 for g in coded)}/{len(coded)} sets, {min(coded):+.1f} to {max(coded):+.1f} dB"
        return text, theirs, min(plain) > 0 and len(rows) == 12

    return cell


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
        drop, seconds, nncf, theirs = (" / ".join(f"{r[key]:{style}}" if key in r else "its file does not run" for r in found) for key, style in
                                       (("drop", "+.2f"), ("ours_seconds", ".1f"), ("nncf_drop", "+.2f"), ("nncf_seconds", ".1f")))
        text, peer = f"{drop} points lost; {seconds} s", f"nncf: {nncf}; {theirs} s"
        good = all(r["drop"] <= bar and r["drop"] <= r.get("nncf_drop", bar) and r["ours_seconds"] <= r["nncf_seconds"] for r in found)
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


def _seeds(rows: Rows, case: str, network: str) -> list[dict[str, Any]]:
    """The results of a case on a network, by seed."""
    suffix = "" if network == "resnet8" else f" @{network}"
    found = [rows.get(f"{case}{'' if seed == 0 else f' s{seed}'}{suffix}") for seed in (0, 1, 2)]
    if not any(found):
        raise KeyError(f"{case} on {network}")
    return [r for r in found if r]


def _drops(found: list[dict[str, Any]]) -> str:
    return " / ".join(f"{r['drop']:+.2f}" for r in found)


def _mean(found: list[dict[str, Any]]) -> float:
    return sum(r["drop"] for r in found) / len(found)


def _lsq(bits: int, bar: float) -> Callable[[Rows], Cell]:
    def cell(rows: Rows) -> Cell:
        found = _seeds(rows, f"quantize.lsq w{bits}a{bits}", "resnet20")
        return f"{_drops(found)} points lost", "", len(found) == 3 and _mean(found) <= bar

    return cell


def _learned_rounding(network: str) -> Callable[[Rows], Cell]:
    def cell(rows: Rows) -> Cell:
        found = {name: _seeds(rows, f"quantize.{name} w4a8", network) for name in ("adaround", "brecq", "minmax") if _known(rows, name, network)}
        text = "; ".join(f"{'to nearest' if name == 'minmax' else name} {_drops(r)}" for name, r in found.items())
        if not found:
            raise KeyError(network)
        whole = set(found) == {"adaround", "brecq", "minmax"} and all(len(r) == 3 for r in found.values())
        if network == "resnet20":
            return text, "", whole and max(_mean(found["adaround"]), _mean(found["brecq"])) <= 0.6
        best = min(_mean(r) for r in found.values())
        return text, "", whole and (_mean(found["minmax"]) - best >= 3 or _mean(found["minmax"]) < 3)

    return cell


def _known(rows: Rows, name: str, network: str) -> bool:
    suffix = "" if network == "resnet8" else f" @{network}"
    return any(f"quantize.{name} w4a8{seed}{suffix}" in rows for seed in ("", " s1", " s2"))


def _order(rows: Rows) -> Cell:
    found = {name: _seeds(rows, f"quantize.{name}", "resnet8") for name in ("ttq", "twn", "xnor_net", "bnn") if f"quantize.{name}" in rows}
    text = "; ".join(f"{name} {_drops(r)}" for name, r in found.items())
    means = [_mean(r) for r in found.values()]
    return text, "", len(found) == 4 and all(len(r) == 3 for r in found.values()) and means[0] <= means[1] < means[2] < means[3]


def _one_shot(rows: Rows) -> Cell:
    """Test perplexity with half of the weights gone."""
    texts, good = [], True
    for pattern in ("50%", "2:4"):
        magnitude, wanda, sparsegpt = (rows[f"{method} {pattern}"]["test"] for method in ("magnitude", "wanda", "sparsegpt"))
        texts.append(f"{pattern}: SparseGPT {sparsegpt:.3f}, Wanda {wanda:.3f}, magnitude {magnitude:.3f}")
        good &= sparsegpt <= wanda < magnitude
    return "; ".join(texts) + f"; dense {rows['dense']['test']:.3f}", "", good


def _blocks(rows: Rows) -> Cell:
    """Time against dense products, medians over rounds."""
    taken = {case: {peer: values[0] for peer, values in r["ours takes"].items()} for case, r in rows.items()}
    text = "; ".join(f"{case}: {of['torch_fp32']:.2f}x, {of['ort_fp32']:.2f}x" for case, of in taken.items())
    return f"{text} of torch's and ONNX Runtime's fp32", "", max(taken["32x32, 75"].values()) < 1


def _mixed(rows: Rows) -> Cell:
    """Points of test accuracy above uniform widths, trained or not as the method is; predictions ranked against what is true."""
    trained = ("uniform_trained", "fracbits", "dq", "dnas_bits", "dmbq", "alq_bits")
    found: dict[str, list[float]] = {}
    ranks: dict[str, list[float]] = {}
    for r in rows.values():
        if "rank" in r:
            ranks.setdefault(r["sensitivity"], []).append(r["rank"])
        elif not r["method"].startswith("uniform"):
            base = rows.get(f"{'uniform_trained' if r['method'] in trained else 'uniform'}:{r['seed']}")
            if base is not None and r["bits"] <= 4.0 + 1e-9:
                found.setdefault(r["method"], []).append(r["accuracy"] - base["accuracy"])
    text = "; ".join(f"{name} {' / '.join(f'{gain:+.2f}' for gain in gains)}" for name, gains in found.items())
    spearman = ", ".join(f"{name} {min(values):.2f} to {max(values):.2f}" for name, values in ranks.items())
    good = len(found) == 15 and all(len(gains) == 3 and sum(gains) >= 0 for gains in found.values()) and len(ranks) == 6
    return f"{text}; rank correlation: {spearman or 'not measured'}", "", good


def _litert(rows: Rows) -> Cell:
    largest = {name: max(r[k]["each_largest"] for k in ("builtin", "reference", "micro")) for name, r in rows.items()}
    text = "; ".join(f"{name} {step} step, accuracy {r['accuracy_onnx']:.2f} -> {r['accuracy_litert']:.2f}" for (name, step), r in
                     zip(largest.items(), rows.values(), strict=True))
    return text, "", max(largest.values()) <= 1


def _tflm(rows: Rows) -> Cell:
    text = "; ".join(f"{name} {r['micro']['equal']}/{r['inputs']}" for name, r in rows.items())
    other = "; ".join(f"{r['reference']['equal']}, {r['builtin']['equal']}, {r['delegate']['equal']}" for r in rows.values())
    plain = ", ".join(str(r["reference"].get("equal_once", "?")) for r in rows.values())
    return text, f"LiteRT's reference, built-in and XNNPACK kernels: {other}; its reference where linear layers round once, as it does: {plain}", len(rows) == 3 and all(r["micro"]["equal"] == r["inputs"] for r in rows.values())


def _beside(rows: Rows) -> Cell:
    sides = [[f"{c['ram']:,} / {c['code'] + c['constants']:,} bytes, {c['instructions'] / 1e6:.1f} M" for c in r["beside"]] for r in rows.values()]
    less = all(a[key] <= b[key] for r in rows.values() for a, b in [r["beside"]] for key in ("ram", "instructions"))
    return "; ".join(ours for ours, _ in sides), "TensorFlow Lite Micro " + "; ".join(theirs for _, theirs in sides), less and len(sides) == 3


def _exact(rows: Rows) -> Cell:
    differ, operators = sum(r["differ"] for r in rows.values()), sum(r["operators"] for r in rows.values())
    return f"{differ} of {sum(r['codes'] for r in rows.values()):,} codes in {operators:,} runs", "", differ == 0 and len(rows) == 7


_BOARDS = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "riscv32")
_TINY = ("image classification", "keyword spotting", "anomaly detection", "visual wake words")


def _networks_exact(rows: Rows) -> Cell:
    wrong = {case: sum(rows[case][board]["wrong"] for board in _BOARDS) for case in _TINY}
    return "; ".join(f"{case} {count}" for case, count in wrong.items()), "", not any(wrong.values())


def _instructions(board: str, limits: tuple[float, float, float]) -> Callable[[Rows], Cell]:
    """Against what CMSIS-NN takes, in millions."""

    def cell(rows: Rows) -> Cell:
        layers = [rows[board][name] for name in ("3 x 3", "depthwise", "1 x 1")]
        text = " / ".join(f"{layer['instructions'] / 1e6:.2f}" for layer in layers)
        return f"{text} M", "", all(x["instructions"] <= 1e6 * limit and x["wrong"] == 0 for x, limit in zip(layers, limits, strict=True))

    return cell


def _arena(kind: str, limits: tuple[int, ...]) -> Callable[[Rows], Cell]:
    def cell(rows: Rows) -> Cell:
        sizes = [rows[case][kind] for case in _TINY]
        theirs = "TensorFlow Lite Micro 55,984 / 24,272 / 3,984" if kind == "plain" else ""
        return " / ".join(f"{size:,}" for size in sizes) + " bytes", theirs, all(a <= b for a, b in zip(sizes, limits, strict=True))

    return cell


def _patched(rows: Rows) -> Cell:
    r = rows["patches"]
    cells = []
    good = True
    for name in ("plain", "overlap"):
        split = r[f"{name}_patches"]
        ratio, more = r[name] / split["arena"], split["macs"] / r["macs"] - 1
        good &= ratio >= 4 and more <= 0.25 and split["faults"] == 0
        cells.append(f"{'without' if name == 'plain' else 'with'} overlap {r[name]:,} -> {split['arena']:,} bytes ({ratio:.2f}x), {100 * more:+.1f}% MACs")
    moved = rows.get("patches, redistributed")
    if moved:
        more = " and ".join(f"{100 * (moved[f'{name}_patches']['macs'] / moved['macs'] - 1):+.1f}%" for name in ("plain", "overlap"))
        cells.append(f"with the receptive field redistributed {more}")
    return "; ".join(cells), "", good


def _flash(rows: Rows) -> Cell:
    r = rows["keyword spotting"]
    beyond = r["code"] + r["constants"] - r["weights"]
    return f"{beyond:,} bytes, {r['code']:,} of them code", "", beyond <= 12 * 1024


def _few_bits(rows: Rows) -> Cell:
    r = rows["few bits"]
    plain, packed, coded = (r[name] for name in ("plain", "packed", "coded"))
    slower = [other["instructions"] / plain["instructions"] for other in (packed, coded)]
    text = (f"{packed['weights'] / plain['weights']:.3f}x and {coded['weights'] / plain['weights']:.3f}x of the bytes; "
            f"{slower[0]:.3f}x and {slower[1]:.3f}x of the instructions")
    good = packed["weights"] <= 0.52 * plain["weights"] and coded["weights"] < packed["weights"] and max(slower) <= 1.35
    return text, "", good and not any(x["wrong"] for x in r.values())


def _sub_byte(rows: Rows) -> Cell:
    whole, packed = (rows["few bits, activations too"][name] for name in ("bytes", "sub_byte"))
    ratio, slower = packed["arena"] / whole["arena"], packed["instructions"] / whole["instructions"]
    text = f"{whole['arena']:,} -> {packed['arena']:,} bytes ({ratio:.3f}x), {packed['packed']} values packed; {slower:.3f}x of the instructions"
    return text, "", ratio <= 0.6 and slower <= 1.35 and not (whole["wrong"] or packed["wrong"])


def _generated(rows: Rows) -> Cell:
    seconds = [rows[case]["generate_seconds"] for case in _TINY]
    return " / ".join(f"{s:.1f}" for s in seconds) + " s, compiling for the size of the code included", "", max(seconds) < 3


# Where the module has another name than its results.
_COMMANDS = {"quantize": "quantize_family"}

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
           bar="below rounding on every layer set", file="transforms", cell=_coded("transform_quantization")),
    Figure(name="codebooks at the same bits: error of responses", bar="below rounding on every layer set", file="transforms", cell=_coded("codebooks")),
    Figure(name="language model, weights of 4 bits: test perplexity of GPTQ", bar="below rounding to nearest", file="language", cell=_gptq(4)),
    Figure(name="the same, 3 bits", bar="below rounding to nearest", file="language", cell=_gptq(3)),
    Figure(name="the same with planted outlier channels: test perplexity of LLM.int8", bar="within 0.5% of float", file="language",
           cell=_outliers),
    Figure(name="weights of 4 bits, activations of 8, learned rounding, ResNet-20 on Fashion-MNIST, by seed: points lost", bar="<= 0.6",
           file="quantize", cell=_learned_rounding("resnet20")),
    Figure(name="the same, MobileNetV2", bar="3 points better than rounding to nearest, or nearest was good", file="quantize",
           cell=_learned_rounding("mobilenet_v2")),
    Figure(name="LSQ 4/4, ResNet-20 on Fashion-MNIST, by seed", bar="<= 0.3 points", file="quantize", cell=_lsq(4, 0.3)),
    Figure(name="LSQ 3/3", bar="<= 0.6 points", file="quantize", cell=_lsq(3, 0.6)),
    Figure(name="LSQ 2/2", bar="<= 1.8 points", file="quantize", cell=_lsq(2, 1.8)),
    Figure(name="ternary and binary weights, ResNet-8 on Fashion-MNIST, by seed: points lost", bar="TTQ <= TWN < XNOR-Net < BNN", file="quantize",
           cell=_order),
    Figure(name="mixed precision at 4.0 bits on average, ResNet-8: points above uniform 4 bits, by seed", bar="none below", file="mixed", cell=_mixed),
    Figure(name="language model with half of the weights gone in one shot: test perplexity", bar="SparseGPT <= Wanda < magnitude",
           file="prune_language", cell=_one_shot),
    Figure(name="block-sparse product, 128 x 1,024 by 1,024 x 1,024, one thread: time by block and percentage of zeros",
           bar="below dense at 75% zero", file="block_sparse", cell=_blocks),
    Figure(name="LiteRT, full integer: largest difference of one operator given the same inputs", bar="1 step", file="litert", cell=_litert),
    Figure(name="MLPerf Tiny's int8 models, lowered: outputs equal to TensorFlow Lite Micro's", bar="all", file="tflm", cell=_tflm),
    Figure(name="the same on x86-64, plain kernels: arena / flash, instructions of one run", bar="less memory, fewer instructions", file="tflm",
           cell=_beside),
    Figure(name="random operators on seven processors: codes that differ from the integer reference", bar="0", file="mcu_exact", cell=_exact),
    Figure(name="the MLPerf Tiny networks on seven processors: codes that differ", bar="0", file="mcu", cell=_networks_exact),
    Figure(name="3 x 3 / depthwise / 1 x 1 layer on Cortex-M4: instructions", bar="<= 5.49 / 0.95 / 3.18 M (CMSIS-NN)", file="mcu_kernels",
           cell=_instructions("cortex-m4", (5.49, 0.95, 3.18))),
    Figure(name="the same on Cortex-M55", bar="<= 0.94 / 0.46 / 0.73 M (CMSIS-NN)", file="mcu_kernels", cell=_instructions("cortex-m55", (0.94, 0.46, 0.73))),
    Figure(name="arena of image classification / keyword spotting / anomaly detection / visual wake words, without overlap",
           bar="<= 49,152 / 16,000 / 768 / 55,296", file="mcu", cell=_arena("plain", (49152, 16000, 768, 55296))),
    Figure(name="the same, with overlap", bar="<= 49,152 / 8,200 / 768 / 38,000", file="mcu", cell=_arena("overlap", (49152, 8200, 768, 38000))),
    Figure(name="MobileNetV2 at 224² in patches: arena and multiplications", bar=">= 4x less, <= 25% more", file="mcu", cell=_patched),
    Figure(name="keyword spotting on Cortex-M4 at -Os: flash beyond weights", bar="<= 12 KB", file="mcu", cell=_flash),
    Figure(name="ResNet-8 with weights of 4 bits, packed and coded, against int8 on Cortex-M4",
           bar="<= 0.52x, smaller still; <= 1.35x instructions", file="mcu", cell=_few_bits),
    Figure(name="the same with activations of 4 bits too: arena on Cortex-M4, activations packed against bytes",
           bar="<= 0.6x; <= 1.35x instructions", file="mcu", cell=_sub_byte),
    Figure(name="time to generate the four networks", bar="< 3 s", file="mcu", cell=_generated),
    Figure(name="`import lilliput`", bar="< 0.3 s", file="import_time", cell=_import),
)


def table(results: Path) -> str:
    """The table in Markdown; a figure without its result file is marked as not measured."""
    lines = ["| figure | bar | measured | peer | met | command |", "|---|---|---|---|---|---|"]
    machines = set()
    for figure in FIGURES:
        found = _results(results / figure.file)
        measured, peer, met = "not measured", "", "no"
        if found:
            machines.add(", ".join(f"{key} {value}" for key, value in found["environment"].items() if key != "threads"))
            try:
                measured, peer, good = figure.cell(found["rows"])
                met = "yes" if good else "no"
            except KeyError as missing:
                measured = f"not measured ({missing.args[0]})"
        lines.append(f"| {figure.name} | {figure.bar} | {measured} | {peer} | {met} | `benchmarks.{_COMMANDS.get(figure.file, figure.file)}` |")
    return "\n".join([*lines, "", *(f"Measured with: {machine}." for machine in sorted(machines))])


def _results(path: Path) -> dict[str, Any]:
    """Rows and environment of a result file, or of a folder of them; nothing where there is neither."""
    if path.is_dir():
        files = [json.loads(file.read_text()) for file in sorted(path.glob("*.json"))]
        return {"rows": {found["case"]: found for found in files}, "environment": files[0]["environment"]} if files else {}
    file = path.with_suffix(".json")
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


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
