"""Masks trained without labels: FISTA by hand, masks that change nothing at one and fold exactly, budgets met, labels unused."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from lilliput import prune, zoo
from lilliput.core import Budget, PreconditionError, RecipeError
from lilliput.graph import profile, trace
from lilliput.prune.adversarial import Adversarial, momentum, shrunk
from lilliput.prune.ranking import Ranking
from lilliput.prune.soft_masks import margins, masked, masks_of, places, settled
from lilliput.prune.step import FineTune, Prune
from lilliput.prune.structures import StructurePlan, Structures
from lilliput.train import SGD, Checkpoint, Fit, evaluate, fit

QUICK = Fit(epochs=2, batch_size=64, optimizer=SGD(lr=0.02))


def test_a_step_of_fista_by_hand():
    # From y = 1 with slope 0.5, step 0.1 and strength 1: 1 - 0.1 * 1.5.
    assert float(shrunk(torch.tensor(1.0), torch.tensor(0.5), 0.1, 1.0)) == pytest.approx(0.85)
    golden, first = momentum(1.0)
    assert golden == pytest.approx((1 + math.sqrt(5)) / 2)
    assert first == 0
    second, factor = momentum(golden)
    assert second == pytest.approx((1 + math.sqrt(1 + 4 * golden**2)) / 2)
    assert factor == pytest.approx(0.618034 / 2.193527, rel=1e-5)


def test_fista_finds_the_minimum_that_the_closed_form_gives():
    # min 0.5 (m - t)^2 + s m over m >= 0 is max(t - s, 0).
    target, strength = torch.tensor([2.0, 0.3, -1.0]), 0.5
    values = settled_ = torch.ones(3)
    a = 1.0
    for _ in range(300):
        a, factor = momentum(a)
        found = shrunk(values, values - target, 0.5, strength).clamp(min=0)
        values, settled_ = found + factor * (found - settled_), found
    torch.testing.assert_close(settled_, torch.tensor([1.5, 0.0, 0.0]), atol=1e-4, rtol=0)


def with_values(network, seed):
    generator = torch.Generator().manual_seed(seed)
    for mask in masks_of(network).values():
        mask.values.data.copy_(torch.rand(len(mask.values), generator=generator) * (torch.rand(len(mask.values), generator=generator) > 0.4))
        mask.settled.copy_(mask.values.detach())
    return network


@pytest.mark.parametrize("name", ["resnet8", "vit_tiny"])
def test_masks_of_one_change_nothing_and_any_fold_into_the_weights(name, digits):
    options = {"image_size": 8, "dim": 16, "depth": 2, "heads": 2} if name == "vit_tiny" else {}
    traced = trace(zoo.create(name, num_classes=10, in_chans=1, seed=0, options=options), digits.example()).eval()
    plan, example = StructurePlan(traced, Structures()), digits.example(6)
    soft = masked(traced, plan)
    torch.testing.assert_close(soft(example), traced(example))
    assert [len(found) for found in margins(soft, plan)] == [len(k) for k in plan.everything()]
    soft = with_values(soft, 0)
    folded = settled(soft)
    torch.testing.assert_close(folded(example), soft(example), atol=1e-5, rtol=1e-5)
    assert (folded(example) - traced(example)).abs().max() > 1e-3
    assert set(folded.state_dict()) == set(traced.state_dict())
    assert not masks_of(folded)
    assert [n.name for n in folded.graph.nodes] == [n.name for n in traced.graph.nodes]


def test_zero_masks_are_removed_without_a_change(trained, digits):
    plan, example = StructurePlan(trained, Structures()), digits.example(6)
    folded = settled(with_values(masked(trained, plan), 3))
    keep = [mask.settled.numpy() > 0 for _, mask in sorted(masks_of(with_values(masked(trained, plan), 3)).items())]
    assert not all(k.all() for k in keep)
    torch.testing.assert_close(plan.apply(keep, folded)(example), folded(example), atol=1e-5, rtol=1e-5)


def test_masks_lie_on_norms_where_those_would_divide_them_out(trained, digits):
    plan = StructurePlan(trained, Structures())
    lying = {place.tensor for place in places(trained, plan)}
    assert "bn1.weight" in lying
    assert "bn1.bias" in lying
    assert not any("conv" in name for name in lying)
    soft = masked(trained, plan).train()
    before = soft(digits.example(32))
    for mask in masks_of(soft).values():
        mask.values.data.mul_(0.5)
    assert (soft(digits.example(32)) - before).abs().max() > 1e-2


class Unlabelled:
    """A split whose labels are all the same."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getattr__(self, name):
        return getattr(self.split, name)

    def batches(self, *args, **options):
        for inputs, targets in self.split.batches(*args, **options):
            yield inputs, targets * 0


