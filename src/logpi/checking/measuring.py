"""An estimator in every situation that the check puts it into."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from logpi.checking.cases import Cases, Columns
from logpi.checking.composing import part_of_each
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
from logpi.checking.fitting import Size
from logpi.checking.objectives import Objective, objective_gradient
from logpi.checking.probes import Probe, Probes, batch_of, with_behaviour, with_engine
from logpi.checking.request import Framework, Request
from logpi.checking.targets import Coefficients, Law, law_of, targets
from logpi.core.errors import LogpiError
from logpi.estimators.contract import Layout
from logpi.theory.exact import softmax


@dataclass(frozen=True)
class Measurement:
    """One situation, what the estimator does in it, and the gradients of all targets."""

    situation: Situation
    columns: Columns
    cases: list[Cases]
    moments: Moments
    targets: dict[str, ndarray]

    @property
    def size(self) -> Size:
        """N, the steps of a rollout or 0, and the size of a group."""
        starts = self.situation.probe.designs[0].starts
        if self.situation.layout == "rollout":
            steps = self.situation.steps
        else:
            steps = 0
        return len(starts), steps, len(starts) // len(set(starts))

    @property
    def discount(self) -> float:
        """γ of its process."""
        return self.situation.probe.mdp.discount


class Measured(NamedTuple):
    """All situations, the episodes that a batch must have at least, and what was noticed."""

    measurements: list[Measurement]
    least_episodes: int
    notes: tuple[str, ...]


class Leak(NamedTuple):
    """The first situation again with a critic that shares parameters, if the loss reaches it."""

    measurements: list[Measurement]
    notes: tuple[str, ...]


class Advantages(NamedTuple):
    """What the trainer computes for a loss before it calls it, once for a batch."""

    name: str
    """What the loss calls it."""
    framework: Framework
    """The function that computes it."""
    names: tuple[str, ...]
    """What that function asks for."""

    def of(self, situation: Situation, case: Cases) -> ndarray:
        """Of every batch, [batch, episodes] or [batch, episodes, time].

        **Raises:** `LogpiError` for another shape, and for what is not finite.
        """
        request = make_request(situation, case, self.names)
        values = self.framework.values(request)
        if not all(np.issubdtype(each.dtype, np.number) for each in values):
            raise LogpiError(
                f"advantages are of type {values[0].dtype}: return an array of numbers"
            )
        found = np.stack(values).astype(np.float64)
        if found.ndim == 1 or found.shape[1:] != request.shape[: found.ndim - 1]:
            raise LogpiError(
                f"advantages have the shape {found.shape[1:]}: return one for each episode,"
                f" {request.shape[:1]}, or for each step, {request.shape}"
            )
        if not np.isfinite(found).all():
            raise LogpiError(f"advantages are not finite on probe {situation.name}")
        return found


@dataclass(frozen=True)
class Trial:
    """An estimator, and how it is called."""

    framework: Framework
    own_names: tuple[str, ...]
    """What it asks for."""
    layout: Layout
    sign: float
    """-1 where the function returns an objective."""
    sampler: Callable[[ndarray], ndarray] | None
    coefficients: Coefficients
    objective: Objective | None = None
    micro_batches: int = 1
    advantages: Advantages | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What it depends on: what it asks for, and what its advantages are computed of."""
        if self.advantages is None:
            return self.own_names
        return tuple(dict.fromkeys((*self.own_names, *self.advantages.names)))

    @property
    def least_episodes(self) -> int:
        """The fewest episodes of a batch that every estimator of the layout takes."""
        if self.layout == "episode":
            return 1
        return 2

    @property
    def single_precision(self) -> bool:
        """Whether the sampler's law is."""
        return self.sampler is not None and self.sampler(np.zeros((8, 3))).dtype == np.float32

    def situations(self, probes: Probes, critic: Critic, least: int) -> list[Situation]:
        """Where the estimator is tried, in batches of `least` episodes and more.

        The first is the one whose variance is reported.
        """
        tried = self._probes(probes, least)
        if self.sampler is not None:
            tried = [probe for probe in tried if probe.name != "rare"]
        elif {"old_log_prob", "sampling_log_prob"} & set(self.names):
            acted = [probe for probe in tried if probe.name in ("stop", "short")]
            tried += [with_behaviour(probe) for probe in acted]
            # in the smallest batches of either: what engines do shows in each episode
            drawn = [probe for probe in acted if probe.episodes in (least, probes.short.episodes)]
            if "sampling_log_prob" in self.names:
                tried += [with_engine(probe, True) for probe in drawn]
            if {"old_log_prob", "sampling_log_prob"} <= set(self.names):
                tried += [with_engine(probe, False) for probe in drawn]
        if self.objective is not None:
            tried = [probe for probe in tried if self.objective.has_room(probe)]
        if not tried:
            raise LogpiError("no probe has groups as large as k: they have 4 episodes at most")
        made = [Situation(probe, self.layout, self.law(probe), critic) for probe in tried]
        if self.layout == "rollout":
            made.append(replace(made[0], steps=4))
        return made

    def _probes(self, probes: Probes, least: int) -> list[Probe]:
        sizes = [size for size in (1, 2) if size >= least]
        own = [probe for probe in probes.own if probe.episodes >= least]
        if probes.own and not own:
            raise LogpiError(
                "your process has too many trajectories for all batches of two episodes, which"
                " this estimator needs: shorten its horizon"
            )
        if self.layout == "episode":
            single = [probes.stop, _in_batches(probes.short, 1), probes.offset, probes.rare]
            return [*single, *own[:1]]
        if self.layout == "rollout":
            return [*(_in_batches(probes.short, size) for size in sizes), *own]
        tried = [_in_batches(probes.stop, size) for size in sizes]
        tried.append(probes.short)
        tried += [_in_batches(probe, least) for probe in (probes.offset, probes.rare)]
        if "group" in self.names and self.sampler is None:
            tried += [probes.prompts, probes.answers, probes.pairs]
        return [*tried, *own]

    def law(self, probe: Probe) -> Law:
        """What actions are drawn from."""
        if probe.behaviour is not None:
            return Law(softmax(probe.behaviour))
        if self.sampler is None:
            return Law(probe.policy)
        return law_of(probe.logits, self.sampler)

    def measure(self, probes: Probes, critic: Critic) -> Measured:
        """Every situation; batches of one are left out for estimators that need two."""
        first, *rest = self.situations(probes, critic, 1)
        try:
            measured = [self.measure_one(first)]
        except LogpiError as error:
            if self.layout == "episode":
                raise
            if isinstance(error, NotFinite):
                why = "its loss or gradient is not finite"
            else:
                why = str(error)
            note = f"batches of one episode are left out: {why}"
            return Measured(self.measure_from(probes, critic, 2), 2, (note,))
        measured += [self.measure_one(situation) for situation in rest]
        return Measured(measured, 1, ())

    def measure_from(self, probes: Probes, critic: Critic, least: int) -> list[Measurement]:
        """Every situation with batches of `least` episodes and more."""
        return [self.measure_one(each) for each in self.situations(probes, critic, least)]

    def measure_one(self, situation: Situation) -> Measurement:
        """E[ĝ], E[|ĝ|²] and all targets."""
        columns = situation.columns()
        cases = all_cases(situation, columns)
        if self.micro_batches > 1:
            cases = [self._divided(case) for case in cases]
        law = situation.law
        is_fixed = law.jacobian is not None and not np.any(law.jacobian)
        if situation.probe.behaviour is not None or is_fixed:
            law = Law(situation.probe.policy)
        possible = targets(
            situation.probe, self.layout, law, columns, self.names, self.coefficients
        )
        if self.objective is not None:
            played = cases
            if situation.probe.behaviour is not None:
                acted = replace(situation, law=Law(situation.probe.policy))
                played = all_cases(acted, acted.columns())
            gradient = objective_gradient(self.objective, situation.probe, played)
            possible[self.objective.target] = gradient
        return Measurement(situation, columns, cases, self.moments(situation, cases), possible)

    def _divided(self, cases: Cases) -> Cases:
        """The batches with the number of the micro-batch that each episode is in, and of the call
        in which its advantage is computed.
        """
        count, episodes = cases.fields["group"].shape
        part = np.tile(part_of_each(episodes, self.micro_batches), (count, 1))
        call = part
        if self.advantages is not None:
            call = np.zeros_like(part)
        return Cases(cases.probability, cases.fields | {"micro_batch": part, "call": call})

    def request(self, situation: Situation, case: Cases) -> Request:
        """What the estimator is asked about the batches of one shape."""
        request = make_request(situation, case, self.own_names)
        if self.advantages is None:
            return request
        given = self.advantages.name
        constant = request.constant | {given: self.advantages.of(situation, case)}
        return replace(request, names=(*request.names, given), constant=constant)

    def moments(self, situation: Situation, cases: list[Cases]) -> Moments:
        """The moments of ĝ, turned uphill."""
        found = moments(self.framework, self.request, situation, cases)
        uphill = self.sign > 0 or self.gives_weights(situation, cases)
        if uphill:
            return found
        return found._replace(mean=-found.mean)

    def gives_weights(self, situation: Situation, cases: list[Cases]) -> bool:
        """Whether the function returns weights of ∇ log π, and no loss."""
        request = self.request(situation, cases[-1])
        return self.framework.output(request, 0).shape == request.shape

    def warm_up(self, framework: Framework, probes: Probes) -> None:
        """Three batches, for an estimator that keeps a state."""
        probe = _in_batches(probes.short, self.least_episodes)
        situation = Situation(probe, self.layout, self.law(probe))
        cases = all_cases(situation, situation.columns())
        request = self.request(situation, cases[-1])
        for index in (0, request.count // 2, request.count - 1):
            framework.output(request, index)

    def require_function(self, probes: Probes) -> None:
        """Refuse what is no function.

        **Raises:** `LogpiError` for an estimator that is random or keeps a state, and for a sampler
        that is random.
        """
        probe = _in_batches(probes.short, self.least_episodes)
        situation = Situation(probe, self.layout, self.law(probe))
        cases = all_cases(situation, situation.columns())
        require_function(self.framework, self.request(situation, cases[-1]))
        if self.sampler is None:
            return
        if not np.array_equal(self.sampler(probe.logits), self.sampler(probe.logits)):
            raise LogpiError(
                "the sampler gave two laws for the same logits:"
                " it must return probabilities, not draw"
            )

    def leak(self, measurement: Measurement) -> Leak:
        """The same situation with a critic that shares parameters, if the policy's loss reaches the
        critic.
        """
        situation = measurement.situation
        if self.gives_weights(situation, measurement.cases):
            return Leak([], ())
        requests = [self.request(situation, case) for case in measurement.cases]
        with contextlib.suppress(LogpiError):  # what cannot be differentiated twice
            if any(self.framework.moves_critic(request) for request in requests):
                note = (
                    "the critic is taken to share parameters with the policy, since the loss"
                    " reaches it"
                )
                return Leak([self._shared(measurement, requests)], (note,))
        return Leak([], ())

    def _shared(self, measurement: Measurement, requests: Sequence[Request]) -> Measurement:
        situation = measurement.situation
        mean = np.zeros_like(measurement.moments.mean)
        second = 0.0
        for case, request in zip(measurement.cases, requests, strict=True):
            answer = self.framework.evaluate(request)
            share = critic_share(situation, case, answer)
            gradient = self.sign * (ascent(situation, case, answer) + share)
            mean += np.tensordot(case.probability, gradient, axes=1)
            second += float(case.probability @ np.sum(gradient**2, axis=(1, 2)))
        name = f"{situation.probe.name}, shared critic"
        shared = replace(situation, probe=replace(situation.probe, name=name))
        return replace(measurement, situation=shared, moments=Moments(mean, second, False, 0.0))


def _in_batches(probe: Probe, episodes: int) -> Probe:
    """The probe with batches of so many independent episodes."""
    return replace(probe, designs=batch_of(episodes))


def require_function(framework: Framework, request: Request) -> None:
    """Refuse what is no function: the same batch must give the same answer, also when another has
    been seen in between.

    **Raises:** `LogpiError` for an estimator that is random or keeps a state.
    """
    again = request.some([0, request.count - 1] * 4)
    with np.errstate(all="ignore"):
        outputs = np.stack([framework.output(again, i) for i in range(again.count)])
        answer = framework.evaluate(again)
    parts = (outputs, answer.loss, answer.weights, *answer.cotangents.values())
    if not all(_repeats(part) for part in parts if part is not None):
        raise LogpiError(
            "two calls with the same batch gave different results: the estimator consumes"
            " randomness, or keeps a state between calls. Draw outside of it, or freeze its"
            " statistics"
        )


def _repeats(answers: ndarray) -> bool:
    """Whether two batches that are seen in turn get the same answers again and again."""
    return np.array_equal(answers[2:], answers[:-2], equal_nan=True)
