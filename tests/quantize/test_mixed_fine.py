"""Widths of channels and of single weights: values, grids and counts by hand."""

from dataclasses import replace

import pytest
import torch
from quantize_nets import NETS, arrays

from lilliput.core import Budget, BudgetError, PreconditionError, RecipeError
from lilliput.quantize import Integer, Quantizer, Scheme, Static, Widths, aq, autoq
from lilliput.quantize.mixed.hierarchy import Hierarchical, _Group, fitted
from lilliput.quantize.mixed.task import Task
from lilliput.quantize.mixed.tolerance import Tolerance, _meet, _Weight, multiples
from lilliput.train.agents import DDPG

SMALL = Hierarchical(high=DDPG(hidden=(16, 16), warmup=2), low=DDPG(hidden=(16, 16), warmup=2, memory=256), episodes=8, samples=48)


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    model, data = NETS["residual"][0]().eval(), arrays(2, 8, 8)
    return model, data, Task.of(model, data, Static(), budget=Budget(bits=4.0), widths=Widths(weights=(2, 4, 8)), costs={})


def test_codes_of_narrow_values_are_multiples():
    codes = torch.tensor([-127.0, -33, -32, -31, 0, 15, 16.1, 40, 96, 127])
    assert multiples(codes, 8, 8).tolist() == codes.round().tolist()
    assert multiples(codes, 8, 3).tolist() == [-96, -32, -32, -32, 0, 0, 32, 32, 96, 96]
    assert multiples(codes, 8, 2).tolist() == [-64, -64, 0, 0, 0, 0, 0, 64, 64, 64]
    assert not multiples(codes, 8, 0).any()


def test_tolerances_have_the_closed_form():
    grid = Integer(bits=8)
    weight = torch.tensor([1.0, 0.5, 0.3, 0.1, -0.01])
    widths = torch.tensor([0, 2, 4, 8])
    from lilliput.quantize.ranges import MinMax, channel_bounds

    parameters = grid.parameters(*channel_bounds(MinMax(), weight, grid))
    errors = torch.stack([(multiples(weight / parameters.scale, 8, int(b)) * parameters.scale - weight).abs() for b in widths])
    held = _Weight("w", weight, grid, parameters, widths, errors, parameters.scale * 127)
    slope = torch.tensor([1.0, 10.0, 1.0, 1.0, 1.0])
    # Tolerances 0.2 and, where the gradient is ten times as large, 0.02: 2 bits hold 0 and 64/127, 4 bits multiples of 16/127.
    assert widths[held.options(slope, 0.2, 10.0)].tolist() == [4, 2, 4, 0, 0]
    # A radius of 0.05 binds everywhere but at the second weight.
    assert widths[held.options(slope, 0.2, 0.05)].tolist() == [8, 2, 4, 4, 0]
    assert held.at(torch.tensor([3, 1, 2, 0, 0])).tolist() == pytest.approx([1.0, 64 / 127, 32 / 127, 0, 0])
    # The bits fall as the tolerance grows, and the least tolerance that meets the limit is taken.
    (options,) = _meet([held], {"w": slope}, 10.0, 10.0)
    assert int(widths[options].sum()) <= 10
    assert _meet([held], {"w": slope}, 1e-6, 10.0) is None


def _trailing(code, most):
    code = abs(round(code))
    return 0 if code == 0 else most - ((code & -code).bit_length() - 1)


def test_single_weights_meet_the_budget_on_the_widest_grid(case):
    model, data, _ = case
    widths = Widths(weights=(0, 2, 3, 4, 6, 8))
    result = aq(Budget(bits=2.5), search=Tolerance(samples=48, rounds=3), widths=widths, inner=Static(samples=32))(model, data)
    (entry,) = result.report.entries
    assert entry.method == "quantize.aq"
    assert entry.measured["bits"] <= 2.5
    total = count = 0
    for module in result.model.modules():
        if isinstance(module, Quantizer) and module.weight:
            values = result.model.tensor(f"{module.layer}.weight")
            assert module.grid.bits == 8
            torch.testing.assert_close(module(values), values, rtol=1e-6, atol=0)
            codes = (values / module.scale.reshape(-1, *[1] * (values.ndim - 1))).flatten().tolist()
            total, count = total + sum(_trailing(code, 8) for code in codes), count + len(codes)
    # What the values need is what was counted, or less where a value is narrower than its width.
    assert total / count <= entry.measured["bits"] + 1e-9
    assert total / count > 1.5
    rows = {row["layer"]: row for row in entry.layers}
    sizes = {"stem": 144, "depthwise": 72, "head": 64}
    assert sum(rows[name]["channel_bits"] * n for name, n in sizes.items()) / 280 == pytest.approx(entry.metrics["bits"])


