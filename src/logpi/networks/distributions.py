"""π(·|s) as a distribution over actions: log p, sample, entropy, KL.

Every distribution has arbitrary leading batch dimensions and is sampled by reparameterisation:
`sample(noise)` is a deterministic function of standard noise of the head's `noise_laws`, so that
the caller owns all randomness. Zero noise gives the most probable action (for a squashed Gaussian
the median), which is what a deterministic policy does.

The action that a distribution samples is the one whose `log_prob` is meant, and the one a
trajectory stores. What the environment receives is `Policy.execute(action)`: clipping happens
there, and `ClippedNormal` alone is the law of what comes out of it.

`sample` runs on JAX and on NumPy arrays alike: for a handful of environments NumPy answers before a
compiled call has started.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, ndtr
from jaxtyping import Array, Float, Int

from logpi.core.arrays import AnyArray

# E[f(ε)] of a standard normal ε by the trapezoidal rule: for wide Gaussians far better than as many
# Gauss points, since log(1 - tanh²) bends within one unit.
_NODES = np.linspace(-6.0, 6.0, 65)
_WEIGHTS = np.exp(-(_NODES**2) / 2) / np.exp(-(_NODES**2) / 2).sum()


@runtime_checkable
class Distribution(Protocol):
    """The interface of an action distribution."""

    def sample(self, noise: AnyArray) -> Any:
        """An action, as a deterministic function of standard noise; zero noise gives the mode."""
        ...

    def log_prob(self, action: AnyArray) -> Array:
        """log π(action|s), one number per batch element."""
        ...

    def entropy(self) -> AnyArray:
        """-E[log π(action|s)], one number per batch element."""
        ...

    def kl(self, other: Any) -> Array:
        """KL(self ‖ other) = E_self[log π_self - log π_other] to a distribution of the same
        kind.
        """
        ...


class Categorical(NamedTuple):
    """π(a) = softmax(logits)_a over n actions."""

    logits: Float[AnyArray, "*batch n"]

    def sample(self, noise: Float[AnyArray, "*batch n"]) -> Any:
        """Gumbel-max: argmax_a (logits_a + g_a), g standard Gumbel, has law softmax(logits)."""
        return self.logits.__array_namespace__().argmax(self.logits + noise, axis=-1)

    def log_prob(self, action: Int[AnyArray, "*batch"]) -> Float[Array, "*batch"]:
        """logits_a - log Σ_b exp(logits_b)."""
        # A product with a one-hot row: the derivative of an indexed read is a scatter, ten times
        # slower on a CPU.
        one_hot = jax.nn.one_hot(action, self.logits.shape[-1], dtype=self.logits.dtype)
        return jnp.sum(self.logits * one_hot, axis=-1) - jax.nn.logsumexp(self.logits, axis=-1)

    def entropy(self) -> Float[AnyArray, "*batch"]:
        """-Σ_a π(a) log π(a)."""
        log_prob = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_prob) * log_prob, axis=-1)

    def kl(self, other: "Categorical") -> Float[Array, "*batch"]:
        """Σ_a π(a) (log π(a) - log π_other(a))."""
        log_prob = jax.nn.log_softmax(self.logits)
        return jnp.sum(jnp.exp(log_prob) * (log_prob - jax.nn.log_softmax(other.logits)), axis=-1)


class Normal(NamedTuple):
    """Diagonal Gaussian: independent N(mean_j, exp(log_std_j)²) in each of d dimensions."""

    mean: Float[AnyArray, "*batch d"]
    log_std: Float[AnyArray, "*batch d"]

    def sample(self, noise: Float[AnyArray, "*batch d"]) -> Float[AnyArray, "*batch d"]:
        """mean + std ε, ε standard normal."""
        return self.mean + self.mean.__array_namespace__().exp(self.log_std) * noise

    def log_prob(self, action: Float[AnyArray, "*batch d"]) -> Array:
        """Σ_j [ -½ ((a_j - mean_j) / std_j)² - log std_j - ½ log 2π ], summed over the action's
        dimensions.
        """
        return jnp.sum(self.log_density(action), axis=-1)

    def log_density(self, action: Float[AnyArray, "*batch d"]) -> Float[AnyArray, "*batch d"]:
        """The same, each dimension by itself."""
        standardised = (action - self.mean) * jnp.exp(-self.log_std)
        return -0.5 * standardised**2 - self.log_std - 0.5 * math.log(2 * math.pi)

    def entropy(self) -> Float[AnyArray, "*batch"]:
        """Σ_j [ log std_j + ½ log 2πe ]."""
        return jnp.sum(self.log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)

    def kl(self, other: "Normal") -> Float[Array, "*batch"]:
        """Σ_j [ log(std'_j / std_j) + (std_j² + (mean_j - mean'_j)²) / (2 std'_j²) - ½ ], the
        primes being other's.
        """
        log_ratio = self.log_std - other.log_std
        distance = (self.mean - other.mean) * jnp.exp(-other.log_std)
        return jnp.sum(-log_ratio + 0.5 * (jnp.exp(2 * log_ratio) + distance**2 - 1), axis=-1)


class ClippedNormal(NamedTuple):
    """clip(u, least, most) of a diagonal Gaussian u: its density inside of the bounds, and on each
    bound the probability of all that is beyond it.

    `sample` returns u, and `log_prob(u)` is that of clip(u). All u beyond a bound have one score,
    the mean of those that the Gaussian gives them. So the expectation of any estimator is the same,
    and its variance smaller (Fujita & Maeda 2018).
    """

    mean: Float[AnyArray, "*batch d"]
    log_std: Float[AnyArray, "*batch d"]
    least: Float[AnyArray, " d"]
    most: Float[AnyArray, " d"]

    def sample(self, noise: Float[AnyArray, "*batch d"]) -> Float[AnyArray, "*batch d"]:
        """u = mean + std ε; the action is clip(u, least, most)."""
        return Normal(self.mean, self.log_std).sample(noise)

    def log_prob(self, action: Float[AnyArray, "*batch d"]) -> Array:
        """Σ_j of log Φ((least_j - mean_j) / std_j) at the lower bound and beyond it,
        log Φ((mean_j - most_j) / std_j) at the upper one, and the Gaussian's between them.
        """
        between = Normal(self.mean, self.log_std).log_density(action)
        low, high = self._bounds()
        terms = jnp.where(action <= self.least, log_ndtr(low), between)
        return jnp.sum(jnp.where(action >= self.most, log_ndtr(-high), terms), axis=-1)

    def entropy(self) -> Float[AnyArray, "*batch"]:
        """-Σ_j [ P_j log P_j + Q_j log Q_j + ∫ p_j log p_j ], P_j and Q_j being the probabilities
        of the bounds and the integral over what is between them.
        """
        below, above, moments = self._parts()
        on_bounds = jnp.exp(below) * below + jnp.exp(above) * above
        scale = self.log_std + 0.5 * math.log(2 * math.pi)
        return jnp.sum(0.5 * moments.second + moments.zeroth * scale - on_bounds, axis=-1)

    def kl(self, other: "ClippedNormal") -> Float[Array, "*batch"]:
        """Σ_j of P log(P / P') + Q log(Q / Q') and of the integral of p log(p / p') between the
        bounds, the primes being other's.
        """
        below, above, moments = self._parts()
        other_below, other_above, _ = other._parts()
        on_bounds = jnp.exp(below) * (below - other_below) + jnp.exp(above) * (above - other_above)
        log_ratio = self.log_std - other.log_std
        ratio = jnp.exp(log_ratio)
        distance = (self.mean - other.mean) * jnp.exp(-other.log_std)
        # that of u in units of other, distance + ratio z, less that of z itself
        squares = (
            (ratio**2 - 1) * moments.second
            + 2 * distance * ratio * moments.first
            + distance**2 * moments.zeroth
        )
        return jnp.sum(on_bounds + 0.5 * squares - moments.zeroth * log_ratio, axis=-1)

    def _bounds(self) -> tuple[AnyArray, AnyArray]:
        """Both bounds in standard deviations from the mean."""
        precision = jnp.exp(-self.log_std)
        return (self.least - self.mean) * precision, (self.most - self.mean) * precision

    def _parts(self) -> tuple[Array, Array, "_Moments"]:
        """log P, log Q, and the moments of z = (u - mean) / std between the bounds."""
        low, high = self._bounds()
        zeroth = ndtr(high) - ndtr(low)
        standard = Normal(jnp.zeros_like(low), jnp.zeros_like(low))
        at_low = jnp.exp(standard.log_density(low))
        at_high = jnp.exp(standard.log_density(high))
        second = zeroth + low * at_low - high * at_high
        return log_ndtr(low), log_ndtr(-high), _Moments(zeroth, at_low - at_high, second)


class _Moments(NamedTuple):
    """∫ φ(z) zⁿ dz between two bounds, for n = 0, 1 and 2."""

    zeroth: Array
    first: Array
    second: Array


def _log_tanh_slope(u: Float[AnyArray, "*shape"]) -> Float[AnyArray, "*shape"]:
    """log(1 - tanh²u) = 2 (log 2 - u - softplus(-2u)), which does not cancel for large |u|."""
    return 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))


class TanhNormal(NamedTuple):
    """tanh of a diagonal Gaussian: density on (-1, 1)^d, with the log-determinant of the squashing.

    `sample` returns the pre-squash u: tanh(u) rounds to ±1 long before u is extreme, and log π
    could not be recovered from it. `log_prob(u)` is the log-density of the squashed action tanh(u).
    """

    mean: Float[AnyArray, "*batch d"]
    log_std: Float[AnyArray, "*batch d"]

    def sample(self, noise: Float[AnyArray, "*batch d"]) -> Float[AnyArray, "*batch d"]:
        """u = mean + std ε; the action is tanh(u)."""
        return Normal(self.mean, self.log_std).sample(noise)

    def log_prob(self, action: Float[AnyArray, "*batch d"]) -> Array:
        """log N(u) - Σ_j log(1 - tanh²(u_j)), the log-density of tanh(u)."""
        return Normal(self.mean, self.log_std).log_prob(action) - jnp.sum(
            _log_tanh_slope(action), axis=-1
        )

    def entropy(self) -> Float[AnyArray, "*batch"]:
        """The entropy of tanh(u), with E[log(1 - tanh²u)] in each dimension by a sum over 65
        points.

        Right to 1e-7 for standard deviations up to 3, to 1e-3 up to 7.
        """
        nodes = jnp.asarray(_NODES, self.mean.dtype)
        weights = jnp.asarray(_WEIGHTS, self.mean.dtype)
        u = self.mean[..., None] + jnp.exp(self.log_std)[..., None] * nodes
        return Normal(self.mean, self.log_std).entropy() + jnp.sum(
            _log_tanh_slope(u) @ weights, axis=-1
        )

    def kl(self, other: "TanhNormal") -> Float[Array, "*batch"]:
        """That of the Gaussians: KL does not change under a bijection of the action."""
        return Normal(self.mean, self.log_std).kl(Normal(other.mean, other.log_std))


def split_last(x: AnyArray, sizes: Sequence[int]) -> list[AnyArray]:
    """The last axis in consecutive parts of these sizes."""
    ends = np.cumsum(sizes)
    return [x[..., end - size : end] for size, end in zip(sizes, ends, strict=True)]


# What the parts of a product can be.
Part: TypeAlias = Categorical | Normal | ClippedNormal | TanhNormal


def _width(part: Part) -> int:
    """How many numbers an action of a part is."""
    if isinstance(part, Categorical):
        return 1
    return part.mean.shape[-1]


def _as_row(part: Part, noise: AnyArray) -> AnyArray:
    """A sampled action of a part, with an axis for its numbers."""
    action = part.sample(noise)
    if isinstance(part, Categorical):
        return action[..., None]
    return action


def _from_row(part: Part, row: AnyArray) -> AnyArray:
    """The action of a part from its numbers."""
    if isinstance(part, Categorical):
        return row[..., 0].astype(np.int32)
    return row


class Product(NamedTuple):
    """Independent parts; an action is all of theirs in one row, of floats unless every part is a
    choice.
    """

    parts: tuple[Part, ...]

    def _own(self, action: AnyArray) -> list[AnyArray]:
        """The action of each part."""
        rows = split_last(action, [_width(part) for part in self.parts])
        return [_from_row(part, row) for part, row in zip(self.parts, rows, strict=True)]

    def sample(self, noise: Float[AnyArray, "*batch n"]) -> Any:
        """Each part by its own part of the noise."""
        noises = split_last(noise, [part[0].shape[-1] for part in self.parts])
        rows = [_as_row(part, mine) for part, mine in zip(self.parts, noises, strict=True)]
        if not all(isinstance(part, Categorical) for part in self.parts):
            rows = [row.astype(noise.dtype) for row in rows]
        return noise.__array_namespace__().concatenate(rows, axis=-1)

    def log_prob(self, action: AnyArray) -> Array:
        """Σ_j log π_j(a_j)."""
        return jnp.asarray(
            sum(part.log_prob(a) for part, a in zip(self.parts, self._own(action), strict=True))
        )

    def entropy(self) -> Array:
        """Σ_j of the entropies."""
        return jnp.asarray(sum(part.entropy() for part in self.parts))

    def kl(self, other: "Product") -> Array:
        """Σ_j of the divergences."""
        pairs: Any = zip(self.parts, other.parts, strict=True)
        return jnp.asarray(sum(mine.kl(theirs) for mine, theirs in pairs))
