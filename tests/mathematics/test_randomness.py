"""Random orders: every index once, every order alike."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import LEVEL, SAMPLES
from hypothesis import given, settings, strategies as st
from scipy import stats

from logpi.core.randomness import random_order


@settings(max_examples=20, deadline=None)
@given(count=st.sampled_from([1, 2, 3, 64, 1000, 2999]), seed=st.integers(0, 2**32 - 1))
def test_an_order_has_every_index_once(count, seed):
    order = random_order(jax.random.key(seed), count)
    np.testing.assert_array_equal(np.sort(order), np.arange(count))


def likelihood(orders):
    """How well counts of the 24 orders of four agree with all being alike."""
    counts = [
        int(np.all(orders == order, axis=1).sum()) for order in itertools.permutations(range(4))
    ]
    assert sum(counts) == SAMPLES
    return stats.chisquare(counts).pvalue


def test_all_orders_are_alike(random):
    keys = jax.random.split(jax.random.key(random.integers(2**32)), SAMPLES)
    orders = np.asarray(jax.vmap(lambda key: random_order(key, 4))(keys))
    assert likelihood(orders) > LEVEL
    assert (
        likelihood(np.asarray(jax.vmap(lambda x, by: jnp.roll(x, by))(orders, orders[:, 0])))
        < LEVEL
    )
