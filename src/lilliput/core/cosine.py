"""The discrete cosine transform of type II, orthonormal, of images in any number of dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def cosine(sides: Sequence[int]) -> NDArray[np.float64]:
    """The separable transform of a kernel of these sides, `(n, n)`: rows are positions, columns frequencies, `n` of each.

    Along one side `c_k cos(pi (i + 1/2) k / n)` in row `i` and column `k`, `c_0 = sqrt(1 / n)` and otherwise `c_k = sqrt(2 / n)`;
    the Kronecker product of these over the sides.

    >>> cosine((2,)).round(4).tolist()
    [[0.7071, 0.7071], [0.7071, -0.7071]]
    """
    out = np.eye(1)
    for n in sides:
        i, k = np.arange(n)[:, None], np.arange(n)[None, :]
        side = np.cos(np.pi * (i + 0.5) * k / n) * np.sqrt(2.0 / n)
        side[:, 0] = np.sqrt(1.0 / n)
        out = np.asarray(np.kron(out, side), dtype=np.float64)
    return out
