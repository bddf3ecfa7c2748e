"""Traces that move along with the weights: a second derivative for each parameter by itself."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from onward.batching import lanes, tree_sum, under
from onward.cells.base import AbstractCell, AbstractColumnar, AbstractGates, Parameters, States
from onward.cells.columns import Columns, preactivation
from onward.credit.base import AbstractCredit, AbstractKernel, Kind, allocate, bounded, transition
from onward.types import Carry, PyTree

OfState = tuple[Parameters, ...]
# What of it starts anew together where it grows without bound.
KEPT = "first", "second", "offset"


class Corrected(NamedTuple):
    """First and second derivatives of the state that the weights of the last step would have led to.

    Each second derivative is by one parameter twice. `offset`: how far that state lies from the one that is. The
    weights of the last step are `parameters`.
    """

    first: PyTree
    second: PyTree
    offset: PyTree
    parameters: PyTree


class CorrectedCell(AbstractKernel[Corrected]):
    """`RTRL` of any cell, with the correction. Memory: twice that of RTRL. Cost: about 2 |theta| steps of the cell."""

    kind: ClassVar[Kind] = "exact"
    rule: AbstractCredit
    cell: AbstractCell
    limit: float = eqx.field(static=True)

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> Corrected:
        """No influence yet, no offset, and the weights of now."""
        hidden, _ = ravel_pytree(self.cell.init().hidden)
        theta, _ = ravel_pytree(eqx.filter(self.cell, self.cell.trainable()))
        shape = jax.ShapeDtypeStruct((theta.size, hidden.size), theta.dtype)
        first, second = allocate(self.rule, (shape, shape), self.limit)
        return Corrected(first, second, jnp.zeros_like(hidden), theta)

    def advance(
        self, carry: Carry, x: Array, state: Corrected, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, Corrected]:
        """Both derivatives, one step on, by the weights of now."""
        kept = bounded([state.first, state.second])
        state = state._replace(**{name: getattr(state, name) * kept for name in KEPT})
        parameters, step_of = transition(self.cell, carry.stats, x, key)
        theta, unravel = ravel_pytree(parameters)
        before, unravel_hidden = ravel_pytree(carry.hidden)
        moved = theta - state.parameters
        first = state.first + state.second * moved[:, None]
        hidden = before + state.offset + moved @ state.first + 0.5 * jnp.square(moved) @ state.second

        def step(theta: Array, hidden: Array) -> Array:
            return ravel_pytree(step_of(unravel(theta), unravel_hidden(hidden))[0])[0]

        def along(one: Array, first: Array, second: Array) -> tuple[Array, Array]:
            return _twice(step, (theta, hidden), (one, first), (jnp.zeros_like(one), second))

        first, second = jax.vmap(along)(jnp.eye(theta.size, dtype=theta.dtype), first, state.second)
        offset = step(theta, hidden) - step(theta, before)
        return step_of(parameters, carry.hidden)[1], Corrected(first, second, offset, theta)

    def pull(self, state: Corrected, cotangent: PyTree) -> PyTree:
        """The first derivative, times the cotangent."""
        _, unravel = ravel_pytree(eqx.filter(self.cell, self.cell.trainable()))
        return unravel(state.first @ ravel_pytree(cotangent)[0])


class CorrectedColumns(AbstractKernel[Corrected]):
    """`Columnwise` of columns that do not read one another, with the correction. Memory: twice that of the traces.

    Cost: about (states + 1)(states + 2) multiply-adds a parameter more.
    """

    kind: ClassVar[Kind] = "exact"
    cell: AbstractColumnar
    columns: Columns

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> Corrected:
        """No influence yet, no offset, and the weights of now."""
        zero = (jax.tree.map(jnp.zeros_like, self.columns.parameters),) * self.columns.gates.states
        return Corrected(zero, zero, self.columns.init().hidden, self.columns.parameters)  # no offset: all zero

    def advance(
        self, carry: Carry, x: Array, state: Corrected, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, Corrected]:
        """Both derivatives, one step on, by the weights of now."""
        columns = self.columns
        read, live, rest = self.cell.feed(carry, x)
        z, moments = columns.read(live, read)
        step = lanes(_advance, columns.gates)
        states, corrected = step(columns.parameters, live.hidden, state, z[:, None, None])
        return self.cell.join(columns.settle(states, moments, live), rest), corrected

    def pull(self, state: Corrected, cotangent: PyTree) -> PyTree:
        """The first derivative, times the cotangent."""
        gradient = lanes(pulled)(state.first, self.cell.live_cotangent(cotangent))
        return self.cell.embed(self.columns.gradient_of(gradient))


def _twice(
    function: Callable[..., PyTree], at: tuple[PyTree, ...], first: tuple[PyTree, ...], second: tuple[PyTree, ...]
) -> tuple[PyTree, PyTree]:
    """First and second derivative of function(at + t first + t^2 second / 2) by t, at t = 0."""
    slope = lambda *given: jax.jvp(function, given[: len(at)], given[len(at) :])[1]
    return jax.jvp(slope, (*at, *first), (*first, *second))


def _advance(
    gates: AbstractGates, parameters: Parameters, states: States, before: Corrected, z: Float[Array, "inputs 1 1"]
) -> tuple[States, Corrected]:
    """States of every column one step on, and what the correction keeps; elementwise over columns."""
    new = gates(preactivation(gates, parameters, states, z), states)
    kept = bounded([trace.bias for trace in (*before.first, *before.second)], axis=0)
    before = before._replace(
        **jax.tree.map(lambda a: under(kept, a) * a, {name: getattr(before, name) for name in KEPT})
    )
    moved = jax.tree.map(jnp.subtract, parameters, before.parameters)
    pairs = zip(before.first, before.second, strict=True)
    first = tuple(jax.tree.map(lambda s, w, m: s + w * m, s, w, moved) for s, w in pairs)
    hidden = tuple(
        h + offset + tree_sum([jnp.sum(a.reshape(-1, *h.shape), 0) for a in jax.tree.leaves(shift)])
        for h, offset, shift in zip(states, before.offset, _shifts(before, moved), strict=True)
    )
    slots = preactivation(gates, parameters, hidden, z)

    def along(slot: int, factor: Array, twice: Array, s: States, w: States) -> tuple[States, States]:
        """The two derivatives by a parameter that adds factor t + twice t^2 / 2 to a slot besides what h brings."""
        drive, bend = [jnp.zeros_like(a) for a in slots], [jnp.zeros_like(a) for a in slots]
        for row, looped in enumerate(gates.recurrent_slots):
            assert parameters.recurrent is not None
            drive[looped] += parameters.recurrent[row] * s[-1]
            bend[looped] += parameters.recurrent[row] * w[-1]
        drive[slot] += factor
        bend[slot] += twice
        return _twice(gates, (slots, hidden), (tuple(drive), s), (tuple(bend), w))

    h = hidden[-1]
    one, zero = jnp.ones_like(h), jnp.zeros_like(h)
    rows = lambda trees, pick: tuple(pick(t) for t in trees)
    of_weight = []
    for row, slot in enumerate(gates.input_slots):
        pick = lambda t, row=row: t.weight[:, row]
        every = jax.vmap(lambda factor, s, w, slot=slot: along(slot, factor * one, zero, s, w))
        of_weight.append(every(z[:, 0], rows(first, pick), rows(before.second, pick)))
    of_loop = []
    for row, slot in enumerate(gates.recurrent_slots):
        pick = lambda t, row=row: t.recurrent[row]
        s, w = rows(first, pick), rows(before.second, pick)
        of_loop.append(along(slot, h, 2 * s[-1], s, w))
    of_bias = []
    for row, slot in enumerate(gates.biases):
        pick = lambda t, row=row: t.bias[row]
        of_bias.append(along(slot, one, zero, rows(first, pick), rows(before.second, pick)))

    def gathered(order: int, state: int) -> Parameters:
        stack = lambda found, axis: jnp.stack([f[order][state] for f in found], axis)
        return Parameters(stack(of_weight, 1), stack(of_loop, 0) if of_loop else None, stack(of_bias, 0))

    first, second = (tuple(gathered(order, i) for i in range(gates.states)) for order in (0, 1))
    offset = jax.tree.map(jnp.subtract, gates(slots, hidden), new)
    return new, Corrected(first, second, offset, parameters)


def _shifts(before: Corrected, moved: Parameters) -> list[Parameters]:
    """What the move of each parameter does to each state, to second order in that parameter alone."""
    shift = lambda s, w, m: m * (s + 0.5 * m * w)
    return [jax.tree.map(shift, s, w, moved) for s, w in zip(before.first, before.second, strict=True)]


def pulled(traces: OfState, cotangent: States) -> Parameters:
    """The gradient from the derivatives of each state by the parameters of the same column."""
    terms = [jax.tree.map(lambda t, c=c: t * under(c, t), trace) for trace, c in zip(traces, cotangent, strict=True)]
    return jax.tree.map(lambda *t: tree_sum(list(t)), *terms)
