"""`FILE.py:NAME`: an object of the user's own, by file and name."""

import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from logpi.core.errors import LogpiError
from logpi.core.foreign import describe

# Files that have been loaded. Not in `sys.modules`, where pickling looks for what it does not find
# elsewhere, and takes what a file has imported for the file's own.
LOADED: dict[Path, ModuleType] = {}


def is_file_source(source: str) -> bool:
    """Whether a name has the form `FILE.py:NAME`."""
    return source.rpartition(":")[0].endswith(".py")


def load_from_file(source: str) -> Any:
    """The object NAME of the Python file in `FILE.py:NAME`.

    **Raises:** `LogpiError` where the file is missing, does not import, or has no such name.
    """
    file, _, name = source.rpartition(":")
    path = Path(file).resolve()
    if not path.is_file():
        raise LogpiError(f"{file} is not a file")
    module = LOADED.get(path)
    if module is None:
        if str(path.parent) not in sys.path:
            # as for a script: files may import those beside them
            sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        LOADED[path] = module
        # where dataclasses look it up while it is executed
        named = sys.modules.setdefault(path.stem, module)
        try:
            spec.loader.exec_module(module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            del LOADED[path]
            lines = [
                frame.lineno
                for frame in traceback.extract_tb(error.__traceback__)
                if frame.filename == str(path)
            ]
            where = f" (line {lines[-1]})" if lines else ""
            raise LogpiError(f"{file} does not import: {describe(error)}{where}") from error
        finally:
            if named is module:
                del sys.modules[path.stem]
    if not hasattr(module, name):
        public = [key for key in vars(module) if not key.startswith("_")]
        near = difflib.get_close_matches(name, public, 1)
        raise LogpiError(
            f"{file} has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return getattr(module, name)


def load_function(source: str) -> Callable[..., Any]:
    """The function NAME of `FILE.py:NAME`.

    **Raises:** `LogpiError` as `load_from_file`, and where it is something else.
    """
    if not is_file_source(source):
        raise LogpiError(f"{source!r} is not of the form FILE.py:NAME")
    found = load_from_file(source)
    if not callable(found):
        raise LogpiError(f"{source} is not a function, but {type(found).__name__}")
    return found


def inner_function(function: Any) -> Any:
    """The function inside of decorators, compiled functions and partials; a callable object
    itself.
    """
    while isinstance(function, partial):
        function = function.func
    return inspect.unwrap(function)


def name_of(function: object) -> str:
    """What to call a function, a partial, or a callable object in a message."""
    inner = inner_function(function)
    return getattr(inner, "__name__", None) or type(inner).__name__
