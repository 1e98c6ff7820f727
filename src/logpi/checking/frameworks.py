"""Calling an estimator in its own framework, and the derivative of its loss by everything that depends on θ.

Each framework answers one question: for every batch, ∂loss/∂x for each differentiable input x, or the weights that the
estimator returned. PyTorch and JAX differentiate; NumPy code is differentiated by differences of eighth order.
"""

import contextlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy import ndarray

from logpi.contract import Estimator, call, shape_of, wanted
from logpi.errors import LogpiError
from logpi.numeric import derivative

FrameworkName: TypeAlias = Literal["numpy", "torch", "jax"]
Arrays: TypeAlias = dict[str, ndarray]

# Batches that one compiled JAX call takes; the same for all probes, so that equal shapes compile once.
CHUNK = 64


@dataclass(frozen=True)
class Request:
    """Batches to evaluate: arrays with a leading axis [batch], but for the table of logits [O, A]."""

    names: tuple[str, ...]
    constant: Arrays
    leaves: Arrays
    discount: float
    shape: tuple[int, ...]
    """Of `log_prob` in one batch."""
    count: int
    """Number of batches."""

    def one(self, arrays: Arrays, index: int) -> Arrays:
        """The arrays of one batch."""
        return {name: array if name == "policy" else array[index] for name, array in arrays.items()}


@dataclass(frozen=True)
class Answer:
    """∂loss/∂leaf of every batch, [batch, …]; or `weights` [batch, …] of ∇ log π, if those were returned."""

    cotangents: Arrays
    weights: ndarray | None = None
    loss: ndarray | None = None
    """[batch] values of the loss, if that was returned."""
    single_precision: bool = False

    @property
    def finite(self) -> bool:
        """Whether all of it is."""
        return bool(self.finite_batches.all())

    @property
    def finite_batches(self) -> ndarray:
        """[batch] the same of each."""
        parts = [part for part in (*self.cotangents.values(), self.weights, self.loss) if part is not None]
        return np.all([np.isfinite(part).reshape(len(part), -1).all(axis=1) for part in parts], axis=0)


class TabularPolicy:
    """π(a|o) = softmax(table[o])_a in the estimator's framework; differentiable."""

    def __init__(self, table: Any, log_softmax: Callable[[Any], Any], exp: Callable[[Any], Any]):
        self._table, self._log, self._exp = table, log_softmax(table), exp

    def logits(self, observation: Any) -> Any:
        """[…, actions]."""
        return self._table[observation]

    def log_prob(self, observation: Any, action: Any) -> Any:
        """log π(action|observation), of the shape of `action`."""
        return self._log[observation, action]

    def entropy(self, observation: Any) -> Any:
        """-Σ_a π log π."""
        return -(self._exp(self._log) * self._log).sum(-1)[observation]


def _numpy_log_softmax(table: ndarray) -> ndarray:
    shifted = table - table.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _packages(function: Any, seen: set[int]) -> set[str]:
    """Top-level packages that a function's code refers to, helpers in its module included."""
    inner = inspect.unwrap(getattr(function, "func", function))
    code, globals_ = getattr(inner, "__code__", None), getattr(inner, "__globals__", {})
    if code is None or id(code) in seen:
        return set()
    seen.add(id(code))
    found: set[str] = set()
    for name in _names_used(code):
        value = globals_.get(name)
        if isinstance(value, types.FunctionType) and value.__globals__ is globals_:
            found |= _packages(value, seen)
        else:
            found.add(_package(value) if value is not None else name)
    return found


def _names_used(code: types.CodeType) -> set[str]:
    nested = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*map(_names_used, nested))


def _package(value: Any) -> str:
    name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    return str(name).partition(".")[0]


def find_framework(function: Callable[..., Any]) -> FrameworkName:
    """The framework that a function's code refers to; where it refers to none, that of its module; else NumPy.

    **Raises:** `LogpiError` where the code refers to both PyTorch and JAX.
    """
    function = inspect.unwrap(function if hasattr(function, "__code__") else type(function).__call__)
    used = _packages(function, set())
    if {"torch", "jax"} <= used:
        raise LogpiError("both torch and jax are used here: say which with --framework")
    around = {_package(value) for value in getattr(function, "__globals__", {}).values()}
    for packages in (used, set() if "numpy" in used else around):
        for name in ("torch", "jax"):
            if name in packages:
                return name
    return "numpy"


