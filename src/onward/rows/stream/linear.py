"""The linear baseline: what a plain online regression makes of the same rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from onward.rows.stream.moments import Running

# The step size, River's.
LINEAR_STEP = 0.01


class LinearBaseline(NamedTuple):
    """Weights and bias, and the running moments of the target.

    Of numbers River's `StandardScaler() | TargetStandardScaler(LinearRegression())`, of classes its
    `StandardScaler() | SoftmaxRegression()` with a bias and all classes from the start. But the inputs are normalised
    as the network's are: their moments forget, all lies within `LIMIT`, and the last change is one of them.
    """

    weight: Float[Array, "outputs capacity"]
    bias: Float[Array, " outputs"]
    target: Running

    @classmethod
    def start(cls, outputs: int, inputs: int) -> "LinearBaseline":
        """Weights of zero."""
        return cls(jnp.zeros((outputs, inputs)), jnp.zeros(outputs), Running.start(outputs))

    def number(self, z: Float[Array, " capacity"]) -> Float[Array, " outputs"]:
        """The numbers predicted for a normalised row, in their own units."""
        said = self.weight @ z + self.bias
        return self.target.mean + self.target.deviation() / self._share * said

    def label(self, z: Float[Array, " capacity"]) -> Float[Array, "1"]:
        """The most probable class of a normalised row."""
        return jnp.argmax(self.weight @ z + self.bias)[None].astype(z.dtype)

    def probabilities(self, z: Float[Array, " capacity"]) -> Float[Array, " outputs"]:
        """Of the classes of a normalised row."""
        return jax.nn.softmax(self.weight @ z + self.bias)

    def learn_number(self, z: Float[Array, " capacity"], y: Float[Array, " outputs"]) -> "LinearBaseline":
        """One step of gradient descent on the squared error of the standardised target; none where it is missing."""
        said = self.weight @ z + self.bias
        known = jnp.isfinite(y)
        linear = self._replace(target=self.target.see(y, 0.0))
        error = jnp.where(known, 2 * (said - linear._share * linear.target.normalise(y)), 0)
        return linear._descend(z, error)

    def learn_label(self, z: Float[Array, " capacity"], y: Float[Array, "1"]) -> "LinearBaseline":
        """One step of gradient descent on the cross-entropy; none where the class is missing."""
        said = self.weight @ z + self.bias
        known = jnp.isfinite(y)
        truth = jax.nn.one_hot(jnp.where(known, y, 0)[0].astype(jnp.int32), len(said), dtype=said.dtype)
        return self._descend(z, jnp.where(known, jax.nn.softmax(said) - truth, 0))

    @property
    def _share(self) -> Array:
        # The deviation of all targets seen over that of a sample, which River takes.
        return jnp.sqrt(jnp.maximum(self.target.seen - 1, 1) / jnp.maximum(self.target.seen, 1))

    def _descend(self, z: Array, error: Array) -> "LinearBaseline":
        weight = self.weight - LINEAR_STEP * error[:, None] * z[None]
        return self._replace(weight=weight, bias=self.bias - LINEAR_STEP * error)
