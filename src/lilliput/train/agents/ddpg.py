"""Deep deterministic policy gradients: an actor whose actions lie between 0 and 1, and a critic that rates them."""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lilliput.core.errors import RecipeError
from lilliput.train.agents.base import Agent, Player


@dataclass(frozen=True, kw_only=True)
class DDPG(Agent):
    """Settings as in the authors' code: exploration by a truncated normal whose spread starts at `noise` and decays each episode.

    `warmup` episodes act at random and fill the memory of `memory` transitions. (wang2019haq)
    """

    hidden: tuple[int, int] = (400, 300)
    actor_lr: float = 1e-4
    critic_lr: float = 1e-3
    warmup: int = 20
    noise: float = 0.5
    decay: float = 0.99
    batch: int = 64
    memory: int = 128

    def __post_init__(self) -> None:
        if not (self.warmup >= 0 and self.noise > 0 and 0 < self.decay <= 1 and self.batch > 0 and self.memory > 0):
            raise RecipeError(f"warm-up, noise, batch and memory are positive and decay is at most 1: {self!r}")

    def player(self, size: int, options: int, seed: int) -> Player:
        """Actions between 0 and 1 are cut into as many equal parts as there are options."""
        return _Options(ActorCritic(self, size, seed), options)


class ActorCritic:
    """Actor, critic, their slow copies and the memory; used by agents of any kind of action."""

    TAU, GAMMA = 0.01, 1.0

    def __init__(self, settings: DDPG, size: int, seed: int) -> None:
        self.settings, self.generator = settings, torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first, second = settings.hidden
            self.actor = nn.Sequential(nn.Linear(size, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(),
                                       nn.Linear(second, 1), nn.Sigmoid())
            self.critic = nn.Sequential(nn.Linear(size + 1, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(),
                                        nn.Linear(second, 1))
        self.slow_actor, self.slow_critic = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.actor_steps = torch.optim.Adam(self.actor.parameters(), lr=settings.actor_lr)
        self.critic_steps = torch.optim.Adam(self.critic.parameters(), lr=settings.critic_lr)
        self.memory: deque[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = deque(maxlen=settings.memory)
        self.baseline: float | None = None
        self.episode = 0

    def actions(self, states: Tensor) -> Tensor:
        """Actions with exploration for states `(n, features)`, `(n,)`."""
        settings = self.settings
        if self.episode < settings.warmup:
            return torch.rand(len(states), generator=self.generator)
        with torch.no_grad():
            mean = self.actor(states).squeeze(1)
        spread = settings.noise * settings.decay ** (self.episode - settings.warmup)
        low, high = (torch.special.ndtr((end - mean) / spread) for end in (0.0, 1.0))
        drawn = low + (high - low) * torch.rand(len(states), generator=self.generator)
        explored: Tensor = mean + spread * torch.special.ndtri(drawn.clamp(1e-6, 1 - 1e-6))
        return explored.clamp(0, 1)

    def remember(self, states: Tensor, actions: Tensor, rewards: Tensor) -> None:
        """Take in an episode's steps in order, `(n, features)`, `(n,)`, `(n,)`; the last one ends it."""
        following = torch.cat([states[1:], states[-1:]])
        going = torch.ones(len(states))
        going[-1] = 0
        self.memory.extend(zip(states, actions, rewards, following, going, strict=True))

    def improve(self, steps: int) -> None:
        """Count the episode, and after the warm-up update both networks `steps` times."""
        self.episode += 1
        for _ in range(steps if self.episode > self.settings.warmup else 0):
            self._update()

    def _update(self) -> None:
        picked = torch.randint(len(self.memory), (self.settings.batch,), generator=self.generator).tolist()
        columns = zip(*(self.memory[i] for i in picked), strict=True)
        states, actions, rewards, following, going = (torch.stack(column) for column in columns)
        mean = float(rewards.mean())
        self.baseline = mean if self.baseline is None else 0.5 * (self.baseline + mean)
        with torch.no_grad():
            after = self.slow_critic(torch.cat([following, self.slow_actor(following)], 1)).squeeze(1)
            target = rewards - self.baseline + self.GAMMA * going * after
        rated = self.critic(torch.cat([states, actions[:, None]], 1)).squeeze(1)
        self.critic_steps.zero_grad()
        (rated - target).square().mean().backward()
        self.critic_steps.step()
        self.actor_steps.zero_grad()
        (-self.critic(torch.cat([states, self.actor(states)], 1)).mean()).backward()
        self.actor_steps.step()
        with torch.no_grad():
            for slow, fast in ((self.slow_actor, self.actor), (self.slow_critic, self.critic)):
                for a, b in zip(slow.parameters(), fast.parameters(), strict=True):
                    a.lerp_(b, self.TAU)


class _Options(Player):
    """One action to each step; every step of an episode earns what the whole does."""

    def __init__(self, networks: ActorCritic, options: int) -> None:
        self.networks, self.options = networks, options
        self.states: list[Tensor] = []
        self.actions: list[Tensor] = []

    def act(self, state: Tensor) -> int:
        """The part of the unit interval that the action lies in."""
        action = self.networks.actions(state[None])
        self.states.append(state)
        self.actions.append(action)
        return min(int(float(action) * self.options), self.options - 1)

    def learn(self, reward: float) -> None:
        """Remember the episode and learn as often as it had steps."""
        self.networks.remember(torch.stack(self.states), torch.cat(self.actions), torch.full((len(self.states),), reward))
        self.networks.improve(len(self.states))
        self.states, self.actions = [], []
