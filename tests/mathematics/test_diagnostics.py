"""What training reports of itself, against its formula."""

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from helpers import small_policy
from hypothesis import given, settings, strategies as st
from test_actor_critic import random_stream

from logpi.methods.rollouts import make_rows, rollout_metrics
from logpi.networks.heads import action_head

# None of them on a bound, where rounding decides.
numbers = st.lists(st.integers(-24, 24).map(lambda k: k / 8 + 0.05), min_size=2, max_size=2)
BOX = spaces.Box(-1, 3, (2,), np.float32)
NARROW = spaces.Box(2, 2.5, (2,), np.float32)
HALF = spaces.Box(
    np.array([-np.inf, 0.0], np.float32), np.array([1.0, np.inf], np.float32), dtype=np.float32
)


def moved(random):
    """Rows of a rollout by one policy, and another policy that it has become."""
    three = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    before, after = (small_policy(three, spaces.Discrete(2), (4,), random) for _ in range(2))
    stream = random_stream(random)
    plain = jnp.zeros(stream.mask.shape)
    memory = jnp.zeros((*stream.mask.shape, 0))
    return before, after, stream, make_rows(before, stream, plain, plain, plain, memory)


def ratios(before, after, rows):
    """π/π_old of the steps that belong to an episode, by their probabilities."""
    found = []
    for policy in (after, before):
        law = policy(rows.observation)
        found.append(np.exp(np.asarray(law.log_prob(rows.action)))[np.asarray(rows.mask)])
    return found[0] / found[1]


def test_effective_sample_size_and_clip_fraction_are_their_formulas(random):
    """Control: rows that are no steps would change both."""
    before, after, stream, rows = moved(random)
    ratio = ratios(before, after, rows)
    assert len(ratio) < rows.mask.size
    found = rollout_metrics(after, stream, rows)["effective_sample_size"]
    np.testing.assert_allclose(found, ratio.sum() ** 2 / (len(ratio) * (ratio**2).sum()), rtol=1e-9)
    middle = float(np.median(np.abs(ratio - 1)))
    expected = np.mean(np.abs(ratio - 1) > middle)
    beyond = rollout_metrics(after, stream, rows, middle)["clip_fraction"]
    np.testing.assert_allclose(beyond, expected, rtol=1e-5)
    everything = rows._replace(mask=jnp.ones_like(rows.mask))
    other = rollout_metrics(after, stream, everything)["effective_sample_size"]
    assert abs(float(other) - float(found)) > 1e-7


def test_a_policy_that_has_not_moved_has_its_whole_sample(random):
    before, _, stream, rows = moved(random)
    metrics = rollout_metrics(before, stream, rows, 1e-4)
    np.testing.assert_allclose(metrics["effective_sample_size"], 1.0, rtol=1e-6)
    assert metrics["clip_fraction"] == 0


@given(numbers)
@settings(deadline=None)
def test_an_action_is_clipped_if_execution_changes_it(action):
    """In any dimension: the bounded ones in half ranges, the others as they are sampled. What tanh
    squashes is not cut, nor is a choice.
    """
    sampled = np.array(action, np.float32)
    for space in (BOX, NARROW, HALF):
        head = action_head(space)
        low, high = space.low.astype(float), space.high.astype(float)
        bounded = np.isfinite(low) & np.isfinite(high)
        centre = np.where(bounded, (high + low) / 2, 0.0)
        half_range = np.where(bounded, (high - low) / 2, 1.0)
        meant = centre + half_range * sampled
        executed = head.execute(sampled)
        np.testing.assert_allclose(executed, np.clip(meant, low, high), atol=1e-6)
        changed = ~np.isclose(executed, meant, atol=1e-6)
        assert head.is_clipped(sampled) == changed.any()
    assert not action_head(BOX, "tanh-normal").is_clipped(sampled)
    assert not action_head(spaces.Discrete(3)).is_clipped(np.array([2, 0])).any()
    both = spaces.Tuple([spaces.Discrete(2), BOX])
    row = np.array([1.0, *sampled], np.float32)
    alone = action_head(BOX)
    assert action_head(both).is_clipped(row) == alone.is_clipped(sampled)