def test_labels_are_not_used(trained, digits):
    blind = copy.copy(digits)
    object.__setattr__(blind, "train", Unlabelled(digits.train))
    first, second = (prune.gal(Budget(macs=0.5), train=QUICK)(trained, given).model.state_dict() for given in (digits, blind))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_budget_is_met_and_it_beats_random_channels(trained, digits):
    result = prune.gal(Budget(macs=0.3), train=QUICK)(trained, digits)
    macs = profile(result.model).macs
    assert 0.99 * 0.3 * profile(trained).macs <= macs <= 0.3 * profile(trained).macs
    blind = prune.random(Budget(macs=0.3))(trained, digits).model
    assert evaluate(result.model, digits.val) > evaluate(blind, digits.val) + 10


def test_blocks_go_too(trained, digits):
    result = prune.gal(Budget(macs=0.02), train=QUICK)(trained, digits)
    rows = result.report.entries[0].layers
    assert any(row.get("sparsity") == 1 for row in rows)
    assert profile(result.model).macs <= 0.02 * profile(trained).macs


def test_interrupted_training_goes_on_where_it_stopped(trained, digits, tmp_path):
    plan = StructurePlan(trained, Structures())
    from lilliput.prune.adversarial import Adversary
    from lilliput.prune.fitting import Target

    def hook():
        return Adversary(trained, plan, Target.of(Budget(macs=0.5), plan, trained, None), Adversarial())

    whole = fit(masked(trained, plan), digits, QUICK, hooks=(hook(),), progress=False).model

    class StopError(Exception):
        pass

    class Stopping(Adversary):
        def epoch(self, state):
            if state.epoch == 1:
                raise StopError

    file = tmp_path / "run.ckpt"
    stopping = Stopping(trained, plan, Target.of(Budget(macs=0.5), plan, trained, None), Adversarial())
    with pytest.raises(StopError):
        fit(masked(trained, plan), digits, QUICK, hooks=(stopping,), checkpoint=Checkpoint(path=file), progress=False)
    again = fit(masked(trained, plan), digits, QUICK, hooks=(hook(),), checkpoint=Checkpoint(path=file), progress=False).model
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_ranking_gives_back_what_still_fits():
    class Plan:
        pass

    scores = [np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.5])]
    keep = [np.array([False, False, True]), np.array([False, True])]
    prices = [5.0, 1.0]

    def cost(found):
        return {"macs": sum(price * k.sum() for price, k in zip(prices, found, strict=True))}

    # 6 of 8 are used: the unit of score 2 costs 5 and does not fit, that of 1.5 does.
    found = Ranking().filled(Plan(), scores, keep, cost, {"macs": 8.0})
    assert [k.tolist() for k in found] == [[False, False, True], [True, True]]
    assert Ranking()(scores, 0.4).tolist() == pytest.approx([1 / 3, 1 / 2])


def test_what_it_needs(trained, digits):
    with pytest.raises(PreconditionError, match=r"pass unit=Structures"):
        Prune(method="x", budget=Budget(macs=0.5), criterion=prune.Magnitude(), schedule=Adversarial(), recover=FineTune(fit=QUICK))(trained, digits)
    with pytest.raises(RecipeError, match="are positive"):
        Adversarial(strength=0)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 8, 3), nn.Linear(12, 10), nn.Linear(8, 12)

        def forward(self, x):
            x = self.a(x).mean((2, 3))
            return self.b(torch.relu(self.c(x))), x

    with pytest.raises(PreconditionError, match="a discriminator judges one tensor"):
        prune.gal(Budget(params=0.9), train=QUICK)(trace(Twice(), digits.example()), digits)
