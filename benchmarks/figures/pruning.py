"""Figures of pruning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.figures.base import Cell, Figure, Rows


def _prune_time(model: str) -> Callable[[Rows], Cell]:
    def cell(rows: Rows) -> Cell:
        r = rows[model]
        return (f"{r['warm']:.2f} s warm, {r['cold']:.2f} s the first time in a process",
                f"{r['peer']}: {r['peer_warm']:.2f} s, {r['peer_cold']:.2f} s", r["warm"] <= 1.5)

    return cell


def _beside(model: str) -> Callable[[Rows], Cell]:
    """Warm and cold, against torch-pruning's."""

    def cell(rows: Rows) -> Cell:
        r = rows[model]
        text, theirs, _ = _prune_time(model)(rows)
        return text, theirs, r["warm"] <= r["peer_warm"] and r["cold"] <= r["peer_cold"]

    return cell


def _everything(rows: Rows) -> Cell:
    good = [r for r in rows.values() if "error" not in r and r["gradients"] and r["difference"] <= 1e-4]
    whole = [name for name, r in rows.items() if r.get("excluded")]
    worst = max(r.get("difference", float("inf")) for r in rows.values())
    text = f"{len(good)}/{len(rows)}, largest difference {worst:.1e}" + (f"; in part kept whole: {', '.join(whole)}" if whole else "")
    return text, "", len(good) == len(rows) >= 32


def _published(rows: Rows) -> Cell:
    """FLOPs removed by the paper's rule, with whole filters, and as a smaller network has it."""
    text = "; ".join(f"{100 * r['filters']:.0f}%: {r['published_rule']:.1f}% ({r['whole_filters']:.1f}% with whole filters; {r['inner']:.1f}% where nothing "
                     f"is added, {r['coupled']:.1f}% with the channels that are)" for r in rows.values())
    return text, "published " + ", ".join(f"{r['published']}%" for r in rows.values()), all(
        abs(r["published_rule"] - r["published"]) <= 0.05 for r in rows.values())


def _latency_budget(rows: Rows) -> Cell:
    """Measured latency over the original's, and points lost."""
    found: dict[str, list[dict[str, Any]]] = {}
    for r in rows.values():
        found.setdefault(r["method"], []).append(r)
    texts = []
    for method, own in found.items():
        lost = [r["original"]["test"] - r["small"]["test"] for r in own]
        times = [r["measured"] for r in own]
        texts.append(f"{method} {' / '.join(f'{t:.3f}x' for t in times)}, points lost {' / '.join(f'{drop:+.2f}' for drop in lost)}")
    text = "; ".join(texts)
    good = len(found) == 2 and all(len(own) == 3 for own in found.values())
    return text, "", good and all(abs(r["measured"] / r["asked"] - 1) <= 0.05 for r in rows.values())


def _unstructured(rows: Rows) -> Cell:
    """One-shot global magnitude on ResNet-20 by share left and seed, the others beside it."""
    bars = {20: 0.2, 10: 0.5, 5: 1.2}
    drops = {share: [r["drop"] for case, r in rows.items() if case.startswith(f"prune.magnitude_global p{share} ") and "@resnet20" in case] for share in bars}
    if not any(drops.values()):
        raise KeyError("prune.magnitude_global p20 @resnet20")
    text = "; ".join(f"{100 - share}%: {' / '.join(f'{d:+.2f}' for d in found) or 'not measured'}" for share, found in drops.items())
    return text, "", all(len(drops[share]) == 3 and sum(drops[share]) / 3 <= bar for share, bar in bars.items())


def _one_shot(rows: Rows) -> Cell:
    """Test perplexity with half of the weights gone."""
    texts, good = [], True
    for pattern in ("50%", "2:4"):
        magnitude, wanda, sparsegpt = (rows[f"{method} {pattern}"]["test"] for method in ("magnitude", "wanda", "sparsegpt"))
        texts.append(f"{pattern}: SparseGPT {sparsegpt:.3f}, Wanda {wanda:.3f}, magnitude {magnitude:.3f}")
        good &= sparsegpt <= wanda < magnitude
    return "; ".join(texts) + f"; dense {rows['dense']['test']:.3f}", "", good


