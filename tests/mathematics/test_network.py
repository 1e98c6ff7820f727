"""Convolutions, memories, encoders and heads against what they claim to be."""

from functools import partial

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import plain_networks, small_policy
from hypothesis import given, settings, strategies as st

from logpi import A2C, PPO, TRPO, Reinforce
from logpi.core import programs
from logpi.environments.registry import make_environment
from logpi.networks.convolution import IMAGES_OF_PART, convolve
from logpi.networks.encoder import Encoder
from logpi.networks.heads import NormalHead, action_head, draw_noise
from logpi.networks.layers import MLP, Convolutions
from logpi.networks.memory import GRU, LSTM

TWO = gym.spaces.Discrete(2)
BOX = gym.spaces.Box(-1, 1, (3,))


def written_out(network, x, last=jax.nn.relu):
    """The convolutions of lax and an affine layer, with `last` after it."""
    for kernel, bias, (window, stride, out) in zip(
        network.kernels, network.biases, network.windows, strict=True
    ):
        kernel = kernel.reshape(window, window, x.shape[-1], out)
        names = ("NHWC", "HWIO", "NHWC")
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(
                x, kernel, (stride, stride), "VALID", dimension_numbers=names
            )
            + bias
        )
    return last(x.reshape(len(x), -1) @ network.weight + network.bias)


@pytest.mark.parametrize("shape", [(10, 9, 4), (40, 36, 2), (64, 70, 2)])
def test_convolutions_are_those_of_xla(random, shape):
    """Windows times a kernel, against lax's own convolution; NumPy gives the same."""
    network = Convolutions(shape, random)
    image = random.normal(size=(2, 3, *shape))
    expected = written_out(network, jnp.asarray(image.reshape(6, *shape))).reshape(2, 3, -1)
    assert expected.shape[-1] == network.size
    np.testing.assert_allclose(network(jnp.asarray(image)), expected, atol=1e-10)
    np.testing.assert_allclose(jax.tree.map(np.asarray, network)(image), expected, atol=1e-10)
    # the controls: images upside down, and an affine layer that has a limit
    turned = network(jnp.asarray(image[:, :, ::-1]))
    limited = written_out(network, jnp.asarray(image.reshape(6, *shape)), jnp.tanh)
    for other in (turned, limited.reshape(2, 3, -1)):
        assert np.abs(other - expected).max() > 1e-3


def test_the_gradient_of_a_narrow_layer_is_a_product_of_few_rows(random):
    """XLA writes it row by row for each output, and not, much slower, for each hidden number. The
    control is a layer without the barrier.
    """
    network = MLP((3, 17, 2), 1.0, random)
    hidden = jnp.asarray(random.normal(size=(2048, 17)))
    weights = jnp.asarray(random.normal(size=(2048, 2)))

    def plain(network: MLP, hidden: jax.Array) -> jax.Array:
        return jnp.sum((hidden @ network.weights[-1] + network.biases[-1]) * weights)

    def ours(network: MLP, hidden: jax.Array) -> jax.Array:
        return jnp.sum(network.last(hidden) * weights)

    control = programs.compile_program(jax.grad(plain), network, hidden)
    program = programs.compile_program(jax.grad(ours), network, hidden)
    expected = control(network, hidden).weights[-1]
    np.testing.assert_allclose(program(network, hidden).weights[-1], expected, rtol=1e-10)
    by_columns = "f64[17,2]{1,0} dot("
    assert by_columns not in program.as_text()
    assert by_columns in control.as_text()


@pytest.mark.parametrize(
    ("images", "size", "window", "stride"),
    [(2, (9, 11), 3, 1), (2, (10, 13), 4, 2), (3 * IMAGES_OF_PART - 6, (4, 5), 2, 1)],
)
def test_a_convolution_has_the_derivatives_that_jax_derives(random, images, size, window, stride):
    """By both of its arrays, and again: the product of the Hessian with a vector; for few images,
    and for as many as three parts of a sum hold. The control is one step of the window more.
    """
    image = jnp.asarray(random.normal(size=(images, *size, 3)))
    kernel = jnp.asarray(random.normal(size=(window, window, 3, 4)))
    vector = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape)), (image, kernel))

    def of_lax(arrays, steps=stride):
        names = ("NHWC", "HWIO", "NHWC")
        outputs = jax.lax.conv_general_dilated(
            arrays[0], arrays[1], (steps, steps), "VALID", dimension_numbers=names
        )
        return jnp.sum(jnp.sin(outputs))

    def of_ours(arrays):
        return jnp.sum(jnp.sin(convolve(arrays[0], arrays[1], stride)))

    def slope(function):
        return jax.grad(function)((image, kernel))

    def curved(function):
        return jax.vjp(jax.grad(function), (image, kernel))[1](vector)[0]

    control = partial(of_lax, steps=stride + 1)
    for derived in (slope, curved):
        assert nearly(derived(of_ours), derived(of_lax))
        assert not nearly(derived(of_ours), derived(control))


