"""A distribution over classes."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from onward.cells.base import require_size
from onward.heads.base import AbstractHead
from onward.heads.linear import grow_weight


class Categorical(AbstractHead):
    """p(y) = softmax(W features + b) over `classes`; a prediction is the vector of log-probabilities.

    Starts uniform (W = b = 0).

    >>> import jax.numpy as jnp
    >>> head = Categorical(3, classes=4)
    >>> float(jnp.exp(head.log_prob(head(jnp.ones(3)), jnp.array(2))))
    0.25
    """

    weight: Float[Array, "classes features"]
    bias: Float[Array, " classes"]
    classes: int = eqx.field(static=True)

    def __init__(self, features: int, classes: int):
        require_size("Categorical", features=features, classes=classes)
        self.weight, self.bias, self.classes = jnp.zeros((classes, features)), jnp.zeros(classes), classes

    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " classes"]:
        """The log-probability of each class."""
        return jax.nn.log_softmax(self.weight @ features + self.bias)

    def log_prob(self, prediction: Array, y: Int[Array, ""]) -> Float[Array, ""]:
        """The log-probability of class y; NaN if there is no such class, so that a run stops."""
        known = (y >= 0) & (y < self.classes) & (y == jnp.round(y))
        log_prob = prediction @ jax.nn.one_hot(jnp.asarray(y).astype(jnp.int32), self.classes, dtype=prediction.dtype)
        return jnp.where(known, log_prob, jnp.nan)

    def mean(self, prediction: Array) -> Float[Array, " classes"]:
        """The probability of each class."""
        return jnp.exp(prediction)

    def sample(self, prediction: Array, *, key: PRNGKeyArray) -> Int[Array, ""]:
        """One class, drawn with these probabilities."""
        return jax.random.categorical(key, prediction)

    def grow(self, features: int) -> "Categorical":
        """New weights are zero: the prediction does not change."""
        return grow_weight(self, features)
