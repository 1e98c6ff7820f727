"""The losses of methods that play rollouts, their critic's error, their steps: by hand, with controls."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled_update as update, one_in
from test_actor_critic import SMALL, random_stream, spec

from logpi import A2C, NPG, PPO, TRPO, PPOPenalty, Reinforce
from logpi.methods import reinforce, rollouts
from logpi.methods.descent import joint_loss
from logpi.methods.natural import Ascent, natural_ascent
from logpi.methods.ppo_penalty import adapted
from logpi.methods.registry import METHODS
from logpi.methods.rollouts import gains, gains_on, laws, mean_kl, prepare, squared_error
from logpi.methods.trust_region import search_scale
from logpi.networks.parameters import as_vector
from logpi.runs.evaluation import Evaluation

ROLLOUT_METHODS = [A2C, PPO, PPOPenalty, NPG, TRPO]


def made(kind, **options):
    """A method of a small rollout, whose minibatches divide it."""
    parts = {PPO: "minibatches", PPOPenalty: "minibatches", NPG: "value_minibatches"}
    parts[TRPO] = "value_minibatches"
    divided = {parts[kind]: 4} if kind in parts else {}
    return kind(**SMALL | divided | options)


def prepared(method, stream, seed=1):
    learner = method.make_learner(spec(), seed)
    # a policy that prefers an action, and a V that is not 0
    weights = learner.policy.network.weights[-1]
    biased = eqx.tree_at(lambda x: x.network.weights[-1], learner.policy, 40 * weights)
    value = eqx.tree_at(
        lambda x: x.network.weights[-1], learner.value, jnp.linspace(-1, 1, 8)[:, None]
    )
    return prepare(method, learner._replace(policy=biased, value=value), stream)


@pytest.mark.parametrize("kind", ROLLOUT_METHODS)
def test_the_loss_falls_where_the_entropy_rises(kind, random):
    """Without advantages the loss is -β H: its gradient is that of the entropy, turned round."""
    method = made(kind, entropy_coefficient=0.5)
    learner, rows = prepared(method, random_stream(random))
    rows = rows._replace(advantage=jnp.zeros_like(rows.advantage))
    parameters, rebuild = as_vector(learner.policy)

    def entropy(parameters):
        policy = rebuild(parameters)
        law = policy.distributions(rows.observation, rows.step, rows.before[0])
        return jnp.mean(jnp.where(rows.mask, law.entropy(), 0.0))

    def loss(parameters):
        return gains_on(method, laws(rebuild(parameters), rows), rows).loss

    expected = -0.5 * jax.grad(entropy)(parameters)
    assert jnp.abs(expected).max() > 1e-4
    np.testing.assert_allclose(jax.grad(loss)(parameters), expected, atol=1e-12)


@pytest.mark.parametrize("kind", one_in(2, zip(ROLLOUT_METHODS)))
def test_an_update_with_nothing_but_entropy_raises_it(kind, random):
    """The whole update of every method; the control is the same with nothing to gain."""
    stream = random_stream(random)
    stream = stream._replace(reward=0 * stream.reward)
    risen = {}
    for coefficient in (0.0, 0.1):
        method = made(kind, entropy_coefficient=coefficient, learning_rate=0.01)
        learner = method.make_learner(spec(), 1)
        weights = learner.policy.network.weights[-1]
        policy = eqx.tree_at(lambda x: x.network.weights[-1], learner.policy, 200 * weights)
        learner = learner._replace(policy=policy)
        _, rows = prepare(method, learner, stream)
        law = policy.distributions(rows.observation, rows.step, rows.before[0])
        before = float(law.entropy()[rows.mask].mean())
        _, metrics = update(method, learner, stream)
        risen[coefficient] = float(metrics["entropy"]) - before
    assert risen[0.1] > 1e-4
    assert abs(risen[0.0]) < 0.1 * risen[0.1]


def test_every_surrogate_has_the_gradient_of_the_advantage(random):
    """∂ loss / ∂ log π = -A / rows at π = π_old [D1.3], and 0 in rows that are no steps."""
    log_prob, advantage = jnp.asarray(random.normal(size=(2, 3, 4)))
    mask = jnp.asarray(random.random((3, 4)) < 0.7)
    zero = jnp.zeros((3, 4))
    for kind in ROLLOUT_METHODS:
        method = made(kind)

        def loss(now, method=method):
            return gains(method, now, log_prob, zero, advantage, mask).loss

        expected = -jnp.where(mask, advantage, 0.0) / 12
        np.testing.assert_allclose(jax.grad(loss)(log_prob), expected, atol=1e-12)


def test_the_critics_target_is_what_follows(random):
    """With λ = 0 it is r_{t+1} + γ V(s_{t+1}), V being 0 after a termination."""
    stream = random_stream(random)
    method = made(A2C, trace_decay=0.0, discount=0.9, normalize_returns=False)
    learner, rows = prepared(method, stream)
    memory = learner.policy.memories(stream.observation, stream.step, stream.memory)
    value = np.asarray(learner.critic(stream.observation, stream.step, memory))
    assert np.abs(value).min() > 0.0
    future = np.where(stream.terminated[:-1], 0.0, value[1:])
    expected = (stream.reward[:-1] + 0.9 * future).reshape(1, -1)
    mask = np.asarray(rows.mask)
    np.testing.assert_allclose(np.asarray(rows.target)[mask], expected[mask], atol=1e-12)


@pytest.mark.parametrize("kind", [A2C, NPG])
def test_a_batch_is_counted(kind, random):
    """Its number is what its noise and its minibatches are drawn by."""
    stream = random_stream(random)
    method = made(kind)
    learner, _ = update(method, method.make_learner(spec(), 1), stream)
    assert int(learner.batch) == 1
    assert learner.steps.tolist() == [int(np.sum(stream.mask)), 0]


def test_steps_and_budgets_beyond_32_bits(random):
    """An option that is annealed stands where its steps are, whichever digit they fill."""
    stream = random_stream(random)
    method = made(A2C, anneal=("learning_rate",))
    learner = method.make_learner(spec(), 1)
    half = learner._replace(steps=jnp.array([0, 2**15], jnp.uint32))
    _, metrics = update(method, half, stream, budget=2**48)
    assert float(metrics["learning_rate"]) == pytest.approx(method.learning_rate / 2)
    last = learner._replace(steps=jnp.array([2**32 - 1, 3], jnp.uint32))
    counted, _ = update(method, last, stream)
    assert counted.steps.tolist() == [int(np.sum(stream.mask)) - 1, 4]


@pytest.mark.parametrize(
    ("anneal", "expected"),
    [(("learning_rate", "kl_limit"), 0.5), (("learning_rate",), 1.0)],
    ids=["falling", "fixed"],
)
def test_the_natural_step_shrinks_with_its_limit(anneal, expected, random):
    """Its square is KL, whose limit is halved when half of the steps are made; the control is a
    limit that stays.
    """
    stream = random_stream(random)
    method = made(NPG, anneal=anneal)
    first = method.make_learner(spec(), 1)
    start, _ = as_vector(first.policy)

    def squared_step(steps):
        learner = first._replace(steps=jnp.array(steps, jnp.uint32))
        moved, _ = update(method, learner, stream, budget=2**48)
        return float(jnp.sum((as_vector(moved.policy)[0] - start) ** 2))

    assert squared_step([0, 2**15]) == pytest.approx(expected * squared_step([0, 0]))


@pytest.mark.parametrize("clip", [None, 0.1])
def test_the_critics_error_is_that_of_the_steps(clip, random):
    """((V - target) / scale)² over the steps alone, and the larger of two where V is kept near."""
    learner, rows = prepared(made(PPO), random_stream(random))
    value = eqx.tree_at(lambda v: v.units.scale, learner.value, jnp.asarray(2.0))
    moved = eqx.tree_at(lambda v: v.network.biases[-1], value, jnp.asarray([0.3]))
    found = squared_error(moved, rows, clip)
    predicted = np.asarray(moved(rows.observation, rows.step, rows.memory)) / 2
    target, old = np.asarray(rows.target) / 2, np.asarray(rows.value) / 2
    errors = (predicted - target) ** 2
    if clip is not None:
        kept = np.clip(predicted, old - clip, old + clip)
        assert np.abs(kept - predicted).max() > 0.01
        errors = np.maximum(errors, (kept - target) ** 2)
    mask = np.asarray(rows.mask)
    assert found == pytest.approx(errors[mask].mean(), rel=1e-12)
    assert found != pytest.approx(errors.mean(), rel=1e-6)


def test_value_clip_is_used_in_training(random):
    stream = random_stream(random)
    options = dict(learning_rate=0.05, epochs=8, normalize_returns=False)
    near, free = (made(PPO, value_clip=clip, **options) for clip in (0.01, None))
    moved = [update(m, m.make_learner(spec(), 1), stream)[0].value.network for m in (near, free)]
    assert np.abs(moved[0].biases[-1] - moved[1].biases[-1]).max() > 1e-4


def test_the_joint_loss_weighs_the_critic_by_its_coefficient(random):
    """-(surrogate + bonus) + c · error; the coefficient moves the critic's gradient alone."""
    stream = random_stream(random)
    found = {}
    for coefficient in (0.5, 2.0):
        method = made(A2C, value_coefficient=coefficient, entropy_coefficient=0.1)
        learner, rows = prepared(method, stream)
        joint = joint_loss(method, learner)
        loss, _ = joint.loss(joint.parameters, rows)
        gained = gains_on(method, laws(learner.policy, rows), rows)
        error = squared_error(learner.value, rows)
        assert loss == pytest.approx(
            float(coefficient * error - gained.surrogate - gained.bonus), abs=1e-12
        )
        gradient, _ = jax.grad(joint.loss, has_aux=True)(joint.parameters, rows)
        policy, value = joint.rebuild(gradient)
        found[coefficient] = (policy.network.weights[0], value.network.weights[0])
    np.testing.assert_allclose(found[0.5][0], found[2.0][0], atol=1e-12)
    np.testing.assert_allclose(4 * found[0.5][1], found[2.0][1], atol=1e-12)


