"""A finite MDP as a compiled environment, so that training can be held against the exact
optimum.
"""

import hashlib

import gymnasium as gym
import jax
import jax.numpy as jnp

from logpi.environments.spec import CompiledEnvironment, EnvironmentSpec
from logpi.theory.mdp import FiniteMDP


def finite_environment(mdp: FiniteMDP, name: str) -> CompiledEnvironment:
    """Draws s_0 ~ μ and s', r ~ p(·|s,a); state (s, t), terminated by a terminal state, truncated
    at the horizon.

    The discount of the process is not applied to the rewards: that is the algorithm's part.
    """
    log_initial = jnp.log(jnp.asarray(mdp.initial))
    log_transition = jnp.log(jnp.asarray(mdp.transition))
    terminal, observation, reward = map(
        jnp.asarray, (mdp.terminal, mdp.observation, mdp.reward_value)
    )
    log_reward_law = jnp.log(jnp.asarray(mdp.reward_probability))

    def reset(key):
        state = jax.random.categorical(key, log_initial)
        return (state, jnp.int32(0)), observation[state]

    def step(key, state, action):
        state, t = state
        after_key, reward_key = jax.random.split(key)
        after = jax.random.categorical(after_key, log_transition[state, action])
        outcome = jax.random.categorical(reward_key, log_reward_law[state, action, after])
        terminated = terminal[after]
        truncated = (t + 1 >= mdp.horizon) & ~terminated
        return (
            (after, t + 1),
            observation[after],
            reward[state, action, after, outcome],
            terminated,
            truncated,
        )

    spec = EnvironmentSpec(
        name=name,
        observation_space=gym.spaces.Discrete(mdp.observations),
        action_space=gym.spaces.Discrete(mdp.actions),
        max_episode_steps=mdp.horizon,
        reward_threshold=None,
        identity={"sha256": hashlib.sha256(mdp.to_json().encode()).hexdigest()},
    )
    return CompiledEnvironment(spec, reset, step)