def nearly(found, expected):
    return all(
        np.allclose(x, y, atol=1e-10)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    )


def test_convolutions_are_compiled_for_the_library_that_is_fast(random):
    """The control is what XLA chooses by itself."""
    image = random.normal(size=(8, 20, 20, 32)).astype(np.float32)
    kernel = random.normal(size=(4, 4, 32, 64)).astype(np.float32)

    def convolved(image, kernel):
        return convolve(image, kernel, 2)

    ours = programs.compile_program(convolved, image, kernel)
    plain = jax.jit(convolved).lower(image, kernel).compile()
    np.testing.assert_allclose(ours(image, kernel), plain(image, kernel), atol=1e-3)
    assert "ynn" in plain.as_text()
    assert "ynn" not in ours.as_text()


def test_an_image_is_scaled_by_its_bounds_and_kept_as_bytes(random):
    """Channels first or last, the same features; 0 … 255 are seen as 0 … 1."""
    last = gym.spaces.Box(0, 255, (12, 12, 3), np.uint8)
    first = gym.spaces.Box(0, 255, (3, 12, 12), np.uint8)
    seed = int(random.integers(2**32))
    one, other = (Encoder(space, np.random.default_rng(seed)) for space in (last, first))
    image = random.integers(0, 256, (5, 12, 12, 3)).astype(np.uint8)
    np.testing.assert_allclose(one(image), other(np.moveaxis(image, -1, 1)), atol=1e-12)
    (seen,) = one.images
    assert seen.convolutions is not None
    np.testing.assert_allclose(one(image), seen.convolutions(image / 255), atol=1e-12)
    assert one.size == one(image).shape[-1]


CAMERAS = gym.spaces.Dict(
    board=gym.spaces.Box(0, 9, (7, 7, 1), np.uint8),
    depth=gym.spaces.Box(-1, 1, (1, 40, 36), np.float32),
    goal=gym.spaces.Discrete(3),
    inside=gym.spaces.Tuple(
        [gym.spaces.Box(-5, 5, (4,), np.float32), gym.spaces.Box(0, 255, (36, 38, 3), np.uint8)]
    ),
)


def test_the_images_of_a_dict_are_seen_as_images(random):
    """Each as if it were alone, and the other numbers first, those of a small board among them.
    Control: where images are left raw, the row stays a row.
    """
    row = gym.spaces.flatten_space(CAMERAS)
    encoder = Encoder(row, random, standardise=True, unflattened=CAMERAS)
    CAMERAS.seed(int(random.integers(2**31)))
    observation = [CAMERAS.sample() for _ in range(5)]
    rows = np.stack([np.asarray(gym.spaces.flatten(CAMERAS, seen)) for seen in observation])
    numbers = np.stack(
        [np.r_[o["board"].ravel(), np.eye(3)[o["goal"]], o["inside"][0]] for o in observation]
    )
    depth, color = encoder.images
    expected = [
        numbers,
        depth(np.stack([o["depth"] for o in observation])),
        color(np.stack([o["inside"][1] for o in observation])),
    ]
    assert [part.shape[1] for part in expected] == [56, depth.size, color.size]
    np.testing.assert_allclose(encoder(rows), np.concatenate(expected, axis=1), atol=1e-6)
    np.testing.assert_allclose(encoder(jnp.asarray(rows)), encoder(rows), atol=1e-5)
    assert encoder.features == (encoder.size,) == (56 + depth.size + color.size,)
    observed = encoder.observe(jnp.asarray(rows[:, None]), np.ones((5, 1), bool))
    np.testing.assert_allclose(observed.standardiser.mean, numbers.mean(axis=0), atol=1e-5)
    plain = Encoder(row, random, raw=True, unflattened=CAMERAS)
    np.testing.assert_array_equal(plain(rows), rows)


