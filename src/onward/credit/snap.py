"""Sparse n-step approximation of real-time recurrent learning."""

import functools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from onward.batching import runs, tree_sum, under
from onward.cells.base import AbstractCell, AbstractColumnar, AbstractGates, Parameters, States, by_row
from onward.cells.dense import Dense, Sources, preactivation, sources_of, wiring
from onward.cells.stack import Stack
from onward.credit.base import MEMORY_LIMIT, AbstractCredit, AbstractKernel, Kind, allocate, bounded
from onward.credit.columnwise import Columnwise
from onward.credit.rtrl import RTRL, edges
from onward.credit.tbptt import TBPTT
from onward.types import Carry, PyTree


class KeptInfluence(NamedTuple):
    """For each state, d state of unit v / d parameter of unit u for the kept pairs (v, u) only, pairs last."""

    of_state: tuple[Parameters, ...]


class SnAp(AbstractCredit):
    """Sparse n-step approximation (Menick et al., 2021): RTRL that keeps what a parameter reaches within n steps.

    A parameter of unit u is tracked on the states of unit v if u reaches v in less than n recurrent
    steps; the pattern is read off the wiring, never off values. Biased, because longer paths are cut at
    every step; exact where no step more reaches anything new (n >= 2 on a fully connected layer, n = 1 on columns,
    n = units on a chain): where that is everything it is `RTRL`, or `Columnwise`, and costs the same.
    SnAp(0) keeps nothing: the derivative of the present step alone, on any cell, which is `TBPTT(1)`.

    On `Dense` with a sparse mask memory is states x (kept pairs) x (inputs + fan_in + 1) x gates floats,
    and time falls alike; SnAp(1) on a full layer keeps states x P. On a `Stack` of dense cells lower
    parameters reach all units above within a step; it runs as `RTRL` with the pattern applied, at RTRL's cost.

    Raises ValueError for n < 0, TypeError for a cell whose wiring it cannot read, MemoryError above
    `memory_limit` bytes.
    """

    kind: ClassVar[Kind] = "biased"
    n: int = eqx.field(default=1, static=True)
    memory_limit: float = eqx.field(default=MEMORY_LIMIT, static=True, repr=False)

    def __check_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 0:
            raise ValueError(f"SnAp: n must be a whole number of at least 0, got {self.n!r}")

    def claim(self, cell: AbstractCell, steps: int) -> Kind:
        """Exact where nothing is left out, and for the first step."""
        kernel = self.on(cell)
        layers = [kernel.cell] if isinstance(kernel, OnPairs) else kernel.layers if isinstance(kernel, _OnStack) else []
        complete = layers and all(_reaches_no_more(layer, self.n) for layer in layers)
        return "exact" if steps == 1 or complete else kernel.kind

    def on(self, cell: AbstractCell) -> AbstractKernel[Any]:
        """The exact rule where nothing is left out, else the pairs of units that are kept."""
        exact = RTRL(self.memory_limit)
        if self.n == 0:
            return TBPTT(1, self.memory_limit).on(cell)
        if isinstance(cell, AbstractColumnar):
            return Columnwise().on(cell)
        if isinstance(cell, Dense):
            return exact.on(cell) if self._reaches_all(cell) else OnPairs(self, cell, self.n, self.memory_limit)
        layers = cell.cells if isinstance(cell, Stack) else (cell,)
        dense = [layer for layer in layers if isinstance(layer, Dense)]
        if len(dense) < len(layers):
            raise TypeError(
                "SnAp reads its pattern off the wiring of Dense cells, of a Stack of them, and of columns, "
                f"got {type(cell).__name__}; use RTRL, UORO or TBPTT, which take any cell"
            )
        return exact.on(cell) if all(map(self._reaches_all, dense)) else _OnStack(exact.on(cell), dense, self.n)

    def _reaches_all(self, layer: Dense) -> bool:
        return bool(reach(layer.sources, layer.units, self.n).all())


def _reaches_no_more(layer: Dense, n: int) -> bool:
    """Whether another step would reach nothing new."""
    return np.array_equal(reach(layer.sources, layer.units, n), reach(layer.sources, layer.units, layer.units))


