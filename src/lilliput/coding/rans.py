"""Interleaved asymmetric numeral systems: near the entropy, and decoded at the speed of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lilliput import _native
from lilliput.coding.coder import Bytes, Counts, as_bytes, checked, flat
from lilliput.core import PreconditionError, RecipeError
from lilliput.core.signs import Instructions, chosen

_MODES = {None: 0, False: 1, True: 2}


@dataclass(frozen=True, kw_only=True)
class Rans:
    """Range asymmetric numeral systems, `x' = 2^P floor(x / f) + start + x mod f`, in up to 64 interleaved lanes (duda2014ans).

    Frequencies `f` add up to `2^P`; `precision` fixes `P` (8 to 14), otherwise the one of least total size is taken. With `pairs` one
    step codes two symbols of an alphabet of at most 16, which decodes faster and costs a little; `None` takes them where that is less than
    0.05%. Symbols too rare for a slot are listed apart. The format is specified in `csrc/coding/rans.h`.

    >>> import numpy as np
    >>> from lilliput.coding import count
    >>> symbols, coder = np.array([1, 0, 1, 1, 2, 1, 1, 1], np.uint8), Rans()
    >>> table = coder.table(count(symbols))
    >>> out = np.empty_like(symbols)
    >>> coder.decode(as_bytes(coder.encode(symbols, table)), table, out)
    >>> out.tolist()
    [1, 0, 1, 1, 2, 1, 1, 1]
    """

    precision: int | None = None
    pairs: bool | None = None
    number: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.precision is not None and not 8 <= self.precision <= 14:
            raise RecipeError(f"rANS has tables of 8 to 14 bits, not {self.precision}")

    def table(self, counts: Counts) -> bytes:
        """Frequencies near those of least size, serialised."""
        status, table = _native.rans_table(counts, self.precision or 0, _MODES[self.pairs])
        if status != _native.OK:
            raise PreconditionError(f"no table of {self.precision} bits holds these symbols: leave the precision to the coder")
        return table

    def encode(self, symbols: Bytes, table: bytes) -> bytes:
        """One chunk; every symbol can be coded, the table's more cheaply."""
        status, coded = _native.rans_encode(flat(symbols), as_bytes(table))
        checked(status, "the table")
        return coded

    def decode(self, coded: Bytes, table: bytes, out: Bytes, *, instructions: Instructions | None = None) -> None:
        """Fill `out`."""
        checked(_native.rans_decode(chosen(instructions), coded, as_bytes(table), out), "a chunk")

    def bits(self, counts: Counts, table: bytes) -> float:
        """What a chunk takes."""
        status, bits = _native.rans_bits(as_bytes(table), counts)
        checked(status, "the table")
        return bits
