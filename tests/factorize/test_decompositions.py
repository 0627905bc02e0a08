"""Decompositions: values worked by hand, exact recovery of planted structure, least squared error among their kind."""

import math

import numpy as np
import pytest
import torch
from factorize_nets import layers_of, tensors_of
from torch import nn

from lilliput.factorize.factors import composed
from lilliput.factorize.filterbasis import FilterBasis
from lilliput.factorize.lowrank import Kernels, Separable, Spectrum
from lilliput.factorize.tucker import Tucker
from lilliput.factorize.vbmf import _free_energy, vbmf_rank
from lilliput.graph import trace


def layer_with(weight):
    """A layer of that weight, traced."""
    if weight.ndim == 2:
        module, example = nn.Linear(weight.shape[1], weight.shape[0], bias=False), torch.zeros(2, weight.shape[1])
    else:
        module = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), padding=1, bias=False)
        example = torch.zeros(2, weight.shape[1], 7, 7)
    module.weight.data = weight
    traced = trace(nn.Sequential(module).to(weight.dtype).eval(), example.to(weight.dtype))
    layer = layers_of(traced)["0"]
    return layer, tensors_of(traced, layer)


def decomposed(decomposition, weight):
    layer, tensors = layer_with(weight)
    return decomposition(layer, tensors, None)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_singular_values_by_hand():
    # [[3, 0], [4, 5]] has singular values sqrt(45) and sqrt(5): traces 50, determinant 15.
    ready = decomposed(Kernels(), torch.tensor([[3.0, 0.0], [4.0, 5.0]], dtype=torch.float64))
    np.testing.assert_allclose(ready.spectra[0].values, [math.sqrt(45), math.sqrt(5)])
    np.testing.assert_allclose(ready.spectra[0].kept, [0, 0.9, 1])
    first, last = ready.factors((1,), None)
    # u = (1, 3) / sqrt(10), v = (1, 1) / sqrt(2): the best rank one is sqrt(45) u v'.
    torch.testing.assert_close(last.weight @ first.weight, torch.tensor([[1.5, 1.5], [4.5, 4.5]], dtype=torch.float64))


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_weight_of_that_rank_across_kernels_is_recovered(rank):
    weight = (normal(9, rank) @ normal(rank, 5 * 9, seed=1)).reshape(9, 5, 3, 3)
    ready = decomposed(Kernels(), weight)
    torch.testing.assert_close(composed(ready.factors((rank,), None), ready.layer), weight)
    assert int((ready.spectra[0].values > 1e-9).sum()) == rank


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_separable_kernels_are_recovered(rank):
    columns, rows = normal(rank, 5, 3), normal(9, rank, 3, seed=1)
    weight = torch.einsum("riy,orx->oiyx", columns, rows)
    ready = decomposed(Separable(), weight)
    vertical, horizontal = ready.factors((rank,), None)
    assert (tuple(vertical.weight.shape), tuple(horizontal.weight.shape)) == ((rank, 5, 3, 1), (9, rank, 1, 3))
    torch.testing.assert_close(composed((vertical, horizontal), ready.layer), weight)


def test_a_sobel_kernel_has_rank_one_across_rows_and_columns():
    weight = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]], dtype=torch.float64).reshape(1, 1, 3, 3)
    ready = decomposed(Separable(), weight)
    np.testing.assert_allclose(ready.spectra[0].values, [math.sqrt(12), 0, 0], atol=1e-12)
    vertical = ready.factors((1,), None)[0].weight.flatten()
    torch.testing.assert_close(vertical / vertical[0], torch.tensor([1.0, 2, 1], dtype=torch.float64))


@pytest.mark.parametrize("ranks", [(1, 1), (3, 2), (2, 4)])
def test_a_tensor_of_those_tucker_ranks_is_recovered(ranks):
    weight = torch.einsum("op,iq,pqyx->oiyx", normal(8, ranks[0]), normal(6, ranks[1], seed=1), normal(*ranks, 3, 3, seed=2))
    ready = decomposed(Tucker(), weight)
    assert [int((s.values > 1e-6 * s.values[0]).sum()) for s in ready.spectra] == list(ranks)
    torch.testing.assert_close(composed(ready.factors(ranks, None), ready.layer), weight, atol=1e-6, rtol=1e-6)


