"""Matchers: how the two sides of a pair are brought to one shape."""

from __future__ import annotations

from typing import Protocol

from lilliput.distill.knowledge import Pair


class Matcher(Protocol):
    """`pair -> pair` of comparable tensors. One that is a module trains along with the student and is dropped at the end."""

    def __call__(self, pair: Pair, /) -> Pair:
        """The pair, comparable."""
        ...


def same(pair: Pair, /) -> Pair:
    """The pair as it is, for values of one shape."""
    return pair
