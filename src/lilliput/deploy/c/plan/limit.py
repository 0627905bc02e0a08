"""When a search gives up."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(kw_only=True, eq=False)
class Limit:
    """So many seconds from now on, and so many nodes of a search tree if given: a limit of nodes gives the same result every time."""

    seconds: float
    nodes: float = float("inf")
    visited: int = field(default=0, init=False)
    done: bool = field(default=False, init=False)
    began: float = field(default_factory=time.monotonic, init=False)

    @property
    def left(self) -> float:
        """Seconds."""
        return max(self.seconds - (time.monotonic() - self.began), 0.0)

    @property
    def over(self) -> bool:
        """Whether it ended the search."""
        return self.visited > self.nodes or self.left <= 0

    def spent(self) -> bool:
        """Count a node; whether it is one too many."""
        self.visited += 1
        if self.visited > self.nodes or (self.visited % 64 == 1 and self.left <= 0):
            self.done = True
        return self.done

    def part(self, share: float = 1.0, nodes: float = float("inf")) -> Limit:
        """A limit within this one."""
        return Limit(seconds=self.left * share, nodes=nodes)
