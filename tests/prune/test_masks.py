"""Mask search, swaps and tuning: sums by hand, against all choices there are, and exact where the network allows it."""

import functools
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from lilliput import prune, zoo
from lilliput.core import Budget, PreconditionError
from lilliput.graph import profile, trace
from lilliput.prune import Channels, Element
from lilliput.prune.fisher import InputSlopes
from lilliput.prune.mask_search import LeastRemoved, MaskFisher, Swaps, swapped
from lilliput.prune.mask_tuning import Drawn, TunedMasks, solved
from lilliput.prune.statistics import Stats, gather


class Given:
    """The same batch as often as it is asked for."""

    num_classes = 0

    def __init__(self, x, y):
        self.x, self.y, self.train = x, y, self

    def batches(self, size, seed=0):
        return itertools.repeat((self.x[:size], self.y[:size]))


@functools.cache
def vit():
    """Four heads of width four, with weights large enough to matter, in double precision."""
    model = zoo.create("vit_tiny", num_classes=4, in_chans=1, seed=0, options={"image_size": 8, "dim": 16, "depth": 2, "heads": 4}).double()
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return trace(model, torch.randn(2, 1, 8, 8).double()).eval()


def images(count=16):
    generator = torch.Generator().manual_seed(0)
    data = Given(torch.randn(count, 1, 8, 8, generator=generator).double(), torch.randint(0, 4, (count,), generator=generator))
    data.num_classes = 4
    return data


def test_the_fisher_diagonal_is_the_mean_of_squared_slopes_of_masks():
    # y = 2 m1 x1 + 3 m2 x2, loss y^2: dL/dm = 2 y (2 x1, 3 x2) is (20, 30) on (1, 1), (8, 0) on (1, 0).
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    model[0].weight.data, model[1].weight.data = torch.eye(2), torch.tensor([[2.0, 3.0]])
    data = Given(torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.zeros(2, 1))
    traced = trace(model, data.x)
    criterion = MaskFisher(reading=InputSlopes(batches=1))
    plan = Channels(per_layer=False).plan(traced)
    assert plan.scores(criterion, gather(traced, data, criterion.needs), traced)[0].tolist() == pytest.approx([(400 + 64) / 2, 900 / 2])


def test_a_mask_on_a_head_is_a_factor_on_what_it_gives():
    traced, data = vit(), images()
    criterion = MaskFisher(reading=InputSlopes(batches=1, batch_size=16))
    plan = Channels(per_layer=False).plan(traced)
    scores = plan.scores(criterion, gather(traced, data, criterion.needs), traced)
    group = next(i for i, g in enumerate(plan.groups) if g.name == "blocks.1.attn.qkv")
    weight = traced.tensor("blocks.1.attn.proj.weight").detach().clone()
    for head in range(4):
        factor = torch.ones(4, dtype=torch.float64)
        losses = []
        for step in (-1e-2, 1e-2):
            factor[head] = 1 + step
            with torch.no_grad():
                traced.tensor("blocks.1.attn.proj.weight").copy_(weight * factor.repeat_interleave(4))
                losses.append(nn.functional.cross_entropy(traced(data.x), data.y, reduction="none"))
            traced.tensor("blocks.1.attn.proj.weight").data.copy_(weight)
        wanted = float(((losses[1] - losses[0]) / 2e-2).square().mean())
        assert scores[group][head] == pytest.approx(wanted, rel=1e-3)


def test_the_search_takes_heads_and_hidden_units_and_leaves_the_residual_stream():
    plan = Channels(per_layer=False).plan(vit())
    scores = [np.arange(1.0, g.units + 1) for g in plan.groups]
    shares = LeastRemoved().on(plan, scores, plan.coupling.traced, None)
    taken = {g.name for g, share in zip(plan.groups, shares(scores, 1.0), strict=True) if share > 0}
    assert taken == {f"blocks.{i}.{part}" for i in range(2) for part in ("attn.qkv", "mlp.fc1")}
    assert shares(scores, 0.0).tolist() == [0.0] * len(scores)
    with pytest.raises(PreconditionError, match="Channels"):
        LeastRemoved().on(Element().plan(plan.coupling.traced), scores, plan.coupling.traced, None)


