"""Gated recurrent units."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.nn import sigmoid
from jaxtyping import Array, PRNGKeyArray

from onward.cells.base import AbstractGates, States
from onward.cells.dense import Dense


class GRUGates(AbstractGates):
    """Update and reset gate, and candidate; one state, h.

    z, r = sigmoid(a1), sigmoid(a2);  h' = (1 - z) tanh(a3 + r a4) + z h

    a4 is the recurrent drive of the candidate alone (the form that cuDNN and PyTorch use).
    `update_bias` is added to the bias of z: larger means a longer memory from the start.
    """

    states: ClassVar[int] = 1
    slots: ClassVar[int] = 4
    input_slots: ClassVar[tuple[int, ...]] = (0, 1, 2)
    recurrent_slots: ClassVar[tuple[int, ...]] = (0, 1, 3)
    update_bias: float = eqx.field(default=0.0, static=True)

    def next_state(self, i: int, preactivation: States, states: States, new: States) -> Array:
        """The one state, h', from four preactivations and (h,), each (units,)."""
        a_update, a_reset, a_candidate, a_recurrent = preactivation
        z = sigmoid(a_update)
        return (1 - z) * jnp.tanh(a_candidate + sigmoid(a_reset) * a_recurrent) + z * states[0]

    @property
    def span(self) -> tuple[float, float]:
        """(-1, 1): h' lies between tanh and h."""
        return -1.0, 1.0

    def initial_bias(self, bias: Array, *, key: PRNGKeyArray) -> Array:
        """Add `update_bias` to the update gate."""
        return bias.at[0].add(self.update_bias)

    def remember(self, bias: Array, log_time: Array) -> Array:
        """The bias with that of the update gate set to `log_time`."""
        return bias.at[0].set(log_time)


def GRU(inputs: int, units: int, *, key: PRNGKeyArray, update_bias: float = 0.0, **options: Any) -> Dense:  # noqa: N802
    """A dense GRU layer: 3 units (inputs + units + 1) parameters. Options are those of `Dense`.

    >>> import jax
    >>> GRU(3, 5, key=jax.random.key(0)).init().hidden[0].shape
    (5,)
    """
    return Dense(GRUGates(update_bias), inputs, units, key=key, **options)
