"""What an estimator may ask for: the names of its parameters, in checking and in training alike.

An estimator is a function whose parameter names select what it gets. It returns the scalar loss
that its author would minimise, or an array shaped as `log_prob`: the weights of ∇ log π.
"""

import difflib
import inspect
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeAlias

from logpi.core.errors import LogpiError
from logpi.core.user_files import inner_function, name_of

Estimator: TypeAlias = Callable[..., Any]
Layout: TypeAlias = Literal["batch", "episode", "rollout"]

# The shapes are those of the batch layout; "episode" drops [episodes], "rollout" has [time, env].
NAMES: Mapping[str, str] = {
    "log_prob": "[episodes, time] log π(a_t|s_t; θ), differentiable",
    "logits": "[episodes, time, actions] of π(·|s_t; θ), differentiable",
    "entropy": "[episodes, time] entropy of π(·|s_t; θ), differentiable",
    "observation": "[episodes, time] what was seen (in a check: its number)",
    "action": "[episodes, time]",
    "reward": "[episodes, time] the reward that answers action a_t; 0 after the end",
    "terminated": "[episodes, time] the environment ended the episode with this step",
    "truncated": "[episodes, time] the time limit ended it",
    "done": "[episodes, time] terminated or truncated",
    "mask": "[episodes, time] true for the steps of the episode, false for padding",
    "step": "[episodes, time] t",
    "length": "[episodes] number of steps T",
    "discount": "γ, a number",
    "value": "[episodes, time] a critic's V(s_t), differentiable",
    "next_value": (
        "[episodes, time] V(s_{t+1}), of the true final state where the episode ends;"
        " differentiable"
    ),
    "last_value": (
        "[episodes] V of the state after the last step;"
        " in a rollout, of the state that it goes on from; differentiable"
    ),
    "old_log_prob": (
        "[episodes, time] log-probability of a_t under the policy before the update, which drew it"
        " unless sampling_log_prob is asked for"
    ),
    "sampling_log_prob": (
        "[episodes, time] log-probability of a_t under the law that really drew it, such as an"
        " inference engine"
    ),
    "reference_log_prob": "[episodes, time] log-probability of a_t under a reference policy",
    "group": "[episodes] number of the prompt; episodes of one prompt form a group",
    "policy": (
        "an object with log_prob(observation, action), logits(observation) and entropy(observation)"
    ),
}
# What authors of losses for language models call them.
ALIASES: Mapping[str, str] = {
    "completion_mask": "mask",
    "response_mask": "mask",
    "per_token_logps": "log_prob",
    "old_per_token_logps": "old_log_prob",
    "ref_per_token_logps": "reference_log_prob",
    "sampling_per_token_logps": "sampling_log_prob",
    "prompt_id": "group",
    "rewards": "reward",
}
# The alias that has one number for each episode: the sum over its steps.
SUMMED = "rewards"
CRITIC = ("value", "next_value", "last_value")
DIFFERENTIABLE = ("log_prob", "logits", "entropy", "policy", *CRITIC)


def as_estimator(function: Estimator, layout: Layout = "batch") -> Estimator:
    """The function by the names of `NAMES`, whatever aliases it asks for; of a module with a
    `forward`, that.

    **Raises:** `LogpiError` for a class, of which an instance is needed.
    """
    name = name_of(function)
    if isinstance(function, type):
        raise LogpiError(f"{name} is a class: give an instance of it, such as loss = {name}()")
    written = inner_function(function)
    if not hasattr(written, "__code__") and hasattr(written, "forward"):  # of PyTorch
        written = written.forward
    is_module = written is not inner_function(function)
    try:
        parameters = inspect.signature(written if is_module else function).parameters
    except (TypeError, ValueError):
        return function
    given: Mapping[str, Any] = {}
    if isinstance(function, partial):
        given = function.keywords
    renamed = {
        alias: ALIASES[alias] for alias in parameters if alias in ALIASES and alias not in given
    }
    if not renamed and not is_module:
        return function
    if layout == "rollout" and SUMMED in renamed:
        raise LogpiError(f"{name} asks for {SUMMED!r}, one for each episode: a rollout has streams")

    def call_by_alias(**inputs: Any) -> Any:
        named = {key: inputs[key] for key in inputs if key in parameters}
        for alias, key in renamed.items():
            named[alias] = inputs[key]
        if SUMMED in renamed:
            named[SUMMED] = inputs[renamed[SUMMED]].sum(-1)
        return function(**named)

    asked = dict.fromkeys(renamed.get(key, key) for key in parameters if key not in given)
    signature = [
        parameters.get(key) or inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY)
        for key in asked
    ]
    ordered = sorted(signature, key=lambda each: each.kind)
    call_by_alias.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    call_by_alias.__wrapped__ = written  # type: ignore[attr-defined]
    return call_by_alias


