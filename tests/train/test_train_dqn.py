"""Deep Q-learning: targets by hand, and a walk whose best way is known."""

import pytest
import torch
from torch import nn

from lilliput.core import RecipeError
from lilliput.train.agents import DQN, QNetwork


def constant(network: nn.Sequential, values: list[float]) -> None:
    """Make a network give the same values whatever it sees."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network[-1].bias.copy_(torch.tensor(values))


def test_targets_follow_the_slow_copy_until_the_episode_ends() -> None:
    network = QNetwork(DQN(discount=0.5), 2, 3, seed=0)
    constant(network.slow, [1.0, 4.0, -2.0])
    found = network.targets(torch.tensor([1.0, 1.0]), torch.zeros(2, 2), torch.tensor([1.0, 0.0]))
    assert found.tolist() == [1 + 0.5 * 4, 1]


def test_an_episode_is_remembered_step_by_step() -> None:
    network = QNetwork(DQN(), 1, 2, seed=0)
    network.remember(torch.tensor([[0.0], [1.0], [2.0]]), [1, 0, 1], [0.5, -1.0, 2.0])
    assert [(float(s), a, r, float(f), g) for s, a, r, f, g in network.memory] == [
        (0, 1, 0.5, 1, 1), (1, 0, -1.0, 2, 1), (2, 1, 2.0, 2, 0)]


def test_options_are_the_best_but_for_the_chance_of_another() -> None:
    network = QNetwork(DQN(explore=1.0, decay=0.5, least=0.1), 1, 4, seed=0)
    constant(network.values, [0.0, 1.0, 3.0, 2.0])
    chances = []
    for _ in range(5):
        chances.append(network.chance)
        network.improve(0)
    assert chances == [1, 0.5, 0.25, 0.125, 0.1]
    greedy = QNetwork(DQN(explore=0.0, least=0.0), 1, 4, seed=0)
    constant(greedy.values, [0.0, 1.0, 3.0, 2.0])
    assert [greedy.act(torch.zeros(1)) for _ in range(10)] == [2] * 10
    random = QNetwork(DQN(), 1, 4, seed=0)
    assert len({random.act(torch.zeros(1)) for _ in range(50)}) == 4


def test_the_slow_copy_is_taken_anew_after_so_many_updates() -> None:
    network = QNetwork(DQN(renew=3, batch=4), 1, 2, seed=0)
    network.remember(torch.zeros(2, 1), [0, 1], [1.0, 0.0])
    network.improve(2)
    assert not torch.equal(network.slow[-1].bias, network.values[-1].bias)
    network.improve(1)
    assert torch.equal(network.slow[-1].bias, network.values[-1].bias)


def play(network: QNetwork) -> list[int]:
    """Three steps, each of which costs 1 if 1 is chosen; who chose 1 at first and then 0 twice earns 5 in the end."""
    states, actions = [], []
    for step in range(3):
        states.append(torch.tensor([float(step), float(actions[0]) if actions else 0.0]))
        actions.append(network.act(states[-1]))
    rewards = [-float(a) for a in actions]
    rewards[-1] += 5 * (actions == [1, 0, 0])
    network.remember(torch.stack(states), actions, rewards)
    network.improve(6)
    return actions


def test_an_early_cost_is_taken_for_a_late_gain() -> None:
    settings = DQN(hidden=(16, 16), lr=5e-3, decay=0.97, least=0.0, renew=20)
    first, second = QNetwork(settings, 2, 2, seed=0), QNetwork(settings, 2, 2, seed=0)
    ways = [play(first) for _ in range(150)]
    assert ways[-3:] == [[1, 0, 0]] * 3
    assert [play(second) for _ in range(20)] == ways[:20]


def test_a_player_rewards_every_step_with_the_whole() -> None:
    player = DQN(explore=0.0, least=0.0).player(2, 3, seed=0)
    chosen = [player.act(torch.zeros(2)), player.act(torch.ones(2))]
    player.learn(0.25)
    assert [(a, r) for _, a, r, _, _ in player.network.memory] == [(chosen[0], 0.25), (chosen[1], 0.25)]
    assert player.states == []


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"discount": 1.5}, {"explore": 0.01}, {"memory": 0}, {"decay": 0.0}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RecipeError):
        DQN(**wrong)
