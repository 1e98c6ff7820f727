"""`logpi doctor ENV`: is an environment what it says it is, and what will be made of it?"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
from numpy import ndarray

from logpi.core.checks import is_whole, require
from logpi.core.errors import LogpiError
from logpi.core.foreign import describe, exits_raised
from logpi.core.quantities import BEYOND, LARGEST
from logpi.environments.host.group import EnvironmentFailure, reset_answer, step_answer
from logpi.environments.options import NO_OPTIONS, EnvironmentOptions
from logpi.environments.registry import EnvironmentLike, make_environment
from logpi.environments.spec import CompiledEnvironment, EnvironmentSpec, HostEnvironment
from logpi.networks.encoder import Encoder
from logpi.networks.options import NetworkOptions
from logpi.networks.policy import make_policy

# Random actions for which two copies of an episode are compared.
COMPARED = 200
# Beyond this a network that sees observations as they are learns badly.
LARGE = 100.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `ok`, `note` (allowed, but know it) or `wrong` (training would
    go astray).
    """

    what: str
    status: Literal["ok", "note", "wrong"]
    text: str

    def __str__(self) -> str:
        return f"{self.status:5s}  {self.what:13s} {self.text}"


class Step(NamedTuple):
    """What an environment answered; `observation` is what was reached."""

    observation: ndarray
    reward: float
    terminated: bool
    truncated: bool


class Copy(NamedTuple):
    """One copy of an environment of any kind."""

    reset: Callable[[int], ndarray]
    step: Callable[[Any], Step]


def _copies(environment: HostEnvironment | CompiledEnvironment) -> Callable[[], Copy]:
    """Makes copies; the environment's own exceptions come out as one line."""
    if isinstance(environment, CompiledEnvironment):
        return _compiled_copy(environment)
    if environment.pool is not None:
        raise LogpiError(
            f"{environment.spec.name} is stepped by its package, which gives no single copies to"
            " look at"
        )
    make = environment.make
    assert make is not None

    def copy() -> Copy:
        made = make()

        def step(action: Any) -> Step:
            observation, reward, terminated, truncated = step_answer(
                0, made.step(action), environment.spec.masked
            )
            return Step(np.array(observation), reward, terminated, truncated)

        def start(seed: int) -> ndarray:
            # a copy: some return their own array
            return np.array(reset_answer(0, made.reset(seed=seed)))

        return Copy(start, step)

    return copy


def _compiled_copy(environment: CompiledEnvironment) -> Callable[[], Copy]:
    import jax

    from logpi.core.programs import keep_programs

    keep_programs()
    reset = jax.jit(environment.reset)
    step = jax.jit(environment.step)

    def copy() -> Copy:
        now: dict[str, Any] = {}

        def start(seed: int) -> ndarray:
            now["key"] = jax.random.key(seed)
            now["state"], observation = reset(now["key"])
            return np.asarray(observation)

        def advance(action: Any) -> Step:
            now["key"], key = jax.random.split(now["key"])
            if isinstance(action, tuple | dict):  # one row, as training gives it
                given = np.concatenate([np.ravel(part) for part in jax.tree.leaves(action)])
            else:
                given = np.asarray(action)
            now["state"], *answer = step(key, now["state"], given)
            observation, reward, terminated, truncated = map(np.asarray, answer)
            return Step(observation, float(reward), bool(terminated), bool(truncated))

        return Copy(start, advance)

    return copy


