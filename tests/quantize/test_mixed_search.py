"""Agents that choose widths: budgets, rewards and updates by hand, and that they learn what is easy to learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from quantize_nets import NETS, arrays

from lilliput.core import Budget, BudgetError, RecipeError
from lilliput.quantize import Quantizer, Static, Widths, haq, releq
from lilliput.quantize.mixed.episodes import Episodes, filled, max_uniform, within
from lilliput.quantize.mixed.evaluator import Score
from lilliput.quantize.mixed.features import Features, features
from lilliput.quantize.mixed.rewards import AccuracyKept, Outcome, Reward, ShapedReward
from lilliput.quantize.mixed.task import Task
from lilliput.train.agents import DDPG, PPO, ActorCritic, Agent, Player

WIDTHS = Widths(weights=(2, 4, 8))
SMALL = DDPG(hidden=(32, 32), warmup=5, memory=256, actor_lr=1e-3, critic_lr=3e-3)


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    model, data = NETS["residual"][0]().eval(), arrays(2, 8, 8)
    return model, data, Task.of(model, data, Static(), budget=Budget(bits=4.0), widths=WIDTHS, costs={})


def test_choices_are_lowered_from_the_last_layer_on(case):
    _, _, task = case
    # Counts 144, 72 and 64; the limit is 4 bits times 280.
    assert within(task, [1, 1, 1]) == (1, 1, 1)
    assert within(task, [2, 0, 0]) == (1, 0, 0)
    # All at eight bits: 2240. Head, depthwise and stem to four: 1120, which fits.
    assert within(task, [2, 2, 2]) == (1, 1, 1)
    # 144 * 4 + 72 * 8 + 64 * 8 = 1664; the head to four: 1408; depthwise to four: 1120.
    assert within(task, [1, 2, 2]) == (1, 1, 1)
    assert within(task, [0, 2, 2]) == (0, 2, 1)
    assert max_uniform(task) == 1
    # 1120 bits: 144 * 4 + 72 * 2 + 64 * 2 = 848 has room for 4 bits in the two others, and no more.
    assert filled(task, (1, 0, 0)) == (1, 1, 1)
    assert filled(task, (0, 2, 1)) == (0, 2, 1)
    assert filled(task, (0, 0, 0)) == (1, 1, 1)
    tight = replace(task, limits={"bits": 2.0 * 280 - 1})
    with pytest.raises(BudgetError, match="narrowest"):
        within(tight, [2, 2, 2])


def test_features_describe_layers(case):
    _, _, task = case
    found = features(task)
    assert found.table.shape == (3, 9)
    assert found.table.min() == 0
    assert found.table.max() == 1
    assert found.table[:, 0].tolist() == [0, 1, 0]  # depthwise
    assert found.table[:, 8].tolist() == [0, 0.5, 1]  # index
    assert found.macs.tolist() == [64 * 144, 16 * 72, 64]


class _Favourite(Reward):
    """One point for every layer at the middle width."""

    def __call__(self, outcome):
        return float(np.mean([bits == 4 for bits in outcome.bits]))


@pytest.mark.parametrize(("agent", "episodes"), [(replace(SMALL, warmup=30, decay=0.95), 120), (PPO(hidden=32, lr=1e-2), 120)])
def test_agents_learn_what_is_rewarded(case, agent, episodes):
    _, _, task = case
    seen = features(task)
    search = Episodes(agent=agent, reward=_Favourite())
    player = agent.player(11, 3, seed=0)
    earned = []
    for _ in range(episodes):
        bits = tuple(WIDTHS.weights[c] for c in search._play(player, task, seen))
        earned.append(_Favourite()(Outcome(Score(0.0, 0.0), Score(0.0, 0.0), bits, task, seen)))
        player.learn(earned[-1])
    assert np.mean(earned[-15:]) > np.mean(earned[:15]) + 0.2
    assert np.mean(earned[-15:]) > 0.6


def test_the_critic_learns_the_value_of_actions():
    torch.manual_seed(0)
    critic = ActorCritic(replace(SMALL, warmup=0, actor_lr=3e-4), 2, seed=0)
    states = torch.rand(200, 2)
    actions = torch.rand(200)
    for state, action in zip(states, actions, strict=True):
        critic.remember(state[None], action[None], torch.tensor([1 - (float(action) - 0.8) ** 2]))
    critic.improve(800)
    with torch.no_grad():
        assert float((critic.actor(states) - 0.8).abs().mean()) < 0.1


def test_exploration_stays_in_the_unit_interval_and_narrows():
    critic = ActorCritic(replace(SMALL, decay=0.8), 2, seed=0)
    states = torch.zeros(500, 2)
    random = critic.actions(states)
    assert random.min() < 0.1
    assert random.max() > 0.9
    critic.episode = 5
    first = critic.actions(states)
    critic.episode = 25
    later = critic.actions(states)
    assert float(first.std()) > 3 * float(later.std())
    assert all(0 <= float(x) <= 1 for x in (*first, *later))
    with torch.no_grad():
        assert float(later.mean()) == pytest.approx(float(critic.actor(states[:1])), abs=0.02)


def _outcome(task, accuracy, bits, macs=(0.0, 0.0, 0.0)):
    return Outcome(Score(1.0, accuracy), Score(1.0, 80.0), bits, task, Features(np.zeros((3, 9)), np.array(macs)))


def test_rewards(case):
    _, _, task = case
    assert AccuracyKept()(_outcome(task, 76.0, (8, 8, 8))) == pytest.approx(-0.4)
    nothing = float("nan")
    lossy = Outcome(Score(2.0, nothing), Score(1.0, nothing), (8, 8, 8), task, Features(np.zeros((3, 9)), np.zeros(3)))
    assert AccuracyKept()(lossy) == pytest.approx(0.1 * 100 * -0.5)
    shaped = ShapedReward()
    assert shaped(_outcome(task, 31.9, (2, 2, 2))) == -1
    assert shaped(_outcome(task, 80.0, (8, 8, 8))) == 0
    assert shaped(_outcome(task, 80.0, (4, 4, 4))) == pytest.approx(1 - 0.5**0.2)
    assert shaped(_outcome(task, 40.0, (4, 4, 4))) == pytest.approx((1 - 0.5**0.2) * 0.5**0.8)
    # 120 for each weight and one for each operation: 144, 72 and 64 weights.
    share = (120 * (144 * 2 + 72 * 4 + 64 * 8) + 1000 * 4) / (8 * (120 * 280 + 1000))
    assert shaped(_outcome(task, 80.0, (2, 4, 8), (0.0, 1000.0, 0.0))) == pytest.approx(1 - share**0.2)


class _Wasteful(Agent):
    def player(self, size, options, seed):
        assert size == 11

        class Always(Player):
            def act(self, state):
                return options - 1

            def learn(self, reward):
                assert -10 <= reward <= 1

        return Always()


def test_a_search_ends_within_the_budget_and_not_below_uniform_widths(case):
    _, _, task = case
    found = Episodes(agent=_Wasteful(), reward=AccuracyKept(), episodes=3, samples=48)(task)
    assert task.met(found.options)
    assert found.options == (1, 1, 1)
    assert found.expected.keys() == {"search_loss", "search_accuracy"}
    # Seeds make a search repeat.
    runs = [Episodes(agent=SMALL, reward=AccuracyKept(), episodes=12, samples=48, seed=seed)(task).options for seed in (3, 3)]
    assert runs[0] == runs[1]
    with pytest.raises(RecipeError, match="episodes"):
        Episodes(agent=SMALL, reward=AccuracyKept(), episodes=0)


def test_hardware_feedback_decides(case):
    model, data, _ = case
    # Latency that hates wide heads, whatever their size.
    latency = {"stem": {2: 1.0, 4: 1.0, 8: 1.0}, "depthwise": {2: 1.0, 4: 1.0, 8: 1.0}, "head": {2: 1.0, 4: 10.0, 8: 20.0}}
    for recipe, agent, reward in ((haq, SMALL, AccuracyKept()), (releq, PPO(hidden=16, group=2), ShapedReward())):
        search = Episodes(agent=agent, reward=reward, episodes=8, samples=32)
        result = recipe(Budget(latency=5.0), search=search, widths=WIDTHS, costs={"latency": latency}, inner=Static(samples=32))(model, data)
        entry = result.report.entries[0]
        assert entry.measured["latency"] == 3.0
        assert {m.layer: m.grid.bits for m in result.model.modules() if isinstance(m, Quantizer) and m.weight}["head"] == 2
        assert "search_loss" in entry.metrics
        assert any("episodes" in note for note in entry.notes)
