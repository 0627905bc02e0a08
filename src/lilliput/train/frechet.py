"""The Fréchet distance between two sets of features, each taken for a normal distribution [heusel2017ttur]."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lilliput.core.errors import DataError
from lilliput.train.evaluate import device_of, evaluating

Gaussian = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean `(d,)` and covariance `(d, d)`."""


def gaussian(features: Tensor) -> Gaussian:
    """Mean and unbiased covariance of features `(N, d)`; raises `DataError` for fewer than two, or ones that are not finite."""
    values = features.detach().cpu().double().numpy()
    if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
        raise DataError(f"a distribution needs two feature vectors or more, all finite, not shape {values.shape}")
    return values.mean(0), np.atleast_2d(np.cov(values, rowvar=False))


def frechet(a: Gaussian, b: Gaussian) -> float:
    """`|m - n|^2 + tr(S + T - 2 (S T)^(1/2))`, the squared distance of `N(m, S)` and `N(n, T)` [dowson1982frechet].

    The trace of the root is the sum of the roots of the eigenvalues of `S^(1/2) T S^(1/2)`, which is symmetric.

    >>> import numpy as np
    >>> frechet((np.zeros(2), np.diag([1.0, 4.0])), (np.array([3.0, 0.0]), np.diag([4.0, 1.0])))
    11.0
    """
    (m, s), (n, t) = a, b
    values, vectors = np.linalg.eigh(s)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    crossed = np.linalg.eigvalsh(root @ t @ root).clip(0)
    return max(0.0, float(np.square(m - n).sum() + np.trace(s) + np.trace(t) - 2 * np.sqrt(crossed).sum()))


def feature_distance(network: nn.Module, a: Tensor, b: Tensor, *, batch_size: int = 256) -> float:
    """The Fréchet distance of two sets of images `(N, ...)` in the features `(N, d)` that `network` gives to them.

    What it measures depends on the network and on how many images there are: compare only values that have both in common.
    """
    return frechet(*(gaussian(_features(network, images, batch_size)) for images in (a, b)))


def _features(network: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    device = device_of(network)
    with evaluating(network):
        return torch.cat([network(part.to(device)) for part in torch.split(images, batch_size)])
