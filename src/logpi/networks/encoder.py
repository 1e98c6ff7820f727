"""From an observation to the feature vector that networks work on."""

import math

import equinox as eqx
import gymnasium as gym
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces.utils import flatdim
from jaxtyping import Bool, Float

from logpi.core.arrays import AnyArray, float_dtype
from logpi.core.errors import LogpiError
from logpi.core.module import Module
from logpi.core.quantities import bounds_of
from logpi.networks.layers import LARGE_SIZE, Convolutions, parameter
from logpi.networks.options import USUAL_WIDTHS, NetworkOptions

# Standardised features are cut here: an outlier says no more.
FEATURE_LIMIT = 10.0
# Height and width from which on a Box is an image.
LEAST_SIZE = 3


class Standardiser(Module):
    """(x - mean) / deviation by the statistics of everything observed so far; not trained, saved in
    the policy.
    """

    mean: Float[AnyArray, " features"]
    variance: Float[AnyArray, " features"]
    count: Float[AnyArray, ""]

    def __call__(self, x: Float[AnyArray, "*batch features"]) -> Float[AnyArray, "*batch features"]:
        """Standard units, cut at ±`FEATURE_LIMIT`."""
        xp = x.__array_namespace__()
        return xp.clip(
            (x - self.mean) / xp.sqrt(self.variance + 1e-8), -FEATURE_LIMIT, FEATURE_LIMIT
        )

    def observe(
        self, x: Float[AnyArray, "time env features"], mask: Bool[AnyArray, "time env"]
    ) -> "Standardiser":
        """With the steps of another batch counted in (Chan et al. 1979), which may have none."""
        weight = mask[..., None]
        count = jnp.sum(mask)
        mean = jnp.sum(jnp.where(weight, x, 0.0), axis=(0, 1)) / jnp.maximum(count, 1)
        squares = jnp.sum(jnp.where(weight, (x - mean) ** 2, 0.0), axis=(0, 1))
        total = jnp.maximum(self.count + count, 1)
        distance = mean - self.mean
        variance = (
            self.variance * self.count + squares + distance**2 * self.count * count / total
        ) / total
        return Standardiser(self.mean + distance * count / total, variance, total)


class Image(Module):
    """How a Box of three dimensions is seen: scaled to [0, 1] by its bounds, channels last, then
    convolutions.

    Nothing is scaled before the network sees it, so that a trajectory keeps bytes as bytes.
    """

    convolutions: Convolutions | None
    given: tuple[int, ...] = eqx.field(static=True)
    shape: tuple[int, int, int] = eqx.field(static=True)
    channels_first: bool = eqx.field(static=True)
    low: float = eqx.field(static=True)
    range: float = eqx.field(static=True)

    def __init__(self, space: gym.spaces.Box, random: np.random.Generator, raw: bool):
        self.given = space.shape
        self.channels_first = space.shape[0] < space.shape[2]
        low, high = bounds_of(space)
        if np.isfinite(high.max() - low.min()):
            self.low = float(low.min())
            self.range = float(high.max() - low.min())
        else:
            self.low = 0.0
            self.range = 1.0
        if self.channels_first:
            height, width, channels = np.roll(space.shape, -1)
        else:
            height, width, channels = space.shape
        self.shape = int(height), int(width), int(channels)
        if raw:
            self.convolutions = None
        else:
            self.convolutions = Convolutions(self.shape, random)

    @property
    def size(self) -> int:
        """Number of outputs, or of pixels."""
        if self.convolutions is None:
            return math.prod(self.shape)
        return self.convolutions.size

    def __call__(self, pixels: AnyArray) -> Float[AnyArray, "*batch features"]:
        """The outputs of the convolutions, or the image itself."""
        xp = pixels.__array_namespace__()
        x = (pixels.astype(float_dtype()) - self.low) / self.range
        x = xp.moveaxis(x, -3, -1) if self.channels_first else x
        if self.convolutions is None:
            return x
        return self.convolutions(x)


def _is_image(space: gym.spaces.Box, least: int) -> bool:
    if len(space.shape) != 3:
        return False
    if space.shape[0] < space.shape[2]:
        height, width = space.shape[1:]
    else:
        height, width = space.shape[:2]
    return min(height, width) >= least


def images_in(
    space: gym.Space, start: int = 0, least: int = LEAST_SIZE
) -> list[tuple[int, gym.spaces.Box]]:
    """The images of a space, each with its place in the row into which Gymnasium flattens it.

    Those in a Dict or Tuple are large ones: a small one is a board or a map, whose numbers mean
    more in standard units than as shades.
    """
    match space:
        case gym.spaces.Box() if _is_image(space, least):
            return [(start, space)]
        case gym.spaces.Dict():
            parts = list(space.values())
        case gym.spaces.Tuple():
            parts = list(space.spaces)
        case _:
            return []
    found = []
    for part in parts:
        found += images_in(part, start, LARGE_SIZE)
        start += flatdim(part)
    return found


