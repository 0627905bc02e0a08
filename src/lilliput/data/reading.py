"""Reading bytes that nobody has vouched for: sizes are checked before memory is taken."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lilliput.core.errors import CorruptFileError, DataError

Bytes = npt.NDArray[np.uint8]
_CHUNK = 1 << 20
# TypeError: tarfile takes the ord of a byte that a cut stream does not have.
_MALFORMED = (EOFError, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, RuntimeError,
              MemoryError, zlib.error, tarfile.TarError, zipfile.BadZipFile)


@contextmanager
def untrusted(path: Path) -> Iterator[None]:
    """Turn what a damaged file makes a reader raise into `CorruptFileError`, and a missing one into `DataError`; both name it."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the path, or set LILLIPUT_DATA to the folder that has it") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder; for a folder of images write folder:{path}") from error
    except PermissionError as error:
        raise DataError(f"{path} may not be read: {error.strerror}; change its permissions") from error
    except _MALFORMED as error:
        raise CorruptFileError(f"{path} is damaged or not what its name says ({error or type(error).__name__}); "
                               "remove it and fetch it again") from error


def memory_limit() -> int:
    """Bytes of physical memory: what a file claims beyond it is not even tried."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 34


class Readable(Protocol):
    """Something that bytes can be read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes."""
        ...


def read_exactly(stream: Readable, count: int) -> Bytes:
    """Read `count` bytes; memory grows with what really arrives, not with what a header claims.

    Raises `EOFError` when the stream ends early and `ValueError` when `count` exceeds the machine's memory.
    """
    if count < 0 or count > memory_limit():
        raise ValueError(f"claims {count} bytes of data, more than the {memory_limit()} bytes of memory here")
    buffer = bytearray()
    while len(buffer) < count:
        chunk = stream.read(min(_CHUNK, count - len(buffer)))
        if not chunk:
            raise EOFError(f"ends after {len(buffer)} of {count} bytes")
        buffer += chunk
    return np.frombuffer(buffer, dtype=np.uint8)
