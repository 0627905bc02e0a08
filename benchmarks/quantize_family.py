"""Every quantization method on one network: ResNet-8 on Fashion-MNIST, one file of results to a row, so that it resumes.

    python -m benchmarks.quantize_family [--table] [CASE ...]

A case is a catalogue id with bits (`quantize.adaround w4a8`) and perhaps a seed and another network (`quantize.lsq w2a2 s1 @resnet20`).
Methods without training see 512 images; those that train start from the float network and take two epochs, unless a method says that it
needs its own. Choices were made on the validation split; accuracy is of the exported file in ONNX Runtime on the test split.
`python -m benchmarks.quantize_family --table` writes `benchmarks/QUANTIZE.md`.
"""

from __future__ import annotations

import inspect
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.family import Family, Rows, by_case, settings
from benchmarks.networks28 import original
from benchmarks.results import environment
from lilliput import data, methods
from lilliput.core import Budget, Step, seed_everything
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.graph import profile
from lilliput.train import SGD, AdamW, Cosine, Fit

# Figures of `benchmarks/README.md`: three seeds each, on the network that they name.
QUOTED = {
    "resnet8": ("quantize.ttq", "quantize.twn", "quantize.xnor_net", "quantize.bnn"),
    "resnet20": ("quantize.lsq w4a4", "quantize.lsq w3a3", "quantize.lsq w2a2", "quantize.minmax w4a8", "quantize.adaround w4a8",
                 "quantize.brecq w4a8"),
    "mobilenet_v2": ("quantize.minmax w4a8", "quantize.adaround w4a8", "quantize.brecq w4a8"),
}
SEEDS = (0, 1, 2)
_BITS = {"post": ((8, 8), (4, 8)), "train": ((4, 4),)}
_MORE = {"quantize.qat": ((2, 2), (3, 3)), "quantize.lsq": ((2, 2), (3, 3)), "quantize.minmax": ((3, 8), (2, 8), (4, 4)),
         "quantize.mse": ((3, 8), (2, 8), (4, 4)), "quantize.adaround": ((3, 8), (2, 8)), "quantize.brecq": ((3, 8), (2, 8)),
         "quantize.gptq": ((3, 8), (2, 8)), "quantize.lq_nets": ((2, 2),)}
# Powers of two have up to six bits; SYQ is for weights of one or two.
_INSTEAD = {"quantize.log_quant": ((4, 8),), "quantize.syq": ((2, 4),)}
# Recipes for other networks: attention and language models have tables of their own.
_ELSEWHERE = frozenset({"quantize.peg", "quantize.llm_int8", "quantize.smoothquant", "quantize.ptq_vit", "quantize.apq_vit", "quantize.ptq4dm",
                        "quantize.alq_amq"})
# Signs, and scales whose gradient is summed over a whole layer, change with Adam's steps.
_ADAM = ("quantize.bnn", "quantize.xnor_net", "quantize.ttq")


def fit_of(id: str, seed: int) -> Fit:
    """Two epochs at a tenth of the usual rate, or with Adam; for TTQ and TWN both were tried on the validation split."""
    if id in _ADAM:
        return Fit(epochs=2, optimizer=AdamW(lr=2e-3, weight_decay=0.0), schedule=Cosine(), seed=seed, channels_last=True)
    return Fit(epochs=2, optimizer=SGD(lr=0.02), schedule=Cosine(warmup=0.05), seed=seed, channels_last=True)


def parameters(id: str) -> frozenset[str]:
    """What the recipe can be told."""
    return frozenset(inspect.signature(methods.build(id)).parameters)


def cases() -> Iterator[str]:
    """Every row that works, at the bits that its kind is compared at."""
    for row in methods.rows():
        if row.family != "quantize" or not row.works or row.id in _ELSEWHERE:
            continue
        known = parameters(row.id)
        bits = _INSTEAD.get(row.id, _BITS["train" if "fit" in known else "post"] + _MORE.get(row.id, ()))
        names = [f"{row.id} w{w}a{a}" for w, a in bits] if {"weights", "activations"} <= known and row.id != "quantize.fixed_point_sr" else [row.id]
        yield from names