def test_the_mean_kl_is_from_the_old_to_the_new(random):
    """Σ_a π_old (log π_old - log π_new), not the other way round; over the steps alone."""
    stream = random_stream(random)
    learner, rows = prepared(made(TRPO), stream)
    new = eqx.tree_at(lambda x: x.network.biases[-1], learner.policy, jnp.asarray([1.5, -0.5]))

    def by_hand(p, q, mask):
        p, q = jax.nn.log_softmax(p.logits), jax.nn.log_softmax(q.logits)
        return float(jnp.sum(jnp.exp(p) * (p - q), axis=-1)[mask].mean())

    old_law, new_law = (x(rows.observation) for x in (learner.policy, new))
    expected = by_hand(old_law, new_law, rows.mask)
    assert abs(expected - by_hand(new_law, old_law, rows.mask)) > 1e-3
    assert mean_kl(learner.policy, new, rows) == pytest.approx(expected, rel=1e-9)
    episodes = stream._replace(mask=stream.mask.at[6:].set(False))
    old_law, new_law = (x(episodes.observation) for x in (learner.policy, new))
    found = reinforce.mean_kl_of_episodes(learner.policy, new, episodes)
    assert found == pytest.approx(by_hand(old_law, new_law, episodes.mask), rel=1e-9)