def _listed(known: Mapping[str, str]) -> str:
    """The names that may be asked for, and what libraries for language models call some of them."""
    names = ", ".join(known)
    aliases = ", ".join(alias for alias, name in ALIASES.items() if name in known)
    if not aliases:
        return names
    return f"{names}; as libraries for language models call them: {aliases}"


def requested_names(estimator: Estimator, known: Mapping[str, str] = NAMES) -> tuple[str, ...]:
    """The names that an estimator asks for; what a partial gives, and defaults of other names, stay
    as they are.

    **Raises:** `LogpiError` for a name that does not exist.
    """
    called = name_of(estimator)
    try:
        parameters = inspect.signature(estimator).parameters.values()
    except (TypeError, ValueError):
        raise LogpiError(f"{called} is not a function whose parameters can be read") from None
    names: list[str] = []
    if isinstance(estimator, partial):
        given = estimator.keywords
    else:
        given = {}
    for parameter in parameters:
        if parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
            parameter.POSITIONAL_ONLY,
        ):
            raise LogpiError(
                f"{called} must name what it gets: {parameter} does not. Known: {_listed(known)}"
            )
        if parameter.name in known and parameter.name not in given:
            names.append(parameter.name)
        elif parameter.default is parameter.empty:
            near = difflib.get_close_matches(parameter.name, [*known, *ALIASES], 1)
            hint = "."
            if near:
                hint = f"; did you mean {near[0]!r}?"
            unknown = f"{parameter.name!r}, which does not exist{hint}"
            raise LogpiError(f"{called} asks for {unknown} Known: {_listed(known)}")
    if not names:
        raise LogpiError(f"{called} asks for nothing. Known: {_listed(known)}")
    return tuple(names)


@contextmanager
def blame(function: Estimator) -> Iterator[None]:
    """Exceptions of the user's function, or of differentiating it, as one line that says where.

    **Raises:** `LogpiError`.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except LogpiError:
        raise
    except (Exception, SystemExit) as error:
        name = name_of(function)
        inner = inner_function(function)
        code = getattr(inner, "__code__", None) or getattr(type(inner).__call__, "__code__", None)
        file = getattr(code, "co_filename", None)
        frames = traceback.extract_tb(error.__traceback__)
        where = next((f" at line {f.lineno}" for f in reversed(frames) if f.filename == file), "")
        text = " ".join(str(error).split())
        if "read-only" in text or "read only" in text:
            raise LogpiError(
                f"{name} changes its inputs in place{where}: work on a copy"
            ) from error
        raise LogpiError(f"{name} raised {type(error).__name__}{where}: {text}") from error


def call(function: Estimator, inputs: Mapping[str, Any]) -> Any:
    """What the user's function returns.

    **Raises:** `LogpiError` where it fails.
    """
    with blame(function):
        return function(**inputs)


def shape_of(output: Any, expected: tuple[int, ...], name: str) -> tuple[int, ...]:
    """() for a loss, that of `log_prob` for weights.

    **Raises:** `LogpiError` for anything else.
    """
    if isinstance(output, int | float):
        shape = ()
    else:
        shape = getattr(output, "shape", None)
    kind = str(getattr(output, "dtype", "float"))
    if shape is not None and not any(number in kind for number in ("float", "int", "bool")):
        raise LogpiError(f"{name} returned numbers of type {kind}: return real numbers")
    if "float16" in kind:
        raise LogpiError(
            f"{name} returned numbers of type {kind}, which keep two or three digits: return"
            " float32 or float64"
        )
    if (
        output is None
        or shape is None
        or isinstance(output, bool)
        or (tuple(shape) == () and "bool" in kind)
    ):
        raise LogpiError(
            f"{name} returned {'nothing' if output is None else type(output).__name__}: return the"
            " scalar loss, or an array of weights shaped as log_prob"
        )
    if tuple(shape) not in ((), expected):
        raise LogpiError(
            f"{name} returned an array of shape {tuple(shape)}: return the scalar loss, or weights"
            f" of the shape of log_prob, here {expected}"
        )
    return tuple(shape)
