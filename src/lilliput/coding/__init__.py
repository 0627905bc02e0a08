"""Entropy-coded and sparse weights: coders, what of a tensor they code, and the files that hold them."""

from lilliput.coding.arithmetic import Arithmetic
from lilliput.coding.cabac import Cabac, rate_distortion_codes
from lilliput.coding.coder import Coder, checksum, count, entropy
from lilliput.coding.container import Container, open, pack_onnx, save
from lilliput.coding.huffman import Huffman
from lilliput.coding.inspection import inspect
from lilliput.coding.rans import Rans
from lilliput.coding.stored import Stored, Zstd
from lilliput.coding.tunstall import Tunstall

__all__ = ["Arithmetic", "Cabac", "Coder", "Container", "Huffman", "Rans", "Stored", "Tunstall", "Zstd", "checksum", "count", "entropy", "inspect", "open", "pack_onnx",
           "rate_distortion_codes", "save"]