@pytest.mark.parametrize(("limit", "scale"), [(10.0, 1.0), (0.3, 0.5), (0.07, 0.25), (0.002, 0.0)])
def test_the_line_search_takes_the_largest_step_within_the_limit(limit, scale):
    """KL = s², so that s = 1, ½, ¼ … are within 1, ¼, 1/16 …; the one before breaks the limit."""
    zero, one = jnp.zeros(1), jnp.ones(1)
    ascent = Ascent(
        old=zero,
        step=one,
        rebuild=lambda x: x,
        objective=lambda x: x[0],
        kl=lambda x: x[0] ** 2,
        before=jnp.asarray(0.0),
        gradient=one,
    )
    assert search_scale(ascent, limit, 4) == scale
    downhill = ascent._replace(objective=lambda x: -x[0])
    assert search_scale(downhill, limit, 4) == 0


def test_products_with_the_fisher_matrix_turn_the_step(random):
    """One product leaves the direction of the gradient; ten do not, and the options say how many."""
    stream = random_stream(random)

    def cosine(steps, damping=1e-3):
        method = made(NPG, conjugate_gradient_steps=steps, damping=damping)
        ascent = natural_ascent(method, *prepared(method, stream))
        step, gradient = ascent.step, ascent.gradient
        return float(step @ gradient / jnp.linalg.norm(step) / jnp.linalg.norm(gradient))

    assert cosine(1) == pytest.approx(1.0, abs=1e-9)
    assert cosine(10) < 0.99
    assert cosine(10, damping=1e6) == pytest.approx(1.0, abs=1e-3)


