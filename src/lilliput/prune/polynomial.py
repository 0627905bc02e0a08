"""A product of polynomials, one in each dimension, and its regression on a few samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Floats = NDArray[np.float64]
_ROUNDS = 20


@dataclass(frozen=True, eq=False)
class Product:
    """`F(x) = prod_i sum_j c_ij x_i^j`; `coefficients[i]` are those of dimension `i`, the constant first. (wang2021three)

    >>> float(Product((np.array([1.0, 2.0]), np.array([3.0])))(np.array([[0.5, 9.0]]))[0])
    6.0
    """

    coefficients: tuple[Floats, ...]

    def __call__(self, points: Floats) -> Floats:
        """Values `(n,)` at points `(n, dimensions)`."""
        found: Floats = np.prod([self.factor(i, points) for i in range(len(self.coefficients))], axis=0)
        return found

    def factor(self, dimension: int, points: Floats) -> Floats:
        """The factor of one dimension at points."""
        return np.vander(points[:, dimension], len(self.coefficients[dimension]), increasing=True) @ self.coefficients[dimension]


def regress(points: Floats, values: Floats, degree: int) -> Product:
    """The product of least squared error at `values` `(n,)` of `points` `(n, dimensions)`, each factor of up to `degree`.

    One factor at a time first, the others as they are, then all together by Gauss and Newton in a trust region. A dimension has at most one
    degree less than values in it, so one that does not vary has a constant.
    """
    dimensions = points.shape[1]
    product = Product(tuple(np.eye(1, min(degree, len(np.unique(points[:, i])) - 1) + 1)[0] for i in range(dimensions)))
    for i in list(range(dimensions)) * _ROUNDS:
        others = np.prod([product.factor(j, points) for j in range(dimensions) if j != i], axis=0)
        powers = np.vander(points[:, i], len(product.coefficients[i]), increasing=True)
        found = np.linalg.lstsq(powers * others[:, None], values, rcond=None)[0]
        product = Product((*product.coefficients[:i], found, *product.coefficients[i + 1:]))
    sizes = np.cumsum([len(c) for c in product.coefficients])[:-1]
    # In units of the values, so that when to stop does not depend on what they count.
    unit = float(np.abs(values).max()) or 1.0
    fitted = optimize.least_squares(lambda c: (Product(tuple(np.split(c, sizes)))(points) - values) / unit, np.concatenate(product.coefficients),
                                    x_scale="jac", xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=500)
    return Product(tuple(np.split(fitted.x, sizes)))
