"""A policy inside a graph: what decides, for each sample and layer, how many groups of channels are computed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.graph.products import LAYERS
from lilliput.graph.rules.base import op_name
from lilliput.graph.shapes import forget_shapes, shapes
from lilliput.graph.trace import assemble, export_program
from lilliput.graph.weights import parameter, weight_name
from lilliput.prune.maps import Tap, Tapped, behind, layers
from lilliput.prune.units import ChannelPlan, Scores

HOME = "policy"
_ZONES = "zones_"
_KEEPS_ZEROS = frozenset({"relu", "relu6", "hardswish", "silu", "gelu", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "flatten",
                          "view", "reshape", "dropout", "permute", "transpose"})


@dataclass(frozen=True, eq=False)
class Site:
    """A layer whose channels are computed or not: the node that its mask is laid on, and the zone of every unit and channel."""

    layer: fx.Node
    masked: fx.Node
    group: int
    units: NDArray[np.int64]
    channels: NDArray[np.int64]

    @property
    def name(self) -> str:
        """The layer's."""
        return weight_name(self.layer).rpartition(".")[0]


def sites(plan: ChannelPlan, scores: Scores, zones: int) -> list[Site]:
    """Layers that alone make their channels, in graph order, whose channels nothing needs that would not be zero without them.

    Units are ranked by score, and zone `i` of `zones` is the `i`-th best part of them, of equal size as far as that goes. Channels that
    several layers make together (a residual sum) are left to be computed, as are those that a gate or a late norm changes.
    """
    made = {slot.tensor: (index, slot) for index, group in enumerate(plan.groups)
            for slot in group.slots if slot.role == "out" and slot.dim == 0 and sum(s.role == "out" for s in group.slots) == 1}
    sizes, found = shapes(plan.coupling.traced), []
    for layer in layers(plan.coupling.traced):
        index, slot = made.get(weight_name(layer), (None, None))
        end = behind(layer)
        if index is None or slot is None or not _stays_zero(end) or not _alone(plan, index, layer, end):
            continue
        if layer.target is torch.ops.aten.linear.default and len(sizes[layer]) != 2:
            continue
        rank = np.empty(len(scores[index]), dtype=np.int64)
        rank[np.argsort(-scores[index], kind="stable")] = np.arange(len(rank))
        units = rank * zones // len(rank)
        found.append(Site(layer, end, index, units, np.where(slot.unit >= 0, units[slot.unit], 0)))
    return found


def _stays_zero(node: fx.Node) -> bool:
    """Whether zeros stay zeros on every way from a node to the layers that read it."""
    return bool(node.users) and all((user.target in LAYERS and user.args[0] is node) or (op_name(user) in _KEEPS_ZEROS and _stays_zero(user))
                                    for user in node.users)


def _alone(plan: ChannelPlan, index: int, layer: fx.Node, end: fx.Node) -> bool:
    """Whether what shifts or scales the channels comes before their mask."""
    names, node = set[str](), end
    while True:
        names |= {name for argument in node.args if (name := parameter(argument)) is not None}
        if node is layer:
            break
        assert isinstance(node.args[0], fx.Node)
        node = node.args[0]
    names = {plan.coupling.canonical(name) for name in names}
    return all(slot.role == "in" or slot.tensor in names for slot in plan.groups[index].slots)


