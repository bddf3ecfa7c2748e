"""A cell whose head sees the observation too."""

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.base import AbstractCell, AbstractColumnar, States
from onward.cells.columns import Columns
from onward.types import Carry, PyTree


class Skip(AbstractColumnar):
    """Any cell, with features [x, features of the cell]: a linear model of x is then contained in every linear head.

    x is kept in the state, and is not differentiated by any parameter. Over columns (`Columns`, `Cascade`) it
    is a cell of columns itself, and `Columnwise` is exact and as cheap as without; other rules treat x as
    `inputs` more states.

    >>> import jax, jax.numpy as jnp
    >>> from onward import Columns, GRUGates, Skip
    >>> cell = Skip(Columns(GRUGates(), 3, 5, key=jax.random.key(0)))
    >>> cell.feature_count, cell.features(cell(cell.init(), jnp.ones(3)))[:3].tolist()
    (8, [1.0, 1.0, 1.0])
    """

    cell: AbstractCell

    @property
    def inputs(self) -> int:
        """Size of the observation that the cell within reads."""
        return self.cell.inputs

    @property
    def feature_count(self) -> int:
        """Inputs and features of the cell."""
        return self.cell.inputs + self.cell.feature_count

    def init(self) -> Carry:
        """The cell at its start, and an observation of zeros."""
        inner = self.cell.init()
        like = jax.tree.leaves(inner.hidden)[0]
        return Carry((jnp.zeros(self.inputs, like.dtype), inner.hidden), inner.stats)

    def __call__(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> Carry:
        """Read one observation, and keep it."""
        return carry_of(x, self.cell(without(carry), x, key=key))

    def features(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> Float[Array, " features"]:
        """The observation, then the features of the cell: (inputs + features of the cell,)."""
        return jnp.concatenate([carry.hidden[0], self.cell.features(without(carry), key=key)])

    def trainable(self) -> PyTree:
        """What the cell says of itself."""
        return eqx.tree_at(lambda s: s.cell, jax.tree.map(lambda _: False, self), self.cell.trainable())

    @property
    def grows(self) -> bool:
        """Where the cell within grows."""
        return self.cell.grows

    def grow(self, carry: Carry, *, key: PRNGKeyArray) -> tuple["Skip", Carry]:
        """The cell within, grown: the observation stays the first feature."""
        if not self.cell.grows:
            raise TypeError(f"only a Cascade grows, got Skip({type(self.cell).__name__})")
        cell, inner = self.cell.grow(without(carry), key=key)
        return Skip(cell), carry_of(carry.hidden[0], inner)

    @property
    def live(self) -> Columns:
        """The trainable columns of the cell."""
        return self._columnar.live

    @property
    def _columnar(self) -> AbstractColumnar:
        if not isinstance(self.cell, AbstractColumnar):
            raise TypeError(
                f"Columnwise needs columns that do not read one another (Columns or Cascade), "
                f"got Skip({type(self.cell).__name__}); use RTRL, which is exact for any cell"
            )
        return self.cell

    def feed(self, carry: Carry, x: Float[Array, " inputs"]) -> tuple[Array, Carry, Carry]:
        """What the columns read, their carry, and the rest's with x."""
        read, live, rest = self._columnar.feed(without(carry), x)
        return read, live, carry_of(x, rest)

    def join(self, live: Carry, rest: Carry) -> Carry:
        """The whole carry, the kept observation first, from the live columns' and the rest's."""
        return carry_of(rest.hidden[0], self._columnar.join(live, without(rest)))

    def embed(self, live: PyTree) -> Self:
        """A gradient of the columns as one of this cell."""
        return self.around(self._columnar.embed(live))

    def around(self, gradient: PyTree) -> Self:
        """A gradient of the cell as one of this."""
        nothing = eqx.filter(self, False)
        return eqx.tree_at(lambda s: s.cell, nothing, gradient, is_leaf=lambda n: n is None)

    def live_cotangent(self, cotangent: Any) -> States:
        """The part on the columns."""
        return self._columnar.live_cotangent(cotangent[1])


def without(carry: Carry) -> Carry:
    """The state of the cell alone."""
    return Carry(carry.hidden[1], carry.stats)


def carry_of(x: Array, inner: Carry) -> Carry:
    """The state of a `Skip` whose cell is in the state `inner`."""
    return Carry((x, inner.hidden), inner.stats)
