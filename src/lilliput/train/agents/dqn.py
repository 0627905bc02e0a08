"""Deep Q-learning: a network that says what each option is worth, learning from a memory and from a slow copy of itself."""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.core.errors import RecipeError
from lilliput.train.agents.base import Agent, Player


@dataclass(frozen=True, kw_only=True)
class DQN(Agent):
    """Options of the highest value `Q(s, a)`, or with a chance that starts at `explore` and decays each episode a random one.

    Values learn, by Adam and the Huber loss, `r + discount * max Q'(s', a')` from `batch` transitions drawn from a memory of `memory`;
    `Q'` is a copy that is taken anew every `renew` updates. The method is that of Mnih et al. 2015; the sizes here are for episodes of
    tens of steps.
    """

    hidden: tuple[int, int] = (64, 64)
    lr: float = 1e-3
    discount: float = 0.99
    explore: float = 1.0
    decay: float = 0.95
    least: float = 0.05
    batch: int = 32
    memory: int = 4096
    renew: int = 50

    def __post_init__(self) -> None:
        if not (self.lr > 0 and 0 <= self.discount <= 1 and 0 < self.decay <= 1 and 0 <= self.least <= self.explore <= 1):
            raise RecipeError(f"learning rate and decay are positive, discount and chances lie between 0 and 1: {self!r}")
        if min(self.batch, self.memory, self.renew) < 1:
            raise RecipeError(f"batch, memory and renew are whole numbers from 1: {self!r}")

    def player(self, size: int, options: int, seed: int) -> Player:
        """Every step of an episode earns what the whole does."""
        return _Whole(QNetwork(self, size, options, seed))


class QNetwork:
    """Values, their slow copy and the memory; used by whoever rewards single steps."""

    def __init__(self, settings: DQN, size: int, options: int, seed: int) -> None:
        self.settings, self.options, self.generator = settings, options, torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first, second = settings.hidden
            self.values = nn.Sequential(nn.Linear(size, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, options))
        self.slow = copy.deepcopy(self.values)
        self.steps = torch.optim.Adam(self.values.parameters(), lr=settings.lr)
        self.memory: deque[tuple[Tensor, int, float, Tensor, float]] = deque(maxlen=settings.memory)
        self.episode = self.updates = 0

    @property
    def chance(self) -> float:
        """Of a random option, in this episode."""
        return max(self.settings.explore * self.settings.decay**self.episode, self.settings.least)

    def act(self, state: Tensor) -> int:
        """An option, given a state `(features,)`."""
        if float(torch.rand((), generator=self.generator)) < self.chance:
            return int(torch.randint(self.options, (), generator=self.generator))
        with torch.no_grad():
            return int(self.values(state).argmax())

    def remember(self, states: Tensor, actions: list[int], rewards: list[float]) -> None:
        """Take in an episode's steps in order, states `(n, features)`; the last one ends it."""
        for step, (action, reward) in enumerate(zip(actions, rewards, strict=True)):
            last = step + 1 == len(actions)
            self.memory.append((states[step], action, reward, states[step if last else step + 1], 0.0 if last else 1.0))

    def targets(self, rewards: Tensor, following: Tensor, going: Tensor) -> Tensor:
        """`r + discount * max Q'(s', a')`, without the second term where the episode ends; all `(n,)`, `following` `(n, features)`."""
        with torch.no_grad():
            found: Tensor = rewards + self.settings.discount * going * self.slow(following).amax(1)
        return found

    def improve(self, steps: int) -> None:
        """Count the episode, and update the values `steps` times."""
        self.episode += 1
        for _ in range(steps):
            self._update()

    def _update(self) -> None:
        picked = torch.randint(len(self.memory), (self.settings.batch,), generator=self.generator).tolist()
        states, actions, rewards, following, going = zip(*(self.memory[i] for i in picked), strict=True)
        target = self.targets(torch.tensor(rewards), torch.stack(following), torch.tensor(going))
        values = self.values(torch.stack(states)).gather(1, torch.tensor(actions)[:, None]).squeeze(1)
        self.steps.zero_grad()
        F.smooth_l1_loss(values, target).backward()  # type: ignore[no-untyped-call]
        self.steps.step()
        self.updates += 1
        if self.updates % self.settings.renew == 0:
            self.slow.load_state_dict(self.values.state_dict())


class _Whole(Player):
    def __init__(self, network: QNetwork) -> None:
        self.network = network
        self.states: list[Tensor] = []
        self.actions: list[int] = []

    def act(self, state: Tensor) -> int:
        """The best option, or a random one."""
        self.states.append(state)
        self.actions.append(self.network.act(state))
        return self.actions[-1]

    def learn(self, reward: float) -> None:
        """Remember the episode and learn as often as it had steps."""
        self.network.remember(torch.stack(self.states), self.actions, [reward] * len(self.actions))
        self.network.improve(len(self.actions))
        self.states, self.actions = [], []
