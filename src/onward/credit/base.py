"""What a credit rule is: from a cotangent on the hidden state now to a gradient of the cell.

A rule never sees a loss, and an objective never sees an influence matrix: `pull` is the one seam.
"""

import abc
from typing import Literal

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray

from onward._types import Carry, PyTree
from onward.cells.base import AbstractCell

Kind = Literal["exact", "unbiased", "biased"]


class AbstractCredit(eqx.Module):
    """Carries what is needed to assign credit forward in time."""

    kind: eqx.AbstractClassVar[Kind]

    @abc.abstractmethod
    def init(self, cell: AbstractCell, x: Array, *, key: PRNGKeyArray | None = None) -> PyTree:
        """The rule's state at the start of an episode."""

    @abc.abstractmethod
    def advance(
        self, cell: AbstractCell, carry: Carry, x: Array, state: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, PyTree]:
        """One step of the cell, and of the rule's state along with it."""

    @abc.abstractmethod
    def pull(self, cell: AbstractCell, state: PyTree, cotangent: PyTree) -> PyTree:
        """The cell-shaped gradient (None where nothing learns) for a cotangent on `carry.hidden` now."""
