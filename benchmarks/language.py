"""A language model of 2.3 million weights on Shakespeare, character by character: perplexity before and after quantization.

    python -m benchmarks.language --json benchmarks/results/language.json ["NETWORK: QUANTIZER[, seed N]" ...]

Two networks: `trained`, and `outliers`, the same function with six feature dimensions, the same ones in every block, whose
activations are 32 times as large. Outliers of this kind come about by themselves in transformers of some billion weights, and are
what LLM.int8 and SmoothQuant are about; a small one has to be given them. `val` is for choosing, `test` for the table.

A first run trains the network, about ten minutes on one core, and keeps it in `.cache`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx

from benchmarks.cache import cached
from benchmarks.results import main
from lilliput import data, quantize, zoo
from lilliput.core import PreconditionError, Step, describe, seed_everything
from lilliput.graph import Traced, trace
from lilliput.train import AdamW, Cosine, Fit, fit, perplexity

aten = torch.ops.aten
TEXT = "tinyshakespeare"
OPTIONS = {"dim": 192, "depth": 5, "heads": 6}
# Single precision: where bfloat16 has no matrix unit of its own, as here, it takes twice as long.
FIT = Fit(epochs=4, batch_size=8, optimizer=AdamW(lr=1.5e-3, betas=(0.9, 0.99), weight_decay=0.1), schedule=Cosine(warmup=0.05))

# A quantizer is a name and what makes its step. Those that change weights alone keep activations at 16 bits.
QUANTIZERS: dict[str, Callable[[], Step]] = {
    "rtn 8/8": lambda: quantize.minmax(),
    "rtn w4": lambda: quantize.minmax(weights=4, activations=16),
    "rtn w3": lambda: quantize.minmax(weights=3, activations=16),
    "gptq w4": lambda: quantize.gptq(weights=4, activations=16),
    "gptq w3": lambda: quantize.gptq(weights=3, activations=16),
    "smoothquant 8/8": lambda: quantize.smoothquant(),
    "llm_int8": lambda: quantize.llm_int8(),
    "peg 8/8": lambda: quantize.peg(),
}


def trained(seed: int = 0) -> Traced:
    """The float network."""
    text, config = data.load(TEXT), replace(FIT, seed=seed)

    def make(checkpoint: Path) -> Traced:
        context = text.input_shape[0]
        created = zoo.create("decoder", num_classes=text.num_classes, in_chans=context, seed=seed, options=OPTIONS)
        out = fit(trace(created, text.example()), text, config, checkpoint=checkpoint).model
        assert isinstance(out, Traced)
        return out

    return cached(f"decoder-shakespeare-{seed}", f"decoder {OPTIONS} {describe(config)}", make)


def with_outliers(model: Traced, *, count: int = 6, factor: float = 32.0, seed: int = 0) -> Traced:
    """The same function with `count` outlier features in the result of every layer norm that only linear layers read.

    Gain and shift of these dimensions are multiplied by `factor`, the columns of the linear layers after it divided by it:
    `W D^-1 (D g x + D b) = W (g x + b)`, exact where `factor` is a power of two and up to rounding elsewhere. The dimensions are
    drawn once, with `seed`, and are the same everywhere, as they are found to be in trained models [dettmers2022int8].

    Raises `PreconditionError` where no layer norm is like that.
    """
    planted = copy.deepcopy(model)
    norms = [n for n in planted.graph.find_nodes(op="call_function", target=aten.layer_norm.default) if _only_linears(n)]
    if not norms:
        raise PreconditionError("the network has no layer norm that only linear layers read: pass a pre-norm transformer")
    width = planted.tensor(str(norms[0].args[2].target)).numel()
    dims = torch.from_numpy(np.random.default_rng(seed).choice(width, count, replace=False))
    for norm in norms:
        for parameter in norm.args[2:4]:
            _scale_(planted, parameter, dims, factor)
        for weight in {reader.args[1] for reader in norm.users}:
            _scale_(planted, weight, dims, 1 / factor)
    return planted


def _only_linears(norm: fx.Node) -> bool:
    return bool(norm.users) and all(reader.target is aten.linear.default and reader.args[0] is norm for reader in norm.users)


def _scale_(model: Traced, node: Any, dims: torch.Tensor, factor: float) -> None:
    """Multiply these entries of the last dimension."""
    value = model.tensor(str(node.target)).detach().clone()
    value[..., dims] *= factor
    model.set_tensor(str(node.target), value)


NETWORKS: dict[str, Callable[[int], Traced]] = {"trained": trained, "outliers": lambda seed: with_outliers(trained(seed))}
# What figures are made of is measured with three seeds, everything else with the first.
QUOTED = ("trained: float", "trained: rtn w4", "trained: rtn w3", "trained: gptq w4", "trained: gptq w3", "outliers: float", "outliers: llm_int8")
CASES = [f"{network}: {quantizer}" for network in NETWORKS for quantizer in ("float", *QUANTIZERS)] + [f"{case}, seed {seed}" for seed in (1, 2) for case in QUOTED]


def row(case: str) -> dict[str, Any]:
    """Perplexity of one network behind one quantizer, on validation and test, and the seconds that quantizing took."""
    name, _, number = case.partition(", seed ")
    network, _, quantizer = name.partition(": ")
    seed = int(number or 0)
    model, text = NETWORKS[network](seed).eval(), data.load(TEXT)
    seed_everything(seed)
    began = time.perf_counter()
    if quantizer != "float":
        model = QUANTIZERS[quantizer]()(model, text).model.eval()
    seconds = time.perf_counter() - began
    return {"network": network, "quantizer": quantizer, "seed": seed, "val": perplexity(model, text.val), "test": perplexity(model, text.test),
            "seconds": round(seconds, 1)}


if __name__ == "__main__":
    main(row, CASES, threads=1)
