"""Networks that scale their images down first: counted, exported and refused where they cannot."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lilliput import zoo
from lilliput.core import PreconditionError
from lilliput.deploy import onnx, runtime
from lilliput.graph import Coupling, profile, trace
from lilliput.graph.resolution import resized, side
from lilliput.graph.saving import load, save

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def resnet():
    return trace(zoo.create("resnet8", num_classes=5, seed=0), IMAGES).eval()


def test_it_computes_on_the_smaller_image_and_counts_so():
    traced = resnet()
    small = resized(traced, (8, 12))
    assert side(traced) == side(small) == (16, 16)
    shrunk = F.interpolate(IMAGES, size=(8, 12), mode="bilinear")
    torch.testing.assert_close(small(IMAGES), traced(shrunk))
    whole, part = profile(traced), profile(small)
    assert part.params == whole.params
    classifier = 64 * 5
    assert part.macs - classifier == (whole.macs - classifier) * (8 * 12) // (16 * 16)
    assert small(IMAGES[:1].repeat(5, 1, 1, 1)).shape == (5, 5)


def test_halving_is_the_mean_of_four_pixels():
    torch.testing.assert_close(F.interpolate(IMAGES, size=(8, 8), mode="bilinear"), F.avg_pool2d(IMAGES, 2))


def test_it_couples_saves_and_runs_in_onnx(tmp_path):
    traced = resnet()
    small = resized(traced, (8, 8))
    assert [g.name for g in Coupling(small).groups] == [g.name for g in Coupling(traced).groups]
    save(small, tmp_path / "small.pt2")
    torch.testing.assert_close(load(tmp_path / "small.pt2")(IMAGES), small(IMAGES))
    session = runtime.Session(onnx.export(small, tmp_path / "small.onnx", IMAGES))
    with torch.no_grad():
        np.testing.assert_allclose(session(IMAGES.numpy()), small(IMAGES).numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", ["positions", "flattened", "maps"])
def test_networks_bound_to_their_resolution_are_refused(kind):
    if kind == "positions":
        model = zoo.create("vit_tiny", num_classes=5, seed=0, options={"image_size": 16, "dim": 16, "depth": 1})
    elif kind == "flattened":
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 5))
    else:
        model = nn.Conv2d(3, 4, 3, padding=1)
    with pytest.raises(PreconditionError, match="leave it as it is" if kind != "maps" else "leave its resolution as it is"):
        resized(trace(model, IMAGES), (8, 8))


def test_what_takes_no_image_has_no_resolution():
    with pytest.raises(PreconditionError, match="pass one that takes images"):
        side(trace(nn.Linear(4, 4), torch.zeros(2, 4)))
