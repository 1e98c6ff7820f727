"""Every setting of a run as plain data: what the command line shows, a file gives, and a run folder
records.
"""

import dataclasses
import difflib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from logpi.core.checks import (
    as_python_value,
    is_real,
    is_text,
    is_whole,
    require,
    require_seed,
    shown,
    step_count,
)
from logpi.core.errors import LogpiError
from logpi.core.foreign import one_line
from logpi.core.user_files import is_file_source
from logpi.environments.options import EnvironmentOptions
from logpi.methods.method import Method
from logpi.methods.registry import METHODS, name_of_method
from logpi.methods.reinforce import Reinforce
from logpi.sampling.seam import SHARE_SIZE, OnFault, Ray, Rollouts

RolloutsName: TypeAlias = Literal["local", "ray"]
# The return at which a run stops; "solved": the one that the environment calls solved.
StopAt: TypeAlias = float | Literal["solved"]


@dataclass(frozen=True)
class Settings:
    """One training run: which environment, which method, how long, from which seed.

    **Raises:** `LogpiError` for a value out of its range.
    """

    environment: str
    algorithm: Method = dataclasses.field(default_factory=Reinforce)
    steps: int = 100_000
    seed: int = 0
    max_episode_steps: int | None = None
    env_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    wrapper: str | None = None
    workers: int | None = None
    share_size: int = SHARE_SIZE
    rollouts: RolloutsName = "local"
    ray_address: str | None = None
    mixed_hardware: bool = False
    devices: int | None = None
    checkpoint_every: int | None = None
    evaluate_every: int | None = None
    stop_at: StopAt | None = None
    step_limit: float | None = 300.0
    on_fault: OnFault = "stop"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = as_python_value(getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        require(is_text(self.environment), "environment", "a name", self.environment)
        known = type(self.algorithm) in METHODS.values()
        require(known, "algorithm", "an options object such as logpi.PPO()", self.algorithm)
        object.__setattr__(self, "steps", step_count(self.steps))
        require_seed(self.seed)
        _ = self.environment_options  # which refuses what does not fit
        least_of = {"workers": 0, "devices": 1, "checkpoint_every": 1, "evaluate_every": 0}
        for name, least in least_of.items():
            value = getattr(self, name)
            valid = value is None or (is_whole(value) and value >= least)
            require(valid, name, f"a whole number >= {least}", value)
        valid = is_whole(self.share_size) and self.share_size >= 1
        require(valid, "share_size", "a whole number >= 1", self.share_size)
        stop_at = self.stop_at
        known = stop_at in (None, "solved") or (is_real(stop_at) and math.isfinite(stop_at))
        require(known, "stop_at", "a return, or solved", stop_at)
        limit = self.step_limit
        in_range = limit is None or (is_real(limit) and 0 < limit < 1e6)
        require(in_range, "step_limit", "a number of seconds, or none", limit)
        for name, choices in (
            ("on_fault", get_args(OnFault)),
            ("rollouts", get_args(RolloutsName)),
        ):
            value = getattr(self, name)
            require(value in choices, name, " or ".join(choices), value)
        known = self.ray_address is None or is_text(self.ray_address)
        require(known, "ray_address", "an address such as auto", self.ray_address)
        is_flag = self.mixed_hardware in (True, False)
        require(is_flag, "mixed_hardware", "true or false", self.mixed_hardware)

    @property
    def environment_options(self) -> EnvironmentOptions:
        """What is asked of the environment beside its name."""
        return EnvironmentOptions(self.max_episode_steps, self.env_kwargs, self.wrapper)

    @property
    def where(self) -> Rollouts:
        """Where the copies of the environment are played."""
        ray = Ray(self.ray_address) if self.rollouts == "ray" else None
        return Rollouts(self.workers, self.share_size, ray, self.mixed_hardware, self.devices)

    def to_json(self) -> dict[str, object]:
        """Flat, as `from_json` and `--config` read it."""
        own = {name: getattr(self, name) for name in _GENERAL}
        options = dataclasses.asdict(cast(Any, self.algorithm))
        return {**own, "algorithm": name_of_method(self.algorithm), **options}

    def located(self, directory: Path) -> "Settings":
        """The settings with files that exist in `directory` named from there, so that they are
        found from anywhere.
        """
        method = cast(Any, self.algorithm)
        sources = {
            name: _located(getattr(method, name), directory)
            for name in ("network", "estimator", "reference")
            if getattr(method, name, None) is not None
        }
        return dataclasses.replace(
            self,
            environment=_located(self.environment, directory),
            wrapper=None if self.wrapper is None else _located(self.wrapper, directory),
            algorithm=dataclasses.replace(method, **sources),
        )

    @staticmethod
    def from_json(fields: object, source: str) -> "Settings":
        """Settings from a mapping of flat names to values.

        **Raises:** `LogpiError` that names `source` for a name that does not exist or a value that
        does not fit.
        """
        if not isinstance(fields, Mapping):  # what a file holds may be anything
            given = shown(fields)
            raise LogpiError(f"{source}: settings must be names with values, not {given}")
        values = {str(name): _as_option(x) for name, x in cast(Mapping[Any, Any], fields).items()}
        name = values.pop("algorithm", "reinforce")
        if not is_text(name) or name not in METHODS:
            known = ", ".join(METHODS)
            raise LogpiError(f"{source}: unknown algorithm {shown(name)}; known: {known}")
        kind = METHODS[name]
        options = {field.name for field in dataclasses.fields(cast(Any, kind))}
        _require_known(values, options | {*_GENERAL}, source)
        if "environment" not in values:
            raise LogpiError(f"{source}: no environment is named")
        own = {key: value for key, value in values.items() if key in _GENERAL}
        try:
            algorithm = kind(**{key: value for key, value in values.items() if key in options})
            return Settings(algorithm=algorithm, **own)
        except (LogpiError, TypeError, ValueError, ArithmeticError) as error:
            raise LogpiError(f"{source}: {one_line(str(error))}") from None


# The settings that are no options of a method.
_GENERAL = tuple(field.name for field in dataclasses.fields(Settings) if field.name != "algorithm")


def _located(source: str, directory: Path) -> str:
    """FILE.py:NAME, `finite:FILE.json` or a folder with its absolute path, if it is there."""
    prefix = "finite:" if source.startswith("finite:") else ""
    file, colon, name = source.removeprefix(prefix).rpartition(":")
    if is_file_source(source):
        rest = colon + name
    else:
        file = source.removeprefix(prefix)
        rest = ""
    path = directory / file
    if os.path.exists(path):  # False too for a name that no file can have
        return f"{prefix}{path}{rest}"
    return source


def _require_known(values: Mapping[str, Any], known: set[str], source: str) -> None:
    unknown = [name for name in values if name not in known]
    if unknown:
        name = unknown[0][:100]
        near = difflib.get_close_matches(name, sorted(known), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise LogpiError(f"{source}: unknown setting {name!r}{hint}")


def _as_option(value: object) -> Any:
    """Files have lists where options are tuples."""
    if isinstance(value, list):
        return tuple(cast(list[Any], value))
    return value


def read_settings(path: Path) -> dict[str, Any]:
    """The names and values in a YAML or JSON file of settings, or in a run's config.json.

    **Raises:** `LogpiError` where it cannot be read.
    """
    import yaml

    is_json = path.suffix == ".json"
    try:
        text = path.read_text()
        fields: Any = json.loads(text) if is_json else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise LogpiError(f"{path} cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        kind = "JSON" if is_json else "YAML"
        raise LogpiError(f"{path} is not {kind}: {' '.join(str(error).split())}") from None
    if isinstance(fields, dict) and "settings" in fields:
        fields = cast(dict[Any, Any], fields)["settings"]
    if not isinstance(fields, dict):
        raise LogpiError(f"{path} must hold settings by name, such as `steps: 200000`")
    return {key: as_number(value) for key, value in cast(dict[Any, Any], fields).items()}


def parse_value(text: str) -> Any:
    """A value as YAML writes it: a number, true, a list, or the text itself.

    **Raises:** `LogpiError`.
    """
    import yaml

    try:
        return as_number(yaml.safe_load(text))
    except yaml.YAMLError:
        raise LogpiError(f"{text!r} is no value") from None


def as_number(value: object) -> Any:
    """YAML 1.1 reads 3e6 as text; people write it as a number."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]*\d[eE][-+]?\d+", value):
        return float(value)
    return value
