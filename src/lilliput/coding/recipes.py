"""The catalogue's coders and sparse formats by name."""

from __future__ import annotations

from lilliput.coding.arithmetic import Arithmetic
from lilliput.coding.cabac import Cabac
from lilliput.coding.huffman import Huffman
from lilliput.coding.rans import Rans
from lilliput.coding.sparse import Bitmap, Coo, Coo1d, Csc, Csf, Csr, RelativeIndex, RunLengths
from lilliput.coding.tunstall import Tunstall

__all__ = ["arithmetic", "bitmap", "cabac", "coo", "coo_1d", "csc", "csf", "csr", "eie_relative", "huffman", "rans", "rlc", "tunstall"]


def huffman() -> Huffman:
    """Canonical codes of up to 12 bits, several symbols decoded at a time (huffman1952; for weights han2016deep)."""
    return Huffman()


def arithmetic(*, adaptive: bool = False) -> Arithmetic:
    """An interval for all symbols together, by counts that are told or that both sides learn (witten1987arithmetic)."""
    return Arithmetic(adaptive=adaptive)


def rans(*, precision: int | None = None, pairs: bool | None = None) -> Rans:
    """Asymmetric numeral systems in interleaved lanes (duda2014ans)."""
    return Rans(precision=precision, pairs=pairs)


def cabac() -> Cabac:
    """Flags and Exp-Golomb codes of integers, each bit by its context (wiedemann2019deepcabac)."""
    return Cabac()


def tunstall(*, width: int = 12) -> Tunstall:
    """Words of one width for sequences of symbols (tunstall1967)."""
    return Tunstall(width=width)


def coo() -> Coo:
    """Coordinates."""
    return Coo()


def coo_1d() -> Coo1d:
    """Places in C order."""
    return Coo1d()


def rlc() -> RunLengths:
    """Zeros before each element, in as many bits as the longest run needs."""
    return RunLengths()


def bitmap() -> Bitmap:
    """A bit for every element."""
    return Bitmap()


def csr() -> Csr:
    """Columns of elements, and where rows begin."""
    return Csr()


def csc() -> Csc:
    """Rows of elements, and where columns begin."""
    return Csc()


def csf() -> Csf:
    """A tree of fibres, a level for each dimension (smith2015csf)."""
    return Csf()


def eie_relative(*, width: int = 4) -> RelativeIndex:
    """Zeros before each element in four bits, with padding zeros where they are more (han2016eie)."""
    return RelativeIndex(width=width)
