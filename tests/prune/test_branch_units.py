"""Branches as units: scored as wholes, silenced and removed alike, alone and together with channels."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lilliput import prune, zoo
from lilliput.core import Budget, BudgetError, PreconditionError, chain
from lilliput.graph import profile, trace
from lilliput.graph.branches import Residuals, without
from lilliput.prune.allocation import global_threshold, uniform
from lilliput.prune.branches import Branches, silencers
from lilliput.prune.criteria import GroupMagnitude, Magnitude, NormScale, Random, Taylor
from lilliput.prune.fisher import Collaborative
from lilliput.prune.hooks import apply_masks_
from lilliput.prune.removal import Apart, Cosine, LossWithout, RemovalLoss, Similarity
from lilliput.prune.statistics import Stats, gather
from lilliput.prune.step import FineTune, Prune
from lilliput.prune.structures import Structures
from lilliput.train import SGD, AdamW, Fit, evaluate, fit


class Blocks(nn.Module):
    """Three residual blocks of linear layers, the second with a layer scale, and a head, on 64 pixels."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(64, 12), nn.Linear(12, 10)
        self.a, self.b, self.c, self.d = nn.Linear(12, 20), nn.Linear(20, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.scale = nn.Parameter(torch.full((12,), 0.5))

    def forward(self, x):
        x = F.relu(self.stem(x.flatten(1)))
        x = x + self.b(F.relu(self.a(x)))
        x = x + F.gelu(self.scale * F.relu(self.c(x)))
        return self.head(x + F.gelu(self.d(x)))


@pytest.fixture(scope="module")
def blocks(digits):
    torch.manual_seed(0)
    return fit(trace(Blocks(), digits.example()), digits, Fit(epochs=3, batch_size=64, optimizer=SGD(lr=0.05)), progress=False).model.eval()


@pytest.fixture(scope="module")
def vit(digits):
    network = trace(zoo.create("vit_tiny", num_classes=10, in_chans=1, seed=0, options={"image_size": 8, "dim": 16, "depth": 3, "heads": 2}), digits.example())
    return fit(network, digits, Fit(epochs=6, batch_size=64, optimizer=AdamW(lr=3e-3)), progress=False).model.eval()


def keeping(plan, names):
    return [np.array([b.name not in names]) for b in plan.branches]


def test_tensors_that_silence_a_branch_do(blocks, digits):
    plan = Branches().plan(blocks)
    assert {name: set(found) for name, found in plan.silencers.items()} == {
        plan.branches[0].name: {"b.weight", "b.bias"}, "c": {"scale"}, "d": {"d.weight", "d.bias"}}
    example = digits.example(8)
    for branch in plan.branches:
        keep = keeping(plan, {branch.name})
        masked, small = copy.deepcopy(blocks), plan.apply(keep, blocks)
        apply_masks_(masked, plan.masks(keep))
        torch.testing.assert_close(masked(example), small(example), atol=1e-5, rtol=1e-5)
        assert (small(example) - blocks(example)).abs().max() > 1e-3
        counted = profile(small)
        assert plan.cost(keep) == {"macs": counted.macs, "params": counted.params}


def test_branches_that_no_tensor_silences_are_kept_and_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            x = x + torch.cos(self.a(x))
            x = x + self.b(x)
            return self.b(x)

    plan = Branches().plan(trace(Odd(), torch.zeros(2, 6)))
    assert plan.branches == []
    assert [note.partition(" ")[0] for note in plan.notes()] == ["a", "b"]
    assert all("not the product of tensors of its own" in note for note in plan.notes())
    with pytest.raises(BudgetError, match="nothing in this network can be pruned: a is kept"):
        Prune(method="x", budget=Budget(macs=0.5), criterion=Magnitude(), unit=Branches())(trace(Odd(), torch.zeros(2, 6)), None)


def test_scores_of_weights_are_means_or_sums_over_a_branch(blocks):
    plan, summed = Branches().plan(blocks), Branches(per_weight=False).plan(blocks)
    a, b, c = (blocks.tensor(f"{name}.weight").detach().double() for name in "abc")
    means = plan.scores(Magnitude(), Stats(), blocks)
    assert means[0][0] == pytest.approx(float((a.abs().sum() + b.abs().sum()) / 480))
    assert means[1][0] == pytest.approx(float(c.abs().mean()))
    assert summed.scores(Magnitude(2.0), Stats(), blocks)[0][0] == pytest.approx(float(a.square().sum() + b.square().sum()))
    everything = summed.scores(GroupMagnitude(), Stats(), blocks)[1][0]
    assert everything == pytest.approx(float(c.square().sum() + blocks.tensor("c.bias").square().sum() + blocks.tensor("scale").square().sum()))
    with pytest.raises(PreconditionError, match=r"pass unit=Channels\(\)"):
        plan.scores(Collaborative(), Stats(), blocks)


def test_norm_scales_score_branches_of_a_resnet():
    traced = trace(zoo.create("resnet8", num_classes=10, in_chans=1, seed=0), torch.zeros(2, 1, 8, 8))
    with torch.no_grad():
        for name in ("layer1.0.bn1", "layer1.0.bn2"):
            traced.tensor(f"{name}.weight").fill_(-0.25)
    scores = Branches().plan(traced).scores(NormScale(), Stats(), traced)
    assert [float(s[0]) for s in scores] == [0.25, 1.0, 1.0]


def test_the_highest_shares_go_first_then_the_lowest_scores(blocks):
    plan = Branches().plan(blocks)
    scores = [np.array([v]) for v in (3.0, 1.0, 2.0)]
    assert [bool(k[0]) for k in plan.keep(scores, np.array([1.0, 0.0, 0.0]))] == [False, True, True]
    assert [bool(k[0]) for k in plan.keep(scores, np.array([1 / 3] * 3))] == [True, False, True]
    assert [bool(k[0]) for k in plan.keep(scores, global_threshold(scores, 2 / 3))] == [True, False, False]
    assert [bool(k[0]) for k in plan.keep(scores, uniform(scores, 2 / 3))] == [True, False, False]
    assert not any(k[0] for k in plan.keep(scores, np.ones(3)))


def test_the_rise_of_the_loss_is_that_of_the_network_without(blocks, digits):
    statistic = LossWithout(batches=2, batch_size=32)
    found = statistic(blocks, digits, 0)
    residuals = Residuals(blocks)
    assert list(found) == [b.name for b in residuals.found]
    for branch in residuals.found:
        small, rises = without(blocks, [branch]), []
        with torch.no_grad():
            for inputs, targets in statistic.drawn(digits, 0):
                rises.append(float(F.cross_entropy(small(inputs), targets) - F.cross_entropy(blocks(inputs), targets)))
        assert float(found[branch.name]) == pytest.approx(np.mean(rises), abs=1e-5)


def test_similarity_is_one_less_the_cosine_of_shortcut_and_sum(blocks):
    class Turn(nn.Module):
        """`x + Wx` with `W` a quarter turn: 45 degrees, and a branch that only scales."""

        def __init__(self):
            super().__init__()
            self.turn, self.scale = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            self.turn.weight.data, self.scale.weight.data = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), 3 * torch.eye(2)

        def forward(self, x):
            x = x + self.turn(x)
            return x + self.scale(x)

    class Split:
        def batches(self, size, seed=0):
            yield torch.randn(size, 2, generator=torch.Generator().manual_seed(seed)), torch.zeros(size, 2)

    class Data:
        train, num_classes = Split(), 0

    network = trace(Turn(), torch.zeros(2, 2))
    assert {k: round(float(v), 6) for k, v in Cosine()(network, Data, 0).items()} == {"turn": round(0.5**0.5, 6), "scale": 1.0}
    plan = Branches().plan(network)
    criterion = Similarity()
    scores = plan.scores(criterion, gather(network, Data, criterion.needs), network)
    assert [round(float(s[0]), 6) for s in scores] == [round(1 - 0.5**0.5, 6), 0.0]
    with pytest.raises(PreconditionError, match=r"pass unit=Branches\(\)"):
        prune.Channels().plan(blocks).scores(criterion, Stats(values={criterion.statistic: {}}), blocks)


