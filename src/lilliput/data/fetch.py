"""Finding a data set's files: where the user says, in the system, in the cache, or on the network with a checksum."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from lilliput.core.atomic import atomic_path
from lilliput.core.errors import CorruptFileError, DataError

SYSTEM = (Path("/usr/local/share"), Path("/usr/share"))
_CHUNK = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file with a public home: its name, size in bytes, SHA-256 in hex, and addresses, the preferred one first."""

    file: str
    size: int
    sha256: str
    urls: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where to look for a data set: `folders` are the names its folder goes by, the first one ours.

    `root` comes before everything else; `package` is the Debian package that has it.
    """

    folders: tuple[str, ...]
    root: Path | None = None
    package: str = ""

    def roots(self) -> list[Path]:
        """Folders to look in, in order: root, `$LILLIPUT_DATA`, the system's, the user's cache."""
        named = [self.root] if self.root else []
        named += [Path(part) for part in os.environ.get("LILLIPUT_DATA", "").split(os.pathsep) if part]
        return [*named, *(share / "datasets" for share in SYSTEM), *SYSTEM, cache_dir()]

    def find(self, *files: str) -> Path | None:
        """The first place that has one of these files, or folders; directly in a root, or in a folder of the data set's."""
        for root in self.roots():
            for place in (root, *(root / folder for folder in self.folders)):
                for file in files:
                    if (place / file).exists():
                        return place / file
        return None


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/lilliput`, or `~/.cache/lilliput`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lilliput"


def fetch(remote: Remote, places: Places, *, download: bool = True) -> Path:
    """The path of a file that is here already, or is downloaded into the cache now.

    A download is kept only if its size and SHA-256 are right. Raises `DataError` naming the folder to put the
    file in when it cannot be had, and `CorruptFileError` when what arrives is something else.
    """
    path = places.find(remote.file)
    if path is not None:
        return path
    target = cache_dir() / places.folders[0] / remote.file
    package = f", or install Debian's package {places.package}" if places.package else ""
    remedy = (f"put {remote.file} (from {remote.urls[0]}) into {target.parent} "
              f"or into a folder that LILLIPUT_DATA names{package}")
    if not download:
        raise DataError(f"{remote.file} is not here and downloads are off; {remedy}")
    reasons = []
    for url in remote.urls:
        try:
            _download(url, remote, target)
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
            reasons.append(f"{url}: {reason}")
        except OSError as error:
            raise DataError(f"cannot write {target}: {error.strerror or error}; "
                            "make room, or set XDG_CACHE_HOME elsewhere") from error
        else:
            return target
    raise DataError(f"{remote.file} cannot be downloaded ({'; '.join(reasons)}); {remedy}")


def _download(url: str, remote: Remote, target: Path) -> None:
    from rich.console import Console
    from rich.progress import Progress

    with urllib.request.urlopen(url, timeout=30) as response, atomic_path(target) as temporary:
        progress = Progress(console=Console(stderr=True), transient=True)
        with open(temporary, "wb") as out, progress:
            task = progress.add_task(remote.file, total=remote.size)
            digest, size = hashlib.sha256(), 0
            while size <= remote.size and (chunk := response.read(_CHUNK)):
                out.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                progress.update(task, completed=size)
        if size < remote.size:
            raise ConnectionError(f"ended after {size} of {remote.size} bytes")
        if size != remote.size or digest.hexdigest() != remote.sha256:
            raise CorruptFileError(f"{url} is not the file expected: {size} bytes with SHA-256 {digest.hexdigest()}, "
                                   f"not {remote.size} with {remote.sha256}; nothing was kept. "
                                   f"Fetch {remote.file} from elsewhere")


def resolve_path(text: str, root: Path | None) -> Path:
    """A path as given, else under `root`, else under `$LILLIPUT_DATA`; as given if it is nowhere."""
    path = Path(text).expanduser()
    if path.is_absolute() or path.exists():
        return path
    folders: Sequence[str] = os.environ.get("LILLIPUT_DATA", "").split(os.pathsep)
    for base in (*([root] if root else []), *(Path(part) for part in folders if part)):
        if (base / path).exists():
            return base / path
    return path
