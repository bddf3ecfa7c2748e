"""A credit rule for the cell of a `Skip`."""

from typing import ClassVar

from jaxtyping import Array, PRNGKeyArray

from onward.cells.base import AbstractCell
from onward.cells.skip import Skip, carry_of, without
from onward.credit.base import AbstractCredit, AbstractKernel, Kind
from onward.types import Carry, PyTree


class Inside(AbstractCredit):
    """A rule for the cell of a `Skip`: as exact as it is there, and at its cost. x depends on no parameter."""

    kind: ClassVar[Kind] = "biased"  # what it is of all cells: `claim` says more
    rule: AbstractCredit

    def on(self, cell: AbstractCell) -> AbstractKernel[PyTree]:
        """The rule on the cell within."""
        assert isinstance(cell, Skip)
        return _Within(cell, self.rule.on(cell.cell))

    def claim(self, cell: AbstractCell, steps: int) -> Kind:
        """What the rule claims of the cell within."""
        return self.rule.claim(cell.cell if isinstance(cell, Skip) else cell, steps)


class _Within(AbstractKernel[PyTree]):
    kind: ClassVar[Kind] = "biased"
    cell: Skip
    kernel: AbstractKernel[PyTree]

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> PyTree:
        return self.kernel.init(x, key=key)

    def advance(
        self, carry: Carry, x: Array, state: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, PyTree]:
        inner, state = self.kernel.advance(without(carry), x, state, key=key)
        return carry_of(x, inner), state

    def pull(self, state: PyTree, cotangent: PyTree) -> PyTree:
        # The cotangent on x is dropped.
        return self.cell.around(self.kernel.pull(state, cotangent[1]))