@pytest.mark.parametrize("criterion", [Magnitude(), Taylor(), RemovalLoss(), Similarity(), Random()], ids=lambda c: type(c).__name__)
def test_any_criterion_ranks_blocks_and_the_budget_is_met_with_as_few_as_can_be(criterion, vit, digits):
    step = Prune(method="blocks", budget=Budget(macs=0.6), criterion=criterion, unit=Branches())
    result = step(vit, digits)
    entry = result.report.entries[0]
    gone = [row["layer"] for row in entry.layers if row["sparsity"]]
    assert profile(result.model).macs == entry.measured["macs"] <= entry.promised["macs"]
    assert set(gone) == {b.name for b in Residuals(vit).found} - {b.name for b in Residuals(result.model).found}
    assert gone
    plan = step.unit.plan(vit)
    scores = [float(s[0]) for s in plan.scores(criterion, gather(vit, digits, criterion.needs), vit)]
    order = [plan.branches[i].name for i in np.argsort(scores, kind="stable")]
    assert set(gone) == set(order[:len(gone)])
    assert plan.cost(keeping(plan, set(order[:len(gone) - 1])))["macs"] > entry.promised["macs"]
    assert all((row["sensitivity"] != 0) == bool(row["sparsity"]) for row in entry.layers)


def test_blocks_that_cost_least_loss_go_and_beat_random_ones(vit, digits):
    def after(criterion):
        return evaluate(Prune(method="x", budget=Budget(macs=0.7), criterion=criterion, unit=Branches())(vit, digits).model, digits.val)

    assert after(RemovalLoss()) >= after(Random())
    assert after(RemovalLoss()) > evaluate(Branches().plan(vit).apply([np.array([i > 0]) for i in range(6)], vit), digits.val) - 1e-9


