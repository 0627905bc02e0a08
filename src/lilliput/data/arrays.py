"""Data from arrays in memory, checked before anything is trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lilliput.core.errors import DataError
from lilliput.data.base import Data
from lilliput.data.holdout import Holdout
from lilliput.data.samples import Memory, Samples
from lilliput.data.transforms import Transforms

SPLITS = ("train", "val", "test")
Pair = tuple[Any, Any]


def from_arrays(
    name: str,
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    *,
    num_classes: int | None = None,
    holdout: Holdout | None = None,
    transforms: Transforms | None = None,
) -> Data:
    """Data from inputs `x` `(N, ...)` and targets `y`, divided into train, val and test by `holdout`.

    `x` holds bytes (images, normalised to 0..1 by default; `(N, H, W)` gets its channel dimension), floats, or
    32- or 64-bit integers (indices). `y` holds integer classes `(N,)`, or floats `(N, ...)` for regression,
    where `num_classes` is 0. `num_classes` defaults to the largest label plus one.

    >>> import numpy as np
    >>> data = from_arrays("blobs", np.eye(20), np.arange(20) % 2)
    >>> len(data.train), len(data.val), len(data.test), data.num_classes
    (16, 2, 2, 2)

    Raises `DataError` for NaN or infinity, lengths that differ, wrong dimensions, labels that are no integers
    or out of range, and splits that would be empty.
    """
    return from_splits(name, {"train": (x, y)}, num_classes=num_classes, holdout=holdout, transforms=transforms)


def from_splits(
    name: str,
    splits: Mapping[str, Pair],
    *,
    num_classes: int | None = None,
    classes: Sequence[str] = (),
    holdout: Holdout | None = None,
    transforms: Transforms | None = None,
) -> Data:
    """Data from `{"train": (x, y), "val": (x, y), "test": (x, y)}`; what is missing of the last two is held out of train.

    Types, shapes and errors as for `from_arrays`. Only train is augmented.
    """
    if "train" not in splits or not set(splits) <= set(SPLITS):
        raise DataError(f"{name!r} needs the split 'train' and may have 'val' and 'test'; it has {sorted(splits)}")
    tensors = {}
    for split in SPLITS:
        if split in splits:
            x = as_inputs(splits[split][0], f"{split} x of {name!r}")
            tensors[split] = x, as_targets(splits[split][1], len(x), f"{split} y of {name!r}")
    count = _agree(name, tensors, num_classes)
    plain = Transforms(normalize=transforms.normalize) if transforms else Transforms()
    parts = {split: Samples(Memory(x), y, plain) for split, (x, y) in tensors.items()}
    return assemble(name, parts, num_classes=count, classes=classes, holdout=holdout or Holdout(), transforms=transforms or plain)


def assemble(
    name: str,
    parts: Mapping[str, Samples],
    *,
    num_classes: int,
    classes: Sequence[str] = (),
    holdout: Holdout,
    transforms: Transforms,
) -> Data:
    """Data from splits already checked: hold out what is missing; only train is augmented."""
    parts = dict(parts)
    missing = {split: split not in parts for split in ("val", "test")}
    if any(missing.values()):
        whole = parts["train"]
        train, val, test = holdout.divide(whole.targets, val=missing["val"], test=missing["test"])
        parts["train"] = whole.select(train)
        parts.update({split: whole.select(index) for split, index in (("val", val), ("test", test)) if missing[split]})
    plain = Transforms(normalize=transforms.normalize)
    train_split, val_split, test_split = (
        Samples(parts[split].source, parts[split].targets, transforms if split == "train" else plain) for split in SPLITS
    )
    return Data(name=name, train=train_split, val=val_split, test=test_split, num_classes=num_classes, classes=tuple(classes))


def as_inputs(x: ArrayLike | Tensor, what: str) -> Tensor:
    """Inputs as a byte, float32 or int64 tensor `(N, ...)`; `what` names them in a `DataError`."""
    tensor = _as_tensor(x, what)
    if tensor.ndim < 2 or 0 in tensor.shape[1:]:
        raise DataError(f"{what} has shape {tuple(tensor.shape)}; "
                        "needed is (samples, features...), for images (samples, channels, height, width)")
    if len(tensor) == 0:
        raise DataError(f"{what} is empty; every split needs at least one sample")
    if tensor.dtype == torch.uint8:
        return tensor.unsqueeze(1) if tensor.ndim == 3 else tensor
    if tensor.is_floating_point() or tensor.dtype == torch.bool:
        return _finite(tensor.to(torch.float32), what)
    if tensor.dtype in (torch.int32, torch.int64):
        return tensor.to(torch.int64)
    raise DataError(f"{what} has type {tensor.dtype}; pass uint8 (0 to 255), floating point, or int64 for indices")


def as_targets(y: ArrayLike | Tensor, count: int, what: str) -> Tensor:
    """Targets as int64 `(N,)` or float32 `(N, ...)` for `count` samples; `what` names them in a `DataError`."""
    tensor = _as_tensor(y, what)
    if tensor.ndim == 0 or len(tensor) != count:
        raise DataError(f"{what} has shape {tuple(tensor.shape)} for {count} samples; needed is one target for each sample")
    if tensor.is_floating_point():
        return _finite(tensor.to(torch.float32), what)
    if tensor.numel() != count:
        raise DataError(f"{what} has shape {tuple(tensor.shape)}; class labels are one integer for each sample "
                        "(y.argmax(1) for one-hot rows, floating point for regression)")
    labels = tensor.reshape(count).to(torch.int64)
    if int(labels.min()) < 0:
        raise DataError(f"{what} has label {int(labels.min())} at sample {int(labels.argmin())}; labels count from 0")
    return labels


def _as_tensor(values: ArrayLike | Tensor, what: str) -> Tensor:
    if isinstance(values, Tensor):
        tensor = values.detach().cpu()
    else:
        try:
            array = np.ascontiguousarray(values) if np.ndim(values) else np.asarray(values)
        except ValueError as error:
            raise DataError(f"{what} is no array: {error}") from error
        if array.dtype.kind not in "buif":
            raise DataError(f"{what} has type {array.dtype}; needed are numbers")
        array = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
        tensor = torch.from_numpy(array if array.dtype.itemsize <= 8 else array.astype(np.float64))
    if tensor.is_complex():
        raise DataError(f"{what} is complex; stack real and imaginary part as channels")
    return tensor


def _finite(tensor: Tensor, what: str) -> Tensor:
    # A sum is finite only if every term is, and needs no mask as large as the data; it may overflow, so look closer then.
    if not torch.isfinite(tensor.sum()):
        bad = (~torch.isfinite(tensor)).reshape(len(tensor), -1).any(1).nonzero().flatten()
        if len(bad):
            raise DataError(f"{what} holds NaN or infinity (or exceeds float32) in {len(bad)} samples, "
                            f"the first is number {int(bad[0])}; repair or remove them")
    return tensor


def _agree(name: str, tensors: Mapping[str, tuple[Tensor, Tensor]], num_classes: int | None) -> int:
    """The number of classes, once all splits have inputs and targets of one kind and labels in range."""
    x, y = tensors["train"]
    for split, (other, targets) in tensors.items():
        if other.shape[1:] != x.shape[1:] or other.dtype != x.dtype:
            raise DataError(f"{split} x of {name!r} is {other.dtype} {tuple(other.shape[1:])}, "
                            f"train x is {x.dtype} {tuple(x.shape[1:])}")
        if targets.dtype != y.dtype or targets.shape[1:] != y.shape[1:]:
            raise DataError(f"{split} y of {name!r} is {targets.dtype} {tuple(targets.shape[1:])}, "
                            f"train y is {y.dtype} {tuple(y.shape[1:])}")
    if y.is_floating_point():
        if num_classes:
            raise DataError(f"y of {name!r} is floating point, but labels of {num_classes} classes must be integers: "
                            "y.astype('int64'); for regression leave num_classes out")
        return 0
    count = num_classes or 1 + max(int(targets.max()) for _, targets in tensors.values())
    for split, (_, targets) in tensors.items():
        if int(targets.max()) >= count:
            raise DataError(f"{split} y of {name!r} has label {int(targets.max())} at sample {int(targets.argmax())}; "
                            f"{count} classes have labels 0 to {count - 1}")
    return count
