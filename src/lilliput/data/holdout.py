"""Splitting what comes in one piece."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lilliput.core.errors import DataError
from lilliput.data.order import Index


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """Shares of the samples to hold out for validation and test, drawn with `seed`.

    Classes keep their proportions: each split gets its share of every class, to within one sample.
    """

    val: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.val < 1 and 0 < self.test < 1 and self.val + self.test < 1):
            raise DataError(f"val and test are shares between 0 and 1 that leave something to train on, "
                            f"not {self.val} and {self.test}")

    def divide(self, targets: Tensor, *, val: bool = True, test: bool = True) -> tuple[Index, Index, Index]:
        """Sample numbers `(train, val, test)`, each ascending; those not asked for are empty.

        Stratified where `targets` are classes (integers), uniform otherwise. Raises `DataError` where a split
        would be empty.
        """
        count = len(targets)
        order = np.random.default_rng(self.seed).permutation(count)
        if not targets.is_floating_point():
            order = order[np.argsort(targets.numpy()[order], kind="stable")]
        shares = (self.val if val else 0.0, self.test if test else 0.0)
        taken = [_every(count, shares[0])]
        rest = ~taken[0]
        held = np.zeros(count, dtype=bool)
        held[rest] = _every(int(rest.sum()), shares[1] / (1 - shares[0]))
        taken.append(held)
        for name, share, mask in zip(("val", "test"), shares, taken, strict=True):
            if share and not mask.any():
                raise DataError(f"{count} samples leave none for {name} at a share of {share}; "
                                "raise the share or pass more samples")
        train = ~(taken[0] | taken[1])
        if not train.any():
            raise DataError(f"{count} samples leave none to train on at shares of {shares}; pass more samples")
        return np.sort(order[train]), np.sort(order[taken[0]]), np.sort(order[taken[1]])


def _every(count: int, share: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """A mask of round(count * share) places, evenly spaced: over samples in class order this stratifies."""
    steps = np.floor(np.arange(count + 1) * share + 0.5)
    return np.asarray(np.diff(steps) > 0)
