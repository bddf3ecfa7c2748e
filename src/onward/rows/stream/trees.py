"""Boosted trees that grow as rows come: what linear regression and a small network miss in rows that stand alone."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from onward.random import bits, uniform

# Rows that are kept, trees, and tests of a tree one after another.
KEPT, TREES, DEPTH = 4096, 128, 4
# Of each new tree: rows of those kept that it is grown from, and tests that it chooses from.
DRAWN, TESTS = 1024, 256
# Rows between two trees, at most and as a share of all rows; none before so many rows.
EVERY, OFTEN, FIRST = 32, 8, 10
# Of the best leaf, how much a tree takes, of classes and of numbers; and what is added to the curvature of a leaf, so
# that few rows say little.
STEP_CLASSES, STEP_NUMBERS, RIDGE = 0.1, 0.2, 3.0
# Outputs that a test is chosen by, at most: of more, so many random sums.
SUMS = 4
# Errors of numbers are cut at so many times their mean size.
CUT = 3.0

# Of truths and scores (rows, outputs): downward slope of the loss, times the step, and its curvature.
Slopes = Callable[[Array, Array], tuple[Array, Array]]


class Trees(NamedTuple):
    """The sum of trees, each grown from the rows that are kept, down the slope of the loss of all before it.

    A tree is oblivious: DEPTH tests "input > threshold", the same on every path, whose results are the number of a
    leaf (Friedman 2001, boosting; Prokhorenkova et al. 2018, such trees). Each test is the best of TESTS, whose input
    and threshold are drawn from the rows kept (Geurts et al. 2006). A leaf says step sum(slope) / (sum(curvature) +
    RIDGE). Every EVERY rows, at first more often, one tree is grown, in place of the oldest once there are TREES: what
    is said depends on the last KEPT rows, and through the rows that trees were grown from on TREES EVERY more.

    Tests are drawn from the inputs that were ever anything but 0, `met`. A number that is missing passes none.
    Cost of a row: TREES DEPTH comparisons, and a share of 1 / EVERY of growing a tree, which takes 2^DEPTH DRAWN TESTS
    multiply-adds for each of at most SUMS + 1 sums. Memory: KEPT rows and their outputs.
    """

    rows: Float[Array, "kept inputs"]
    truths: Float[Array, "kept outputs"]
    scores: Float[Array, "kept outputs"]
    inputs: Int[Array, "trees depth"]
    thresholds: Float[Array, "trees depth"]
    leaves: Float[Array, "trees leaves outputs"]
    met: Bool[Array, " inputs"]
    learned: Int[Array, ""]
    last: Int[Array, ""]
    grown: Int[Array, ""]
    seed: UInt32[Array, "2"]

    @classmethod
    def start(cls, inputs: int, outputs: int, seed: int) -> "Trees":
        """No tree, which says 0."""
        none = jnp.zeros((), jnp.int32)
        return cls(
            jnp.full((KEPT, inputs), jnp.nan),
            jnp.zeros((KEPT, outputs)),
            jnp.zeros((KEPT, outputs)),
            jnp.zeros((TREES, DEPTH), jnp.int32),
            jnp.full((TREES, DEPTH), jnp.inf),
            jnp.zeros((TREES, 2**DEPTH, outputs)),
            jnp.zeros(inputs, bool),
            none,
            none,
            none,
            jnp.array([seed, 0x7EE5], jnp.uint32),
        )

    def say(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The sum of all trees for a row."""
        leaf = _leaf(x[self.inputs] > self.thresholds)
        return jnp.sum(self.leaves[jnp.arange(len(leaf)), leaf], 0)

    def learn(self, x: Array, truth: Array, known: Bool[Array, ""], slopes: Slopes) -> "Trees":
        """After what a row was about; where that is not known, nothing changes."""
        at = jnp.where(known, self.learned % len(self.rows), len(self.rows))
        put = lambda kept, value: kept.at[at].set(value, mode="drop")
        count = self.learned + known
        kept = self._replace(
            rows=put(self.rows, x),
            truths=put(self.truths, truth),
            scores=put(self.scores, self.say(x)),
            met=self.met | known & jnp.isfinite(x) & (x != 0),
            learned=count,
        )
        due = known & (count >= FIRST) & (count - self.last >= jnp.clip(count // OFTEN, 1, EVERY))
        return lax.cond(due, lambda trees: trees._grow(slopes), lambda trees: trees, kept)

    def _grow(self, slopes: Slopes) -> "Trees":
        """With one tree more."""
        have = jnp.minimum(self.learned, len(self.rows))

        def draw(start: int, many: int, most: Array | int) -> Int[Array, " many"]:
            """Whole numbers below `most`."""
            return (uniform(self.seed, self.learned, start + jnp.arange(many)) * most).astype(jnp.int32)

        drawn = draw(0, DRAWN, have)
        rows = self.rows[drawn]
        slope, curvature = slopes(self.truths[drawn], self.scores[drawn])
        # A row that is drawn several times since there are few of them counts once.
        share = jnp.minimum(1, have / DRAWN)
        slope, curvature = share * slope, share * curvature
        # The first, second, ... of those that were met, without sorting: that takes long to compile.
        inputs = jnp.sum(jnp.cumsum(self.met)[None] <= draw(DRAWN, TESTS, jnp.sum(self.met))[:, None], 1)
        inputs = jnp.minimum(inputs, self.rows.shape[1] - 1)
        thresholds = rows[draw(DRAWN + TESTS, TESTS, DRAWN), inputs]
        passed = rows.T[inputs] > thresholds[:, None]
        tests, signal = passed.astype(rows.dtype), jnp.concatenate(self._summed(slope, curvature), 1)
        leaf, chosen = jnp.zeros(DRAWN, jnp.int32), []
        for level in range(DEPTH):
            there = jax.nn.one_hot(leaf, 2**level, dtype=rows.dtype)
            each = (there[:, :, None] * signal[:, None]).reshape(DRAWN, -1)
            part = (tests @ each).reshape(TESTS, 2**level, -1)
            rest = jnp.sum(each, 0).reshape(1, 2**level, -1) - part
            best = jnp.argmax(jnp.sum(_gain(part) + _gain(rest), 1))
            leaf = leaf + passed[best] * 2**level
            chosen.append(best)
        there = jax.nn.one_hot(leaf, 2**DEPTH, dtype=rows.dtype).T
        new = (there @ slope) / (there @ curvature + RIDGE)
        tree, at = (inputs[jnp.stack(chosen)], thresholds[jnp.stack(chosen)], new), self.grown % len(self.inputs)
        old = self.inputs[at], self.thresholds[at], self.leaves[at]
        put = lambda kept, value: kept.at[at].set(value)
        return self._replace(
            scores=self.scores + self._of_kept(*tree) - self._of_kept(*old),
            inputs=put(self.inputs, tree[0]),
            thresholds=put(self.thresholds, tree[1]),
            leaves=put(self.leaves, tree[2]),
            last=self.learned,
            grown=self.grown + 1,
        )

    def _of_kept(self, inputs: Array, thresholds: Array, leaves: Array) -> Float[Array, "kept outputs"]:
        """What one tree says of all rows that are kept."""
        return leaves[_leaf(self.rows[:, inputs] > thresholds[None])]

    def _summed(self, slope: Array, curvature: Array) -> tuple[Array, Array]:
        """What a test is chosen by: slopes of few sums of the outputs, and one curvature (rows, 1)."""
        outputs = slope.shape[1]
        if outputs > SUMS:
            lane = DRAWN + 2 * TESTS + jnp.arange(outputs * SUMS)
            signs = 1.0 - 2 * (bits(self.seed, self.learned, lane) >> 31).astype(slope.dtype)
            slope = slope @ signs.reshape(outputs, SUMS) / np.sqrt(SUMS)
        return slope, jnp.mean(curvature, 1, keepdims=True)


def _leaf(passed: Bool[Array, "... depth"]) -> Int[Array, "..."]:
    return sum(passed[..., i] * 2**i for i in range(passed.shape[-1]))


def _gain(sums: Float[Array, "... sums"]) -> Float[Array, "..."]:
    """How much a leaf with these sums of slopes and, last, of curvature lowers the loss, but for a factor."""
    return jnp.sum(jnp.square(sums[..., :-1]), -1) / (sums[..., -1] + RIDGE)


def of_classes(allowed: Bool[Array, " classes"]) -> Slopes:
    """The slopes of the cross-entropy by log odds, among the classes that are `allowed`; truths are 1 at the class."""

    def slopes(truths: Array, scores: Array) -> tuple[Array, Array]:
        p = jax.nn.softmax(jnp.where(allowed[None], scores, -jnp.inf))
        return STEP_CLASSES * (truths - p), p * (1 - p)

    return slopes


def of_numbers(centre: Float[Array, " targets"], unit: Float[Array, " targets"]) -> Slopes:
    """Those of half the squared distance from `centre` + `unit` score, in units, and beyond `CUT` mean ones of itself.

    NaN truths are not known.
    """

    def slopes(truths: Array, scores: Array) -> tuple[Array, Array]:
        error = (truths - centre[None]) / unit[None] - scores
        known = jnp.isfinite(error)
        size = jnp.where(known, jnp.abs(error), 0)
        most = CUT * jnp.sum(size, 0, keepdims=True) / jnp.maximum(jnp.sum(known, 0, keepdims=True), 1)
        return jnp.where(known, STEP_NUMBERS * jnp.clip(error, -most, most), 0), known.astype(error.dtype)

    return slopes
