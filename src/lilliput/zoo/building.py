"""From a name, or the place of a factory, to a model."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lilliput.core.errors import PreconditionError, UnknownNameError
from lilliput.zoo.autoencoder import autoencoder
from lilliput.zoo.decoder import decoder
from lilliput.zoo.ds_cnn import ds_cnn
from lilliput.zoo.lenet import lenet5, lenet_300_100
from lilliput.zoo.mobilenet_v1 import mobilenet_v1
from lilliput.zoo.mobilenet_v2 import mobilenet_v2
from lilliput.zoo.phinet import phinet
from lilliput.zoo.resnet import resnet18, resnet50
from lilliput.zoo.resnet_cifar import resnet8, resnet20, resnet56
from lilliput.zoo.unet import unet
from lilliput.zoo.vgg import vgg11, vgg16
from lilliput.zoo.vit import vit_tiny

SMALL = 64  # pixels up to which a network made for 224 keeps the resolution of its input at first


@dataclass(frozen=True)
class _Family:
    build: Callable[..., nn.Module]
    size: tuple[int, ...]  # of one input, after its channels
    dtype: torch.dtype = torch.float32  # of its values


_ZOO = {family.build.__name__: family for family in (
    _Family(autoencoder, ()),
    _Family(decoder, (), torch.int64),
    _Family(ds_cnn, (49, 10)),
    _Family(lenet5, (28, 28)),
    _Family(lenet_300_100, (28, 28)),
    _Family(mobilenet_v1, (224, 224)),
    _Family(mobilenet_v2, (224, 224)),
    _Family(phinet, (128, 128)),
    _Family(resnet8, (32, 32)),
    _Family(resnet18, (224, 224)),
    _Family(resnet20, (32, 32)),
    _Family(resnet50, (224, 224)),
    _Family(resnet56, (32, 32)),
    _Family(unet, (32, 32)),
    _Family(vgg11, (32, 32)),
    _Family(vgg16, (32, 32)),
    _Family(vit_tiny, (32, 32)),
)}


def names() -> tuple[str, ...]:
    """The models that have a name, sorted."""
    return tuple(sorted(_ZOO))


def options_of(name: str) -> dict[str, Any]:
    """What can be set on a model beside `num_classes` and `in_chans`, with the defaults.

    >>> options_of("mobilenet_v1")
    {'width': 1.0, 'small_input': False}

    Raises `UnknownNameError` for a model that is not here.
    """
    parameters = inspect.signature(_family(name).build).parameters
    return {key: p.default for key, p in parameters.items() if key not in ("num_classes", "in_chans")}


def input_shape(name: str, *, in_chans: int | None = None) -> tuple[int, ...]:
    """Shape of one input as in the model's paper, without the batch.

    >>> input_shape("resnet20"), input_shape("resnet20", in_chans=1)
    ((3, 32, 32), (1, 32, 32))
    """
    family = _family(name)
    default = inspect.signature(family.build).parameters["in_chans"].default
    return (in_chans or default, *family.size)


def input_dtype(name: str) -> torch.dtype:
    """Type of the values of an input: int64 where they are token numbers.

    >>> input_dtype("decoder"), input_dtype("resnet20")
    (torch.int64, torch.float32)
    """
    return _family(name).dtype


def create(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a model by name, with random weights.

    `num_classes` and `in_chans` default to those of the model's paper. `seed` fixes the weights without touching
    torch's global generator. `options` are what the family can set: `options_of(name)` lists them, and the builders
    in `lilliput.zoo` take them as keywords.

    >>> model = create("mobilenet_v2", num_classes=10, in_chans=1, seed=0, options={"width": 0.5, "small_input": True})
    >>> sum(p.numel() for p in model.parameters())
    700202

    Raises `UnknownNameError` for a model or option that is not here, `PreconditionError` for values it cannot take.
    """
    family = _family(name)
    known = options_of(name)
    for option in options or {}:
        if option not in known:
            raise UnknownNameError(f"option of {name}", option, known)
    chosen = {"num_classes": num_classes, "in_chans": in_chans}
    for key, value in chosen.items():
        if value is not None and (not isinstance(value, int) or value < 0 or (key == "in_chans" and value == 0)):
            raise PreconditionError(f"{key} must be a positive integer, not {value!r}")
    return _build(family.build, {**{k: v for k, v in chosen.items() if v is not None}, **(options or {})}, name, seed)


def resolve(
    spec: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    image_size: int | None = None,
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a model from a zoo name or from `package.module:factory`, to suit data of these sizes.

    For a zoo name, `image_size` sets the options that follow from it, where the family has them: `image_size`,
    and `small_input` for up to 64 pixels. A factory is passed, by name, those it has a parameter for
    (`num_classes` also if it takes any keyword, as torchvision's do), and all `options`. `module:NAME` may also
    be a model itself.

    Raises `UnknownNameError` for names that do not exist, and `PreconditionError` for a module that does not
    import, a factory that needs more, or one that returns no `nn.Module`.
    """
    chosen = {"num_classes": num_classes, "in_chans": in_chans, "image_size": image_size}
    given = {key: value for key, value in chosen.items() if value is not None}
    if ":" not in spec:
        implied = {} if image_size is None else {"image_size": image_size, "small_input": image_size <= SMALL}
        implied = {key: value for key, value in implied.items() if key in options_of(spec)}
        return create(spec, num_classes=num_classes, in_chans=in_chans, seed=seed, options={**implied, **(options or {})})
    factory = _attribute(spec)
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise PreconditionError(f"{spec} is a {type(factory).__name__}; needed is a function or class that returns an nn.Module")
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError as error:
        raise PreconditionError(f"{spec} does not tell its parameters ({error}); wrap it in a function") from error
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    passed = {key: value for key, value in given.items() if key in parameters or (anything and key == "num_classes")}
    return _build(factory, {**passed, **(options or {})}, spec, seed)


def _family(name: str) -> _Family:
    if name not in _ZOO:
        raise UnknownNameError("model", name, _ZOO)
    return _ZOO[name]


def _build(factory: Callable[..., object], arguments: Mapping[str, Any], name: str, seed: int | None) -> nn.Module:
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise PreconditionError(f"{name} cannot be called with {sorted(arguments)}: {error}; "
                                "wrap it in a function that needs no more") from error
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model = factory(**arguments)
    if not isinstance(model, nn.Module):
        raise PreconditionError(f"{name} returned a {type(model).__name__}, not an nn.Module")
    return model


def _attribute(spec: str) -> object:
    module_name, _, path = spec.partition(":")
    try:
        value: object = importlib.import_module(module_name)
    except Exception as error:  # whatever the code of the user's module raises
        raise PreconditionError(f"the module of {spec!r} does not import ({type(error).__name__}: {error}); "
                                "write package.module:factory, and install the package or set PYTHONPATH") from error
    for part in path.split("."):
        if not hasattr(value, part):
            raise UnknownNameError(f"attribute of {module_name}", part, [n for n in dir(value) if not n.startswith("_")])
        value = getattr(value, part)
    return value
