"""Which units went and why, in words for the report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from lilliput.graph.coupling import Group, Keep

_NAMED = 3


def indices(gone: NDArray[np.bool_]) -> str:
    """Places of what is gone, runs shortened.

    >>> indices(np.array([True, False, True, True, True, False, True]))
    '0, 2-4, 6'
    """
    places = np.flatnonzero(gone)
    runs = [list(run) for _, run in groupby(enumerate(places.tolist()), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0][1]}" if len(run) == 1 else f"{run[0][1]}-{run[-1][1]}" for run in runs)


def reasons(groups: Sequence[Group], keep: Sequence[Keep], scores: Sequence[NDArray[np.float64]] | None) -> dict[str, str]:
    """Why units of each layer went: their scores beside those of what stays, and the layers whose channels are the same.

    Without scores the choice was made while training.
    """
    found: dict[str, list[str]] = {}
    for place, (group, kept) in enumerate(zip(groups, keep, strict=True)):
        if kept.all():
            continue
        values = None if scores is None else scores[place]
        for layer in group.layers:
            others = [other for other in group.layers if other != layer]
            found.setdefault(layer, []).append(_compared(values, kept) + _together(others))
    return {layer: "; ".join(dict.fromkeys(words)) for layer, words in found.items()}


def _compared(values: NDArray[np.float64] | None, kept: Keep) -> str:
    if values is None:
        return "chosen while training"
    return f"scores up to {values[~kept].max():.3g} went, from {values[kept].min():.3g} stay" if kept.any() else "all went"


def _together(others: Sequence[str]) -> str:
    if not others:
        return ""
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return f"; the same channels as {', '.join(others[:_NAMED])}{more}"
