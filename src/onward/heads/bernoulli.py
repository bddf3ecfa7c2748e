"""A distribution over binary vectors."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from onward.cells.base import require_size
from onward.heads.base import AbstractHead
from onward.heads.linear import grow_weight


class Bernoulli(AbstractHead):
    """p(y) = prod_i p_i^y_i (1 - p_i)^(1 - y_i), p = sigmoid(W features + b); a prediction is the vector of logits.

    `outputs` independent bits. Starts at p = 1/2 each (W = b = 0).

    >>> import jax.numpy as jnp
    >>> head = Bernoulli(3, outputs=2)
    >>> float(jnp.exp(head.log_prob(head(jnp.ones(3)), jnp.array([0, 1]))))
    0.25
    """

    weight: Float[Array, "outputs features"]
    bias: Float[Array, " outputs"]
    outputs: int = eqx.field(static=True)

    def __init__(self, features: int, outputs: int):
        require_size("Bernoulli", features=features, outputs=outputs)
        self.weight, self.bias, self.outputs = jnp.zeros((outputs, features)), jnp.zeros(outputs), outputs

    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " outputs"]:
        """The logit of each bit."""
        return self.weight @ features + self.bias

    def log_prob(self, prediction: Array, y: Array) -> Float[Array, ""]:
        """Y log p + (1 - y) log(1 - p), summed over outputs; NaN for a y outside [0, 1], so that a run stops."""
        if jnp.shape(y) != (self.outputs,):
            raise ValueError(f"Bernoulli: y must have shape {(self.outputs,)}, got {jnp.shape(y)}")
        y = jnp.asarray(y, prediction.dtype)
        log_prob = jnp.sum(y * jax.nn.log_sigmoid(prediction) + (1 - y) * jax.nn.log_sigmoid(-prediction))
        return jnp.where(jnp.all((y >= 0) & (y <= 1)), log_prob, jnp.nan)

    def mean(self, prediction: Array) -> Float[Array, " outputs"]:
        """The probability that each bit is 1."""
        return jax.nn.sigmoid(prediction)

    def sample(self, prediction: Array, *, key: PRNGKeyArray) -> Int[Array, " outputs"]:
        """A vector of zeros and ones, each drawn by itself."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(prediction)).astype(int)

    def grow(self, features: int) -> "Bernoulli":
        """New weights are zero: the prediction does not change."""
        return grow_weight(self, features)
