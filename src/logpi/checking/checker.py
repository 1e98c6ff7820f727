"""`logpi.check`: the exact expectation and variance of an estimator, against the exact gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
from numpy import ndarray

from logpi.checking.cases import Cases, Columns
from logpi.checking.credit import Credit, credit_matrix
from logpi.checking.diagnosis import Cause, Evidence, diagnose
from logpi.checking.expectation import (
    Moments,
    NotFinite,
    Situation,
    all_cases,
    ascent,
    critic_share,
    least_variance,
    make_request,
    moments,
)
from logpi.checking.frameworks import FRAMEWORKS, Framework, FrameworkName, NumpyFramework, find_framework, sampled_law
from logpi.checking.probes import Probe, Probes, batch_of, make_probes, with_behaviour
from logpi.checking.remarks import by_law, by_target, value_leak
from logpi.checking.targets import TARGETS, Law, law_of, targets
from logpi.checking.verdict import SINGLE_TOLERANCE, TOLERANCE, Judgement, VerdictName, judge
from logpi.config import real, require
from logpi.contract import NAMES, Estimator, Layout, wanted
from logpi.errors import LogpiError
from logpi.objective import softmax


@dataclass(frozen=True)
class Variance:
    """Trace of the covariance of ĝ for `episodes` episodes, and the least that a state baseline could reach."""

    trace: float
    least: float | None
    ratio: float | None
    """trace / least; 1 is the best state baseline."""
    episodes: int


@dataclass(frozen=True)
class CheckReport:
    """What `logpi.check` found. Relative figures are those of the probe on which the estimator does worst."""

    verdict: VerdictName
    scale: float | None
    scale_name: str | None
    relative_bias: float
    residual_after_scale: float
    cosine: float
    target: str
    matches: tuple[str, ...]
    """Targets for which the estimator is exact."""
    diagnosis: tuple[Cause, ...]
    variance: Variance | None
    credit: Credit | None
    framework: FrameworkName
    layout: Layout
    notes: tuple[str, ...] = ()
    probes: tuple[tuple[str, float], ...] = field(default=())
    """(situation, relative bias)."""

    def to_json(self) -> dict[str, Any]:
        """Plain data by the names of the attributes."""
        rest = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return rest | {
            "matches": [*self.matches],
            "diagnosis": [cause.to_json() for cause in self.diagnosis],
            "variance": None if self.variance is None else dict(vars(self.variance)),
            "credit": None if self.credit is None else self.credit.to_json(),
            "notes": [*self.notes],
            "probes": dict(self.probes),
        }

    def __str__(self) -> str:
        from logpi.checking.text import as_text

        return as_text(self)


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
    require(target in TARGETS, "target", " or ".join(TARGETS), target)
    require(real(discount) and 0 <= discount <= 1, "discount", "a number in [0, 1]", discount)
    names = wanted(estimator, NAMES)
    made = FRAMEWORKS[framework or find_framework(estimator)](estimator)
    law = None if sampler is None else sampled_law(sampler)
    run = _Check(
        made, names, layout, target, discount, -1.0 if maximize else 1.0, law, exact_critic, entropy_coefficient
    )
    return run.report()


@dataclass
class _Measured:
    """One situation and what the estimator does in it."""

    situation: Situation
    columns: Columns
    cases: list[Cases]
    moments: Moments
    targets: dict[str, ndarray]


@dataclass
class _Check:
    framework: Framework
    names: tuple[str, ...]
    layout: Layout
    target: str
    discount: float
    sign: float
    sampler: Callable[[ndarray], ndarray] | None
    exact_critic: bool
    entropy_coefficient: float
    notes: list[str] = field(default_factory=list)
    least_episodes: int = 1

    def report(self) -> CheckReport:
        probes = make_probes(self.discount)
        self._must_be_a_function(probes)
        measured = self.measure(probes, "exact" if self.exact_critic else self._critic())
        if self.target not in measured[0].targets:
            raise LogpiError(
                f"target {self.target!r} needs what the estimator does not ask for: {TARGETS[self.target]}"
            )
        single = any(m.moments.single_precision for m in measured)
        tolerance = SINGLE_TOLERANCE if single else TOLERANCE
        if single:
            self.notes.append("computed in single precision: exact to 1e-5 counts as exact")
        leak = self._leak(measured[0])
        if leak is not None:
            measured = [*leak, *measured]
        evidence = [self._evidence(m, self.target) for m in measured]
        judgement = judge(evidence, tolerance)
        if judgement.verdict == "biased":
            judgement = self._usual(evidence, tolerance) or judgement
        matches = self._matches(probes, measured, tolerance)
        if judgement.verdict in ("biased", "zero") and matches and leak is None:
            judgement = replace(judgement, verdict="other-target")
        diagnosis = self._diagnosis(judgement, evidence, matches, leak is not None)
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
            variance=self._variance(measured),
            credit=credit,
            framework=self.framework.name,
            layout=self.layout,
            notes=tuple(self.notes),
            probes=tuple((e.situation.name, bias) for e, bias in zip(evidence, worst, strict=True)),
        )

    def _usual(self, evidence: Sequence[Evidence], tolerance: float) -> Judgement | None:
        """The bias without the probe of the rare action, whose figures are of no common size, if there is one."""
        found = judge([e for e in evidence if e.situation.probe.name != "rare"], tolerance)
        return found if found.verdict == "biased" else None

    def _critic(self) -> str:
        return "continuing" if "continuing" in self.target else "wrong"

    def situations(self, probes: Probes, critic: str) -> list[Situation]:
        """Where the estimator is tried; the first is the one whose variance is reported."""
        least = self.least_episodes
        of = lambda probe, n: replace(probe, designs=batch_of(n))
        if self.layout == "episode":
            tried = [probes.stop, of(probes.short, 1), probes.offset, probes.rare]
        elif self.layout == "rollout":
            tried = [of(probes.short, n) for n in (1, 2) if n >= least]
        else:
            tried = [*(of(probes.stop, n) for n in (1, 2) if n >= least), probes.short]
            tried += [of(probe, least) for probe in (probes.offset, probes.rare)]
            if "group" in self.names and self.sampler is None:
                tried += [probes.prompts, probes.answers]
        if self.sampler is not None:
            tried = [probe for probe in tried if probe.name != "rare"]
        elif "old_log_prob" in self.names:
            tried += [with_behaviour(probe) for probe in tried if probe.name in ("stop", "short")]
        made = [Situation(probe, self.layout, self.law(probe), critic) for probe in tried]
        if self.layout == "rollout":
            made.append(replace(made[0], steps=4))
        return made

    def law(self, probe: Probe) -> Law:
        """What actions are drawn from."""
        if probe.behaviour is not None:
            return Law(softmax(probe.behaviour))
        if self.sampler is None:
            return Law(probe.policy)
        return law_of(probe.logits, self.sampler)

    def measure(self, probes: Probes, critic: str) -> list[_Measured]:
        """Every situation; batches of one are left out for estimators that need two."""
        if self.layout != "episode" and self.least_episodes == 1:
            first = self.situations(probes, critic)[0]
            try:
                self.measure_one(first)
            except LogpiError as error:
                self.least_episodes = 2
                why = "its loss or gradient is not finite" if isinstance(error, NotFinite) else str(error)
                measured = [self.measure_one(situation) for situation in self.situations(probes, critic)]
                self.notes.append(f"batches of one episode are left out: {why}")
                return measured
        return [self.measure_one(situation) for situation in self.situations(probes, critic)]

    def measure_one(self, situation: Situation) -> _Measured:
        """E[ĝ], E[|ĝ|²] and all targets."""
        columns = situation.columns()
        cases = all_cases(situation, columns)
        found = moments(self.framework, self.names, situation, cases)
        if self.sign < 0 and not self._gives_weights(situation, cases):
            found = found._replace(mean=-found.mean)
        law, trained = situation.law, Law(situation.probe.policy)
        fixed = situation.probe.behaviour is not None or (law.jacobian is not None and not np.any(law.jacobian))
        possible = targets(
            situation.probe, self.layout, trained if fixed else law, columns, self.names, self.entropy_coefficient
        )
        return _Measured(situation, columns, cases, found, possible)

    def _gives_weights(self, situation: Situation, cases: list[Cases]) -> bool:
        request = make_request(situation, cases[-1], self.names)
        return self.framework.output(request, 0).shape == request.shape != ()

    def _evidence(self, measured: _Measured, target: str) -> Evidence:
        return Evidence(
            measured.situation, measured.columns, measured.cases, measured.moments.mean, measured.targets[target]
        )

    def _must_be_a_function(self, probes: Probes) -> None:
        """The same batch must give the same answer.

        **Raises:** `LogpiError` for an estimator that is random or keeps a state.
        """
        situation = Situation(
            replace(probes.short, designs=batch_of(1 if self.layout == "episode" else 2)),
            self.layout,
            self.law(probes.short),
        )
        case = all_cases(situation, situation.columns())[-1]
        request = make_request(situation, case, self.names)
        with np.errstate(all="ignore"):
            outputs = [self.framework.output(request, 0) for _ in range(3)]
        if not all(np.array_equal(outputs[0], other, equal_nan=True) for other in outputs[1:]):
            raise LogpiError(
                "two calls with the same batch gave different results: the estimator consumes randomness, or keeps a"
                " state between calls. Draw outside of it, or freeze its statistics"
            )

    def _leak(self, measured: _Measured) -> list[_Measured] | None:
        """The same situation with a critic that shares parameters, if the policy's loss reaches the critic.

        It does where ∂loss/∂value changes with θ while everything else stands still.
        """
        if isinstance(self.framework, NumpyFramework) or not {"value", "next_value", "last_value"} & set(self.names):
            return None
        situation, mean, second, leaks = measured.situation, np.zeros_like(measured.moments.mean), 0.0, False
        moved = situation.probe.logits + 0.3 * np.sin(1.0 + np.arange(mean.size)).reshape(mean.shape)
        for case in measured.cases:
            answer = self.framework.evaluate(make_request(situation, case, self.names))
            other = self.framework.evaluate(make_request(situation, case, self.names, moved))
            for name in answer.cotangents.keys() & {"value", "next_value", "last_value"}:
                leaks |= not np.allclose(answer.cotangents[name], other.cotangents[name], rtol=1e-9, atol=1e-9)
            gradient = self.sign * (ascent(situation, case, answer) + critic_share(situation, case, answer))
            mean += np.tensordot(case.probability, gradient, axes=1)
            second += float(case.probability @ np.sum(gradient**2, axis=(1, 2)))
        if not leaks:
            return None
        self.notes.append("the critic is taken to share parameters with the policy, since the loss reaches it")
        shared = replace(situation, probe=replace(situation.probe, name=f"{situation.probe.name}, shared critic"))
        return [replace(measured, situation=shared, moments=Moments(mean, second, False))]

    def _matches(self, probes: Probes, measured: Sequence[_Measured], tolerance: float) -> tuple[str, ...]:
        """Every target for which the estimator is exact, with the critic that such an estimator would have."""
        found = [name for name in measured[0].targets if self._fits(measured, name, tolerance)]
        if not found and not self.exact_critic and {"next_value", "last_value", "value"} & set(self.names):
            going_on = self.measure(probes, "continuing" if self._critic() == "wrong" else "wrong")
            others = [name for name in going_on[0].targets if self._fits(going_on, name, tolerance)]
            found += others
            if not others:
                exact = self.measure(probes, "exact")
                exact_for = [name for name in exact[0].targets if self._fits(exact, name, tolerance)]
                if exact_for:
                    self.notes.append(
                        f"with an exact critic it is exact for {', '.join(exact_for)}: what is wrong is the critic's"
                        " part in it, as with λ < 1"
                    )
        if not found and "old_log_prob" in self.names:
            fresh = [m for m in measured if m.situation.probe.behaviour is None]
            exact_for = [name for name in fresh[0].targets if self._fits(fresh, name, tolerance)]
            if exact_for:
                self.notes.append(
                    f"on the first step after sampling (old policy = policy) exact for {', '.join(exact_for)}"
                )
        return tuple(found)

    def _fits(self, measured: Sequence[_Measured], target: str, tolerance: float) -> bool:
        if not all(target in m.targets and np.any(m.targets[target]) for m in measured):
            return False
        verdict = judge([self._evidence(m, target) for m in measured], tolerance).verdict
        return verdict == "exact" or (verdict == "scaled" and target != self.target)

    def _diagnosis(
        self, judgement: Judgement, evidence: Sequence[Evidence], matches: tuple[str, ...], leak: bool
    ) -> tuple[Cause, ...]:
        if judgement.verdict == "exact":
            return ()
        causes = [value_leak()] if leak else []
        causes += by_law(evidence, self.names) if self.sampler is not None else []
        causes += by_target(judgement, self.target, matches, self.names)
        usable = [e for e in evidence if "shared critic" not in e.situation.name]
        causes += diagnose(usable, self.names, self.target) if judgement.verdict != "zero" else []
        unique = {cause.name: cause for cause in reversed(causes)}
        return tuple(unique[name] for name in dict.fromkeys(cause.name for cause in causes))

    def _variance(self, measured: Sequence[_Measured]) -> Variance | None:
        pairs = [m for m in measured if m.situation.probe.name == "stop" and m.situation.probe.episodes == 2]
        first = (pairs or [m for m in measured if "shared critic" not in m.situation.name])[0]
        episodes = first.situation.probe.episodes
        trace = first.moments.variance
        if self.layout == "rollout" or first.situation.law.jacobian is not None:
            return Variance(trace, None, None, episodes)
        least = least_variance(first.situation, first.columns) / episodes
        return Variance(trace, least, trace / least if least > 0 else None, episodes)

    def _credit(self, probes: Probes) -> Credit | None:
        if "reward" not in self.names or self.layout == "rollout" or self.sampler is not None:
            return None
        chain = replace(probes.chain, designs=batch_of(1 if self.layout == "episode" else 2))
        try:
            found = credit_matrix(self.framework, self.names, Situation(chain, self.layout, self.law(chain)))
        except NotFinite:
            return None  # such as a division by the deviation of equal returns
        return found if self.sign > 0 else replace(found, matrix=-found.matrix)
