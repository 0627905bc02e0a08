"""Folding after training: a batch norm goes into the quantized layer before it, whose integers stay what they were."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx

from lilliput.graph.fold import TRANSPOSED, affine, drop_unused_tensors_, folded_names, scaled, set_parameter_
from lilliput.graph.trace import Traced
from lilliput.quantize.calibrate import widen_
from lilliput.quantize.grids import Integer, Parameters
from lilliput.quantize.levels import Table
from lilliput.quantize.operators import LAYERS, layer_name
from lilliput.quantize.place import BATCH_NORM, quantize_bias_
from lilliput.quantize.quantizer import Quantizer, SameQuantizer

# Next to nothing, as a factor of scales.
_SILENT = 1e-30


def fold_quantized_(traced: Traced) -> list[str]:
    """Fold every batch norm that follows a quantized layer, in place; returns notes.

    With `f = g / sqrt(v + e)` per output channel, `q(w) f` lies on the grid of scale `s |f|` (the sign of `f` goes to the codes,
    since symmetric grids hold the mirror image; tables that do not keep it in the scale), so the layer computes with the very
    codes it was trained with. (jacob2018quantization)
    """
    notes: list[str] = []
    for node in list(traced.graph.nodes):
        layer = node.args[0] if node.target is BATCH_NORM else None
        if not isinstance(layer, fx.Node) or layer.target not in LAYERS or len(layer.users) > 1:
            continue
        weight = layer.args[1]
        if isinstance(weight, fx.Node) and weight.op == "call_module":
            notes += _fold_(traced, node, layer, weight)
    traced.graph.eliminate_dead_code()
    drop_unused_tensors_(traced)
    traced.recompile()
    return notes + widen_(traced)


def _fold_(traced: Traced, node: fx.Node, layer: fx.Node, weight: fx.Node) -> list[str]:
    source, bias = weight.args[0], layer.args[2] if len(layer.args) > 2 else None
    assert isinstance(source, fx.Node)
    held = traced.get_submodule(str(weight.target))
    held = held.source if isinstance(held, SameQuantizer) else held
    assert isinstance(held, Quantizer)
    name = layer_name(layer)
    if held.grid.axis not in (None, _outputs(layer)):
        return [f"{name}: its batch norm stays, since the scales of the weight are not those of its outputs"]
    old = traced.tensor(str(source.target))
    shift = traced.tensor(str(bias.target)).detach().double() if isinstance(bias, fx.Node) else None
    factor, shift = affine(traced, node, shift)
    # A channel that the normalisation silences has no scale left: any will do for zeros, none to speak of where there is no zero.
    no_zero = isinstance(held.grid, Table) and not bool((held.levels == 0).any())
    live = torch.where(factor == 0, _SILENT if no_zero else factor.abs().max().clamp(min=_SILENT), factor)
    with torch.no_grad():
        quantized = held(old).detach().double()
    new = copy.deepcopy(held)
    _rescale(new, live, layer)
    with torch.no_grad():
        values = new(scaled(quantized, factor, layer).to(old.dtype))
    names = folded_names(traced, source, bias if isinstance(bias, fx.Node) else None)
    target = str(weight.target) if len(weight.users) == 1 else f"{weight.target}_{layer.name}"
    with traced.graph.inserting_before(layer):
        nodes = []
        for key, value in zip(names, (values, shift), strict=True):
            set_parameter_(traced, key, value.to(old.dtype), requires_grad=old.requires_grad)
            nodes.append(traced.graph.get_attr(key))
        traced.add_submodule(target, new)
        nodes[0] = traced.graph.call_module(target, (nodes[0],))
    layer.args = (layer.args[0], *nodes, *layer.args[3:])
    node.replace_all_uses_with(layer)
    traced.graph.erase_node(node)
    return quantize_bias_(traced, layer, name)


def _outputs(layer: fx.Node) -> int:
    """The dimension of the layer's weight that counts its outputs."""
    return 1 if layer.target in TRANSPOSED else 0


def _rescale(quantizer: Quantizer, factor: Tensor, layer: fx.Node) -> None:
    """Multiply the scale, one factor to a channel; a scale of the whole tensor becomes one of each channel."""
    axis = _outputs(layer)
    zero_point = quantizer.zero_point.expand(factor.shape)
    if isinstance(quantizer.grid, Integer):
        zero_point = torch.where(factor < 0, quantizer.grid.qmin + quantizer.grid.qmax - zero_point, zero_point)
        zero_point = torch.zeros_like(zero_point) if quantizer.grid.symmetric else zero_point
    if isinstance(quantizer.grid, Integer) or torch.equal(quantizer.levels, -quantizer.levels.flip(-1)):
        factor = factor.abs()
    scale = (quantizer.scale.detach().double() * factor).float()
    quantizer._parameters.pop("scale", None)
    quantizer.register_buffer("scale", scale)
    quantizer.grid = quantizer.grid.along(axis)
    quantizer.set(Parameters(scale, zero_point.to(torch.int32), torch.zeros_like(scale, dtype=torch.bool)))
