"""An estimator under Gaussian actions: measured at the points of a rule, judged, explained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.continuous.process import (
    GAUSSIAN_DIFFERENTIABLE,
    GAUSSIAN_NAMES,
    VALUE,
    GaussianActions,
    GaussianMeasurement,
    GaussianProbe,
    Points,
    by_observation,
    entropy,
    entropy_slope,
    gradients,
    log_density,
    make_gaussian_probes,
    score,
)
from logpi.checking.expectation import Moments, NotFinite
from logpi.checking.frameworks import find_framework, make_framework
from logpi.checking.measuring import require_function
from logpi.checking.mistakes.forms import Cause
from logpi.checking.mistakes.gaussian import explain
from logpi.checking.mistakes.verdict_causes import by_verdict
from logpi.checking.report import CheckReport, Variance
from logpi.checking.request import Answer, Framework, FrameworkName, Request
from logpi.checking.verdict import (
    IN_SINGLE,
    Judgement,
    is_met,
    judge,
    tolerance_of,
)
from logpi.core.errors import LogpiError
from logpi.estimators.contract import Estimator, as_estimator, requested_names

# The targets that one step has.
GAUSSIAN_TARGETS = ("discounted", "entropy", "entropy-regularised")
# Of the nodes of a rule, those of the coarser one that its error is told by.
COARSER = 0.8


@dataclass(frozen=True)
class GaussianTrial:
    """An estimator, and how it is called."""

    framework: Framework
    names: tuple[str, ...]
    sign: float
    """-1 where the function returns an objective."""
    discount: float
    entropy_coefficient: float

    def request(self, probe: GaussianProbe, batches: Points) -> Request:
        """What the estimator is asked about batches of points."""
        observation = batches.observation
        raw = batches.raw
        policy = probe.policy
        count, episodes = observation.shape
        everywhere = np.ones((count, episodes), bool)
        leaves = {
            "mean": policy.mean[observation],
            "log_std": policy.log_std[observation],
            "log_prob": log_density(probe, policy, observation, raw),
            "entropy": entropy(probe)[observation],
        }
        constant = {
            "raw_action": raw,
            "action": probe.execute(raw),
            "observation": observation,
            "reward": probe.reward(observation, raw),
            "value": VALUE[observation],
            "old_log_prob": log_density(probe, probe.acting, observation, raw),
            "terminated": everywhere,
            "done": everywhere,
            "mask": everywhere,
            "truncated": ~everywhere,
            "step": np.zeros((count, episodes), int),
        }
        asked = [name for name in self.names if name not in ("discount", "length")]
        with_time = {name: (leaves | constant)[name][:, :, None] for name in asked}
        if "length" in self.names:
            with_time["length"] = np.ones((count, episodes), int)
        return Request(
            names=self.names,
            constant={n: a for n, a in with_time.items() if n not in GAUSSIAN_DIFFERENTIABLE},
            leaves={n: a for n, a in with_time.items() if n in GAUSSIAN_DIFFERENTIABLE},
            discount=self.discount,
            shape=(episodes, 1),
            count=count,
        )

    def measure(self, probe: GaussianProbe) -> GaussianMeasurement:
        """E[ĝ] and E[|ĝ|²]; how far a coarser rule is from it is what it may be wrong by."""
        found = self._moments(probe)
        coarser = replace(probe, nodes=int(COARSER * probe.nodes))
        error = float(np.linalg.norm(found.mean - self._moments(coarser).mean))
        moments = found._replace(rounding=found.rounding + error)
        targets = gradients(probe, self.entropy_coefficient)
        return GaussianMeasurement(probe, moments, targets, self.discount)

    def _moments(self, probe: GaussianProbe) -> Moments:
        batches = probe.batches
        request = self.request(probe, batches)
        with np.errstate(all="ignore"):
            answer = self.framework.evaluate(request)
        if not answer.finite:
            raise NotFinite(probe.name, request, answer)
        gradient = self._ascent(probe, batches, answer)
        return Moments(
            np.tensordot(batches.probability, gradient, axes=1),
            float(batches.probability @ np.sum(gradient**2, axis=(1, 2))),
            answer.single_precision,
            float(batches.probability @ answer.rounding),
        )

    def _ascent(
        self, probe: GaussianProbe, batches: Points, answer: Answer
    ) -> Float[ndarray, "batch O P"]:
        """ĝ of every batch: -∂loss/∂θ, or the mean over episodes of weight × ∇ log π."""
        observation = batches.observation
        scores = score(probe.policy, observation, batches.raw)
        if answer.weights is not None:
            weight = answer.weights[:, :, 0] / probe.episodes
            return by_observation(observation, weight[:, :, None, None] * scores)
        slope = np.zeros_like(scores)
        found = {name: cotangent[:, :, 0] for name, cotangent in answer.cotangents.items()}
        if "mean" in found:
            slope[..., 0] += found["mean"]
        if "log_std" in found:
            slope[..., 1] += found["log_std"]
        if "log_prob" in found:
            slope += found["log_prob"][..., None, None] * scores
        if "entropy" in found:
            slope += found["entropy"][..., None, None] * entropy_slope(probe)[observation]
        return -self.sign * by_observation(observation, slope)

    def measure_all(self, actions: GaussianActions) -> tuple[list[GaussianMeasurement], str]:
        """Every probe, and a note; batches of one are left out for estimators that need two."""
        has_older = "old_log_prob" in self.names
        make = partial(make_gaussian_probes, actions, has_older=has_older)
        first, *rest = make(1)
        note = ""
        try:
            require_function(self.framework, self.request(first, first.batches))
            measured = [self.measure(first)]
        except LogpiError as error:
            note = f"batches of one episode, and two dimensions, are left out: {error}"
            first, *rest = make(2)
            require_function(self.framework, self.request(first, first.batches))
            measured = [self.measure(first)]
        return [*measured, *(self.measure(probe) for probe in rest)], note


def check_gaussian(
    estimator: Estimator,
    actions: GaussianActions,
    target: str,
    discount: float,
    maximize: bool,
    entropy_coefficient: float,
    framework: FrameworkName | None,
) -> CheckReport:
    """E[ĝ] over a Gaussian action, against the gradient of `target`.

    **Raises:** `LogpiError` as `logpi.check` does, and for a target that one step does not have.
    """
    if target not in GAUSSIAN_TARGETS:
        known = ", ".join(GAUSSIAN_TARGETS)
        raise LogpiError(f"target {target!r} has no meaning for one {actions} action: use {known}")
    called = as_estimator(estimator)
    trial = GaussianTrial(
        framework=make_framework(framework or find_framework(called), called),
        names=requested_names(called, GAUSSIAN_NAMES),
        sign=-1.0 if maximize else 1.0,
        discount=discount,
        entropy_coefficient=entropy_coefficient,
    )
    measured, left_out = trial.measure_all(actions)
    is_single = any(m.moments.single_precision for m in measured)
    tolerance = tolerance_of(is_single)
    judgement = judge(measured, target, tolerance)
    matches = tuple(name for name in GAUSSIAN_TARGETS if is_met(measured, name, target, tolerance))
    if judgement.verdict in ("biased", "zero") and matches:
        judgement = replace(judgement, verdict="other-target")
    first = measured[0]
    notes = [_order(measured, target), left_out]
    if is_single:
        notes.append(IN_SINGLE)
    return CheckReport(
        **vars(judgement),
        target=target,
        matches=matches,
        diagnosis=_diagnose(trial, judgement, measured, target, matches),
        variance=Variance(first.moments.variance, None, None, first.probe.episodes),
        credit=None,
        framework=trial.framework.name,
        layout="batch",
        notes=tuple(note for note in notes if note),
        probes=tuple(
            (f"{m.probe.name}, N = {m.size[0]}", judge([m], target, tolerance).relative_bias)
            for m in measured
        ),
    )


def _order(measured: Sequence[GaussianMeasurement], target: str) -> str:
    """What is exact, and to which order."""
    worst = max(m.moments.rounding / np.linalg.norm(m.targets[target]) for m in measured)
    return (
        "one step; expectations over its Gaussian action by Gauss quadrature: a coarser rule"
        f" differs by {worst:.1g} of the gradient, and less than that counts as rounding"
    )


def _diagnose(
    trial: GaussianTrial,
    judgement: Judgement,
    measured: Sequence[GaussianMeasurement],
    target: str,
    matches: tuple[str, ...],
) -> tuple[Cause, ...]:
    """Causes, most likely first."""
    if judgement.verdict == "exact":
        return ()
    silent = all(m.moments.second == 0 for m in measured)
    causes = by_verdict(judgement, target, matches, trial.names, silent)
    if judgement.verdict == "biased":
        causes += explain(measured, target, trial.names, trial.entropy_coefficient)
    return tuple(causes)
