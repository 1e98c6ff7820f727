"""What a run has learned: `load` gives its policy, `evaluate` says what it is worth."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium as gym

from logpi.core.checks import is_real, is_whole, require, require_seed, shown
from logpi.core.errors import LogpiError
from logpi.environments.options import NO_OPTIONS
from logpi.environments.registry import EnvironmentLike, make_environment
from logpi.environments.spec import (
    CompiledEnvironment,
    EnvironmentSpec,
    HostEnvironment,
    space_from_json,
)
from logpi.methods.learner import Learner
from logpi.methods.method import Method
from logpi.networks.policy import Policy
from logpi.runs.evaluation import Evaluation, require_fitting
from logpi.runs.folder import RunFolder
from logpi.runs.loop import Run
from logpi.runs.report import SilentReporter
from logpi.sampling.choose import make_sampler
from logpi.sampling.recording import COPIES

Which = Literal["latest", "best"]


def load(folder: str | Path, *, which: Which = "latest", trust: bool = False) -> Policy:
    """The policy of a run, from its newest whole checkpoint; the environment is not made.

    `which="best"` gives the policy that was best in the evaluations on the way.
    `trust` agrees to import the files that the run names, if somebody else has made it. Says on
    standard error where a newer checkpoint is damaged.

    **Raises:** `LogpiError` where the folder is no run, has no whole checkpoint, or names code of
    somebody else.
    """
    found = opened(folder, trust)
    require(which in get_args(Which), "which", " or ".join(get_args(Which)), which)
    like = stored_learner(found)
    if which == "best":
        return found.load_best(like).policy.on_host()
    learner, _, warnings = found.load(like)
    for warning in warnings:
        SilentReporter().warn(warning)
    return learner.policy.on_host()


def evaluate(
    policy: Policy | Run | str | Path,
    environment: EnvironmentLike | None = None,
    episodes: int = 100,
    *,
    which: Which = "latest",
    deterministic: bool = True,
    seed: int | None = None,
    max_episode_steps: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    wrapper: str | None = None,
    trust: bool = False,
) -> Evaluation:
    """Play fresh episodes, taking the most probable action, or one drawn from the policy if not
    `deterministic`.

    Of a run, or a run folder, everything that is not given is the run's own: the environment and
    what is asked of it, and the seed. `which` and `trust` are those of `load`. A policy needs an
    environment, and has the seed 0. The episodes of a seed are the same at every call, and never
    those of a training run.

    **Raises:** `LogpiError` where the environment's spaces are not those of the policy, and as
    `load`.
    """
    require(is_whole(episodes) and episodes >= 1, "episodes", "a whole number >= 1", episodes)
    asked = (max_episode_steps, env_kwargs, wrapper)
    played, made, seed = playable(policy, environment, which, seed, trust, asked)
    sampler = make_sampler(made, min(COPIES, episodes), seed)
    try:
        return Evaluation(*sampler.evaluate(played, episodes, deterministic))
    finally:
        sampler.close()


def playable(
    policy: Policy | Run | str | Path,
    environment: EnvironmentLike | None,
    which: Which,
    seed: int | None,
    trust: bool,
    asked: tuple[int | None, Mapping[str, Any] | None, str | None],
) -> tuple[Policy, HostEnvironment | CompiledEnvironment, int]:
    """A policy, the environment to play it in, and the seed of its episodes: those of a run where
    nothing else is asked for. `asked` are `max_episode_steps`, `env_kwargs` and `wrapper`.

    **Raises:** `LogpiError` where they do not fit, and as `load`.
    """
    if seed is not None:
        require_seed(seed)
    known = isinstance(policy, Policy | Run | str | Path)
    require(known, "policy", "a policy, a run or its folder", policy)
    if isinstance(policy, Policy):
        if environment is None:
            raise LogpiError("a policy by itself does not name its environment: give one")
        played = policy
        options = NO_OPTIONS.replaced(*asked)
    else:
        folder = _folder_of(policy)
        played = load(folder, which=which, trust=trust)
        settings = RunFolder.open(folder).settings
        environment = environment or settings.environment
        options = settings.environment_options.replaced(*asked)
        if seed is None:
            seed = settings.seed
    made = make_environment(environment, options)
    require_fitting(played, made.spec)
    made = replace(made, spec=replace(made.spec, origin=played.origin))
    return played, made, seed or 0


def _folder_of(run: Run | str | Path) -> Path:
    if isinstance(run, Run):
        return run.folder
    return Path(run)


def opened(folder: str | Path, trust: bool) -> RunFolder:
    """The folder of a run that names no code but what this user agrees to.

    **Raises:** `LogpiError`.
    """
    found = RunFolder.open(Path(folder))
    if trust:
        found.trust()
    found.require_trusted()
    return found


def stored_learner(found: RunFolder) -> Learner:
    """A learner of the run's structure, from what config.json says of the environment."""
    settings = found.settings
    path = found.path / "config.json"
    stored = found.config.get("environment")
    if not isinstance(stored, dict):
        raise LogpiError(f"{path} does not describe its environment")
    nested = stored.get("unflattened")
    try:
        spec = EnvironmentSpec(
            name=settings.environment,
            observation_space=space_from_json(stored["observation_space"]),
            action_space=space_from_json(stored["action_space"]),
            max_episode_steps=int(stored["max_episode_steps"]),
            reward_threshold=None,
            identity={},
            masked=bool(stored["masked"]),
            origin=stored_origin(found),
            unflattened=None if nested is None else space_from_json(nested),
        )
    except (LogpiError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise LogpiError(f"{path} does not describe its environment: {shown(error)}") from None
    require_plausible(found, settings.algorithm, spec)
    return settings.algorithm.make_learner(spec, settings.seed)


def require_plausible(found: RunFolder, method: Method, spec: EnvironmentSpec) -> None:
    """Refuse a configuration that asks for a network of more numbers than its checkpoints have.

    **Raises:** `LogpiError`, before such a network is made.
    """
    observation = spec.observation_space
    widths = [] if method.network is not None else list(method.hidden or ())
    if method.memory != "none":
        widths = [method.memory_size, method.memory_size, *widths]
    if isinstance(observation, gym.spaces.Discrete):
        widths = [int(observation.n), *(widths or [1])]
    actions = int(gym.spaces.flatdim(spec.action_space))
    numbers = actions + sum(into * out for into, out in itertools.pairwise([*widths, actions]))
    largest = found.largest_checkpoint()
    if 4 * numbers > largest:
        asked = f"asks for {numbers:,} numbers, its checkpoints have {largest:,} bytes"
        raise LogpiError(f"{found.path / 'config.json'} {asked}")


def stored_origin(found: RunFolder) -> tuple[float, ...] | None:
    """From where the run sees its observations, whatever the environment begins with now."""
    environment = found.config.get("environment")
    origin = environment.get("origin") if isinstance(environment, dict) else None
    if isinstance(origin, list) and all(map(is_real, origin)):
        return tuple(map(float, origin))
    return None
