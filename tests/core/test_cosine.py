"""The cosine transform: by hand, orthonormal, and scipy's in any number of dimensions."""

import math

import numpy as np
import pytest
from scipy.fft import dctn

from lilliput.core.cosine import cosine


def test_by_hand():
    np.testing.assert_allclose(cosine((2,)), np.array([[1, 1], [1, -1]]) / math.sqrt(2))
    # Three positions: constant, a slope that is zero in the middle, a bump.
    wanted = np.array([[1, 1, 1], [1, 0, -2], [1, -1, 1]]) / np.sqrt([3, 2, 6])
    np.testing.assert_allclose(cosine((3,)), wanted, atol=1e-12)
    assert cosine(()).tolist() == [[1.0]]


@pytest.mark.parametrize("sides", [(1,), (5,), (3, 3), (2, 5), (2, 3, 4)])
def test_orthonormal_and_the_usual_one(sides):
    basis = cosine(sides)
    np.testing.assert_allclose(basis.T @ basis, np.eye(math.prod(sides)), atol=1e-12)
    x = np.random.default_rng(0).normal(size=sides)
    np.testing.assert_allclose(x.reshape(-1) @ basis, dctn(x, norm="ortho").reshape(-1), atol=1e-12)
