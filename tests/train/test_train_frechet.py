"""The Fréchet distance against cases that can be worked out by hand, and scipy's matrix root."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from lilliput.core.errors import DataError
from lilliput.train import feature_distance, frechet
from lilliput.train.frechet import gaussian


def drawn(seed: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    return rng.normal(size=d), root @ root.T


def test_one_dimension_by_hand() -> None:
    # (m - n)^2 + (s - t)^2 with deviations s and t.
    assert frechet((np.array([1.0]), np.array([[4.0]])), (np.array([4.0]), np.array([[25.0]]))) == pytest.approx(9 + 9)


def test_covariances_that_do_not_commute() -> None:
    a, b = drawn(0, 5), drawn(1, 5)
    expected = np.square(a[0] - b[0]).sum() + np.trace(a[1] + b[1] - 2 * sqrtm(a[1] @ b[1]).real)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_features_that_never_vary_are_no_trouble() -> None:
    flat = np.diag([0.0, 1.0])
    assert frechet((np.zeros(2), flat), (np.zeros(2), np.diag([9.0, 1.0]))) == pytest.approx(9)


def test_gaussian_of_features_by_hand() -> None:
    mean, covariance = gaussian(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))
    assert mean.tolist() == [1.0, 2.0]
    assert covariance.tolist() == [[2.0, 4.0], [4.0, 8.0]]
    for wrong in (torch.zeros(1, 3), torch.zeros(4), torch.tensor([[0.0], [float("nan")]])):
        with pytest.raises(DataError, match="two feature vectors"):
            gaussian(wrong)


def test_a_shift_of_all_images_counts_by_its_square() -> None:
    images = torch.randn(300, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    network = nn.Flatten().train()
    assert feature_distance(network, images, images + 0.5, batch_size=77) == pytest.approx(4 * 0.25, rel=1e-4)
    assert network.training