class NumpyFramework:
    """Plain NumPy or plain Python. A loss is differentiated by differences, weights are taken as they are."""

    name: FrameworkName = "numpy"

    def __init__(self, function: Estimator):
        self.function = function

    def inputs(self, request: Request, constant: Arrays, leaves: Arrays) -> dict[str, Any]:
        """What one call gets; nothing in it can be written to."""
        given: dict[str, Any] = {"discount": request.discount}
        for name, array in (constant | leaves).items():
            if name == "policy":
                given[name] = TabularPolicy(array, _numpy_log_softmax, np.exp)
            elif array.ndim == 0:
                given[name] = array.item()
            else:
                given[name] = array.view()
                given[name].flags.writeable = False
        return {name: given[name] for name in request.names}

    def output(self, request: Request, index: int) -> ndarray:
        """What the function returns for one batch, as an array."""
        constant, leaves = request.one(request.constant, index), request.one(request.leaves, index)
        output = call(self.function, self.inputs(request, constant, leaves))
        shape_of(output, request.shape, getattr(self.function, "__name__", "the estimator"))
        return np.asarray(output)

    def evaluate(self, request: Request) -> Answer:
        """Every batch, one after the other."""
        name = getattr(self.function, "__name__", "the estimator")
        outputs, gradients, losses = [], [], []
        for index in range(request.count):
            constant, leaves = request.one(request.constant, index), request.one(request.leaves, index)
            output = call(self.function, self.inputs(request, constant, leaves))
            if shape_of(output, request.shape, name) == ():
                losses.append(float(output))
                gradients.append(self._gradient(request, constant, leaves))
            else:
                outputs.append(np.asarray(output))
        if outputs:
            single = outputs[0].dtype == np.float32
            return Answer({}, np.stack(outputs).astype(np.float64), single_precision=single)
        return Answer({n: np.stack([g[n] for g in gradients]) for n in gradients[0]}, loss=np.array(losses))

    def _gradient(self, request: Request, constant: Arrays, leaves: Arrays) -> Arrays:
        def by(name: str) -> ndarray:
            loss = lambda x: call(self.function, self.inputs(request, constant, leaves | {name: x}))
            return derivative(loss, np.asarray(leaves[name], np.float64))

        # A NumPy author differentiates by hand, and never through the critic.
        return {name: by(name) for name in leaves if not name.endswith("value")}


@contextlib.contextmanager
def torch_settings() -> Iterator[None]:
    """Double precision for tensors that the user's code makes (0.9 ** step is single otherwise), and one thread.

    The arrays are tiny: with several threads each operation waits for them to wake up.
    """
    import torch

    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