class Encoder(Module):
    """An observation of the declared space as one feature vector.

    A Box is flattened, an image (a Box of three dimensions) goes through convolutions, a Discrete
    is one-hot. In the row of a Dict or Tuple, which is `unflattened`, each large image goes through
    convolutions of its own: the features are the other numbers and what the convolutions give. If
    `raw`, an image stays an image, and a row a row.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    categories: int | None = eqx.field(static=True)
    start: int = eqx.field(static=True)
    image_starts: tuple[int, ...] = eqx.field(static=True)
    standardiser: Standardiser | None
    images: tuple[Image, ...]

    def __init__(
        self,
        space: gym.Space,
        random: np.random.Generator,
        standardise: bool = False,
        raw: bool = False,
        unflattened: gym.Space | None = None,
    ):
        self.standardiser = None
        self.images = ()
        self.image_starts = ()
        match space:
            case gym.spaces.Box():
                self.shape = space.shape
                self.categories = None
                self.start = 0
                whole = space if raw or unflattened is None else unflattened
                found = images_in(whole)
                self.images = tuple(Image(image, random, raw) for _, image in found)
                self.image_starts = tuple(start for start, _ in found)
                count = self._number_count
                if standardise and count > 0:
                    zeros = parameter(np.zeros(count))
                    ones = parameter(np.ones(count))
                    self.standardiser = Standardiser(zeros, ones, parameter(np.zeros(())))
            case gym.spaces.Discrete():
                self.shape = ()
                self.categories = int(space.n)
                self.start = int(space.start)
            case _:
                raise LogpiError(
                    f"observation space {space} is not supported; supported: Box, Discrete"
                )
        if self.size == 0:
            raise LogpiError(f"observation space {space} has no numbers")

    @property
    def layout(self) -> tuple[tuple[int, ...], int | None, int]:
        """What observations look like."""
        return self.shape, self.categories, self.start

    @property
    def number_places(self) -> list[tuple[int, int]]:
        """Where the numbers that are in no image begin and end in the flattened observation."""
        ends = [
            start + math.prod(image.given)
            for start, image in zip(self.image_starts, self.images, strict=True)
        ]
        places = zip([0, *ends], [*self.image_starts, math.prod(self.shape)], strict=True)
        return [(start, end) for start, end in places if end > start]

    @property
    def _number_count(self) -> int:
        return sum(end - start for start, end in self.number_places)

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of the features of one observation."""
        if self._is_raw_image:
            return self.images[0].shape
        return (self.size,)

    @property
    def is_image(self) -> bool:
        """Whether the features are what the convolutions make of one image, and nothing else."""
        return len(self.images) == 1 and self._number_count == 0 and not self._is_raw_image

    @property
    def _is_raw_image(self) -> bool:
        return len(self.images) == 1 and self.images[0].convolutions is None

    @property
    def size(self) -> int:
        """Number of features."""
        if self.categories is not None:
            return self.categories
        return self._number_count + sum(image.size for image in self.images)

    def example(self, count: int) -> np.ndarray:
        """`count` observations of the space's form, of which no number means anything."""
        if self.categories is not None:
            return np.full(count, self.start, np.int32)
        return np.zeros((count, *self.shape), float_dtype())

    def __call__(self, observation: AnyArray) -> Float[AnyArray, "*batch features"]:
        """Features of observations with any leading dimensions."""
        if self.categories is not None:
            one_hot = observation[..., None] - self.start == np.arange(self.categories)
            return one_hot.astype(float_dtype())
        if not self.images:
            return self._in_standard_units(observation)
        if self._is_raw_image:
            return self.images[0](observation)
        features = [self._in_standard_units(observation)]
        row = self._row(observation)
        for start, image in zip(self.image_starts, self.images, strict=True):
            pixels = row[..., start : start + math.prod(image.given)]
            features.append(image(pixels.reshape(*row.shape[:-1], *image.given)))
        return observation.__array_namespace__().concat(features, axis=-1)

    def _row(self, observation: AnyArray) -> AnyArray:
        """The observations flattened, in their own kind of number."""
        batch = observation.shape[: observation.ndim - len(self.shape)]
        return observation.reshape(*batch, math.prod(self.shape))

    def numbers(self, observation: AnyArray) -> Float[AnyArray, "*batch numbers"]:
        """Those that are in no image, in a row."""
        row = self._row(observation)
        if self.images:
            empty = row[..., :0]
            parts = [row[..., start:end] for start, end in self.number_places]
            row = observation.__array_namespace__().concat([empty, *parts], axis=-1)
        return row.astype(float_dtype())

    def _in_standard_units(self, observation: AnyArray) -> Float[AnyArray, "*batch numbers"]:
        numbers = self.numbers(observation)
        if self.standardiser is None:
            return numbers
        return self.standardiser(numbers)

    def observe(self, observation: AnyArray, mask: Bool[AnyArray, "time env"]) -> "Encoder":
        """With the steps of another batch in its statistics, if it keeps any."""
        if self.standardiser is None:
            return self
        seen = self.standardiser.observe(self.numbers(observation), mask)
        return eqx.tree_at(lambda e: e.standardiser, self, seen)


def hidden_widths(options: NetworkOptions, encoder: Encoder) -> tuple[int, ...]:
    """Widths of the hidden layers behind an encoder: by default none behind the convolutions of an
    image, which end in a layer of their own (Mnih et al. 2015).
    """
    if options.hidden is not None:
        return options.hidden
    if encoder.is_image:
        return ()
    return USUAL_WIDTHS
