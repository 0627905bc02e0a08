"""The trained original: what the steps start from, trained once per recipe and kept beside the runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from lilliput.core import CorruptFileError, seed_everything
from lilliput.data import Data
from lilliput.graph import saving, trace
from lilliput.pipelines import models
from lilliput.pipelines.options import Builder
from lilliput.pipelines.recipe import Recipe
from lilliput.train import Fit, fit


def training(recipe: Recipe) -> Fit:
    """The `train:` of a recipe, or its default, with the recipe's seed."""
    builder = Builder(source=recipe.source, seed=recipe.seed)
    fit_config = builder.dataclass(Fit, recipe.train or {}, ("train",))
    assert isinstance(fit_config, Fit)
    return fit_config


def original(recipe: Recipe, found: models.Found, data: Data, cache: Path, say: Callable[[str], None]) -> nn.Module:
    """The traced original with its weights; trains it where it comes without, or where the recipe says `train:`.

    Training goes on from its last checkpoint after a kill, and is skipped when an identical one (initial weights,
    data, configuration, torch) lies in `cache`.
    """
    traced = trace(found.model, data.example())
    if found.trained and recipe.train is None:
        return traced.eval()
    config = training(recipe)
    key = _key(traced, config, data)
    file, checkpoint = cache / f"{key}.pt2", cache / f"{key}.ckpt"
    if file.exists():
        try:
            stored = saving.load(file)
            say(f"original: trained before, from {file}")
            return stored.eval()
        except CorruptFileError:
            file.unlink()
    say(f"original: training {recipe.model} on {data.name}")
    cache.mkdir(parents=True, exist_ok=True)
    seed_everything(recipe.seed)
    trained = trace(_fit(traced, data, config, checkpoint), data.example())
    saving.save(trained, file)
    checkpoint.unlink(missing_ok=True)
    return trained.eval()


def _fit(model: nn.Module, data: Data, config: Fit, checkpoint: Path) -> nn.Module:
    try:
        return fit(model, data, config, checkpoint=checkpoint).model
    except CorruptFileError:
        checkpoint.unlink(missing_ok=True)
        return fit(model, data, config, checkpoint=checkpoint).model


def _key(traced: nn.Module, config: Fit, data: Data) -> str:
    """Everything that decides what training gives."""
    digest = hashlib.sha256(f"{config!r}|{data.digest}|{torch.__version__}|{getattr(traced, 'code', '')}".encode())
    for name, tensor in traced.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else repr(tensor.item()).encode())
    return digest.hexdigest()[:32]
