"""Dense real-time recurrent learning."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from onward.batching import runs, sum_products, tree_sum
from onward.cells.base import AbstractCell, AbstractGates, Derivatives, Parameters, States, by_row
from onward.cells.dense import Dense, Sources, preactivation, sources_of, weights_between, wiring
from onward.credit.base import MEMORY_LIMIT, AbstractCredit, AbstractKernel, Kind, allocate, bounded, transition
from onward.credit.correction import CorrectedCell
from onward.types import Carry, PyTree

# Units from which the products of a batch of networks are worth a matrix product each (decisions.md).
WIDE_UNITS = 8
# Bytes of influence from which it is updated row by row: what a core's own cache holds (decisions.md).
CACHE = 2**20

# For each state, d state / d parameter as (units, rows, units): which unit's state, then which parameter: row (of an
# input's weights, of a recurrent source's, of the bias: each has as many as it drives slots) and unit.
Influence = tuple[Float[Array, "units rows units"], ...]


class RTRL(AbstractCredit):
    """Real-time recurrent learning (Williams and Zipser, 1989) of any cell.

        M' = (d hidden'/d hidden) M + d hidden'/d theta,    pull(c) = c M

    Exact for a fixed network; online, up to the drift of the weights. Memory: |hidden| |theta| floats.
    On `Dense` cells the step factorises: units reach one another through h only, so the first term is
    one matrix product with the influence on h plus elementwise terms, and the second is an outer
    product that touches each unit's own parameters. Cost there: states n^2 P multiply-adds a step for n
    units and P parameters (8 n^3 (n + m + 1) for an LSTM with m inputs). An influence larger than
    the cache is updated in place, row by row of parameters (those of one input or source). Any other cell
    (`Stack`, your own) takes the generic path through its full Jacobians, |hidden|^2 |theta|.

    With `diagonal_correction` M follows the weights when they move, as far as each parameter's own second derivative
    W, of column p d^2 hidden / d theta_p^2, does. When theta has moved by d since the last step,

        M <- M + W diag(d),   hidden* <- hidden* + M d + W d^2 / 2,   then both derivatives of one step at hidden*,

    where hidden* is the state that today's weights would have led to (kept beside the state that is). What a
    parameter's own moves do to its trace is then right to second order in the step size; what the moves of others
    do stays of first order: that would need the mixed second derivatives, |theta| times the memory. Memory: twice
    that of RTRL. Cost: about 2 |theta| steps of the cell.
    (Farr et al., 2026, keep of W's recursion only its first and last term: J W + d^2 hidden'/d theta^2.)

    Raises MemoryError if the state would take more than `memory_limit` bytes.
    """

    kind: ClassVar[Kind] = "exact"
    wide: ClassVar[int] = WIDE_UNITS
    memory_limit: float = eqx.field(default=MEMORY_LIMIT, static=True, repr=False)
    diagonal_correction: bool = eqx.field(default=False, static=True, kw_only=True)

    def on(self, cell: AbstractCell) -> AbstractKernel[Any]:
        """The factorised step of a dense layer, or the full Jacobians of any other cell."""
        if self.diagonal_correction:
            return CorrectedCell(self, cell, self.memory_limit)
        return _OnDense(self, cell) if isinstance(cell, Dense) else _OnAny(self, cell)


class _OnDense(AbstractKernel[Influence]):
    kind: ClassVar[Kind] = "exact"
    rule: RTRL
    cell: Dense

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> Influence:
        units = self.cell.units
        rows = sum(leaf.size for leaf in jax.tree.leaves(self.cell.parameters)) // units
        of_state = jax.ShapeDtypeStruct((units, rows, units), self.cell.bias.dtype)
        influence: Influence = allocate(self.rule, (of_state,) * self.cell.gates.states, self.rule.memory_limit)
        return influence

    def advance(
        self, carry: Carry, x: Array, state: Influence, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, Influence]:
        cell = self.cell
        z, moments = cell.read(carry, x)
        step = runs(_advance, cell.units, cell.gates, cell.sources, CACHE, wide=WIDE_UNITS)
        states, influence = step(cell.parameters, carry.hidden, state, z)
        return cell.settle(states, moments, carry), influence

    def pull(self, state: Influence, cotangent: PyTree) -> PyTree:
        shapes = tuple(a.shape for a in jax.tree.leaves(self.cell.parameters))
        pull = runs(_pull, self.cell.units, shapes, wide=WIDE_UNITS)
        return self.cell.gradient_of(pull(state, cotangent))


class _OnAny(AbstractKernel[Array]):
    kind: ClassVar[Kind] = "exact"
    rule: RTRL
    cell: AbstractCell

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> Array:
        hidden = sum(leaf.size for leaf in jax.tree.leaves(self.cell.init().hidden))
        theta = jax.tree.leaves(eqx.filter(self.cell, self.cell.trainable()))
        shape = jax.ShapeDtypeStruct((hidden, sum(leaf.size for leaf in theta)), jnp.result_type(*theta))
        influence: Array = allocate(self.rule, shape, self.rule.memory_limit)
        return influence

    def advance(self, carry: Carry, x: Array, state: Array, *, key: PRNGKeyArray | None = None) -> tuple[Carry, Array]:
        parameters, step_of = transition(self.cell, carry.stats, x, key)
        theta, unravel = ravel_pytree(parameters)
        hidden, unravel_hidden = ravel_pytree(carry.hidden)

        def flat(theta: Array, hidden: Array) -> tuple[Array, Carry]:
            after, whole = step_of(unravel(theta), unravel_hidden(hidden))
            return ravel_pytree(after)[0], whole

        (immediate, through), after = jax.jacrev(flat, argnums=(0, 1), has_aux=True)(theta, hidden)
        return after, (through * bounded([state])) @ state + immediate

    def pull(self, state: Array, cotangent: PyTree) -> PyTree:
        _, unravel = ravel_pytree(eqx.filter(self.cell, self.cell.trainable()))
        return unravel(ravel_pytree(cotangent)[0] @ state)


def _product(left: Array, right: Array) -> Array:
    """(k, n) times (n, ...): a matrix product, or in a batch of small networks a sum of n terms."""
    if left.shape[-1] > 1:
        lifted = jnp.moveaxis(left, 1, 0)
        return sum_products(lifted.reshape(*lifted.shape[:2], *[1] * (right.ndim - 2), -1), right[:, None])
    flat = left[..., 0] @ right.reshape(right.shape[0], -1)
    return flat.reshape(left.shape[0], *right.shape[1:])


def _advance(
    gates: AbstractGates,
    sources: Sources | None,
    cache: int,
    parameters: Parameters,
    states: States,
    influence: Influence,
    z: Array,
) -> tuple[States, Influence]:
    new, derivatives = gates.jacobian(preactivation(gates, sources, parameters, states, z), states)
    h, (units, rows) = states[-1], influence[0].shape[:2]
    # Through h, as matrices (to, from) for each state, with the diagonal of a unit's own h inside.
    through = jnp.concatenate([_through(gates, sources, parameters, d, h) for d in derivatives])
    kept = bounded([m[:, -len(gates.biases) :] for m in influence], axis=(0, 1, 2))
    through = through * kept[None, None]
    # At once: all, or the rows of one input or source.
    together = math.gcd(len(gates.input_slots), len(gates.recurrent_slots), len(gates.biases))
    size = rows if sum(m.nbytes for m in influence) <= cache else together

    def update(row: Any, flat: Influence) -> Influence:
        """`size` rows, but for the immediate term. A new state is read as it was written, so a loop copies nothing."""
        take = lambda m: lax.dynamic_slice_in_dim(m, row, size, 1).reshape(units, -1, h.shape[-1])
        old = [take(m) for m in flat]
        mixed = _product(through, old[-1])
        for i, (_, by_state, by_new) in enumerate(derivatives):
            after = mixed[i * units : (i + 1) * units]
            new = [take(m) for m in flat[:i]]
            by_old = [None if factor is None else factor * kept[None] for factor in by_state[:-1]]
            for factor, before in zip((*by_old, *by_new), (*old[:-1], *new), strict=True):
                if factor is not None:
                    after = after + factor[:, None] * before
            written = lax.dynamic_update_slice_in_dim(flat[i], after.reshape(units, size, -1), row, 1)
            flat = (*flat[:i], written, *flat[i + 1 :])
        return flat

    # The last axes as one: XLA copies what a loop carries if its last axis is 1.
    flat = tuple(m.reshape(units, rows, -1) for m in influence)
    flat = lax.fori_loop(0, rows // size, lambda i, m: update(i * size, m), flat)
    read_h = sources_of(sources, h)
    own: list[Array] = []
    for by_slot, _, by_new in derivatives:
        pick = lambda slots, d=by_slot: by_row(d, slots, jnp.zeros_like(h))
        drive, loop, bias = map(pick, (gates.input_slots, gates.recurrent_slots, gates.biases))
        outer = [z[:, None, None] * drive[None], read_h[:, None] * loop[None]]
        immediate = jnp.concatenate([*(rows.reshape(-1, *h.shape) for rows in outer), bias])
        for factor, before in zip(by_new, own, strict=True):
            if factor is not None:
                immediate = immediate + factor[None] * before
        own.append(immediate)
    # Each unit's own parameters; indices that stand apart put their axis first: (units, rows, runs).
    at = jnp.arange(units)
    add = lambda a, b: a.at[at, :, at].add(jnp.moveaxis(b, 1, 0), unique_indices=True, indices_are_sorted=True)
    return new, tuple(add(m.reshape(influence[0].shape), b) for m, b in zip(flat, own, strict=True))


def _through(
    gates: AbstractGates, sources: Sources | None, parameters: Parameters, derivatives: Derivatives, h: Array
) -> Array:
    """D h -> state, (to, from, runs)."""
    by_slot, by_state, _ = derivatives
    units = h.shape[0]
    terms = edges(gates, parameters, by_slot)
    matrix = jnp.zeros((units, units, h.shape[-1]), h.dtype)
    if terms:
        by_edge = tree_sum(terms)
        if sources is None:
            matrix = jnp.swapaxes(by_edge, 0, 1)
        else:
            index, valid = wiring(sources, units)
            to = jnp.broadcast_to(jnp.arange(units), index.shape)
            matrix = matrix.at[to, index].add(by_edge * valid[..., None].astype(h.dtype))
    if by_state[-1] is not None:
        matrix = matrix + jnp.eye(units, dtype=h.dtype)[..., None] * by_state[-1][:, None]
    return matrix


def edges(gates: AbstractGates, parameters: Parameters, by_slot: tuple[Array | None, ...]) -> list[Array]:
    """Terms of d state / d h along each recurrent weight, (fan_in, to, runs): one a slot that the state depends on."""
    pairs = [(by_slot[slot], row) for row, slot in enumerate(gates.recurrent_slots)]
    weights = weights_between(parameters)
    return [factor[None] * weights[:, row] for factor, row in pairs if factor is not None]


def _pull(shapes: tuple[tuple[int, ...], ...], influence: Influence, cotangent: States) -> Parameters:
    terms = [_product(jnp.swapaxes(c[:, None], 0, 1), m)[0] for c, m in zip(cotangent, influence, strict=True)]
    rows = tree_sum(terms)
    ends = np.cumsum([math.prod(shape[:-1]) for shape in shapes])
    parts = [rows[end - math.prod(shape[:-1]) : end] for shape, end in zip(shapes, ends, strict=True)]
    return Parameters(*(part.reshape(*shape, -1) for part, shape in zip(parts, shapes, strict=True)))
