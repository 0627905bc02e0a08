"""A progress bar for runs worth waiting for: on a terminal, after two seconds."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PATIENCE = 2.0


class Bar:
    """Counts steps; silent when `show` is false, in CI, and where standard error is no terminal."""

    def __init__(self, *, total: int, show: bool = True) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._total, self._done, self._text = total, 0, ""
        self._show = show and self._console.is_terminal and not os.environ.get("CI")
        self._since = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    @property
    def visible(self) -> bool:
        """Whether it is on the screen."""
        return self._progress is not None

    def update(self, done: int, text: str = "") -> None:
        """`done` steps of the total; `text` stays until the next one that is not empty."""
        self._done, self._text = done, text or self._text
        if self._progress is None and self._show and time.monotonic() - self._since > _PATIENCE:
            self._open()
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._done, description=self._text)

    def _open(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._progress.start()
        self._task = self._progress.add_task(self._text, total=self._total)
