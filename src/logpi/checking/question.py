"""One question: is this estimator that of this target? The stages stand in a row, and each returns
what it adds: measure, judge, match, explain, report.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from logpi.checking.credit import Credit, credit_matrix
from logpi.checking.expectation import Critic, NotFinite, Situation, all_cases, least_variance
from logpi.checking.measuring import Measurement, Trial
from logpi.checking.mistakes.forms import Cause
from logpi.checking.mistakes.regularised import of_regularised
from logpi.checking.mistakes.search import diagnose
from logpi.checking.mistakes.verdict_causes import (
    ENTROPY_SIGN,
    by_law,
    by_verdict,
    value_leak,
)
from logpi.checking.objectives import Objective, pays_with
from logpi.checking.probes import Probes, batch_of
from logpi.checking.report import CheckReport, Variance
from logpi.checking.targets import REGULARISED, TARGETS
from logpi.checking.verdict import (
    IN_SINGLE,
    ROUNDED_INSIDE,
    SINGLE_TOLERANCE,
    Judgement,
    is_met,
    judge,
    tolerance_of,
)
from logpi.core.errors import LogpiError
from logpi.estimators.contract import CRITIC

OWN_CALL = (
    "the loss sees one micro-batch at a time: a mean that it takes over the batch is over that part"
)

AS_WEIGHTS = (
    "what is returned has the shape of log_prob, and is taken as weights of ∇ log π: reduce it to a"
    " number if it is a loss"
)
# What bfloat16 inside of a function leaves: its numbers have eight binary digits.
ROUNDED_TO_HALF = 1e-2
IN_HALF = (
    "no known mistake explains it exactly: a bias as small as this may come from half precision"
    " inside of the function (bfloat16 or float16)"
)
WITH_REFERENCE = (
    "reference_log_prob is asked for: check a loss with a KL term against --target regularised,"
    " with its β as --kl-coefficient"
)


class Judged(NamedTuple):
    """A judgement, the tolerance with which it was made, and why that one."""

    judgement: Judgement
    tolerance: float
    notes: tuple[str, ...]


class Matches(NamedTuple):
    """The targets for which the estimator is exact, and for which it nearly is."""

    targets: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """One question: is this estimator, with this critic, that of this target?"""

    trial: Trial
    target: str
    critic: Critic
    probes: Probes
    random_probes: tuple[Probes, ...] = ()

    def report(self) -> CheckReport:
        """All stages.

        **Raises:** `LogpiError` for an estimator that cannot be checked.
        """
        trial = self.trial
        trial.require_function(self.probes)
        measured = trial.measure(self.probes, self.critic)
        alone = measured.measurements
        self._require_target(alone[0])
        leak = trial.leak(alone[0])
        everything = [*leak.measurements, *alone]
        is_single = trial.single_precision or any(m.moments.single_precision for m in everything)
        judged = self._judge(everything, is_single)
        matches = self._match(everything, measured.least_episodes, judged.tolerance)
        judgement = judged.judgement
        if judgement.verdict in ("biased", "zero") and matches.targets and not leak.measurements:
            judgement = replace(judgement, verdict="other-target")
        causes = self._explain(
            judgement, alone, matches.targets, bool(leak.measurements), is_single
        )
        return CheckReport(
            **vars(judgement),
            target=self.target,
            matches=matches.targets,
            diagnosis=causes,
            variance=self._variance(alone),
            credit=self._credit(),
            framework=trial.framework.name,
            layout=trial.layout,
            notes=(
                *measured.notes,
                *((IN_SINGLE,) if is_single else ()),
                *leak.notes,
                *judged.notes,
                *matches.notes,
                *self._notes_on_what_is_wrong(judgement, causes, alone[0]),
            ),
            probes=tuple(self._biases(everything, judged.tolerance)),
            bias_range=self._range(measured.least_episodes, judged.tolerance),
        )

    def _notes_on_what_is_wrong(
        self, judgement: Judgement, causes: Sequence[Cause], measurement: Measurement
    ) -> tuple[str, ...]:
        """How an estimator that is not right was taken, where it may be meant otherwise."""
        if judgement.verdict in ("exact", "scaled"):
            return ()
        trial = self.trial
        notes = []
        if trial.micro_batches > 1 and trial.advantages is None:
            notes.append(OWN_CALL)
        if trial.gives_weights(measurement.situation, measurement.cases):
            notes.append(AS_WEIGHTS)
        is_unknown = not any(cause.is_exact for cause in causes)
        if SINGLE_TOLERANCE <= judgement.relative_bias < ROUNDED_TO_HALF and is_unknown:
            notes.append(IN_HALF)
        has_both = {"reference_log_prob", "reward"} <= set(trial.names)
        if has_both and self.target not in REGULARISED.values():
            notes.append(WITH_REFERENCE)
        return tuple(notes)

    def _range(self, least_episodes: int, tolerance: float) -> tuple[float, float] | None:
        """The least and the largest relative bias on random probes of the kind of the first one,
        acted by all laws that are tried; None without any.
        """
        biases = []
        for probes in self.random_probes:
            first, *rest = self.trial.situations(probes, self.critic, least_episodes)
            alike = [each for each in rest if each.probe.name.startswith(first.probe.name)]
            measured = [self.trial.measure_one(each) for each in (first, *alike)]
            biases.append(judge(measured, self.target, tolerance).relative_bias)
        if not biases:
            return None
        return min(biases), max(biases)

    def _require_target(self, measurement: Measurement) -> None:
        if self.target not in measurement.targets and "continuing" in self.target:
            raise LogpiError(
                f"target {self.target!r} has no finite value: without its time limit the process"
                " does not end, and discount = 1"
            )
        if self.target not in measurement.targets:
            raise LogpiError(
                f"target {self.target!r}, {TARGETS[self.target]}, needs what the estimator does not"
                f" ask for: {_needed(self.target)}"
            )

    def _judge(self, measurements: Sequence[Measurement], is_single: bool) -> Judged:
        """A bias is looked at again: it may be the rare action's, or single precision inside."""
        tolerance = tolerance_of(is_single)
        judgement = judge(measurements, self.target, tolerance)
        if judgement.verdict != "biased":
            return Judged(judgement, tolerance, ())
        rounded = judge(measurements, self.target, ROUNDED_INSIDE)
        if rounded.verdict == "exact":
            note = "exact to what single precision inside of the function leaves"
            return Judged(rounded, ROUNDED_INSIDE, (note,))
        # the figures of the probe with the rare action are of no common size
        usual = [m for m in measurements if m.situation.probe.name != "rare"]
        without_rare = judge(usual, self.target, tolerance)
        if without_rare.verdict == "biased":
            judgement = without_rare
        if judgement.relative_bias < SINGLE_TOLERANCE:
            note = "a bias as small as this may come from single precision inside the function"
            return Judged(judgement, tolerance, (note,))
        return Judged(judgement, tolerance, ())

    def _biases(
        self, measurements: Sequence[Measurement], tolerance: float
    ) -> list[tuple[str, float]]:
        """(situation, relative bias)."""
        return [
            (m.situation.name, judge([m], self.target, tolerance).relative_bias)
            for m in measurements
        ]

    def _match(
        self, measurements: Sequence[Measurement], least_episodes: int, tolerance: float
    ) -> Matches:
        """Every target for which the estimator is exact, with the critic that such an estimator
        would have.
        """
        found = self._exact_targets(measurements, tolerance)
        notes: list[str] = []
        if not found and set(CRITIC) & set(self.trial.names):
            continuing = not self.critic.continuing
            other = self.critic._replace(continuing=continuing)
            going_on = self.trial.measure_from(self.probes, other, least_episodes)
            found = self._exact_targets(going_on, tolerance)
            if not found and not self.critic.exact:
                exact = self.critic._replace(exact=True)
                known = self.trial.measure_from(self.probes, exact, least_episodes)
                names = ", ".join(self._exact_targets(known, tolerance))
                if names:
                    notes.append(
                        f"with an exact critic it is exact for {names}: what is wrong is the"
                        " critic's part in it, as with λ < 1"
                    )
        if not found and "old_log_prob" in self.trial.names:
            fresh = [m for m in measurements if m.situation.probe.behaviour is None]
            names = ", ".join(self._exact_targets(fresh, tolerance))
            if names:
                notes.append(
                    f"on the first step after sampling (old policy = policy) exact for {names}"
                )
        return Matches(tuple(found), tuple(notes))

    def _exact_targets(self, measurements: Sequence[Measurement], tolerance: float) -> list[str]:
        return [
            target
            for target in measurements[0].targets
            if is_met(measurements, target, self.target, tolerance)
        ]

    def _explain(
        self,
        judgement: Judgement,
        measurements: Sequence[Measurement],
        matches: tuple[str, ...],
        leaks: bool,
        is_single: bool,
    ) -> tuple[Cause, ...]:
        """Causes, most likely first, each once."""
        if judgement.verdict == "exact":
            return ()
        names = self.trial.names
        causes: list[Cause] = []
        if leaks:
            causes.append(value_leak(self._detached(measurements, is_single)))
        bonuses = ("entropy-bonus", "entropy-regularised")
        if any(self._takes_off(measurements, bonus) for bonus in bonuses):
            causes.append(Cause(*ENTROPY_SIGN))
        silent = all(m.moments.second == 0 for m in measurements)
        about = by_verdict(judgement, self.target, matches, names, silent)
        if judgement.verdict == "other-target" and about:
            return tuple(about)  # it explains all that there is
        if self.trial.sampler is not None:
            causes += by_law(measurements, names)
        causes += about
        beta = self.trial.coefficients.kl
        factors: list[Cause] = []
        if self.target in REGULARISED.values() and judgement.verdict == "biased" and beta:
            factors = of_regularised(measurements, self.target, beta)
        causes += factors
        if judgement.verdict != "zero" and not factors:
            causes += self._diagnose(measurements)
        unique: dict[str, Cause] = {}
        for cause in causes:
            unique.setdefault(cause.name, cause)
        return tuple(unique.values())

    def _diagnose(self, measurements: Sequence[Measurement]) -> list[Cause]:
        """Known mistakes; an objective is taken for a reward that is paid at the end."""
        objective = self.trial.objective
        if objective is not None:
            measurements = [_paid(objective, measurement) for measurement in measurements]
        beta = self.trial.coefficients.kl
        return diagnose(measurements, self.trial.names, self.target, beta)

    def _detached(self, measurements: Sequence[Measurement], is_single: bool) -> str:
        """The verdict without what the loss does to the critic."""
        judged = self._judge(measurements, is_single)
        if judged.judgement.verdict == "exact":
            return "exact"
        matches = self._match(measurements, self.trial.least_episodes, judged.tolerance)
        said = [judged.judgement.verdict, *(f"exact for {name}" for name in matches.targets[:1])]
        if not matches.targets:
            said += matches.notes[:1]
        return ", ".join(said)

    def _takes_off(self, measurements: Sequence[Measurement], bonus: str) -> bool:
        """Whether the gradient is that of the reward minus the term that `bonus` adds to it."""
        if self.trial.coefficients.entropy == 0:
            return False
        for m in measurements:
            if not {"discounted", bonus} <= m.targets.keys():
                return False
            mirrored = 2 * m.targets["discounted"] - m.targets[bonus]
            if not np.allclose(m.moments.mean, mirrored, rtol=1e-6, atol=1e-9):
                return False
        return True

    def _variance(self, measurements: Sequence[Measurement]) -> Variance | None:
        """Of batches of two where there are any, beside the least that a state baseline reaches."""
        pairs = [m for m in measurements if _is_pair(m)]
        first = (pairs or measurements)[0]
        probe = first.situation.probe
        trace = first.moments.variance
        discount = probe.mdp.discount
        powers = {
            "discounted": (discount, discount),
            "conventional": (1.0, discount),
            "undiscounted": (1.0, 1.0),
        }
        plays_episodes = self.trial.layout != "rollout" and first.situation.law.jacobian is None
        comparable = plays_episodes and "reward" in self.trial.names
        if not comparable or self.target not in powers:
            return Variance(trace, None, None, probe.episodes)
        least = least_variance(first.situation, first.columns, *powers[self.target])
        least = least / probe.episodes
        ratio = trace / least if least > 0 else None
        return Variance(trace, least, ratio, probe.episodes)

    def _credit(self) -> Credit | None:
        """The credit matrix; None where there are no rewards, or no expectation of them is
        finite.
        """
        trial = self.trial
        is_other = trial.sampler is not None or trial.objective is not None
        if "reward" not in trial.names or trial.layout == "rollout" or is_other:
            return None
        designs = batch_of(trial.least_episodes)
        chain = replace(self.probes.chain, designs=designs)

        def mean(situation: Situation) -> np.ndarray:
            return trial.moments(situation, all_cases(situation, situation.columns())).mean

        try:
            return credit_matrix(
                mean, Situation(chain, trial.layout, trial.law(chain)), self.target
            )
        except NotFinite:
            return None  # such as a division by the deviation of equal returns


def _needed(target: str) -> str:
    """What an estimator of this target must have."""
    if "kl" in target or target.startswith("regularised"):
        return "add the parameter reference_log_prob"
    if target.startswith("entropy"):
        return "add a parameter entropy, logits, policy or log_prob"
    return "add a sampler, whose law is not the policy's"


def _is_pair(measurement: Measurement) -> bool:
    """Whether it is of the probe `stop` in batches of two episodes."""
    probe = measurement.situation.probe
    return probe.name == "stop" and probe.episodes == 2


def _paid(objective: Objective, measurement: Measurement) -> Measurement:
    """The same with the objective in the place of the rewards."""
    probe = measurement.situation.probe
    cases = [pays_with(objective, probe, each) for each in measurement.cases]
    return replace(measurement, cases=cases)
