"""Estimators in JAX: compiled over many batches, in double precision."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy import ndarray

from logpi.checking.request import LINKED, Answer, Arrays, FrameworkName, Request, TabularPolicy
from logpi.core.errors import LogpiError
from logpi.core.user_files import name_of
from logpi.estimators.contract import CRITIC, Estimator, blame, call, shape_of

# Batches that one compiled call takes; the same for all probes, so that equal shapes compile once.
CHUNK = 64
Answers = TypeVar("Answers")


def _axes(leaves: Mapping[str, Any]) -> dict[str, int | None]:
    """Batches lie along the first axis; the policy is one for all of them."""
    return {name: None if name == "policy" else 0 for name in leaves}


class JaxFramework:
    """JAX in double precision: compiled over many batches where the function can be traced, else
    called one by one.
    """

    name: FrameworkName = "jax"

    def __init__(self, function: Estimator):
        import jax

        from logpi.core.programs import keep_programs

        keep_programs()
        self.function = function
        self.jax = jax
        self.compiled: dict[Any, Any] = {}
        self.traceable = True

    def _inputs(
        self, request: Request, constant: dict[str, Any], leaves: dict[str, Any]
    ) -> dict[str, Any]:
        jax = self.jax
        given = {"discount": request.discount, **constant, **leaves}
        if "policy" in leaves:
            given["policy"] = TabularPolicy(leaves["policy"], jax.nn.log_softmax, jax.numpy.exp)
        return {name: given[name] for name in request.names}

    def _call(self, request: Request, constant: dict[str, Any], leaves: dict[str, Any]) -> Any:
        """What the function returns; whole numbers as real ones, whose derivative is 0."""
        output = call(self.function, self._inputs(request, constant, leaves))
        whole = isinstance(output, int) and not isinstance(output, bool)
        if whole:
            return float(output)
        return output

    def output(self, request: Request, index: int) -> ndarray:
        """What the function returns for one batch, as an array; not compiled."""
        with self.jax.enable_x64(True):
            constant, leaves = self._one(request, index)
            output = self._call(request, constant, leaves)
        shape_of(output, request.shape, name_of(self.function))
        return np.asarray(output)

    def _one(self, request: Request, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        def as_input(array):
            if array.ndim == 0:
                return array.item()
            return self.jax.numpy.asarray(array)

        constant = {
            name: as_input(array) for name, array in request.take(request.constant, index).items()
        }
        leaves = request.take(request.leaves, index)
        return constant, {name: self.jax.numpy.asarray(array) for name, array in leaves.items()}

    def values(self, request: Request) -> list[ndarray]:
        """What the function returns for every batch, whatever its shape."""
        return self._run(request, self._compiled_values, self._values_one_by_one)

    def _compiled_values(self, request: Request) -> list[ndarray]:
        def function(leaves, constant):
            return self._call(request, constant, leaves)

        program = self.jax.jit(self.jax.vmap(function, (_axes(request.leaves), 0)))
        with blame(self.function):
            chunks = [
                np.asarray(program(*self._chunk(request, start)))
                for start in range(0, request.count, CHUNK)
            ]
        return [*np.concatenate(chunks)[: request.count]]

    def _values_one_by_one(self, request: Request) -> list[ndarray]:
        given = [self._one(request, index) for index in range(request.count)]
        return [np.asarray(self._call(request, *each)) for each in given]

    def evaluate(self, request: Request) -> Answer:
        """All batches, in compiled chunks of one size."""
        return self._run(request, self._compiled, self._one_by_one)

    def _run(
        self,
        request: Request,
        compiled: Callable[[Request], Answers],
        one_by_one: Callable[[Request], Answers],
    ) -> Answers:
        """Compiled where the function can be traced."""
        with self.jax.enable_x64(True):
            if self.traceable:
                errors = self.jax.errors
                try:
                    return compiled(request)
                except LogpiError as error:
                    untraceable = (
                        errors.ConcretizationTypeError,
                        errors.TracerArrayConversionError,
                        errors.NonConcreteBooleanIndexError,
                        errors.TracerIntegerConversionError,
                    )
                    static = "Non-hashable static arguments" in str(error)
                    if not isinstance(error.__cause__, untraceable) and not static:
                        raise
                    self.traceable = False
            # else every call would compile the function's own loops again
            with self.jax.disable_jit():
                return one_by_one(request)

    def _compiled(self, request: Request) -> Answer:
        jax = self.jax
        key = (
            request.names,
            request.discount,
            *((n, a.shape[1:]) for n, a in request.constant.items()),
        )
        if key not in self.compiled:
            constant, leaves = self._one(request, 0)

            def function(leaves, constant):
                return self._call(request, constant, leaves)

            seen = jax.eval_shape(function, leaves, constant)
            shape = shape_of(seen, request.shape, name_of(self.function))
            if shape == ():
                one = jax.value_and_grad(function)
            else:
                one = function
            self.compiled[key] = (
                jax.jit(jax.vmap(one, (_axes(leaves), 0))),
                shape,
                seen.dtype == np.float32,
            )
        program, shape, single = self.compiled[key]
        with blame(self.function):
            results = [
                program(*self._chunk(request, start)) for start in range(0, request.count, CHUNK)
            ]

        def join(*parts):
            return np.concatenate([np.asarray(part, np.float64) for part in parts])[: request.count]

        if shape == ():
            gradients = {name: join(*(g[name] for _, g in results)) for name in results[0][1]}
            return Answer(
                gradients, loss=join(*(value for value, _ in results)), single_precision=single
            )
        return Answer({}, join(*results), single_precision=single)

    def _chunk(self, request: Request, start: int) -> tuple[Arrays, Arrays]:
        """The last chunk is filled up with its first batch."""
        index = np.arange(start, start + CHUNK)
        index = np.where(index < request.count, index, start)
        return request.take(request.leaves, index), request.take(request.constant, index)

    def _one_by_one(self, request: Request) -> Answer:
        jax = self.jax
        name = name_of(self.function)
        weights = []
        gradients = []
        losses = []
        single = False
        for index in range(request.count):
            constant, leaves = self._one(request, index)

            def function(leaves):
                return self._call(request, constant, leaves)  # noqa: B023

            with blame(self.function):
                output, pull = jax.vjp(function, leaves)
            single |= getattr(output, "dtype", None) == np.float32
            if shape_of(output, request.shape, name) == ():
                losses.append(float(output))
                gradients.append(jax.tree.map(np.asarray, pull(jax.numpy.ones_like(output))[0]))
            else:
                weights.append(np.asarray(output, np.float64))
        return Answer.of_batches(weights, gradients, losses, single)

    def moves_critic(self, request: Request) -> bool:
        """By a second derivative, which knows where gradients were stopped."""
        jax = self.jax
        critic = [name for name in request.leaves if name in CRITIC]
        policy = [name for name in request.leaves if name not in CRITIC]
        if not critic or not policy:
            return False

        def slope(moved: dict[str, Any], leaves: dict[str, Any], constant: dict[str, Any]) -> Any:
            def loss(values):
                return self._call(request, constant, leaves | moved | values)

            slopes = jax.grad(loss)({name: leaves[name] for name in critic}).values()

            def irregular(x):
                return jax.numpy.cos(1.0 + jax.numpy.arange(x.size)).reshape(x.shape)

            return sum(jax.numpy.sum(x * irregular(x)) for x in slopes)

        if self.traceable:
            mixed = jax.jit(jax.grad(slope))
        else:
            mixed = jax.grad(slope)
        with jax.enable_x64(True), blame(self.function):
            for index in range(request.count):
                constant, leaves = self._one(request, index)
                found = mixed({name: leaves[name] for name in policy}, leaves, constant).values()
                if any(float(abs(x).max()) > LINKED for x in found):
                    return True
        return False
