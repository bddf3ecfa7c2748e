"""A layer of gated units that all read one another."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward._types import Carry
from onward.cells.base import AbstractCell, AbstractGates, require_size


class Dense(AbstractCell):
    """Fully connected recurrent layer of any kind of gates.

    preactivation = W x + U h + b, with W (inputs, gates, units) and U (units, gates, units);
    parameters start at U(-1, 1) / sqrt(units).
    """

    gates: AbstractGates
    weight: Float[Array, "inputs gates units"]
    recurrent: Float[Array, "units gates units"]
    bias: Float[Array, "gates units"]

    def __init__(self, gates: AbstractGates, inputs: int, units: int, *, key: PRNGKeyArray):
        require_size("Dense", inputs=inputs, units=units)
        weight_key, recurrent_key, bias_key = jax.random.split(key, 3)
        limit = units**-0.5
        draw = lambda k, *shape: jax.random.uniform(k, shape, minval=-limit, maxval=limit)
        rows, loops = len(gates.input_slots), len(gates.recurrent_slots)
        self.gates = gates
        self.weight = draw(weight_key, inputs, rows, units)
        self.recurrent = draw(recurrent_key, units, loops, units)
        self.bias = gates.initial_bias(draw(bias_key, rows, units))

    @property
    def inputs(self) -> int:
        """Size of an observation."""
        return self.weight.shape[0]

    @property
    def units(self) -> int:
        """Number of units."""
        return self.weight.shape[2]

    @property
    def feature_count(self) -> int:
        """Units: a head reads every h."""
        return self.units

    def init(self) -> Carry:
        """All zero."""
        return Carry((jnp.zeros_like(self.bias[0]),) * self.gates.states, ())

    def __call__(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> Carry:
        """Read one observation; units (inputs + units) multiply-adds a gate."""
        drive = jnp.einsum("i,igu->gu", x, self.weight) + self.bias
        loop = jnp.einsum("h,hgu->gu", carry.hidden[-1], self.recurrent)
        return Carry(self.gates(self.gates.gather(drive, loop), carry.hidden), ())

    def features(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> Float[Array, " units"]:
        """The hidden values h."""
        return carry.hidden[-1]
