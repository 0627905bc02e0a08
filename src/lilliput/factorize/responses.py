"""Output-aware low rank: the pair of layers whose response, through the nonlinearity, is nearest the original's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError
from lilliput.factorize.factors import Factor
from lilliput.factorize.layers import Layer, matrix
from lilliput.factorize.lowrank import Count, Decomposed, Ranks, Spectrum, two
from lilliput.factorize.pairs import Pair

# Rounds end early where one changes the error by less than this share.
_SETTLED = 1e-4
# Directions of the inputs with less than this share of the largest energy count as absent.
_NOTHING = 1e-10


@dataclass(frozen=True, kw_only=True)
class Responses:
    """`min sum |r(y) - r(M y^ + b)|^2` over `M` of rank `d`, `y` the original's responses and `y^ = W x^` those of its weights
    to what the factorized network so far feeds them (asymmetric).

    Where a clamp `r` reads the response, auxiliary `z` relax the problem to `sum |r(y) - r(z)|^2 + p |z - M y^ - b|^2`, solved in
    turn for `z`, entry by entry, and for `M` and `b`, by generalised SVD (reduced-rank regression); `penalties` lists the values
    of `p`, each held for up to `rounds` rounds. Without a clamp the second problem alone, once. `M = P Q'` makes
    `d` kernels `Q' W` and a 1x1 `P`. Ranks are judged by the energy of the responses' principal components. Departs from the paper in its
    treatment of a clamp's upper end (it knows ReLU), and of layers that an addition reads, as in residual networks: those are
    linear here. (zhang2015gsvd)
    """

    penalties: tuple[float, ...] = (0.01, 1.0)
    rounds: int = 25
    sees: ClassVar[bool] = True

    def __call__(self, layer: Layer, tensors: tuple[Tensor, Tensor | None], covariance: Tensor | None) -> Decomposed | str:
        """Decompose one layer."""
        if layer.groups > 1:
            return "a grouped convolution"
        if covariance is None:
            raise PreconditionError("response-aware factorization needs responses: pass data=")
        return ResponseSpace(layer, tensors, covariance, self)


class ResponseSpace:
    """One layer, judged by its responses."""

    def __init__(self, layer: Layer, tensors: tuple[Tensor, Tensor | None], covariance: Tensor, method: Responses) -> None:
        self.layer, self.method = layer, method
        self._weight = matrix(tensors[0])
        self._bias = torch.zeros(len(self._weight), dtype=torch.float64) if tensors[1] is None else tensors[1].detach().double()
        power = torch.linalg.eigvalsh(covariance.double()).flip(0).clamp(min=0).numpy()
        count = min(self._weight.shape)
        self.spectra: tuple[Spectrum, ...] = (Spectrum(values=np.sqrt(power[:count]), rows=len(power), columns=self._weight.shape[1]),)

    def params(self, ranks: tuple[Count, ...]) -> Count:
        """`d (in * kernel + out)`."""
        return ranks[0] * (self._weight.shape[1] + self._weight.shape[0])

    def macs(self, ranks: tuple[Count, ...]) -> Count:
        """As many for each position."""
        return self.layer.positions * self.params(ranks)

    def factors(self, ranks: Ranks, seen: Pair | None) -> tuple[Factor, ...]:
        """`d` kernels, then combinations with a bias."""
        if seen is None:
            raise PreconditionError("response-aware factorization needs responses: pass data=")
        left, right, shift = self.solve(seen, ranks[0])
        return two(self.layer, left, right @ self._weight, shift)

    def solve(self, seen: Pair, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """`P` `(out, d)`, `Q'` `(d, out)` and the bias of `P Q' W x + b`."""
        wanted, made = seen.wanted.double(), seen.made.double() - self._bias
        fitted = Regression(made)
        first = fitted(wanted, rank)
        if seen.clamp is None:
            return first
        target = wanted.clamp(*seen.clamp)

        def outcome(found: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, float]:
            left, right, shift = found
            now = (made @ right.T) @ left.T + shift
            return now, float((now.clamp(*seen.clamp) - target).square().sum())  # type: ignore[misc]

        best = (outcome(first)[1], first)
        now = made + self._bias
        for penalty in self.method.penalties:
            before = float("inf")
            for _ in range(self.method.rounds):
                solution = fitted(relaxed(target, now, penalty, seen.clamp), rank)
                now, error = outcome(solution)
                # The relaxation need not end where it is best.
                best = min(best, (error, solution), key=lambda pair: pair[0])
                if abs(before - error) <= _SETTLED * error:
                    break
                before = error
        return best[1]


class Regression:
    """Reduced-rank regression on fixed inputs `(positions, m)`, with an intercept or without."""

    def __init__(self, inputs: Tensor, *, intercept: bool = True) -> None:
        self._intercept = intercept
        self._mean = inputs.mean(0) * intercept
        centred = inputs - self._mean
        power, vectors = torch.linalg.eigh(centred.T @ centred)
        # Directions without energy (dead inputs, a low rank before) get no weight instead of an arbitrary one.
        used = power > power[-1] * _NOTHING
        self._whitening = vectors[:, used] / power[used].sqrt()
        self._white = centred @ self._whitening

    def __call__(self, outputs: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """`U` `(out, rank)` and `V` `(rank, m)` of least `|y - U V x - b|^2`, and `b`.

        With `Z` the whitened inputs, the least-squares fit is `Z Z'Y`; `U` are its leading principal directions, the right
        singular vectors of `Z'Y`, and `U V` its projection on them.
        """
        mean = outputs.mean(0) * self._intercept
        # The whitened inputs are centred, so that the mean of the outputs drops out.
        fit = self._white.T @ outputs
        directions = torch.linalg.svd(fit, full_matrices=False)[2][:rank].T
        right = directions.T @ fit.T @ self._whitening.T
        missing = rank - directions.shape[1]
        left, right = F.pad(directions, (0, missing)), F.pad(right, (0, 0, 0, missing))
        return left, right, mean - left @ (right @ self._mean)


def relaxed(target: Tensor, now: Tensor, penalty: float, ends: tuple[float, float]) -> Tensor:
    """`argmin_z (target - clamp(z))^2 + penalty (z - now)^2`, entry by entry: the best of the clamp's three pieces."""
    low, high = ends
    best = now.mul(penalty).add_(target).div_(penalty + 1).clamp_(low, high)
    least = (target - best).square_().add_((best - now).square_(), alpha=penalty)
    for piece, end in ((now.clamp(max=low), low), (now.clamp(min=high), high)):
        if abs(end) == float("inf"):
            continue
        cost = (target - end).square_().add_((piece - now).square_(), alpha=penalty)
        best, least = torch.where(cost < least, piece, best), torch.minimum(cost, least)
    return best
