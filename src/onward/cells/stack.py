"""Cells on top of one another."""

import itertools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.base import AbstractCell
from onward.types import Carry, PyTree


class Stack(AbstractCell):
    """Any cells in a row: each reads the features of the one below, within the same step.

    A head reads the features of the last cell, or with `reads="all"` those of every cell, the first cell's first. The
    states of all cells together are one state. Exact rules treat it so: the influence of a lower
    cell's parameters on the states above is kept.

    >>> import jax
    >>> from onward import GRU, LSTM, Stack
    >>> key = jax.random.key(0)
    >>> cell = Stack(GRU(3, 5, key=key), LSTM(5, 4, key=key))
    >>> cell.inputs, cell.feature_count, [len(h) for h in cell.init().hidden]
    (3, 4, [1, 2])
    """

    cells: tuple[AbstractCell, ...]
    reads: Literal["last", "all"] = eqx.field(static=True)

    def __init__(self, *cells: AbstractCell, reads: Literal["last", "all"] = "last"):
        if not cells:
            raise ValueError("Stack needs at least one cell")
        if reads not in ("last", "all"):
            raise ValueError(f"Stack: reads must be 'last' or 'all', got {reads!r}")
        for i, (below, above) in enumerate(itertools.pairwise(cells)):
            if below.feature_count != above.inputs:
                raise ValueError(
                    f"Stack: cell {i + 1} reads {above.inputs} inputs, cell {i} below has {below.feature_count}"
                )
        self.cells, self.reads = cells, reads

    @property
    def inputs(self) -> int:
        """Size of an observation, which the first cell reads."""
        return self.cells[0].inputs

    @property
    def feature_count(self) -> int:
        """Features of the cells that a head reads."""
        return sum(cell.feature_count for cell in self.read_cells)

    @property
    def read_cells(self) -> tuple[AbstractCell, ...]:
        """The cells whose features a head reads."""
        return self.cells if self.reads == "all" else self.cells[-1:]

    def init(self) -> Carry:
        """Every cell at its start."""
        return Carry(*zip(*[cell.init() for cell in self.cells], strict=True))

    def __call__(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> Carry:
        """Read one observation, from the first cell to the last."""
        after: list[Carry] = []
        keys = [None] * len(self.cells) if key is None else list(jax.random.split(key, len(self.cells)))
        for cell, before, k in zip(self.cells, map(Carry, *carry), keys, strict=True):
            after.append(cell(before, x, key=k))
            # Other draws than those of the step that led here.
            x = cell.features(after[-1], key=None if k is None else jax.random.fold_in(k, 1))
        return Carry(*zip(*after, strict=True))

    def features(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> Float[Array, " features"]:
        """What a head reads: the features of the last cell, or of all."""
        count = len(self.read_cells)
        own = list(map(Carry, *carry))[-count:]
        # One key for one cell: what it is alone.
        keys = [key] * count if key is None or count == 1 else list(jax.random.split(key, count))
        found = [cell.features(c, key=k) for cell, c, k in zip(self.read_cells, own, keys, strict=True)]
        return found[0] if count == 1 else jnp.concatenate(found)

    def trainable(self) -> PyTree:
        """What each cell says of itself."""
        spec = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda s: s.cells, spec, tuple(cell.trainable() for cell in self.cells))
