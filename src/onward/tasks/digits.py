"""Scanned digits, read row by row."""

import functools
from importlib import resources
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt32

from onward._random import integer, seed_of
from onward._types import Sequence, Step
from onward.cells.base import require_size
from onward.tasks.base import AbstractTask

ROWS, INPUTS, CLASSES = 8, 8, 10


@functools.cache
def load_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, then test images and labels: every fifth image is held out.

    1,438 and 359 images of 8x8 floats in [0, 1]; source and licence in `onward/data/digits.md`.

    >>> [a.shape for a in load_digits()]
    [(1438, 8, 8), (1438,), (359, 8, 8), (359,)]
    """
    with resources.files("onward").joinpath("data/digits.npz").open("rb") as file, np.load(file) as data:
        images, labels = data["images"].astype(np.float32) / 16, data["labels"].astype(np.int32)
    test = np.arange(len(labels)) % 5 == 4
    return images[~test], labels[~test], images[test], labels[test]


class DigitState(NamedTuple):
    """The counter of the random numbers and the place in the image being read."""

    seed: UInt32[Array, "2"]
    step: Int[Array, ""]
    row: Int[Array, ""]
    image: Int[Array, ""]


class SequentialDigits(AbstractTask):
    """8x8 digits drawn at random (with replacement) from the training images, one row of 8 pixels a step.

    `batch=None`: a stream of steps; an image starts with `reset`, and its label counts (weight 1) at
    its last row only. `batch=n`: n whole images at a time, as a `Sequence` for `BPTT`.
    """

    batch: int | None = eqx.field(default=None, static=True)

    def __check_init__(self) -> None:
        if self.batch is not None:
            require_size("SequentialDigits", batch=self.batch)

    @property
    def inputs(self) -> int:
        """One row of pixels."""
        return INPUTS

    def init(self, key: PRNGKeyArray) -> DigitState:
        """Before the first image."""
        zero = jnp.zeros((), jnp.int32)
        return DigitState(seed_of(key), zero, zero, zero)

    def emit(self, state: DigitState) -> tuple[DigitState, Step | Sequence]:
        """The next row, or the next batch of images."""
        images, labels = (jnp.asarray(a) for a in load_digits()[:2])
        last = len(images) - 1
        count = state.step + 1
        if self.batch is not None:
            drawn = integer(state.seed, count, jnp.arange(self.batch, dtype=jnp.uint32), 0, last)
            mask = jnp.zeros((ROWS, self.batch)).at[-1].set(1)
            y = jnp.broadcast_to(labels[drawn], (ROWS, self.batch))
            return state._replace(step=count), Sequence(jnp.swapaxes(images[drawn], 0, 1), y, mask)
        starts = state.row == 0
        image = jnp.where(starts, integer(state.seed, count, 0, 0, last), state.image)
        y = labels[image]
        weight = (state.row == ROWS - 1).astype(jnp.float32)
        after = DigitState(state.seed, count, (state.row + 1) % ROWS, image)
        return after, Step(images[image, state.row], y, weight, starts, y)
