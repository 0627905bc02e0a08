"""Text for language models: windows of characters, and the characters that come next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lilliput.core.errors import DataError
from lilliput.data.base import Data
from lilliput.data.fetch import Places, Remote, fetch
from lilliput.data.holdout import Holdout
from lilliput.data.reading import read_exactly, untrusted
from lilliput.data.samples import Memory, Samples

CONTEXT = 128
_SHAKESPEARE = Remote(file="tinyshakespeare.txt", size=1115394,
                      sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                      urls=("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",))


def from_text(name: str, text: str, *, context: int = CONTEXT, stride: int | None = None,
              holdout: Holdout | None = None) -> Data:
    """Data from a text: inputs are `context` characters in a row as numbers `(N, context)`, int64, targets those one further on.

    The text is cut, by position, into a first part to train on and the shares that `holdout` gives to validation and test
    after it; its seed plays no part. Windows begin every `stride` characters, `context` by default, so that no character is in
    two. `classes` are the different characters of the whole text, sorted; a character's number is its place among them.

    >>> data = from_text("alphabet", "abcdefghijklmnopqrstuvwxyz" * 4, context=5)
    >>> inputs, targets = next(data.train.batches(1))
    >>> inputs.tolist(), targets.tolist(), data.num_classes
    ([[0, 1, 2, 3, 4]], [[1, 2, 3, 4, 5]], 26)

    Raises `DataError` where a part is shorter than a window.
    """
    step = context if stride is None else stride
    if context < 1 or step < 1:
        raise DataError(f"context and stride count characters, from 1, not {context} and {step}")
    tokens, characters = _numbered(text)
    shares = holdout or Holdout()
    cuts = [round(len(tokens) * (1 - shares.val - shares.test)), round(len(tokens) * (1 - shares.test))]
    parts: dict[str, Samples] = {}
    for split, part in zip(("train", "val", "test"), torch.tensor_split(tokens, cuts), strict=True):
        if len(part) <= context:
            raise DataError(f"{split} of {name!r} has {len(part)} of {len(tokens)} characters, and a window with its targets "
                            f"takes {context + 1}; pass more text, a smaller context, or another holdout")
        windows = part.unfold(0, context + 1, step)
        parts[split] = Samples(Memory(windows[:, :-1]), windows[:, 1:])
    return Data(name=name, **parts, num_classes=len(characters), classes=characters)


def from_text_file(path: str | Path, *, context: int = CONTEXT, holdout: Holdout | None = None) -> Data:
    """Data from a file in UTF-8, as `from_text`; raises `CorruptFileError` for anything else, `DataError` without a file."""
    path = Path(path)
    with untrusted(path), open(path, "rb") as stream:
        text = bytes(read_exactly(stream, path.stat().st_size)).decode("utf-8")
    return from_text(path.stem, text, context=context, holdout=holdout)


def tinyshakespeare(root: Path | None = None, holdout: Holdout | None = None, download: bool = True,
                    context: int = CONTEXT) -> Data:
    """1,115,394 characters of Shakespeare's plays, 65 different ones [karpathy2015charrnn].

    By default the last tenth tests and the one before validates.
    """
    places = Places(folders=("tinyshakespeare", "text"), root=root)
    return from_text_file(fetch(_SHAKESPEARE, places, download=download), context=context, holdout=holdout)


def _numbered(text: str) -> tuple[Tensor, tuple[str, ...]]:
    """Each character's place among the different ones, sorted by code point; and those."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    found, places = np.unique(codes, return_inverse=True)
    return torch.from_numpy(places.astype(np.int64)), tuple(chr(code) for code in found)
