"""Imitation: a run that begins with a policy which was fitted to demonstrations."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import jax
import numpy as np
from jaxtyping import Int
from numpy import ndarray

from logpi.core.arrays import float_dtype
from logpi.core.checks import is_whole, require, step_count
from logpi.core.errors import LogpiError
from logpi.core.randomness import Stream, numpy_generator
from logpi.core.trajectory import Trajectory
from logpi.environments.options import EnvironmentOptions
from logpi.environments.registry import EnvironmentLike, make_environment
from logpi.environments.spec import (
    CompiledEnvironment,
    EnvironmentSpec,
    HostEnvironment,
    stored_dtype,
)
from logpi.methods.cloning import clone
from logpi.methods.learner import observed
from logpi.methods.method import Method
from logpi.methods.reinforce import Reinforce
from logpi.networks.policy import Policy
from logpi.runs.card import model_card
from logpi.runs.checkpoint import Counters
from logpi.runs.demonstrations import (
    Demonstrations,
    read_demonstrations,
    require_demonstrated,
)
from logpi.runs.evaluation import Evaluation, FinalEvaluation
from logpi.runs.folder import RunFolder
from logpi.runs.loop import Run, finished_run
from logpi.runs.settings import Settings
from logpi.sampling.choose import make_sampler

# A share of the episodes that is not learned from, and judges what was learned.
HELD_OUT = 0.1
# Episodes in which the policy is evaluated, in each way of acting.
EVALUATED = 30
PASSES = 50


@dataclass(frozen=True)
class Imitation:
    """The run that begins with what was learned, how many passes over the demonstrations that took,
    and the mean log-likelihood of a step of the episodes held out.
    """

    run: Run
    passes: int
    log_likelihood: float

    def __str__(self) -> str:
        """What was learned, and what to do next."""
        folder = quote(str(self.run.folder))
        likelihood = f"log-likelihood {self.log_likelihood:.3f} a step of the episodes held out"
        lines = (
            f"fitted   in {self.passes} passes; {likelihood}",
            f"return   {self.run.evaluation}, most probable actions (mean, 95 % interval)",
            f"drawn    {self.run.drawn_evaluation}, actions drawn from the policy",
            f"run      {folder}",
            f"next     logpi evaluate {folder}",
            f"         logpi resume {folder}",
        )
        return "\n".join(lines)


def imitate(
    environment: EnvironmentLike,
    demonstrations: Demonstrations | str | Path,
    algorithm: Method | None = None,
    *,
    steps: int | float = 100_000,
    seed: int = 0,
    out: str | Path | None = None,
    max_episode_steps: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    wrapper: str | None = None,
    passes: int = PASSES,
) -> Imitation:
    """Fit a policy to the actions of demonstrations, by likelihood, and leave it in a run folder.

    `demonstrations` are those of `record`, the file that they were saved in, or `minari:ID`. A
    tenth of their episodes is held out; the policy that makes these most likely is kept, of at most
    so many `passes` over the others. `algorithm` has the form of the policy. `resume(run.folder)`
    trains it from here with that algorithm, for `steps`; `reference=run.folder` lets another run
    begin with it, and stay near.

    **Raises:** `LogpiError` for demonstrations of another environment, and as `train`.
    """
    options = EnvironmentOptions(max_episode_steps, env_kwargs or {}, wrapper)
    made = make_environment(environment, options)
    settings = Settings(
        environment=environment if isinstance(environment, str) else made.spec.name,
        algorithm=algorithm or Reinforce(),
        steps=step_count(steps),
        seed=seed,
        max_episode_steps=options.max_episode_steps,
        env_kwargs=options.kwargs,
        wrapper=options.wrapper,
    )
    folder = None
    if out is not None:
        folder = Path(out)
    return imitate_as(settings, made, demonstrations, folder, passes)


def imitate_as(
    settings: Settings,
    made: HostEnvironment | CompiledEnvironment,
    demonstrations: Demonstrations | str | Path,
    out: Path | None,
    passes: int,
) -> Imitation:
    """What `imitate` does, with settings that are together and an environment that is made.

    **Raises:** as `imitate`.
    """
    require(is_whole(passes) and passes >= 1, "passes", "a whole number >= 1", passes)
    method = settings.algorithm
    if method.reference is not None:
        raise LogpiError("an imitation begins with its demonstrations, not with a reference")
    if isinstance(demonstrations, Demonstrations):
        require_demonstrated(demonstrations, made.spec, "demonstrations")
        episodes = demonstrations
    else:
        episodes = read_demonstrations(demonstrations, made.spec)
    learner = method.make_learner(made.spec, settings.seed)
    method.require_usable(learner)
    random = numpy_generator(settings.seed, Stream.IMITATION)
    shown, held_out = _divided(len(episodes.lengths), random)
    trajectory = _trajectory(episodes, shown, made.spec, learner.policy)
    judging = _trajectory(episodes, held_out, made.spec, learner.policy)
    learner = observed(learner, trajectory)
    found = clone(learner.policy, trajectory, judging, passes, random)
    sampler = make_sampler(made, method.copies, settings.seed)
    try:
        learner = sampler.begin(method, learner._replace(policy=found.policy))
        most_steps = int(episodes.lengths.max()) * EVALUATED
        evaluation = FinalEvaluation(
            Evaluation(*sampler.evaluate(learner.policy, EVALUATED, True, most_steps)),
            Evaluation(*sampler.evaluate(learner.policy, EVALUATED, False, most_steps)),
        )
    finally:
        sampler.close()
    counters = Counters()
    folder = RunFolder.create(out, settings, made.spec.to_json())
    with folder.only_writer():
        folder.save(learner, counters)
        folder.save_evaluation(0, evaluation, made.spec.reward_threshold)
        folder.write_text("README.md", model_card(settings, 0, evaluation))
    run = finished_run(folder, learner, counters, evaluation)
    return Imitation(run, found.passes, found.log_likelihood)


def _divided(
    episodes: int, random: np.random.Generator
) -> tuple[Int[ndarray, " shown"], Int[ndarray, " held_out"]]:
    """Numbers of the episodes to learn from, and of those held out.

    **Raises:** `LogpiError` for a single one.
    """
    if episodes < 2:
        raise LogpiError("an imitation needs two demonstrated episodes at least: one is held out")
    order = random.permutation(episodes)
    count = max(1, round(HELD_OUT * episodes))
    return order[count:], order[:count]


def _trajectory(
    demonstrations: Demonstrations,
    episodes: Int[ndarray, " episode"],
    spec: EnvironmentSpec,
    policy: Policy,
) -> Trajectory:
    """Some of the episodes as policies see them: a column each for a policy that remembers, for
    others a column for each step.
    """
    ends = np.cumsum(demonstrations.lengths)
    by_episode = np.split(np.arange(ends[-1]), ends[:-1])
    rows = [by_episode[episode] for episode in episodes]
    if policy.memory.recurrent:
        time = max(map(len, rows))
        row = np.stack([np.pad(each, (0, time - len(each))) for each in rows], axis=1)
        mask = np.stack([np.arange(time) < len(each) for each in rows], axis=1)
    else:
        row = np.concatenate(rows)[None]
        mask = np.ones(row.shape, bool)
    observations = demonstrations.observations[row]
    if spec.origin is not None:
        observations = observations - np.reshape(spec.origin, observations.shape[2:])
    stored = jax.dtypes.canonicalize_dtype(stored_dtype(spec.observation_space))
    step = np.broadcast_to(np.arange(len(row), dtype=np.int32)[:, None], row.shape)
    nothing = np.zeros(row.shape, bool)
    return Trajectory(
        observation=observations.astype(stored),
        action=_sampled(demonstrations.actions[row], policy),
        reward=np.zeros(row.shape, float_dtype()),
        terminated=nothing,
        truncated=nothing,
        mask=mask,
        step=step,
        memory=policy.initial_memory(row.shape[1]),
    )


def _sampled(executed: ndarray, policy: Policy) -> ndarray:
    """The actions as a distribution of the policy has them."""
    sampled = np.asarray(policy.head.sampled(executed))
    if np.issubdtype(sampled.dtype, np.floating):
        return sampled.astype(float_dtype())
    return sampled.astype(np.int32)
