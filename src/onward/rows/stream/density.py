"""The distribution of each number around its prediction, and the intervals that follow from it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float

from onward.heads.mixture import Mixture
from onward.types import PyTree

# How much wider what is said of a strange row is, and how likely a strange value is the first of a new level.
WIDER, NEW = 3.0, 0.25
# The usual size of errors is a running mean, at first a plain one, of errors cut at so many times it; it is at least so
# much of a target's usual change.
RATE, LARGEST, LEAST = 0.005, 10.0, 1e-4
# Bisections of an end: single precision has no more digits.
HALVED = 26
_OPTIMISER = optax.adam(1e-3)


class Density(NamedTuple):
    """A mixture of Gaussians over the error of a prediction, which reads the network's features; weights of its own.

    The mixture is one of errors divided by their usual size, `usual`: so it fits from the first rows on, however much
    less than a target's changes they are, and follows where they grow or shrink. `seen`: errors so far.

    One target's. `each` makes one of every target, stacked along the first axis of all arrays, for `of_each`.
    """

    head: Mixture
    optimiser: PyTree
    usual: Array
    seen: Array

    @classmethod
    def start(cls, features: int, components: int) -> "Density":
        """Before anything is learned."""
        head = Mixture(features, components, bounds=(-6.0, 4.0), spread=(-1.5, 1.5))
        optimiser = _OPTIMISER.init(eqx.filter(head, eqx.is_inexact_array))
        return cls(head, optimiser, jnp.ones(()), jnp.zeros(()))

    @classmethod
    def each(cls, targets: int, features: int, components: int) -> "Density":
        """So many, before anything is learned."""
        one = cls.start(features, components)
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (targets, *jnp.shape(a))), one)

    def around(
        self, features: Array, output: Array, unit: Array, doubt: Array, other: Array
    ) -> Float[Array, " 3*components"]:
        """Log weights, means and log widths of the Gaussians around an output, in the target's own units.

        In `doubt` all is `WIDER` times as wide. `other`: a level where the target may be from now on, NaN where there
        is none; the Gaussian of the least weight stands there, with the weight `NEW`, as wide as all of the mixture.
        """
        log_pi, mu, log_sigma = self.head.parts(self.head(features))
        unit = unit * self.usual
        wider = jnp.where(doubt, WIDER, 1)
        mu, log_sigma = output + unit * wider * mu, log_sigma + jnp.log(unit * wider)
        if len(mu) > 1:
            before = jnp.exp(log_pi)
            there = jnp.isfinite(other) & (jnp.arange(len(mu)) == jnp.argmin(log_pi))
            rest = jax.nn.log_softmax(jnp.where(there, -jnp.inf, log_pi)) + jnp.log1p(-NEW)
            log_pi = jnp.where(jnp.isfinite(other), jnp.where(there, jnp.log(NEW), rest), log_pi)
            mean = jnp.sum(before * mu)
            whole = 0.5 * jnp.log(jnp.sum(before * (jnp.exp(2 * log_sigma) + jnp.square(mu - mean))))
            mu, log_sigma = jnp.where(there, other, mu), jnp.where(there, whole, log_sigma)
        return jnp.concatenate([log_pi, mu, log_sigma])

    def learn(self, features: Array, residual: Array) -> "Density":
        """One step up the log likelihood of an error, in units; none where it is not known."""
        head, optimiser, usual, seen = self
        known = jnp.isfinite(residual)
        error = jnp.clip(jnp.where(known, residual, 0) / usual, -1e4, 1e4)
        pace = jnp.maximum(2 / (seen + 5), RATE)
        moved = jnp.maximum(usual * (1 + pace * (jnp.minimum(jnp.abs(error), LARGEST) - 1)), LEAST)
        gradient = eqx.filter_grad(lambda h: -h.log_prob(h(features), error))(head)
        updates, after = _OPTIMISER.update(gradient, optimiser)
        choose = lambda new, old: jnp.where(known, new, old)
        arrays = lambda tree: eqx.filter(tree, eqx.is_array)
        chosen = jax.tree.map(choose, arrays(eqx.apply_updates(head, updates)), arrays(head))
        return Density(
            eqx.combine(chosen, head),
            jax.tree.map(choose, after, optimiser),
            choose(moved, usual),
            choose(seen + 1, seen),
        )


def of_each(function: Callable[..., PyTree], *stacked: PyTree) -> PyTree:
    """`jax.vmap` of a function over the targets; of a single one without it, as its digits always were."""
    if len(jax.tree.leaves(stacked)[0]) > 1:
        return jax.vmap(function)(*stacked)
    return jax.tree.map(lambda a: a[None], function(*jax.tree.map(lambda a: a.reshape(a.shape[1:]), stacked)))


def interval(spread: np.ndarray, point: np.ndarray, share: float, block: int) -> np.ndarray:
    """(rows, 2): the ends between which `share` of a distribution lies, as much left out on either side (`placed`)."""
    return placed(spread, point, share, block)[0]


def placed(spread: np.ndarray, point: np.ndarray, share: float, block: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, 2), the ends of an interval; and (rows,), how far its mixture was moved.

    `spread` (rows, 3 components): log weights, means and log widths of a mixture, as in `Answers`. The distribution is
    that mixture, moved so that its median is `point` (rows,), which lies within every such interval.
    By bisection, in blocks of `block` rows, each one compiled call.
    """
    parts = [np.zeros((0, 3), np.float32)]
    for start in range(0, len(spread), block):
        rows = spread[start : start + block]
        filled = np.concatenate([rows, np.zeros((block - len(rows), rows.shape[1]), rows.dtype)])
        parts.append(np.asarray(_ends(filled, np.float32(share)))[: len(rows)])
    low, median, high = np.concatenate(parts).astype(float).T
    # Of a wide mixture the three are found to some digits only; their order is exact.
    ends = np.stack([point - np.maximum(median - low, 0), point + np.maximum(high - median, 0)], 1)
    return ends, point - median


def moved(spread: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Mixtures (rows, 3 components), each moved as far as `placed` says, by (rows,)."""
    log_pi, mu, log_sigma = np.split(spread.astype(float), 3, 1)
    return np.concatenate([log_pi, mu + by[:, None], log_sigma], 1)


@jax.jit
def _ends(spread: Array, share: Array) -> Array:
    # Components first, rows last: long vectors. The bracket holds the tails of every component.
    log_pi, mu, log_sigma = jnp.split(spread.T, 3)
    pi, sigma = jnp.exp(log_pi), jnp.exp(log_sigma)

    def end(mu: Array, level: Array) -> Array:
        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = 0.5 * (low + high)
            below = jnp.sum(pi * lax.erfc((mu - middle[None]) / wide), 0) < 2 * level
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        bracket = jnp.min(mu - 6 * sigma, 0), jnp.max(mu + 6 * sigma, 0)
        low, high = lax.fori_loop(0, HALVED, halve, bracket)
        return 0.5 * (low + high)

    # The upper end is the lower one of the mirrored mixture: both to the digits of a small tail.
    wide, tail = np.float32(np.sqrt(2)) * sigma, (1 - share) / 2
    return jnp.stack([end(mu, tail), end(mu, jnp.full_like(share, 0.5)), -end(-mu, tail)], 1)
