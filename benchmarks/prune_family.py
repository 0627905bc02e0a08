"""Every pruning method on one network: ResNet-8 on Fashion-MNIST, one file of results to a row, so that it resumes.

    python -m benchmarks.prune_family [--table] [CASE ...]

A case is a catalogue id with what is left (`prune.fpgm m50` half of the MACs, `prune.lamp p10` a tenth of the weights) and perhaps a seed and
another network (`prune.magnitude_global p20 s1 @resnet20`). Methods that start from a trained network are trained for two epochs after or while they
prune, those that start from random weights for eight, which is what the float network had; methods for attention prune the small ViT.
Choices were made on the validation split; accuracy and latency are of the exported file in ONNX Runtime, accuracy on the test
split, latency as the ratio of interleaved runs of one sample on one thread. Seconds are processor time on one thread.
`python -m benchmarks.prune_family --table` writes `benchmarks/PRUNE.md`.
"""

from __future__ import annotations

import inspect
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.family import Family, Rows, by_case, settings
from benchmarks.networks28 import NETWORKS, created, original
from benchmarks.results import environment
from benchmarks.timing import turns
from lilliput import data, methods, prune
from lilliput.core import Budget, Step, seed_everything
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.graph import profile
from lilliput.pipelines.measure import measures
from lilliput.train import SGD, AdamW, Cosine, Fit

SEEDS = (0, 1, 2)
# Three seeds each, on the network that they name: figures of `benchmarks/README.md`.
QUOTED = tuple(f"prune.magnitude_global p{share} @resnet20" for share in (20, 10, 5))
# Beside them, one seed.
BESIDE = tuple(f"prune.{name} p{share} @resnet20" for name in ("magnitude_gradual", "lamp", "woodfisher", "rigl", "str") for share in (20, 10, 5))
# These begin with a network as it was created: sparse from the start, or pruned before any training.
FROM_START = frozenset(f"prune.{name}" for name in ("snip", "grasp", "force", "rigl", "dsr", "sparse_momentum", "dst", "str", "dnw", "lottery_ticket",
                                                    "continuous_sparsification", "prune_from_scratch"))
_ATTENTION = frozenset({"prune.kwon_post_training", "prune.vit_hessian", "prune.n_m_attention", "prune.block"})
_LEFT = {"m": "macs", "p": "params", "l": "latency"}


def fit_of(id: str, network: str, seed: int) -> Fit:
    """How a method trains on a network; rates were chosen on the validation split."""
    whole = NETWORKS[network].fit
    if id in FROM_START:
        return replace(whole, seed=seed)
    optimizer = AdamW(lr=5e-4) if isinstance(whole.optimizer, AdamW) else SGD(lr=0.02)
    return replace(whole, epochs=2, optimizer=optimizer, schedule=Cosine(warmup=0.05), seed=seed)


def cases() -> Iterator[str]:
    """Every row that works, and random units beside them."""
    for row in methods.rows():
        if row.family != "prune" or not row.works:
            continue
        network = " @vit" if row.id in _ATTENTION else ""
        unit = inspect.signature(methods.build(row.id)).parameters.get("unit")
        if unit is not None and isinstance(unit.default, prune.Patterned):
            yield f"{row.id}{network}"
        elif unit is not None and isinstance(unit.default, prune.Element | prune.Block):
            yield f"{row.id} {'p50' if network else 'p10'}{network}"
        else:
            yield f"{row.id} {'m60' if network else 'm50'}{network}"
    yield from ("prune.random p10", "prune.random m60 @vit", "prune.random p50 @vit")


def quoted() -> Iterator[str]:
    """The cases that figures are made of."""
    for seed in SEEDS:
        yield from (case.replace(" @", f" s{seed} @") if seed else case for case in QUOTED)
    yield from BESIDE


def step_of(case: str) -> tuple[Step, int, str]:
    """The step of a case, its seed, and the network."""
    id, (seed, network, rest) = case.split()[0], settings(case)
    known, options = inspect.signature(methods.build(id)).parameters, dict[str, Any]()
    for part in rest:
        options["budget"] = Budget(**{_LEFT[part[0]]: float(part[1:]) / 100})
        if id == "prune.random" and part[0] == "p":
            options["unit"] = prune.Element()
    fit = fit_of(id, network, seed)
    options |= {"fine_tune": fit} if "fine_tune" in known else {}
    options |= {"measure": measures(data.load("fashion_mnist"))} if "measure" in known else {}
    if "train" in known:
        default = known["train"].default
        options["train"] = fit if isinstance(default, Fit) else replace(default, fit=fit)
    build: Callable[..., Step] = methods.build(id)
    return build(**options), seed, network


def measure(case: str) -> dict[str, Any]:
    """Accuracy, costs, latency and time of one case."""
    step, seed, name = step_of(case)
    fashion, network = data.load("fashion_mnist"), original(name, seed).eval()
    start = created(name, seed) if case.split()[0] in FROM_START else network
    seed_everything(seed)
    began = time.process_time()
    result = step(start, fashion)
    seconds = time.process_time() - began
    small = result.model.eval()
    counts = {key: profile(model) for key, model in (("before", network), ("after", small))}
    out: dict[str, Any] = {"case": case, "seed": seed, "network": name, "recipe": result.report.entries[-1].recipe, "seconds": seconds,
                           "macs": counts["after"].macs / counts["before"].macs,
                           "weights": sum(map(_present, small.parameters())) / sum(map(_present, network.parameters())),
                           "promised": result.report.entries[-1].promised, "measured": result.report.entries[-1].measured,
                           "notes": [n for e in result.report.entries for n in e.notes][:20]}
    with tempfile.TemporaryDirectory() as folder:
        sessions = {key: Session(export(model, Path(folder) / f"{key}.onnx", fashion.example(8)), threads=1)
                    for key, model in (("float", network), ("pruned", small))}
        for key, session in sessions.items():
            out[key] = {"val": session.evaluate(fashion.val), "test": session.evaluate(fashion.test), "bytes": session.size}
        ratio = turns(sessions["pruned"], sessions["float"], fashion, 51).ratio("small", "original")
    out["latency"] = [ratio.median, ratio.low, ratio.high]
    return out | {"drop": out["float"]["test"] - out["pruned"]["test"], "environment": environment()}


def _present(tensor: Tensor) -> int:
    return int((tensor != 0).sum())


def table(results: Rows) -> str:
    """All results as Markdown: network and what is left, best accuracy first."""
    lines = ["| method | MACs | weights | test accuracy | drop | latency | seconds |", "|---|---|---|---|---|---|---|"]
    for case, rows in sorted(by_case(results).items(), key=lambda pair: (*_order(pair[0]), -max(r["pruned"]["test"] for r in pair[1]))):
        accuracy = " / ".join(f"{r['pruned']['test']:.2f}" for r in rows)
        drop = " / ".join(f"{r['drop']:+.2f}" for r in rows)
        first = rows[0]
        lines.append(f"| {case.removeprefix('prune.')} | {100 * first['macs']:.0f}% | {100 * first['weights']:.1f}% | {accuracy} | {drop} | "
                     f"{first['latency'][0]:.2f}x | {first['seconds']:.0f} |")
    return "\n".join(lines)


def _order(case: str) -> tuple[str, str]:
    _, network, rest = settings(case)
    return ("" if network == "resnet8" else network), (rest or [""])[0]


FAMILY = Family(name="prune", page="PRUNE.md", measure=measure, table=table)


if __name__ == "__main__":
    FAMILY.main(lambda: (*cases(), *quoted()))
