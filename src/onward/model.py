"""A cell and a head."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray

from onward._tree import trainable
from onward._types import Carry, PyTree
from onward.cells.base import AbstractCell
from onward.heads.base import AbstractHead


class Model(eqx.Module):
    """A recurrent network that answers: a cell and a head over its features.

    >>> import jax, jax.numpy as jnp
    >>> from onward import Columns, GRUGates, Linear, Model
    >>> model = Model(Columns(GRUGates(), 3, 5, key=jax.random.key(0)), Linear(5))
    >>> carry, prediction = model(model.init(), jnp.ones(3))
    >>> prediction.shape
    ()
    """

    cell: AbstractCell
    head: AbstractHead

    def init(self) -> Carry:
        """The state at the start of a stream."""
        return self.cell.init()

    def __call__(self, carry: Carry, x: Array, *, key: PRNGKeyArray | None = None) -> tuple[Carry, Array]:
        """Read one observation and predict."""
        carry = self.cell(carry, x, key=key)
        return carry, self.head(self.cell.features(carry, key=key))

    def answer(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> tuple[Array, Callable[[Any], Any]]:
        """The prediction of a state, and its pullback to (head gradient, cotangent on `carry.hidden`)."""
        weights, rest = eqx.partition(self.head, trainable(self.head))

        def read(weights: PyTree, hidden: PyTree) -> Array:
            return eqx.combine(weights, rest)(self.cell.features(Carry(hidden, carry.stats), key=key))

        return jax.vjp(read, weights, carry.hidden)

    def trainable(self) -> PyTree:
        """A model-shaped tree of bools: which leaves learn."""
        spec = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda m: (m.cell, m.head), spec, (trainable(self.cell), trainable(self.head)))
