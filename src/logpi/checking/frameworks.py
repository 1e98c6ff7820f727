"""Which framework a function is written in, and that framework."""

import contextlib
import dis
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy import ndarray

from logpi.checking.request import Framework, FrameworkName
from logpi.core.errors import LogpiError
from logpi.core.user_files import inner_function, name_of
from logpi.estimators.contract import Estimator, blame, call, requested_names

# Packages whose own code says nothing about what the estimator is written in.
KNOWN = ("torch", "jax", "numpy")


def _inner(function: Any) -> Any:
    """The Python function that is called in the end."""
    inner = inner_function(function)
    inner = getattr(inner, "__func__", inner)  # of a method
    if hasattr(inner, "__code__"):
        return inner
    return type(inner).__call__


def _packages(function: Any, seen: set[int]) -> set[str]:
    """Top-level packages that a function's code refers to, its own helpers included, wherever they
    stand.
    """
    inner = _inner(function)
    code = getattr(inner, "__code__", None)
    if code is None or id(code) in seen:
        return set()
    seen.add(id(code))
    found = set()
    known = inner.__globals__ | _enclosed(inner)
    codes = [*_nested(code)]
    imported = {
        i.argval for each in codes for i in dis.get_instructions(each) if i.opname == "IMPORT_NAME"
    }
    found.update(name.partition(".")[0] for name in imported)
    names = {*code.co_freevars, *(name for each in codes for name in each.co_names)}
    for value in (known[name] for name in names & known.keys()):
        package = _package(value)
        if package in KNOWN or not isinstance(
            value, types.FunctionType | types.ModuleType | partial
        ):
            found.add(package)
        elif isinstance(value, types.ModuleType):
            inside = [vars(value).get(attribute) for attribute in names]
            found.update(*(_packages(f, seen) for f in inside if isinstance(f, types.FunctionType)))
        else:
            found |= _packages(value, seen)
    return found


def _enclosed(function: types.FunctionType) -> dict[str, Any]:
    """Variables of the functions around it."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code, and that of the functions inside of it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _nested(inner)


def _package(value: Any) -> str:
    if isinstance(value, types.ModuleType):
        name = value.__name__
    else:
        name = getattr(value, "__module__", None)
    return str(name).partition(".")[0]


def find_framework(function: Callable[..., Any]) -> FrameworkName:
    """The framework that a function's code refers to; where it refers to none, that of its module;
    else NumPy.

    **Raises:** `LogpiError` where the code refers to both PyTorch and JAX.
    """
    owner = getattr(inner_function(function), "__self__", None)  # of the method of a module
    if "torch" in {_package(each) for each in type(owner).__mro__}:
        return "torch"
    function = _inner(function)
    used = _packages(function, set())
    if {"torch", "jax"} <= used:
        raise LogpiError("both torch and jax are used here: say which with --framework")
    around = {_package(value) for value in getattr(function, "__globals__", {}).values()}
    for packages in (used, set() if "numpy" in used else around):
        for name in ("torch", "jax"):
            if name in packages:
                return name
    return "numpy"


def make_framework(name: FrameworkName, estimator: Estimator) -> Framework:
    """The estimator in its framework; only that one is imported."""
    if name == "torch":
        from logpi.checking.framework_torch import TorchFramework

        return TorchFramework(estimator)
    if name == "jax":
        from logpi.checking.framework_jax import JaxFramework

        return JaxFramework(estimator)
    from logpi.checking.framework_numpy import NumpyFramework

    return NumpyFramework(estimator)


SAMPLER_NAMES = {"logits": "[observations, actions]", "observation": "[observations]"}


def sampled_law(sampler: Callable[..., Any]) -> Callable[[ndarray], ndarray]:
    """logits [observations, actions] → probabilities of the same shape, by the user's sampler in
    its own framework.

    **Raises:** `LogpiError` here for unknown names, and when called where the result is no law.
    """
    names = requested_names(sampler, SAMPLER_NAMES)
    kind = find_framework(sampler)
    if kind == "torch":
        import torch

        from logpi.checking.framework_torch import torch_settings

        array: Callable[[ndarray], Any] = torch.tensor
        settings: Callable[[], Any] = torch_settings
    elif kind == "jax":
        import jax

        array = np.array
        settings = partial(jax.enable_x64, True)
    else:
        array = np.array
        settings = contextlib.nullcontext

    def law(logits: ndarray) -> ndarray:
        given = {"logits": array(logits), "observation": array(np.arange(len(logits)))}
        with settings(), blame(sampler):
            found = call(sampler, {name: given[name] for name in names})
            found = np.asarray(found.detach() if hasattr(found, "detach") else found)
        if (
            found.shape != logits.shape
            or found.dtype.kind not in "fiub"
            or not np.isfinite(found).all()
            or (found < 0).any()
        ):
            raise LogpiError(
                f"{name_of(sampler)} must return probabilities shaped as logits, {logits.shape},"
                f" got {found.shape}"
            )
        if not np.allclose(found.sum(-1), 1.0, rtol=0, atol=1e-6):
            raise LogpiError(
                f"{name_of(sampler)} must return probabilities that sum to 1 over the last axis"
            )
        return found

    return law