def test_the_search_is_the_best_of_all_numbers_of_heads_with_the_hidden_units_that_fit():
    """The paper's Algorithm 1, written out."""
    plan = Channels(per_layer=False).plan(vit())
    generator = np.random.default_rng(0)
    scores = [generator.random(g.units) * (8 if g.name.endswith("qkv") else 1) for g in plan.groups]
    shares = LeastRemoved().on(plan, scores, plan.coupling.traced, None)
    heads, filters = ([i for i, g in enumerate(plan.groups) if g.name.endswith(end)] for end in ("qkv", "fc1"))
    whole = plan.cost(plan.everything())["macs"]

    def saved(group):
        keep = plan.everything()
        keep[group][0] = False
        return whole - plan.cost(keep)["macs"]

    def removable(groups):  # all but the best of each group, which stays, from the least on
        return np.sort(np.concatenate([np.sort(scores[g])[:-1] for g in groups]))

    fixed = whole - plan.cost(plan.keep(scores, shares(scores, 1.0)))["macs"]
    for amount in (0.2, 0.5, 0.8):
        must = amount * fixed
        best = np.inf
        for count in range(len(removable(heads)) + 1):
            rest = max(int(np.ceil((must - count * saved(heads[0])) / saved(filters[0]) - 1e-6)), 0)
            if rest <= len(removable(filters)):
                best = min(best, removable(heads)[:count].sum() + removable(filters)[:rest].sum())
        keep = plan.keep(scores, shares(scores, amount))
        assert whole - plan.cost(keep)["macs"] >= must - 1e-6 * whole
        assert sum(float(s[~k].sum()) for s, k in zip(scores, keep, strict=True)) == pytest.approx(best)


def test_swaps_by_hand():
    # Units 0 and 1 have the least diagonal, but their slopes add up to 4 + 4; 1 and 2 make up for each other.
    slopes = torch.tensor([[2.0, 2.0], [2.0, 2.1], [-2.0, -2.2], [9.0, 0.0]], dtype=torch.float64)
    assert swapped(slopes, np.array([False, False, True, True])).tolist() == [True, False, False, True]
    assert swapped(slopes, np.array([False, True, True, True])).tolist() == [False, True, True, True]
    assert swapped(slopes, np.ones(4, dtype=bool)).all()


def test_swaps_never_cost_more_and_keep_as_many():
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        slopes = torch.randn(7, 12, generator=generator, dtype=torch.float64)
        diagonal = slopes.square().sum(1)

        def joint(gone, slopes=slopes):
            return float(slopes[list(gone)].sum(0).square().sum())

        for count in range(1, 7):
            first = np.ones(7, dtype=bool)
            first[diagonal.argsort()[:count].numpy()] = False
            found = swapped(slopes, first)
            assert int((~found).sum()) == count
            assert joint(np.flatnonzero(~found)) <= joint(np.flatnonzero(~first)) + 1e-9
        assert int((~swapped(slopes, first)).sum()) == 6


def test_factors_by_hand():
    # Columns (1, 0) and (1, 1), wanted (3, 1): factors 2 and 1; e = (3, 1) - (2, 1).
    products, slopes = torch.tensor([[1.0, 1.0], [1.0, 2.0]], dtype=torch.float64), torch.tensor([1.0, 1.0], dtype=torch.float64)
    assert solved(products, slopes, torch.tensor([0, 1]), 1e-12).tolist() == pytest.approx([2.0, 1.0])
    # One unit of both columns: A = (2, 1), 1 + 2 / 5; the second one gone: 1 + 1.
    assert solved(products, slopes, torch.tensor([0, 0]), 1e-12).tolist() == pytest.approx([1.4])
    assert solved(products, slopes, torch.tensor([0, -1]), 1e-12).tolist() == pytest.approx([2.0])
    # Damped by the mean diagonal: 1 + 1 / (1 + 1).
    assert solved(products, slopes, torch.tensor([0, -1]), 1.0).tolist() == pytest.approx([1.5])


def gone(plan, name, units):
    return [np.array([not (g.name == name and unit in units) for unit in range(g.units)]) for g in plan.groups]


