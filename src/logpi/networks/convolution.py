"""The convolution of images and its two derivatives, each of them linear in two arrays.

A window is a multiple of its stride, as it is in every layer here.

On a CPU a library computes a convolution whose axes stand in one order, and XLA's compiler brings
them into it, though not inside of a loop: there the transposes that JAX derives take thirty times
as long. So all three are written in that order, and the derivative of each is made of the other
two.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

ORDER = ("NHWC", "HWIO", "NHWC")
# Images whose share of a kernel's derivative is computed in one go.
IMAGES_OF_PART = 32

Images: TypeAlias = Float[Array, "image height width channel"]
Outputs: TypeAlias = Float[Array, "image row column out"]
Kernel: TypeAlias = Float[Array, "window window channel out"]
Pair: TypeAlias = tuple[Array, Array]


def _convolve(image: Images, kernel: Kernel, stride: int) -> Outputs:
    """y[r, c] = Σ_ij image[r stride + i, c stride + j] kernel[i, j], without padding."""
    steps = (stride, stride)
    return jax.lax.conv_general_dilated(image, kernel, steps, "VALID", dimension_numbers=ORDER)


def _spread(weight: Outputs, kernel: Kernel, stride: int, size: tuple[int, int]) -> Images:
    """∂(Σ weight · y)/∂image, for images of this height and width: every output adds its kernel to
    what it looks at.

    Of blocks of stride × stride pixels an output looks at window / stride in a row, and the next
    output begins one block further. So the blocks are a convolution of the weights, with no zeros
    between them.
    """
    window, _, channels, out = kernel.shape
    seen = window // stride
    in_blocks = kernel.reshape(seen, stride, seen, stride, channels, out)[::-1, :, ::-1]
    turned = jnp.transpose(in_blocks, (0, 2, 5, 1, 3, 4)).reshape(seen, seen, out, -1)
    around = (seen - 1, seen - 1)
    blocks = jax.lax.conv_general_dilated(
        weight, turned, (1, 1), (around, around), dimension_numbers=ORDER
    )
    images, rows, columns, _ = blocks.shape
    pixels = jnp.transpose(
        blocks.reshape(images, rows, columns, stride, stride, channels), (0, 1, 3, 2, 4, 5)
    )
    reached = pixels.reshape(images, rows * stride, columns * stride, channels)
    below = size[0] - rows * stride
    beside = size[1] - columns * stride
    return jnp.pad(reached, ((0, 0), (0, below), (0, beside), (0, 0)))


def _correlate(image: Images, weight: Outputs, stride: int, window: int) -> Kernel:
    """∂(Σ weight · y)/∂kernel: the sum of all windows, each times the weight of its output.

    It is as small as a kernel, so a library computes it on one core. The sums over parts of the
    images are computed side by side.
    """
    count = len(image)
    parts = math.gcd(count, math.ceil(count / IMAGES_OF_PART))
    split = zip(jnp.split(image, parts), jnp.split(weight, parts), strict=True)
    sums = [_correlate_part(images, weights, stride, window) for images, weights in split]
    return jnp.sum(jnp.stack(sums), axis=0)


def _correlate_part(image: Images, weight: Outputs, stride: int, window: int) -> Kernel:
    """That of some images, as a convolution of pixels by weights along the images."""
    height, width = (stride * (outputs - 1) + window for outputs in weight.shape[1:3])
    by_channel = jax.lax.conv_general_dilated(
        jnp.transpose(image[:, :height, :width], (3, 1, 2, 0)),
        jnp.transpose(weight, (1, 2, 0, 3)),
        (1, 1),
        "VALID",
        rhs_dilation=(stride, stride),
        dimension_numbers=ORDER,
    )
    return jnp.transpose(by_channel, (1, 2, 0, 3))


def _keep_convolve(image: Array, kernel: Array, stride: int) -> tuple[Array, Pair]:
    return convolve(image, kernel, stride), (image, kernel)


def _transpose_convolve(stride: int, saved: Pair, weight: Array) -> Pair:
    image, kernel = saved
    _, height, width, _ = image.shape
    by_image = spread(weight, kernel, stride, (height, width))
    return by_image, correlate(image, weight, stride, kernel.shape[0])


def _keep_spread(
    weight: Array, kernel: Array, stride: int, size: tuple[int, int]
) -> tuple[Array, Pair]:
    return spread(weight, kernel, stride, size), (weight, kernel)


def _transpose_spread(stride: int, size: tuple[int, int], saved: Pair, image: Array) -> Pair:
    weight, kernel = saved
    by_kernel = correlate(image, weight, stride, kernel.shape[0])
    return convolve(image, kernel, stride), by_kernel


def _keep_correlate(image: Array, weight: Array, stride: int, window: int) -> tuple[Array, Pair]:
    return correlate(image, weight, stride, window), (image, weight)


def _transpose_correlate(stride: int, window: int, saved: Pair, kernel: Array) -> Pair:
    image, weight = saved
    _, height, width, _ = image.shape
    return spread(weight, kernel, stride, (height, width)), convolve(image, kernel, stride)


def _with_transposes(
    function: Callable[..., Array],
    constant: tuple[int, ...],
    keep: Callable[..., tuple[Array, Pair]],
    transpose: Callable[..., Pair],
) -> Callable[..., Array]:
    """`function` with this derivative; `constant`: the places of arguments that are no arrays."""
    made = jax.custom_vjp(function, nondiff_argnums=constant)
    made.defvjp(keep, transpose)
    return made


convolve = _with_transposes(_convolve, (2,), _keep_convolve, _transpose_convolve)
spread = _with_transposes(_spread, (2, 3), _keep_spread, _transpose_spread)
correlate = _with_transposes(_correlate, (2, 3), _keep_correlate, _transpose_correlate)
