"""Which channels went and why, as the report has it."""

import numpy as np
import torch
from torch import nn

from lilliput import prune
from lilliput.core import Budget
from lilliput.graph import trace
from lilliput.prune.reasons import indices, reasons
from lilliput.train import SGD, Fit


def test_runs_of_indices():
    assert indices(np.zeros(4, dtype=bool)) == ""
    assert indices(np.ones(4, dtype=bool)) == "0-3"
    assert indices(np.array([False, True, False, True, True])) == "1, 3-4"


class Residual(nn.Module):
    """Two layers whose channels are added; those of the first have norms 6, 2, 4, 8, those of the second the same."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 4), nn.Linear(2, 4), nn.Linear(4, 3)
        with torch.no_grad():
            for layer in (self.a, self.b):
                layer.weight.copy_(torch.tensor([[3.0, 3], [1, -1], [-2, 2], [4, 4]]))

    def forward(self, x):
        return self.c(torch.relu(self.a(x) + self.b(x)))


def test_scores_of_what_went_and_stays_and_what_goes_along():
    net = trace(Residual().eval(), torch.randn(2, 2))
    result = prune.l1_norm(Budget(params=0.6), unit=prune.Channels(per_layer=False))(net, None)
    rows = {row["layer"]: row for row in result.report.entries[0].layers}
    assert rows["a"]["removed"] == rows["b"]["removed"] == "1-2"
    assert rows["a"]["reason"] == "scores up to 4 went, from 6 stay; the same channels as b"
    assert rows["b"]["reason"].endswith("as a")


def test_choices_made_while_training_say_so(digits):
    net = trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10)), digits.example())
    quick = Fit(epochs=1, batch_size=256, optimizer=SGD(lr=0.01))
    row = prune.sfp(Budget(params=0.6), fine_tune=quick)(net, digits).report.entries[0].layers[0]
    assert row["reason"] == "chosen while training"
    assert row["removed"]


def test_many_coupled_layers_are_counted():
    net = trace(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2)).eval(), torch.randn(2, 2))
    group = prune.Channels().plan(net).groups[0]
    kept = np.array([True, False, True, True])
    found = reasons([group], [kept], [np.array([0.5, 0.1, 0.25, 1.0])])
    assert found == {"0": "scores up to 0.1 went, from 0.25 stay"}
    assert reasons([group], [np.ones(4, dtype=bool)], None) == {}
