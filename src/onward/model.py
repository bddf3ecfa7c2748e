"""A cell and a head."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from onward.cells.base import AbstractCell
from onward.heads.base import AbstractHead
from onward.parts import AbstractPart
from onward.trees import trainable
from onward.types import Carry, PyTree


class Model(AbstractPart):
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
        """The state at the start of a stream: of all trajectories, on a leading axis, if the head asks for several."""
        carry, trajectories = self.cell.init(), self.head.trajectories
        if trajectories is None:
            return carry
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (trajectories, *a.shape)), carry)

    def __call__(self, carry: Carry, x: Array, *, key: PRNGKeyArray | None = None) -> tuple[Carry, Array]:
        """Read one observation and predict. `key` is for cells that sample."""
        carry = self.advance(carry, x, key=key)
        return carry, self.head(self.features(carry, key=key))

    def advance(self, carry: Carry, x: Array, *, key: PRNGKeyArray | None = None) -> Carry:
        """The carry after reading one x of shape (inputs,): of every trajectory, if the head asks for several."""
        copies = self.head.trajectories
        # Copied, not shared: kernels of small layers cannot be batched twice over an argument that is not batched.
        xs = x if copies is None else jnp.broadcast_to(x, (copies, *jnp.shape(x)))
        return self._each(lambda c, x, k: self.cell(c, x, key=k), (carry, xs), key)

    def features(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> Array:
        """What the head reads: of every trajectory, if it asks for several."""
        # Other draws than those of the step that led here.
        key = None if key is None else jax.random.fold_in(key, 1)
        return self._each(lambda c, k: self.cell.features(c, key=k), (carry,), key)

    def _each(self, function: Callable[..., Any], arguments: tuple[Any, ...], key: PRNGKeyArray | None) -> Any:
        trajectories = self.head.trajectories
        if trajectories is None:
            return function(*arguments, key)
        return jax.vmap(function)(*arguments, None if key is None else jax.random.split(key, trajectories))

    @property
    def prediction_shape(self) -> tuple[int, ...]:
        """The shape of a prediction. Nothing is computed."""
        return jax.eval_shape(lambda: self.head(self.features(self.init(), key=jax.random.key(0)))).shape

    def evaluation(self) -> "Model":
        """The same network with as many trajectories as its head wants for measuring."""
        return Model(self.cell, self.head.for_evaluation())

    def answer(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> tuple[Array, Callable[[Any], Any]]:
        """The prediction of a state, and its pullback to (head gradient, cotangent on `carry.hidden`)."""
        weights, rest = eqx.partition(self.head, trainable(self.head))

        def read(weights: PyTree, hidden: PyTree) -> Array:
            return eqx.combine(weights, rest)(self.features(Carry(hidden, carry.stats), key=key))

        return jax.vjp(read, weights, carry.hidden)

    def gradient_of(self, cell: PyTree, head: PyTree) -> "Model":
        """A model-shaped gradient from that of its cell and that of its head: None in every other place."""
        nothing = eqx.filter(self, False)
        return eqx.tree_at(lambda m: (m.cell, m.head), nothing, (cell, head))

    def trainable(self) -> PyTree:
        """A model-shaped tree of bools: which leaves learn."""
        spec = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda m: (m.cell, m.head), spec, (trainable(self.cell), trainable(self.head)))