def test_a_longer_gradient_is_shortened(random):
    """Adam divides by the length, so what is seen is the second moment that it keeps."""
    stream = random_stream(random)

    def second_moment(limit):
        method = made(A2C, max_gradient_norm=limit)
        learner, metrics = update(method, method.make_learner(spec(), 1), stream)
        nu = learner.policy_optimizer.nu
        return float(jnp.sqrt(jnp.sum(nu) / 1e-3)), float(metrics["gradient_norm"])

    found, norm = second_moment(1e-3)
    assert norm > 1e-2
    assert found == pytest.approx(1e-3, rel=1e-6)
    found, norm = second_moment(1e3)
    assert found == pytest.approx(norm, rel=1e-6)


def test_what_v_is_fitted_to_is_the_lambda_return(random):
    """λ = 1: the rewards to go; λ = 0: one reward and V. The option decides."""
    stream = random_stream(random, terminated=0, truncated=0)
    mask = stream.mask.at[-1].set(True)
    ends = jnp.zeros_like(mask).at[-1].set(True)
    episodes = stream._replace(mask=mask, terminated=ends)
    value = jnp.asarray(random.normal(size=mask.shape))

    def target(decay):
        method = Reinforce(discount=0.9, value_trace_decay=decay)
        return method._value_target(episodes, method.return_of(episodes), value)

    np.testing.assert_allclose(target(1.0), Reinforce(discount=0.9).return_of(episodes), atol=1e-12)
    later = jnp.concatenate([value[1:], jnp.zeros((1, 4))])
    np.testing.assert_allclose(target(0.0), episodes.reward + 0.9 * later, atol=1e-12)
    assert np.abs(target(0.5) - target(1.0)).max() > 1e-3


def test_the_penalty_adapts(random):
    """Halved below the target, doubled above it (Schulman et al. 2017); and it keeps the policy near."""
    beta = jnp.asarray(4.0)
    cases = {0.1: 2.0, 0.6: 2.0, 0.7: 4.0, 1.0: 4.0, 1.4: 4.0, 1.6: 8.0}
    for kl, expected in cases.items():
        assert adapted(beta, jnp.asarray(kl), 1.0) == expected
    stream = random_stream(random)
    moved = {}
    for penalty in (1e-9, 100.0):
        method = made(PPOPenalty, penalty=penalty, learning_rate=0.05)
        learner, metrics = update(method, method.make_learner(spec(), 1), stream)
        moved[penalty] = float(metrics["kl"])
        assert learner.method_state in (penalty / 2, 2 * penalty)
    assert moved[100.0] < moved[1e-9] / 4
    free = made(PPO, clip=np.inf, learning_rate=0.05)
    _, metrics = update(free, free.make_learner(spec(), 1), stream)
    assert moved[1e-9] == pytest.approx(float(metrics["kl"]), rel=1e-6)


def test_an_interval_is_students(random):
    """mean ± t s/√n with t = 2.262 for ten episodes, 1.960 for very many."""
    for count, t in ((10, 2.2622), (100_000, 1.96)):
        returns = random.normal(3.0, 2.0, count)
        low, high = Evaluation(returns, np.ones(count, int)).interval
        half = t * returns.std(ddof=1) / np.sqrt(count)
        assert (high - low) / 2 == pytest.approx(half, rel=1e-3)
        assert (high + low) / 2 == pytest.approx(returns.mean())
    assert Evaluation(np.ones(1), np.ones(1, int)).interval == (-np.inf, np.inf)


def test_every_method_is_what_a_run_asks_of_it():
    """All of them are known by one name, and their parts are those of the interface."""
    from logpi.methods.method import Method

    for kind in METHODS.values():
        method = kind()
        assert isinstance(method, Method)
        assert (method.rows is None) == (kind is Reinforce)
        assert hasattr(method, "surrogate") == isinstance(method, rollouts.RolloutOptions)
        assert dataclasses.replace(method) == method
