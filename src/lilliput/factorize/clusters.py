"""CNNpack's coder: kernels in cosines, as shared centroids and residuals, thresholded and quantized, in Huffman codes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lilliput.factorize.bases import Basis, Cosine, Identity, restored, transformed
from lilliput.factorize.coded import Single
from lilliput.factorize.rate import gamma_bits, huffman_lengths
from lilliput.factorize.sensitivity import Metric

Array = NDArray[np.float64]
Integers = NDArray[np.int32]
_FLOAT = 32
# Bits that give the length of one symbol's code in a canonical Huffman table.
_LENGTH = 5
# Centroids lie on a grid this much finer than the residuals'.
_FINER = 4


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """The coder of CNNpack: the cosine transform of every kernel is its cluster's centroid plus a residual of its own.

    Residuals below `threshold` steps become zero, the rest is rounded to whole steps and clipped to `reach` of them; centroids
    are found by k-means, the number of them being the cheapest of `centroids` at that step. The step is the same share
    of every layer's standard deviation. Kernels of one position (1x1, linear) have no cosines, and their centroids are
    scalars. Sizes are those of real Huffman codes: cluster indices, and residuals either dense or, as in the
    paper, in compressed sparse rows, whichever is less; tables, centroids and row counts are counted. The paper fine-tunes
    what it has packed, and computes in the frequency domain; neither is done here. (wang2016cnnpack)
    """

    centroids: tuple[int, ...] = (1, 4, 16, 64)
    threshold: float = 0.75
    reach: int = 127
    seed: int = 0
    slopes: ClassVar[tuple[float, float]] = (-12.0, 6.0)

    def __call__(self, weight: Array, metric: Metric) -> ClusterSource:  # noqa: ARG002
        """A weight `(out, in / groups, *kernel)`, ready to be coded at any step."""
        return ClusterSource(weight, self)


class ClusterSource:
    """One weight in cosines, and its centroids."""

    def __init__(self, weight: Array, coder: Clusters) -> None:
        self.shape, self._coder = weight.shape, coder
        flat = weight.reshape(*weight.shape[:2], -1)
        self._kernels = transformed(flat, _bases(self.shape)).reshape(-1, flat.shape[2])
        self._scale = max(float(weight.std()), 1e-12)
        self._clusters = {1: _means(self._kernels, 1, coder.seed)}
        self._count = 1

    def coded(self, strength: float) -> ClusterCoded:
        """The weight with a step of `2^strength` standard deviations."""
        return self._with(self._count, strength)

    def settle_(self, strength: float) -> None:
        """Choose the number of centroids."""
        for count in self._coder.centroids:
            if count not in self._clusters and count < len(self._kernels):
                self._clusters[count] = _means(self._kernels, count, self._coder.seed)
        self._count = min(self._clusters, key=lambda count: math.fsum(self._with(count, strength).bits.values()))

    def _with(self, count: int, strength: float) -> ClusterCoded:
        centroids, members = self._clusters[count]
        step, coder = float(np.float32(self._scale * 2.0**strength)), self._coder
        shared = np.rint(centroids / (step / _FINER)).astype(np.int32)
        residuals = self._kernels / step - shared[members] / _FINER
        codes = np.where(np.abs(residuals) < coder.threshold, 0.0, np.rint(residuals)).clip(-coder.reach, coder.reach)
        return ClusterCoded(shape=self.shape, step=step, centroids=shared, members=members, residuals=codes.astype(np.int32))


@dataclass(frozen=True, kw_only=True, eq=False)
class ClusterCoded:
    """Kernels as `(centroids[members] / 4 + residuals) * step` in cosines.

    `centroids` `(clusters, kernel)`, `members` `(kernels,)`, `residuals` `(kernels, kernel)`.
    """

    shape: tuple[int, ...]
    step: float
    centroids: Integers
    members: Integers
    residuals: Integers

    @property
    def bits(self) -> dict[str, float]:
        """Huffman codes of members and residuals, and all tables."""
        members, member_table = _huffman(self.members)
        dense, dense_table = _huffman(self.residuals)
        sparse, sparse_tables = self._rows()
        packed = dense + dense_table <= sparse + sparse_tables
        codes, tables = (dense, dense_table) if packed else (sparse, sparse_tables)
        span = int(np.abs(self.centroids).max(initial=0))
        width = math.ceil(math.log2(2 * span + 1))
        shared = self.centroids.size * width + float(gamma_bits(span) + gamma_bits(len(self.centroids)))
        return {"codes": members + codes, "tables": member_table + tables + 1, "centroids": shared, "steps": float(_FLOAT)}

    def _rows(self) -> tuple[float, float]:
        """Compressed sparse rows, one for each output: how many are not zero, then distances between them, and values."""
        rows = self.residuals.reshape(self.shape[0], -1)
        row, column = np.nonzero(rows)
        first = np.diff(row, prepend=-1) > 0
        distance = np.where(first, column, np.diff(column, prepend=0) - 1)
        values, value_table = _huffman(rows[row, column])
        places, place_table = _huffman(distance)
        return values + places, value_table + place_table + len(rows) * math.ceil(math.log2(rows.shape[1] + 1))

    def decode(self) -> Single:
        """Cosines back to kernels."""
        values = (self.centroids[self.members] / _FINER + self.residuals) * np.float64(np.float32(self.step))
        return restored(values.reshape(*self.shape[:2], -1), _bases(self.shape)).reshape(self.shape).astype(np.float32)


def _bases(shape: tuple[int, ...]) -> tuple[Basis, Basis, Basis]:
    places = math.prod(shape[2:])
    return Identity(shape[0]), Identity(shape[1]), Cosine(shape[2:]) if places > 1 else Identity(1)


def _huffman(symbols: NDArray[np.integer[Any]]) -> tuple[float, float]:
    """Bits of symbols in their own Huffman code, and of its table: the least symbol, how many there may be, their lengths."""
    if not symbols.size:
        return 0.0, 1.0
    low = int(symbols.min())
    counts = np.bincount((symbols - low).ravel())
    bits = float((counts * huffman_lengths(counts)).sum()) if np.count_nonzero(counts) > 1 else 0.0
    return bits, float(gamma_bits(2 * abs(low)) + gamma_bits(len(counts))) + _LENGTH * len(counts)


def _means(kernels: Array, count: int, seed: int) -> tuple[Array, Integers]:
    """Centroids and members of k-means."""
    if count == 1:
        return kernels.mean(0, keepdims=True), np.zeros(len(kernels), np.int32)
    from sklearn.cluster import KMeans

    found = KMeans(n_clusters=count, n_init=1, max_iter=50, random_state=seed).fit(kernels)
    return found.cluster_centers_.astype(np.float64), found.labels_.astype(np.int32)