def quoted() -> Iterator[str]:
    """The cases that figures are made of."""
    for seed in SEEDS:
        for network, names in QUOTED.items():
            for name in names:
                yield name + (f" s{seed}" if seed else "") + (f" @{network}" if network != "resnet8" else "")


def step_of(case: str) -> tuple[Step, int, str]:
    """The step of a case, its seed, and the network."""
    id, (seed, network, rest) = case.split()[0], settings(case)
    known, options = parameters(id), {}
    for part in rest:
        if part[0] == "w":
            weights, _, activations = part[1:].partition("a")
            options |= {"weights": int(weights), "activations": int(activations)}
    if "budget" in known:
        options["budget"] = Budget(macs=0.5) if "factorize" in methods.get(id).build else Budget(bits=4.0)
    if "fit" in known:
        options["fit"] = fit_of(id, seed)
    build: Callable[..., Step] = methods.build(id)
    return build(**options), seed, network


def measure(case: str) -> dict[str, Any]:
    """Accuracy, size and time of one case."""
    step, seed, name = step_of(case)
    fashion, network = data.load("fashion_mnist"), original(name, seed).eval()
    seed_everything(seed)
    began = time.perf_counter()
    result = step(network, fashion)
    seconds = time.perf_counter() - began
    rows = [row for entry in result.report.entries for row in entry.layers]
    out: dict[str, Any] = {"case": case, "seed": seed, "network": name, "recipe": result.report.entries[-1].recipe, "seconds": seconds,
                           "weight_bits": _average(rows, network), "notes": [n for e in result.report.entries for n in e.notes][:20]}
    with tempfile.TemporaryDirectory() as folder:
        for key, model in (("float", network), ("quantized", result.model.eval())):
            session = Session(export(model, Path(folder) / f"{key}.onnx", fashion.example(8)), threads=1)
            out[key] = {"val": session.evaluate(fashion.val), "test": session.evaluate(fashion.test), "bytes": session.size}
    return out | {"drop": out["float"]["test"] - out["quantized"]["test"], "environment": environment()}


def _average(rows: list[dict[str, Any]], network: Any) -> float | None:
    """Bits of a weight, averaged over the weights of the layers that report them."""
    sizes = {layer.layer: layer.params for layer in profile(network).layers}
    found = [(float(row.get("channel_bits", row["weight_bits"])), row.get("weights", sizes.get(str(row["layer"]), 0)))
             for row in rows if "weight_bits" in row]
    total = sum(size for _, size in found)
    return sum(bits * size for bits, size in found) / total if total else None


def table(results: Rows) -> str:
    """All results as Markdown, best accuracy first within equal bits, other networks last."""
    lines = ["| method | bits per weight | test accuracy | drop | file | seconds |", "|---|---|---|---|---|---|"]
    for case, rows in sorted(by_case(results).items(), key=lambda pair: (*_order(pair[0]), -max(r["quantized"]["test"] for r in pair[1]))):
        accuracy = " / ".join(f"{r['quantized']['test']:.2f}" for r in rows)
        drop = " / ".join(f"{r['drop']:+.2f}" for r in rows)
        bits = "" if rows[0]["weight_bits"] is None else f"{rows[0]['weight_bits']:.2f}"
        lines.append(f"| {case.removeprefix('quantize.')} | {bits} | {accuracy} | {drop} | {rows[0]['quantized']['bytes']} | {rows[0]['seconds']:.0f} |")
    return "\n".join(lines)


def _order(case: str) -> tuple[str, str]:
    """Network, then bits; those without bits in their name last."""
    rest = case.split()[1:]
    return next((part for part in rest if part[0] == "@"), ""), next((part for part in rest if part[0] == "w"), "~")


FAMILY = Family(name="quantize", page="QUANTIZE.md", measure=measure, table=table)


if __name__ == "__main__":
    FAMILY.main(lambda: (*cases(), *quoted()))
