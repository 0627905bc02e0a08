"""How candidates are timed: by their ratio to the first network, in turns."""

import pytest
import torch
from torch import nn

from lilliput import data
from lilliput.graph.latency import Comparison
from lilliput.pipelines import measure


def test_the_first_network_is_the_clock_of_those_after_it(monkeypatch):
    speed = {"first": 1e-3}

    def compare(functions, *, rounds):
        for run in functions.values():
            run()  # each still runs when its file is gone
        return Comparison({name: (speed[name],) * rounds for name in functions})

    monkeypatch.setattr(measure.latency, "compare", compare)
    digits = data.load("digits")
    seconds = measure.measures(digits)["latency"]
    small, large = (nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10)) for width in (4, 8))
    assert seconds(large) == 1e-3
    # By now the machine is three times slower, and so is the first network.
    speed |= {"first": 3e-3, "candidate": 1.5e-3}
    assert seconds(small) == pytest.approx(0.5e-3)
    assert seconds(large) == pytest.approx(0.5e-3)
    assert measure.measures(digits)["latency"](torch.nn.Sequential(large)) == 3e-3