@exits_raised()
def examine(
    environment: EnvironmentLike, steps: int = 2000, options: EnvironmentOptions = NO_OPTIONS
) -> list[Finding]:
    """Play random actions and compare what comes back with what was declared.

    **Raises:** `LogpiError` where the environment cannot be made, or fails while it is played.
    """
    require(is_whole(steps) and steps >= 1, "steps", "a whole number >= 1", steps)
    made = make_environment(environment, options)
    spec = made.spec
    copies = _copies(made)
    policy = make_policy(
        spec.observation_space,
        spec.action_space,
        NetworkOptions(),
        np.random.default_rng(0),
        unflattened=spec.unflattened,
    )
    try:
        played = list(_play(copies(), spec, steps))
        repeated = [list(_play(copies(), spec, COMPARED)) for _ in range(2)]
        starts = [np.asarray(copies().reset(seed)) for seed in range(5)]
        seconds = _step_time(copies(), spec)
    except EnvironmentFailure as failure:
        raise LogpiError(f"{spec.name}: {failure.message}") from failure
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise LogpiError(f"{spec.name} failed: {describe(error)}") from error
    seen = _named(spec.observation_space)
    if spec.masked:
        seen += ", the mask first"
    if policy.encoder.images:
        shapes = ", ".join(str(image.given) for image in policy.encoder.images)
        seen += f"; images go through convolutions: {shapes}"
    network = f"{policy.encoder.size} features, {policy.head.size} outputs of the network"
    return [
        Finding("observations", "ok", seen),
        Finding("actions", "ok", _named(spec.action_space)),
        *_observations(spec, played, policy.encoder),
        *_rewards(played),
        *_ends(spec, played),
        *_repeats(repeated[0], repeated[1], starts),
        Finding("speed", "ok", f"{1 / seconds:,.0f} steps/s for one copy, with random actions"),
        Finding("policy", "ok", network),
    ]


def _named(space: gym.Space) -> str:
    """A Box without its tables of bounds."""
    if isinstance(space, gym.spaces.Box):
        bounds = f"[{space.low.min():.4g}, {space.high.max():.4g}]"
        return f"Box of shape {space.shape}, {space.dtype}, in {bounds}"
    return str(space)


def _action(spec: EnvironmentSpec, observation: ndarray) -> Any:
    if spec.masked:
        allowed = observation[: spec.action_space.n] > 0  # type: ignore[attr-defined]
        return spec.action_space.sample(allowed.astype(np.int8))
    return spec.action_space.sample()


def _play(copy: Copy, spec: EnvironmentSpec, steps: int) -> Iterator[tuple[int, ndarray, Step]]:
    """(t, observation acted on, answer) of episodes one after the other, seeds and actions the same
    at every call.
    """
    spec.action_space.seed(0)
    episode = 0
    t = 0
    observation = copy.reset(0)
    for _ in range(steps):
        answer = copy.step(_action(spec, observation))
        yield t, observation, answer
        observation = answer.observation
        t = t + 1
        if answer.terminated or answer.truncated or t == spec.max_episode_steps:
            episode = episode + 1
            t = 0
            observation = copy.reset(episode)


def _observations(
    spec: EnvironmentSpec, played: list[tuple[int, ndarray, Step]], encoder: Encoder
) -> Iterator[Finding]:
    space = spec.observation_space
    seen = [x for _, before, answer in played for x in (before, answer.observation)]
    first = np.asarray(seen[0])
    if isinstance(space, gym.spaces.Box) and first.dtype != space.dtype:
        yield Finding(
            "observations", "note", f"come as {first.dtype}, the space declares {space.dtype}"
        )
    arrays = [np.asarray(x) for x in seen]
    shapes = {x.shape for x in arrays} - {space.shape}
    if shapes:
        yield Finding(
            "observations", "wrong", f"shape {shapes.pop()}, the space declares {space.shape}"
        )
        return
    values = np.stack(arrays)
    if not np.isfinite(values).all():
        yield Finding("observations", "wrong", "are not finite")
        return
    largest = np.abs(values).max()
    if largest > LARGEST:
        yield Finding("observations", "wrong", f"reach {largest:.3g}, {BEYOND}")
        return
    if isinstance(space, gym.spaces.Box):
        outside = (values < space.low) | (values > space.high)
        if outside.any():
            share = outside.reshape(len(values), -1).any(-1).mean()
            yield Finding(
                "observations",
                "note",
                f"lie outside the bounds of the space in {share:.1%} of the steps",
            )
        numbers = encoder.numbers(values)
        largest = np.abs(numbers).max(initial=0)
        if largest > LARGE:
            text = f"up to {largest:.3g}: standardise them, as training does by default"
            yield Finding("observations", "note", text)
    elif isinstance(space, gym.spaces.Discrete):
        inside = (values >= space.start) & (values < space.start + space.n)
        if not inside.all():
            yield Finding("observations", "wrong", f"lie outside {space}")


