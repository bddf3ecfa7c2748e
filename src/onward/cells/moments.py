"""Running mean and variance, the only statistics a cell keeps."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from onward.batching import pointwise
from onward.parts import AbstractPart


class MomentState(NamedTuple):
    """`scale` is 1/sqrt(variance), floored; it is kept so that each reader multiplies only."""

    steps: Float[Array, ""]
    mean: Float[Array, " size"]
    variance: Float[Array, " size"]
    scale: Float[Array, " size"]


class Moments(AbstractPart):
    """Normalise a stream by its running moments: (x - mean) / sqrt(max(variance, floor)).

    mean <- mean + eta (x - mean);  variance <- variance + eta ((x - mean)^2 - variance)

    with eta = max(1 - rate, 1 / (steps + prior)): a plain average that starts from mean 0 and
    variance 1 as if they had been seen `prior` times (0: it starts from the first value), then a slow exponential one.
    `prior=inf` is the constant rate of the published code, which needs 1 / (1 - rate) steps to forget where it started.
    No gradient flows through the moments. A value that is not finite leaves them as they are, and is passed on.
    """

    rate: float = eqx.field(default=0.99999, static=True)
    floor: float = eqx.field(default=0.01, static=True)
    prior: float = eqx.field(default=math.inf, static=True)

    def __check_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"Moments: rate must be in [0, 1), got {self.rate}")
        if not self.floor > 0:
            raise ValueError(f"Moments: floor must be positive, got {self.floor}")
        if not self.prior >= 0:
            raise ValueError(f"Moments: prior must not be negative, got {self.prior}")

    def init(self, like: Float[Array, " size"]) -> MomentState:
        """Mean 0 and variance 1."""
        one = jnp.ones_like(like)
        return MomentState(jnp.zeros((), like.dtype), jnp.zeros_like(like), one, one)

    def update(self, state: MomentState, x: Float[Array, " size"]) -> MomentState:
        """The moments after one more value x of shape (size,)."""
        steps = state.steps + 1
        slow = 1 - self.rate
        eta = jnp.maximum(slow, 1 / (steps + self.prior)) if math.isfinite(self.prior) else jnp.asarray(slow, x.dtype)
        moved = self._move(lax.stop_gradient(x), state.mean, state.variance, eta)
        return MomentState(steps, *moved)

    def _move(self, x: Array, mean: Array, variance: Array, eta: Array) -> tuple[Array, Array, Array]:
        def move(x: Array, mean: Array, variance: Array, eta: Array) -> tuple[Array, Array, Array]:
            there = jnp.isfinite(x)
            mean = jnp.where(there, mean + eta * (x - mean), mean)
            variance = jnp.where(there, variance + eta * (jnp.square(x - mean) - variance), variance)
            return mean, variance, lax.rsqrt(jnp.maximum(variance, self.floor))

        return pointwise(move)(x, mean, variance, eta)

    def __call__(self, state: MomentState, x: Float[Array, " size"]) -> Float[Array, " size"]:
        """(x - mean) scale, of the shape of x."""
        return pointwise(lambda x, mean, scale: (x - mean) * scale)(x, state.mean, state.scale)
