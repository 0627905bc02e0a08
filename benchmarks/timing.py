"""Networks as they run, in ONNX Runtime on one thread, and how long one takes of another's time."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from lilliput.data import Data
from lilliput.deploy import onnx
from lilliput.deploy.runtime import Session
from lilliput.graph import latency


def session(model: nn.Module, samples: Data) -> Session:
    """The network as it runs."""
    with tempfile.TemporaryDirectory() as folder:
        return Session(onnx.export(model.eval(), Path(folder) / "network.onnx", samples.example(8)), threads=1)


def turns(small: Session, reference: Session, samples: Data, rounds: int) -> latency.Comparison:
    """Times of one sample, `small` and `original`, in turns."""
    sample = np.ascontiguousarray(samples.example(1).numpy()[:1])
    return latency.compare({"small": partial(small, sample), "original": partial(reference, sample)}, rounds=rounds)
