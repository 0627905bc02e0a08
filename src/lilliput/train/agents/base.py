"""What an agent is: settings, and a player that acts and learns by them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Player(ABC):
    """An agent at work: it acts once for each step, then learns from what the episode earned."""

    @abstractmethod
    def act(self, state: Tensor) -> int:
        """An option, given a state `(features,)`."""

    @abstractmethod
    def learn(self, reward: float) -> None:
        """Take in the reward of the actions since the last time."""


class Agent(ABC):
    """An agent's settings."""

    @abstractmethod
    def player(self, size: int, options: int, seed: int) -> Player:
        """An agent for states of `size` features and so many options, its random numbers from `seed`."""
