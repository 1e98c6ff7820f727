"""Every distribution against the definition of what it claims: density, law of the samples,
entropy, KL, score."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LEVEL, SAMPLES
from scipy import integrate, stats

from logpi.networks.distributions import Categorical, ClippedNormal, Normal, TanhNormal

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


def clipped(mean, log_std):
    """Between -1 and 0.5."""
    return ClippedNormal(mean, log_std, np.array([-1.0]), np.array([0.5]))


def expectation(distribution, value):
    """E[value] of what is executed: an integral between the bounds, and the bounds themselves."""

    def f(a):
        return float(np.exp(distribution.log_prob(jnp.array([a]))) * value(a))

    (low,), (high,) = distribution.least, distribution.most
    return integrate.quad(f, low + 1e-12, high - 1e-12)[0] + f(low) + f(high)


@pytest.mark.parametrize("mean", [0.4, -3.0, 1.5])
def test_a_clipped_normal_is_a_law_with_its_entropy_and_kl(mean):
    """The controls: a Gaussian's density, and its entropy and KL, are not those of what is
    executed."""
    p = clipped(MEAN + mean, LOG_STD)
    q = clipped(MEAN - 0.5, LOG_STD + 0.4)

    def log_prob(distribution, a):
        return float(distribution.log_prob(jnp.array([a])))

    assert expectation(p, lambda a: 1.0) == pytest.approx(1, abs=1e-9)
    entropy = expectation(p, lambda a: -log_prob(p, a))
    assert float(p.entropy()) == pytest.approx(entropy, abs=1e-9)
    kl = expectation(p, lambda a: log_prob(p, a) - log_prob(q, a))
    assert float(p.kl(q)) == pytest.approx(kl, abs=1e-9)
    assert float(p.kl(p)) == pytest.approx(0, abs=1e-12)
    gauss, other = Normal(p.mean, p.log_std), Normal(q.mean, q.log_std)
    between = integrate.quad(lambda a: float(density(gauss, a)), -1, 0.5)[0]
    assert between < 0.95
    assert abs(float(gauss.entropy()) - entropy) > 0.1
    assert abs(float(gauss.kl(other)) - kl) > 0.01


@pytest.mark.parametrize("mean", [0.4, -3.0, 1.5])
def test_the_score_of_what_is_executed_has_the_same_gradient_and_less_variance(mean):
    """E[r(clip u) ∇ log π] = ∇E[r(clip u)] for both laws, by quadrature over u; r is 1 at the lower
    bound, a parabola elsewhere. The control is the Gaussian's score of the clipped action, which is
    a known mistake."""
    nodes = np.linspace(-8, 8, 20_001)
    weights = stats.norm.pdf(nodes) * (nodes[1] - nodes[0])
    mean = MEAN + mean
    u = mean + np.exp(LOG_STD) * nodes[:, None]
    cut = np.clip(u, -1.0, 0.5)
    paid = np.where(cut == -1, 1.0, (cut - 0.3) ** 2)[:, 0]

    def estimate(kind, action):
        """Mean and variance of r · score by (mean, log_std)."""

        def score(a):
            return jax.grad(lambda m, s: kind(m, s).log_prob(a), (0, 1))(mean, LOG_STD)

        terms = paid[:, None] * np.concatenate(jax.vmap(score)(jnp.asarray(action)), axis=1)
        first = weights @ terms
        return first, weights @ (terms - first) ** 2

    gradient, variance = estimate(Normal, u)
    found, smaller = estimate(clipped, u)
    wrong, _ = estimate(Normal, cut)
    np.testing.assert_allclose(found, gradient, atol=2e-3)  # r jumps between two nodes
    assert (smaller < 0.999 * variance).all()
    assert np.abs(wrong - gradient).max() > 0.02


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


@pytest.mark.parametrize("kind", [Categorical, Normal, clipped, TanhNormal])
def test_numpy_and_jax_sample_the_same(random, kind):
    parameters = random.normal(size=(1 if kind is Categorical else 2, 7, 3))
    noise = random.normal(size=(7, 3))
    compiled = jax.jit(lambda p, n: kind(*p).sample(n))(jnp.asarray(parameters), noise)
    np.testing.assert_allclose(kind(*parameters).sample(noise), compiled, rtol=1e-12)
