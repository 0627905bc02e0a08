"""Quantizers with a simulation, outside of any network."""

import torch

from lilliput.quantize import Integer, Quantizer
from lilliput.quantize.grids import Parameters


def weight_quantizer(estimator, grid, tensor, scale=None):
    """A weight's quantizer that `estimator` has equipped."""
    channels = None if grid.axis is None else tensor.shape[grid.axis]
    quantizer = Quantizer(grid, layer="layer", weight=True, channels=channels)
    scale = torch.ones(() if channels is None else (channels,)) if scale is None else scale
    quantizer.set(Parameters(scale, torch.zeros_like(scale, dtype=torch.int32), torch.zeros_like(scale, dtype=torch.bool)))
    estimator.equip_(quantizer, tensor)
    return quantizer.train()


def activation_quantizer(estimator, bits, top):
    """That of an activation between 0 and `top`."""
    grid = Integer(bits=bits, signed=False, symmetric=False)
    quantizer = Quantizer(grid, layer="layer", weight=False)
    quantizer.set(grid.parameters(torch.tensor(0.0), torch.tensor(float(top))))
    estimator.equip_(quantizer, None)
    return quantizer.train()


def gradients(module, x, weights=None):
    """What comes out for `x`, and the gradient to `x` of the sum weighted with `weights`."""
    x = x.clone().requires_grad_()
    y = module(x)
    (y * (torch.ones_like(y) if weights is None else weights)).sum().backward()
    return y.detach(), x.grad
