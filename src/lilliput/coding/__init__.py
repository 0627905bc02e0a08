"""Entropy-coded and sparse weights: coders, what of a tensor they code, and the files that hold them."""

from lilliput.coding.coder import Coder, checksum, count, entropy
from lilliput.coding.rans import Rans

__all__ = ["Coder", "Rans", "checksum", "count", "entropy"]
