"""A linear readout of one number or several."""

import math
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.base import require_size
from onward.heads.base import AbstractHead

Head = TypeVar("Head", bound=AbstractHead)


class Linear(AbstractHead):
    """prediction = W features + b, the mean of a Gaussian of variance 1.

    Starts at zero. `outputs=None` predicts a scalar; a whole number predicts that many.

    >>> import jax.numpy as jnp
    >>> head = Linear(3)
    >>> float(head(jnp.ones(3))), float(head.log_prob(jnp.array(0.0), jnp.array(1.0)))
    (0.0, -1.4189385175704956)
    """

    weight: Float[Array, "*outputs features"]
    bias: Float[Array, "*outputs"]
    outputs: int | None = eqx.field(static=True)

    def __init__(self, features: int, outputs: int | None = None):
        require_size("Linear", features=features, outputs=1 if outputs is None else outputs)
        shape = () if outputs is None else (outputs,)
        self.weight, self.bias, self.outputs = jnp.zeros((*shape, features)), jnp.zeros(shape), outputs

    def __call__(self, features: Float[Array, " features"]) -> Float[Array, "*outputs"]:
        """The mean of y; `outputs` x features multiply-adds."""
        mean = jnp.sum(self.weight * features, -1) if self.outputs is None else self.weight @ features
        return mean + self.bias

    def log_prob(self, prediction: Array, y: Array) -> Float[Array, ""]:
        """-(y - mean)^2 / 2 - log(2 pi) / 2, summed over outputs."""
        return jnp.sum(-0.5 * jnp.square(y - prediction) - 0.5 * math.log(2 * math.pi))

    def mean(self, prediction: Array) -> Array:
        """The prediction, which is the mean."""
        return prediction

    def sample(self, prediction: Array, *, key: PRNGKeyArray) -> Array:
        """The mean plus standard normal noise."""
        return prediction + jax.random.normal(key, prediction.shape, prediction.dtype)

    def grow(self, features: int) -> "Linear":
        """New weights are zero: the prediction does not change."""
        return grow_weight(self, features)


def grow_weight(head: Head, features: int) -> Head:
    """Append zero weights to a head that keeps them in `weight` (..., features); ValueError for fewer features."""
    weight: Array = head.weight  # type: ignore[attr-defined]
    old = weight.shape[-1]
    if features < old:
        raise ValueError(f"{type(head).__name__}: cannot grow from {old} to {features} features")
    pad = [(0, 0)] * (weight.ndim - 1) + [(0, features - old)]
    return eqx.tree_at(lambda h: h.weight, head, jnp.pad(weight, pad))