def test_sweeps_never_raise_the_error_and_bases_are_orthonormal():
    weight = normal(10, 8, 3, 3)
    errors = []
    for sweeps in (0, 1, 3, 8):
        ready = decomposed(Tucker(sweeps=sweeps), weight)
        left, _, right = ready.cut((4, 3))
        torch.testing.assert_close(left.T @ left, torch.eye(4, dtype=torch.float64))
        torch.testing.assert_close(right.T @ right, torch.eye(3, dtype=torch.float64))
        errors.append(float((composed(ready.factors((4, 3), None), ready.layer) - weight).norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] - 1e-3
    # Higher-order SVD errs by no more than both truncations together.
    bound = math.sqrt(sum(float((s.values[r:] ** 2).sum()) for s, r in zip(ready.spectra, (4, 3), strict=True)))
    assert errors[0] <= bound


def test_tucker_of_one_position_has_one_rank():
    ready = decomposed(Tucker(), normal(8, 6, 1, 1))
    assert len(ready.spectra) == 1
    assert len(ready.factors((2,), None)) == 2


def test_a_shared_basis_is_recovered():
    basis, mixing = normal(3, 4, 3, 3), normal(10, 2, 3, seed=1)
    weight = torch.einsum("rcyx,ogr->ogcyx", basis, mixing).reshape(10, 8, 3, 3)
    ready = decomposed(FilterBasis(channels=4), weight)
    assert ready.groups == 2
    shared, combined = ready.factors((3,), None)
    assert (tuple(shared.weight.shape), tuple(combined.weight.shape), shared.repeats) == ((3, 4, 3, 3), (10, 6, 1, 1), 2)
    torch.testing.assert_close(composed((shared, combined), ready.layer), weight)
    # Across kernels the same weight needs more: the basis is shared between halves of the inputs.
    assert int((decomposed(Kernels(), weight).spectra[0].values > 1e-9).sum()) == 6


@pytest.mark.parametrize(("inputs", "channels", "width"), [(8, 3, 2), (8, 100, 8), (7, 4, 1), (12, 4, 4)])
def test_parts_take_the_nearest_divisor_from_below(inputs, channels, width):
    assert decomposed(FilterBasis(channels=channels), normal(4, inputs, 3, 3)).width == width


@pytest.mark.parametrize("decomposition", [Kernels(), Separable(), FilterBasis(channels=3)], ids=repr)
def test_truncation_leaves_the_energy_that_the_spectrum_says(decomposition):
    weight = normal(9, 6, 3, 3)
    ready = decomposed(decomposition, weight)
    for rank in (1, 3, 7):
        error = (composed(ready.factors((rank,), None), ready.layer) - weight).square().sum() / weight.square().sum()
        assert float(error) == pytest.approx(1 - ready.spectra[0].kept[rank])


def test_a_spectrum_of_zeros_keeps_everything():
    assert Spectrum(values=np.zeros(3), rows=3, columns=3).kept.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("shape", [(40, 100), (100, 40), (64, 64), (16, 144)])
@pytest.mark.parametrize("rank", [0, 1, 5])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_variational_bayes_finds_the_planted_rank(shape, rank, scale):
    noise, signal = normal(*shape), 2 * normal(shape[0], rank, seed=1) @ normal(rank, shape[1], seed=2)
    values = torch.linalg.svdvals(scale * (noise + signal)).numpy()
    assert vbmf_rank(values, *shape) == rank


def test_variational_bayes_on_degenerate_matrices():
    assert vbmf_rank(np.zeros(4), 4, 9) == 0
    assert vbmf_rank(torch.linalg.svdvals(normal(6, 2) @ normal(2, 20, seed=1)).numpy(), 6, 20) == 2
    # By hand: the interval of the variance is a point, 9 / 9 = 1 and 10 / 4 = 2.5, and the thresholds 9 x 2.08 and 2 x 2.5 x 4.91.
    assert vbmf_rank(np.array([3.0]), 1, 9) == 0
    assert vbmf_rank(np.array([3.0, 1.0]), 2, 2) == 0


def test_variational_bayes_by_hand():
    # alpha = 0.04, t = 0.503, (1 + t)(1 + alpha / t) = 1.62; three equal values say v = 1, so that 1600 > 162 > 100.
    assert vbmf_rank(np.array([40.0, 10, 10, 10]), 4, 100) == 1
    # x = 4 is kept: t = (2.75 + sqrt(2.75^2 - 1)) / 2 = 2.6559, with t + 1.25 + 0.25 / t = 4; x = 1 is lost.
    t = (2.75 + math.sqrt(2.75**2 - 1)) / 2
    assert t + 1.25 + 0.25 / t == pytest.approx(4)
    wanted = 1 + (4 - t) + math.log((t + 1) / 4) + 0.25 * math.log(4 * t + 1)
    assert _free_energy(np.array([4.0, 1.0]), 0.25, 3.0) == pytest.approx(wanted)
    assert wanted == pytest.approx(2.8674, abs=1e-4)


def test_factors_by_hand():
    # Tucker: only W[0, 0] = (1, 2) and W[1, 1] = 0 outside; ranks one keep the output and the input that hold everything.
    weight = torch.zeros(2, 3, 1, 2, dtype=torch.float64)
    weight[0, 1] = torch.tensor([[3.0, 4.0]])
    ready = decomposed(Tucker(), weight)
    assert [s.values[0] for s in ready.spectra] == [5.0, 5.0]
    left, core, right = ready.cut((1, 1))
    torch.testing.assert_close(left.abs(), torch.tensor([[1.0], [0]], dtype=torch.float64))
    torch.testing.assert_close(right.abs(), torch.tensor([[0], [1.0], [0]], dtype=torch.float64))
    torch.testing.assert_close(core.abs().flatten(), torch.tensor([3.0, 4.0], dtype=torch.float64))
    # 3 inputs to 1, a core of 2 places, 1 to 2 outputs: 3 + 2 + 2.
    assert ready.params((1, 1)) == 7
    # A basis of one vector for the halves (3, 4), (6, 8), (0, 0), (-3, -4): energy 25 + 100 + 25, coefficients 1, 2, 0, -1 of (3, 4).
    weight = torch.tensor([[[[3.0]], [[4.0]], [[6.0]], [[8.0]]], [[[0.0]], [[0.0]], [[-3.0]], [[-4.0]]]], dtype=torch.float64)
    ready = decomposed(FilterBasis(channels=2), weight)
    np.testing.assert_allclose(ready.spectra[0].values, [math.sqrt(150), 0], atol=1e-9)
    shared, mixing = ready.factors((1,), None)
    torch.testing.assert_close(shared.weight.flatten()[1] / shared.weight.flatten()[0], torch.tensor(4 / 3, dtype=torch.float64))
    scale = float(shared.weight.flatten()[0]) / 3
    torch.testing.assert_close(mixing.weight.flatten() * scale, torch.tensor([1.0, 2, 0, -1], dtype=torch.float64))
    assert (ready.params((1,)), ready.layer.params) == (2 + 4, 8)


def test_weak_components_sink_in_the_noise():
    """The threshold lies near the largest singular value of the noise, sqrt(L) + sqrt(M)."""
    noise = normal(50, 200)
    for strength, found in ((0.5, 0), (1.6, 1)):
        spike = strength * (math.sqrt(50) + math.sqrt(200)) * torch.outer(normal(50, seed=1), normal(200, seed=2)) / math.sqrt(50 * 200)
        assert vbmf_rank(torch.linalg.svdvals(noise + spike).numpy(), 50, 200) == found
