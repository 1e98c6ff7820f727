"""Compiling a function with XLA."""

from collections.abc import Callable
from typing import Any

import jax


def compile_program(function: Callable[..., Any], *arguments: Any) -> jax.stages.Compiled:
    """`function` for arguments of these shapes, compiled at XLA's first level of optimisation.

    Beyond that level programs run no faster and are compiled more slowly.
    """
    options = {"xla_backend_optimization_level": 1}
    return jax.jit(function, compiler_options=options).lower(*arguments).compile()
