"""Odd or even: digits read row by row in a stream without end, and the parity of each to be foreseen."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt32

from onward.lab.data import datasets
from onward.random import integer, seed_of
from onward.tasks.base import AbstractTask
from onward.types import Step

# Cumulants that weigh less than this are left out of `truth`.
NEGLIGIBLE = 1e-6


class ParityState(NamedTuple):
    """The seed of the random numbers, how many images came before this one, and the place in its period."""

    seed: UInt32[Array, "2"]
    image: Int[Array, ""]
    phase: Int[Array, ""]


class DigitParity(AbstractTask):
    """A stream of digits, one row a step, that is never reset; each odd digit is followed by a cumulant of 1.

    Images are drawn at random, with replacement, and come one after another with `gap` blank rows after each. With
    H rows an image, phase p of its period P = H + gap:

        phase p        x (width numbers)                         y
        0              row 0                                     if gap = 0: 1 if the image before was odd
        1 .. H-1       row p                                     0
        H .. P-1       zeros                                     at p = H: 1 if this image was odd

    so that the cumulant y always arrives one step after an image's last row; the very first step has none. It is no
    input. A pixel is 1 from half of `top` on, else 0; `top` is the value of white, by default the greatest in
    `images`. Weight 1 always, `reset` never.

    `truth` is the return that `TDLambda(discount)` learns, of this very stream:

        G_t = y_{t+1} + discount y_{t+2} + discount^2 y_{t+3} + ...

    with all images that are still to come, up to those that weigh less than 1e-6 of the next (so it is short by less
    than 1e-6 / (1 - discount^P)). Unlike the animal tasks' it does not end with the trial: `TDLambda`'s does not
    either. It costs a hash an image looked ahead: 17 at the defaults.

    `images` (count, height, width) and `labels` (count,), whole numbers: by default the training images of the
    embedded 8x8 digits; `onward.lab.data.datasets.load_digits("mnist")` has others.

    >>> task = DigitParity()
    >>> task.inputs, task.period, task.ahead
    (8, 8, 17)
    >>> {k: round(v, 4) for k, v in task.references().items()}
    {'predict-mean': 0.187, 'phase-only': 0.1645, 'oracle': 0.0305, 'bayes': 0.0435}
    """

    images: Array
    labels: Int[Array, " count"]
    gap: int = eqx.field(static=True)
    discount: float = eqx.field(static=True)
    top: float = eqx.field(static=True)

    def __init__(
        self,
        images: Any = None,
        labels: Any = None,
        *,
        gap: int = 0,
        discount: float = 0.9,
        top: float | None = None,
    ):
        if (images is None) != (labels is None):
            raise ValueError("DigitParity: give both images and labels, or neither for the embedded digits")
        if images is None:
            embedded = datasets.load_digits("digits")
            images, labels, top = embedded.train_images, embedded.train_labels, embedded.top
        images, labels = np.asarray(images), np.asarray(labels)
        if images.ndim != 3 or 0 in images.shape:
            raise ValueError(f"DigitParity: images must be (count, height, width), got shape {images.shape}")
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"DigitParity: {len(images)} images need as many whole labels, got {labels.dtype} {labels.shape}"
            )
        if isinstance(gap, bool) or not isinstance(gap, int) or gap < 0:
            raise ValueError(f"DigitParity: gap must be a whole number of at least 0, got {gap!r}")
        if not 0 <= discount < 1:
            raise ValueError(f"DigitParity: discount must be in [0, 1), got {discount}")
        self.top = float(images.max() if top is None else top)
        if not self.top > 0:
            raise ValueError("DigitParity: every pixel is 0; give `top`, the value of a white one")
        self.images, self.labels = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
        self.gap, self.discount = gap, discount

    @property
    def inputs(self) -> int:
        """Pixels of a row."""
        return self.images.shape[2]

    @property
    def height(self) -> int:
        """Rows of an image."""
        return self.images.shape[1]

    @property
    def period(self) -> int:
        """Steps from one image to the next."""
        return self.height + self.gap

    @property
    def ahead(self) -> int:
        """How many cumulants `truth` adds up."""
        decay = self.discount**self.period
        return 1 if decay < NEGLIGIBLE else math.ceil(math.log(NEGLIGIBLE) / math.log(decay))

    def init(self, key: PRNGKeyArray) -> ParityState:
        """Before the first row of the first image."""
        zero = jnp.zeros((), jnp.int32)
        return ParityState(seed_of(key), zero, zero)

    def emit(self, state: ParityState) -> tuple[ParityState, Step]:
        """One row: x = its pixels, y = the cumulant, truth = the return after it."""
        seed, image, phase = state
        # Which image comes when is a function of its number: the future can be looked up.
        drawn = lambda number: integer(seed, number, 0, 0, len(self.labels) - 1)
        odd = lambda number: (self.labels[drawn(number)] & 1).astype(jnp.float32)
        row = self.images[drawn(image), jnp.minimum(phase, self.height - 1)]
        x = ((row >= self.top / 2) & (phase < self.height)).astype(jnp.float32)
        over = image - (0 if self.gap else 1)
        y = jnp.where((phase == self.height % self.period) & (over >= 0), odd(over), 0.0)
        done = phase >= self.height
        coming = odd(image + done + jnp.arange(self.ahead))
        decays = jnp.asarray(self.discount ** (self.period * np.arange(self.ahead)), jnp.float32)
        truth = jnp.asarray(self._waits(), jnp.float32)[phase] * jnp.sum(coming * decays)
        ends = phase == self.period - 1
        after = ParityState(seed, image + ends, jnp.where(ends, 0, phase + 1))
        return after, Step(x, y, jnp.ones(()), jnp.asarray(False), truth)

    def _waits(self) -> np.ndarray:
        """By phase: what the next cumulant weighs in the return."""
        phases = np.arange(self.period)
        return self.discount ** ((self.height - 1 - phases) % self.period)

    def references(self) -> dict[str, float]:
        """Exact mean squared return errors.

        With q the share of odd images, d = discount, w_p = d^(steps to y - 1):

            E[G | p] = w_p q / (1 - d^P),    Var[G | p] = w_p^2 q (1 - q) / (1 - d^2P).

            predict-mean   the best constant: the variance of G
            phase-only     E[G | p], which knows the row but sees nothing: the mean of Var[G | p]
            oracle         knows each digit's parity from its first row on, and nothing of the next:
                           Var[G | p] d^2P while the digit lasts
            bayes          the best from the rows so far: it knows every image by heart. Var[G | p] d^2P + w_p^2
                           E[v (1 - v)], v the share of odd ones among the images that agree so far

        No predictor that reads only this stream can beat `bayes`; none that has to read other images, `oracle`.
        """
        odd, decay, weights = np.asarray(self.labels) & 1, self.discount**self.period, self._waits()
        share = float(odd.mean())
        mean, second = share / (1 - decay), share * (1 - share) / (1 - decay**2)
        reading = np.arange(self.period) < self.height
        future = np.where(reading, second * decay**2, second)
        unsure = np.zeros(self.period)
        unsure[: self.height] = self._unsure(odd)
        return {
            "predict-mean": float(np.mean(weights**2) * second + np.var(weights) * mean**2),
            "phase-only": float(np.mean(weights**2) * second),
            "oracle": float(np.mean(weights**2 * future)),
            "bayes": float(np.mean(weights**2 * (future + unsure))),
        }

    def _unsure(self, odd: np.ndarray) -> np.ndarray:
        """By row: the mean variance of the parity among the images that look the same up to that row."""
        pixels = np.asarray(self.images) >= self.top / 2
        same, found = np.zeros(len(odd), np.int64), []
        for row in range(self.height):
            bits = np.packbits(pixels[:, row], axis=1)
            keys = np.column_stack([same, np.unique(bits, axis=0, return_inverse=True)[1].ravel()])
            same = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
            share = np.bincount(same, odd) / np.bincount(same)
            found.append(np.mean((share * (1 - share))[same]))
        return np.asarray(found)
