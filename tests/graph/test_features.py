"""The features before a classifier's last layer."""

import pytest
import torch
from torch import nn

from lilliput import zoo
from lilliput.core import PreconditionError
from lilliput.graph import profile, trace
from lilliput.graph.features import penultimate


def test_the_last_linear_layer_of_the_features_gives_the_scores():
    model = zoo.create("resnet8", num_classes=7, in_chans=1, seed=0, options={"width": 0.5}).eval()
    x = torch.randn(3, 1, 8, 8)
    traced = trace(model, x)
    features = penultimate(traced)
    with torch.no_grad():
        assert features(x).shape == (3, 32)
        torch.testing.assert_close(model.fc(features(x)), model(x))
        torch.testing.assert_close(traced(x), model(x))
    assert {name for name, _ in features.named_parameters()} == {name for name, _ in model.named_parameters() if not name.startswith("fc.")}
    assert profile(features).params == profile(traced).params - 7 * 33


def test_a_network_without_a_linear_layer_is_refused():
    with pytest.raises(PreconditionError, match="classifier"):
        penultimate(trace(nn.Conv2d(1, 1, 1), torch.zeros(2, 1, 3, 3)))
