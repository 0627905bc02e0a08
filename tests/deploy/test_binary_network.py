"""A binary network in bits equals the float sign network: every activation and every score, exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.core.convolution import Window
from lilliput.core.errors import DataError, PreconditionError
from lilliput.core.kernels import pack_weights
from lilliput.core.signs import Instructions, Signs, Thresholds, available, pack_signs
from lilliput.deploy.binary import BatchNorm, BinaryLayer, BinaryNetwork, PixelLayer, fold, kernel_signs

paths = pytest.mark.parametrize("path", available(), ids=lambda path: path.name)


def norm(channels: int, spread: float, generator: torch.Generator) -> nn.BatchNorm2d:
    """Statistics as large as the sums, slopes of both signs and zero, and ties: integer means with beta 0."""
    layer = nn.BatchNorm2d(channels).eval()
    with torch.no_grad():
        layer.running_mean.copy_((torch.randn(channels, generator=generator) * spread).round())
        layer.running_var.copy_(torch.rand(channels, generator=generator) * spread**2 + 0.01)
        layer.weight.copy_(torch.randn(channels, generator=generator))
        layer.bias.copy_(torch.randn(channels, generator=generator))
        layer.weight[::5] = 0
        layer.bias[::3] = 0
    return layer


def applied(layer: nn.BatchNorm2d) -> Callable[[np.ndarray], np.ndarray]:
    def normalize(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return layer(torch.from_numpy(x)[None, :, None, None]).numpy().reshape(-1)

    return normalize


def sign(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


class FloatNetwork(nn.Module):
    """Courbariaux's order: convolution, pooling, batch norm, sign; the first layer sees bytes, padding is 0."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shapes = ((24, 3, 3, 3), (70, 24, 3, 3), (260, 70, 3, 3), (90, 260, 2, 2), (10, 90, 1, 1))
        self.weights = [sign(torch.randn(shape, generator=generator)) for shape in shapes]
        spreads = (600, 14, 25, 32)
        self.norms = nn.ModuleList(norm(shape[0], spread, generator) for shape, spread in zip(shapes, spreads, strict=False))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for i, weight in enumerate(self.weights[:-1]):
            x = F.conv2d(x, weight, stride=(1, 2, 1, 1)[i], padding=(1, 1, 1, 0)[i])
            x = F.max_pool2d(x, 2) if i in {0, 2} else x
            x = sign(self.norms[i](x))
            found.append(x)
        return [*found, F.conv2d(x, self.weights[-1])]


def in_bits(network: FloatNetwork, path: Instructions) -> BinaryNetwork:
    first = network.weights[0].numpy()
    rows = np.moveaxis(first, 1, -1).reshape(len(first), -1).astype(np.int8)
    around = Window(padding=(1, 1, 1, 1))
    layers: list[BinaryLayer | PixelLayer] = []
    for i, weight in enumerate(network.weights[:-1]):
        reach = 255 * 27 if i == 0 else weight[0].numel()
        thresholds = fold(applied(network.norms[i]), weight.shape[0], reach)
        window = (around, Window(stride=(2, 2), padding=(1, 1, 1, 1)), around, Window())[i]
        if i == 0:
            layers.append(PixelLayer(weights=pack_weights(rows, 1), kernel=(3, 3), thresholds=thresholds, window=window, pool=2))
        else:
            signs, pool = kernel_signs(weight), 2 if i == 2 else 1
            layers.append(BinaryLayer(weights=signs, thresholds=thresholds, window=window, pool=pool))
        assert layers[-1].reach == reach
    return BinaryNetwork([*layers, BinaryLayer(weights=kernel_signs(network.weights[-1]))], path)


