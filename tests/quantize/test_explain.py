"""Diagnosis finds what was planted, and counts as it says."""

import pytest
import torch
from tests.quantize.quantize_nets import NETS, arrays
from torch import nn

from lilliput.core.errors import PreconditionError
from lilliput.quantize import Integer, Scheme, Static, Uniform, explain


class Chain(nn.Module):
    """Three linear layers; the second reads a channel far larger than the others, the third undoes nothing."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        with torch.no_grad():
            self.a.weight[3] *= 200
            self.b.weight[:, 3] /= 200

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


def _explained(model, data, **options):
    quantized = Static(scheme=Scheme(**options))(model, data).model
    return explain(model, quantized, data, samples=48), quantized


def test_the_layer_with_the_planted_outlier_comes_first():
    data = arrays(6)
    report, _ = _explained(Chain().eval(), data, bits=Uniform(weights=8, activations=8))
    entry = report.entries[0]
    rows = {row["layer"]: row for row in entry.layers}
    assert entry.layers[0]["layer"] == "a"  # its result holds the outlier
    assert entry.layers[0]["noise_share"] > 0.5
    assert rows["b"]["outliers"] == "3"
    assert rows["b"]["outlier_ratio"] > 50
    assert rows["c"]["outlier_ratio"] < 6
    assert any("leaving a at higher precision" in note for note in entry.notes)


def test_layer_alone_and_left_out_are_what_they_say():
    """With everything but one layer at sixteen bits, that layer alone is the whole error."""
    data = arrays(2, 8, 8)
    model = NETS["residual"][0]().eval()

    def bits(layers):
        fine = Uniform(weights=16, activations=16)(layers)
        return fine | {"depthwise": fine["depthwise"]._replace(weights=3)}

    report, _ = _explained(model, data, activations=Integer(bits=16, signed=False, symmetric=False), bits=bits)
    first = report.entries[0].layers[0]
    assert first["layer"] == "depthwise"
    assert first["noise_share"] > 0.99
    assert first["noise_alone"] == pytest.approx(report.entries[0].metrics["noise"], rel=0.05)
    assert first["extra_bytes"] == 8 * 9 * 29 // 8
    assert all(row["noise_alone"] < 1e-2 * first["noise_alone"] for row in report.entries[0].layers[1:])


def test_nothing_stays_changed_and_a_plain_network_is_refused():
    data = arrays(2, 8, 8)
    model = NETS["residual"][0]().eval()
    _, quantized = _explained(model, data)
    with torch.no_grad():
        before = quantized(data.example())
    explain(model, quantized, data, samples=8)
    with torch.no_grad():
        assert torch.equal(quantized(data.example()), before)
    with pytest.raises(PreconditionError, match="holds no quantizers"):
        explain(model, model, data)
