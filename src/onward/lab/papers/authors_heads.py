"""Readouts as the papers' released code has them: where `onward.Mixture` and `onward.Categorical` differ."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

import onward as ow
from onward.heads.linear import grow_weight


class VarianceMixture(ow.AbstractHead):
    """`head` with their spread: log sigma^2 is linear in the features, without bounds, where eq. 11 has log sigma.

    Predictions are those of a `Mixture`, whose other methods read them.
    """

    head: ow.Mixture

    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " rows"]:
        """Log pi, mu and log sigma end to end."""
        rows, k = self.head.weight @ features + self.head.bias, self.head.components
        return jnp.concatenate([jax.nn.log_softmax(rows[:k]), rows[k:-k], rows[-k:] / 2])

    def log_prob(self, prediction: Array, y: Array) -> Float[Array, ""]:
        """The log p(y) of the mixture that `prediction` states."""
        return self.head.log_prob(prediction, y)

    def mean(self, prediction: Array) -> Array:
        """The mean of the mixture that `prediction` states."""
        return self.head.mean(prediction)

    def sample(self, prediction: Array, *, key: PRNGKeyArray) -> Array:
        """One draw from the mixture."""
        return self.head.sample(prediction, key=key)

    def grow(self, features: int) -> "VarianceMixture":
        """The same readout of more features."""
        return VarianceMixture(self.head.grow(features))


class SigmoidSquares(ow.AbstractHead):
    """The readout of Javed et al.'s digit notebooks: ten sigmoid units and their squared error; -sum (sigmoid - one-hot)^2.

    A prediction is the vector of logits. Not a probability: `log_prob` is what they descend.
    """

    weight: Float[Array, "classes features"]
    bias: Float[Array, " classes"]

    def __init__(self, features: int, classes: int):
        self.weight, self.bias = jnp.zeros((classes, features)), jnp.zeros(classes)

    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " classes"]:
        """The logits of the ten units."""
        return self.weight @ features + self.bias

    def log_prob(self, prediction: Array, y: Array) -> Float[Array, ""]:
        """Minus the squared error of the units against the one-hot of y."""
        return -jnp.sum(jnp.square(jax.nn.sigmoid(prediction) - jax.nn.one_hot(y, len(self.bias))))

    def mean(self, prediction: Array) -> Float[Array, " classes"]:
        """The outputs of the units, which need not sum to 1."""
        return jax.nn.sigmoid(prediction)

    def sample(self, prediction: Array, *, key: PRNGKeyArray) -> Array:
        """The class of the greatest unit."""
        return jnp.argmax(prediction)

    def grow(self, features: int) -> "SigmoidSquares":
        """The same readout of more features, whose weights start at zero."""
        grown: SigmoidSquares = grow_weight(self, features)
        return grown
