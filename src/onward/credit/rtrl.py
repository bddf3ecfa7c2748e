"""Dense real-time recurrent learning, the reference."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from onward._types import Carry, PyTree
from onward.cells.base import AbstractCell
from onward.credit.base import AbstractCredit, Kind


class RTRL(AbstractCredit):
    """Real-time recurrent learning (Williams and Zipser, 1989) of any cell, by its full Jacobians.

        M' = (d hidden'/d hidden) M + d hidden'/d theta,    pull(c) = c M

    Memory: |hidden| |theta| floats. Cost: |hidden|^2 |theta| multiply-adds a step, so it is the
    reference for small networks. Exact for a fixed network; online, up to the drift of the weights.
    """

    kind: ClassVar[Kind] = "exact"

    def init(
        self, cell: AbstractCell, x: Array, *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "states parameters"]:
        """No influence yet."""
        hidden, _ = ravel_pytree(cell.init().hidden)
        theta, _ = ravel_pytree(eqx.filter(cell, cell.trainable()))
        return jnp.zeros((hidden.size, theta.size), theta.dtype)

    def advance(
        self, cell: AbstractCell, carry: Carry, x: Array, state: Array, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, Array]:
        """Step the cell and the influence matrix."""
        parameters, rest = eqx.partition(cell, cell.trainable())
        theta, unravel = ravel_pytree(parameters)
        hidden, unravel_hidden = ravel_pytree(carry.hidden)

        def step(theta: Array, hidden: Array) -> Any:
            after = eqx.combine(unravel(theta), rest)(Carry(unravel_hidden(hidden), carry.stats), x, key=key)
            return ravel_pytree(after.hidden)[0], after

        (immediate, through), after = jax.jacrev(step, argnums=(0, 1), has_aux=True)(theta, hidden)
        return after, through @ state + immediate

    def pull(self, cell: AbstractCell, state: Array, cotangent: PyTree) -> PyTree:
        """The cotangent times the influence matrix."""
        _, unravel = ravel_pytree(eqx.filter(cell, cell.trainable()))
        return unravel(ravel_pytree(cotangent)[0] @ state)