def _halved(network: str, bar: float) -> Callable[[Rows], Cell]:
    """Points lost by seed; met where the mean of one method is within the bar, and neither l1 nor FPGM is below torch-pruning's group norm."""

    def cell(rows: Rows) -> Cell:
        lost: dict[str, list[float]] = {}
        for r in rows.values():
            if r["network"] == network:
                lost.setdefault(r["method"], []).append(r["float"] - r["test"])
        if not lost:
            raise KeyError(network)
        told = {method: f"{method} {' / '.join(f'{drop:+.2f}' for drop in drops)}" for method, drops in lost.items()}
        theirs = told.pop("torch_pruning", "torch_pruning not measured")
        mean = {method: sum(drops) / 3 for method, drops in lost.items() if len(drops) == 3}
        whole = {"l1_norm", "fpgm", "torch_pruning"} <= set(mean)
        good = whole and min(mean[m] for m in mean if m != "torch_pruning") <= bar
        return "; ".join(told.values()), theirs, good and max(mean["l1_norm"], mean["fpgm"]) <= mean["torch_pruning"]

    return cell


def _slim(rows: Rows) -> Cell:
    """Latency and points lost of each seed."""
    times, lost = [r["ratio"] for r in rows.values()], [r["drop"] for r in rows.values()]
    text = f"{' / '.join(f'{t:.2f}x' for t in times)}, {' / '.join(f'{drop:+.2f}' for drop in lost)} points lost"
    return text, "", len(rows) == 3 and max(times) <= 0.8 and max(lost) < 1


def _post_training(rows: Rows) -> Cell:
    """Points lost by each seed, at the multiplications that are left."""
    lost = [row["drop"] for row in rows.values()]
    worst = max(row["macs"] for row in rows.values())
    return f"{' / '.join(f'{drop:.2f}' for drop in lost)} points lost at {worst:.4f}x", "", len(lost) == 3 and max(lost) < 1 and worst <= 0.6


def _blocks(rows: Rows) -> Cell:
    """Time against dense products, medians over rounds."""
    taken = {case: {peer: values[0] for peer, values in r["ours takes"].items()} for case, r in rows.items()}
    text = "; ".join(f"{case}: {of['torch_fp32']:.2f}x, {of['ort_fp32']:.2f}x" for case, of in taken.items())
    return f"{text} of torch's and ONNX Runtime's fp32", "", max(taken["32x32, 75"].values()) < 1


FIGURES = (
    Figure(name="torchvision's models for segmentation and video and the whole zoo, pruned to half the channels and heads: equal to the masked "
           "network, and train", bar="all", file="prune_models", cell=_everything),
    Figure(name="ViT-L/16 pruned to half the channels, tracing included", bar="<= torch-pruning's", file="prune_time", cell=_beside("vit_l_16")),
    Figure(name="decoder of 24 layers pruned to half the channels, tracing included", bar="<= torch-pruning's", file="prune_time",
           cell=_beside("decoder_24")),
    *(Figure(name=f"{name} on Fashion-MNIST at {times}x fewer MACs, by seed: points lost", bar=f"<= {bar}; l1 and FPGM not below torch-pruning's group norm",
             file="halved", cell=_halved(network, bar))
      for network, name, times, bar in (("resnet20", "ResNet-20", 2.1, 0.15), ("resnet56", "ResNet-56", 2.1, 0.15), ("vgg16", "VGG-16", 8, 1.0))),
    Figure(name="small ViT on Fashion-MNIST without some heads and layers, three seeds: latency, test accuracy", bar="<= 0.8x at < 1 point",
           file="slim_vit", cell=_slim),
    Figure(name="ResNet-50's FLOPs removed by FPGM, by share of the filters", bar="42.2% for 30%", file="fpgm_resnet50", cell=_published),
    Figure(name="0.6 of ResNet-8's latency, measured in ONNX Runtime, by seed", bar="within 5%", file="latency_budget", cell=_latency_budget),
    Figure(name="zeros in ResNet-20 on Fashion-MNIST, one-shot global magnitude and fine-tuning, by seed: points lost",
           bar="<= 0.2 / 0.5 / 1.2 at 80 / 90 / 95%", file="prune", cell=_unstructured),
    Figure(name="ResNet-50 pruned to half the channels, tracing included", bar="<= 1.5 s", file="prune_time", cell=_prune_time("resnet50")),
    Figure(name="ViT-B/16 pruned to half the channels, tracing included", bar="<= 1.5 s", file="prune_time", cell=_prune_time("vit_b_16")),
    Figure(name="language model with half of the weights gone in one shot: test perplexity", bar="SparseGPT <= Wanda < magnitude",
           file="prune_language", cell=_one_shot),
    Figure(name="small ViT on Fashion-MNIST, 40% fewer MACs without training, three seeds: test accuracy", bar="< 1 point lost",
           file="post_training_vit", cell=_post_training),
    Figure(name="block-sparse product, 128 x 1,024 by 1,024 x 1,024, one thread: time by block and percentage of zeros",
           bar="below dense at 75% zero", file="block_sparse", cell=_blocks),
)
