"""Where τ comes from: environments stepped from Python, and environments compiled into the training program."""

from logpi.envs.base import CompiledEnvironment, EnvironmentSpec, HostEnvironment
from logpi.envs.registry import make_environment

__all__ = ["CompiledEnvironment", "EnvironmentSpec", "HostEnvironment", "make_environment"]
