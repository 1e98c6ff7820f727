"""Estimators in PyTorch, which is imported only because the user's file does."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy import ndarray

from logpi.checking.request import LINKED, Answer, Arrays, FrameworkName, Request, TabularPolicy
from logpi.core.errors import LogpiError
from logpi.core.user_files import name_of
from logpi.estimators.contract import CRITIC, Estimator, blame, call, shape_of


@contextlib.contextmanager
def torch_settings() -> Iterator[None]:
    """Double precision for tensors that the user's code makes (0.9 ** step is single otherwise),
    and one thread.

    The arrays are tiny: with several threads each operation waits for them to wake up.
    """
    import torch

    dtype = torch.get_default_dtype()
    threads = torch.get_num_threads()
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

        if not hasattr(torch, "Tensor"):
            raise LogpiError(f"{torch.__file__} hides PyTorch: give that file another name")
        self.function = function
        self.torch = torch
        self.flags: Any = torch.bool

    def _tensor(self, name: str, array: ndarray) -> Any:
        if array.ndim == 0:
            return array.item()
        is_flag = name in ("done", "terminated", "truncated")
        return self.torch.tensor(array, dtype=self.flags if is_flag else None)

    def inputs(
        self, request: Request, constant: Arrays, leaves: Arrays
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What one call gets, and the leaves to differentiate by. Not leaves themselves: networks
        give none either.
        """
        torch = self.torch
        roots = {
            name: torch.tensor(array, dtype=torch.float64, requires_grad=True)
            for name, array in leaves.items()
        }
        given: dict[str, Any] = {"discount": request.discount}
        given |= {name: self._tensor(name, array) for name, array in constant.items()}
        for name, root in roots.items():
            given[name] = root.clone()
        if "policy" in roots:
            given["policy"] = TabularPolicy(
                given["policy"], lambda t: torch.log_softmax(t, -1), torch.exp
            )
        return {name: given[name] for name in request.names}, roots

    def output(self, request: Request, index: int) -> ndarray:
        """What the function returns for one batch, as an array."""
        with torch_settings():
            output = self._value(request, index)
        shape_of(output, request.shape, name_of(self.function))
        return self._numbers(output)

    def _value(self, request: Request, index: int) -> Any:
        constant = request.take(request.constant, index)
        leaves = request.take(request.leaves, index)
        return self._call(request, constant, leaves)[0]

    def values(self, request: Request) -> list[ndarray]:
        """What the function returns for every batch, whatever its shape."""
        with torch_settings(), self.torch.no_grad(), blame(self.function):
            return [self._numbers(self._value(request, i)) for i in range(request.count)]

    def _numbers(self, output: Any) -> ndarray:
        return self.torch.as_tensor(output).detach().double().numpy()

    def _call(
        self, request: Request, constant: Arrays, leaves: Arrays
    ) -> tuple[Any, dict[str, Any]]:
        """Flags are bool as environments give them; code that computes 1 - done gets numbers
        instead.
        """
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
                raise LogpiError(
                    f"{name_of(self.function)} changes its input {name!r} in place: work on a copy"
                )
        return output, roots

    def evaluate(self, request: Request) -> Answer:
        """Every batch, one after the other."""
        with torch_settings():
            return self._evaluate(request)

    def _evaluate(self, request: Request) -> Answer:
        name = name_of(self.function)
        weights = []
        gradients = []
        losses = []
        single = False
        for index in range(request.count):
            constant = request.take(request.constant, index)
            leaves = request.take(request.leaves, index)
            output, roots = self._call(request, constant, leaves)
            shape = shape_of(output, request.shape, name)
            single |= getattr(output, "dtype", None) in (self.torch.float32, np.float32)
            if shape == ():
                if not getattr(output, "requires_grad", False):
                    raise LogpiError(
                        f"{name} returned a loss without a gradient: it does not depend on"
                        " log_prob, logits, entropy or policy, or was detached from them"
                    )
                losses.append(float(output.detach()))
                gradients.append(self._gradient(output, roots))
            else:
                weights.append(self._numbers(output))
        return Answer.of_batches(weights, gradients, losses, single)

    def _gradient(self, output: Any, roots: dict[str, Any]) -> Arrays:
        with blame(self.function):
            found = self.torch.autograd.grad(output, [*roots.values()], allow_unused=True)
        zero = self.torch.zeros_like
        return {
            name: (zero(root) if gradient is None else gradient).numpy()
            for (name, root), gradient in zip(roots.items(), found, strict=True)
        }

    def moves_critic(self, request: Request) -> bool:
        """By a second derivative, which knows what was detached."""
        torch = self.torch
        grad = self.torch.autograd.grad
        with torch_settings(), blame(self.function):
            for index in range(request.count):
                output, roots = self._call(
                    request, *(request.take(x, index) for x in (request.constant, request.leaves))
                )
                critic = [root for name, root in roots.items() if name in CRITIC]
                policy = [root for name, root in roots.items() if name not in CRITIC]
                if not getattr(output, "requires_grad", False) or not critic or not policy:
                    return False
                slopes = grad(output, critic, create_graph=True, allow_unused=True)
                linked = [slope for slope in slopes if slope is not None and slope.requires_grad]
                for slope in linked:
                    weighted = (
                        slope * torch.cos(1.0 + torch.arange(slope.numel())).reshape(slope.shape)
                    ).sum()
                    mixed = grad(weighted, policy, retain_graph=True, allow_unused=True)
                    if any(m is not None and bool(m.abs().max() > LINKED) for m in mixed):
                        return True
        return False