class Policy(nn.Module):
    """`Q(s, .) = D h`, `h = tanh(A e + B h')`: what each number of zones is worth to a layer. (lin2017rnp)

    `e = relu(E x)` is the encoding of the layer's input, averaged over positions; `E` is the layer's own, `A`, `B`, `D` are shared by all
    layers, and `h'` comes from the layer before. Zones up to `argmax_a Q(s, a) + bias a` are computed. While it trains, a share `explore` of the
    decisions is random, and `seen` holds values and choices of the batch, layer by layer.
    """

    bias: Tensor
    amounts: Tensor
    encoders: nn.ModuleList

    def __init__(self, inputs: Sequence[int], channels: Sequence[NDArray[np.int64]], zones: int, hidden: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(nn.Linear(size, hidden) for size in inputs)
        self.encoded, self.carried = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.decoder = nn.Linear(hidden, zones)
        self.register_buffer("bias", torch.zeros(()))
        self.register_buffer("amounts", torch.arange(zones, dtype=torch.float32))
        for index, own in enumerate(channels):
            self.register_buffer(f"{_ZONES}{index}", torch.from_numpy(own.copy()))
        self.explore, self.watched = 0.0, False
        self.seen: list[tuple[Tensor, Tensor]] = []

    @property
    def macs(self) -> int:
        """Multiplications of one sample."""
        once = self.encoded.weight.numel() + self.decoder.weight.numel()
        encoders = sum(p.numel() for p in self.encoders.parameters() if p.ndim > 1)
        return encoders + len(self.encoders) * once + (len(self.encoders) - 1) * self.carried.weight.numel()

    def forward(self, x: Tensor, carried: Tensor | None, index: int) -> tuple[Tensor, Tensor]:
        """The mask of a layer's channels, `(samples, channels)`, and what is carried to the next layer."""
        pooled = x.flatten(2).mean(2) if x.ndim > 2 else x
        pooled = pooled.detach() if self.training else pooled
        hidden = self.encoded(torch.relu(self.encoders[index](pooled)))
        hidden = torch.tanh(hidden if carried is None else hidden + self.carried(carried))
        values = self.decoder(hidden)
        choice = (values + self.bias * self.amounts).argmax(1)
        if self.training and self.explore > 0:
            anything = torch.randint_like(choice, len(self.amounts))
            choice = torch.where(torch.rand(len(choice), device=choice.device) < self.explore, anything, choice)
        if self.watched:
            self.seen.append((values, choice))
        return (getattr(self, f"{_ZONES}{index}")[None] <= choice[:, None]).to(x.dtype), hidden

    def taken(self) -> list[tuple[Tensor, Tensor]]:
        """What was seen, which is then forgotten."""
        seen, self.seen = self.seen, []
        return seen


def policed(traced: Traced, where: Sequence[Site], *, zones: int, hidden: int, seed: int) -> Traced:
    """A copy of a network with a policy in it, and masks on the channels of these layers."""
    out, sizes = copy.deepcopy(traced), shapes(traced)
    nodes = {node.name: node for node in out.graph.nodes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = Policy([sizes[site.layer.args[0]][1] for site in where], [site.channels for site in where], zones, hidden)  # type: ignore[index]
    out.add_submodule(HOME, policy.train(traced.training))
    carried: fx.Node | None = None
    for index, site in enumerate(where):
        layer, masked = nodes[site.layer.name], nodes[site.masked.name]
        with out.graph.inserting_before(layer):
            both = out.graph.call_module(HOME, (layer.args[0], carried, index))
            mask, carried = (out.graph.call_function(_part, (both, i)) for i in (0, 1))
        rank = len(sizes[site.masked])
        with out.graph.inserting_after(masked):
            shaped = out.graph.call_function(torch.ops.aten.reshape.default, (mask, [-1, len(site.channels), *[1] * (rank - 2)]))
        with out.graph.inserting_after(shaped):
            product = out.graph.call_function(torch.ops.aten.mul.Tensor, (masked, shaped))
        masked.replace_all_uses_with(product, delete_user_cb=lambda user, own=product: user is not own)
    forget_shapes(out)
    out.graph.lint()
    out.recompile()
    return out


def _part(pair: tuple[Tensor, Tensor], index: int) -> Tensor:
    return pair[index]


def policy_of(network: nn.Module) -> Policy:
    """The policy of a network that `policed` made."""
    policy = network.get_submodule(HOME)
    assert isinstance(policy, Policy)
    return policy


def flattened(network: Traced) -> Traced:
    """The same network with the policy's operators in its own graph: it saves, loads and exports as any other."""
    program, dynamic = export_program(copy.deepcopy(network), network.example)
    module = program.module(check_guards=False)
    inputs = tuple((tuple(x.shape), x.dtype) for x in network.example)
    return assemble(module, module.graph, inputs, dynamic).train(network.training)


def computed(network: Traced, inputs: Tensor) -> dict[str, Tensor]:
    """Which channels a network with a policy computes, `(samples, channels)` flags by the layer's name; none for other networks."""
    kept: dict[str, Tensor] = {}
    taps = {node: _keeper(kept, name) for name, node in _masks(network)}
    with torch.no_grad():
        Tapped(network, given=taps).outputs(inputs)
    return kept


def _masks(network: Traced) -> Iterator[tuple[str, fx.Node]]:
    """Names of layers, and the comparison that says which of their channels are computed."""
    for node in network.graph.nodes:
        if node.op == "get_attr" and str(node.target).startswith(f"{HOME}.{_ZONES}"):
            compared = _next(node, "le")
            layer = None if compared is None else _next(compared, "mul")
            while layer is not None and layer.target not in LAYERS:
                layer = layer.args[0] if isinstance(layer.args[0], fx.Node) else None
            if compared is not None and layer is not None:
                yield weight_name(layer).rpartition(".")[0], compared


def _next(node: fx.Node, operator: str) -> fx.Node | None:
    """The first node of that operator that a value flows into."""
    for user in node.users:
        found = user if op_name(user) == operator else _next(user, operator)
        if found is not None:
            return found
    return None


def _keeper(kept: dict[str, Tensor], name: str) -> Tap:
    def keep(mask: Tensor) -> Tensor:
        kept[name] = mask
        return mask

    return keep


def kept_by(plan: ChannelPlan, where: Sequence[Site], choice: Sequence[int]) -> list[Keep]:
    """What is computed where the `i`-th layer chose zones up to `choice[i]`."""
    keep = plan.everything()
    for index, site in enumerate(where):
        keep[site.group] = site.units <= choice[index]
    return keep
