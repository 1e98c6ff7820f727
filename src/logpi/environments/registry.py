"""From what a user writes to an environment: an id, `PACKAGE:ID`, `FILE:NAME`, a factory, a
FiniteMDP.
"""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np

from logpi.core.checks import shown
from logpi.core.errors import LogpiError
from logpi.core.foreign import exits_raised, faults_ignored, one_line
from logpi.core.signals import CLOSING, at_most
from logpi.core.user_files import is_file_source, load_from_file, name_of
from logpi.environments.options import NO_OPTIONS, EnvironmentOptions, digest_of
from logpi.environments.spec import (
    ATARI_LIMIT,
    UNDECLARED_LIMIT,
    CompiledEnvironment,
    EnvironmentSpec,
    HostEnvironment,
    near_names,
    origin_of,
    stored_dtype,
)
from logpi.environments.views import MaskFirst, policy_view, unflattened_space
from logpi.theory.mdp import FiniteMDP
from logpi.theory.processes import load_mdp

EnvironmentLike: TypeAlias = (
    str | FiniteMDP | CompiledEnvironment | HostEnvironment | Callable[..., gym.Env]
)

# Packages whose environments Gymnasium knows once they are imported, by the beginning of their ids.
_PACKAGES = {"ALE/": "ale_py", "MiniGrid-": "minigrid", "BabyAI-": "minigrid"}

_EXTRAS = {
    "box2d": "box2d",
    "mujoco": "mujoco",
    "ale": "atari",
    "atari": "atari",
    "cv2": "atari",
    "opencv": "atari",
    "minigrid": "minigrid",
    "babyai": "minigrid",
    "pygame": "classic-control",
}


def make_environment(
    source: EnvironmentLike, options: EnvironmentOptions = NO_OPTIONS
) -> HostEnvironment | CompiledEnvironment:
    """The environment that `source` names or is, with what is asked of it.

    A finite MDP and what is made already take no options. A Gymnasium environment that declares no
    time limit gets `UNDECLARED_LIMIT`.

    **Raises:** `LogpiError` with the near names for an unknown one, the extra to install for a
    missing package, and where an option does not fit.
    """
    match source:
        case HostEnvironment() | CompiledEnvironment():
            return _as_made(source, options)
        case FiniteMDP():
            return _finite(source, "finite-mdp", options)
        case str() if source.startswith("gymnax:"):
            from logpi.environments.compiled.gymnax import gymnax_environment

            return gymnax_environment(source.removeprefix("gymnax:"), options)
        case str() if source.startswith("brax:"):
            from logpi.environments.compiled.brax import brax_environment

            return brax_environment(source.removeprefix("brax:"), options)
        case str() if source.startswith("jumanji:"):
            from logpi.environments.compiled.jumanji import jumanji_environment

            return jumanji_environment(source.removeprefix("jumanji:"), options)
        case str() if source.startswith("envpool:"):
            from logpi.environments.host.pool import pool_environment

            return pool_environment(source.removeprefix("envpool:"), options)
        case str() if source.startswith("vector:"):
            return _vector(source.removeprefix("vector:"), options)
        case str() if source.startswith("finite:"):
            return _finite(load_mdp(source.removeprefix("finite:")), source, options)
        case str() if is_file_source(source):
            made = load_from_file(source)
            if isinstance(made, FiniteMDP):
                return _finite(made, source, options)
            if isinstance(made, CompiledEnvironment):
                return _as_made(made, options)
            return make_host_environment(source, options)
        case str():
            return make_host_environment(source, options)
        case _:
            return make_host_environment(source, options)


def _as_made(
    environment: HostEnvironment | CompiledEnvironment, options: EnvironmentOptions
) -> HostEnvironment | CompiledEnvironment:
    options.require_none(environment.spec.name, environment.spec.max_episode_steps)
    if isinstance(environment, CompiledEnvironment):
        from logpi.environments.compiled.soundness import require_sound

        require_sound(environment)
    return environment


def _vector(name: str, options: EnvironmentOptions) -> HostEnvironment:
    from logpi.environments.host.vector import vector_environment

    with contextlib.suppress(ModuleNotFoundError):
        _register_package(name)
    return vector_environment(name, options)


def _finite(mdp: FiniteMDP, name: str, options: EnvironmentOptions) -> CompiledEnvironment:
    from logpi.environments.compiled.finite import finite_environment

    options.require_none(name, mdp.horizon)
    return finite_environment(mdp, name)


def make_host_environment(
    source: str | Callable[..., gym.Env], options: EnvironmentOptions
) -> HostEnvironment:
    """A Gymnasium environment by id, by `FILE:NAME`, or by a factory.

    **Raises:** `LogpiError` where it cannot be made.
    """
    if not isinstance(source, str):
        return _host(source, name_of(source), source, options, {})
    if is_file_source(source):
        file, _, name = source.rpartition(":")
        path = Path(file)
        identity = {}
        if path.is_file():
            identity["sha256"] = digest_of(path)
        return _host(load_from_file(source), source, f"{path.resolve()}:{name}", options, identity)
    return _host(partial(_make_registered, source), source, source, options, {})


