"""Two more inverse models: what each unit carries by itself, and the shifts of another one at one length."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from onward.cells.base import AbstractCell, Derivatives, pull_back
from onward.cells.columns import Columns
from onward.cells.dense import Dense
from onward.cells.hybrid import Hybrid
from onward.learners.inverses import AbstractInverse, Transition
from onward.types import Carry, PyTree


class MemoryInverse(AbstractInverse):
    """What each unit's own memory carries back, and nothing through others.

    No weights and nothing to learn. In a dense layer the recurrent drive counts as given, so d_{t-1} is z d_t in a GRU,
    f d_t (for c) in an LSTM, nothing in an Elman layer. Exact for `Columns`, whose units read no other: there `TPTT` is
    BPTT. Fits a dense layer, a `Hybrid` one, and columns. Cost: the derivatives of the gates.
    """

    def init(self, cell: AbstractCell, *, key: PRNGKeyArray) -> tuple[()]:
        """No weights; TypeError for a cell that is not one layer of gated units."""
        if not isinstance(cell, Dense | Hybrid | Columns):
            raise TypeError(
                "MemoryInverse fits a dense layer (Elman, GRU, LSTM, Dense), a Hybrid of one, or Columns, got "
                f"{type(cell).__name__}; IdentityInverse fits any cell"
            )
        return ()

    def observe(self, cell: AbstractCell, transition: Transition) -> list[Derivatives]:
        """The derivatives of a dense layer's gates at the preactivations of this step; of columns nothing."""
        if isinstance(cell, Columns):
            return []
        assert isinstance(cell, Dense | Hybrid)
        slots = cell.slots(transition.before, transition.x, key=transition.key)
        return cell.gates.jacobian(slots, transition.before.hidden)[1]

    def shift(
        self, weights: tuple[()], cell: AbstractCell, transition: Transition, seen: list[Derivatives], d: PyTree
    ) -> PyTree:
        """`d` through the memory of each unit."""
        if isinstance(cell, Columns):
            hidden, stats = transition.before
            return jax.vjp(lambda h: cell(Carry(h, stats), transition.x).hidden, hidden)[1](d)[0]
        assert isinstance(cell, Dense | Hybrid)
        return pull_back(seen, d, cell.gates.slots)[1]

    def loss(self, weights: tuple[()], cell: AbstractCell, transition: Transition, *, key: PRNGKeyArray) -> Array:
        """0: there is nothing to lower."""
        return jnp.zeros(())


class SteadyInverse(AbstractInverse):
    """The shifts of another inverse model, each made as long as the one it came from: |d_{t-1}| = |d_t|.

    Directions are those of `inverse`, which learns as it would alone. A shift neither vanishes nor explodes over many
    steps, as a gradient does; so even where the directions are the gradient's, the update is not: steps far back weigh
    as much as the last. Local, as lengths are of one row at one step. A shift of zero stays zero.
    """

    inverse: AbstractInverse

    def init(self, cell: AbstractCell, *, key: PRNGKeyArray) -> PyTree:
        """The weights of the other."""
        return self.inverse.init(cell, key=key)

    def observe(self, cell: AbstractCell, transition: Transition) -> PyTree:
        """What the other needs."""
        return self.inverse.observe(cell, transition)

    def shift(self, weights: PyTree, cell: AbstractCell, transition: Transition, seen: PyTree, d: PyTree) -> PyTree:
        """The other's shift, at the length of `d`."""
        back, as_tree = ravel_pytree(self.inverse.shift(weights, cell, transition, seen, d))
        vector, _ = ravel_pytree(d)
        # Shifts are small: their largest number first, or their squares underflow.
        size, length = _length(vector), _length(back)
        return as_tree(jnp.where(length > 0, size / jnp.where(length > 0, length, 1), 0) * back)

    def loss(self, weights: PyTree, cell: AbstractCell, transition: Transition, *, key: PRNGKeyArray) -> Array:
        """What the other learns by."""
        return self.inverse.loss(weights, cell, transition, key=key)

    def follow(self, weights: PyTree, before: AbstractCell, after: AbstractCell) -> PyTree:
        """As the other's."""
        return self.inverse.follow(weights, before, after)


def _length(vector: Array) -> Array:
    top = jnp.max(jnp.abs(vector))
    return top * jnp.linalg.norm(vector / jnp.where(top > 0, top, 1))
