"""Channels computed or not, sample by sample: policies whose choices are known, and what a skipping network gives."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lilliput import prune
from lilliput.core import Budget, BudgetError, PreconditionError, RecipeError
from lilliput.deploy.onnx import export
from lilliput.graph import profile, shrink, trace
from lilliput.graph.coupling import Coupling
from lilliput.graph.saving import load, save
from lilliput.prune import AtRuntime, Channels, FineTune, Magnitude, Stats, Turns
from lilliput.prune.decision import computed, flattened, policed, policy_of, sites
from lilliput.prune.runtime import Averages, Turn
from lilliput.train import SGD, Fit, evaluate, fit


class Net(nn.Module):
    """A stem whose channels a block adds to, a block, and two linear layers."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.out = nn.Conv2d(8, 6, 3, stride=2)
        self.hidden, self.head = nn.Linear(54, 16), nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.b(torch.relu(self.norm(self.a(x)))))
        return self.head(torch.relu(self.hidden(torch.relu(self.out(x)).flatten(1))))


@pytest.fixture
def net(digits):
    torch.manual_seed(0)
    return trace(Net(), digits.example()).eval()


def placed(traced, zones=4, hidden=6):
    plan = Channels().plan(traced)
    where = sites(plan, plan.scores(Magnitude(1.0), Stats(), traced), zones)
    return plan, where, policed(traced, where, zones=zones, hidden=hidden, seed=0)


def test_layers_that_alone_make_their_channels_are_decided_on(net):
    plan, where, _ = placed(net)
    assert [site.name for site in where] == ["a", "out", "hidden"], "the stem and b are added up, the head is the output"
    for site in where:
        scores = net.tensor(f"{site.name}.weight").detach().abs().flatten(1).sum(1)
        assert np.bincount(site.channels).tolist() == {12: [3] * 4, 6: [2, 1, 2, 1], 16: [4] * 4}[len(scores)]
        best = scores.argsort(descending=True).numpy()
        assert (np.diff(site.channels[best]) >= 0).all(), "the first zone has the best channels"
    kept = Channels(exclude=("a",)).plan(net)
    assert [s.name for s in sites(kept, kept.scores(Magnitude(1.0), Stats(), net), 4)] == ["out", "hidden"]
    assert plan.coupling.traced is net


@pytest.mark.parametrize("between", [[nn.Sigmoid()], [nn.MaxPool2d(2), nn.BatchNorm2d(8)], [nn.ReLU(), nn.Softmax(1)]])
def test_channels_that_would_not_be_zero_are_left(between, digits):
    traced = trace(nn.Sequential(nn.Conv2d(1, 8, 3), *between, nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)), digits.example(2))
    plan = Channels().plan(traced)
    assert "0" not in [site.name for site in sites(plan, plan.scores(Magnitude(1.0), Stats(), traced), 2)]


def test_a_bias_decides_where_it_outweighs_values(net, digits):
    _, where, network = placed(net)
    policy, x = policy_of(network), digits.example(5).normal_()
    policy.bias.fill_(1e6)
    with torch.no_grad():
        torch.testing.assert_close(network(x), net(x))
        policy.bias.fill_(-1e6)
        policy.watched = True
        network(x)
    seen = policy.taken()
    assert [choice.tolist() for _, choice in seen] == [[0] * 5] * 3
    assert policy.taken() == []
    flat = flattened(network)
    assert all((flags.sum(1) == (site.channels == 0).sum()).all() for site, flags in zip(where, computed(flat, x).values(), strict=True))
    assert computed(net, x) == {}


def test_values_by_hand(net, digits):
    _, where, network = placed(net)
    policy, x = policy_of(network), torch.randn(3, 8, 8, 8)
    mask, carried = policy(x, None, 0)
    hidden = torch.tanh(policy.encoded(torch.relu(policy.encoders[0](x.mean((2, 3))))))
    torch.testing.assert_close(carried, hidden)
    choice = policy.decoder(hidden).argmax(1)
    assert (mask.bool() == (torch.from_numpy(where[0].channels)[None] <= choice[:, None])).all()
    y = torch.randn(3, 54)
    further = policy(y, carried, 2)[1]
    torch.testing.assert_close(further, torch.tanh(policy.encoded(torch.relu(policy.encoders[2](y))) + hidden @ policy.carried.weight.T))


def test_each_sample_is_what_a_network_without_its_channels_gives(net, digits, tmp_path):
    plan, where, network = placed(net)
    policy, x = policy_of(network), digits.example(6).normal_() * torch.linspace(0.1, 5.0, 6).reshape(-1, 1, 1, 1)
    with torch.no_grad():
        for weight in (policy.encoded.weight, policy.decoder.weight):
            weight.mul_(10)  # so that samples differ
    flat = flattened(network)
    chosen, outputs = computed(flat, x), flat(x).detach()
    assert len(torch.unique(torch.cat(list(chosen.values()), 1), dim=0)) > 1
    coupling, total = Coupling(net), 0.0
    for sample in range(len(x)):
        keep = coupling.keep_all()
        for group in coupling.groups:
            for slot in group.slots:
                if slot.role == "out" and slot.tensor.rpartition(".")[0] in chosen:
                    keep[group.components[slot.unit]] = chosen[slot.tensor.rpartition(".")[0]][sample].numpy()
        small = shrink(coupling, keep)
        torch.testing.assert_close(small(x[sample:sample + 1]).detach(), outputs[sample:sample + 1], atol=1e-5, rtol=1e-5)
        total += profile(small).macs / len(x)
    own = profile(flat).macs - profile(net).macs
    assert policy.macs == own == 3 * (36 + 24) + 6 * (8 + 8 + 54) + 2 * 36
    with torch.no_grad():
        policy.watched = True
        network(x)
    choices = torch.stack([choice for _, choice in policy.taken()], 1)
    assert Averages(plan, where, policy)(choices) == pytest.approx(total + own)
    save(flat, tmp_path / "net.pt2")
    assert torch.equal(load(tmp_path / "net.pt2")(x), outputs)
    export(flat, tmp_path / "net.onnx", x)


