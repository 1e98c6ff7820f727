"""Every distribution against the definition of what it claims: density, law of the samples,
entropy, KL, score."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LEVEL, SAMPLES
from scipy import integrate, stats

from logpi.networks.distributions import Categorical, Normal, TanhNormal

LOGITS = np.array([0.3, -1.2, 2.0, 0.0])
MEAN, LOG_STD = np.array([0.4]), np.array([-0.3])


def categorical_counts(random, logits):
    noise = random.gumbel(size=(SAMPLES, len(logits)))
    actions = Categorical(jnp.broadcast_to(logits, noise.shape)).sample(jnp.asarray(noise))
    return np.bincount(np.asarray(actions), minlength=len(logits))


def test_categorical_samples_follow_the_softmax(random):
    law = np.asarray(jax.nn.softmax(LOGITS))
    assert stats.chisquare(categorical_counts(random, LOGITS), SAMPLES * law).pvalue > LEVEL


def test_chi_square_sees_a_wrong_temperature(random):
    law = np.asarray(jax.nn.softmax(LOGITS / 1.2))
    assert stats.chisquare(categorical_counts(random, LOGITS), SAMPLES * law).pvalue < LEVEL


def test_categorical_probabilities_sum_to_one_and_define_entropy_and_kl(random):
    p, q = Categorical(LOGITS), Categorical(jnp.asarray(random.normal(size=4)))
    log_p, log_q = (
        d._replace(logits=jnp.tile(d.logits, (4, 1))).log_prob(jnp.arange(4)) for d in (p, q)
    )
    assert float(jnp.exp(log_p).sum()) == pytest.approx(1, abs=1e-12)
    assert float(p.entropy()) == pytest.approx(-float((jnp.exp(log_p) * log_p).sum()), abs=1e-12)
    assert float(p.kl(q)) == pytest.approx(
        float((jnp.exp(log_p) * (log_p - log_q)).sum()), abs=1e-12
    )
    assert float(p.kl(p)) == pytest.approx(0, abs=1e-12)


def density(distribution, executed):
    """The density of the action that is executed, by `log_prob` of what is stored."""
    stored = np.arctanh(executed) if isinstance(distribution, TanhNormal) else executed
    return np.exp(distribution.log_prob(jnp.array([stored])))


@pytest.mark.parametrize(("kind", "low", "high"), [(Normal, -np.inf, np.inf), (TanhNormal, -1, 1)])
def test_density_integrates_to_one(kind, low, high):
    total, error = integrate.quad(lambda a: float(density(kind(MEAN, LOG_STD), a)), low, high)
    assert total == pytest.approx(1, abs=1e-7 + error)


def test_density_without_the_log_determinant_does_not():
    """The control: a Gaussian's log-density of u, taken for that of tanh(u)."""
    total, _ = integrate.quad(
        lambda a: float(np.exp(Normal(MEAN, LOG_STD).log_prob(np.arctanh([a])))), -1, 1
    )
    assert abs(total - 1) > 0.1


def test_normal_is_that_of_scipy(random):
    mean, log_std, action = random.normal(size=(3, 5, 2))
    expected = stats.norm.logpdf(action, mean, np.exp(log_std)).sum(-1)
    np.testing.assert_allclose(
        Normal(jnp.asarray(mean), jnp.asarray(log_std)).log_prob(action), expected, rtol=1e-12
    )


def cumulative(kind):
    gauss = stats.norm(float(MEAN[0]), float(np.exp(LOG_STD[0]))).cdf
    return gauss if kind is Normal else lambda a: gauss(np.arctanh(a))


@pytest.mark.parametrize("kind", [Normal, TanhNormal])
def test_samples_follow_their_law(random, kind):
    samples = np.asarray(kind(MEAN, LOG_STD).sample(jnp.asarray(random.normal(size=(SAMPLES, 1)))))[
        :, 0
    ]
    executed = np.tanh(samples) if kind is TanhNormal else samples
    assert stats.kstest(executed, cumulative(kind)).pvalue > LEVEL
    assert stats.kstest(0.8 * executed, cumulative(kind)).pvalue < LEVEL