class OnPairs(AbstractKernel[KeptInfluence]):
    """The influence within the pairs of units that n steps connect, in a dense layer.

    `recurrent=False` leaves out every path through recurrent weights. Cost: as in `SnAp`.
    """

    kind: ClassVar[Kind] = "biased"
    rule: AbstractCredit
    cell: Dense
    n: int = eqx.field(static=True)
    memory_limit: float = eqx.field(static=True)
    recurrent: bool = eqx.field(default=True, static=True)

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> KeptInfluence:
        """No influence yet: zeros for every kept pair."""
        cell = self.cell
        pairs = len(pairs_of(cell.sources, cell.units, self.n).unit)
        wide = lambda a: jax.ShapeDtypeStruct((*a.shape[:-1], pairs), a.dtype)
        shapes = (jax.tree.map(wide, cell.parameters),) * cell.gates.states
        return KeptInfluence(allocate(self.rule, shapes, self.memory_limit))

    def advance(
        self, carry: Carry, x: Array, state: KeptInfluence, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, KeptInfluence]:
        """The layer's carry and the kept influence one step on."""
        cell = self.cell
        z, moments = cell.read(carry, x)
        step = runs(_advance_pairs, cell.units, cell.gates, cell.sources, cell.units, self.n, self.recurrent)
        states, influence = step(cell.parameters, carry.hidden, state.of_state, z)
        return cell.settle(states, moments, carry), KeptInfluence(influence)

    def pull(self, state: KeptInfluence, cotangent: PyTree) -> PyTree:
        """The cotangent times the kept influence."""
        cell = self.cell
        pull = runs(_pull_pairs, cell.units, cell.sources, cell.units, self.n)
        return cell.gradient_of(pull(state.of_state, cotangent))


class _OnStack(AbstractKernel[Array]):
    kind: ClassVar[Kind] = "biased"
    exact: AbstractKernel[Array]
    layers: list[Dense]
    n: int = eqx.field(static=True)

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> Array:
        return self.exact.init(x, key=key)

    def advance(self, carry: Carry, x: Array, state: Array, *, key: PRNGKeyArray | None = None) -> tuple[Carry, Array]:
        carry, influence = self.exact.advance(carry, x, state, key=key)
        return carry, influence * jnp.asarray(_pattern_of_stack(self.layers, self.n), influence.dtype)

    def pull(self, state: Array, cotangent: PyTree) -> PyTree:
        return self.exact.pull(state, cotangent)


class Pairs(NamedTuple):
    """Kept pairs (v, u) of affected unit and parameter's unit, and the recurrent edges between them.

    Edge e of a pair (v, u) goes through source `row` of v; `pair` is the pair (source, u) it comes from.
    """

    unit: np.ndarray
    owner: np.ndarray
    own: np.ndarray
    row: np.ndarray
    pair: np.ndarray
    real: np.ndarray


@functools.cache
def reach(sources: Sources | None, units: int, n: int) -> np.ndarray:
    """[v, u]: can a parameter of unit u reach the state of unit v within n steps, the first of them in u itself."""
    index, valid = wiring(sources, units)
    step = np.eye(units, dtype=bool)
    step[np.broadcast_to(np.arange(units), index.shape)[valid], index[valid]] = True
    found = np.eye(units, dtype=bool)
    for _ in range(min(n, units) - 1):
        found = (step.astype(np.float32) @ found.astype(np.float32)) > 0
    return found


@functools.cache
def pairs_of(sources: Sources | None, units: int, n: int) -> Pairs:
    """The pairs that SnAp(n) keeps, ordered by affected unit."""
    keep = reach(sources, units, n)
    unit, owner = (found.astype(np.int32) for found in np.nonzero(keep))
    number = np.full((units, units), -1)
    number[unit, owner] = np.arange(len(unit))
    index, valid = wiring(sources, units)
    edges = [
        [(r, number[index[r, v], u]) for r in range(len(index)) if valid[r, v] and number[index[r, v], u] >= 0]
        for v, u in zip(unit, owner, strict=True)
    ]
    most = max(map(len, edges))
    row, pair = np.zeros((most, len(unit)), np.int32), np.zeros((most, len(unit)), np.int32)
    real = np.zeros((most, len(unit)), bool)
    for e, found in enumerate(edges):
        for k, (r, p) in enumerate(found):
            row[k, e], pair[k, e], real[k, e] = r, p, True
    return Pairs(unit, owner, unit == owner, row, pair, real)


def _take(array: Array, index: np.ndarray, axis: int) -> Array:
    """`jnp.take`, or nothing at all where it would change nothing."""
    if len(index) == array.shape[axis] and np.array_equal(index, np.arange(len(index))):
        return array
    return jnp.take(array, index, axis)


