"""One small network trained on the digits, shared by the conformance suites."""

import pytest

from lilliput import data, zoo
from lilliput.graph import trace
from lilliput.train import SGD, Fit, fit


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture(scope="session")
def trained(digits):
    model = trace(zoo.create("resnet8", num_classes=10, in_chans=1, seed=0), digits.example())
    return fit(model, digits, Fit(epochs=4, batch_size=64, optimizer=SGD(lr=0.05)), progress=False).model.eval()
