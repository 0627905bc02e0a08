"""Every architecture row that works: published counts, any classes and channels, ONNX equal to torch."""

import pytest
import torch

from lilliput import methods
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.graph import profile, trace

ROWS = [row for row in methods.rows() if row.works and row.family == "architectures"]


def build(row, *, num_classes=1000, in_chans=3):
    torch.manual_seed(0)
    return methods.build(row.id)(num_classes=num_classes, in_chans=in_chans)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_counts_equal_the_published_ones_to_the_digits_given(row):
    counted = profile(build(row), torch.zeros(2, 3, 224, 224))
    for published, actual in ((row.figures["params_m"], counted.params / 1e6), (row.figures["macs_g"], counted.macs / 1e9)):
        digits = len(str(published).partition(".")[2])
        assert abs(actual - published) <= 0.6 * 10**-digits, (published, actual)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_takes_any_classes_and_channels_and_deploys(row, tmp_path):
    model, example = build(row, num_classes=7, in_chans=1), torch.randn(2, 1, 64, 64)
    model(example).sum().backward()
    traced = trace(model.eval(), example)
    session = Session(export(traced, tmp_path / "model.onnx", example))
    with torch.no_grad():
        assert abs(session(example.numpy()) - model(example).numpy()).max() < 1e-4
