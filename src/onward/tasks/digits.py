"""Scanned digits, read row by row or pixel by pixel."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped, UInt32
from numpy.typing import ArrayLike

from onward.cells.base import require_size
from onward.random import integer, seed_of
from onward.tasks.base import AbstractTask
from onward.types import Sequence, Step

Reading = Literal["rows", "pixels"]


def as_sequences(images: ArrayLike, by: Reading = "rows") -> Shaped[np.ndarray, "count time inputs"]:
    """Images (count, height, width) in reading order: a row a step, or a pixel a step.

    Raises ValueError if `images` has other axes or none of them, and if `by` is something else.

    >>> as_sequences(np.zeros((5, 8, 8)), "pixels").shape
    (5, 64, 1)
    """
    images = np.asarray(images)
    if images.ndim != 3 or 0 in images.shape:
        raise ValueError(f"SequentialDigits: images must be (count, height, width), got shape {images.shape}")
    if by not in ("rows", "pixels"):
        raise ValueError(f"SequentialDigits: by must be 'rows' or 'pixels', got {by!r}")
    return images if by == "rows" else images.reshape(len(images), -1, 1)


class DigitState(NamedTuple):
    """The counter of the random numbers and the place in the image being read."""

    seed: UInt32[Array, "2"]
    step: Int[Array, ""]
    row: Int[Array, ""]
    image: Int[Array, ""]


class SequentialDigits(AbstractTask):
    """Images drawn at random (with replacement), a row of pixels a step (`by="pixels"`: a pixel), values in [0, 1].

    `images`: (count, height, width); `labels`: (count,) whole numbers. `batch=None`: a stream of steps; an image starts
    with `reset`, and its label counts (weight 1) at its last step only, or at each (`every=True`). `batch=n`: n whole
    images at a time, as a `Sequence` for `BPTT`. `top`: the value of a white pixel; None: the greatest in `images`.
    Raises ValueError if shapes do not fit, labels are not whole numbers, or no pixel is brighter than 0.

    >>> SequentialDigits(np.zeros((3, 28, 28), np.uint8), [7, 0, 1], top=255).inputs
    28
    """

    images: Shaped[Array, "count time inputs"]
    labels: Int[Array, " count"]
    batch: int | None = eqx.field(static=True)
    every: bool = eqx.field(static=True)
    top: float = eqx.field(static=True)

    def __init__(
        self,
        images: ArrayLike,
        labels: ArrayLike,
        batch: int | None = None,
        *,
        by: Reading = "rows",
        top: float | None = None,
        every: bool = False,
    ):
        if batch is not None:
            require_size("SequentialDigits", batch=batch)
        sequences, classes = as_sequences(images, by), np.asarray(labels)
        if classes.shape != sequences.shape[:1] or not np.issubdtype(classes.dtype, np.integer):
            raise ValueError(
                f"SequentialDigits: {len(sequences)} images need as many labels, whole numbers, got {classes.dtype} "
                f"of shape {classes.shape}"
            )
        self.images, self.labels = jnp.asarray(sequences), jnp.asarray(classes, jnp.int32)
        self.batch, self.every, self.top = batch, every, float(sequences.max() if top is None else top)
        if not self.top > 0:
            raise ValueError("SequentialDigits: every pixel is 0; give `top`, the value of a white one")

    @property
    def inputs(self) -> int:
        """Size of an observation: the pixels of a step."""
        return self.images.shape[2]

    @property
    def length(self) -> int:
        """Steps in which an image is read."""
        return self.images.shape[1]

    def init(self, key: PRNGKeyArray) -> DigitState:
        """The state before the first image."""
        zero = jnp.zeros((), jnp.int32)
        return DigitState(seed_of(key), zero, zero, zero)

    def _light(self, pixels: Array) -> Float[Array, "..."]:
        return pixels.astype(jnp.float32) / self.top

    def emit(self, state: DigitState) -> tuple[DigitState, Step | Sequence]:
        """The next row, or the next batch of images."""
        last = len(self.images) - 1
        count = state.step + 1
        if self.batch is not None:
            drawn = integer(state.seed, count, jnp.arange(self.batch, dtype=jnp.uint32), 0, last)
            outputs = self.length if self.every else 1
            y = jnp.broadcast_to(self.labels[drawn], (outputs, self.batch))
            xs = jnp.swapaxes(self._light(self.images[drawn]), 0, 1)
            return state._replace(step=count), Sequence(xs, y, jnp.ones(y.shape))
        starts = state.row == 0
        image = jnp.where(starts, integer(state.seed, count, 0, 0, last), state.image)
        y = self.labels[image]
        weight = jnp.ones(()) if self.every else (state.row == self.length - 1).astype(jnp.float32)
        after = DigitState(state.seed, count, (state.row + 1) % self.length, image)
        return after, Step(self._light(self.images[image, state.row]), y, weight, starts, y)
