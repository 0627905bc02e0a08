"""Settings for every test: one thread (small operators lose more than they gain from two), fixed seeds; a small trained network."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from lilliput import data, zoo
from lilliput.core import seed_everything
from lilliput.graph import trace
from lilliput.train import SGD, Fit, fit

torch.set_num_threads(1)
collect_ignore_glob = ["conftest.py", "*/conftest.py"]  # doctests of several modules of one name collide


@pytest.fixture(autouse=True)
def _seeded():
    seed_everything(0)


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture(scope="session")
def trained(digits):
    model = trace(zoo.create("resnet8", num_classes=10, in_chans=1, seed=0), digits.example())
    return fit(model, digits, Fit(epochs=4, batch_size=64, optimizer=SGD(lr=0.05)), progress=False).model.eval()