def _advance_pairs(
    gates: AbstractGates,
    sources: Sources | None,
    units: int,
    n: int,
    recurrent: bool,
    parameters: Parameters,
    states: States,
    influence: tuple[Parameters, ...],
    z: Array,
) -> tuple[States, tuple[Parameters, ...]]:
    pairs = pairs_of(sources, units, n)
    new, derivatives = gates.jacobian(preactivation(gates, sources, parameters, states, z), states)
    zero = jnp.zeros_like(states[-1])
    read_h = sources_of(sources, states[-1])
    on_pairs = lambda a: None if a is None else _take(a, pairs.unit, -2)
    kept = bounded([trace.bias for trace in influence], axis=(0, 1))
    own = pairs.own[:, None].astype(z.dtype)
    mine = lambda a: a if pairs.own.all() else a * own[None]
    advanced: list[Parameters] = []
    for by_slot, by_state, by_new in derivatives:
        pick = lambda slots, d=by_slot: mine(on_pairs(by_row(d, slots, zero)))
        drive, loop, bias = map(pick, (gates.input_slots, gates.recurrent_slots, gates.biases))
        reads = _take(read_h, pairs.owner, -2) if sources is not None else read_h
        trace = Parameters(z[:, None, None] * drive[None], reads[:, None] * loop[None], bias)
        factors = [on_pairs(None if f is None else f * kept[None]) for f in by_state] + [on_pairs(f) for f in by_new]
        for factor, before in zip(factors, (*influence, *advanced), strict=True):
            if factor is not None:
                trace = jax.tree.map(lambda t, b, f=factor: t + under(f, b) * b, trace, before)
        terms = edges(gates, parameters, by_slot) if recurrent else []
        if terms:
            by_edge = tree_sum(terms) * kept[None, None]
            for row, pair, real in zip(pairs.row, pairs.pair, pairs.real, strict=True):
                along = by_edge[row, pairs.unit] * real[:, None].astype(z.dtype)
                add = lambda t, b, a=along, p=pair: t + under(a, b) * _take(b, p, -2)
                trace = jax.tree.map(add, trace, influence[-1])
        advanced.append(trace)
    return new, tuple(advanced)


def _pull_pairs(
    sources: Sources | None, units: int, n: int, influence: tuple[Parameters, ...], cotangent: States
) -> Parameters:
    """Each kept influence times the cotangent of its affected unit, added up over the pairs of a parameter."""
    pairs = pairs_of(sources, units, n)
    on_pairs = [_take(c, pairs.unit, -2) for c in cotangent]
    terms = [jax.tree.map(lambda t, c=c: t * under(c, t), trace) for c, trace in zip(on_pairs, influence, strict=True)]
    gradient = jax.tree.map(lambda *t: tree_sum(t), *terms)
    if np.array_equal(pairs.owner, np.arange(units)):
        return gradient

    def gather(leaf: Float[Array, "*rows gates pairs runs"]) -> Array:
        zero = jnp.zeros((*leaf.shape[:-2], units, leaf.shape[-1]), leaf.dtype)
        return zero.at[..., pairs.owner, :].add(leaf)

    return jax.tree.map(gather, gradient)


def _pattern_of_stack(cells: Sequence[Dense], n: int) -> np.ndarray:
    """[state, parameter] of the flattened stack: what reaches what within n steps, the stack being one state."""
    layer = np.concatenate([np.full(c.units, i) for i, c in enumerate(cells)])
    starts = np.cumsum([0, *(c.units for c in cells)])
    keep = layer[:, None] > layer[None, :]  # whatever lies above is read within the step
    for i, c in enumerate(cells):
        keep[starts[i] : starts[i + 1], starts[i] : starts[i + 1]] = reach(c.sources, c.units, n)
    by_state = np.concatenate(
        [np.tile(np.arange(starts[i], starts[i + 1]), c.gates.states) for i, c in enumerate(cells)]
    )
    by_parameter = np.concatenate(
        [
            np.broadcast_to(np.arange(starts[i], starts[i + 1]), leaf.shape).ravel()
            for i, c in enumerate(cells)
            for leaf in jax.tree.leaves(eqx.filter(c, c.trainable()))
        ]
    )
    return keep[by_state][:, by_parameter]
