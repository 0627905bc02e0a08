"""A sample of a public model library; all 80 of its classifiers are in `benchmarks.torchvision80`."""

from importlib.util import find_spec

import pytest
import torch

if find_spec("torchvision") is None:
    pytest.skip("torchvision is not installed; make test installs it", allow_module_level=True)

from benchmarks.masked import half, masked_output, randomise_constants_

from benchmarks import torchvision_models
from lilliput.graph import Coupling, profile, shrink, trace


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_400mf", "swin_t", "googlenet"])
def test_traces_counts_and_shrinks(name):
    model, example = torchvision_models.build(name)
    randomise_constants_(model)
    meta = torchvision_models.models().get_model_weights(name).DEFAULT.meta
    traced = trace(model, example)
    counted = profile(traced)
    assert counted.params == meta["num_params"]
    assert counted.macs / 1e9 == pytest.approx(meta["_ops"], rel=0.01, abs=0.001)
    coupling = Coupling(traced)
    keep = half(coupling)
    small = shrink(coupling, keep)
    expected = masked_output(coupling, keep, example)
    with torch.no_grad():
        torch.testing.assert_close(small(example), expected, atol=1e-4 * max(1.0, float(expected.abs().max())), rtol=0)
    assert profile(small).macs < 0.6 * counted.macs
