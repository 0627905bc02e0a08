"""Quantizers: the modules that stand on the edges of a simulated quantized network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from lilliput.core.errors import DataError, PreconditionError
from lilliput.quantize.grids import Grid, Integer, Parameters
from lilliput.quantize.levels import Table
from lilliput.quantize.levels_op import fake_levels
from lilliput.quantize.op import fake_quantize
from lilliput.quantize.streams import Stream

_INT32 = (-(2**31), 2**31 - 1)


class Follow(Protocol):
    """Moves a quantizer's range along with the values that pass, before they are quantized; in training only."""

    def __call__(self, quantizer: Quantizer, x: Tensor) -> None:
        """Set the quantizer's scale and zero point in view of `x`."""


class Simulation(nn.Module, ABC):
    """How a training method rounds, in place of the quantizer's own way, until training ends.

    Its parameters are trained with the network's. What it returns in evaluation must lie on the grid that `settle` leaves; `whole` tells
    whether that holds whole numbers times a scale.
    """

    whole: ClassVar[bool] = True

    @property
    def limited(self) -> list[nn.Parameter]:
        """Parameters that are scales: positive, and kept so by the hook that lets them change by a tenth at most in one step."""
        return []

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Quantize `x`, with the method's gradients."""

    @abstractmethod
    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """Leave the final grid, scale and table in the quantizer; returns a weight's final values, which lie on it."""


class _ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by `factor`."""

    @staticmethod
    def forward(ctx: Any, scale: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return scale.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


class Quantizer(nn.Module):
    """Simulated quantization of one tensor.

    `scale` (float32; a parameter when learned) and `zero_point` (int32) have shape `()` or `(channels,)`; on a grid that is a
    table `levels` and `thresholds` hold it, `(K,)` and `(K - 1,)` or one row to each channel. It either observes (`stream`
    is set: values pass unchanged and are remembered), or a training method's `simulation` rounds, or it quantizes. `layer` names
    the layer for reports, `weight` tells constants from activations, `dead` counts channels that were all zero, `whole` tells
    whether values are whole numbers times the scale (on integer grids, and on the table -1, 0, 1).

    Raises `PreconditionError` when run before it was calibrated.
    """

    scale: Tensor
    zero_point: Tensor
    levels: Tensor
    thresholds: Tensor

    def __init__(self, grid: Grid, *, layer: str, weight: bool, channels: int | None = None) -> None:
        super().__init__()
        shape = () if channels is None else (channels,)
        self.layer, self.weight = layer, weight
        self.register_buffer("scale", torch.full(shape, torch.nan))
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int32))
        self.regrid(grid)
        self.calibrated = False
        self.dead = 0
        self.stream: Stream | None = None
        self.follow: Follow | None = None
        self.simulation: Simulation | None = None
        self.bypassed = False  # values pass unchanged, for diagnosis
        self.gradient_scaled = False
        self.before: list[Tensor] = []  # the learned scales before the present step of training

    def regrid(self, grid: Grid) -> None:
        """Change the grid; the scale stays, the table is the new grid's."""
        self.grid = grid
        for name in ("levels", "thresholds"):
            self._buffers.pop(name, None)
        self.whole = True
        if isinstance(grid, Table):
            self.tabulate(grid.table, grid.thresholds)

    def tabulate(self, levels: Tensor, thresholds: Tensor) -> None:
        """Take a table of levels, relative to the scale, and the points between them."""
        self.register_buffer("levels", levels.detach().clone().float())
        self.register_buffer("thresholds", thresholds.detach().clone().float())
        self.whole = self.levels.tolist() == [-1.0, 0.0, 1.0]

    def set(self, parameters: Parameters) -> None:
        """Take scale and zero point; in place where their shape stays."""
        with torch.no_grad():
            if self.scale.shape == parameters.scale.shape and self.zero_point.shape == parameters.zero_point.shape:
                self.scale.copy_(parameters.scale)
                self.zero_point.copy_(parameters.zero_point)
            else:
                self.scale, self.zero_point = parameters.scale.detach().clone(), parameters.zero_point.clone()
        self.dead = int(parameters.dead.sum())
        self.calibrated = True

    def learn(self) -> None:
        """Make the scale a parameter whose gradient is multiplied by `1 / sqrt(N qmax)`, `N` the values per scale and sample."""
        scale = self.scale.detach()
        del self.scale
        self.scale = nn.Parameter(scale)
        self.gradient_scaled = True

    @property
    def integer(self) -> bool:
        """Whether a layer's sums of these values are whole numbers times a scale: not where scales lie along a weight's inputs."""
        return self.whole and (self.simulation is None or self.simulation.whole) and self.grid.axis in (None, 0, 1)

    @property
    def learned(self) -> list[Tensor]:
        """Scales that are trained: its own, or those of the simulation."""
        return list(self.simulation.limited) if self.simulation is not None else [self.scale] if self.gradient_scaled else []

    def forward(self, x: Tensor) -> Tensor:
        """Quantize `x`, or observe it."""
        if self.bypassed:
            return x
        if self.stream is not None:
            try:
                self.stream.update(x.detach())
            except DataError as error:
                raise DataError(f"{self.layer}: {error}; check the calibration data and the statistics of batch norms, or exclude the layer") from None
            return x
        if not self.calibrated:
            raise PreconditionError(f"{self.layer} was never calibrated: run lilliput.quantize.calibrate(model, data) before using or exporting it")
        if self.simulation is not None:
            simulated: Tensor = self.simulation(x)
            return simulated
        scale, zero_point = self.scale, self.zero_point
        if self.training and self.follow is not None:
            self.follow(self, x)
            # The follower writes in place; a second pass before the backward must not find its saved tensors changed.
            scale, zero_point = scale.clone(), zero_point.clone()
        if self.training and self.gradient_scaled:
            count = x.numel() / scale.numel() / (1 if self.weight else max(x.shape[0], 1) if x.ndim else 1)
            top = self.grid.qmax if isinstance(self.grid, Integer) else 1
            scale = _ScaleGradient.apply(scale, (count * top) ** -0.5)  # type: ignore[no-untyped-call]
        axis = -1 if self.grid.axis is None else self.grid.axis
        result: Tensor
        if isinstance(self.grid, Integer):
            result = fake_quantize(x, scale, zero_point, self.grid.qmin, self.grid.qmax, axis)
        else:
            result = fake_levels(x, scale, self.levels, self.thresholds, axis)
        return result

    def settle(self, tensor: Tensor | None) -> Tensor | None:
        """End a training method's simulation; returns the final values of the weight `tensor`, None where they stay."""
        if self.simulation is None:
            return None
        with torch.no_grad():
            values = self.simulation.settle(self, tensor)
        self.simulation = None
        self.calibrated = True
        return values

    def extra_repr(self) -> str:
        """Layer and grid."""
        return f"{self.layer!r}, {self.grid}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.calibrated = bool(torch.isfinite(self.scale).all())
        self.whole = isinstance(self.grid, Integer) or self.levels.tolist() == [-1.0, 0.0, 1.0]