def _rewards(played: list[tuple[int, ndarray, Step]]) -> Iterator[Finding]:
    rewards = np.array([float(answer.reward) for *_, answer in played])
    if not np.isfinite(rewards).all():
        yield Finding("rewards", "wrong", "are not finite")
        return
    largest = np.abs(rewards).max()
    if largest > LARGEST:
        yield Finding("rewards", "wrong", f"reach {largest:.3g}, {BEYOND}")
        return
    text = f"{rewards.min():.3g} to {rewards.max():.3g}, mean {rewards.mean():.3g}"
    if rewards.min() == rewards.max() == 0:
        yield Finding(
            "rewards",
            "note",
            "all rewards were 0 under random actions: learning can only start once a policy"
            " meets another",
        )
    else:
        yield Finding("rewards", "ok", text)


def _ends(spec: EnvironmentSpec, played: list[tuple[int, ndarray, Step]]) -> Iterator[Finding]:
    limit = spec.max_episode_steps
    ends = [
        (t + 1, bool(a.terminated), bool(a.truncated))
        for t, _, a in played
        if a.terminated or a.truncated
    ]
    cut = sum(t + 1 == limit and not (a.terminated or a.truncated) for t, _, a in played)
    lengths = [length for length, *_ in ends]
    if ends:
        terminated = sum(is_terminated for _, is_terminated, _ in ends)
        truncated = sum(is_truncated for _, _, is_truncated in ends)
        text = (
            f"{len(ends)}: {terminated} terminated, {truncated} truncated, mean length"
            f" {np.mean(lengths):.1f}"
        )
        yield Finding("episodes", "ok", f"{text}, time limit {limit}")
    if cut:
        yield Finding(
            "episodes", "note", f"{cut} did not end by themselves and were cut after {limit} steps"
        )
    elif not ends:
        yield Finding(
            "episodes", "note", f"none ended in {len(played)} steps; they are cut after {limit}"
        )
    both = sum(terminated and truncated for _, terminated, truncated in ends)
    if both:
        yield Finding(
            "episodes", "note", f"{both} terminated and truncated at once, taken as terminated"
        )


def _repeats(one: list[Any], other: list[Any], starts: list[ndarray]) -> Iterator[Finding]:
    """The same seeds and actions give the same episodes; other seeds give other ones."""
    for (t, before, answer), (_, again, answered) in zip(one, other, strict=True):
        pairs = [(before, again), *zip(answer, answered, strict=True)]
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in pairs):
            text = (
                f"the same seed and actions give another episode from step {t} on: a resumed run"
                " goes on otherwise"
            )
            yield Finding("seeds", "wrong", text)
            return
    if all(np.array_equal(starts[0], start) for start in starts[1:]):
        yield Finding("seeds", "note", "every seed starts alike")
    else:
        yield Finding(
            "seeds", "ok", "the same seed and actions give the same episode, other seeds other ones"
        )


def _step_time(copy: Copy, spec: EnvironmentSpec, seconds: float = 0.2) -> float:
    count = 0
    started = time.perf_counter()
    for _ in _play(copy, spec, 10**6):
        count += 1
        if time.perf_counter() - started > seconds:
            break
    return (time.perf_counter() - started) / count


def to_json(findings: list[Finding]) -> list[dict[str, str]]:
    """The findings as JSON."""
    return [asdict(finding) for finding in findings]
