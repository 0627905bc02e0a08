"""Figures of quantization."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from benchmarks.figures.base import Cell, Figure, Rows


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
        exact, ours, nearest = (_perplexities(rows, f"trained: {name}") for name in ("float", f"gptq w{bits}", f"rtn w{bits}"))
        text = f"{_three(ours)}; rounding to nearest {_three(nearest)}; float {_three(exact)}"
        return text, "", len(ours) == len(nearest) == 3 and all(map(float.__lt__, ours, nearest))

    return cell


def _perplexities(rows: Rows, case: str) -> list[float]:
    """Test perplexities by seed."""
    return [rows[case]["test"], *(rows[f"{case}, seed {seed}"]["test"] for seed in (1, 2) if f"{case}, seed {seed}" in rows)]


def _three(values: list[float]) -> str:
    return " / ".join(f"{value:.3f}" for value in values)


def _outliers(rows: Rows) -> Cell:
    exact, ours = (_perplexities(rows, f"outliers: {name}") for name in ("float", "llm_int8"))
    plain = rows["outliers: rtn 8/8"]["test"]
    others = ", ".join(f"{name} {rows[f'outliers: {name}']['test']:.3f}" for name in ("smoothquant 8/8", "peg 8/8") if f"outliers: {name}" in rows)
    more = [ours_ / exact_ - 1 for ours_, exact_ in zip(ours, exact, strict=False)]
    text = f"{_three(ours)}, {' / '.join(f'{100 * m:+.2f}%' for m in more)}; float {_three(exact)}; first seed: plain int8 {plain:.3f}, {others}"
    return text, "", len(more) == 3 and max(more) <= 0.005


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


FIGURES = (
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
    Figure(name="language model, weights of 4 bits, by seed: test perplexity of GPTQ", bar="below rounding to nearest", file="language", cell=_gptq(4)),
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
    Figure(name="LiteRT, full integer: largest difference of one operator given the same inputs", bar="1 step", file="litert", cell=_litert),
)
