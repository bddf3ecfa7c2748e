"""A layer without memory, before a recurrent one."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward.batching import runs, sum_products, total
from onward.cells.base import AbstractCell, require_size, require_width
from onward.types import Carry

# Added to the variance of a layer before its root is taken.
EPS = 1e-5


class Encoder(AbstractCell):
    """A layer without memory: LeakyReLU(LayerNorm(W x + b)), what streaming methods put before recurrent units.

    The normalisation over the layer's units has no parameters. The start is sparse (Elsayed et al., 2024): of each row
    of W a share `sparsity` is zero, the rest uniform in +- 1 / sqrt(inputs), b is zero. It goes below in a `Stack`:

        Stack(Encoder(3, 16, key=key), Columns(gates, 16, 8, key=key))

    Under `Layerwise` it learns from the error sent down through the present step: one-step credit, biased, for what it
    did to the memory above at earlier steps gets none. Exact credit (`RTRL` of the whole stack) has the dense price;
    columns that read x themselves are exact for every parameter. Cost: width x inputs multiply-adds.

    >>> import jax, jax.numpy as jnp
    >>> cell = Encoder(3, 16, key=jax.random.key(0))
    >>> cell.features(cell(cell.init(), jnp.ones(3))).shape
    (16,)
    """

    weight: Float[Array, "width inputs"]
    bias: Float[Array, " width"]

    def __init__(self, inputs: int, width: int, *, key: PRNGKeyArray, sparsity: float = 0.9):
        require_size("Encoder", inputs=inputs, width=width)
        if not 0 <= sparsity < 1:
            raise ValueError(f"Encoder: sparsity must be in [0, 1), got {sparsity}")
        weight_key, order_key = jax.random.split(key)
        weight = jax.random.uniform(weight_key, (width, inputs), minval=-1.0, maxval=1.0) * inputs**-0.5
        # At least one weight of each row is kept.
        zeros = min(round(sparsity * inputs), inputs - 1)
        rank = jnp.argsort(jax.random.uniform(order_key, (width, inputs)), 1)
        self.weight, self.bias = jnp.where(rank < zeros, 0, weight), jnp.zeros(width)

    @property
    def inputs(self) -> int:
        """Size of an observation, x of shape (inputs,)."""
        return self.weight.shape[1]

    @property
    def feature_count(self) -> int:
        """The layer's units."""
        return self.weight.shape[0]

    @property
    def memoryless(self) -> bool:
        """It is."""
        return True

    def init(self) -> Carry:
        """No activity yet, and no moments."""
        return Carry((jnp.zeros_like(self.bias),), ())

    def __call__(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> Carry:
        """The activities of this observation; those of before leave no trace."""
        require_width(self, x)
        return Carry((runs(_encode, len(self.bias))(self.weight, self.bias, x),), carry.stats)

    def features(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> Float[Array, " width"]:
        """The activities, (width,)."""
        return carry.hidden[0]


def _encode(weight: Array, bias: Array, x: Array) -> Array:
    drive = sum_products(x[:, None], jnp.swapaxes(weight, 0, 1)) + bias
    centred = drive - total(drive)[None] / drive.shape[0]
    scale = jax.lax.rsqrt(total(jnp.square(centred)) / drive.shape[0] + EPS)
    return jax.nn.leaky_relu(centred * scale[None])
