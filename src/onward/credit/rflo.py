"""Random-feedback local online learning, its recurrent half."""

from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray

from onward.batching import runs
from onward.cells.base import AbstractCell
from onward.cells.dense import Dense
from onward.credit.base import MEMORY_LIMIT, AbstractCredit, Kind, admit, allocate
from onward.credit.snap import KeptInfluence, advance_pairs, pairs_of, pull_pairs
from onward.types import Carry, PyTree


class RFLO(AbstractCredit):
    """The local eligibility trace of RFLO (Murray, 2019): every path through recurrent weights is left out.

        d s_i'/d theta ~ sum_j (d s_i'/d s_j at fixed preactivations) d s_j/d theta + immediate term

    Biased, because what a unit does to others, and to itself through its own recurrent weight, gets no credit:
    only what its gates carry over by themselves (c of an LSTM, z h of a GRU) is remembered. On Elman
    units nothing is, and it is TBPTT(1). Memory: states x P floats; cost: one multiply-add a parameter less
    than SnAp(1). The readout's feedback is that of the model; make it random with a head of your own.

    Raises TypeError for a cell that is not `Dense`.
    """

    kind: ClassVar[Kind] = "biased"
    memory_limit: float = eqx.field(default=MEMORY_LIMIT, static=True)

    def claim(self, cell: AbstractCell, steps: int) -> Kind:
        """Exact for the first step."""
        return "exact" if steps == 1 else "biased"

    def init(self, cell: AbstractCell, x: Array, *, key: PRNGKeyArray | None = None) -> KeptInfluence:
        """All traces zero."""
        dense = _dense(cell)
        admit(self, cell, x)
        shapes = (jax.eval_shape(lambda: dense.parameters),) * dense.gates.states
        return KeptInfluence(allocate(self, shapes, self.memory_limit))

    def advance(
        self, cell: AbstractCell, carry: Carry, x: Array, state: KeptInfluence, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, KeptInfluence]:
        """Step the cell and its traces."""
        dense = _dense(cell)
        z, moments = dense.read(carry, x)
        pairs = pairs_of(dense.sources, dense.units, 1)
        step = runs(lambda *a: advance_pairs(dense.gates, dense.sources, pairs, *a, recurrent=False), dense.units)
        states, influence = step(dense.parameters, carry.hidden, state.of_state, z)
        return dense.settle(states, moments, carry), KeptInfluence(influence)

    def pull(self, cell: AbstractCell, state: KeptInfluence, cotangent: PyTree) -> PyTree:
        """Each trace times the cotangent of its unit."""
        dense = _dense(cell)
        pairs = pairs_of(dense.sources, dense.units, 1)
        gradient = runs(lambda *a: pull_pairs(pairs, dense.units, *a), dense.units)(state.of_state, cotangent)
        return dense.gradient_of(gradient)


def _dense(cell: AbstractCell) -> Dense:
    if not isinstance(cell, Dense):
        raise TypeError(
            f"RFLO is for Dense cells, got {type(cell).__name__}; columns have the exact Columnwise, any cell has UORO"
        )
    return cell
