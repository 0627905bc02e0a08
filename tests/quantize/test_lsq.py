"""Learned step sizes (LSQ): where steps start, how their gradients are scaled, what decays."""

import pytest
import torch
from quantize_nets import NETS, arrays
from simulate import weight_quantizer

from lilliput.core.errors import PreconditionError
from lilliput.data.drawing import sample_batches
from lilliput.quantize import LSQ, Integer, MinMax, Quantizer, Scheme, Uniform, prepare
from lilliput.quantize.calibrate import quantizers
from lilliput.quantize.magnitudes import Magnitudes, MeanMagnitude
from lilliput.quantize.recipes import lsq


def test_the_range_of_the_mean_magnitude_by_hand():
    stream = MeanMagnitude().stream()
    stream.update(torch.tensor([0.0, 1.0]))
    stream.update(torch.tensor([5.0, 2.0]))
    assert (stream.count, stream.total) == (4, 8.0)
    grid = Integer(bits=2, signed=False, symmetric=False)
    low, high = MeanMagnitude()(stream, grid)
    assert (low, high) == (0.0, 5.0)  # below 2 E|x| sqrt(qmax) = 6.9
    stream.update(torch.tensor([90.0]))
    low, high = MeanMagnitude()(stream, grid)
    parameters = grid.parameters(torch.tensor(low), torch.tensor(high))
    assert parameters.scale.item() == pytest.approx(2 * (98 / 5) / 3**0.5)
    stream.update(torch.tensor([-50.0]))
    low, _ = MeanMagnitude()(stream, Integer(bits=8, signed=False, symmetric=False))
    assert low == -50.0
    for empty in (Magnitudes(), MinMax().stream()):
        with pytest.raises(PreconditionError, match="mean magnitude"):
            MeanMagnitude()(empty, grid)


def test_steps_start_as_in_the_paper():
    data = arrays(2, 8, 8)
    network = NETS["residual"][0]().eval()
    scheme = Scheme(ranges=MeanMagnitude(), bits=Uniform(weights=2, activations=2, ends=8))
    traced, _ = prepare(network, data, scheme, fold=False)
    found = {q.layer: q for q in quantizers(traced) if not q.weight}
    seen = []
    with torch.no_grad():
        for x in sample_batches(data.train, 512):
            seen.append(torch.nn.functional.max_pool2d(torch.relu(network.norm(network.stem(x))), 2))
    pooled = torch.cat(seen)
    # What the inner layer reads, up to the eight bits of the edge before it.
    assert found["depthwise.input"].scale.item() == pytest.approx(2 * pooled.abs().mean().item() / 3**0.5, rel=2e-2)


def test_the_gradient_of_a_step_is_scaled_by_values_and_levels():
    torch.manual_seed(0)
    w, g = torch.randn(4, 9), torch.randn(4, 9)
    quantizer = weight_quantizer(LSQ(), Integer(bits=3, axis=0), w)
    scale = quantizer.scale.detach().clone()
    torch.testing.assert_close(scale, 2 * w.abs().mean(1) / 3**0.5)
    (quantizer(w) * g).sum().backward()
    v = w / scale[:, None]
    slope = torch.where(v <= -3, -3.0, torch.where(v >= 3, 3.0, v.round() - v))
    torch.testing.assert_close(quantizer.scale.grad, (slope * g).sum(1) / (9 * 3) ** 0.5)
    grid = Integer(bits=2, signed=False, symmetric=False)
    activation = Quantizer(grid, layer="layer", weight=False)
    activation.set(grid.parameters(torch.tensor(0.0), torch.tensor(3.0)))
    LSQ().equip_(activation, None)
    x = torch.tensor([[0.2, 1.4, 9.0], [0.6, 2.5, 0.0]])
    activation.train()(x).sum().backward()
    # N counts the values of one sample: three.
    expected = (-0.2 - 0.4 + 3 + 0.4 - 0.5 + 0) / (3 * 3) ** 0.5
    assert activation.scale.grad.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("bits", "decay"), [(2, 1.25e-4), (3, 2.5e-4), (4, 5e-4), (8, 5e-4)])
def test_weights_of_few_bits_decay_less(bits, decay):
    assert lsq(weights=bits).fit.optimizer.weight_decay == decay
