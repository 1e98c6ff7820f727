"""`logpi.check`: the exact expectation and variance of an estimator, against the exact gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from logpi.checking.credit import Credit, credit_matrix
from logpi.checking.diagnosis import Cause, Evidence, diagnose
from logpi.checking.expectation import Critic, NotFinite, Situation, all_cases, least_variance
from logpi.checking.frameworks import find_framework, make_framework, sampled_law
from logpi.checking.measuring import Measured, Trial
from logpi.checking.probes import Probes, batch_of, make_probes
from logpi.checking.remarks import by_law, by_target, entropy_sign, value_leak
from logpi.checking.report import CheckReport, Variance
from logpi.checking.request import FrameworkName
from logpi.checking.targets import TARGETS
from logpi.checking.verdict import ROUNDED_INSIDE, SINGLE_TOLERANCE, TOLERANCE, Judgement, judge
from logpi.core.checks import is_real, require
from logpi.core.errors import LogpiError
from logpi.estimators.contract import CRITIC, NAMES, Estimator, Layout, requested_names


def check(
    estimator: Estimator,
    *,
    layout: Layout = "batch",
    target: str = "discounted",
    discount: float = 0.9,
    maximize: bool = False,
    sampler: Callable[..., Any] | None = None,
    exact_critic: bool = False,
    entropy_coefficient: float = 0.01,
    framework: FrameworkName | None = None,
) -> CheckReport:
    """E[ĝ] of `estimator` over all batches of small decision processes, against the exact gradient of `target`.

    `estimator`'s parameter names select what it gets (`logpi.contract.NAMES`); it returns the loss that its author
    would minimise (an objective with `maximize`), or an array shaped as `log_prob`: weights of ∇ log π. `sampler` is a
    function of `logits` that returns the probabilities with which actions are really drawn. `exact_critic` gives V^π as
    `value`, instead of numbers that are wrong on purpose.

    **Raises:** `LogpiError` for an estimator that cannot be called, differentiated or trusted: an unknown name, a wrong
    return type, no gradient, NaN, randomness, changed inputs, an exception.
    """
    require(layout in get_args(Layout), "layout", " or ".join(get_args(Layout)), layout)
    known = get_args(FrameworkName)
    require(framework is None or framework in known, "framework", " or ".join(known), framework)
    require(target in TARGETS, "target", " or ".join(TARGETS), target)
    valid = is_real(entropy_coefficient) and abs(entropy_coefficient) < float("inf")
    require(valid, "entropy_coefficient", "a number", entropy_coefficient)
    require(is_real(discount) and 0 <= discount <= 1, "discount", "a number in [0, 1]", discount)
    names = requested_names(estimator, NAMES)
    made = make_framework(framework or find_framework(estimator), estimator)
    law = None if sampler is None else sampled_law(sampler)
    trial = Trial(made, names, layout, -1.0 if maximize else 1.0, law, entropy_coefficient)
    return _Check(trial, target, discount, exact_critic).report()


@dataclass
class _Check:
    trial: Trial
    target: str
    discount: float
    exact_critic: bool

    def report(self) -> CheckReport:
        probes = make_probes(self.discount)
        self.trial.must_be_a_function(probes)
        measured = self.trial.measure(probes, self._critic)
        if self.target not in measured[0].targets:
            raise LogpiError(
                f"target {self.target!r} needs what the estimator does not ask for: {TARGETS[self.target]}"
            )
        single = any(m.moments.single_precision for m in measured) or self.trial.single_precision
        tolerance = SINGLE_TOLERANCE if single else TOLERANCE
        if single:
            self.trial.notes.append("computed in single precision: exact to 1e-5 counts as exact")
        leak = self.trial.leak(measured[0])
        alone, measured = measured, [*leak, *measured]
        evidence = [self._evidence(m, self.target) for m in measured]
        judgement = judge(evidence, tolerance)
        if judgement.verdict == "biased":
            judgement = self._usual(evidence, tolerance) or judgement
            rounded = judge(evidence, ROUNDED_INSIDE)
            if rounded.verdict == "exact":
                judgement, tolerance = rounded, ROUNDED_INSIDE
                self.trial.notes.append(
                    "exact to what single precision inside of the function leaves"
                )
            elif judgement.relative_bias < SINGLE_TOLERANCE:
                self.trial.notes.append(
                    "a bias as small as this may come from single precision inside the function"
                )
        matches = self._matches(probes, measured, tolerance)
        if judgement.verdict in ("biased", "zero") and matches and not leak:
            judgement = replace(judgement, verdict="other-target")
        diagnosis = self._diagnosis(judgement, alone, matches, bool(leak))
        credit = self._credit(probes)
        worst = [judge([e], tolerance).relative_bias for e in evidence]
        return CheckReport(
            verdict=judgement.verdict,
            scale=judgement.scale,
            scale_name=judgement.scale_name,
            relative_bias=judgement.relative_bias,
            residual_after_scale=judgement.residual_after_scale,
            cosine=judgement.cosine,
            target=self.target,
            matches=matches,
            diagnosis=diagnosis,
            variance=self._variance(alone),
            credit=credit,
            framework=self.trial.framework.name,
            layout=self.trial.layout,
            notes=tuple(self.trial.notes),
            probes=tuple((e.situation.name, bias) for e, bias in zip(evidence, worst, strict=True)),
        )

    def _usual(self, evidence: Sequence[Evidence], tolerance: float) -> Judgement | None:
        """The bias without the probe of the rare action, whose figures are of no common size, if there is one."""
        found = judge([e for e in evidence if e.situation.probe.name != "rare"], tolerance)
        return found if found.verdict == "biased" else None

    @property
    def _critic(self) -> Critic:
        return Critic(self.exact_critic, "continuing" in self.target)

    def _evidence(self, measured: Measured, target: str) -> Evidence:
        found = measured.moments
        return Evidence(
            measured.situation,
            measured.columns,
            measured.cases,
            found.mean,
            measured.targets[target],
            found.rounding,
        )

    def _matches(
        self, probes: Probes, measured: Sequence[Measured], tolerance: float
    ) -> tuple[str, ...]:
        """Every target for which the estimator is exact, with the critic that such an estimator would have."""
        found = [name for name in measured[0].targets if self._fits(measured, name, tolerance)]
        if not found and set(CRITIC) & set(self.trial.names):
            other = self._critic._replace(continuing=not self._critic.continuing)
            going_on = self.trial.measure(probes, other)
            found += [name for name in going_on[0].targets if self._fits(going_on, name, tolerance)]
            if not found and not self.exact_critic:
                exact = self.trial.measure(probes, self._critic._replace(exact=True))
                exact_for = [
                    name for name in exact[0].targets if self._fits(exact, name, tolerance)
                ]
                if exact_for:
                    self.trial.notes.append(
                        f"with an exact critic it is exact for {', '.join(exact_for)}: what is wrong is the critic's"
                        " part in it, as with λ < 1"
                    )
        if not found and "old_log_prob" in self.trial.names:
            fresh = [m for m in measured if m.situation.probe.behaviour is None]
            exact_for = [name for name in fresh[0].targets if self._fits(fresh, name, tolerance)]
            if exact_for:
                self.trial.notes.append(
                    f"on the first step after sampling (old policy = policy) exact for {', '.join(exact_for)}"
                )
        return tuple(found)

    def _fits(self, measured: Sequence[Measured], target: str, tolerance: float) -> bool:
        if not all(target in m.targets and np.any(m.targets[target]) for m in measured):
            return False
        verdict = judge([self._evidence(m, target) for m in measured], tolerance).verdict
        return verdict == "exact" or (verdict == "scaled" and target != self.target)

    def _diagnosis(
        self,
        judgement: Judgement,
        measured: Sequence[Measured],
        matches: tuple[str, ...],
        leak: bool,
    ) -> tuple[Cause, ...]:
        if judgement.verdict == "exact":
            return ()
        evidence = [self._evidence(m, self.target) for m in measured]
        causes = [value_leak()] if leak else []
        bonuses = ("entropy-bonus", "entropy-regularised")
        causes += (
            [entropy_sign()]
            if any(self._entropy_taken_off(measured, bonus) for bonus in bonuses)
            else []
        )
        silent = all(m.moments.second == 0 for m in measured)
        about = by_target(judgement, self.target, matches, self.trial.names, silent)
        if judgement.verdict == "other-target" and about:
            return tuple(about)  # it explains all that there is
        causes += by_law(evidence, self.trial.names) if self.trial.sampler is not None else []
        causes += about
        causes += (
            diagnose(evidence, self.trial.names, self.target) if judgement.verdict != "zero" else []
        )
        unique = {cause.name: cause for cause in reversed(causes)}
        return tuple(unique[name] for name in dict.fromkeys(cause.name for cause in causes))

    def _entropy_taken_off(self, measured: Sequence[Measured], bonus: str) -> bool:
        """Whether the gradient is that of the reward minus the term that `bonus` adds to it."""

        def mirrored(m):
            return 2 * m.targets["discounted"] - m.targets[bonus]

        known = (
            all({"discounted", bonus} <= m.targets.keys() for m in measured)
            and self.trial.entropy_coefficient != 0
        )
        return known and all(
            np.allclose(m.moments.mean, mirrored(m), rtol=1e-6, atol=1e-9) for m in measured
        )

    def _variance(self, measured: Sequence[Measured]) -> Variance | None:
        pairs = [
            m
            for m in measured
            if m.situation.probe.name == "stop" and m.situation.probe.episodes == 2
        ]
        first = (pairs or measured)[0]
        episodes = first.situation.probe.episodes
        trace = first.moments.variance
        own = self.discount
        discounts = {
            "discounted": (own, own),
            "conventional": (1.0, own),
            "undiscounted": (1.0, 1.0),
        }
        whole = self.trial.layout != "rollout" and first.situation.law.jacobian is None
        if not whole or self.target not in discounts or "reward" not in self.trial.names:
            return Variance(trace, None, None, episodes)
        least = least_variance(first.situation, first.columns, *discounts[self.target]) / episodes
        return Variance(trace, least, trace / least if least > 0 else None, episodes)

    def _credit(self, probes: Probes) -> Credit | None:
        if (
            "reward" not in self.trial.names
            or self.trial.layout == "rollout"
            or self.trial.sampler is not None
        ):
            return None
        chain = replace(probes.chain, designs=batch_of(1 if self.trial.layout == "episode" else 2))
        try:
            situation = Situation(chain, self.trial.layout, self.trial.law(chain))

            def mean(paid):
                return self.trial.moments(paid, all_cases(paid, paid.columns())).mean

            return credit_matrix(mean, situation)
        except NotFinite:
            return None  # such as a division by the deviation of equal returns
