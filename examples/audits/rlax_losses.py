"""The losses of rlax, called through its own code, one environment of a rollout at a time."""

import jax.numpy as jnp


def rlax_policy_gradient(logits, action, reward, value, last_value, done, discount):
    """`policy_gradient_loss` with `truncated_generalized_advantage_estimation`, λ = 1."""
    return _loss(logits, action, reward, value, last_value, done, discount, 1.0)


def rlax_policy_gradient_095(logits, action, reward, value, last_value, done, discount):
    """The same with λ = 0.95."""
    return _loss(logits, action, reward, value, last_value, done, discount, 0.95)


def _loss(logits, action, reward, value, last_value, done, discount, decay):
    import rlax

    def one(logits, action, reward, value, last_value, done):
        values = jnp.append(value, last_value)
        discounts = discount * (1.0 - done)
        advantage = rlax.truncated_generalized_advantage_estimation(
            reward, discounts, decay, values
        )
        return rlax.policy_gradient_loss(logits, action, advantage, jnp.ones_like(reward))

    envs = range(reward.shape[1])
    return jnp.mean(
        jnp.stack(
            [
                one(
                    *(
                        x[..., i] if x.ndim < 3 else x[:, i]
                        for x in (logits, action, reward, value, last_value, done)
                    )
                )
                for i in envs
            ]
        )
    )