@paths
@pytest.mark.parametrize("seed", range(3))
def test_every_activation_and_score_equals_the_float_sign_network(path: Instructions, seed: int) -> None:
    network = FloatNetwork(seed).eval()
    images = torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = network(images.float())
    pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()).astype(np.uint8)
    run = in_bits(network, path)
    *activations, scores = run.activations(pixels)
    assert all(isinstance(found, Signs) for found in activations)
    for found, wanted in zip(activations, expected, strict=False):
        assert 0 < (wanted > 0).float().mean() < 1
        np.testing.assert_array_equal(found.unpack(), wanted.permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal(scores, expected[-1].permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal(run(pixels), expected[-1].flatten(1).numpy())


def test_a_fully_connected_network_takes_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    x, first, second = (sign(torch.randn(shape, generator=generator)) for shape in ((6, 100), (300, 100), (7, 300)))
    layer = norm(300, 10, generator)
    with torch.no_grad():
        expected = sign(layer((x @ first.T)[:, :, None, None])).flatten(1) @ second.T
    thresholds = fold(applied(layer), 300, 100)
    network = BinaryNetwork([BinaryLayer(weights=kernel_signs(first[:, :, None, None]), thresholds=thresholds),
                             BinaryLayer(weights=kernel_signs(second[:, :, None, None]))])
    np.testing.assert_array_equal(network(pack_signs(x.numpy())), expected.numpy())


def test_flattening_is_a_kernel_as_large_as_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = sign(torch.randn(2, 5, 3, 4, generator=generator)), sign(torch.randn(6, 60, generator=generator))
    network = BinaryNetwork([BinaryLayer(weights=kernel_signs(weight.reshape(6, 5, 3, 4)))])
    np.testing.assert_array_equal(network(pack_signs(x.permute(0, 2, 3, 1).numpy())), (x.flatten(1) @ weight.T).numpy())


@pytest.mark.parametrize("seed", range(5))
def test_folded_thresholds_equal_batch_norm_at_every_integer(seed: int) -> None:
    layer, reach = norm(200, 30, torch.Generator().manual_seed(seed)), 150
    thresholds = fold(applied(layer), 200, reach)
    x = np.arange(-reach, reach + 1, dtype=np.int32)[:, None].repeat(200, 1)
    with torch.no_grad():
        expected = layer(torch.from_numpy(x).float()[:, :, None, None])[:, :, 0, 0] >= 0
    np.testing.assert_array_equal(thresholds(x).unpack() > 0, expected.numpy())


def test_batch_norm_in_numpy_folds_as_torch_does() -> None:
    layer = norm(500, 30, torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.bias.add_(0.1 * torch.randn(500, generator=torch.Generator().manual_seed(1)))  # no ties: they are torch's to decide
    mean, variance, gamma, beta = (t.detach().numpy() for t in (layer.running_mean, layer.running_var, layer.weight, layer.bias))
    ours = fold(BatchNorm(mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=layer.eps), 500, 200)
    theirs = fold(applied(layer), 500, 200)
    np.testing.assert_array_equal(ours.least, theirs.least)
    np.testing.assert_array_equal(ours.flip, theirs.flip)


def test_a_threshold_worked_by_hand() -> None:
    """y = gamma (x - 2) / 2 + beta: gamma 1, beta 0.6 is positive from x = 0.8, gamma -1 up to 3.2, gamma 0 constant."""
    one = np.ones(4, np.float32)
    gamma, beta = np.float32([1, -1, 0, 0]), np.float32([0.6, 0.6, 1, -1])
    thresholds = fold(BatchNorm(mean=2 * one, variance=4 * one, gamma=gamma, beta=beta, epsilon=0.0), 4, 9)
    x = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [3, 3, 3, 3], [4, 4, 4, 4]], np.int32)
    np.testing.assert_array_equal(thresholds(x).unpack(), [[-1, 1, 1, -1], [1, 1, 1, -1], [1, 1, 1, -1], [1, -1, 1, -1]])
    assert thresholds.least[:2].tolist() == [1, 4]


def test_bad_networks_name_the_remedy() -> None:
    weights, thresholds = kernel_signs(np.ones((2, 3, 1, 1))), Thresholds(np.zeros(2, np.int32), np.zeros(2, np.bool_))
    layer = BinaryLayer(weights=weights, thresholds=thresholds)
    for layers in ([], [layer], [BinaryLayer(weights=weights)] * 2):
        with pytest.raises(PreconditionError, match="thresholds"):
            BinaryNetwork(layers)
    with pytest.raises(PreconditionError, match="at least 1"):
        BinaryNetwork([BinaryLayer(weights=weights, pool=0)])
    with pytest.raises(PreconditionError, match="smaller pool"):
        BinaryNetwork([BinaryLayer(weights=weights, pool=2)])(pack_signs(np.ones((1, 1, 1, 3))))
    with pytest.raises(PreconditionError, match="PixelLayer"):
        BinaryNetwork([BinaryLayer(weights=weights)])(np.ones((1, 1, 1, 3), np.uint8))
    pixels = PixelLayer(weights=pack_weights(np.ones((1, 3), np.int8), 1), kernel=(1, 1))
    with pytest.raises(PreconditionError, match="BinaryLayer"):
        BinaryNetwork([pixels])(pack_signs(np.ones((1, 1, 1, 3))))
    with pytest.raises(PreconditionError, match="reshape"):
        kernel_signs(np.ones((2, 3)))
    with pytest.raises(PreconditionError, match=r"2\^24"):
        fold(lambda x: x, 1, 2**24)
    with pytest.raises(PreconditionError, match="by itself"):
        fold(lambda x: x.sum(), 3, 4)
    with pytest.raises(DataError, match="negative variance"):
        fold(lambda x: x * np.nan, 3, 4)
