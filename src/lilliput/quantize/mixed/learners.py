"""Three ways to learn widths: interpolation between neighbours, sampled branches, and step and range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.core.errors import RecipeError
from lilliput.quantize.grids import Grid, Parameters
from lilliput.quantize.mixed.flexible import Flexible, Learner, at_width, between, interpolation, noise
from lilliput.quantize.op import along


class Fractional(Flexible):
    """`(1 - t) Q_a(w) + t Q_b(w)` for a width `bits` that lies the share `t` of the way from width `a` to the next, `b`."""

    def __init__(self, grid: Grid, widths: Sequence[int], start: float, count: int) -> None:
        super().__init__(grid, widths)
        self.count = count
        self.bits = nn.Parameter(torch.tensor(float(start)))

    def shares(self) -> Tensor:
        """Those of the interpolation."""
        return interpolation(self.bits, self.widths)

    def search(self, x: Tensor) -> Tensor:
        """Interpolated; the gradient to `bits` is the difference of the two."""
        lower, share = between(self.bits, self.widths)
        values = [at_width(x, self.grid.at(width)) for width in self.widths[lower : lower + 2]]
        return (1 - share) * values[0] + share * values[-1]

    def regret(self) -> Tensor:
        """The noise that each width would make."""
        return noise(self.bits, self.widths, self.count)

    @property
    def width(self) -> int:
        """The width fixed, or the nearest."""
        return int(self.fixed) or min(self.widths, key=lambda width: abs(width - float(self.bits.detach())))

    def project_(self) -> None:
        """Keep `bits` between the narrowest and the widest."""
        with torch.no_grad():
            self.bits.clamp_(self.widths[0], self.widths[-1])


@dataclass(frozen=True, kw_only=True)
class FractionalBits(Learner):
    """Widths between two whole ones; the price is `strength |C / C_limit - 1|`, summed over limits. (yang2020fracbits)"""

    strength: float = 1.0

    def __post_init__(self) -> None:
        _check(self.strength)

    def simulation(self, grid: Grid, widths: Sequence[int], start: float, count: int) -> Flexible:
        """An interpolation."""
        return Fractional(grid, widths, start, count)

    def priced(self, loss: Tensor, spent: Tensor, limits: Tensor) -> Tensor:
        """With the distance to every limit."""
        return loss + self.strength * (spent / limits - 1).abs().sum()


class Branches(Flexible):
    """`sum_k m_k Q_k(w)` with `m` a Gumbel softmax over logits: for a linear layer the mixture of the branches' results."""

    temperature: Tensor

    def __init__(self, grid: Grid, widths: Sequence[int], ends: tuple[float, float]) -> None:
        super().__init__(grid, widths)
        self.logits = nn.Parameter(torch.zeros(len(widths)))
        self.ends = ends
        self.register_buffer("temperature", torch.tensor(ends[0]))

    def shares(self) -> Tensor:
        """The probabilities."""
        return F.softmax(self.logits, 0)

    def search(self, x: Tensor) -> Tensor:
        """A sample of the mixture."""
        noise = -torch.empty_like(self.logits).exponential_().log()
        mixture = F.softmax((F.log_softmax(self.logits, 0) + noise) / self.temperature, 0)
        return torch.stack([m * at_width(x, self.grid.at(width)) for m, width in zip(mixture, self.widths, strict=True)]).sum(0)

    def regret(self) -> Tensor:
        """`-log p`: the widths of least total regret are the most probable sample."""
        return -F.log_softmax(self.logits, 0)

    def advance(self, progress: float) -> None:
        """Cool down exponentially."""
        first, last = self.ends
        self.temperature.fill_(first * (last / first) ** progress)


@dataclass(frozen=True, kw_only=True)
class SampledBranches(Learner):
    """One branch to each width, sampled by a Gumbel softmax that cools from `temperature`; the price multiplies the loss.

    `loss * prod (log C / log C_limit)^exponent`, the paper's `beta (log C)^gamma` with `beta` such that the factor is 1 at the
    limit. Departs from the paper in that costs are those of the probabilities instead of the sample's, that logits
    and weights learn from the same batches, and that the most probable widths within the limits are trained on instead of from
    the start. (wu2018dnas)
    """

    exponent: float = 0.9
    temperature: tuple[float, float] = (5.0, 0.5)

    def __post_init__(self) -> None:
        _check(self.exponent, *self.temperature)

    def simulation(self, grid: Grid, widths: Sequence[int], start: float, count: int) -> Flexible:  # noqa: ARG002
        """Branches of equal probability."""
        return Branches(grid, widths, self.temperature)

    def priced(self, loss: Tensor, spent: Tensor, limits: Tensor) -> Tensor:
        """With every cost as a factor; costs in units of a millionth of their limit, so that logarithms are positive."""
        unit = limits * 1e-6
        return loss * ((spent / unit).log() / (limits / unit).log()).pow(self.exponent).prod()


