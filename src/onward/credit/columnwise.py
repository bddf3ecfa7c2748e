"""Real-time recurrent learning of independent columns."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from onward.batching import lanes, tree_sum, under
from onward.cells.base import AbstractCell, AbstractColumnar, AbstractGates, Parameters, States, by_row
from onward.cells.columns import Columns, preactivation
from onward.cells.parallel import Parallel
from onward.cells.stack import Stack
from onward.credit.base import MEMORY_LIMIT, AbstractCredit, AbstractKernel, Kind, allocate, bounded
from onward.credit.correction import CorrectedColumns, pulled
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
    Memory: states x parameters floats; half of it where both states are one complex number (`in_a_plane`).
    Cost: about (states^2 + states) multiply-adds a parameter.
    Exact for a fixed network; online, up to the drift of the weights that every RTRL has. A trace above 1e12 starts
    anew (`tests/credit/test_chaos.py`).

    On a `Stack` of `Columns` the influence of layer k on layer l is block-triangular:

        S_kk as above,    S_lk' = J_l S_lk + (d s_l'/d z_l) (d z_l/d s_{l-1}') S_{l-1,k}',    k < l

    Memory: states n_l P_k floats more a pair of layers, for n_l columns above P_k parameters. Cost: some as many
    multiply-adds for neighbours, n_l n_{l-1} P_k a state where layers lie between. (`Layerwise` costs none of this, and
    is biased.)

    `diagonal_correction`: let the traces follow the weights as far as each parameter's own second derivative W does
    (see `RTRL`); as much memory again, and about (states + 1)(states + 2) multiply-adds a parameter.

    Raises TypeError for a cell whose trainable units read one another otherwise, and for the correction of a stack:
    use `RTRL`; MemoryError if a stack's state would take more than `memory_limit` bytes.
    """

    kind: ClassVar[Kind] = "exact"
    memory_limit: float = eqx.field(default=MEMORY_LIMIT, static=True, repr=False)
    diagonal_correction: bool = eqx.field(default=False, static=True, kw_only=True)

    def on(self, cell: AbstractCell) -> AbstractKernel[Any]:
        """The traces of the live columns, of all columns of a stack, or of each of several cells side by side."""
        if isinstance(cell, Stack) and all(isinstance(layer, Columns) for layer in cell.cells):
            if self.diagonal_correction:
                raise TypeError(
                    "Columnwise corrects the traces of one layer: on a Stack use RTRL(diagonal_correction=True)"
                )
            return _OnStack(self, cell)
        if isinstance(cell, Parallel):
            return _OnParallel(cell, tuple(map(self.on, cell.cells)))
        if not isinstance(cell, AbstractColumnar):
            raise TypeError(
                "Columnwise needs columns that do not read one another (Columns, Cascade, Stack or Parallel of them), "
                f"got {type(cell).__name__}; use RTRL, which is exact for any cell"
            )
        return CorrectedColumns(cell, cell.live) if self.diagonal_correction else _OnColumns(cell, cell.live)


class _OnColumns(AbstractKernel[ColumnTraces]):
    kind: ClassVar[Kind] = "exact"
    cell: AbstractColumnar
    columns: Columns

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> ColumnTraces:
        columns = self.columns
        kept = columns.parameters._replace(weight=columns.weight[:, : len(_traced(columns.gates))])
        return ColumnTraces((jax.tree.map(jnp.zeros_like, kept),) * columns.gates.states)

    def advance(
        self, carry: Carry, x: Array, state: ColumnTraces, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, ColumnTraces]:
        columns = self.columns
        read, live, rest = self.cell.feed(carry, x)
        z, moments = columns.read(live, read)
        step = lanes(_advance, columns.gates, _traced(columns.gates))
        states, traces = step(columns.parameters, live.hidden, state.of_state, z[:, None, None])
        return self.cell.join(columns.settle(states, moments, live), rest), ColumnTraces(traces)

    def pull(self, state: ColumnTraces, cotangent: PyTree) -> PyTree:
        pull = lanes(_pull, self.columns.gates.in_a_plane)
        gradient = pull(state.of_state, self.cell.live_cotangent(cotangent))
        return self.cell.embed(self.columns.gradient_of(gradient))


class _OnParallel(AbstractKernel[tuple[Any, ...]]):
    kind: ClassVar[Kind] = "exact"
    cell: Parallel
    kernels: tuple[AbstractKernel[Any], ...]

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> tuple[Any, ...]:
        return tuple(kernel.init(x, key=key) for kernel in self.kernels)

    def advance(
        self, carry: Carry, x: Array, state: tuple[Any, ...], *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, tuple[Any, ...]]:
        each = zip(self.kernels, self.cell.carries(carry), state, self.cell.keys(key), strict=True)
        carries, states = zip(*[kernel.advance(c, x, s, key=k) for kernel, c, s, k in each], strict=True)
        return Carry(*zip(*carries, strict=True)), states

    def pull(self, state: tuple[Any, ...], cotangent: PyTree) -> PyTree:
        gradients = [kernel.pull(s, c) for kernel, s, c in zip(self.kernels, state, cotangent, strict=True)]
        nothing = eqx.filter(self.cell, False)
        return eqx.tree_at(lambda p: p.cells, nothing, tuple(gradients))