class Cameras(gym.Env):
    """What is seen through them."""

    observation_space = CAMERAS
    action_space = TWO

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return CAMERAS.sample(), {}


@pytest.mark.parametrize("method", [PPO(hidden=(4,)), Reinforce(hidden=(4,))])
def test_policy_and_critic_see_the_images_of_a_dict(method):
    learner = method.make_learner(make_environment(Cameras).spec, 0)
    assert len(learner.policy.encoder.images) == len(learner.value.encoder.images) == 2
    action = learner.policy.on_host().act(CAMERAS.sample())
    assert action in (0, 1)


class Picture(Cameras):
    """Six pixels wide and high."""

    observation_space = gym.spaces.Box(0, 255, (6, 6, 3), np.uint8)


class Numbers(Cameras):
    """Three of them."""

    observation_space = BOX


@pytest.mark.parametrize(
    ("environment", "method", "widths", "is_one_trunk"),
    [
        (Picture, PPO(), (), True),
        (Picture, A2C(), (), True),
        (Picture, PPO(memory="gru"), (), False),
        (Picture, PPO(hidden=()), (), False),
        (Picture, PPO(hidden=(5, 4)), (5, 4), False),
        (Picture, PPO(hidden=(5, 4), shared_trunk=True), (5, 4), True),
        (Picture, TRPO(), (), False),
        (Picture, Reinforce(), (), False),
        (Numbers, PPO(), (64, 64), False),
        (Cameras, PPO(), (64, 64), False),
    ],
)
def test_the_usual_network_for_an_image_has_one_trunk_and_no_hidden_layers(
    environment, method, widths, is_one_trunk
):
    """Of Mnih et al. (2016), Schulman et al. (2017). Controls: what is asked for, what has a
    memory, methods whose critic descends a loss of its own, and numbers."""
    learner = method.make_learner(make_environment(environment).spec, 0)
    biases = [bias.size for bias in learner.policy.network.biases]
    assert biases == [*widths, 2]
    assert (learner.value.encoder is None) == is_one_trunk
    if not is_one_trunk:
        assert [bias.size for bias in learner.value.network.biases] == [*widths, 1]


def unrolled(policy, observation, step, before):
    """m_t, one observation after another, by `remember` as acting does it."""
    rows = []
    for o, t in zip(observation, step, strict=True):
        before = policy.next_memory(o, before, t)
        rows.append(before)
    return np.stack(rows)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_what_is_recalled_in_an_update_is_what_was_remembered_in_acting(kind, seed):
    """Over episodes that end anywhere, from the rollout's own first state, in JAX and in NumPy."""
    random = np.random.default_rng(seed)
    policy = small_policy(BOX, TWO, (8,), random, memory=kind, memory_size=5)
    observation, begins = random.normal(size=(9, 4, 3)), random.random((9, 4)) < 0.3
    step = np.where(begins, 0, 1 + np.arange(9)[:, None])
    before = random.normal(size=(4, policy.memory.state_size))
    expected = unrolled(policy.on_host(), observation, step, before)
    found = policy.memories(jnp.asarray(observation), jnp.asarray(step), before)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    law = policy.distributions(jnp.asarray(observation), jnp.asarray(step), before)
    np.testing.assert_allclose(law.logits, policy(observation, expected).logits, atol=1e-12)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_an_episode_knows_nothing_of_the_one_before(random, kind):
    """Whatever came before step 0 changes nothing from there on; control: what came after it
    does."""
    policy = small_policy(BOX, TWO, (8,), random, memory=kind, memory_size=5)
    observation = jnp.asarray(random.normal(size=(6, 1, 3)))
    step = jnp.asarray([4, 5, 0, 1, 2, 3])[:, None]

    def recalled(x):
        return policy.memories(x, step, policy.initial_memory(1))

    whole = recalled(observation)
    np.testing.assert_array_equal(recalled(observation.at[:2].add(1.0))[2:], whole[2:])
    assert np.abs(recalled(observation.at[2].add(1.0))[3:] - whole[3:]).max() > 1e-6


