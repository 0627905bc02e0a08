"""What each tensor of a file takes, and what it could not go below."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lilliput.coding.coder import count, entropy
from lilliput.coding.coders import coder_numbered
from lilliput.coding.container import Container
from lilliput.coding.contexts import Contexts


@dataclass(frozen=True)
class Line:
    """One tensor: `bits` and `bound` are for each element, the bound being the entropy of its symbols one by one; sizes are in bytes."""

    tensor: str
    type: str
    shape: tuple[int, ...]
    symbols: str
    coder: str
    bits: float
    bound: float
    size: int
    coded: int


def inspect(container: Container) -> list[Line]:
    """A line for each tensor, in order; everything is decoded on the way, so a damaged file is found."""
    lines = []
    for record in container.records.values():
        elements, streams, way = max(math.prod(record.shape), 1), container.streams(record.name), container.way(record)
        coders = list(dict.fromkeys(found[0] for stream in record.streams if (found := coder_numbered(stream.coder))))
        payload = container.joined(record.name, streams)
        if isinstance(way, Contexts):  # what its codes take one by one
            streams, coders = way.codes(payload, record.element), ["cabac"]
        bound = sum(entropy(count(stream)) * stream.size for stream in streams) + 8 * len(record.head)
        lines.append(Line(record.name, record.element.name, record.shape, type(way).__name__.lower(), " + ".join(coders),
                          8 * record.coded / elements, bound / elements, record.size, record.coded))
    return lines