def test_channels_of_their_own_width_lie_on_their_own_grid(case):
    _, _, task = case
    group = _Group(task, task.layers[0])
    options = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    written = group.written(options)
    assert written.grid.bits == 8
    for channel, option in enumerate(options.tolist()):
        width = (2, 4, 8)[option]
        row = group.weight[channel]
        scale = row.abs().max() / (2 ** (width - 1) - 1)
        assert float(written.parameters.scale[channel]) == pytest.approx(float(scale))
        torch.testing.assert_close(written.values[channel], (row / scale).round() * scale)
    narrow = group.written(torch.zeros(8, dtype=torch.long))
    assert narrow.grid.bits == 2


def test_channels_are_fitted_one_by_one(case):
    _, _, task = case
    groups = [_Group(task, layer) for layer in task.layers]  # 8 channels of 18, 8 of 9, 4 of 16; limit 1120 bits

    def bits(options):
        return sum(float(g.widths[o].sum()) * g.size for g, o in zip(groups, options, strict=True))

    wide = [torch.full((g.channels,), 2) for g in groups]
    fit = fitted(task, groups, wide)
    assert 1120 - 18 * 4 < bits(fit) <= 1120
    assert all(o.eq(2).all() for o in wide)
    narrow = fitted(task, groups, [torch.zeros_like(o) for o in wide])
    assert 1120 - 18 * 4 < bits(narrow) <= 1120
    assert int(narrow[0].min()) >= int(narrow[2].max())
    with pytest.raises(BudgetError, match="narrowest"):
        fitted(replace(task, limits={"bits": 500.0}), groups, wide)


def test_the_hierarchy_meets_the_budget_and_repeats(case):
    model, data, _ = case
    runs = [autoq(Budget(bits=3.3), search=SMALL, widths=Widths(weights=(2, 3, 4, 8)), inner=Static(samples=32))(model, data) for _ in range(2)]
    entry = runs[0].report.entries[0]
    assert entry.method == "quantize.autoq"
    assert "0x" not in entry.recipe
    total = 0
    for module in runs[0].model.modules():
        if isinstance(module, Quantizer) and module.weight:
            values = runs[0].model.tensor(f"{module.layer}.weight")
            torch.testing.assert_close(module(values), values, rtol=1e-6, atol=0)
            codes = (values / module.scale.reshape(-1, *[1] * (values.ndim - 1))).round().abs().flatten(1).amax(1)
            total += sum({1: 2, 3: 3, 7: 4, 127: 8}[int(code)] for code in codes) * values[0].numel()
    assert total / 280 == pytest.approx(entry.measured["bits"])
    assert entry.measured["bits"] <= 3.3
    assert all(torch.equal(a, b) for a, b in zip(runs[0].model.state_dict().values(), runs[1].model.state_dict().values(), strict=True))


def test_refusals(case):
    model, data, _ = case
    with pytest.raises(PreconditionError, match="counted in bits"):
        aq(Budget(size="10K"))(model, data)
    with pytest.raises(BudgetError, match="narrowest"):
        autoq(Budget(bits=1.5), search=SMALL)(model, data)
    with pytest.raises(BudgetError, match="no tolerance"):
        aq(Budget(bits=1.5), search=Tolerance(samples=16, rounds=2), widths=Widths(weights=(2, 8)))(model, data)
    with pytest.raises(RecipeError, match="each output channel"):
        autoq(Budget(bits=4.0), search=SMALL, inner=Static(scheme=Scheme(weights=Integer())))(model, data)
    with pytest.raises(RecipeError, match="reach"):
        Hierarchical(reach=0)
