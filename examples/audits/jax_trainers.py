"""The losses of rejax and of Brax, called through their own code: networks that answer with what
the check gives stand in for theirs."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp


def rejax_ppo(log_prob, reward, value, last_value, done, discount):
    """`calculate_gae` with its default λ = 0.95, then the gradient of `update_actor` as weights."""
    from rejax.algos.ppo import PPO, AdvantageMinibatch, Trajectory

    def answer(parameters, observation, action, method):
        return parameters, jnp.zeros_like(parameters)

    agent = SimpleNamespace(
        gamma=discount,
        gae_lambda=0.95,
        clip_eps=0.2,
        ent_coef=0.0,
        actor=SimpleNamespace(apply=answer),
    )
    value, last_value = map(jax.lax.stop_gradient, (value, last_value))
    fixed = jax.lax.stop_gradient(log_prob)
    rollout = Trajectory(
        obs=value, action=value, log_prob=fixed, reward=reward, value=value, done=1.0 * done
    )
    advantages, targets = PPO.calculate_gae(agent, rollout, last_value)
    actor = SimpleNamespace(params=fixed, apply_gradients=lambda grads: grads)
    state = SimpleNamespace(actor_ts=actor, replace=lambda actor_ts: actor_ts)
    batch = AdvantageMinibatch(rollout, advantages, targets)
    return -log_prob.size * PPO.update_actor(agent, state, batch)


def brax_ppo(normalises, decay=0.95):
    """`compute_ppo_loss` on the first step; with or without its normalisation."""

    def loss(log_prob, reward, value, last_value, terminated, truncated, discount):
        from brax.training.agents.ppo.losses import PPONetworkParams, compute_ppo_loss
        from brax.training.types import Transition

        value, last_value = map(jax.lax.stop_gradient, (value, last_value))
        law = SimpleNamespace(
            log_prob=lambda logits, action: logits,
            entropy=lambda logits, key: jnp.zeros_like(logits),
            create_dist=lambda logits: SimpleNamespace(scale=logits, loc=logits),
        )
        networks = SimpleNamespace(
            parametric_action_distribution=law,
            policy_network=SimpleNamespace(apply=lambda _, parameters, seen: parameters),
            value_network=SimpleNamespace(apply=lambda _, parameters, seen: seen),
        )
        played = Transition(
            observation=value.T,
            action=value.T,
            reward=reward.T,
            discount=1.0 - 1.0 * (terminated | truncated).T,
            next_observation=jnp.broadcast_to(last_value[:, None], value.T.shape),
            extras={
                "state_extras": {"truncation": 1.0 * truncated.T},
                "policy_extras": {
                    "raw_action": value.T,
                    "log_prob": jax.lax.stop_gradient(log_prob).T,
                },
            },
        )
        found, _ = compute_ppo_loss(
            PPONetworkParams(policy=log_prob, value=None),
            None,
            played,
            None,
            networks,
            entropy_cost=0.0,
            discounting=discount,
            gae_lambda=decay,
            normalize_advantage=normalises,
            vf_coefficient=0.0,
        )
        return found

    return loss


def audits():
    """(implementation, package, loss, options of the check)."""
    rollout = {"layout": "rollout", "target": "conventional", "framework": "jax"}
    yield "rejax PPO, first epoch", "rejax", rejax_ppo, rollout
    for name, loss in (
        ("Brax PPO, first epoch", brax_ppo(True)),
        ("Brax PPO, not normalised", brax_ppo(False)),
        ("Brax PPO, not normalised, λ = 1", brax_ppo(False, 1.0)),
    ):
        yield name, "brax", loss, rollout
