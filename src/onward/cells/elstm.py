"""LSTM units whose gates read their own memory, one by one."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.nn import sigmoid
from jaxtyping import Array, PRNGKeyArray

from onward.cells.base import AbstractGates, States


class ELSTMGates(AbstractGates):
    """Element-wise LSTM (Irie et al., 2024): each gate reads the input and the unit's own c; states (c, h).

        f = sigmoid(a1 + w1 c);  g = tanh(a2 + w2 c);  c' = f c + (1 - f) g
        o = sigmoid(a3 + w3 c');  h' = o c'

    w1, w2 and w3 are parameters of the unit's own. In the paper w3 is a full matrix, by which a unit's output sees the
    c' of all at this step; here it sees its own. For `Columns` only. Memory of an exact trace: 2 floats a parameter.
    """

    states: ClassVar[int] = 2
    slots: ClassVar[int] = 6
    input_slots: ClassVar[tuple[int, ...]] = (0, 1, 2)
    recurrent_slots: ClassVar[tuple[int, ...]] = ()
    bias_slots: ClassVar[tuple[int, ...] | None] = (0, 1, 2, 3, 4, 5)
    forget_bias: float = eqx.field(default=0.0, static=True)

    def next_state(self, i: int, preactivation: States, states: States, new: States) -> Array:
        """State 0 is c', state 1 is h' from c' in `new`; each preactivation and state is (units,)."""
        a_forget, a_candidate, a_output, w_forget, w_candidate, w_output = preactivation
        if i == 0:
            c = states[0]
            f = sigmoid(a_forget + w_forget * c)
            return f * c + (1 - f) * jnp.tanh(a_candidate + w_candidate * c)
        return sigmoid(a_output + w_output * new[0]) * new[0]

    @property
    def span(self) -> tuple[float, float]:
        """(-1, 1): c' lies between c and tanh."""
        return -1.0, 1.0

    def initial_bias(self, bias: Array, *, key: PRNGKeyArray) -> Array:
        """Add `forget_bias` to the forget gate."""
        return bias.at[0].add(self.forget_bias)

    def remember(self, bias: Array, log_time: Array) -> Array:
        """The bias with that of the forget gate set to `log_time`."""
        return bias.at[0].set(log_time)
