"""Adam along the minibatches of a rollout, for any loss of a vector of parameters and of rows."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray

from logpi.algorithm import ActorCritic
from logpi.learner import Metrics
from logpi.policy import Vector
from logpi.randomness import random_order
from logpi.trajectory import Scalar

# Parameters and the moments of Adam.
Descent: TypeAlias = tuple[Vector, optax.OptState]
# Arrays `[time, column, ...]`; None where a kind of row has no such part.
Rows: TypeAlias = Any
Step: TypeAlias = Callable[[Descent, Rows], tuple[Descent, Metrics]]
History: TypeAlias = dict[str, Float[Array, "*steps"]]


def adam_step(config: ActorCritic, loss: Callable[[Vector, Rows], tuple[Scalar, Metrics]]) -> Step:
    """One step down `loss`, its gradient cut to `max_gradient_norm`."""
    limit, adam = optax.clip_by_global_norm(config.max_gradient_norm), optax.scale_by_adam(eps=1e-5)

    def step(state: Descent, rows: Rows) -> tuple[Descent, Metrics]:
        parameters, moments = state
        (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(parameters, rows)
        limited, _ = limit.update(gradient, optax.EmptyState())
        change, moments = adam.update(limited, moments)
        parameters = parameters - config.learning_rate * jnp.asarray(change)
        return (parameters, moments), metrics | {"gradient_norm": jnp.linalg.norm(gradient)}

    return step


def along_minibatches(
    step: Step,
    state: Descent,
    rows: Rows,
    keys: Key[Array, " epochs"],
    minibatches: int,
    stop: Callable[[Vector], Bool[Array, ""]] | None = None,
) -> tuple[Descent, History]:
    """`step` along the columns in a new order for each of `keys`, divided into minibatches.

    An epoch before which `stop` holds is skipped, and has NaN for its metrics.
    """
    columns = jax.tree.leaves(rows)[0].shape[1]

    def epoch(state: Descent, key: PRNGKeyArray) -> tuple[Descent, History]:
        order = random_order(key, columns).reshape(math.gcd(minibatches, columns), -1)
        parts = jax.tree.map(lambda x: jnp.moveaxis(x[:, order], 1, 0), rows)
        run = lambda state: jax.lax.scan(step, state, parts)
        if stop is None:
            return run(state)
        unchanged = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), jax.eval_shape(run, state)[1])
        return jax.lax.cond(stop(state[0]), lambda state: (state, unchanged), run, state)

    return jax.lax.scan(epoch, state, keys)
