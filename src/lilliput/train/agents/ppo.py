"""Proximal policy optimization, with a recurrent policy over the steps of an episode."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.core.errors import RecipeError
from lilliput.train.agents.base import Agent, Player


class _Policy(nn.Module):
    """An LSTM over the steps, and two heads: scores of the options, and the value."""

    def __init__(self, size: int, options: int, hidden: int) -> None:
        super().__init__()
        self.memory = nn.LSTM(size, hidden, batch_first=True)
        self.scores = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, options))
        self.value = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, states: Tensor, held: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Log-probabilities `(n, t, options)`, values `(n, t)` and the state of the LSTM."""
        seen, held = self.memory(states, held)
        assert held is not None
        return F.log_softmax(self.scores(seen), -1), self.value(seen).squeeze(-1), held


@dataclass(frozen=True, kw_only=True)
class PPO(Agent):
    """Clipped policy updates from the last `group` episodes, `epochs` times over; an entropy bonus keeps it exploring.

    The clip of 0.1 and the LSTM are the paper's; the rest is usual. (elthakeb2018releq)
    """

    hidden: int = 128
    lr: float = 1e-3
    clip: float = 0.1
    group: int = 5
    epochs: int = 4
    entropy: float = 0.01

    def __post_init__(self) -> None:
        if not (self.lr > 0 and 0 < self.clip < 1 and self.group > 0 and self.epochs > 0 and self.entropy >= 0):
            raise RecipeError(f"learning rate, clip, group and epochs are positive, entropy is not negative: {self!r}")

    def player(self, size: int, options: int, seed: int) -> Player:
        """A policy over the options."""
        return _Recurrent(self, size, options, seed)


class _Recurrent(Player):
    def __init__(self, settings: PPO, size: int, options: int, seed: int) -> None:
        self.settings, self.generator = settings, torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy = _Policy(size, options, settings.hidden)
        self.steps = torch.optim.Adam(self.policy.parameters(), lr=settings.lr)
        self.held: tuple[Tensor, Tensor] | None = None
        self.states: list[Tensor] = []
        self.actions: list[int] = []
        self.group: list[tuple[Tensor, Tensor, float]] = []

    def act(self, state: Tensor) -> int:
        """A sample of the policy."""
        with torch.no_grad():
            scores, _, self.held = self.policy(state[None, None], self.held)
        action = int(torch.multinomial(scores[0, 0].exp(), 1, generator=self.generator))
        self.states.append(state)
        self.actions.append(action)
        return action

    def learn(self, reward: float) -> None:
        """Keep the episode; after a group of them, improve the policy."""
        self.group.append((torch.stack(self.states), torch.tensor(self.actions), reward))
        self.states, self.actions, self.held = [], [], None
        if len(self.group) >= self.settings.group:
            self._improve()
            self.group = []

    def _improve(self) -> None:
        states, actions = (torch.stack([episode[i] for episode in self.group]) for i in (0, 1))  # type: ignore[misc]
        rewards = torch.tensor([reward for _, _, reward in self.group])[:, None]
        with torch.no_grad():
            scores, values, _ = self.policy(states)
            before = scores.gather(2, actions[:, :, None]).squeeze(2)
            # The reward comes at the end and is not discounted: every step of an episode has the same return.
            advantage = rewards - values
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
        for _ in range(self.settings.epochs):
            scores, values, _ = self.policy(states)
            ratio = (scores.gather(2, actions[:, :, None]).squeeze(2) - before).exp()
            clipped = ratio.clamp(1 - self.settings.clip, 1 + self.settings.clip)
            gain = torch.minimum(ratio * advantage, clipped * advantage).mean()
            entropy = -(scores.exp() * scores).sum(2).mean()
            loss = -gain + (rewards - values).square().mean() - self.settings.entropy * entropy
            self.steps.zero_grad()
            loss.backward()
            self.steps.step()
