"""Layers with parameters: affine layers, convolutions, memories.

Everything is written for JAX and for NumPy arrays alike, because acting on the host is NumPy.
Parameters are drawn by NumPy: the same numbers whatever the compiler, and nothing to compile at
start-up.
"""

from collections.abc import Sequence
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from logpi.core.arrays import AnyArray, float_dtype
from logpi.core.module import Module
from logpi.networks.convolution import convolve

# A matrix with this many times as many inputs as outputs is narrow.
NARROW = 8


def parameter(values: np.ndarray) -> Array:
    """`values` in the precision that is in use."""
    return jax.device_put(values.astype(float_dtype()))


def orthogonal(into: int, out: int, gain: float, random: np.random.Generator) -> Array:
    """Rows or columns orthonormal, times `gain` (Saxe et al. 2014)."""
    q, r = np.linalg.qr(random.standard_normal((max(into, out), min(into, out))))
    q = q * np.sign(np.diag(r))
    return parameter(gain * (q if into >= out else q.T))


class MLP(Module):
    """Affine layers with tanh between them, on the last axis of inputs with any leading
    dimensions.
    """

    weights: list[Float[AnyArray, "_ _"]]
    biases: list[Float[AnyArray, " _"]]

    def __init__(self, sizes: Sequence[int], final_gain: float, random: np.random.Generator):
        gains = [np.sqrt(2.0)] * (len(sizes) - 2) + [final_gain]
        self.weights = [
            orthogonal(into, out, gain, random)
            for into, out, gain in zip(sizes[:-1], sizes[1:], gains, strict=True)
        ]
        self.biases = [parameter(np.zeros(out)) for out in sizes[1:]]

    def __call__(self, x: Float[AnyArray, "*batch into"]) -> AnyArray:
        """The output of the last, linear layer."""
        return self.last(self.hidden(x))

    def last(self, hidden: Float[AnyArray, "*batch hidden"]) -> AnyArray:
        """That of what the last layer reads."""
        batch = hidden.shape[:-1]
        product = _multiply(_as_matrix(hidden), self.weights[-1])
        return (product + self.biases[-1]).reshape(*batch, -1)

    def hidden(self, x: Float[AnyArray, "*batch into"]) -> AnyArray:
        """What the last layer reads."""
        batch = x.shape[:-1]
        x = _as_matrix(x)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = _multiply(x, weight) + bias
            x = x.__array_namespace__().tanh(x)
        return x.reshape(*batch, -1)


def _multiply(
    x: Float[AnyArray, "*batch into"], weight: Float[AnyArray, "into out"]
) -> Float[AnyArray, "*batch out"]:
    """x · weight, whose gradient by a narrow weight is computed as that by its transpose.

    xᵀ · g, for a g of few columns, takes XLA three to nine times as long on a CPU as gᵀ · x. The
    barrier keeps it from making the one of the other.
    """
    into, out = weight.shape
    if not isinstance(x, np.ndarray) and into >= NARROW * out:
        weight = jax.lax.optimization_barrier(jnp.transpose(weight)).T
    return x @ weight


def _as_matrix(x: Float[AnyArray, "*batch features"]) -> AnyArray:
    """All rows in one matrix for JAX: over two batch axes the products of the backward pass take
    1.6 times as long. NumPy keeps the matrices of a stack apart.
    """
    if isinstance(x, np.ndarray):
        return x
    return x.reshape(-1, x.shape[-1])


# (width and height of the window, stride, channels) of each layer.
Window: TypeAlias = tuple[int, int, int]
# Height and width from which on an image is large.
LARGE_SIZE = 36
# The convolutions and the outputs for large images (Mnih et al. 2015), and for smaller ones
# (Young & Tian 2019).
LARGE_IMAGE: tuple[Window, ...] = ((8, 4, 32), (4, 2, 64), (3, 1, 64))
LARGE_OUTPUTS = 512
SMALL_IMAGE: tuple[Window, ...] = ((3, 1, 16),)
SMALL_OUTPUTS = 128
# From this height and width on a library's convolution takes less time than a product of windows:
# 0.7 of it at 64 and 84 pixels, four times as long at 40.
LIBRARY_SIZE = 64


