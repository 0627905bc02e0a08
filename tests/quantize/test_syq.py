"""Scales of rows of the kernel (SYQ), by hand."""

import numpy as np
import pytest
import torch
from quantize_nets import arrays
from simulate import activation_quantizer, gradients, weight_quantizer
from torch import nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.quantize import Binary, Integer, Ternary
from lilliput.quantize.calibrate import constant_names
from lilliput.quantize.recipes import syq
from lilliput.quantize.simulations import RowScales
from lilliput.train import SGD, Fit

# One input, one output, two rows of two: means of the magnitudes 0.5 and 0.1.
W = torch.tensor([[[[0.9, -0.1], [0.16, -0.04]]]])
G = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])


def test_ternary_rows_by_hand():
    quantizer = weight_quantizer(RowScales(share=0.05), Ternary(axis=0), W)
    assert quantizer.simulation.scale.tolist() == pytest.approx([0.5, 0.1])
    y, grad = gradients(quantizer, W, G)
    # The threshold is 0.045.
    torch.testing.assert_close(y, torch.tensor([[[[0.5, -0.5], [0.1, 0.0]]]]))
    torch.testing.assert_close(grad, torch.tensor([[[[0.5, 1.0], [0.3, 4.0]]]]))
    assert quantizer.simulation.scale.grad.tolist() == [1 - 2, 3]


def test_binary_rows_by_hand():
    quantizer = weight_quantizer(RowScales(), Binary(axis=0), W)
    y, grad = gradients(quantizer, W, G)
    torch.testing.assert_close(y, torch.tensor([[[[0.5, -0.5], [0.1, -0.1]]]]))
    torch.testing.assert_close(grad, torch.tensor([[[[0.5, 1.0], [0.3, 4.0]]]]))
    assert quantizer.simulation.scale.grad.tolist() == [1 - 2, 3 - 4]


def test_scales_end_along_the_rows():
    quantizer = weight_quantizer(RowScales(), Ternary(axis=0), W)
    values = quantizer.eval().settle(W)
    assert quantizer.grid.axis == 2
    assert not quantizer.integer
    assert torch.equal(quantizer(values), values)
    linear = weight_quantizer(RowScales(), Ternary(axis=0), W[0, 0])
    values = linear.eval().settle(W[0, 0])
    assert linear.grid.axis is None
    assert linear.integer
    assert linear.scale.item() == pytest.approx(0.3)
    assert torch.equal(linear(values), values)


@pytest.mark.parametrize("weights", [1, 2])
def test_a_trained_network_keeps_its_norms_and_is_exported_exactly(weights, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(),
                          nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))
    data = arrays(2, 8, 8)
    result = syq(weights=weights, fit=Fit(epochs=1, batch_size=16, optimizer=SGD(lr=0.01)))(model, data)
    assert any("batch_norm" in str(node.target) for node in result.model.graph.nodes)
    assert any("2: its batch norm stays" in note for note in result.report.entries[0].notes)
    rows = {q.layer: q.scale.shape for q, _ in constant_names(result.model) if q.grid.bits == weights}
    assert rows == {"2": (3,), "5": (3,)}
    inputs = data.example(48)
    with torch.no_grad():
        simulated = result.model(inputs).numpy()
    deployed = Session(export(result.model, tmp_path / "model.onnx", data.example(4)))(inputs.numpy())
    step = np.diff(np.unique(simulated.round(6))).min()
    assert (np.abs(simulated - deployed) > 1.05 * step).mean() <= 0.02


def test_refusals():
    with pytest.raises(PreconditionError, match="Ternary"):
        weight_quantizer(RowScales(), Integer(), W)
    with pytest.raises(PreconditionError, match="weights"):
        activation_quantizer(RowScales(), 2, 1.0)
    with pytest.raises(RecipeError, match="share"):
        RowScales(share=1.0)
