"""The cell that remembers nothing."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.base import AbstractCell, require_size, require_width
from onward.types import Carry


class Echo(AbstractCell):
    """A cell without parameters: its features are the observation just read, h = x.

    With a head it is the predictor without memory: regression on the last observation, which `BPTT` trains and
    `Frequencies` fits exactly. Credit rules refuse it, for there is nothing to assign credit to. Cost: none.

    >>> import jax.numpy as jnp
    >>> cell = Echo(2)
    >>> cell.features(cell(cell.init(), jnp.array([3.0, 4.0]))).tolist()
    [3.0, 4.0]
    """

    width: int = eqx.field(static=True)

    def __init__(self, inputs: int):
        require_size("Echo", inputs=inputs)
        self.width = inputs

    @property
    def inputs(self) -> int:
        """Size of an observation, x of shape (inputs,)."""
        return self.width

    @property
    def feature_count(self) -> int:
        """As many features as inputs."""
        return self.width

    @property
    def memoryless(self) -> bool:
        """It is."""
        return True

    def init(self) -> Carry:
        """An observation of zeros, and no moments."""
        return Carry((jnp.zeros(self.width),), ())

    def __call__(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> Carry:
        """Keep this observation, forget the one before."""
        require_width(self, x)
        return Carry((jnp.asarray(x, carry.hidden[0].dtype),), carry.stats)

    def features(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> Float[Array, " inputs"]:
        """The observation that was read last, (inputs,)."""
        return carry.hidden[0]
