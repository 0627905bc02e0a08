"""All coders of byte symbols, and which one takes least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lilliput.coding.arithmetic import Arithmetic
from lilliput.coding.coder import Bytes, Coder, Counts, count
from lilliput.coding.huffman import Huffman
from lilliput.coding.rans import Rans
from lilliput.coding.stored import Stored, Zstd
from lilliput.coding.tunstall import Tunstall
from lilliput.core import UnknownNameError

CODERS: Final[dict[str, Coder]] = {"stored": Stored(), "rans": Rans(), "huffman": Huffman(), "tunstall": Tunstall(),
                                     "arithmetic": Arithmetic(), "adaptive": Arithmetic(adaptive=True), "zstd": Zstd()}
_BY_NUMBER: Final[dict[int, tuple[str, Coder]]] = {coder.number: (name, coder) for name, coder in CODERS.items()}
# What a chunk takes besides its symbols: its size and its checksum.
_CHUNK_BITS = 8 * 7
# What is stored is read at once, so coding it must gain a hundredth.
_STORED_WORTH = 0.99


def coder_named(name: str) -> Coder:
    """The coder of this name; raises `UnknownNameError`."""
    if name not in CODERS:
        raise UnknownNameError("coder", name, CODERS)
    return CODERS[name]


def coder_numbered(number: int) -> tuple[str, Coder] | None:
    """Name and coder by the number that files use."""
    return _BY_NUMBER.get(number)


def least(symbols: Bytes, candidates: Sequence[Coder]) -> tuple[Coder, bytes, float]:
    """The coder that takes fewest bits for these symbols, its table, and the bits, table and one chunk's overhead included."""
    counts = count(symbols)
    found = [(coder, *_priced(coder, symbols, counts)) for coder in candidates]
    return min(found, key=lambda priced: priced[2] * (_STORED_WORTH if isinstance(priced[0], Stored) else 1))


def _priced(coder: Coder, symbols: Bytes, counts: Counts) -> tuple[bytes, float]:
    table = coder.table(counts)
    if isinstance(coder, Zstd):
        # No table of counts says what repeats: a part is compressed, fast.
        part = symbols[:2**20]
        bits = 8.0 * len(Zstd(level=3).encode(part, table)) * symbols.size / max(part.size, 1)
    else:
        bits = coder.bits(counts, table)
    return table, bits + 8 * len(table) + _CHUNK_BITS
