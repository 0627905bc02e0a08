"""Folders of images, one sub-folder for each class."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lilliput.core.errors import CorruptFileError, DataError, PreconditionError
from lilliput.data.arrays import assemble
from lilliput.data.base import Data
from lilliput.data.holdout import Holdout
from lilliput.data.order import Index
from lilliput.data.samples import Memory, Samples
from lilliput.data.transforms import Augmentation, Keep, Transforms

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
IN_MEMORY = 1 << 30
_ALIASES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
_GRAY, _COLOUR = {"1", "L", "LA"}, {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
_AHEAD = 3
_THREADS = 2


def from_folder(
    path: str | Path,
    *,
    image_size: int | None = None,
    holdout: Holdout | None = None,
    augment: Augmentation | None = None,
) -> Data:
    """Data from `PATH/CLASS/*.png`, or `PATH/{train,val,test}/CLASS/*.png`; missing val or test are held out of train.

    Images keep their size if all have the same one; `image_size` scales the shorter side to that many pixels
    and crops the centre. They are gray if all files are. Up to 1 GiB of pixels are decoded once and kept in
    memory; beyond that they are decoded by threads, a few batches ahead. No augmentation by default.

    Raises `PreconditionError` without Pillow, `DataError` for a folder that cannot be used, and
    `CorruptFileError` naming an image that cannot be read.
    """
    _pillow()
    path = Path(path)
    tables = {split: _scan(folder) for split, folder in _layout(path).items()}
    classes = sorted(tables["train"])
    for split, table in tables.items():
        if extra := sorted(set(table) - set(classes)):
            raise DataError(f"{path}: {split} has the class {extra[0]!r}, which train has not; add it there or remove it")
    files = {split: [f for c in classes for f in table.get(c, ())] for split, table in tables.items()}
    channels, height, width = _shape(path, [f for table in files.values() for f in table], image_size)
    small = sum(map(len, files.values())) * channels * height * width <= IN_MEMORY
    parts = {}
    for split, table in tables.items():
        labels = [k for k, c in enumerate(classes) for _ in table.get(c, ())]
        source = Files(tuple(files[split]), channels, height, width)
        parts[split] = Samples(source.decoded() if small else source, torch.tensor(labels))
    return assemble(path.name, parts, num_classes=len(classes), classes=classes, holdout=holdout or Holdout(),
                    transforms=Transforms(augment=augment or Keep()))


@dataclass(frozen=True, eq=False)
class Files:
    """Images decoded when they are asked for, as bytes `(N, channels, height, width)`."""

    paths: tuple[Path, ...] = field(repr=False)
    channels: int
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.paths)

    def stream(self, batches: Iterable[Index]) -> Iterator[Tensor]:
        """Decode batches with threads (decoders release the interpreter's lock), a few ahead of the consumer."""
        pending: deque[list[Future[Tensor]]] = deque()
        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                for index in batches:
                    pending.append([pool.submit(self._decode, self.paths[i]) for i in index])
                    if len(pending) > _AHEAD:
                        yield torch.stack([future.result() for future in pending.popleft()])
                while pending:
                    yield torch.stack([future.result() for future in pending.popleft()])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def decoded(self) -> Memory:
        """All images, decoded into memory."""
        out = torch.empty(len(self), self.channels, self.height, self.width, dtype=torch.uint8)
        plan = np.array_split(np.arange(len(self)), -(-len(self) // 256))
        for index, batch in zip(plan, self.stream(plan), strict=True):
            out[torch.from_numpy(index)] = batch
        return Memory(out)

    def select(self, index: Index) -> Files:
        """Only these images."""
        return Files(tuple(self.paths[i] for i in index), self.channels, self.height, self.width)

    def content(self) -> Iterator[bytes | memoryview]:
        """The size, and the files as they are."""
        yield f"{self.channels}x{self.height}x{self.width}".encode()
        for path in self.paths:
            yield path.read_bytes()

    def _decode(self, path: Path) -> Tensor:
        with _opened(path) as image:
            scale = max(self.width / image.width, self.height / image.height)
            size = (max(self.width, round(image.width * scale)), max(self.height, round(image.height * scale)))
            picture = image.convert("L" if self.channels == 1 else "RGB")
            if size != picture.size:
                picture = picture.resize(size)
            left, top = (size[0] - self.width) // 2, (size[1] - self.height) // 2
            pixels = np.array(picture.crop((left, top, left + self.width, top + self.height)))
        return torch.from_numpy(pixels).reshape(self.height, self.width, self.channels).permute(2, 0, 1)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever a damaged one makes its decoder raise becomes `CorruptFileError`."""
    try:
        with _pillow().open(path) as image:
            yield image
    except DataError:
        raise
    except Exception as error:  # decoders of two dozen formats raise as they please
        raise CorruptFileError(f"{path} cannot be read as an image ({error}); repair or remove it") from error


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise PreconditionError("folders of images need Pillow: pip install 'lilliput[images]'") from error
    return Image


def _layout(path: Path) -> dict[str, Path]:
    """The folder of each split: sub-folders named for them, or the folder itself as train."""
    if not path.is_dir():
        raise DataError(f"{path} is no folder; it should hold one sub-folder of images for each class")
    found = {split: path / alias for split, aliases in _ALIASES.items() for alias in aliases if (path / alias).is_dir()}
    if not found:
        return {"train": path}
    if "train" not in found:
        raise DataError(f"{path} has a folder for {', '.join(found)} but none for train")
    return found


def _scan(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class, sorted."""
    table = {}
    for child in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = sorted(f for f in child.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
        if not files:
            raise DataError(f"{child} holds no images ({', '.join(sorted(SUFFIXES))}); add some or remove the folder")
        table[child.name] = files
    if not table:
        raise DataError(f"{folder} has no sub-folders; put the images of each class into one")
    return table


def _shape(path: Path, files: Sequence[Path], image_size: int | None) -> tuple[int, int, int]:
    """Channels, height and width that all images are brought to; reads headers only."""
    if image_size is not None and image_size < 1:
        raise DataError(f"image_size must be positive, not {image_size}")
    sizes: dict[tuple[int, int], Path] = {}
    colour = False
    for file in files:
        with _opened(file) as image:
            if image.mode not in _GRAY | _COLOUR:
                raise DataError(f"{file} has pixels of type {image.mode}; convert it to 8-bit gray or RGB")
            sizes.setdefault(image.size, file)
            colour = colour or image.mode in _COLOUR
    if image_size is not None:
        return (3 if colour else 1), image_size, image_size
    if len(sizes) > 1:
        (first, a), (second, b) = list(sizes.items())[:2]
        raise DataError(f"{path} has images of {len(sizes)} sizes "
                        f"({a.name} {first[0]}x{first[1]}, {b.name} {second[0]}x{second[1]}); "
                        "pass image_size= to bring them to one")
    width, height = next(iter(sizes))
    return (3 if colour else 1), height, width
