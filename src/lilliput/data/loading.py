"""From a name to data."""

from __future__ import annotations

from pathlib import Path

from lilliput.core.errors import UnknownNameError
from lilliput.data import named, text
from lilliput.data.arrays import from_splits
from lilliput.data.base import Data
from lilliput.data.fetch import resolve_path
from lilliput.data.holdout import Holdout
from lilliput.data.npz import read_npz, splits_of
from lilliput.data.transforms import Augmentation, Transforms

NAMES = ("cifar10", "digits", "fashion_mnist", "tinyshakespeare")


def load(
    name: str,
    *,
    root: str | Path | None = None,
    holdout: Holdout | None = None,
    augment: Augmentation | None = None,
    image_size: int | None = None,
    download: bool = True,
) -> Data:
    """Load `digits`, `fashion_mnist`, `cifar10`, `tinyshakespeare`, `folder:PATH` (images), `text:PATH` or `PATH.npz` (arrays).

    Files are looked for in `root`, in `$LILLIPUT_DATA`, in the system's shared data folders and in the user's
    cache, then downloaded with a checksum. `holdout` says how to split what comes without official splits.
    `augment` replaces the data set's own augmentation (`Keep()`: none). `image_size` resizes the images of a
    folder to squares. Texts come as windows of 128 characters; `from_text` takes other lengths.

    >>> data = load("digits")
    >>> data.input_shape, data.num_classes, len(data.train), len(data.val), len(data.test)
    ((1, 8, 8), 10, 1168, 270, 359)

    Raises `UnknownNameError` for other names, `DataError` for data that cannot be used or had, and
    `CorruptFileError` for damaged files.
    """
    base = Path(root).expanduser() if root is not None else None
    if name == "digits":
        return named.digits(holdout, augment)
    if name == "fashion_mnist":
        return named.fashion_mnist(base, augment, download)
    if name == "cifar10":
        return named.cifar10(base, augment, download)
    if name == "tinyshakespeare":
        return text.tinyshakespeare(base, holdout, download)
    if name.startswith("text:"):
        return text.from_text_file(resolve_path(name.removeprefix("text:"), base), holdout=holdout)
    if name.startswith("folder:"):
        from lilliput.data.folder import from_folder

        path = resolve_path(name.removeprefix("folder:"), base)
        return from_folder(path, image_size=image_size, holdout=holdout, augment=augment)
    if name.endswith(".npz"):
        path = resolve_path(name, base)
        transforms = Transforms(augment=augment) if augment else Transforms()
        return from_splits(path.stem, splits_of(read_npz(path), path), holdout=holdout, transforms=transforms)
    raise UnknownNameError("data set", name, (*NAMES, "folder:PATH", "text:PATH", "PATH.npz"))


def names() -> tuple[str, ...]:
    """The data sets that have a name."""
    return NAMES