class StepAndRange(Flexible):
    """`sign(v) d floor(|v| / d + 1/2)` where `|v| <= q`, else `sign(v) q`, with step `d` and range `q` learned in logarithms.

    `v` is the weight over the largest magnitude of its channel (a departure: the paper has one step to a tensor), and the
    width is `ceil(log2(q / d + 1)) + 1`, passed straight through by its gradient. Once the width is fixed the step is
    `q / (2^(b - 1) - 1)` and the range learns on.
    """

    _LEAST = -4.0

    def __init__(self, grid: Grid, widths: Sequence[int], start: float, count: int) -> None:
        super().__init__(grid, widths)
        self.count = count
        self.range = nn.Parameter(torch.tensor(0.0))
        self.step = nn.Parameter(-torch.tensor(2.0 ** (start - 1) - 1).log2())

    def smooth(self) -> Tensor:
        """The width before it is rounded up."""
        return (2.0 ** (self.range - self.step) + 1).log2() + 1

    def shares(self) -> Tensor:
        """Those of the width rounded up."""
        bits = self.smooth()
        return interpolation(bits + (bits.detach() - 1e-4).ceil() - bits.detach(), self.widths)

    def search(self, x: Tensor) -> Tensor:
        """On the paper's grid, with the paper's gradients to step and range."""
        most, d, q = self._most(x), 2.0**self.step, 2.0**self.range
        v = x / most
        codes = v.sign() * (v.detach().abs() / d.detach() + 0.5).floor()
        rounded = d * (v / d + (codes - v / d).detach())
        return torch.where(v.detach().abs() <= q.detach(), rounded, v.detach().sign() * q) * most

    def _most(self, x: Tensor) -> Tensor:
        low, high = channel_extremes(x, self.grid)
        return along(torch.maximum(low.abs(), high.abs()).clamp(min=1e-30), x, -1 if self.grid.axis is None else self.grid.axis)

    def parameters_at(self, x: Tensor, width: int) -> Parameters:
        """The range learned, divided into the steps of the width."""
        scale, zero, dead = super().parameters_at(x, width)
        return Parameters(scale * 2.0**self.range, zero, dead)

    def rounded(self, x: Tensor, width: int) -> Tensor:
        """On the integers of that scale; values beyond it are clipped."""
        return at_width(x, self.grid.at(width), self.parameters_at(x, width))

    def regret(self) -> Tensor:
        """The noise that each width would make."""
        return noise(self.smooth(), self.widths, self.count)

    @property
    def width(self) -> int:
        """The width fixed, or the least that holds step and range."""
        return int(self.fixed) or next((w for w in self.widths if w >= float(self.smooth().detach()) - 1e-4), self.widths[-1])

    def project_(self) -> None:
        """Keep the range within the largest weight, and the width between the narrowest and the widest."""
        with torch.no_grad():
            self.range.clamp_(self._LEAST, 0.0)
            steps = torch.tensor([2.0 ** (width - 1) - 1 for width in (self.widths[-1], self.widths[0])])
            finest, coarsest = (float(self.range) - steps.log2()).tolist()
            self.step.clamp_(finest, coarsest)


def channel_extremes(x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Least and largest value of each channel of the grid, or of the tensor; no gradient."""
    rows = x.detach().reshape(1, -1) if grid.axis is None else x.detach().movedim(grid.axis, 0).flatten(1)
    low, high = rows.aminmax(dim=1)
    return (low.reshape(()), high.reshape(())) if grid.axis is None else (low, high)


@dataclass(frozen=True, kw_only=True)
class LearnedStep(Learner):
    """Step and range are learned, the width follows; the price is `strength max(0, C / C_limit - 1)`, summed over limits.

    Whether the paper squares what exceeds a limit is not certain. (uhlich2020dq)
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        _check(self.strength)

    def simulation(self, grid: Grid, widths: Sequence[int], start: float, count: int) -> Flexible:
        """The whole range, in steps of the width to start from."""
        return StepAndRange(grid, widths, start, count)

    def priced(self, loss: Tensor, spent: Tensor, limits: Tensor) -> Tensor:
        """With what exceeds the limits."""
        return loss + self.strength * (spent / limits - 1).clamp(min=0).sum()


def _check(*values: float) -> None:
    if not all(0 < value < float("inf") for value in values):
        raise RecipeError(f"strengths, exponents and temperatures are positive numbers, not {values!r}")
