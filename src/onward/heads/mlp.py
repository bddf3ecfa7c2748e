"""A hidden layer between the features and any head."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward.batching import runs, sum_products
from onward.cells.base import require_size
from onward.heads.base import AbstractHead
from onward.parts import require_made
from onward.types import PyTree

Activation = Literal["tanh", "relu", "leaky_relu"]
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "leaky_relu": jax.nn.leaky_relu}


class MLP(AbstractHead):
    """Any head over a hidden layer: head(f(W features + b)).

    Learned by ordinary backpropagation at the present step, which is exact: no memory is in it, and the cotangent that
    reaches the cell through it is that of its features. W starts normal with variance `gain`^2 / features, b at zero.
    `head` reads `width` numbers: `MLP(Linear(16), features=12, width=16, key=key)`. Two hidden layers are an
    `MLP` of an `MLP`. Cost: width x features multiply-adds forward, twice as many back.

    >>> import jax, jax.numpy as jnp
    >>> from onward import Linear, MLP
    >>> head = MLP(Linear(16), features=12, width=16, key=jax.random.key(0))
    >>> head.weight.shape, float(head(jnp.ones(12)))
    ((16, 12), 0.0)
    """

    head: AbstractHead
    weight: Float[Array, "width features"]
    bias: Float[Array, " width"]
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        head: AbstractHead,
        features: int,
        width: int,
        *,
        key: PRNGKeyArray,
        activation: Activation = "tanh",
        gain: float = 1.0,
    ):
        require_made("MLP", head=head)
        require_size("MLP", features=features, width=width)
        if activation not in ACTIVATIONS:
            raise ValueError(f"MLP: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        if head.trajectories is not None:
            raise ValueError("MLP: its head runs several trajectories; put the MLP into the MonteCarlo instead")
        self.head, self.activation = head, activation
        self.weight = gain * features**-0.5 * jax.random.normal(key, (width, features))
        self.bias = jnp.zeros(width)
        try:
            jax.eval_shape(head, jax.ShapeDtypeStruct((width,), self.weight.dtype))
        except (TypeError, ValueError) as error:
            raise ValueError(f"MLP: its head does not read {width} numbers ({str(error).splitlines()[0]})") from None

    def hidden(self, features: Float[Array, " features"]) -> Float[Array, " width"]:
        """The hidden layer, f(W features + b)."""
        return runs(_hidden, len(self.bias), self.activation)(self.weight, self.bias, features)

    def __call__(self, features: Float[Array, " features"]) -> Array:
        """The prediction of `head` from the hidden layer."""
        return self.head(self.hidden(features))

    def log_prob(self, prediction: Array, y: Array) -> Float[Array, ""]:
        """That of `head`."""
        return self.head.log_prob(prediction, y)

    def mean(self, prediction: Array) -> Array:
        """That of `head`."""
        return self.head.mean(prediction)

    def sample(self, prediction: Array, *, key: PRNGKeyArray) -> Array:
        """That of `head`."""
        return self.head.sample(prediction, key=key)

    def grow(self, features: int) -> "MLP":
        """New features weigh zero in the hidden layer: the prediction does not change."""
        old = self.weight.shape[-1]
        if features < old:
            raise ValueError(f"MLP: cannot grow from {old} to {features} features")
        return eqx.tree_at(lambda h: h.weight, self, jnp.pad(self.weight, [(0, 0), (0, features - old)]))

    def trainable(self) -> PyTree:
        """Both layers."""
        spec = jax.tree.map(eqx.is_inexact_array, self)
        return eqx.tree_at(lambda h: h.head, spec, self.head.trainable())


def _hidden(activation: str, weight: Array, bias: Array, features: Array) -> Array:
    return ACTIVATIONS[activation](sum_products(features[:, None], jnp.swapaxes(weight, 0, 1)) + bias)