class Layers(NamedTuple):
    """Of each layer its own traces, and for each layer below it d its states / d that layer's parameters.

    The latter with all rows of parameters flattened into one axis: for each state (units above, rows, units below).
    """

    own: tuple[tuple[Parameters, ...], ...]
    across: tuple[tuple[States, ...], ...]


class _OnStack(AbstractKernel[Layers]):
    kind: ClassVar[Kind] = "exact"
    rule: Columnwise
    cell: Stack

    @property
    def layers(self) -> tuple[Columns, ...]:
        return self.cell.cells  # type: ignore[return-value]

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> Layers:
        shape = lambda a, *lead: jax.ShapeDtypeStruct((*lead, *a.shape), a.dtype)
        own = [(jax.tree.map(shape, c.parameters),) * c.gates.states for c in self.layers]
        across = [
            tuple((shape(jax.eval_shape(_flat, b.parameters), c.columns),) * c.gates.states for b in self.layers[:i])
            for i, c in enumerate(self.layers)
        ]
        layers: Layers = allocate(self.rule, (tuple(own), tuple(across)), self.rule.memory_limit)
        return Layers(*layers)

    def advance(
        self, carry: Carry, x: Array, state: Layers, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, Layers]:
        after: list[Carry] = []
        own: list[tuple[Parameters, ...]] = []
        across: list[tuple[States, ...]] = []
        # How what the next layer reads moves with the parameters of each layer below it: (features, rows, units).
        moves: list[Array] = []
        for i, (columns, before) in enumerate(zip(self.layers, map(Carry, *carry), strict=True)):
            z, moments = columns.read(before, x)
            column = z[:, None, None]
            scale = 1.0 if moments is None else moments.scale[:, None]
            step = lanes(_advance, columns.gates, columns.gates.input_slots)
            states, traces = step(columns.parameters, before.hidden, state.own[i], column)
            if i:
                linear = lanes(_linear, columns.gates)(columns.parameters, before.hidden, column)
                kept = bounded([part for below in state.across[i] for part in below], axis=(1, 2))
                by_state = tuple(tuple(_times(f, kept) for f in factors) for factors in linear.by_state)
                linear = linear._replace(by_state=by_state)
                weigh = jax.tree.map(lambda w, scale=scale: w * scale, linear.by_input)
                mixed = [_along(state.across[i][k], linear, weigh, moves[k], k == i - 1) for k in range(i)]
                across.append(tuple(mixed))
            else:
                across.append(())
            own.append(traces)
            carried = columns.settle(states, moments, before)
            after.append(carried)
            x = columns.features(carried)
            _, show = jax.linearize(lambda h, c=columns, s=carried.stats: c.features(Carry(h, s)), states)
            moves = self._moves(columns, show, traces, across[i])
        return Carry(*zip(*after, strict=True)), Layers(tuple(own), tuple(across))

    @staticmethod
    def _moves(columns: Columns, show: Any, traces: tuple[Parameters, ...], across: tuple[States, ...]) -> list[Array]:
        """Derivatives of the features by the parameters of each layer up to this one, this one's last and diagonal."""
        each = jnp.eye(columns.gates.states)
        zero = jnp.zeros(columns.columns, columns.bias.dtype)
        # Features are elementwise: one direction a state gives all derivatives, (states, rows of features, units).
        by_state = jnp.stack(
            [show(tuple(zero + e for e in each[i])).reshape(-1, columns.columns) for i in range(columns.gates.states)]
        )
        flat = tuple(map(_flat, traces))
        diagonal = tree_sum([d[:, None] * t[None] for d, t in zip(by_state, flat, strict=True)])
        dense = [
            tree_sum([d[..., None, None] * t[None] for d, t in zip(by_state, below, strict=True)]).reshape(
                -1, *below[0].shape[1:]
            )
            for below in across
        ]
        return [*dense, diagonal]

    def pull(self, state: Layers, cotangent: PyTree) -> PyTree:
        gradients = []
        for k, columns in enumerate(self.layers):
            gradient = lanes(_pull, False)(state.own[k], cotangent[k])
            terms = [
                jnp.tensordot(c, t, 1)
                for above in range(k + 1, len(self.layers))
                for c, t in zip(cotangent[above], state.across[above][k], strict=True)
            ]
            if terms:
                gradient = jax.tree.map(jnp.add, gradient, _unflat(tree_sum(terms), gradient))
            gradients.append(columns.gradient_of(gradient))
        nothing = eqx.filter(self.cell, False)
        return eqx.tree_at(lambda s: s.cells, nothing, tuple(gradients))


class _Linear(NamedTuple):
    """A step of columns to first order: for each state the derivatives by old and new states, and by what is read."""

    by_state: tuple[tuple[Array | None, ...], ...]
    by_new: tuple[tuple[Array | None, ...], ...]
    by_input: tuple[Array, ...]


