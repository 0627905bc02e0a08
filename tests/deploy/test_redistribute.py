"""Receptive field moved out of the first stage: kept in all, exact where only it grew, and worth its while in patches."""

import numpy as np
import pytest
import torch
from torch import nn

from lilliput.core import PreconditionError
from lilliput.data import from_splits
from lilliput.deploy.redistribute import Redistribute
from lilliput.graph import trace
from lilliput.graph.receptive import receptive_fields


def depthwise(channels, stride=1):
    return [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels), nn.ReLU(), nn.Conv2d(channels, channels, 1)]


def network():
    torch.manual_seed(0)
    early = [nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), *depthwise(4), *depthwise(4, 2)]
    late = [*depthwise(4), *depthwise(4, 2), *depthwise(4)]
    return nn.Sequential(*early, *late, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


@pytest.fixture(scope="module")
def noise():
    random = np.random.default_rng(0)
    return from_splits("noise", {key: (random.normal(size=(8, 1, 32, 32)).astype(np.float32), random.integers(0, 3, 8)) for key in ("train", "val", "test")},
                       num_classes=3)


def sizes(model):
    return {name: tuple(p.shape[2:]) for name, p in model.named_parameters() if p.ndim == 4 and max(p.shape[2:]) > 1}


def reach(model):
    return max(field.size for field in receptive_fields(model).values())


def test_the_field_stays_and_the_cheapest_kernel_takes_it(noise):
    # Before: 3, then kernels of 3 at strides 2, 2, 4, 4, 8: 3 + 2 (2 + 2 + 4 + 4 + 8) = 43. Without the one at stride 2: 39.
    before = trace(network(), noise.example())
    assert reach(before) == (43, 43)
    result = Redistribute(stride=4)(before, noise)
    # A ring costs 16 multiplications a pixel: 4 channels on 4 x 4 pixels for 16 pixels of field beat 8 x 8 for 8.
    assert sizes(result.model) == {"0.weight": (3, 3), "5.weight": (3, 3), "8.weight": (3, 3), "11.weight": (3, 3), "14.weight": (5, 5)}
    assert reach(result.model) == (55, 55)
    assert [(row["layer"], row["kernel"], row["new_kernel"]) for row in result.report.entries[0].layers] == [("2", 3, 1), ("14", 3, 5)]
    assert sizes(before)["2.weight"] == (3, 3)


def test_nothing_changes_where_the_taps_around_were_zero(noise):
    model = network()
    with torch.no_grad():
        centre = model[2].weight[:, :, 1:2, 1:2].clone()
        model[2].weight.zero_()[:, :, 1:2, 1:2] = centre
        images = torch.randn(4, 1, 32, 32)
        result = Redistribute(stride=4)(model, noise)
        assert torch.equal(result.model(images), model(images))


def test_an_even_image_stays_what_it_was_inside(noise):
    model = nn.Sequential(nn.Conv2d(1, 2, 3, 1, 1), nn.Conv2d(2, 2, 3, 2, 1), nn.Conv2d(2, 2, 3, 1, 1)).eval()
    result = Redistribute(stride=2)(model, noise)
    even = torch.full((1, 1, 32, 32), 0.7)
    with torch.no_grad():
        assert torch.allclose(result.model(even)[..., 3:-3, 3:-3], model(even)[..., 3:-3, 3:-3], atol=1e-6)


def test_what_cannot_be_moved_is_named(noise):
    with pytest.raises(PreconditionError, match="raise stride="):
        Redistribute(stride=2)(network(), noise)
    with pytest.raises(PreconditionError, match="largest=3"):
        Redistribute(stride=4, largest=3)(network(), noise)