class SameQuantizer(nn.Module):
    """The quantizer of another edge once more, after an operator that only moves, drops or zeroes values.

    Integer runtimes need the pair on both sides of such an operator. On values that lie on the grid it changes nothing,
    so it is skipped in training, where it would only distort the gradient of a learned scale. Of activations on a table, which
    have no integer runtime, it is skipped always: a learned table need not map its own levels to themselves.
    """

    def __init__(self, source: Quantizer) -> None:
        super().__init__()
        self._source = (source,)  # a tuple, so that the source keeps a single name in the state dict

    @property
    def source(self) -> Quantizer:
        """The quantizer whose grid this edge keeps."""
        return self._source[0]

    def forward(self, x: Tensor) -> Tensor:
        """Quantize on the source's grid."""
        source = self.source
        if self.training or source.stream is not None or not (source.weight or isinstance(source.grid, Integer)):
            return x
        result: Tensor = source(x)
        return result


class BiasQuantizer(nn.Module):
    """A bias on the grid of the accumulator: int32 with scale `s_input * s_weight`, per output channel, zero point 0.

    In training the scale follows the two; `eval()` fixes it in the buffer `scale`, which is what gets exported. Where training
    has put one of the two on a table, there is no accumulator of integers and the bias stays in floating point.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, inputs: Quantizer, weights: Quantizer, channels: int) -> None:
        super().__init__()
        self._sources = (inputs, weights)
        self.layer = weights.layer
        self.register_buffer("scale", torch.full((channels,), torch.nan))
        self.register_buffer("zero_point", torch.zeros(channels, dtype=torch.int32))

    @property
    def sources(self) -> tuple[Quantizer, Quantizer]:
        """The quantizers of the layer's input and of its weight."""
        return self._sources

    @property
    def integer(self) -> bool:
        """Whether both sources hold integers, so that there is an accumulator."""
        return all(source.integer for source in self._sources)

    def live(self) -> Tensor:
        """The product of the two scales as they are now, `(channels,)`."""
        inputs, weights = self._sources
        return (inputs.scale * weights.scale).detach().expand_as(self.scale)

    def settle(self) -> None:
        """Fix the exported scale at the present product."""
        if self.integer:
            self.scale.copy_(self.live())

    def train(self, mode: bool = True) -> BiasQuantizer:
        """Leaving training fixes the scale."""
        if not mode:
            self.settle()
        super().train(mode)
        return self

    def forward(self, bias: Tensor) -> Tensor:
        """Quantize the bias; while its sources observe, it passes unchanged."""
        if not self.integer or any(source.stream is not None or source.bypassed for source in self._sources):
            return bias
        scale = self.live().clone() if self.training else self.scale
        result: Tensor = fake_quantize(bias, scale, self.zero_point, *_INT32, 0)
        return result
