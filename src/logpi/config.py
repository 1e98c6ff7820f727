"""Every setting of a run, as plain data: what the command line shows, a file gives, and a run folder records."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from logpi.algorithm import ALGORITHMS, Algorithm, Reinforce, name_of_algorithm
from logpi.errors import LogpiError, as_python_values, real, require, string, whole


@dataclass(frozen=True)
class Settings:
    """One training run: which environment, which algorithm, how long, from which seed.

    **Raises:** `LogpiError` for a value out of its range.
    """

    environment: str
    algorithm: Algorithm = dataclasses.field(default_factory=Reinforce)
    steps: int = 100_000
    seed: int = 0
    max_episode_steps: int | None = None
    workers: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        as_python_values(self)
        require(string(self.environment), "environment", "a name", self.environment)
        require(type(self.algorithm) in ALGORITHMS.values(), "algorithm", "such as logpi.PPO()", self.algorithm)
        object.__setattr__(self, "steps", step_count(self.steps))
        require_seed(self.seed)
        for name, least in (("max_episode_steps", 1), ("workers", 0), ("checkpoint_every", 1)):
            value = getattr(self, name)
            valid = value is None or (whole(value) and value >= least)
            require(valid, name, f"a whole number >= {least}", value)

    def to_json(self) -> dict[str, Any]:
        """Flat, as `from_json` and `--config` read it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        algorithm = fields.pop("algorithm")
        return {**fields, "algorithm": name_of_algorithm(algorithm), **dataclasses.asdict(algorithm)}

    @staticmethod
    def from_json(fields: Any, source: str) -> "Settings":
        """Settings from a mapping of flat names to values.

        **Raises:** `LogpiError` that names `source` for a name that does not exist or a value that does not fit.
        """
        if not isinstance(fields, Mapping):  # what a file holds may be anything
            raise LogpiError(f"{source}: settings must be names with values, not {fields!r}")
        named = cast(Mapping[Any, Any], fields)
        rest: dict[str, Any] = {
            str(key): tuple(cast(list[Any], x)) if isinstance(x, list) else x for key, x in named.items()
        }
        name = rest.pop("algorithm", "reinforce")
        if not string(name) or name not in ALGORITHMS:
            raise LogpiError(f"{source}: unknown algorithm {name!r}; known: {', '.join(ALGORITHMS)}")
        kind = ALGORITHMS[name]
        own = {field.name for field in dataclasses.fields(kind)}
        general = {field.name for field in dataclasses.fields(Settings)} - {"algorithm"}
        unknown = [key for key in rest if key not in own | general]
        if unknown:
            import difflib

            near = difflib.get_close_matches(unknown[0], sorted(own | general), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise LogpiError(f"{source}: unknown setting {unknown[0]!r}{hint}")
        if "environment" not in rest:
            raise LogpiError(f"{source}: no environment is named")
        try:
            algorithm = kind(**{key: value for key, value in rest.items() if key in own})
            return Settings(algorithm=algorithm, **{key: value for key, value in rest.items() if key in general})
        except (LogpiError, TypeError) as error:
            raise LogpiError(f"{source}: {error}") from None


def read_settings(path: Path) -> Mapping[str, Any]:
    """The names and values in a YAML or JSON file of settings, or in a run's config.json.

    **Raises:** `LogpiError` where it cannot be read.
    """
    import yaml

    try:
        text = path.read_text()
        fields: Any = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise LogpiError(f"{path} cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise LogpiError(f"{path} is not {kind}: {' '.join(str(error).split())}") from None
    if isinstance(fields, dict) and "settings" in fields:
        fields = cast(dict[Any, Any], fields)["settings"]
    if not isinstance(fields, dict):
        raise LogpiError(f"{path} must hold settings by name, such as `steps: 200000`")
    return {key: _number(value) for key, value in cast(dict[Any, Any], fields).items()}


def _number(value: Any) -> Any:
    """YAML 1.1 reads 3e6 as text; people write it as a number."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]*\d[eE][-+]?\d+", value) else value


def require_seed(value: Any) -> None:
    """**Raises:** `LogpiError` for what is no seed."""
    require(whole(value) and 0 <= value < 2**32, "seed", "a whole number in [0, 2^32)", value)


def step_count(value: Any) -> int:
    """Environment steps: a whole number from 1 to 4·10^9, which 3e6 is too; what is counted has 32 bits.

    **Raises:** `LogpiError` otherwise.
    """
    valid = whole(value) or (real(value) and float(value).is_integer())
    require(valid and 1 <= value <= 4 * 10**9, "steps", "a whole number from 1 to 4e9", value)
    return int(value)
