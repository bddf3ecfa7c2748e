"""Real-time recurrent learning of independent columns."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward.batching import lanes, under
from onward.cells.base import AbstractCell, AbstractColumnar, AbstractGates, Parameters, States
from onward.cells.columns import Columns, preactivation
from onward.credit.base import AbstractCredit, AbstractKernel, Kind
from onward.types import Carry, PyTree


class ColumnTraces(NamedTuple):
    """d state_i / d parameter of the same column: for each state, one array per parameter array."""

    of_state: tuple[Parameters, ...]


class Columnwise(AbstractCredit):
    """Exact RTRL for columns, at a few multiply-adds per parameter and constant memory.

    For column k with states s and preactivation slots a (Javed et al., appendix A, derived anew):

        d s_i'/d theta = sum_j J_ij d s_j/d theta + (d s_i'/d a_slot(theta)) r_theta,
        J_ij = d s_i'/d s_j + [j reads] sum_slots (d s_i'/d a_slot) u_slot,

    where r_theta is what the parameter multiplies: an input, the column's own h, or 1 (a bias, and so every parameter
    of the unit's own). The factors
    are one number per column and slot; they come from pullbacks of the gates, never by hand.
    Memory: states x parameters floats. Cost: about (states^2 + states) multiply-adds a parameter.
    Exact for a fixed network; online, up to the drift of the weights that every RTRL has.

    Raises TypeError for a cell whose trainable units read one another: use `RTRL`.
    """

    kind: ClassVar[Kind] = "exact"

    def on(self, cell: AbstractCell) -> AbstractKernel[ColumnTraces]:
        """The traces of the live columns."""
        if not isinstance(cell, AbstractColumnar):
            raise TypeError(
                f"Columnwise needs columns that do not read one another (Columns or Cascade), got "
                f"{type(cell).__name__}; use RTRL, which is exact for any cell"
            )
        return _OnColumns(cell, cell.live)


class _OnColumns(AbstractKernel[ColumnTraces]):
    kind: ClassVar[Kind] = "exact"
    cell: AbstractColumnar
    columns: Columns

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> ColumnTraces:
        zero = jax.tree.map(jnp.zeros_like, self.columns.parameters)
        return ColumnTraces((zero,) * self.columns.gates.states)

    def advance(
        self, carry: Carry, x: Array, state: ColumnTraces, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, ColumnTraces]:
        columns = self.columns
        read, live, rest = self.cell.feed(carry, x)
        z, moments = columns.read(live, read)
        step = lanes(_advance, columns.gates)
        states, traces = step(columns.parameters, live.hidden, state.of_state, z[:, None, None])
        return self.cell.join(columns.settle(states, moments, live), rest), ColumnTraces(traces)

    def pull(self, state: ColumnTraces, cotangent: PyTree) -> PyTree:
        gradient = lanes(_pull)(state.of_state, self.cell.live_cotangent(cotangent))
        return self.cell.embed(self.columns.gradient_of(gradient))


def _pull(traces: tuple[Parameters, ...], cotangent: States) -> Parameters:
    terms = [jax.tree.map(lambda t, c=c: t * under(c, t), trace) for trace, c in zip(traces, cotangent, strict=True)]
    return jax.tree.map(lambda *t: sum(t[1:], start=t[0]), *terms)


def _advance(
    gates: AbstractGates,
    parameters: Parameters,
    states: States,
    traces: tuple[Parameters, ...],
    z: Float[Array, "inputs 1 1"],
) -> tuple[States, tuple[Parameters, ...]]:
    """States and traces of every column, one step on; elementwise over columns."""
    new, derivatives = gates.jacobian(preactivation(gates, parameters, states, z), states)
    advanced: list[Parameters] = []
    for by_slot, by_state, by_new in derivatives:
        zero = jnp.zeros_like(states[-1])
        by_read = by_state[-1]
        for row, slot in enumerate(gates.recurrent_slots):
            assert parameters.recurrent is not None
            by_read = _add(by_read, _times(by_slot[slot], parameters.recurrent[row]))
        rows = lambda slots, d=by_slot, zero=zero: gates.by_row(d, slots, zero)
        loop = rows(gates.recurrent_slots) * states[-1][None] if gates.recurrent_slots else None
        trace = Parameters(rows(gates.input_slots)[None] * z, loop, rows(gates.biases))
        for factor, before in zip((*by_state[:-1], by_read, *by_new), (*traces, *advanced), strict=True):
            if factor is not None:
                trace = jax.tree.map(lambda t, b, f=factor: t + under(f, b) * b, trace, before)
        advanced.append(trace)
    return new, tuple(advanced)


def _times(a: Array | None, b: Array) -> Array | None:
    return None if a is None else a * b


def _add(a: Array | None, b: Array | None) -> Array | None:
    return b if a is None else a if b is None else a + b
