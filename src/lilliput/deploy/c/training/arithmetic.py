"""The arithmetic of training on the device, in numpy: every statement of `csrc/mcu/lp_train*.c` in float32, in its order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.c.operators import AveragePool, Convolution

Array = NDArray[Any]
F32 = np.float32
_FACTORS = [F32(1) / F32(n) for n in (5040, 720, 120, 24, 6, 2, 1, 1)]
_MOST = F32(1 << 24)


def exponential(x: Array) -> Array:
    """`exp(x)` for `x <= 0`: `2^n` times a polynomial of degree 7, `x = n ln 2 + r`; 0 below -87."""
    whole = np.trunc(x * F32(1.44269504) - F32(0.5))
    r = (x - whole * F32(0.693359375)) - whole * F32(-2.12194440e-4)
    total = np.full_like(r, _FACTORS[0])
    for factor in _FACTORS[1:]:
        total = total * r + factor
    found: Array = np.where(x < F32(-87), F32(0), np.ldexp(total, whole.astype(np.int32)).astype(F32))
    return found


def scores(weights: Array, bias: Array, features: Array) -> Array:
    """`b + W x` for `W (K, F)`, summed feature by feature."""
    total = bias.copy()
    for j in range(features.size):
        total = total + weights[:, j] * features[j]
    return total


def gradient(found: Array, label: int) -> Array:
    """`softmax(scores) - onehot(label)`: that of the cross-entropy."""
    powers = exponential(found - found.max())
    total = F32(0)
    for power in powers:
        total = total + power
    out: Array = powers / total
    out[label] = out[label] - F32(1)
    return out


def through_head(weights: Array, found: Array) -> Array:
    """The gradient of the features, `W^T g`, class by class."""
    back = np.zeros(weights.shape[1], F32)
    for o in range(weights.shape[0]):
        back = back + found[o] * weights[o]
    return back


def moved(change: Array, units: Array) -> Array:
    """The change of a bias in whole steps, ties away from zero, at most 2^24 of them."""
    steps = np.clip(change * units, -_MOST, _MOST)
    found: Array = np.where(steps < 0, steps - F32(0.5), steps + F32(0.5)).astype(np.int32)
    return found


def over_pixels(found: Array) -> Array:
    """The sum of a gradient `(pixels, C)` over pixels, one by one."""
    total = np.zeros(found.shape[1], F32)
    for row in found:
        total = total + row
    return total


def through_convolution(step: Convolution, scales: Array, found: Array) -> Array:
    """The gradient of a convolution's input `(H, W, C)`, pixel after pixel and filter after filter; `scales` are those of the weights."""
    height, width, channels = step.image
    groups, filters, (rows, columns) = step.groups, step.weights.shape[0] // step.groups, step.window.size(height, width)
    kernels = step.weights.reshape(groups, filters, *step.window.kernel, channels // groups).astype(F32)
    back = np.zeros((height, width, groups, channels // groups), F32)
    values = found.reshape(rows, columns, groups, filters) * scales.reshape(groups, filters)
    taps = np.indices(step.window.kernel)
    for oy in range(rows):
        for ox in range(columns):
            y = oy * step.window.stride[0] - step.window.pads[0] + taps[0] * step.window.dilation[0]
            x = ox * step.window.stride[1] - step.window.pads[1] + taps[1] * step.window.dilation[1]
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            for f in range(filters):
                products = values[oy, ox, :, f][:, None, None] * kernels[:, f][:, inside]
                back[y[inside], x[inside]] += products.transpose(1, 0, 2)
    return back.reshape(-1)


def through_mean(step: AveragePool, found: Array) -> Array:
    """The gradient of an average pool's input `(H, W, C)`."""
    height, width, channels = step.image
    rows, columns = step.window.size(height, width)
    values, back = found.reshape(rows, columns, channels), np.zeros(step.image, F32)
    for oy in range(rows):
        for ox in range(columns):
            top, left = oy * step.window.stride[0] - step.window.pads[0], ox * step.window.stride[1] - step.window.pads[1]
            part = (slice(max(top, 0), min(top + step.window.kernel[0], height)), slice(max(left, 0), min(left + step.window.kernel[1], width)))
            inside = (part[0].stop - part[0].start) * (part[1].stop - part[1].start)
            count = step.window.kernel[0] * step.window.kernel[1] if step.whole else inside
            back[part] += values[oy, ox] / F32(count)
    return back.reshape(-1)
