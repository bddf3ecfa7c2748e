"""Random-feedback local online learning, its recurrent half."""

from typing import ClassVar

import equinox as eqx

from onward.cells.base import AbstractCell
from onward.cells.dense import Dense
from onward.credit.base import MEMORY_LIMIT, AbstractCredit, AbstractKernel, Kind
from onward.credit.snap import KeptInfluence, OnPairs


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
    memory_limit: float = eqx.field(default=MEMORY_LIMIT, static=True, repr=False)

    def claim(self, cell: AbstractCell, steps: int) -> Kind:
        """Exact for the first step."""
        return "exact" if steps == 1 else "biased"

    def on(self, cell: AbstractCell) -> AbstractKernel[KeptInfluence]:
        """SnAp(1)'s traces without the paths through recurrent weights."""
        if not isinstance(cell, Dense):
            raise TypeError(
                f"RFLO is for Dense cells, got {type(cell).__name__}; "
                "columns have the exact Columnwise, any cell has UORO"
            )
        return OnPairs(self, cell, 1, self.memory_limit, recurrent=False)
