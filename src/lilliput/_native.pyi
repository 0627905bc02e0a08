import numpy as np
from numpy.typing import NDArray

OK: int
BAD_BITS: int
BAD_CODE: int
TOO_SHORT: int

def packed_size(count: int, bits: int) -> int: ...
def pack(codes: NDArray[np.uint8], bits: int, packed: NDArray[np.uint8]) -> int: ...
def unpack(packed: NDArray[np.uint8], bits: int, codes: NDArray[np.uint8]) -> int: ...
