"""INQ: weights become powers of two part by part, the largest first, while the rest is still trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.calibrate import constants
from lilliput.quantize.grids import Grid
from lilliput.quantize.levels import PowerOfTwo
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.simulations.base import OnGrid, leave_, positive
from lilliput.quantize.simulations.dorefa import expanded
from lilliput.train import Hook, State
from lilliput.train.hooks import Batch


class Partitioned(OnGrid):
    """Weights that are frozen at powers of two, and the rest as it is, which alone receives gradients; in evaluation all are on
    the grid.
    """

    def __init__(self, grid: Grid, w: Tensor) -> None:
        super().__init__(grid)
        largest = positive(w.detach().abs().max())
        self.register_buffer("top", 2.0 ** (4 * largest / 3).log2().floor())
        self.register_buffer("frozen", torch.zeros_like(w, dtype=torch.bool))
        self.register_buffer("values", torch.zeros_like(w.detach()))

    def on_grid(self, w: Tensor) -> Tensor:
        """Every weight at its power of two, frozen ones where they were frozen."""
        nearest = self.nearest(w, expanded(self.get_buffer("top"), self.grid, w))
        return torch.where(self.get_buffer("frozen"), self.get_buffer("values"), nearest)

    def freeze_(self, w: Tensor, share: float) -> None:
        """Freeze the largest of the weights that are free, until `share` of all are frozen."""
        frozen = self.get_buffer("frozen")
        missing = round(share * frozen.numel()) - int(frozen.sum())
        if missing > 0:
            values = self.on_grid(w.detach())
            chosen = torch.where(frozen, -1.0, w.detach().abs()).flatten().topk(missing).indices
            frozen[torch.unravel_index(chosen, frozen.shape)] = True  # in any memory format
            self.get_buffer("values").copy_(torch.where(frozen, values, 0.0))

    def forward(self, w: Tensor) -> Tensor:
        """The mixture, or in evaluation the grid."""
        return torch.where(self.get_buffer("frozen"), self.get_buffer("values"), w) if self.training else self.on_grid(w)

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """The scale, which was fixed at the start."""
        assert tensor is not None
        leave_(quantizer, expanded(self.get_buffer("top"), self.grid, tensor))
        return self.on_grid(tensor)


@dataclass(frozen=True, kw_only=True)
class IncrementalPowers:
    """Weights become zero or `+-2^k`, from `2^floor(log2(4 max|w| / 3))` downwards, when the hook `Incremental` freezes them.

    Nearest levels are the paper's equation 4. Departs from the paper in how many powers `bits` give: as many as there are codes
    beside zero (`PowerOfTwo`), where the paper spends a code bit on the zero. (zhou2017inq)
    """

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install the partition, nothing frozen yet."""
        if tensor is None or not isinstance(quantizer.grid, PowerOfTwo):
            raise PreconditionError(f"{quantizer.layer}: incremental powers of two are for weights on PowerOfTwo(), not "
                                    f"{quantizer.grid}; see the scheme")
        quantizer.simulation = Partitioned(quantizer.grid, tensor)


@dataclass(frozen=True, kw_only=True)
class Incremental(Hook):
    """Freezes a larger share of every weight at given shares of training: `((when, share), ...)`, the last share 1.

    Half, three quarters, seven eighths, all, as in the paper, whose stages are as long as they need; here all weights are frozen
    in time for the batch norms and biases to follow. (zhou2017inq)
    """

    stages: tuple[tuple[float, float], ...] = ((0.0, 0.5), (0.3, 0.75), (0.55, 0.875), (0.8, 1.0))

    def __post_init__(self) -> None:
        times, shares = zip(*self.stages, strict=True) if self.stages else ((), ())
        rising = list(times) == sorted(times) and list(shares) == sorted(shares)
        if not rising or not shares or shares[-1] != 1 or times[0] < 0 or times[-1] >= 1:
            raise RecipeError("stages are (when, share) with both rising, when in [0, 1) and the last share 1, not "
                              f"{self.stages!r}")

    def batch(self, state: State, batch: Batch) -> Batch:
        """Freeze what is due."""
        share = max((share for when, share in self.stages if state.progress >= when), default=0.0)
        for quantizer, tensor in constants(state.model):  # type: ignore[arg-type]
            if isinstance(quantizer.simulation, Partitioned):
                quantizer.simulation.freeze_(tensor, share)
        return batch
