"""Random orders: every index once, every order alike."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LEVEL, SAMPLES
from hypothesis import given, settings, strategies as st
from scipy import stats

from logpi.core.randomness import (
    Stream,
    batch_key,
    episode_seed,
    numpy_generator,
    random_order,
)


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


@pytest.mark.parametrize("changed", range(4))
def test_every_source_of_numbers_has_its_own(changed):
    """Another seed, purpose, batch or environment gives other numbers, the same the same ones."""
    first = [1, Stream.TRAINING, 5, 9]
    other = [2, Stream.EVALUATION, 6, 10]
    second = [*first[:changed], other[changed], *first[changed + 1 :]]

    def drawn(seed, stream, batch, environment):
        numbers = numpy_generator(seed, stream, batch, environment).normal(size=3)
        key = batch_key(jnp.uint32(seed), stream, jnp.int32(batch))
        bits = jax.random.bits(key, (3,))
        return numbers.tolist(), episode_seed(seed, stream, environment, batch), bits.tolist()

    assert drawn(*first) == drawn(*first)
    numbers, episode, bits = zip(drawn(*first), drawn(*second), strict=True)
    assert numbers[0] != numbers[1]
    assert episode[0] != episode[1]
    if changed < 3:  # a batch has one key for all environments
        assert bits[0] != bits[1]
