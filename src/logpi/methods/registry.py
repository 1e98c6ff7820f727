"""All methods by the names that a user writes: the only place that knows which there are."""

from collections.abc import Mapping

from logpi.methods.a2c import A2C
from logpi.methods.method import Method
from logpi.methods.natural import NPG
from logpi.methods.ppo import PPO
from logpi.methods.ppo_penalty import PPOPenalty
from logpi.methods.reinforce import Reinforce
from logpi.methods.trust_region import TRPO

METHODS: Mapping[str, type[Method]] = {
    "reinforce": Reinforce,
    "a2c": A2C,
    "ppo": PPO,
    "ppo-penalty": PPOPenalty,
    "npg": NPG,
    "trpo": TRPO,
}


def name_of_method(method: Method) -> str:
    """Its name in `METHODS`."""
    return next(name for name, kind in METHODS.items() if type(method) is kind)
