"""Running means and variances of columns, within the compiled step."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Running means are plain averages at first, then exponential with these rates.
RATE_INPUTS, RATE_CHANGES = 1e-3, 3e-3
# Normalised inputs lie within this.
LIMIT = 10.0
# A value is within what is usual up to so many standard deviations.
BEYOND = 3.0
# Of what stands in place of a missing value: values that it is judged by, squares that count before any, the least sum.
REMEMBERED, PRIOR, TINY = 1e3, 1.0, 1e-6


class Running(NamedTuple):
    """Count, mean and variance of what was seen, one of each a column."""

    seen: Float[Array, " n"]
    mean: Float[Array, " n"]
    variance: Float[Array, " n"]

    @classmethod
    def start(cls, n: int) -> "Running":
        """Nothing seen."""
        return cls(jnp.zeros(n), jnp.zeros(n), jnp.zeros(n))

    def see(self, x: Array, rate: float) -> "Running":
        """Take in one value of each column; NaN: none."""
        known = jnp.isfinite(x)
        count = self.seen + known
        pace = jnp.where(known, jnp.maximum(1 / jnp.maximum(count, 1), rate), 0)
        change = jnp.where(known, x - self.mean, 0)
        variance = (1 - pace) * (self.variance + pace * jnp.square(change))
        return Running(count, self.mean + pace * change, variance)

    def shift(self, x: Array, step: Array) -> "Running":
        """The same of columns whose level has moved by `step`, to x, where x is beyond all that was usual."""
        beyond = jnp.square(x - self.mean) > jnp.square(BEYOND) * self.variance
        return self._replace(mean=self.mean + jnp.where(beyond, step, 0))

    def anew(self) -> "Running":
        """As if nothing was seen; the mean stands until something is."""
        return self._replace(seen=jnp.zeros_like(self.seen), variance=jnp.zeros_like(self.variance))

    @property
    def scale(self) -> Array:
        """1 / standard deviation; 0 where nothing has varied yet."""
        varied = self.variance > 1e-12 * jnp.square(self.mean) + 1e-30
        return jnp.where(varied, lax.rsqrt(jnp.where(varied, self.variance, 1)), 0)

    def normalise(self, x: Array) -> Array:
        """(x - mean) / standard deviation, within +-LIMIT; 0 where x is missing."""
        z = jnp.clip((x - self.mean) * self.scale, -LIMIT, LIMIT)
        return jnp.where(jnp.isfinite(x), z, 0)

    def deviation(self) -> Array:
        """The standard deviation; 1 where nothing has varied yet."""
        scale = self.scale
        return jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 1)


class Carried(NamedTuple):
    """What stands in place of missing values: of each column the share of its last value that is usually left.

    z = a h, h the normalised value of the row before, or what stood in its place, and a = sum z h / sum h^2 over the
    values that were known, within 0 and 1: the autoregression of first order, from as many as `REMEMBERED` values. A
    gap fades to the mean, 0: at once in a column that jumps, slowly in one that drifts. At first a is near 0: `PRIOR`
    is in the sum of squares.
    """

    held: Float[Array, " n"]
    product: Float[Array, " n"]
    square: Float[Array, " n"]

    @classmethod
    def start(cls, n: int) -> "Carried":
        """Nothing seen."""
        return cls(jnp.zeros(n), jnp.zeros(n), jnp.full(n, PRIOR))

    def fill(self, z: Array, known: Array) -> tuple["Carried", Array]:
        """Take in one normalised value of each column; and the values, with what stands in place of the missing."""
        held, product, square = self
        z = jnp.where(known, z, jnp.clip(product / square, 0, 1) * held)
        pace = jnp.where(known, 1 - 1 / REMEMBERED, 1)
        after = jnp.where(known, z * held, 0), jnp.where(known, jnp.square(held), 0)
        return Carried(z, pace * product + after[0], jnp.maximum(pace * square + after[1], TINY)), z


def deviation_of(changes: Running) -> Array:
    """The root mean square of changes; 1 until there is one."""
    return jnp.where(changes.variance > 1e-30, jnp.sqrt(jnp.maximum(changes.variance, 1e-30)), 1)


def see_squares(changes: Running, change: Array) -> Running:
    """Take in one change of each column, kept as a variance about zero; NaN: none."""
    seen = jnp.isfinite(change)
    count = changes.seen + seen
    pace = jnp.where(seen, jnp.maximum(1 / jnp.maximum(count, 1), RATE_CHANGES), 0)
    square = jnp.where(seen, jnp.square(change), 0)
    return changes._replace(seen=count, variance=changes.variance + pace * (square - changes.variance))