def test_turns_and_targets():
    turns = Turns(random=0.2, rounds=2, penalty=0.5, scale=2.0, discount=0.5)
    order = [turns.turn(t) for t in (0.1, 0.25, 0.45, 0.65, 0.9)]
    assert order == [Turn.RANDOM, Turn.POLICY, Turn.NETWORK, Turn.POLICY, Turn.NETWORK]
    seen = [(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])), (torch.tensor([[1.0, 3.0], [-1.0, -2.0]]), torch.tensor([1, 0]))]
    first, last = turns.targets(seen, torch.tensor([0.1, 0.4]))
    # -0.5 for the second zone and half of the best value that follows; in the end twice the loss off.
    assert first.tolist() == pytest.approx([0.5 * 3, -0.5 + 0.5 * -1])
    assert last.tolist() == pytest.approx([-0.5 - 0.2, -0.8])


def test_only_the_policy_learns_in_its_turn_and_only_the_network_in_its_own(net, digits):
    _, where, network = placed(net)
    inputs, targets = next(digits.train.batches(16, seed=0))
    network.train()
    policy = policy_of(network)
    policy.watched = True
    outputs = network(inputs)
    losses = nn.functional.cross_entropy(outputs, targets, reduction="none").detach()
    seen = policy.taken()
    wanted = Turns().targets(seen, losses)
    values = torch.stack([(v.gather(1, c[:, None])[:, 0] - w).square().mean() for (v, c), w in zip(seen, wanted, strict=True)]).sum()
    values.backward(retain_graph=True)
    learnt = {name for name, p in network.named_parameters() if p.grad is not None}
    assert learnt == {name for name, _ in network.named_parameters() if name.startswith("policy.")}
    network.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(outputs, targets).backward()
    learnt = {name for name, p in network.named_parameters() if p.grad is not None}
    assert learnt == {name for name, _ in net.named_parameters()}
    assert len(where) == 3


def test_it_meets_the_budget_on_average_and_still_does_its_job(net, digits, tmp_path):
    begun = fit(net, digits, Fit(epochs=4, batch_size=64, optimizer=SGD(lr=0.05)), progress=False).model.eval()
    tuning = Fit(epochs=4, batch_size=64, optimizer=SGD(lr=0.03))
    step = prune.runtime_neural_pruning(Budget(macs=0.5), fine_tune=tuning, checkpoint=tmp_path / "run.ckpt")
    result = step(begun, digits)
    entry = result.report.entries[0]
    assert 0.495 * profile(net).macs <= entry.measured["macs"] <= 0.5 * profile(net).macs
    assert [row["layer"] for row in entry.layers] == ["a", "out", "hidden"]
    assert all(1 <= row["channels_on_average"] <= row["channels_before"] for row in entry.layers)
    flags = computed(result.model, next(digits.val.batches(270))[0])
    assert len(torch.unique(torch.cat(list(flags.values()), 1), dim=0)) > 1, "samples differ"
    assert [float(f.sum(1).float().mean()) for f in flags.values()] == pytest.approx([row["channels_on_average"] for row in entry.layers])
    assert evaluate(result.model, digits.test) > 88
    again = step(begun, digits).model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in result.model.state_dict().items()), "resumed at its end"


def test_what_cannot_be_is_refused(net, digits):
    with pytest.raises(BudgetError, match="the least this network allows is"):
        prune.runtime_neural_pruning(Budget(params=0.5))(net, digits)
    with pytest.raises(BudgetError, match="the least this network allows is"):
        prune.runtime_neural_pruning(Budget(macs=0.05))(net, digits)
    with pytest.raises(PreconditionError, match="saves multiplications alone"):
        prune.runtime_neural_pruning(Budget(params=1.0))(net, digits)
    with pytest.raises(PreconditionError, match="pass data="):
        prune.runtime_neural_pruning(Budget(macs=0.5))(net, None)
    alone = trace(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 10)), digits.example(2))
    with pytest.raises(BudgetError, match="no layer of this network"):
        prune.runtime_neural_pruning(Budget(macs=0.5))(alone, digits)
    with pytest.raises(RecipeError, match="in one process"):
        AtRuntime(budget=Budget(macs=0.5), recover=FineTune(fit=Fit(devices=2)))(copy.deepcopy(net), digits)
    for wrong in (lambda: Turns(random=1.0), lambda: Turns(rounds=0), lambda: AtRuntime(budget=Budget(macs=0.5), zones=1)):
        with pytest.raises(RecipeError):
            wrong()