class TorchFramework:
    """PyTorch, imported only because the user's file does."""

    name: FrameworkName = "torch"

    def __init__(self, function: Estimator):
        import torch

        self.function, self.torch = function, torch
        self.flags: Any = torch.bool

    def _tensor(self, name: str, array: ndarray) -> Any:
        if array.ndim == 0:
            return array.item()
        return self.torch.tensor(array, dtype=self.flags if name in ("done", "terminated", "truncated") else None)

    def inputs(self, request: Request, constant: Arrays, leaves: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
        """What one call gets, and the leaves to differentiate by. Not leaves themselves: networks give none either."""
        torch = self.torch
        roots = {name: torch.tensor(array, dtype=torch.float64, requires_grad=True) for name, array in leaves.items()}
        given: dict[str, Any] = {"discount": request.discount}
        given |= {name: self._tensor(name, array) for name, array in constant.items()}
        for name, root in roots.items():
            given[name] = root.clone()
        if "policy" in roots:
            given["policy"] = TabularPolicy(given["policy"], lambda t: torch.log_softmax(t, -1), torch.exp)
        return {name: given[name] for name in request.names}, roots

    def output(self, request: Request, index: int) -> ndarray:
        """What the function returns for one batch, as an array."""
        constant, leaves = request.one(request.constant, index), request.one(request.leaves, index)
        with torch_settings():
            output = self._call(request, constant, leaves)[0]
        shape_of(output, request.shape, getattr(self.function, "__name__", "the estimator"))
        return np.asarray(output.detach() if hasattr(output, "detach") else output)

    def _call(self, request: Request, constant: Arrays, leaves: Arrays) -> tuple[Any, dict[str, Any]]:
        """Flags are bool as environments give them; code that computes 1 - done gets numbers instead."""
        given, roots = self.inputs(request, constant, leaves)
        try:
            output = call(self.function, given)
        except LogpiError as error:
            if self.flags != self.torch.bool or "bool" not in str(error).lower():
                raise
            self.flags = self.torch.float64
            given, roots = self.inputs(request, constant, leaves)
            output = call(self.function, given)
        # A clone starts at version 0, and so does a fresh tensor; writing counts up.
        for name, tensor in given.items():
            if getattr(tensor, "_version", 0):
                raise LogpiError(f"{self.function.__name__} changes its input {name!r} in place: work on a copy")
        return output, roots

    def evaluate(self, request: Request) -> Answer:
        """Every batch, one after the other."""
        with torch_settings():
            return self._evaluate(request)

    def _evaluate(self, request: Request) -> Answer:
        name = getattr(self.function, "__name__", "the estimator")
        weights, gradients, losses, single = [], [], [], False
        for index in range(request.count):
            constant, leaves = request.one(request.constant, index), request.one(request.leaves, index)
            output, roots = self._call(request, constant, leaves)
            shape = shape_of(output, request.shape, name)
            single |= getattr(output, "dtype", None) == self.torch.float32
            if shape == () and request.shape != ():
                if not getattr(output, "requires_grad", False):
                    raise LogpiError(
                        f"{name} returned a loss without a gradient: it does not depend on log_prob, logits, entropy or"
                        " policy, or was detached from them"
                    )
                losses.append(float(output.detach()))
                gradients.append(self._gradient(output, roots))
            else:
                weights.append(np.asarray(output.detach()))
        if weights:
            return Answer({}, np.stack(weights).astype(np.float64), single_precision=single)
        stacked = {n: np.stack([g[n] for g in gradients]) for n in gradients[0]}
        return Answer(stacked, loss=np.array(losses), single_precision=single)

    def _gradient(self, output: Any, roots: dict[str, Any]) -> Arrays:
        found = self.torch.autograd.grad(output, [*roots.values()], allow_unused=True)
        zero = self.torch.zeros_like
        return {
            name: (zero(root) if gradient is None else gradient).numpy()
            for (name, root), gradient in zip(roots.items(), found, strict=True)
        }


class JaxFramework:
    """JAX in double precision: compiled over many batches where the function can be traced, else called one by one."""

    name: FrameworkName = "jax"

    def __init__(self, function: Estimator):
        import jax

        self.function, self.jax = function, jax
        self.compiled: dict[Any, Any] = {}
        self.traceable = True

    def _inputs(self, request: Request, constant: dict[str, Any], leaves: dict[str, Any]) -> dict[str, Any]:
        jax = self.jax
        given = {"discount": request.discount, **constant, **leaves}
        if "policy" in leaves:
            given["policy"] = TabularPolicy(leaves["policy"], jax.nn.log_softmax, jax.numpy.exp)
        return {name: given[name] for name in request.names}

    def output(self, request: Request, index: int) -> ndarray:
        """What the function returns for one batch, as an array; not compiled."""
        with self.jax.enable_x64(True):
            constant, leaves = self._one(request, index)
            output = call(self.function, self._inputs(request, constant, leaves))
        shape_of(output, request.shape, getattr(self.function, "__name__", "the estimator"))
        return np.asarray(output)

    def _one(self, request: Request, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        as_input = lambda array: array.item() if array.ndim == 0 else self.jax.numpy.asarray(array)
        constant = {name: as_input(array) for name, array in request.one(request.constant, index).items()}
        leaves = request.one(request.leaves, index)
        return constant, {name: self.jax.numpy.asarray(array) for name, array in leaves.items()}

    def evaluate(self, request: Request) -> Answer:
        """All batches, in compiled chunks of one size."""
        with self.jax.enable_x64(True):
            if self.traceable:
                errors = self.jax.errors
                try:
                    return self._compiled(request)
                except LogpiError as error:
                    untraceable = (
                        errors.ConcretizationTypeError,
                        errors.TracerArrayConversionError,
                        errors.NonConcreteBooleanIndexError,
                        errors.TracerIntegerConversionError,
                    )
                    if not isinstance(error.__cause__, untraceable):
                        raise
                    self.traceable = False
            return self._one_by_one(request)

    def _compiled(self, request: Request) -> Answer:
        jax = self.jax
        key = (request.names, request.discount, *((n, a.shape[1:]) for n, a in request.constant.items()))
        if key not in self.compiled:
            constant, leaves = self._one(request, 0)
            function = lambda leaves, constant: call(self.function, self._inputs(request, constant, leaves))
            seen = jax.eval_shape(function, leaves, constant)
            shape = shape_of(seen, request.shape, getattr(self.function, "__name__", "the estimator"))
            one = jax.value_and_grad(function) if shape == () else function
            axes = {name: None if name == "policy" else 0 for name in leaves}
            self.compiled[key] = (jax.jit(jax.vmap(one, (axes, 0))), shape, seen.dtype == np.float32)
        program, shape, single = self.compiled[key]
        results = [program(*self._chunk(request, start)) for start in range(0, request.count, CHUNK)]
        join = lambda *parts: np.concatenate([np.asarray(part, np.float64) for part in parts])[: request.count]
        if shape == ():
            gradients = {name: join(*(g[name] for _, g in results)) for name in results[0][1]}
            return Answer(gradients, loss=join(*(value for value, _ in results)), single_precision=single)
        return Answer({}, join(*results), single_precision=single)

    def _chunk(self, request: Request, start: int) -> tuple[Arrays, Arrays]:
        """The last chunk is filled up with its first batch."""
        index = np.arange(start, start + CHUNK)
        index = np.where(index < request.count, index, start)
        leaves = {n: a if n == "policy" else a[index] for n, a in request.leaves.items()}
        return leaves, {name: array[index] for name, array in request.constant.items()}

    def _one_by_one(self, request: Request) -> Answer:
        jax, name = self.jax, getattr(self.function, "__name__", "the estimator")
        weights, gradients, losses, single = [], [], [], False
        for index in range(request.count):
            constant, leaves = self._one(request, index)
            function = lambda leaves: call(self.function, self._inputs(request, constant, leaves))  # noqa: B023
            output, pull = jax.vjp(function, leaves)
            single |= getattr(output, "dtype", None) == np.float32
            if shape_of(output, request.shape, name) == ():
                losses.append(float(output))
                gradients.append(jax.tree.map(np.asarray, pull(jax.numpy.ones_like(output))[0]))
            else:
                weights.append(np.asarray(output, np.float64))
        if weights:
            return Answer({}, np.stack(weights), single_precision=single)
        stacked = {n: np.stack([g[n] for g in gradients]) for n in gradients[0]}
        return Answer(stacked, loss=np.array(losses), single_precision=single)


Framework: TypeAlias = NumpyFramework | TorchFramework | JaxFramework
FRAMEWORKS: Mapping[FrameworkName, type[Framework]] = {
    "numpy": NumpyFramework,
    "torch": TorchFramework,
    "jax": JaxFramework,
}


SAMPLER_NAMES = {"logits": "[observations, actions]", "observation": "[observations]"}


def sampled_law(sampler: Callable[..., Any]) -> Callable[[ndarray], ndarray]:
    """logits [observations, actions] → probabilities of the same shape, by the user's sampler in its own framework.

    **Raises:** `LogpiError` here for unknown names, and when called where the result is no law.
    """
    names, kind = wanted(sampler, SAMPLER_NAMES), find_framework(sampler)
    if kind == "torch":
        import torch

        array: Callable[[ndarray], Any] = torch.tensor
    else:
        array = np.array
    settings = torch_settings if kind == "torch" else contextlib.nullcontext

    def law(logits: ndarray) -> ndarray:
        given = {"logits": array(logits), "observation": array(np.arange(len(logits)))}
        with settings():
            found = np.asarray(call(sampler, {name: given[name] for name in names}), np.float64)
        if found.shape != logits.shape or not np.isfinite(found).all() or (found < 0).any():
            raise LogpiError(
                f"{sampler.__name__} must return probabilities shaped as logits, {logits.shape}, got {found.shape}"
            )
        if not np.allclose(found.sum(-1), 1.0, rtol=0, atol=1e-6):
            raise LogpiError(f"{sampler.__name__} must return probabilities that sum to 1 over the last axis")
        return found

    return law
