"""What a user asks of an environment beside its name: time limit, arguments, a wrapper."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from logpi.core.checks import is_text, is_whole, require
from logpi.core.errors import LogpiError
from logpi.core.foreign import describe
from logpi.core.user_files import is_file_source, load_function


@dataclass(frozen=True)
class EnvironmentOptions:
    """`max_episode_steps` replaces the time limit, `kwargs` are given to whatever makes the
    environment, and `wrapper` is `FILE.py:NAME` of a function from a Gymnasium environment to
    another, such as the class of a wrapper.

    **Raises:** `LogpiError` for a value out of its range.
    """

    max_episode_steps: int | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrapper: str | None = None

    def __post_init__(self) -> None:
        limit = self.max_episode_steps
        valid = limit is None or (is_whole(limit) and limit >= 1)
        require(valid, "max_episode_steps", "a whole number >= 1", limit)
        require(_is_json(self.kwargs), "env_kwargs", "names with values of JSON", self.kwargs)
        known = self.wrapper is None or (is_text(self.wrapper) and is_file_source(self.wrapper))
        require(known, "wrapper", "FILE.py:NAME", self.wrapper)

    def replaced(
        self, max_episode_steps: int | None, kwargs: Mapping[str, Any] | None, wrapper: str | None
    ) -> "EnvironmentOptions":
        """These, but for what is given."""
        given = {"max_episode_steps": max_episode_steps, "kwargs": kwargs, "wrapper": wrapper}
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def make(self, factory: Callable[..., Any], name: str) -> Any:
        """What the factory gives for `kwargs`.

        **Raises:** `LogpiError` where it fails.
        """
        return call_factory(lambda: factory(**self.kwargs), name)

    def wrapped(self, environment: Any, name: str) -> Any:
        """The environment inside of the wrapper.

        **Raises:** `LogpiError` where that fails.
        """
        if self.wrapper is None:
            return environment
        wrapper = load_function(self.wrapper)
        return call_factory(lambda: wrapper(environment), f"{name} in {self.wrapper}")

    def identity(self) -> dict[str, object]:
        """What must be unchanged for a run to be resumed, as JSON."""
        described: dict[str, object] = {}
        if self.kwargs:
            described["kwargs"] = dict(self.kwargs)
        if self.wrapper is not None:
            file = Path(self.wrapper.rpartition(":")[0])
            described["wrapper"] = digest_of(file)
        return described

    def require_no_wrapper(self, name: str) -> None:
        """Refuse a wrapper for what Gymnasium does not step copy by copy.

        **Raises:** `LogpiError`.
        """
        if self.wrapper is not None:
            raise LogpiError(f"{name} cannot be wrapped: --wrapper is for Gymnasium environments")

    def require_none(self, name: str, limit: int) -> None:
        """Refuse options for what is made already, but for the time limit that it has.

        **Raises:** `LogpiError`.
        """
        self.require_no_wrapper(name)
        if self.kwargs:
            raise LogpiError(f"{name} is complete: it takes no --env-kwargs")
        if self.max_episode_steps not in (None, limit):
            raise LogpiError(
                f"the time limit of {name} is part of it, {limit} steps: --max-episode-steps cannot"
                " replace it"
            )


def _is_json(kwargs: object) -> bool:
    """Whether they are names with values that a run folder can hold."""
    if not isinstance(kwargs, Mapping) or not all(map(is_text, kwargs)):
        return False
    try:
        json.dumps(dict(kwargs))
    except (TypeError, ValueError):
        return False
    return True


NO_OPTIONS = EnvironmentOptions()


def call_factory(factory: Callable[[], Any], name: str) -> Any:
    """What a factory of the user or of a package gives.

    **Raises:** `LogpiError` where it fails.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is out of date.*")
            return factory()
    except (LogpiError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise LogpiError(f"{name} could not be made: {describe(error)}") from error


def digest_of(file: Path) -> str | None:
    """SHA-256 of what a file holds; None where there is none."""
    if not file.is_file():
        return None
    return hashlib.sha256(file.read_bytes()).hexdigest()
