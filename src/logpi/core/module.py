"""The base of what is both parameters and functions: policies, networks, learners."""

import equinox as eqx


class Module(eqx.Module):
    """An Equinox module whose methods are Python's own.

    Equinox makes every method that is looked up a pytree, which costs 10 µs; with 8 environments
    that was half of the time of a step. Nothing here passes a method through a transformation.
    """

    __getattribute__ = object.__getattribute__