@exits_raised()
def _host(
    factory: Any,
    name: str,
    source: str | Callable[..., gym.Env],
    options: EnvironmentOptions,
    identity: Mapping[str, object],
) -> HostEnvironment:
    if isinstance(factory, gym.Env):
        raise LogpiError(
            "give the environment's id or a factory, such as a function: copies of it are made"
        )
    first = options.make(factory, name)
    _require_environment(first, name)
    first = options.wrapped(first, name)
    _require_environment(first, f"{name} in {options.wrapper}")
    try:
        view = policy_view(first)
    except LogpiError as error:
        raise LogpiError(f"{name}: {error}") from None
    first = view(first)
    declared = _declared_limit(first)
    limit = options.max_episode_steps or declared or UNDECLARED_LIMIT
    spec = EnvironmentSpec(
        name=name,
        observation_space=first.observation_space,
        action_space=first.action_space,
        max_episode_steps=limit,
        reward_threshold=getattr(first.spec, "reward_threshold", None),
        identity={"gymnasium": version("gymnasium"), **identity, **options.identity()},
        masked=isinstance(first, MaskFirst),
        origin=_origin(first),
        unflattened=unflattened_space(first),
    )
    with faults_ignored(), at_most(CLOSING):
        first.close()

    def make() -> gym.Env:
        environment = view(options.wrapped(options.make(factory, name), name))
        if limit == declared:
            return environment
        return _limited(environment, limit)

    return HostEnvironment(spec, make, source, options)


def _require_environment(made: object, name: str) -> None:
    """Refuse what is no environment.

    **Raises:** `LogpiError`.
    """
    if not isinstance(made, gym.Env):
        raise LogpiError(f"{name} gives a {type(made).__name__}, not a gymnasium.Env")
    for name_of_space in ("observation_space", "action_space"):
        if not isinstance(getattr(made, name_of_space, None), gym.Space):
            raise LogpiError(f"{name} has no {name_of_space}")


def _origin(environment: gym.Env) -> tuple[float, ...] | None:
    """Where its observations begin; an error is reported by the first rollout, with its place."""
    space = environment.observation_space
    if stored_dtype(space) == np.float64:
        with faults_ignored():
            return origin_of(space, environment.reset(seed=0)[0])
    return None


def _declared_limit(environment: gym.Env) -> int | None:
    """The time limit of its registration, or of its outermost TimeLimit."""
    registered = getattr(environment.spec, "max_episode_steps", None)
    if registered is not None:
        return registered
    own = _time_limit(environment)
    if own is not None:
        return own._max_episode_steps
    return None


def _limited(environment: gym.Env, limit: int) -> gym.Env:
    """The environment with its own TimeLimit, if it has one, replaced by `limit`."""
    own = _time_limit(environment)
    if own is None:
        return gym.wrappers.TimeLimit(environment, limit)
    own._max_episode_steps = limit
    return environment


def _time_limit(environment: gym.Env) -> gym.wrappers.TimeLimit | None:
    """The outermost TimeLimit of a stack of wrappers."""
    while isinstance(environment, gym.Wrapper):
        if isinstance(environment, gym.wrappers.TimeLimit):
            return environment
        environment = environment.env
    return None


def _register_package(name: str) -> None:
    """Make a package's environments known to Gymnasium, if `name` is one of them.

    **Raises:** `ModuleNotFoundError`.
    """
    package = next(
        (package for start, package in _PACKAGES.items() if name.startswith(start)), None
    )
    if package is not None:
        gym.register_envs(import_module(package))


def _atari(environment: gym.Env) -> gym.Env:
    """84 × 84 grey, four frames a step and four steps stacked, up to 30 steps of nothing at the
    start.

    The time limit counts steps, so it stands outside of what makes a step of four frames.
    """
    stacked = gym.wrappers.FrameStackObservation(gym.wrappers.AtariPreprocessing(environment), 4)
    return gym.wrappers.TimeLimit(stacked, ATARI_LIMIT)


def _make_registered(name: str, **kwargs: Any) -> gym.Env:
    """gymnasium.make with errors for people; Atari with its standard wrappers."""
    try:
        _register_package(name)
        # The checker only warns, and costs a tenth of a cheap step; what it checks is checked for
        # every step here.
        if name.startswith("ALE/"):
            return _atari(gym.make(name, disable_env_checker=True, **{"frameskip": 1, **kwargs}))
        return gym.make(name, disable_env_checker=True, **kwargs)
    except gym.error.DependencyNotInstalled as error:
        entry = str(gym.spec(name).entry_point).lower()
        extra = next(
            (
                extra
                for word, extra in _EXTRAS.items()
                if word in entry or word in str(error).lower()
            ),
            None,
        )
        if extra:
            remedy = f"pip install 'logpi[{extra}]'"
        else:
            remedy = f"{error}"
        raise LogpiError(f"{name} needs a package that is not installed: {remedy}") from None
    except (gym.error.UnregisteredEnv, gym.error.DeprecatedEnv, ModuleNotFoundError) as error:
        extra = next((_EXTRAS[word] for word in _EXTRAS if word in name.lower()), None)
        if isinstance(error, ModuleNotFoundError) and extra:
            raise LogpiError(
                f"{name} needs a package that is not installed: pip install 'logpi[{extra}]'"
            ) from None
        hint = near_names(name[:100], gym.registry, one_line(str(error)))
        raise LogpiError(f"unknown environment {shown(name)}; {hint}") from None
