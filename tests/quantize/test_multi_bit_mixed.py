"""Rows as sums of low-bit rows (multipoint), by hand."""

import itertools

import pytest
import torch
from quantize_nets import NETS, arrays

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize import Integer, Quantizer, Scheme, Static, Uniform
from lilliput.quantize.calibrate import constant_names
from lilliput.quantize.recipes import minmax, multi_bit_mixed
from lilliput.quantize.rounding.multipoint import Multipoint, allot, point, tabulate_


def test_a_point_is_nearly_the_best_there_is():
    torch.manual_seed(0)
    rows = torch.randn(4, 5, dtype=torch.float64)
    scale, q = point(rows, 1)
    error = (rows - scale[:, None] * q).square().sum(1)
    assert set(q.unique().tolist()) <= {-1.0, 0.0, 1.0}
    for row, got in zip(rows, error, strict=True):
        best = row.square().sum()
        for signs in itertools.product((-1.0, 0.0, 1.0), repeat=5):
            code = torch.tensor(signs, dtype=torch.float64)
            if code.any():
                best = min(best, (row - code * (row @ code) / (code @ code)).square().sum())
        assert got == pytest.approx(best.item(), rel=1e-6)


def test_exact_sums_are_found():
    q = torch.tensor([[3.0, -1.0, 2.0, 0.0]], dtype=torch.float64)
    scale, found = point(0.7 * q, 3)
    torch.testing.assert_close(scale[:, None] * found, 0.7 * q)
    assert point(torch.zeros(1, 4), 3)[1].tolist() == [[0, 0, 0, 0]]


def test_points_go_to_the_largest_error_one_at_a_time():
    errors = torch.tensor([[9.0, 9.0, 9.0], [5.0, 4.0, 1.0], [4.5, 0.5, 0.1], [0.2, 0.1, 0.0]])
    assert allot(errors, 0).tolist() == [1, 1, 1]
    assert allot(errors, 1).tolist() == [2, 1, 1]
    assert allot(errors, 2).tolist() == [3, 1, 1]
    assert allot(errors, 3).tolist() == [3, 2, 1]
    assert allot(errors, 99).tolist() == [3, 3, 3]


def test_the_table_holds_all_sums_of_a_row():
    quantizer = Quantizer(Integer(bits=2, axis=0), layer="layer", weight=True, channels=2)
    tabulate_(quantizer, torch.tensor([[1.0, 0.25], [2.0, 0.0]]), 1)
    assert (quantizer.levels[0] * quantizer.scale[0]).tolist() == [-1.25, -1, -0.75, -0.25, 0, 0.25, 0.75, 1, 1.25]
    assert sorted(set((quantizer.levels[1] * quantizer.scale[1]).tolist())) == [-2, 0, 2]
    x = torch.tensor([[0.8, -0.3], [0.8, 1.1]])
    assert quantizer(x).tolist() == [[0.75, -0.25], [0, 2]]


def test_more_points_lose_less_and_stay_within_the_budget():
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()
    scheme = Scheme(bits=Uniform(weights=2, activations=8))
    errors = []
    with torch.no_grad():
        reference = model(data.example(32))
        for extra in (0.0, 0.5, 3.0):
            result = Static(scheme=scheme, roundings=(Multipoint(extra=extra, most=4),), samples=48)(model, data)
            errors.append((result.model(data.example(32)) - reference).square().mean())
            note = result.report.entries[0].notes[-1]
            assert note == f"{20 + round(8 * extra) * 2 + round(4 * extra)} points for 20 outputs"
        plain = minmax(weights=2)(model, data).model(data.example(32))
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] < (plain - reference).square().mean()


def test_weights_lie_on_the_tables():
    data = arrays(2, 8, 8)
    result = multi_bit_mixed(weights=2, samples=48)(NETS["residual"][0]().eval(), data)
    rows = {row["layer"]: row for row in result.report.entries[0].layers}
    assert rows["stem"]["weight_bits"] == 8
    for quantizer, name in constant_names(result.model):
        values = result.model.tensor(name).detach()
        if quantizer.grid.bits < 8:
            assert quantizer.layer == "depthwise"
            assert torch.equal(quantizer(values), values)
            assert quantizer.levels.shape == (8, 9)


def test_refusals():
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()
    with pytest.raises(RecipeError, match="levels"):
        Static(scheme=Scheme(bits=Uniform(weights=4)), roundings=(Multipoint(most=3),))(model, data)
    with pytest.raises(PreconditionError, match="integers"):
        Static(scheme=Scheme(weights=Integer(axis=None), bits=Uniform(weights=4)), roundings=(Multipoint(),))(model, data)
    with pytest.raises(RecipeError, match="points"):
        Multipoint(extra=-1)
