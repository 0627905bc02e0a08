"""Learned bases (LQ-Nets), by hand."""

import pytest
import torch
from simulate import activation_quantizer, gradients, weight_quantizer

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize import BitPlanes, Integer
from lilliput.quantize.simulations import QuantizationErrorMinimisation
from lilliput.quantize.simulations.lqnets import LearnedBasis
from lilliput.quantize.simulations.planes import encodings, fitted, sorted_levels


def test_levels_of_a_basis_by_hand():
    scale, levels, thresholds, codes = sorted_levels(torch.tensor([1.0, 3.0]), encodings(2, signed=True))
    assert (levels * scale).tolist() == [-4, -2, 2, 4]
    assert (thresholds * scale).tolist() == [-3, 0, 3]
    assert codes.tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    scale, levels, _, _ = sorted_levels(torch.tensor([2.0, 0.5]), encodings(2, signed=False))
    assert (levels * scale).tolist() == [0, 0.5, 2, 2.5]


def test_the_basis_of_least_squared_error():
    bits = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    basis = torch.tensor([0.7, 2.0])
    torch.testing.assert_close(fitted(bits @ basis, bits, torch.zeros(2)), basis, atol=1e-3, rtol=0)
    rows = torch.tensor([3.0, 1.0, -1.0, 2.0])
    best = fitted(rows, bits, torch.zeros(2), ridge=0.0)
    torch.testing.assert_close(best, torch.linalg.lstsq(bits, rows).solution)


def test_an_iteration_moves_a_tenth_of_the_way_and_lowers_the_error():
    torch.manual_seed(0)
    w = torch.randn(2, 200)
    basis = LearnedBasis(torch.tensor([[0.2, 0.8], [1.0, 0.3]]), 0, signed=True, keep=0.9)
    before, start = (w - basis.eval()(w)).square().sum(1), basis.get_buffer("basis").clone()
    basis.train()(w)
    moved = basis.get_buffer("basis").clone()
    assert ((w - basis.eval()(w)).square().sum(1) < before).all()
    whole = LearnedBasis(start, 0, signed=True, keep=0.0)
    whole.train()(w)
    torch.testing.assert_close(moved, start + 0.1 * (whole.get_buffer("basis") - start))
    frozen = basis.get_buffer("basis").clone()
    basis.eval()(w)
    assert torch.equal(basis.get_buffer("basis"), frozen)


def test_weights_start_at_a_basis_that_fits_them():
    torch.manual_seed(0)
    w = torch.stack([torch.randn(400), torch.rand(400) - 0.5])
    quantizer = weight_quantizer(QuantizationErrorMinimisation(), BitPlanes(axis=0), w)
    error = (w - quantizer.eval()(w)).square().sum(1)
    # Two bits of signs are two magnitudes: the best pair, of all splits of the sorted magnitudes.
    for row, lost in zip(w.abs().sort().values, error, strict=True):
        best = min(sum((part - part.mean()).square().sum() for part in row.split([k, 400 - k])) for k in range(1, 400))
        assert best * 0.999 <= lost <= 1.05 * best


def test_gradients_pass_weights_and_stop_at_the_largest_activation():
    w = torch.tensor([[-9.0, 0.2, 5.0]])
    _, grad = gradients(weight_quantizer(QuantizationErrorMinimisation(), BitPlanes(axis=0), w), w)
    assert grad.tolist() == [[1, 1, 1]]
    y, grad = gradients(activation_quantizer(QuantizationErrorMinimisation(), 2, 3.0), torch.tensor([0.2, 1.4, 2.9, 8.0]))
    assert y.tolist() == pytest.approx([0, 1, 3, 3])
    assert grad.tolist() == [1, 1, 1, 0]


def test_a_basis_ends_as_a_table_of_each_channel():
    torch.manual_seed(0)
    w = torch.randn(3, 4, 5)
    quantizer = weight_quantizer(QuantizationErrorMinimisation(), BitPlanes(bits=3, axis=0), w)
    values = quantizer.eval().settle(w)
    assert quantizer.levels.shape == (3, 8)
    assert torch.equal(quantizer(values), values)
    assert not torch.equal(quantizer.levels[0], quantizer.levels[1])


def test_channels_of_zeros_are_no_trouble():
    w = torch.zeros(2, 5)
    w[1] = torch.randn(5)
    quantizer = weight_quantizer(QuantizationErrorMinimisation(), BitPlanes(axis=0), w)
    y, grad = gradients(quantizer, w)
    assert y[0].abs().max() < 1e-6
    assert torch.isfinite(grad).all()


def test_refusals():
    with pytest.raises(PreconditionError, match="BitPlanes"):
        weight_quantizer(QuantizationErrorMinimisation(), Integer(), torch.ones(3))
    with pytest.raises(RecipeError, match="keep"):
        QuantizationErrorMinimisation(keep=1.0)