def _linear(gates: AbstractGates, parameters: Parameters, states: States, z: Float[Array, "inputs 1 1"]) -> _Linear:
    _, derivatives = gates.jacobian(preactivation(gates, parameters, states, z), states)
    zero = jnp.zeros_like(states[-1])
    by_input = [
        jnp.sum(parameters.weight * by_row(by_slot, gates.input_slots, zero)[None], 1) for by_slot, _, _ in derivatives
    ]
    by_old = tuple((*b[:-1], _through_h(gates, parameters, slot, b[-1])) for slot, b, _ in derivatives)
    return _Linear(by_old, tuple(new for _, _, new in derivatives), tuple(by_input))


def _along(before: States, linear: _Linear, weigh: States, moves: Array, diagonal: bool) -> States:
    """Derivatives of a layer's states by the parameters of a layer below it, one step on.

    before: for each state (units, rows, units below). weigh: for each state (inputs, units). moves: of the inputs by
    those parameters, (inputs, rows, units below), or if `diagonal` (features of a unit, rows, units below).
    """
    after: States = ()
    for by_state, by_new, by_input in zip(linear.by_state, linear.by_new, weigh, strict=True):
        if diagonal:
            one = by_input.reshape(*moves.shape[::2], -1)  # (features of a unit, units below, units)
            moved = tree_sum([jnp.moveaxis(one[f], 1, 0)[:, None] * moves[f][None] for f in range(len(one))])
        else:
            moved = jnp.tensordot(by_input, moves, ((0,), (0,)))
        for factor, old in zip((*by_state, *by_new), (*before, *after), strict=True):
            if factor is not None:
                moved = moved + factor[:, None, None] * old
        after = (*after, moved)
    return after


def _flat(parameters: Parameters) -> Float[Array, "rows units"]:
    """All rows of parameters along one axis."""
    return jnp.concatenate([leaf.reshape(-1, leaf.shape[-1]) for leaf in jax.tree.leaves(parameters)])


def _unflat(rows: Float[Array, "rows units"], like: Parameters) -> Parameters:
    """Rows of parameters as the arrays they came from."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size // leaf.shape[-1] for leaf in leaves])[:-1]
    parts = [part.reshape(leaf.shape) for part, leaf in zip(jnp.split(rows, ends), leaves, strict=True)]
    return jax.tree.unflatten(structure, parts)


def _through_h(
    gates: AbstractGates, parameters: Parameters, by_slot: tuple[Array | None, ...], by_h: Array | None
) -> Array | None:
    """D state / d h of the same column: directly, and through the recurrent weights."""
    for row, slot in enumerate(gates.recurrent_slots):
        assert parameters.recurrent is not None
        by_h = _add(by_h, _times(by_slot[slot], parameters.recurrent[row]))
    return by_h


def _traced(gates: AbstractGates) -> tuple[int, ...]:
    """Slots of the input weights that have traces of their own: in a plane, those of the second are i times these."""
    return gates.input_slots[:1] if gates.in_a_plane else gates.input_slots


def _pull(in_a_plane: bool, traces: tuple[Parameters, ...], cotangent: States) -> Parameters:
    gradient = pulled(traces, cotangent)
    if not in_a_plane:
        return gradient
    # By the first row (x, y), by the second i (x, y) = (-y, x).
    (x, y), (a, b) = (trace.weight for trace in traces), cotangent
    first = jnp.arange(2).reshape(2, *(1,) * a.ndim) == 0
    choose = lambda one, two: jnp.where(first, one[None], two[None])[None]
    both = choose(a, b) * x + choose(b, -a) * y
    return gradient._replace(weight=both)


def _advance(
    gates: AbstractGates,
    traced: tuple[int, ...],
    parameters: Parameters,
    states: States,
    traces: tuple[Parameters, ...],
    z: Float[Array, "inputs 1 1"],
) -> tuple[States, tuple[Parameters, ...]]:
    """States and traces of every column, one step on; elementwise over columns. traced: the slots of input weights."""
    new, derivatives = gates.jacobian(preactivation(gates, parameters, states, z), states)
    kept = None if gates.contracting else bounded([trace.bias for trace in traces], axis=0)
    advanced: list[Parameters] = []
    for by_slot, by_state, by_new in derivatives:
        zero = jnp.zeros_like(states[-1])
        by_read = _through_h(gates, parameters, by_slot, by_state[-1])
        rows = lambda slots, d=by_slot, zero=zero: by_row(d, slots, zero)
        loop = rows(gates.recurrent_slots) * states[-1][None] if gates.recurrent_slots else None
        trace = Parameters(rows(traced)[None] * z, loop, rows(gates.biases))
        by_old = [*by_state[:-1], by_read]
        if kept is not None:
            by_old = [_times(factor, kept) for factor in by_old]
        for factor, before in zip((*by_old, *by_new), (*traces, *advanced), strict=True):
            if factor is not None:
                trace = jax.tree.map(lambda t, b, f=factor: t + under(f, b) * b, trace, before)
        advanced.append(trace)
    return new, tuple(advanced)


def _times(a: Array | None, b: Array) -> Array | None:
    return None if a is None else a * b


def _add(a: Array | None, b: Array | None) -> Array | None:
    return b if a is None else a if b is None else a + b
