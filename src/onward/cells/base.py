"""What a cell is: affine, then elementwise.

A cell states its step in two parts, `preactivation = W [x, h, 1]` and `hidden = gates(preactivation,
hidden)`. The second part (`AbstractGates`) is written once per kind of unit and acts on each unit
alone, so the same gates serve a dense layer (`Dense`) and independent columns (`Columns`), and every
credit rule differentiates them at their preactivations instead of at the parameters.
"""

import abc
from functools import partial
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward._tree import depends
from onward._types import Carry, PyTree

States = tuple[Float[Array, " units"], ...]
Derivatives = tuple[tuple[Array | None, ...], tuple[Array | None, ...], tuple[Array | None, ...]]


class AbstractGates(eqx.Module):
    """The elementwise half of a cell, for any number of units at once.

    A unit has `states` numbers, of which the last is the one that others read. It is driven by
    `slots` preactivations. Row i of the input weights and of the bias drives slot `input_slots[i]`,
    row i of the recurrent weights drives slot `recurrent_slots[i]`.
    """

    states: eqx.AbstractClassVar[int]
    slots: eqx.AbstractClassVar[int]
    input_slots: eqx.AbstractClassVar[tuple[int, ...]]
    recurrent_slots: eqx.AbstractClassVar[tuple[int, ...]]

    @abc.abstractmethod
    def next_state(self, i: int, preactivation: States, states: States, new: States) -> Float[Array, " units"]:
        """State i of the next step, given the old states and the new ones before it (j < i).

        Each result depends on the same unit's arguments only.
        """

    def __call__(self, preactivation: States, states: States) -> States:
        """The next states."""
        new: States = ()
        for i in range(self.states):
            new = (*new, self.next_state(i, preactivation, states, new))
        return new

    def initial_bias(self, bias: Float[Array, "gates units"]) -> Float[Array, "gates units"]:
        """Change the drawn bias where this kind of unit needs a start of its own."""
        return bias

    def gather(self, from_input: Array, from_recurrent: Array) -> States:
        """Add both drives, (gates, units) each, into one array per slot."""
        drives: list[Array | None] = [None] * self.slots
        for rows, slots in ((from_input, self.input_slots), (from_recurrent, self.recurrent_slots)):
            for row, slot in enumerate(slots):
                before = drives[slot]
                drives[slot] = rows[row] if before is None else before + rows[row]
        return tuple(d for d in drives if d is not None)

    def jacobian(self, preactivation: States, states: States) -> tuple[States, list[Derivatives]]:
        """The next states, and for each its derivatives by slots, by old states and by new states before it.

        Exact: each is a pullback of ones, since every unit depends on itself alone. A derivative is
        None where the program says that there is no dependence.
        """
        new: States = ()
        derivatives = []
        for i in range(self.states):
            step, arguments = partial(self.next_state, i), (preactivation, states, new)
            value, pullback = jax.vjp(step, *arguments)
            found = pullback(jnp.ones_like(value))
            derivatives.append(jax.tree.map(lambda d, there: d if there else None, found, depends(step, *arguments)))
            new = (*new, value)
        return new, derivatives


class AbstractCell(eqx.Module):
    """A recurrent network: its parameters, its state and one step of it."""

    @property
    @abc.abstractmethod
    def inputs(self) -> int:
        """Size of an observation."""

    @property
    @abc.abstractmethod
    def feature_count(self) -> int:
        """Size of the feature vector."""

    @abc.abstractmethod
    def init(self) -> Carry:
        """The state at the start of a stream."""

    @abc.abstractmethod
    def __call__(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> Carry:
        """Read one observation."""

    @abc.abstractmethod
    def features(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> Float[Array, " features"]:
        """What a head reads of the state."""

    def trainable(self) -> PyTree:
        """A cell-shaped tree of bools: which leaves learn. Default: every floating array."""
        return jax.tree.map(eqx.is_inexact_array, self)


class AbstractColumnar(AbstractCell):
    """A cell whose trainable part is a set of columns that do not read one another.

    `Columnwise` needs no more than this: the trainable `live` columns, and what they read now.
    """

    @property
    @abc.abstractmethod
    def live(self) -> "AbstractColumnar":
        """The trainable columns."""

    @abc.abstractmethod
    def feed(self, carry: Carry, x: Float[Array, " inputs"]) -> tuple[Array, Carry, Carry]:
        """Run all that is frozen: what the live columns read, their carry, and the rest's new carry."""

    @abc.abstractmethod
    def join(self, live: Carry, rest: Carry) -> Carry:
        """The whole carry from the live columns' and the rest's."""

    @abc.abstractmethod
    def embed(self, live: PyTree) -> Self:
        """A gradient of the live columns as a gradient of the cell, None elsewhere."""

    @abc.abstractmethod
    def live_cotangent(self, cotangent: PyTree) -> States:
        """The part of a cotangent on `carry.hidden` that falls on the live columns' states."""


def require_size(owner: str, **sizes: int) -> None:
    """Refuse sizes that are not whole numbers of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{owner}: {name} must be a whole number of at least 1, got {size!r}")
