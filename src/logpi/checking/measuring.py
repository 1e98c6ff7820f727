"""An estimator in every situation that the check puts it into."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy import ndarray

from logpi.checking.cases import Cases, Columns
from logpi.checking.expectation import (
    Critic,
    Moments,
    NotFinite,
    Situation,
    all_cases,
    ascent,
    critic_share,
    make_request,
    moments,
)
from logpi.checking.probes import Probe, Probes, batch_of, with_behaviour
from logpi.checking.request import Framework, Request
from logpi.checking.targets import Law, law_of, targets
from logpi.core.errors import LogpiError
from logpi.estimators.contract import Layout
from logpi.theory.exact import softmax


@dataclass
class Measured:
    """One situation and what the estimator does in it."""

    situation: Situation
    columns: Columns
    cases: list[Cases]
    moments: Moments
    targets: dict[str, ndarray]


@dataclass
class Trial:
    """An estimator, how it is called, and what was noticed on the way."""

    framework: Framework
    names: tuple[str, ...]
    layout: Layout
    sign: float
    """-1 where the function returns an objective."""
    sampler: Callable[[ndarray], ndarray] | None
    entropy_coefficient: float
    notes: list[str] = field(default_factory=list)
    least_episodes: int = 1

    @property
    def single_precision(self) -> bool:
        """Whether the sampler's law is."""
        return self.sampler is not None and self.sampler(np.zeros((8, 3))).dtype == np.float32

    def situations(self, probes: Probes, critic: Critic) -> list[Situation]:
        """Where the estimator is tried; the first is the one whose variance is reported."""
        least = self.least_episodes

        def of(probe, n):
            return replace(probe, designs=batch_of(n))

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

    def measure(self, probes: Probes, critic: Critic) -> list[Measured]:
        """Every situation; batches of one are left out for estimators that need two."""
        if self.layout != "episode" and self.least_episodes == 1:
            first = self.situations(probes, critic)[0]
            try:
                self.measure_one(first)
            except LogpiError as error:
                self.least_episodes = 2
                why = (
                    "its loss or gradient is not finite"
                    if isinstance(error, NotFinite)
                    else str(error)
                )
                measured = [
                    self.measure_one(situation) for situation in self.situations(probes, critic)
                ]
                self.notes.append(f"batches of one episode are left out: {why}")
                return measured
        return [self.measure_one(situation) for situation in self.situations(probes, critic)]

    def measure_one(self, situation: Situation) -> Measured:
        """E[ĝ], E[|ĝ|²] and all targets."""
        columns = situation.columns()
        cases = all_cases(situation, columns)
        law, trained = situation.law, Law(situation.probe.policy)
        fixed = situation.probe.behaviour is not None or (
            law.jacobian is not None and not np.any(law.jacobian)
        )
        possible = targets(
            situation.probe,
            self.layout,
            trained if fixed else law,
            columns,
            self.names,
            self.entropy_coefficient,
        )
        return Measured(situation, columns, cases, self.moments(situation, cases), possible)

    def moments(self, situation: Situation, cases: list[Cases]) -> Moments:
        """Those of ĝ, an ascent direction."""
        found = moments(self.framework, self.names, situation, cases)
        uphill = self.sign > 0 or self._gives_weights(situation, cases)
        return found if uphill else found._replace(mean=-found.mean)

    def _gives_weights(self, situation: Situation, cases: list[Cases]) -> bool:
        request = make_request(situation, cases[-1], self.names)
        return self.framework.output(request, 0).shape == request.shape

    def must_be_a_function(self, probes: Probes) -> None:
        """The same batch must give the same answer, also when another has been seen in between.

        **Raises:** `LogpiError` for an estimator that is random or keeps a state, and for a sampler that is random.
        """
        probe = replace(probes.short, designs=batch_of(1 if self.layout == "episode" else 2))
        situation = Situation(probe, self.layout, self.law(probe))
        request = make_request(situation, all_cases(situation, situation.columns())[-1], self.names)
        again = request.some([0, request.count - 1] * 4)
        with np.errstate(all="ignore"):
            outputs = [self.framework.output(again, index) for index in range(again.count)]
            answer = self.framework.evaluate(again)
        parts = [
            part
            for part in (answer.loss, answer.weights, *answer.cotangents.values())
            if part is not None
        ]
        if any(
            not np.array_equal(part[i], part[i - 2], equal_nan=True)
            for part in (outputs, *parts)
            for i in range(2, 8)
        ):
            raise LogpiError(
                "two calls with the same batch gave different results: the estimator consumes randomness, or keeps a"
                " state between calls. Draw outside of it, or freeze its statistics"
            )
        if self.sampler is not None and not np.array_equal(
            self.sampler(probe.logits), self.sampler(probe.logits)
        ):
            raise LogpiError(
                "the sampler gave two laws for the same logits: it must return probabilities, not draw"
            )

    def leak(self, measured: Measured) -> list[Measured]:
        """The same situation with a critic that shares parameters, if the policy's loss reaches the critic; or none."""
        situation = measured.situation
        if self._gives_weights(situation, measured.cases):
            return []
        requests = [make_request(situation, case, self.names) for case in measured.cases]
        with contextlib.suppress(LogpiError):  # what cannot be differentiated twice
            if any(self.framework.moves_critic(request) for request in requests):
                return [self._shared(measured, requests)]
        return []

    def _shared(self, measured: Measured, requests: list[Request]) -> Measured:
        situation, mean, second = measured.situation, np.zeros_like(measured.moments.mean), 0.0
        for case, request in zip(measured.cases, requests, strict=True):
            answer = self.framework.evaluate(request)
            gradient = self.sign * (
                ascent(situation, case, answer) + critic_share(situation, case, answer)
            )
            mean += np.tensordot(case.probability, gradient, axes=1)
            second += float(case.probability @ np.sum(gradient**2, axis=(1, 2)))
        self.notes.append(
            "the critic is taken to share parameters with the policy, since the loss reaches it"
        )
        shared = replace(
            situation, probe=replace(situation.probe, name=f"{situation.probe.name}, shared critic")
        )
        return replace(measured, situation=shared, moments=Moments(mean, second, False, 0.0))
