"""Channel bits in training: coordinates from the weights' distribution, or coordinates that are fitted in view of the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.quantize.mixed.lowering import ChannelBits
from lilliput.quantize.mixed.multibit import Bases, MultiBit, normal_coordinates
from lilliput.quantize.simulations.base import replaced


def _rows(x: Tensor, axis: int) -> Tensor:
    return x.detach().movedim(axis, 0).flatten(1)


class Distributed(Bases):
    """Coordinates tabulated for normal weights, times a moving average of the channel's mean magnitude."""

    level: Tensor
    count: Tensor
    error: Tensor

    def __init__(self, grid: MultiBit, weight: Tensor, momentum: float) -> None:
        rows = _rows(weight, 0 if grid.axis is None else grid.axis)
        super().__init__(grid, len(rows))
        self.momentum = momentum
        table = torch.zeros(grid.bits + 1, grid.bits)
        for bits in range(1, grid.bits + 1):
            table[bits, :bits] = torch.tensor(normal_coordinates(bits))
        self.register_buffer("known", table, persistent=False)
        self.register_buffer("level", rows.abs().mean(1))
        self.register_buffer("count", torch.full((len(rows),), grid.bits))
        self.register_buffer("error", torch.zeros(len(rows)))
        self._refresh()

    def _refresh(self) -> None:
        self.coordinates.copy_(self.get_buffer("known")[self.count] * self.level[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Quantize; in training, the mean magnitude moves along and the loss that rounding costs is estimated."""
        if self.training:
            with torch.no_grad():
                self.level.lerp_(_rows(x, self.axis).abs().mean(1), self.momentum)
                self._refresh()
        y = self.nearest(x)
        if self.training and y.requires_grad:
            difference = x.detach() - y.detach()
            y.register_hook(lambda grad: self._estimate(difference, grad))  # type: ignore[no-untyped-call]
        return y

    def _estimate(self, difference: Tensor, grad: Tensor) -> None:
        self.error += _rows(difference * grad, self.axis).mean(1)

    @property
    def bits(self) -> Tensor:
        """Bits of every channel."""
        return self.count

    def scores(self, weight: Tensor) -> Tensor:  # noqa: ARG002
        """`|sum_steps mean (w - Q(w)) dL/dQ(w)|`: the first term of Taylor's expansion of what rounding changes in the loss."""
        return torch.where(self.count > 0, self.error.abs(), torch.inf)[:, None]

    def drop_(self, dropped: Tensor) -> None:
        """One bit less; estimates start anew."""
        self.count -= dropped[:, 0].long()
        self.error.zero_()
        self._refresh()


@dataclass(frozen=True, kw_only=True)
class LossGuided(ChannelBits):
    """The channels whose rounding changes the loss least lose a bit, round after round.

    The authors' code sorts by the signed estimate; here its magnitude counts. The tables are least squares for the normal
    distribution, computed here; theirs differ slightly. (zhao2021dmbq)
    """

    momentum: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.momentum <= 1:
            raise RecipeError(f"momentum lies above 0 and up to 1, not {self.momentum!r}")

    def simulation(self, grid: MultiBit, weight: Tensor) -> Bases:
        """Tabulated coordinates."""
        return Distributed(grid, weight, self.momentum)


class Fitted(Bases):
    """Coordinates that minimise `(B a - w)' H (B a - w)` for the nearest signs `B`, with `H` from the squares of past gradients.

    `H = sqrt(v)`, `v` the largest so far of the moving average of squared gradients, as in AMSGrad.
    """

    first: Tensor
    second: Tensor
    most: Tensor
    steps: Tensor

    def __init__(self, grid: MultiBit, weight: Tensor, rate: float) -> None:
        rows = _rows(weight, 0 if grid.axis is None else grid.axis)
        super().__init__(grid, len(rows))
        self.rate = rate
        for name in ("first", "second", "most"):
            self.register_buffer(name, torch.zeros_like(rows))
        self.register_buffer("steps", torch.tensor(0))
        self._sketch(rows)

    def _sketch(self, rows: Tensor) -> None:
        """One basis after the other: the signs of what is left, then all coordinates anew by least squares."""
        signs = torch.zeros(*rows.shape, 0)
        rest = rows
        for _ in range(self.grid.bits):
            signs = torch.cat([signs, torch.where(rest >= 0, 1.0, -1.0)[..., None]], 2)
            found = solve(signs, rows, torch.ones_like(rows))
            rest = rows - (signs @ found[..., None])[..., 0]
        self.coordinates.copy_(found.abs())

    def forward(self, x: Tensor) -> Tensor:
        """Quantize; the gradient passes straight, and is remembered."""
        y = replaced(x, self.nearest(x).detach())
        if self.training and y.requires_grad:
            y.register_hook(self._remember)  # type: ignore[no-untyped-call]
        return y

    def _remember(self, grad: Tensor) -> None:
        rows = _rows(grad, self.axis)
        self.steps += 1
        self.first.lerp_(rows, 0.1)
        self.second.lerp_(rows.square(), 0.001)
        torch.maximum(self.most, self.second, out=self.most)

    def curvature(self) -> Tensor:
        """`sqrt(v)`, corrected for its start at zero, `(channels, weights)`."""
        return (self.most / (1 - 0.999 ** max(int(self.steps), 1))).sqrt() + 1e-8

    def update_(self, weight: Tensor) -> None:
        """Coordinates by weighted least squares; those dropped stay so."""
        kept = self.coordinates > 0
        found = solve(self.signs(weight) * kept[:, None], _rows(weight, self.axis), self.curvature())
        self.coordinates.copy_(torch.where(kept, found.abs().clamp(min=1e-12), 0.0))

    def scores(self, weight: Tensor) -> Tensor:
        """`-g a + h a^2 / 2`: the rise of the quadratic model when a coordinate goes, `g` and `h` those of the coordinate."""
        gradient = self.rate * self.first / (1 - 0.9 ** max(int(self.steps), 1))
        slope = (self.signs(weight) * gradient[..., None]).sum(1)
        rise = -slope * self.coordinates + 0.5 * self.curvature().sum(1)[:, None] * self.coordinates.square()
        return torch.where(self.coordinates > 0, rise, torch.inf)

    def drop_(self, dropped: Tensor) -> None:
        """Coordinates of zero."""
        self.coordinates.masked_fill_(dropped, 0.0)


def solve(signs: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """`argmin_a sum_j h_j (w_j - B_j a)^2` for each channel, `(channels, bases)`: the normal equations with a touch of ridge."""
    scaled = signs * weights[..., None]
    left, right = scaled.transpose(1, 2) @ signs, scaled.transpose(1, 2) @ rows[..., None]
    ridge = 1e-6 * left.diagonal(dim1=1, dim2=2).amax(1).clamp(min=1e-20)
    eye = torch.eye(signs.shape[2]).to(left)
    found: Tensor = torch.linalg.solve(left + ridge[:, None, None] * eye, right)[..., 0]
    return found


@dataclass(frozen=True, kw_only=True)
class LossAware(ChannelBits):
    """The coordinates go that a quadratic model of the loss minds least, until the average of bits is met: below 1 if need be.

    Departs from the paper in groups that are output channels, in float weights that are kept and trained straight through
    from the start (the paper's last phase), and in fitting the coordinates after every step; `rate` is the learning rate of
    the model's gradient. (qu2020alq)
    """

    rate: float = 1e-3

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise RecipeError(f"the rate is positive, not {self.rate!r}")

    def simulation(self, grid: MultiBit, weight: Tensor) -> Bases:
        """Fitted coordinates."""
        return Fitted(grid, weight, self.rate)
