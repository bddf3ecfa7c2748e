"""Cells on top of one another."""

import itertools

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.base import AbstractCell
from onward.types import Carry, PyTree


class Stack(AbstractCell):
    """Any cells in a row: each reads the features of the one below, within the same step; a head reads the last.

    The states of all cells together are one state. Exact rules treat it so: the influence of a lower
    cell's parameters on the states above is kept.

    >>> import jax
    >>> from onward import GRU, LSTM, Stack
    >>> key = jax.random.key(0)
    >>> cell = Stack(GRU(3, 5, key=key), LSTM(5, 4, key=key))
    >>> cell.inputs, cell.feature_count, [len(h) for h in cell.init().hidden]
    (3, 4, [1, 2])
    """

    cells: tuple[AbstractCell, ...]

    def __init__(self, *cells: AbstractCell):
        if not cells:
            raise ValueError("Stack needs at least one cell")
        for i, (below, above) in enumerate(itertools.pairwise(cells)):
            if below.feature_count != above.inputs:
                raise ValueError(
                    f"Stack: cell {i + 1} reads {above.inputs} inputs, cell {i} below has {below.feature_count}"
                )
        self.cells = cells

    @property
    def inputs(self) -> int:
        """Size of an observation, which the first cell reads."""
        return self.cells[0].inputs

    @property
    def feature_count(self) -> int:
        """Features of the last cell."""
        return self.cells[-1].feature_count

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
        """What a head reads: the last cell's features."""
        return self.cells[-1].features(Carry(carry.hidden[-1], carry.stats[-1]), key=key)

    def trainable(self) -> PyTree:
        """What each cell says of itself."""
        spec = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda s: s.cells, spec, tuple(cell.trainable() for cell in self.cells))
