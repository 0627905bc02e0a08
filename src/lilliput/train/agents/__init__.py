"""Agents that learn to choose: one action for each step of an episode, and a reward for it."""

from lilliput.train.agents.base import Agent, Player
from lilliput.train.agents.ddpg import DDPG, ActorCritic
from lilliput.train.agents.dqn import DQN, QNetwork
from lilliput.train.agents.ppo import PPO

__all__ = ["DDPG", "DQN", "PPO", "ActorCritic", "Agent", "Player", "QNetwork"]