@pytest.mark.parametrize("convolutional", [False, True])
def test_tuning_undoes_what_a_twin_can_make_up_for(convolutional):
    torch.manual_seed(0)
    if convolutional:
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=2, padding=1)).double()
    else:
        model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    first, last = model[0], model[-1]
    with torch.no_grad():
        for tensor in (first.weight, first.bias):
            tensor[3] = tensor[2]
        last.weight[:, 3] = 2 * last.weight[:, 2]
    x = torch.randn(8, 1, 8, 8).double() if convolutional else torch.randn(8, 6).double()
    traced, data = trace(model, x), Given(x, x)
    plan, samples = Channels().plan(traced), Drawn(batches=1)
    keep = gone(plan, "0", {3})
    tuned = TunedMasks(samples=samples, damping=1e-9)(traced, gather(traced, data, {samples}), plan.masks(keep))
    assert set(tuned) == {f"{len(model) - 1}.weight"}
    expected = last.weight.detach().clone()
    expected[:, 2] *= 3
    expected[:, 3] = 0
    torch.testing.assert_close(tuned[f"{len(model) - 1}.weight"], expected, rtol=1e-5, atol=1e-7)
    # Beyond the bound masks stay 1.
    bounded = TunedMasks(samples=samples, damping=1e-9, bound=2.0)(traced, gather(traced, data, {samples}), plan.masks(keep))
    torch.testing.assert_close(bounded[f"{len(model) - 1}.weight"][:, :3], last.weight.detach()[:, :3])


class Residual(nn.Module):
    """Two residual branches of one hidden unit each beside others."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        x = x + self.b(torch.relu(self.a(x)))
        return x + self.d(torch.relu(self.c(x)))


def test_each_layer_makes_up_for_the_ones_before_it_as_least_squares_would():
    torch.manual_seed(0)
    model, x = Residual().double(), torch.randn(32, 2).double()
    traced, samples = trace(model, x), Drawn(batches=1)
    plan = Channels().plan(traced)
    keep = [np.array([g.name not in ("a", "c") or unit > 0 for unit in range(g.units)]) for g in plan.groups]
    tuned = TunedMasks(samples=samples, damping=1e-10)(traced, gather(traced, Given(x, x), {samples}), plan.masks(keep))
    with torch.no_grad():
        middle, end, stream = x + model.b(torch.relu(model.a(x))), model(x), x
        for wanted, (up, down) in ((middle, (model.a, model.b)), (end, (model.c, model.d))):
            hidden = torch.relu(up(stream))[:, 1:]
            columns = torch.einsum("nu,ou->nou", hidden, down.weight[:, 1:]).reshape(-1, 2)
            factors = torch.linalg.lstsq(columns, (wanted - stream - down.bias).reshape(-1, 1)).solution[:, 0]
            name = "b.weight" if down is model.b else "d.weight"
            torch.testing.assert_close(tuned[name][:, 1:], down.weight[:, 1:] * factors, rtol=1e-4, atol=1e-6)
            stream = stream + hidden @ tuned[name][:, 1:].T + down.bias


def test_the_recipe_removes_heads_and_comes_closer_by_each_of_its_parts():
    traced, data = vit(), images(64)
    data.val = data
    step = prune.kwon_post_training(Budget(macs=0.6), samples=64)

    def carried_out(rearrange, compensate):
        plan = step.unit.plan(traced)
        stats = gather(traced, data, step.needs)
        scores = plan.scores(step.criterion, stats, traced)
        shares = step.allocation.on(plan, scores, traced, data)
        keep = plan.keep(scores, shares(scores, 0.6))
        keep = step.rearrange(plan, keep, stats, traced) if rearrange else keep
        model = step._compensated(traced, plan, keep, stats) if compensate else traced
        return plan.apply(keep, model)

    with torch.no_grad():
        wanted = traced(data.x)
        errors = [float((carried_out(*parts)(data.x) - wanted).square().mean()) for parts in ((False, False), (False, True), (True, True))]
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.9 * errors[0]
    assert profile(carried_out(True, True)).macs < profile(traced).macs


def test_swaps_and_search_refuse_single_weights():
    plan = Element().plan(vit())
    with pytest.raises(PreconditionError, match="Channels"):
        Swaps()(plan, plan.everything(), Stats(), plan.traced)
