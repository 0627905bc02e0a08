"""A criterion for each layer, learnt: a sampler mixes the masks that several criteria would make, and the loss says which is best."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Coupling
from lilliput.graph.fold import CONVOLUTIONS
from lilliput.graph.weights import weight_name
from lilliput.prune.criteria import Criterion, GeometricMedian, Layer, Magnitude
from lilliput.prune.maps import Tap, Tapped, behind, layers
from lilliput.prune.statistics import Batches, Statistic, Stats, Tensors, gather
from lilliput.train import loss_of

_CRITERIA: tuple[Criterion, ...] = (Magnitude(1.0), Magnitude(2.0), GeometricMedian())


def _per_filter(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1) if values.ndim > 1 else values


def _times(layer: fx.Node, mask: Tensor) -> Tap:
    return lambda z: z * (mask.reshape(-1, *[1] * (z.ndim - 2)) if layer.target in CONVOLUTIONS else mask)


@dataclass(frozen=True, kw_only=True)
class Preferences(Batches):
    """A logit for each criterion, for each layer that can be pruned, by the weight's name. (he2020lfpc)

    Each criterion would prune `share` of a layer's filters; the layer's mask is the mean of theirs, weighted by a Gumbel softmax of the logits.
    The logits are trained by Adam on the task's loss of the network under these masks, weights as they are, all layers at once.
    Masks lie behind the normalisation and activation of a layer, where they silence it as its removal does.
    We are unsure of the paper's temperature, step size and split of the data: here they are fixed, and the training split.
    """

    criteria: tuple[Criterion, ...] = _CRITERIA
    share: float = 0.5
    temperature: float = 1.0
    lr: float = 0.1
    batches: int = 64

    def __post_init__(self) -> None:
        if not self.criteria or not 0 < self.share < 1:
            raise RecipeError(f"a sampler chooses among criteria for a share in (0, 1), not among {len(self.criteria)} for {self.share}")

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """One pass backward to each batch."""
        model, loss = copy.deepcopy(traced).eval(), loss_of(data)
        masks = self.masks(model, data, seed)
        if not masks:
            return {}
        logits = {name: torch.zeros(len(self.criteria), requires_grad=True) for name in masks}
        optimizer, generator = torch.optim.Adam(list(logits.values()), lr=self.lr), torch.Generator().manual_seed(seed)
        for inputs, targets in self.drawn(data, seed):
            with torch.enable_grad():
                taps = {}
                for layer in layers(model):
                    if (name := weight_name(layer)) in masks:
                        uniform = torch.rand(len(self.criteria), generator=generator).clamp(1e-6, 1 - 1e-6)
                        shares = ((logits[name] - (-uniform.log()).log()) / self.temperature).softmax(0)
                        taps[behind(layer)] = _times(layer, shares @ masks[name])
                optimizer.zero_grad()
                loss(Tapped(model, given=taps).outputs(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return {name: value.detach() for name, value in logits.items()}

    def masks(self, model: Traced, data: Any, seed: int) -> dict[str, Tensor]:
        """What each criterion would keep of each layer, `(criteria, filters)`."""
        prunable = {slot.tensor for group in Coupling(model).groups for slot in group.slots if slot.role == "out" and slot.dim == 0}
        stats = gather(model, data, frozenset().union(*(c.needs for c in self.criteria)), seed=seed)
        found = {}
        for name in dict.fromkeys(weight_name(layer) for layer in layers(model)):
            if name not in prunable:
                continue
            weight = model.tensor(name).detach()
            scores = [_per_filter(c(Layer(name=name, weight=weight), stats)) for c in self.criteria]
            drop = min(round(self.share * len(weight)), len(weight) - 1)
            found[name] = torch.stack([torch.ones(len(weight)).index_fill_(0, s.argsort(stable=True)[:drop], 0.0) for s in scores])
        return found


@dataclass(frozen=True, kw_only=True)
class LearntCriterion:
    """Each layer by the criterion that its sampler prefers. (he2020lfpc)"""

    preferences: Preferences = field(default_factory=Preferences)
    roles: ClassVar[frozenset[str]] = frozenset({"out"})

    @property
    def needs(self) -> frozenset[Statistic]:
        """The preferences, and what the criteria need."""
        return frozenset({self.preferences}).union(*(c.needs for c in self.preferences.criteria))

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Scores of output channels; larger matters more."""
        logits = stats[self.preferences].get(layer.name)
        if logits is None:
            raise PreconditionError(f"{layer.name} gives no maps of its own: exclude that layer")
        return _per_filter(self.preferences.criteria[int(logits.argmax())](layer, stats))
