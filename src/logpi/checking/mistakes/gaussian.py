"""Known mistakes with Gaussian actions, and which of them explain what was found.

    ĝ = 1/N Σ_i ρ_i (r_i - b_i) ∇ log π(a_i|o_i) + β ∇H

Each factor has its right form and its known mistakes. The expectations of their combinations are
sums over the points at which the estimator was measured: both have the same error of the
quadrature.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.continuous.process import (
    START,
    VALUE,
    GaussianMeasurement,
    GaussianProbe,
    Points,
    by_observation,
    entropy_slope,
    log_density,
    log_normal,
    score,
)
from logpi.checking.fitting import Fit, fit
from logpi.checking.mistakes.forms import Cause, Factor, Form, rounding_of
from logpi.checking.mistakes.ratios import CLIPPED, NO_RATIO, not_stopped
from logpi.checking.mistakes.verdict_causes import ENTROPY_SIGN, LOGP_OF_EXECUTED, by_scale
from logpi.checking.verdict import SAME_FACTOR, scale_name

RATIO = "multiply by π(a|s) / π_old(a|s)"


@dataclass(frozen=True)
class Played:
    """The batches of one probe, and what all combinations are made of."""

    probe: GaussianProbe

    @property
    def batches(self) -> Points:
        return self.probe.batches

    @cached_property
    def reward(self) -> Float[ndarray, "batch episode"]:
        return self.probe.reward(self.batches.observation, self.batches.raw)

    @cached_property
    def old_log_prob(self) -> Float[ndarray, "batch episode"]:
        """log π_old of the drawn actions."""
        place = (self.batches.observation, self.batches.raw)
        return log_density(self.probe, self.probe.acting, *place)


class Density(NamedTuple):
    """What is taken for log π in each dimension, and its gradient by μ and log σ."""

    log: Float[ndarray, "batch episode D"]
    score: Float[ndarray, "batch episode D 2"]


DENSITIES: Factor[Callable[[Played], Density]] = Factor()
DIMENSIONS: Factor[Callable[[int], ndarray]] = Factor()
RATIOS: Factor[Callable[[ndarray, ndarray], ndarray]] = Factor()
BASELINES: Factor[Callable[[Played], ndarray]] = Factor()
BONUSES: Factor[Callable[[GaussianProbe], ndarray]] = Factor()


@DENSITIES.right()
def of_the_drawn_action(played: Played) -> Density:
    """log N(u) - log |da/du|."""
    plain = without_jacobian(played)
    return plain._replace(log=plain.log - played.probe.log_jacobian(played.batches.raw))


@DENSITIES.mistake("logp-of-executed", *LOGP_OF_EXECUTED)
def of_the_executed_action(played: Played) -> Density:
    executed = played.probe.execute(played.batches.raw)
    place = (played.probe.policy, played.batches.observation, executed)
    return Density(log_normal(*place), score(*place))


@DENSITIES.mistake(
    "tanh-logdet",
    "log(1 - a²) of tanh is missing in log_prob, and not in old_log_prob",
    "take it off both, or off neither",
)
def without_jacobian(played: Played) -> Density:
    place = (played.probe.policy, played.batches.observation, played.batches.raw)
    return Density(log_normal(*place), score(*place))


@DENSITIES.mistake(
    "rsample-in-score",
    "the action carries a gradient of its own (rsample): log N((μ + σε)) by μ is 0, by log σ -1",
    "draw it without a gradient: sample, detach or stop_gradient",
)
def of_an_action_with_gradient(played: Played) -> Density:
    drawn = of_the_drawn_action(played)
    slope = np.broadcast_to(np.array([0.0, -1.0]), drawn.score.shape)
    return drawn._replace(score=slope)


@DIMENSIONS.right()
def summed(dimensions: int) -> ndarray:
    """The sum over the dimensions."""
    return np.ones(dimensions)


@DIMENSIONS.mistake(
    "logp-not-summed",
    "log_prob is the mean over the dimensions of the action",
    "sum over them: the density of independent parts is a product",
)
def averaged(dimensions: int) -> ndarray:
    return np.full(dimensions, 1 / dimensions)


@DIMENSIONS.mistake(
    "logp-not-summed",
    "log_prob is of the first dimension of the action alone",
    "sum over all of them",
)
def first_alone(dimensions: int) -> ndarray:
    return np.eye(dimensions)[0]


@RATIOS.right()
def weighted(ratio: ndarray, advantage: ndarray) -> ndarray:
    """ρ A."""
    return ratio * advantage


@RATIOS.mistake(*NO_RATIO, RATIO)
def unweighted(ratio: ndarray, advantage: ndarray) -> ndarray:
    return advantage


def _declare_clip(limit: float) -> None:
    @RATIOS.mistake("ppo-clip", f"ε = {limit:g}: {CLIPPED}", RATIO)
    def clipped(ratio: ndarray, advantage: ndarray) -> ndarray:
        return ratio * advantage * not_stopped(ratio, advantage, limit, limit)


for _limit in (0.1, 0.2, 0.25, 0.3):
    _declare_clip(_limit)


@BASELINES.right()
def no_baseline(played: Played) -> ndarray:
    """No baseline."""
    return np.zeros_like(played.reward)


@BASELINES.right(needs=("value",))
def critic(played: Played) -> ndarray:
    """V(s)."""
    return VALUE[played.batches.observation]


@BASELINES.right()
def mean_of_others(played: Played) -> ndarray:
    """The mean of the others."""
    reward = played.reward
    others = max(reward.shape[1] - 1, 1)
    return (reward.sum(axis=1, keepdims=True) - reward) / others


@BASELINES.mistake(
    "own-sample-baseline",
    "the baseline contains the sample's own return",
    "leave the episode's own return out of its baseline, or multiply by N/(N-1)",
)
def mean_of_all(played: Played) -> ndarray:
    reward = played.reward
    return np.broadcast_to(reward.mean(axis=1, keepdims=True), reward.shape)


@BONUSES.right()
def of_the_action(probe: GaussianProbe) -> ndarray:
    """∇H of what is executed."""
    return entropy_slope(probe)


@BONUSES.mistake(
    "entropy-of-gaussian",
    "the entropy is that of the Gaussian before tanh: E[log(1 - a²)] is missing",
    "add the mean of log(1 - a²), or use -log_prob of the action as a reward",
)
def of_the_gaussian(probe: GaussianProbe) -> ndarray:
    return entropy_slope(probe, of_gaussian=True)


@BONUSES.mistake(*ENTROPY_SIGN)
def taken_off(probe: GaussianProbe) -> ndarray:
    return -entropy_slope(probe)


@BONUSES.mistake(
    "entropy-no-grad",
    "the entropy has no gradient, as E[∇ log π] = 0 has none: the rest of the loss is all there is",
    "differentiate the entropy, or use -log_prob as a reward",
)
def without_gradient(probe: GaussianProbe) -> ndarray:
    return np.zeros_like(entropy_slope(probe))


Recipe: TypeAlias = tuple[Form[Any], ...]


@dataclass(frozen=True)
class Explanations:
    """Everything that estimators which ask for `names` may be made of, and what each expects."""

    measured: Sequence[GaussianMeasurement]
    names: tuple[str, ...]
    coefficient: float
    """β; 0 where the target has no entropy."""

    @cached_property
    def played(self) -> list[Played]:
        """The batches of every probe."""
        return [Played(m.probe) for m in self.measured]

    def recipes(self) -> list[Recipe]:
        """All combinations, those with the fewest mistakes first."""
        ratios = [Form((), unweighted)]  # where no other policy acts
        if "old_log_prob" in self.names:
            ratios = [*RATIOS]
        bonuses = [BONUSES.first]
        if self.coefficient:
            bonuses = [*BONUSES]
        baselines = [form for form in BASELINES if set(form.needs) <= set(self.names)]
        every = product(DENSITIES, DIMENSIONS, ratios, baselines, bonuses)
        return sorted(every, key=_mistakes_of)

    def expected(self, recipe: Recipe) -> list[Float[ndarray, "O P"]]:
        """E[ĝ] of a combination on every probe."""
        return [self._expected_on(played, recipe) for played in self.played]

    def _expected_on(self, played: Played, recipe: Recipe) -> Float[ndarray, "O P"]:
        densities, dimensions, ratios, baselines, bonuses = recipe
        probe = played.probe
        observation = played.batches.observation
        counted = dimensions.compute(probe.dimensions)
        density = densities.compute(played)
        ratio = np.exp(density.log @ counted - played.old_log_prob)
        weight = ratios.compute(ratio, played.reward - baselines.compute(played))
        slope = (weight / probe.episodes)[..., None, None] * counted[:, None] * density.score
        of_batches = by_observation(observation, slope)
        of_reward = np.tensordot(played.batches.probability, of_batches, axes=1)
        if not self.coefficient:
            return of_reward
        bonus = START[:, None, None] * bonuses.compute(probe)
        return of_reward + self.coefficient * bonus.reshape(of_reward.shape)


def explain(
    measured: Sequence[GaussianMeasurement], target: str, names: tuple[str, ...], coefficient: float
) -> list[Cause]:
    """The fewest mistakes whose expectation is what was found on every probe, up to a factor; what
    explains it as well is an alternative.
    """
    beta = coefficient if target == "entropy-regularised" else 0.0
    explanations = Explanations(measured, names, beta)
    found = [m.moments.mean for m in measured]
    sizes = [m.size for m in measured]
    rounding = rounding_of([m.moments for m in measured])
    exact: list[tuple[Recipe, Fit]] = []
    for recipe in explanations.recipes():
        if exact and _mistakes_of(recipe) > _mistakes_of(exact[0][0]):
            break
        fitted = fit(found, explanations.expected(recipe), sizes)
        if max(fitted.left) < rounding:
            exact.append((recipe, fitted))
    if not exact:
        return []
    first, *others = exact
    causes = _causes_of(*first)
    said = {cause.name for cause in causes}
    for recipe, fitted in others:
        for cause in _causes_of(recipe, fitted, is_alternative=True):
            if cause.name not in said:
                causes.append(cause)
                said.add(cause.name)
    return causes


def _mistakes_of(recipe: Recipe) -> int:
    return sum(len(form.mistakes) for form in recipe)


def _causes_of(recipe: Recipe, fitted: Fit, is_alternative: bool = False) -> list[Cause]:
    """The mistakes of a combination, and its factor where that is not 1."""
    causes = [
        Cause(
            mistake.name,
            mistake.explanation,
            mistake.remedy,
            max(fitted.left),
            None,
            is_alternative,
        )
        for form in recipe
        for mistake in form.mistakes
    ]
    if any(abs(factor - 1) > SAME_FACTOR for factor in fitted.factors.values()):
        causes.append(by_scale(scale_name(fitted.factors, 1.0)))
    return causes
