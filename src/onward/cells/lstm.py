"""Long short-term memory."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.nn import sigmoid
from jaxtyping import Array, PRNGKeyArray

from onward.cells.base import AbstractGates, States
from onward.cells.dense import Dense


class LSTMGates(AbstractGates):
    """Input, forget and output gate, and candidate (Javed et al., eqs 1-6); states (c, h).

        i, f, o = sigmoid(a1), sigmoid(a2), sigmoid(a3); g = tanh(a4)
        c' = f c + i g;  h' = o tanh(c')

    >>> import jax.numpy as jnp
    >>> gates, zero = LSTMGates(), jnp.zeros(3)
    >>> [s.shape for s in gates((zero,) * 4, (zero, zero))]
    [(3,), (3,)]
    """

    states: ClassVar[int] = 2
    slots: ClassVar[int] = 4
    input_slots: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)
    recurrent_slots: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)
    forget_bias: float = eqx.field(default=0.0, static=True)

    def next_state(self, i: int, preactivation: States, states: States, new: States) -> Array:
        """State 0 is c', state 1 is h' from c' in `new`; each preactivation and state is (units,)."""
        a_input, a_forget, a_output, a_candidate = preactivation
        if i == 0:
            return sigmoid(a_forget) * states[0] + sigmoid(a_input) * jnp.tanh(a_candidate)
        return sigmoid(a_output) * jnp.tanh(new[0])

    @property
    def span(self) -> tuple[float, float]:
        """The range of a gate times tanh."""
        return -1.0, 1.0

    def initial_bias(self, bias: Array, *, key: PRNGKeyArray) -> Array:
        """Add `forget_bias` to the forget gate."""
        return bias.at[1].add(self.forget_bias)

    def remember(self, bias: Array, log_time: Array) -> Array:
        """Of the forget gate, and of the input gate in return."""
        return bias.at[1].set(log_time).at[0].set(-log_time)


def LSTM(inputs: int, units: int, *, key: PRNGKeyArray, forget_bias: float = 1.0, **options: Any) -> Dense:  # noqa: N802
    """A dense LSTM layer: 4 units (inputs + units + 1) parameters. Options are those of `Dense`.

    >>> import jax
    >>> LSTM(3, 5, key=jax.random.key(0)).init().hidden[0].shape
    (5,)
    """
    return Dense(LSTMGates(forget_bias), inputs, units, key=key, **options)
