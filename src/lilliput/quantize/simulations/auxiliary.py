"""A full-precision module beside a quantized network, through which gradients reach its layers without passing a rounding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.simulations.guided import Inner, edges
from lilliput.train import CrossEntropy, Hook, MeanSquaredError, State
from lilliput.train.evaluate import device_of
from lilliput.train.losses import Loss

_MODULE = "auxiliary"


class Auxiliary(nn.Module):
    """An adaptor to each inner value, `relu(bn(conv1(x)) + pooled sum so far)`, and a linear layer on the mean of the last.

    Inner values are `(N, C, ...)`; where positions or channels change from one to the next, the sum is pooled and projected.
    """

    def __init__(self, channels: list[int], width: int, outputs: int, dimensions: int) -> None:
        super().__init__()
        conv = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        norm = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dimensions]
        pointwise = {} if dimensions == 0 else {"kernel_size": 1}
        self.adaptors = nn.ModuleList(nn.Sequential(conv(c, width, bias=False, **pointwise), norm(width)) for c in channels)
        self.head = nn.Linear(width, outputs)
        self.dimensions = dimensions

    def forward(self, values: list[Tensor]) -> Tensor:
        """The auxiliary outputs, `(N, outputs)`."""
        pool = {1: nn.functional.adaptive_avg_pool1d, 2: nn.functional.adaptive_avg_pool2d, 3: nn.functional.adaptive_avg_pool3d}
        total: Tensor | None = None
        for adaptor, value in zip(self.adaptors, values, strict=True):
            adapted: Tensor = adaptor(value)
            if total is not None:
                if self.dimensions and total.shape != adapted.shape:
                    total = pool[self.dimensions](total, adapted.shape[2:])  # type: ignore[arg-type]
                adapted = adapted + total
            total = adapted.relu()
        assert total is not None
        scores: Tensor = self.head(total.flatten(2).mean(2) if self.dimensions else total)
        return scores


class Assisted(Hook):
    """Adds `weight` times the loss of an auxiliary full-precision module, which reads the network's inner values and is gone in
    the end.

    Its gradients reach a layer through an adaptor of floating point instead of through all the roundings after it. The
    low-precision layers are shared, the adaptors, their sum and the classifier are the module's own. The paper's module reads the
    blocks of a residual network; here it reads what low-bit edges are given. That adaptors are `relu(bn(conv1(x)) + sum)` follows
    our reading of its figure 2, of which we are not sure. (zhuang2020auxiliary)
    """

    def __init__(self, *, weight: float = 1.0, width: int = 32, loss: Loss | None = None, bits: int = 7) -> None:
        if not 0 <= weight < float("inf") or width < 1:
            raise RecipeError(f"weight of the auxiliary loss must not be negative and its width is at least 1, not {weight!r} "
                              f"and {width!r}")
        self.weight, self.width, self.own, self.bits = weight, width, loss, bits
        self._inner: Inner | None = None

    def __repr__(self) -> str:
        return f"Assisted(weight={self.weight!r}, width={self.width!r}, loss={self.own!r}, bits={self.bits!r})"

    def start(self, state: State) -> None:
        """Look at the inner values once, and add the module to the network, so that it is trained and saved with it."""
        names = edges(state.model, self.bits)
        if not names:
            raise PreconditionError(f"the network has no activations of up to {self.bits} bits to assist: lower the bits of the "
                                    "scheme, or raise those of Assisted")
        self._inner = Inner(state.model, names)
        training = state.model.training
        state.model.eval()
        with torch.no_grad():
            outputs = state.model(*(x.to(device_of(state.model)) for x in state.model.example))  # type: ignore[union-attr]
        state.model.train(training)
        values = list(self._inner.values.values())
        ranks = {value.ndim for value in values}
        if len(ranks) > 1 or not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise PreconditionError("an auxiliary module needs inner values of one rank and scores (N, outputs): exclude the "
                                    "layers that differ")
        module = Auxiliary([value.shape[1] for value in values], self.width, outputs.shape[1], ranks.pop() - 2)
        state.model.add_module(_MODULE, module.to(outputs.device).train(training))

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:  # noqa: ARG002
        """The weighted sum."""
        if self._inner is None or state.targets is None:
            raise PreconditionError("Assisted works inside train.fit: pass it in hooks=")
        plain: Loss = self.own or (CrossEntropy() if state.data.num_classes else MeanSquaredError())
        scores = state.model.get_submodule(_MODULE)(list(self._inner.values.values()))
        return loss + self.weight * plain(scores, state.targets)

    def end(self, state: State) -> None:
        """Remove the module."""
        if self._inner is not None:
            self._inner.remove()
            delattr(state.model, _MODULE)
            self._inner = None
