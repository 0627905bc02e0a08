"""Settings for every test: one thread (small operators lose more than they gain from two), fixed seeds."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from lilliput.core import seed_everything

torch.set_num_threads(1)
collect_ignore_glob = ["conftest.py", "*/conftest.py"]  # doctests of several modules of one name collide


@pytest.fixture(autouse=True)
def _seeded():
    seed_everything(0)
