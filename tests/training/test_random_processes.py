"""Every algorithm reaches the optimum of 200 random processes, learned side by side."""

import dataclasses

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import logpi
from logpi import A2C, NPG, PPO, TRPO, FiniteMDP, Reinforce
from logpi.environments.spec import CompiledEnvironment, EnvironmentSpec
from logpi.theory.exact import exact_objective, optimal_objective

PROCESSES, TOGETHER, LAYERS, WIDTH, ACTIONS = 200, 25, 3, 2, 3
# states are numbered layer by layer, so that the best policy need not know the time
END = LAYERS * WIDTH


def layered(random):
    """Each state leads to those of the next layer, or with some chance to the end."""
    transition = np.zeros((END + 1, ACTIONS, END + 1))
    transition[:, :, END] = 1
    for state in range(END - WIDTH):
        later = (state // WIDTH + 1) * WIDTH
        where = [*range(later, later + WIDTH), END]
        transition[state] = 0
        transition[state][:, where] = random.dirichlet(np.ones(len(where)), ACTIONS)
    reward = random.normal(size=(END + 1, ACTIONS, END + 1))
    initial = np.append(random.dirichlet(np.ones(WIDTH)), np.zeros(END + 1 - WIDTH))
    return FiniteMDP(initial, transition, reward, np.arange(END + 1) == END, LAYERS)


def side_by_side(processes):
    """One environment: each episode is of one of the processes, whose number is part of what is
    seen."""

    def stacked(name):
        return jnp.asarray(np.stack([getattr(mdp, name) for mdp in processes]))

    initial, transition, reward = (stacked(name) for name in ("initial", "transition", "reward"))

    def seen(which, state):
        return which * (END + 1) + state

    def reset(key):
        which = jax.random.randint(key, (), 0, len(processes))
        state = jax.random.categorical(jax.random.fold_in(key, 1), jnp.log(initial[which]))
        return (which, state), seen(which, state)

    def step(key, now, action):
        which, state = now
        after = jax.random.categorical(key, jnp.log(transition[which, state, action]))
        terminated = after == END
        return (
            (which, after),
            seen(which, after),
            reward[which, state, action, after],
            terminated,
            ~terminated & False,
        )

    count = len(processes) * (END + 1)
    spaces = gym.spaces.Discrete(count), gym.spaces.Discrete(ACTIONS)
    return CompiledEnvironment(
        EnvironmentSpec("side-by-side", *spaces, LAYERS, None, {}), reset, step
    )


STREAMS = dict(
    hidden=(), environments=256, normalize_observations=False, trace_decay=1.0, discount=1.0
)
WHOLE = dict(hidden=(), episodes=256, learning_rate=0.03, kl_limit=1.0)
FITTED = dict(learning_rate=0.03, value_epochs=4, value_minibatches=4)
NATURAL = dict(STREAMS, **FITTED, environments=512, rollout_steps=8, entropy_coefficient=0.02)
ENDING = ("entropy_coefficient", "learning_rate")
CASES = {
    "reinforce": Reinforce(**WHOLE, value_steps=20),
    "leave-one-out": Reinforce(**WHOLE, baseline="leave-one-out"),
    "a2c": A2C(**STREAMS, rollout_steps=4, learning_rate=0.03),
    "v-trace": A2C(**STREAMS, rollout_steps=8, learning_rate=0.015, epochs=2),
    "npg": NPG(**NATURAL, anneal=ENDING),
    "trpo": TRPO(**NATURAL, anneal=ENDING),
    "ppo": PPO(**STREAMS, rollout_steps=8, learning_rate=0.01, epochs=4, minibatches=4),
}


def gaps(processes, policy):
    """(J* - J) / (J* - J of the worst policy) of each process."""
    logits = np.asarray(policy(np.arange(policy.encoder.size)).logits, np.float64)
    found = []
    for mdp, table in zip(processes, logits.reshape(len(processes), END + 1, ACTIONS), strict=True):
        best = optimal_objective(mdp)
        against = FiniteMDP(mdp.initial, mdp.transition, -mdp.reward, mdp.terminal, mdp.horizon)
        worst = -optimal_objective(against)
        found.append((best - exact_objective(mdp, table)) / (best - worst))
    return np.array(found)


@pytest.mark.release
@pytest.mark.parametrize("name", CASES)
def test_every_algorithm_reaches_the_optimum(name, tmp_path):
    """Within 1 % on each of the 200; the control is a step that is too small to matter."""
    random = np.random.default_rng(0)
    algorithm = CASES[name]
    groups = [[layered(random) for _ in range(TOGETHER)] for _ in range(PROCESSES // TOGETHER)]
    for number, processes in enumerate(groups):
        run = logpi.train(side_by_side(processes), algorithm, steps=3e6, out=tmp_path / str(number))
        assert gaps(processes, run.policy).max() < 0.01
    step = "kl_limit" if isinstance(algorithm, NPG) else "learning_rate"
    idle = dataclasses.replace(algorithm, **{step: 1e-9})
    run = logpi.train(side_by_side(groups[0]), idle, steps=4e4, out=tmp_path / "idle")
    assert np.median(gaps(groups[0], run.policy)) > 0.2