class Convolutions(Module):
    """Convolutions without padding and an affine layer, each with ReLU, on images `[*batch, height,
    width, channels]`; the result is one vector.

    No tanh reads the convolutions. Their outputs are thousands of positive numbers, and Adam's
    first steps move all weights of a unit together: a tanh would come to its limit, and stay there.

    A convolution is a product of all its windows, side by side in a matrix, with one kernel. For
    images of `LIBRARY_SIZE` in JAX it is a library's, which does not store the windows.
    """

    kernels: list[Float[AnyArray, "_ _"]]
    biases: list[Float[AnyArray, " _"]]
    weight: Float[AnyArray, "places size"]
    bias: Float[AnyArray, " size"]
    windows: tuple[Window, ...] = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def __init__(self, shape: tuple[int, int, int], random: np.random.Generator):
        height, width, channels = shape
        if min(height, width) >= LARGE_SIZE:
            self.windows = LARGE_IMAGE
            self.size = LARGE_OUTPUTS
        else:
            self.windows = SMALL_IMAGE
            self.size = SMALL_OUTPUTS
        self.kernels = []
        self.biases = []
        for window, stride, out in self.windows:
            self.kernels.append(orthogonal(window * window * channels, out, np.sqrt(2.0), random))
            self.biases.append(parameter(np.zeros(out)))
            height = (height - window) // stride + 1
            width = (width - window) // stride + 1
            channels = out
        places = height * width * channels
        self.weight = orthogonal(places, self.size, np.sqrt(2.0), random)
        self.bias = parameter(np.zeros(self.size))

    def __call__(self, image: Float[AnyArray, "*batch height width channels"]) -> AnyArray:
        """The outputs of the affine layer."""
        *batch, height, width, channels = image.shape
        x = image.reshape(-1, height, width, channels)
        xp = x.__array_namespace__()
        by_library = min(height, width) >= LIBRARY_SIZE
        for kernel, bias, (window, stride, _) in zip(
            self.kernels, self.biases, self.windows, strict=True
        ):
            if isinstance(x, np.ndarray):
                y = _convolve_on_host(x, kernel, window, stride)
            elif by_library:
                y = convolve(x, kernel.reshape(window, window, x.shape[-1], -1), stride)
            else:
                y = _windows(x, window, stride) @ kernel
            x = xp.maximum(y + bias, 0.0)
        seen = _as_matrix(x.reshape(*batch, -1))
        output = xp.maximum(_multiply(seen, self.weight) + self.bias, 0.0)
        return output.reshape(*batch, self.size)


def _windows(x: Array, window: int, stride: int) -> Array:
    """`[batch, rows, columns, window * window * channels]`: what each place of the output looks
    at.
    """
    rows, columns = ((size - window) // stride + 1 for size in x.shape[1:3])
    parts = [
        x[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        for i in range(window)
        for j in range(window)
    ]
    return jnp.concatenate(parts, axis=-1)


def _convolve_on_host(x: np.ndarray, kernel: AnyArray, window: int, stride: int) -> AnyArray:
    """The windows, copied by whole rows of theirs, times the kernel; one product an image."""
    images, height, width, channels = x.shape
    in_rows = x.reshape(images, height, width * channels)
    row = window * channels
    every = np.lib.stride_tricks.sliding_window_view(in_rows, (window, row), axis=(1, 2))
    seen = every[:, ::stride, :: stride * channels]
    _, rows, columns, *_ = seen.shape
    product = seen.reshape(images, rows * columns, window * row) @ kernel
    return product.reshape(images, rows, columns, -1)
