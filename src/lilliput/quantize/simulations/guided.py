"""A network in full precision that is trained beside the quantized one, and guides it by its inner values."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.quantizer import Quantizer
from lilliput.train import CrossEntropy, Hook, MeanSquaredError, State
from lilliput.train.losses import Loss

_GUIDE = "full_precision_guide"


def attention(x: Tensor) -> Tensor:
    """The mean square over channels at each position, of length one for each sample, `(N, positions)`."""
    return nn.functional.normalize(x.square().mean(1).flatten(1) if x.ndim > 2 else x, dim=1)


class Inner:
    """What modules of a network are given, by name, in the order in which they run."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        self.values: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        for name in names:
            self._handles.append(model.get_submodule(name).register_forward_pre_hook(partial(self._keep, name)))

    def _keep(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG002
        self.values[name] = inputs[0]

    def remove(self) -> None:
        """Let go of the network."""
        for handle in self._handles:
            handle.remove()


def edges(model: nn.Module, most: int) -> list[str]:
    """Names of the activation quantizers of up to so many bits."""
    found = ((name, module) for name, module in model.named_modules() if isinstance(module, Quantizer) and not module.weight)
    return [name for name, module in found if module.grid.bits <= most]


class Guided(Hook):
    """Adds to the loss that of a full-precision copy, trained jointly, and `weight` times the distance of the two networks'
    attention maps.

    `L = L_q + L_full + w mean_edges |A_q - A_full|^2`, `A` the squares of the inputs of low-bit edges, averaged over channels and
    normalised. The copy starts from the network as it is, goes without quantizers, and is gone in the end. The paper compares a
    few maps of its networks by hand; here all low-bit edges count alike. (zhuang2018twostage)
    """

    def __init__(self, *, weight: float = 1.0, loss: Loss | None = None, bits: int = 7) -> None:
        if not 0 <= weight < float("inf"):
            raise RecipeError(f"weight of the guide must not be negative, not {weight!r}")
        self.weight, self.own, self.bits = weight, loss, bits
        self._inner: tuple[Inner, Inner] | None = None

    def __repr__(self) -> str:
        return f"Guided(weight={self.weight!r}, loss={self.own!r}, bits={self.bits!r})"

    def start(self, state: State) -> None:
        """Add the copy to the network, so that it is trained and saved with it."""
        names = edges(state.model, self.bits)
        if not names:
            raise PreconditionError(f"the network has no activations of up to {self.bits} bits to guide: lower the bits of the "
                                    "scheme, or raise those of Guided")
        guide = copy.deepcopy(state.model)
        for name, module in list(guide.named_modules()):
            if isinstance(module, Quantizer):
                # Biases and moved values ask the quantizer that they know.
                module.bypassed = True
                owner, _, leaf = name.rpartition(".")
                setattr(guide.get_submodule(owner), leaf, nn.Identity())
        state.model.add_module(_GUIDE, guide)
        self._inner = Inner(state.model, names), Inner(guide, names)

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:  # noqa: ARG002
        """The sum of the three."""
        if self._inner is None or state.inputs is None or state.targets is None:
            raise PreconditionError("Guided works inside train.fit: pass it in hooks=")
        plain: Loss = self.own or (CrossEntropy() if state.data.num_classes else MeanSquaredError())
        guide = state.model.get_submodule(_GUIDE)
        full = plain(guide(state.inputs), state.targets)
        low, high = (inner.values for inner in self._inner)
        apart = torch.stack([(attention(low[name]) - attention(high[name])).square().sum(1).mean() for name in low])
        return loss + full + self.weight * apart.mean()

    def end(self, state: State) -> None:
        """Remove the copy."""
        if self._inner is not None:
            for inner in self._inner:
                inner.remove()
            delattr(state.model, _GUIDE)
            self._inner = None
