"""Published figures, with the library's own functions: numbers with standard errors, and a picture
of each.

    python examples/reproduce.py bandit      # Sutton & Barto, Figure 2.5: gradient bandits
    python examples/reproduce.py corridor    # Figures 13.1 and 13.2: REINFORCE on the corridor
"""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from logpi.estimators.score_function import reinforce_weight, score_function_surrogate

BANDITS = [(0.1, True), (0.4, True), (0.1, False), (0.4, False)]
# (label, α for θ, α for the baseline w or None)
CORRIDORS = [
    ("2^-12", 2.0**-12, None),
    ("2^-13", 2.0**-13, None),
    ("2^-14", 2.0**-14, None),
    ("2^-9, baseline 2^-6", 2.0**-9, 2.0**-6),
]


def policy_gradient(preference, action, weight):
    """w ∇ log π(a) for one action of a softmax over preferences [D2.5]."""

    def surrogate(preference):
        log_prob = jax.nn.log_softmax(preference)[action]
        return score_function_surrogate(
            log_prob[None, None], weight[None, None], jnp.ones((1, 1), bool)
        )

    return jax.grad(surrogate)(preference)


@partial(jax.jit, static_argnames=("baseline", "runs", "steps"))
def gradient_bandit(key, step_size, baseline, runs=2000, steps=1000):
    """Whether the best of ten arms was taken, `[runs, steps]`: q ~ N(4, 1), rewards N(q, 1).

    b is the mean of the rewards before, and the first reward at the first step, as in the book.
    """

    def run(key):
        value_key, key = jax.random.split(key)
        value = 4 + jax.random.normal(value_key, (10,))

        def step(state, at):
            preference, mean = state
            t, key = at
            action_key, reward_key = jax.random.split(key)
            action = jax.random.categorical(action_key, preference)
            reward = value[action] + jax.random.normal(reward_key)
            known = jnp.where((t == 0) & baseline, reward, mean)
            weight = reinforce_weight(reward[None, None], known[None, None], jnp.ones((1, 1)))[0, 0]
            preference = preference + step_size * policy_gradient(preference, action, weight)
            mean = mean + (reward - mean) / (t + 1) if baseline else mean
            return (preference, mean), action == jnp.argmax(value)

        start = (jnp.zeros(10), jnp.zeros(()))
        return jax.lax.scan(step, start, (jnp.arange(steps), jax.random.split(key, steps)))[1]

    return jax.lax.map(run, jax.random.split(key, runs), batch_size=250)


@partial(jax.jit, static_argnames=("baseline_step_size", "runs", "episodes", "cap"))
def corridor(key, step_size, baseline_step_size, runs=100, episodes=1000, cap=2000):
    """Returns `[runs, episodes]` on the short corridor, updated after each episode step by step as
    in the book [D4.3].

    Two preferences, at the start 5 % right. Episodes are cut after `cap` steps.
    """

    def episode(state, key):
        preference, baseline = state

        def act(now):
            t, place, actions, key = now
            key, action_key = jax.random.split(key)
            action = jax.random.categorical(
                action_key, preference
            )  # 1 is right, exchanged in the second state
            move = jnp.where((action == 1) ^ (place == 1), 1, -1)
            return t + 1, jnp.maximum(place + move, 0), actions.at[t].set(action), key

        start = (0, 0, jnp.zeros(cap, jnp.int32), key)
        length, _, actions, _ = jax.lax.while_loop(
            lambda now: (now[0] < cap) & (now[1] < 3), act, start
        )

        def learn(t, state):
            preference, baseline = state
            return_ = -(length - t).astype(float)
            weight = reinforce_weight(return_[None, None], baseline[None, None], jnp.ones((1, 1)))[
                0, 0
            ]
            if baseline_step_size is not None:
                baseline = baseline + baseline_step_size * weight
            return preference + step_size * policy_gradient(
                preference, actions[t], weight
            ), baseline

        return jax.lax.fori_loop(0, length, learn, (preference, baseline)), -length

    start = (jnp.array([np.log(19.0) / 2, -np.log(19.0) / 2]), jnp.zeros(()))
    return jax.lax.map(
        lambda key: jax.lax.scan(episode, start, jax.random.split(key, episodes))[1],
        jax.random.split(key, runs),
    )


def show(name, rows, curves, label):
    """A line for each curve, and the picture beside this file's working directory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    print("\n".join(rows))
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for text, curve in curves:
        axes.plot(curve, label=text, linewidth=1)
    axes.set(ylabel=label, xlabel="steps" if name == "bandit" else "episodes")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(Path(f"{name}.png"), dpi=150)
    pyplot.close(figure)


def bandit_figure(seed=0):
    """% of the best arm over the last 100 of 1,000 steps, 2,000 runs."""
    rows, curves = [], []
    for step_size, baseline in BANDITS:
        best = 100 * np.asarray(gradient_bandit(jax.random.key(seed), step_size, baseline)).astype(
            float
        )
        late = best[:, -100:].mean(1)
        name = f"α {step_size}, {'with' if baseline else 'without'} baseline"
        rows.append(
            f"{name}: {late.mean():.1f} ± {late.std(ddof=1) / len(late) ** 0.5:.1f} % best arm"
        )
        curves.append((name, best.mean(0)))
    show("bandit", rows, curves, "% best arm")


def corridor_figure(seed=0):
    """Return of the last 100 of 1,000 episodes, 100 runs; runs with an episode that was cut are
    counted apart."""
    rows, curves = [], []
    for name, step_size, baseline_step_size in CORRIDORS:
        returns = np.asarray(corridor(jax.random.key(seed), step_size, baseline_step_size)).astype(
            float
        )
        whole = returns[(returns > -2000).all(1)]
        late = whole[:, -100:].mean(1)
        error = late.std(ddof=1) / len(late) ** 0.5
        cut = len(returns) - len(whole)
        rows.append(
            f"α {name}: {late.mean():.2f} ± {error:.2f}, median {np.median(late):.2f}; {cut} runs "
            f"cut"
        )
        curves.append((f"α {name}", whole.mean(0)))
    show("corridor", rows, curves, "return")


if __name__ == "__main__":
    figures = {"bandit": bandit_figure, "corridor": corridor_figure}
    if len(sys.argv) != 2 or sys.argv[1] not in figures:
        sys.exit(__doc__)
    figures[sys.argv[1]]()