@pytest.mark.parametrize(("kind", "low", "high"), [(Normal, -12, 12), (TanhNormal, -1, 1)])
def test_entropy_and_kl_are_their_integrals(kind, low, high):
    p, q = kind(MEAN, LOG_STD), kind(MEAN - 0.5, LOG_STD + 0.4)

    def log_density(distribution, a):
        return float(np.log(density(distribution, a)))

    entropy, _ = integrate.quad(lambda a: -density(p, a) * log_density(p, a), low, high, limit=200)
    kl, _ = integrate.quad(
        lambda a: density(p, a) * (log_density(p, a) - log_density(q, a)), low, high, limit=200
    )
    assert float(p.entropy()) == pytest.approx(entropy, abs=1e-4)
    assert float(p.kl(q)) == pytest.approx(kl, abs=1e-7)


@pytest.mark.parametrize(
    ("mean", "log_std", "error"),
    [(0.0, -1.0, 1e-7), (0.5, 0.0, 1e-7), (-2.0, 1.0, 1e-7), (0.5, 1.5, 1e-5), (0.0, 2.0, 1e-3)],
)
def test_squashed_entropy_of_narrow_and_wide_gaussians(mean, log_std, error):
    """H(tanh u) = H(u) + E[log(1 - tanh²u)] by an adaptive integral, and the derivative of an
    entropy bonus."""

    def gauss(log_std):
        return stats.norm(mean, np.exp(log_std))

    def slope(u):
        return 2 * (np.log(2) - abs(u) - np.log1p(np.exp(-2 * abs(u))))

    def exact(log_std):
        law, reach = gauss(log_std), 12 * np.exp(log_std)

        def f(u):
            return law.pdf(u) * slope(u)

        return (
            law.entropy() + integrate.quad(f, mean - reach, mean + reach, points=[0], limit=300)[0]
        )

    def entropy(x):
        return TanhNormal(jnp.array([mean]), jnp.array([x])).entropy()

    assert float(entropy(log_std)) == pytest.approx(exact(log_std), abs=error)
    by_difference = (exact(log_std + 1e-4) - exact(log_std - 1e-4)) / 2e-4
    assert float(jax.grad(entropy)(log_std)) == pytest.approx(by_difference, abs=20 * error)


def test_squashed_log_prob_survives_extreme_actions():
    log_prob = TanhNormal(MEAN, LOG_STD).log_prob(jnp.array([[50.0], [-50.0]]))
    assert np.isfinite(log_prob).all()


@pytest.mark.parametrize("kind", [Normal, TanhNormal])
def test_score_has_mean_zero(random, kind):
    """E[∇ log π] = 0: within 5 standard errors of the sample itself."""
    actions = kind(MEAN, LOG_STD).sample(jnp.asarray(random.normal(size=(SAMPLES, 1))))
    scores = jax.vmap(jax.grad(lambda m, s, a: kind(m, s).log_prob(a), (0, 1)), (None, None, 0))(
        MEAN, LOG_STD, actions
    )
    for score in scores:
        error = score.std() / SAMPLES**0.5
        assert abs(score.mean()) < 5 * error
        assert error > 0
    clipped = jnp.clip(actions, -0.5, 0.5)
    wrong = jax.vmap(jax.grad(lambda m, a: kind(m, LOG_STD).log_prob(a)), (None, 0))(MEAN, clipped)
    # the control: the score of a clipped action
    assert abs(wrong.mean()) > 5 * wrong.std() / SAMPLES**0.5


def test_zero_noise_gives_the_mode():
    assert Categorical(LOGITS).sample(np.zeros(4)) == 2
    np.testing.assert_array_equal(Normal(MEAN, LOG_STD).sample(np.zeros(1)), MEAN)


@pytest.mark.parametrize("kind", [Categorical, Normal, TanhNormal])
def test_numpy_and_jax_sample_the_same(random, kind):
    parameters = random.normal(size=(1 if kind is Categorical else 2, 7, 3))
    noise = random.normal(size=(7, 3))
    compiled = jax.jit(lambda p, n: kind(*p).sample(n))(jnp.asarray(parameters), noise)
    np.testing.assert_allclose(kind(*parameters).sample(noise), compiled, rtol=1e-12)