@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_memories_are_their_equations(random, kind):
    """One step by the papers' gates, written out."""
    memory, sigmoid = kind(3, 4, random), lambda x: 1 / (1 + np.exp(-x))
    x, state = random.normal(size=(2, 3)), random.normal(size=(2, memory.state_size))
    gates = np.asarray(memory.into(jnp.asarray(x)))
    within, n = np.asarray(memory.within), 4
    if kind is GRU:
        z, r = (
            sigmoid(gates[:, i * n : i * n + n] + state @ within[:, i * n : i * n + n])
            for i in (0, 1)
        )
        expected = z * state + (1 - z) * np.tanh(
            gates[:, 2 * n :] + r * (state @ within[:, 2 * n :])
        )
    else:
        h, c = state[:, :n], state[:, n:]
        i, f, o, g = np.split(gates + h @ within, 4, axis=1)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
        expected = np.concatenate([sigmoid(o) * np.tanh(c), c], axis=1)
    np.testing.assert_allclose(
        memory.cell(jnp.asarray(gates), jnp.asarray(state)), expected, atol=1e-12
    )


def test_noise_of_a_product_has_the_law_of_each_part(random):
    space = gym.spaces.Tuple(
        [gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)]
    )
    head = action_head(space)
    asked = []

    def draw(law, shape):
        asked.append((law, shape))
        return np.zeros(shape)

    assert draw_noise(head, (5,), draw).shape == (5, head.size) == (5, 7)
    assert asked == [("gumbel", (5, 3)), ("normal", (5, 2)), ("gumbel", (5, 2))]


def test_boxes_start_with_the_deviation_asked_for(random):
    """Everywhere in a nested space, and in what an algorithm makes."""
    box = gym.spaces.Box(-2, 2, (2,))
    nested = gym.spaces.Dict(a=gym.spaces.Discrete(3), b=gym.spaces.Tuple([box, box]))
    policy = small_policy(BOX, nested, (8,), random, initial_log_std=-2.0)
    stds = [part.log_std for part in policy.head.parts if isinstance(part, NormalHead)]
    assert len(stds) == 2
    assert all((np.asarray(std) == -2).all() for std in stds)
    spec = make_environment("Pendulum-v1").spec
    for config in (PPO(initial_log_std=-1.25), Reinforce(initial_log_std=-1.25)):
        assert config.make_learner(spec, 0).policy.head.log_std == -1.25


def test_a_product_of_unlike_parts_is_their_product(random):
    """log π, entropy, KL and the mode are sums and rows of those of the parts."""
    space = gym.spaces.Dict(a=gym.spaces.Discrete(3), b=gym.spaces.Box(-1, 1, (2,)))
    policy = small_policy(BOX, space, (8,), random)
    observation, action = (
        random.normal(size=(4, 3)),
        np.concatenate([[[2], [0], [1], [1]], np.ones((4, 2))], axis=1),
    )
    law, other = (
        policy(observation),
        small_policy(BOX, space, (8,), np.random.default_rng(1))(observation),
    )
    choice, number = law.parts
    np.testing.assert_allclose(
        law.log_prob(action),
        choice.log_prob(action[:, 0].astype(int)) + number.log_prob(action[:, 1:]),
    )
    np.testing.assert_allclose(law.entropy(), choice.entropy() + number.entropy())
    np.testing.assert_allclose(law.kl(other), choice.kl(other.parts[0]) + number.kl(other.parts[1]))
    mode = law.sample(np.zeros((4, policy.head.size)))
    np.testing.assert_array_equal(mode[:, 0], choice.logits.argmax(-1))
    np.testing.assert_array_equal(mode[:, 1:], number.mean)


def test_statistics_are_apart_from_what_is_trained(random):
    from logpi.networks.critic import make_value_function
    from logpi.networks.parameters import split_statistics

    policy = small_policy(BOX, TWO, (4,), random, normalize_observations=True)
    pair = (
        policy,
        make_value_function(BOX, plain_networks((4,), normalize_observations=True), random),
    )
    trained, statistics = split_statistics(pair)
    sizes = [len(jax.tree.leaves(x)) for x in (trained, statistics)]
    assert sizes == [
        2 * 4,
        2 * 3 + 3,
    ]  # weights and biases; mean, variance, count twice, offset, scale, trust
    whole = eqx.combine(trained, statistics)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(pair), strict=True):
        np.testing.assert_array_equal(a, b)
