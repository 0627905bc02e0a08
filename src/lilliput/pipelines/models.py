"""From what a user calls a model (zoo name, `package.module:factory`, `model.pt2`) to the model itself."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lilliput import zoo
from lilliput.core import CorruptFileError, DataError, PreconditionError, seed_everything
from lilliput.data import Data
from lilliput.pipelines.run import read_network


@dataclass(frozen=True)
class Found:
    """A model, and whether its weights are worth keeping (a zoo model starts from random ones)."""

    model: nn.Module
    trained: bool


def find(reference: str, *, num_classes: int | None = None, input_shape: Sequence[int] = (), weights: str | None = None,
         seed: int = 0, options: Mapping[str, Any] | None = None) -> Found:
    """Build or load the model that `reference` names; random initial weights follow `seed`.

    A factory receives `num_classes`, `in_chans` and `image_size` where it takes them, and `options` (`{"width": 2}`). `weights`
    is a file with a state dict. Raises `UnknownNameError` with the nearest names, `PreconditionError` where no model comes of it.
    """
    seed_everything(seed)
    suffix = Path(reference).suffix
    if suffix == ".onnx":
        raise PreconditionError(f"the weights of {reference} are fixed, so nothing can train it; give the torch model "
                                "(zoo name, package.module:factory or model.pt2). profile and bench do take ONNX")
    if suffix in (".pt", ".pth", ".ckpt", ".safetensors"):
        raise PreconditionError(f"{reference} holds weights without an architecture; name the model "
                                f"and write the file as weights: {reference}")
    if suffix == ".pt2":
        found = Found(_saved(reference), True)
    else:
        found = Found(_resolve(reference, num_classes, input_shape, seed, options), ":" in reference)
    if weights is not None:
        _load_weights_(found.model, weights)
        return Found(found.model, True)
    return found


def for_data(reference: str, data: Data, *, weights: str | None = None, seed: int = 0,
             options: Mapping[str, Any] | None = None) -> Found:
    """`find` with the classes and channels of `data`; raises `DataError` where model and data do not fit together."""
    found = find(reference, num_classes=data.num_classes or None, input_shape=data.input_shape, weights=weights, seed=seed,
                 options=options)
    check_fit(found.model, reference, data)
    return found


def check_fit(model: nn.Module, reference: str, data: Data) -> None:
    """Run two samples through `model`; raises `DataError` where it refuses them or gives the wrong number of classes."""
    training = model.training
    try:
        with torch.no_grad():
            output = model.eval()(data.example(2))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{reference} does not take {data.name}, whose samples are {shape_text(data.input_shape)}: {reason}. "
                        "Use a model for that input, or data that fits the model") from error
    finally:
        model.train(training)
    if data.num_classes and (not isinstance(output, Tensor) or output.shape != (2, data.num_classes)):
        got = shape_text(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise DataError(f"{data.name} has {data.num_classes} classes, so a batch of 2 must give 2 x {data.num_classes}; {reference} "
                        f"gives {got}. Build it with num_classes={data.num_classes}")


def shape_text(shape: Sequence[int]) -> str:
    """`1 x 28 x 28`."""
    return " x ".join(str(n) for n in shape)


def _saved(reference: str) -> nn.Module:
    if not Path(reference).is_file():
        raise PreconditionError(f"there is no file {reference}; lilliput.graph.saving.save(model, path) writes one")
    return read_network(Path(reference))


def _resolve(reference: str, num_classes: int | None, shape: Sequence[int], seed: int, options: Mapping[str, Any] | None) -> nn.Module:
    """Through the zoo; as for a script, the working folder is a place to import from."""
    here = str(Path.cwd())
    size = shape[-1] if len(shape) == 3 and shape[-1] == shape[-2] else None
    sys.path.insert(0, here)
    try:
        return zoo.resolve(reference, num_classes=num_classes, in_chans=shape[0] if shape else None, image_size=size, seed=seed,
                           options=options)
    finally:
        sys.path.remove(here)


def _load_weights_(model: nn.Module, path: str) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise PreconditionError(f"there is no file {path}; weights names a state dict written by torch.save") from None
    except pickle.UnpicklingError as error:
        raise CorruptFileError(f"{path} is no plain state dict and was not loaded, since unpickling it could run code; "
                               "save the weights with torch.save(model.state_dict(), path)") from error
    except Exception as error:
        raise CorruptFileError(f"{path} is damaged: {' '.join(str(error).split())[:200]}; write it again with torch.save") from error
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CorruptFileError(f"{path} does not fit the model: {' '.join(str(error).split())[:400]}") from error
