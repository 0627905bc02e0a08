"""Multi-bit weights whose channels lose bits: tables, fits, scores and budgets by hand."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantize_nets import NETS, arrays

from lilliput.core import Budget, BudgetError, PreconditionError, RecipeError
from lilliput.quantize import Integer, Quantizer, Train, alq_bits, dmbq
from lilliput.quantize.mixed.channels import Distributed, Fitted, LossAware, LossGuided, solve
from lilliput.quantize.mixed.lowering import Lowering, MultiBitWeights, _drop, counted
from lilliput.quantize.mixed.multibit import MultiBit, normal_coordinates, patterns, sums
from lilliput.train import SGD, Fit, fit

GRID = MultiBit(bits=3, axis=0)
W = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
FIT = Fit(epochs=2, batch_size=8, optimizer=SGD(lr=0.01))


def test_sums_are_all_combinations_in_order():
    levels, order = sums(torch.tensor([[4.0, 2, 1], [3.0, 0, 0]]))
    assert levels[0].tolist() == [-7, -5, -3, -1, 1, 3, 5, 7]
    assert levels[1].tolist() == [-3] * 4 + [3] * 4
    assert torch.equal((patterns(3)[order[0]] * torch.tensor([4.0, 2, 1])).sum(1), levels[0])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=5), st.integers(0, 4))
def test_a_dropped_coordinate_halves_the_levels_exactly(coordinates, dropped):
    dropped %= len(coordinates)
    row = torch.tensor([coordinates])
    row[0, dropped] = 0
    shorter = torch.tensor([[a for i, a in enumerate(coordinates) if i != dropped] or [0.0]])
    assert set(sums(row)[0][0].tolist()) <= set(sums(shorter)[0][0].tolist())


def test_coordinates_for_the_normal_distribution():
    # One bit: the mean magnitude. Two bits: the quantizer of Lloyd and Max, +-0.4528 and +-1.510 standard deviations.
    assert normal_coordinates(1) == pytest.approx((1.0,))
    unit = math.sqrt(math.pi / 2)
    assert sums(torch.tensor([normal_coordinates(2)]))[0][0].tolist() == pytest.approx([-1.510 * unit, -0.4528 * unit, 0.4528 * unit, 1.510 * unit], abs=2e-3)
    x = torch.randn(20000, generator=torch.Generator().manual_seed(0)).double()
    x /= x.abs().mean()
    errors = []
    for bits in range(1, 7):
        levels = sums(torch.tensor([normal_coordinates(bits)], dtype=torch.float64))[0][0]
        errors.append(float((levels[torch.bucketize(x, (levels[1:] + levels[:-1]) / 2)] - x).square().mean()))
    assert all(b < 0.5 * a for a, b in itertools.pairwise(errors))


def test_the_grid():
    assert MultiBit(bits=1).levels == (-1.0, 1.0)
    assert len(MultiBit(bits=4).levels) == 16
    assert MultiBit(bits=4).at(2) == MultiBit(bits=2)
    with pytest.raises(RecipeError, match="1 to 6"):
        MultiBit(bits=7)


def test_weighted_least_squares():
    torch.manual_seed(0)
    signs, rows, weights = torch.randint(0, 2, (2, 9, 3)) * 2.0 - 1, torch.randn(2, 9), torch.rand(2, 9) + 0.1
    found = solve(signs, rows, weights)
    for c in range(2):
        root = weights[c].sqrt()[:, None]
        wanted = torch.linalg.lstsq(root * signs[c], root * rows[c][:, None]).solution[:, 0]
        torch.testing.assert_close(found[c], wanted, rtol=1e-3, atol=1e-4)


def test_weights_of_exact_multi_bit_form_are_found():
    torch.manual_seed(0)
    coordinates, signs = torch.tensor([1.0, 0.45, 0.2]), torch.randint(0, 2, (4, 30, 3)) * 2.0 - 1
    simulation = Fitted(GRID, (signs * coordinates).sum(2), rate=1e-3)
    for _ in range(5):
        simulation.update_((signs * coordinates).sum(2))
    torch.testing.assert_close(simulation.coordinates.sort(1).values, coordinates.sort().values.expand(4, 3), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(simulation.eval()((signs * coordinates).sum(2)), (signs * coordinates).sum(2), rtol=1e-3, atol=1e-3)


def test_values_are_the_nearest_sums():
    for simulation in (Distributed(GRID, W, 0.01).eval(), Fitted(GRID, W, 1e-3).eval()):
        values = simulation(W)
        levels = sums(simulation.coordinates)[0]
        for row, quantized, own in zip(W.flatten(1), values.flatten(1), levels, strict=True):
            torch.testing.assert_close(quantized, own[(row[:, None] - own).abs().argmin(1)], rtol=1e-5, atol=1e-6)
        signs = simulation.signs(W)
        torch.testing.assert_close((signs * simulation.coordinates[:, None]).sum(2), values.flatten(1), rtol=1e-5, atol=1e-6)


def test_scores_of_distribution_aware_channels_are_the_estimated_change_of_the_loss():
    simulation = Distributed(GRID, W, momentum=1.0).train()
    slope = torch.randn(W.shape, generator=torch.Generator().manual_seed(1))
    x = W.clone().requires_grad_()
    y = simulation(x)
    (y * slope).sum().backward()
    wanted = ((W - y.detach()) * slope).flatten(1).mean(1)
    torch.testing.assert_close(simulation.scores(W)[:, 0], wanted.abs())
    inside = W.abs() <= simulation.coordinates.sum(1)[:, None, None]
    torch.testing.assert_close(x.grad, slope * inside)
    simulation.drop_(torch.tensor([[True], [False], [True], [False]]))
    assert simulation.bits.tolist() == [2, 3, 2, 3]
    assert not simulation.error.any()
    torch.testing.assert_close(simulation.coordinates[0, :2], torch.tensor(normal_coordinates(2)) * W[0].abs().mean())
    for _ in range(2):
        simulation.drop_(torch.tensor([[True], [False], [False], [False]]))
    assert simulation.scores(W)[0, 0] == math.inf
    assert not simulation.eval()(W)[0].any()


def test_scores_of_loss_aware_coordinates_are_those_of_the_quadratic_model():
    simulation = Fitted(GRID, W, rate=0.1).train()
    slope = torch.randn(W.shape, generator=torch.Generator().manual_seed(1))
    x = W.clone().requires_grad_()
    (simulation(x) * slope).sum().backward()
    torch.testing.assert_close(x.grad, slope)
    rows, curvature = slope.flatten(1), slope.flatten(1).abs()
    torch.testing.assert_close(simulation.curvature(), curvature, rtol=1e-3, atol=1e-5)
    signs, a = simulation.signs(W), simulation.coordinates
    gradient = 0.1 * (signs * rows[..., None]).sum(1)
    wanted = -gradient * a + 0.5 * curvature.sum(1)[:, None] * a.square()
    torch.testing.assert_close(simulation.scores(W), wanted, rtol=1e-3, atol=1e-4)
    simulation.drop_(torch.tensor([[True, False, False]] * 4))
    assert simulation.bits.tolist() == [2] * 4
    simulation.update_(W)
    assert simulation.bits.tolist() == [2] * 4
    assert (simulation.scores(W)[:, 0] == math.inf).all()


def test_the_least_important_bits_go_first_and_no_more_than_needed():
    wide, narrow = Distributed(GRID, torch.randn(2, 10), 0.01), Distributed(GRID, torch.randn(3, 4), 0.01)
    wide.error.copy_(torch.tensor([1.0, 5.0]))
    narrow.error.copy_(torch.tensor([2.0, -0.5, 9.0]))
    held = [(wide, torch.randn(2, 10)), (narrow, torch.randn(3, 4))]
    _drop(held, 2 * 30 + 3 * 12 - 13)
    assert wide.bits.tolist() == [2, 3]
    assert narrow.bits.tolist() == [3, 2, 3]
    _drop(held, 0.0)
    assert not wide.bits.any()
    with pytest.raises(BudgetError, match="no bits are left"):
        _drop(held, -1.0)


@pytest.mark.parametrize(("recipe", "bits"), [(dmbq, 2.3), (alq_bits, 2.3), (alq_bits, 0.7)])
def test_training_ends_within_the_budget(recipe, bits):
    torch.manual_seed(0)
    model, data = NETS["residual"][0]().eval(), arrays(2, 8, 8)
    result = recipe(Budget(bits=bits), bases=4, train=Train(fit=FIT, samples=32))(model, data)
    (entry,) = result.report.entries
    assert entry.method == f"quantize.{recipe.__name__}"
    assert "0x" not in entry.recipe
    assert entry.promised == {"bits": bits}
    total = 0.0
    for module in result.model.modules():
        if isinstance(module, Quantizer) and module.weight:
            values = result.model.tensor(f"{module.layer}.weight")
            torch.testing.assert_close(module(values), values, rtol=1e-5, atol=1e-7)
            distinct = [len(row.unique()) for row in module(values).flatten(1)]
            total += sum(math.ceil(math.log2(n)) for n in distinct) * values[0].numel()
    assert total / 280 <= entry.measured["bits"] + 1e-9
    assert bits - 0.3 < entry.measured["bits"] <= bits
    rows = {row["layer"]: row for row in entry.layers}
    assert sum(rows[n]["channel_bits"] * c for n, c in (("stem", 144), ("depthwise", 72), ("head", 64))) / 280 == pytest.approx(entry.metrics["bits"])
    assert counted(result.model).keys() == {"stem", "depthwise", "head"}


def test_a_run_that_stopped_goes_on_as_if_it_had_not(tmp_path):
    from lilliput.quantize import Scheme, equip
    from lilliput.quantize.bits import Uniform

    torch.manual_seed(0)
    model, data = NETS["residual"][0]().eval(), arrays(2, 8, 8)
    for channels in (LossGuided(), LossAware()):
        scheme = Scheme(weights=MultiBit(bits=4, axis=0), bits=Uniform(weights=4, activations=8))
        network, _ = equip(model, data, scheme, estimator=MultiBitWeights(channels=channels), samples=32)
        whole = fit(network, data, FIT, hooks=(Lowering(limit=600.0, search=0.9),), progress=False).model
        stopping, path = Lowering(limit=600.0, search=0.9), tmp_path / f"{type(channels).__name__}.ckpt"
        stopping.epoch = lambda state: (_ for _ in ()).throw(RuntimeError("stop")) if state.epoch == 1 else None
        with pytest.raises(RuntimeError, match="stop"):
            fit(network, data, FIT, hooks=(stopping,), checkpoint=path, progress=False)
        resumed = fit(network, data, FIT, hooks=(Lowering(limit=600.0, search=0.9),), checkpoint=path, progress=False).model
        assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))
        assert sum(int(q.simulation.bits.sum()) * q.simulation.bits.numel() for q in whole.modules() if isinstance(q, Quantizer) and q.weight) > 0


def test_refusals():
    model, data = NETS["residual"][0]().eval(), arrays(2, 8, 8)
    with pytest.raises(PreconditionError, match="multi-bit weights"):
        fit(copy.deepcopy(model), data, Fit(epochs=1), hooks=(Lowering(limit=1.0),), progress=False)
    with pytest.raises(PreconditionError, match="counted in bits"):
        dmbq(Budget(bits=2.0, size="10K"))(model, data)
    with pytest.raises(RecipeError, match="rounds"):
        Lowering(limit=1.0, rounds=0)
    with pytest.raises(RecipeError, match="rate"):
        LossAware(rate=0)
    with pytest.raises(RecipeError, match="momentum"):
        LossGuided(momentum=0)
    quantizer = Quantizer(MultiBit(bits=2), layer="a", weight=True)
    with pytest.raises(PreconditionError, match="output channels"):
        MultiBitWeights(channels=LossGuided()).equip_(quantizer, W)
    plain = Quantizer(Integer(axis=0), layer="a", weight=True, channels=4)
    plain.set(plain.grid.parameters(W.flatten(1).amin(1), W.flatten(1).amax(1)))
    MultiBitWeights(channels=LossGuided()).equip_(plain, W)
    assert plain.simulation is None
