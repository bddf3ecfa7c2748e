"""What a credit rule is: from a cotangent on the hidden state now to a gradient of the cell.

A rule never sees a loss, and an objective never sees an influence matrix: `pull` is the one seam.
"""

import abc
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, ClassVar, Generic, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from onward.batching import WIDE_LANES
from onward.cells.base import AbstractCell
from onward.parts import AbstractPart
from onward.types import Carry, PyTree

Kind = Literal["exact", "unbiased", "biased"]
# Bytes that a rule's state may take unless its field `memory_limit` says otherwise.
MEMORY_LIMIT = 8 * 2**30
# A trace that is larger starts anew; the square of one that is not is finite in 32 bits.
LARGEST = 1e12


def bounded(parts: Iterable[Array], *, axis: int | tuple[int, ...] | None = None) -> Array:
    """1 where all of these traces are within `LARGEST` along an axis (None: all), and 0 where they have to start anew.

    What a unit that drives itself into chaos does now depends without end on its past: its exact derivative grows
    without bound, and what it was is of no use to anybody. So it begins again from 0, and learning goes on. The factor
    belongs before the derivative by the old state, where it costs nothing a parameter.
    """
    largest = reduce(jnp.maximum, [jnp.max(jnp.abs(part), axis) for part in parts])
    return (largest <= LARGEST).astype(largest.dtype)


State = TypeVar("State")


class AbstractKernel(eqx.Module, Generic[State]):
    """A credit rule on one cell, with one kind of state: what `AbstractCredit.on` returns.

    What the rule is told of a cell it is told here; see `AbstractCredit` for what each method does.
    """

    kind: eqx.AbstractClassVar[Kind]

    @abc.abstractmethod
    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> State:
        """The state at the start of an episode, for observations of the shape of `x`."""

    @abc.abstractmethod
    def advance(self, carry: Carry, x: Array, state: State, *, key: PRNGKeyArray | None = None) -> tuple[Carry, State]:
        """The cell's carry after reading `x`, and the state that belongs to it."""

    @abc.abstractmethod
    def pull(self, state: State, cotangent: PyTree) -> PyTree:
        """The cell-shaped gradient for a cotangent on `carry.hidden`."""


class AbstractCredit(AbstractPart):
    """A credit rule: it carries forward in time what is needed to assign credit.

    A rule of one's own says its `kind` and answers `on`: the kernel that does the work on a cell, and a TypeError for
    a cell that it cannot work on. The rest follows.
    """

    kind: eqx.AbstractClassVar[Kind]
    wide: ClassVar[int] = WIDE_LANES
    """Units from which a batch of runs lies in front, for matrix products (`onward.loop.suitable_axis`)."""

    @abc.abstractmethod
    def on(self, cell: AbstractCell) -> AbstractKernel[Any]:
        """The rule on this cell. TypeError, by name, for a cell that it does not work on."""

    def init(self, cell: AbstractCell, x: Array, *, key: PRNGKeyArray | None = None) -> PyTree:
        """The rule's state at the start of an episode.

        x: an observation, of which the shape counts. key: for rules that draw random numbers.
        TypeError for a cell that has no gradient, or not by this rule; ValueError for an observation of another
        width; MemoryError for a state that is too large.
        """
        kernel = self.on(cell)
        _admit(self, cell, x)
        return kernel.init(x, key=key)

    def advance(
        self, cell: AbstractCell, carry: Carry, x: Array, state: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, PyTree]:
        """One step of the cell, and of the rule's state along with it: the new carry, which is that of
        `cell(carry, x, key=key)`, and the new state.
        """
        return self.on(cell).advance(carry, x, state, key=key)

    def pull(self, cell: AbstractCell, state: PyTree, cotangent: PyTree) -> PyTree:
        """The cell-shaped gradient (None where nothing learns) for a cotangent on `carry.hidden` now."""
        return self.on(cell).pull(state, cotangent)

    def claim(self, cell: AbstractCell, steps: int) -> Kind:
        """What the gradient is on this cell when `steps` steps have passed: `kind`, or exact in a limit of the rule."""
        return self.on(cell).kind


def _admit(rule: AbstractCredit, cell: AbstractCell, x: Array) -> None:
    """Refuse a cell that cannot be differentiated as it says, and an observation of another width."""
    name, kind = type(rule).__name__, type(cell).__name__
    if x.shape != (cell.inputs,):
        raise ValueError(f"{name}: the {kind} reads {cell.inputs} inputs, the observation has shape {x.shape}")
    paths = jax.tree_util.tree_leaves_with_path
    chosen = paths(eqx.filter(cell, cell.trainable()))
    if not chosen:
        raise TypeError(f"{name}: no array of this {kind} is trainable; freeze fewer of its leaves")
    for what, leaves in (("parameter", chosen), ("hidden state", paths(cell.init().hidden))):
        for path, leaf in leaves:
            if not eqx.is_inexact_array(leaf):
                where = jax.tree_util.keystr(path, simple=True, separator=".")
                dtype = getattr(leaf, "dtype", type(leaf).__name__)
                raise TypeError(
                    f"{name}: the {what} {where!r} of {kind} is of type {dtype}, which has no gradient; make it "
                    "floating, or leave it out of trainable() (a counter belongs in carry.stats)"
                )


def allocate(rule: AbstractCredit, shapes: PyTree, limit: float) -> PyTree:
    """Zeros of these shapes, unless they would take more than `limit` bytes: then say how much."""
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    if needed > limit:
        raise MemoryError(
            f"{type(rule).__name__} would need {needed / 2**30:,.2f} GiB ({needed:,} bytes) for its state, its "
            f"memory_limit is {limit / 2**30:,.2f} GiB; use fewer units, a cheaper rule (SnAp(1), UORO, TBPTT), "
            "columns with Columnwise, or raise memory_limit"
        )
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def transition(
    cell: AbstractCell, stats: PyTree, x: Array, key: PRNGKeyArray | None
) -> tuple[PyTree, Callable[[PyTree, PyTree], tuple[PyTree, Carry]]]:
    """The trainable arrays of any cell, and its step as a function of them and of the hidden state: (hidden, carry)."""
    parameters, rest = eqx.partition(cell, cell.trainable())

    def step(parameters: PyTree, hidden: PyTree) -> tuple[PyTree, Carry]:
        after = eqx.combine(parameters, rest)(Carry(hidden, stats), x, key=key)
        return after.hidden, after

    return parameters, step
