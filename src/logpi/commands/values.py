"""How the command line reads a value."""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from logpi.core.checks import step_count
from logpi.core.errors import LogpiError


def _parse_steps(arguments: list[str]) -> int:
    try:
        return step_count(float(arguments[0]))
    except (ValueError, LogpiError):
        raise ValueError(
            f"{arguments[0]!r} is not a whole number of steps from 1 to 1e15"
        ) from None


def _parse_steps_or_none(arguments: list[str]) -> int:
    return 0 if arguments[0] == "0" else _parse_steps(arguments)


def _reads_steps(parse: Callable[[list[str]], int]) -> PrimitiveConstructorSpec[int]:
    """How the command line reads a number of steps."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="STEPS",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [f"{value:_}"],
    )


Steps = Annotated[int, _reads_steps(_parse_steps)]
StepsOrNone = Annotated[int, _reads_steps(_parse_steps_or_none)]


def _parse_arguments(words: list[str]) -> dict[str, Any]:
    from logpi.runs.settings import parse_value

    pairs = [word.partition("=") for word in words]
    if not all(name and equals for name, equals, _ in pairs):
        raise ValueError(f"write it as gravity=-5, got {' '.join(words)!r}")
    return {name: parse_value(value) for name, _, value in pairs}


# How the command line reads the arguments of an environment.
EnvironmentArguments = Annotated[
    Mapping[str, Any],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE",
        instance_from_str=_parse_arguments,
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda value: [f"{name}={json.dumps(x)}" for name, x in value.items()],
    ),
]


def option_types() -> tyro.constructors.ConstructorRegistry:
    """How the command line reads an option that may change over the budget: as a number."""
    from logpi.core.arrays import Number

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def read_number(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> PrimitiveConstructorSpec[Any] | None:
        if info.type != Number:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="FLOAT",
            instance_from_str=lambda arguments: float(arguments[0]),
            is_instance=lambda value: isinstance(value, int | float),
            str_from_instance=lambda value: [str(value)],
        )

    return registry
