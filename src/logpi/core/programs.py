"""Compiling a function with XLA, and keeping what was compiled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import jax
import platformdirs

# What turns a function into a program for arguments of some shapes.
Compiler: TypeAlias = Callable[..., Callable[..., Any]]


def keep_programs() -> None:
    """Keep what JAX compiles, from now on, in the user's cache folder: another process reads it.

    Does nothing where JAX has been told already where to keep it (`JAX_COMPILATION_CACHE_DIR`).
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    folder = Path(platformdirs.user_cache_dir("logpi")) / "jax"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def compile_program(function: Callable[..., Any], *arguments: Any) -> jax.stages.Compiled:
    """`function` for arguments of these shapes, compiled at XLA's first level of optimisation.

    Beyond that level programs run no faster and are compiled more slowly. On a CPU
    convolutions are Eigen's: those of YNNPACK, which XLA would take, need three times as long.
    """
    options: dict[str, Any] = {"xla_backend_optimization_level": 1}
    lowered = jax.jit(function).lower(*arguments)
    if jax.default_backend() == "cpu" and "stablehlo.convolution" in lowered.as_text():
        options["xla_cpu_experimental_ynn_fusion_type"] = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    return lowered.compile(compiler_options=options)
