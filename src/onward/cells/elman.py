"""The simple recurrent network."""

from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from onward.cells.base import AbstractGates, States
from onward.cells.dense import Dense

Activation = Literal["tanh", "sigmoid", "relu"]
ACTIVATIONS = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu}


class ElmanGates(AbstractGates):
    """One squashed sum (Elman, 1990): h' = activation(a); one state, h.

    >>> import jax.numpy as jnp
    >>> ElmanGates("relu")((jnp.array([-1.0, 2.0]),), (jnp.zeros(2),))[0].tolist()
    [0.0, 2.0]
    """

    states: ClassVar[int] = 1
    slots: ClassVar[int] = 1
    input_slots: ClassVar[tuple[int, ...]] = (0,)
    recurrent_slots: ClassVar[tuple[int, ...]] = (0,)
    activation: Activation = eqx.field(default="tanh", static=True)

    def __check_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"ElmanGates: activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")

    @property
    def span(self) -> tuple[float, float] | None:
        """The range of the activation."""
        return {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}.get(self.activation)

    def next_state(self, i: int, preactivation: States, states: States, new: States) -> Array:
        """The activation of the one preactivation, (units,)."""
        return ACTIVATIONS[self.activation](preactivation[0])


def Elman(  # noqa: N802
    inputs: int, units: int, *, key: PRNGKeyArray, activation: Activation = "tanh", **options: Any
) -> Dense:
    """A simple recurrent layer: units (inputs + units + 1) parameters. Options are those of `Dense`.

    >>> import jax
    >>> Elman(3, 5, key=jax.random.key(0)).init().hidden[0].shape
    (5,)
    """
    return Dense(ElmanGates(activation), inputs, units, key=key, **options)
