"""Minimal gated units."""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jax.nn import sigmoid
from jaxtyping import Array

from onward.cells.base import AbstractGates, States

CANDIDATES = {"linear": lambda u: u, "positive": lambda u: jnp.where(u > 0, u + 0.5, sigmoid(u))}


class MinGRUGates(AbstractGates):
    """Minimal gated recurrent unit (Feng et al., 2024): nothing but the input drives its gates; one state, h.

        z = sigmoid(a1);  h' = (1 - z) h + z g(a2)

    `candidate`: "linear", g(u) = u; "positive", u + 1/2 above 0 and sigmoid(u) below. Without recurrent weights
    d h'/d h = 1 - z, so an exact trace costs two multiply-adds a parameter. For `Columns` only.

    >>> import jax.numpy as jnp
    >>> MinGRUGates()((jnp.zeros(2), jnp.ones(2)), (jnp.zeros(2),))[0].tolist()
    [0.5, 0.5]
    """

    states: ClassVar[int] = 1
    slots: ClassVar[int] = 2
    input_slots: ClassVar[tuple[int, ...]] = (0, 1)
    recurrent_slots: ClassVar[tuple[int, ...]] = ()
    contracting: ClassVar[bool] = True
    candidate: Literal["linear", "positive"] = eqx.field(default="linear", static=True)

    def __check_init__(self) -> None:
        if self.candidate not in CANDIDATES:
            raise ValueError(f"MinGRUGates: candidate must be one of {', '.join(CANDIDATES)}, got {self.candidate!r}")

    def next_state(self, i: int, preactivation: States, states: States, new: States) -> Array:
        """The one state, h', from two preactivations and (h,), each (units,)."""
        a_update, a_candidate = preactivation
        z = sigmoid(a_update)
        return (1 - z) * states[0] + z * CANDIDATES[self.candidate](a_candidate)

    def remember(self, bias: Array, log_time: Array) -> Array:
        """The bias with that of the update gate set to minus `log_time`."""
        return bias.at[0].set(-log_time)