def test_excluded_branches_and_those_of_excluded_layers_stay(vit):
    names = [b.name for b in Branches(exclude=("*.attn", "blocks.0.mlp.fc1")).plan(vit).branches]
    assert names == ["blocks.1.mlp", "blocks.2.mlp"]


def test_every_branch_may_go_and_less_cannot(vit, digits):
    least = Branches().plan(vit).cost([np.array([False])] * 6)["macs"]
    small = Prune(method="x", budget=Budget(macs=int(least)), criterion=Magnitude(), unit=Branches())(vit, digits).model
    assert Residuals(small).found == ()
    with pytest.raises(BudgetError, match=f"the least this network allows is {least:.6g}"):
        Prune(method="x", budget=Budget(macs=int(least) - 1), criterion=Magnitude(), unit=Branches())(vit, digits)


def test_channels_and_branches_together(vit, digits):
    plan = Structures(channels=prune.Channels(exclude=("patch_embed",))).plan(vit)
    generator, example = np.random.default_rng(0), digits.example(5)
    whole = profile(vit)
    assert plan.cost(plan.everything()) == pytest.approx({"macs": whole.macs, "params": whole.params})
    for _ in range(3):
        keep = [np.append(generator.random(len(k) - 1) > 0.4, True) if len(k) > 1 else generator.random(1) > 0.4 for k in plan.everything()]
        small, masked = plan.apply(keep, vit), copy.deepcopy(vit)
        counted = profile(small)
        assert plan.cost(keep) == pytest.approx({"macs": counted.macs, "params": counted.params})
        apply_masks_(masked, plan.masks(keep))
        torch.testing.assert_close(small(example), masked(example), atol=1e-5, rtol=1e-5)


def test_a_budget_is_met_by_both_and_channels_make_up_for_what_branches_save_too_much(vit, digits):
    step = Prune(method="both", budget=Budget(macs=0.5), criterion=Apart(channels=Magnitude(), branches=RemovalLoss()),
                 unit=Structures(), recover=FineTune(fit=Fit(epochs=1, batch_size=64, optimizer=AdamW(lr=1e-3))))
    result = step(vit, digits)
    macs = profile(result.model).macs
    # Heads of 8 channels are coarse too.
    assert 0.96 * 0.5 * profile(vit).macs <= macs <= 0.5 * profile(vit).macs
    rows = result.report.entries[0].layers
    assert any(row.get("sparsity") for row in rows)
    assert any(row["channels_after"] < row["channels_before"] for row in rows if "channels_after" in row)
    assert len(Residuals(result.model).found) == 6 - sum(row.get("sparsity", 0) for row in rows)


def test_a_chain_of_feed_forwards_then_heads(vit, digits):
    slim = chain(
        Prune(method="feed-forwards", budget=Budget(macs=0.85), criterion=RemovalLoss(), unit=Branches(exclude=("*.attn",))),
        Prune(method="heads", budget=Budget(macs=0.9), criterion=Taylor(), allocation=global_threshold,
              unit=prune.Channels(exclude=("patch_embed", "*.fc1"), per_layer=False)))
    small = slim(vit, digits).model
    names = {b.name for b in Residuals(small).found}
    assert {f"blocks.{i}.attn" for i in range(3)} <= names
    assert len(names) < 6
    assert profile(small).macs <= 0.9 * 0.85 * profile(vit).macs


def test_silencers_of_a_shared_tensor_are_none(blocks):
    branch = Residuals(blocks).found[0]
    tied = copy.deepcopy(blocks)
    assert silencers(tied, branch) is not None
    linear = next(n for n in tied.graph.nodes if n.name == branch.output)
    with tied.graph.inserting_after(linear):
        twice = tied.graph.call_function(torch.ops.aten.add.Tensor, (linear, linear.args[2]))
    linear.replace_all_uses_with(twice, delete_user_cb=lambda user: user is not twice)
    assert silencers(tied, branch) is None
