"""Cells side by side."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.base import AbstractCell
from onward.types import Carry, PyTree


class Parallel(AbstractCell):
    """Any cells side by side: each reads the observation, none another; a head reads the features of all.

    So columns of several kinds make one network, and `Columnwise` is exact for it at the sum of their costs.
    ValueError for cells that read observations of different widths.

    >>> import jax
    >>> from onward import Columns, GRUGates, LRUGates, Parallel
    >>> key = jax.random.key(0)
    >>> cell = Parallel(Columns(GRUGates(), 3, 4, key=key), Columns(LRUGates(), 3, 2, key=key))
    >>> cell.feature_count
    8
    """

    cells: tuple[AbstractCell, ...]

    def __init__(self, *cells: AbstractCell):
        if not cells:
            raise ValueError("Parallel needs at least one cell")
        widths = [cell.inputs for cell in cells]
        if len({*widths}) > 1:
            raise ValueError(f"Parallel: all cells read the same observation; these read {widths} inputs")
        self.cells = cells

    @property
    def inputs(self) -> int:
        """Those of each cell."""
        return self.cells[0].inputs

    @property
    def feature_count(self) -> int:
        """The features of all cells together."""
        return sum(cell.feature_count for cell in self.cells)

    @property
    def memoryless(self) -> bool:
        """Whether all cells are."""
        return all(cell.memoryless for cell in self.cells)

    def init(self) -> Carry:
        """The start of each cell, in a tuple."""
        return Carry(*zip(*(cell.init() for cell in self.cells), strict=True))

    def __call__(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> Carry:
        """Each cell reads the observation. Of one `key` each cell gets its own."""
        after = [cell(c, x, key=k) for cell, c, k in zip(self.cells, self.carries(carry), self.keys(key), strict=True)]
        return Carry(*zip(*after, strict=True))

    def features(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> Float[Array, " features"]:
        """Those of the first cell first."""
        carries = zip(self.cells, self.carries(carry), self.keys(key), strict=True)
        return jnp.concatenate([cell.features(c, key=k) for cell, c, k in carries])

    def trainable(self) -> PyTree:
        """What each cell says of its own arrays."""
        spec = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda p: p.cells, spec, tuple(cell.trainable() for cell in self.cells))

    def carries(self, carry: Carry) -> list[Carry]:
        """The carry of each cell."""
        return [Carry(hidden, stats) for hidden, stats in zip(*carry, strict=True)]

    def keys(self, key: PRNGKeyArray | None) -> list[PRNGKeyArray | None]:
        """A key for each cell."""
        return [None if key is None else jax.random.fold_in(key, i) for i in range(len(self.cells))]
