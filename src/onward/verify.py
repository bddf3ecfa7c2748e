"""Is a rule's gradient the gradient? Compared leaf by leaf with BPTT and with finite differences.

The rule is driven step by step, as it is in learning, with a cotangent on the features at every step:

    L(theta) = sum_t c_t . features(carry_t),   rule: sum_t pull(c_t),   reference: grad L by BPTT

A whole-sequence pullback through a forward rule would return BPTT for every rule, right or wrong.
Everything is computed in float64. Running moments are constants of the gradient, by definition; for
the finite differences they are replayed from the unperturbed run.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from onward._tree import select
from onward._types import Carry, PyTree
from onward.cells.base import AbstractCell, AbstractGates
from onward.cells.cascade import Cascade
from onward.cells.columns import Columns
from onward.cells.dense import Dense
from onward.cells.gru import GRUGates
from onward.cells.lstm import LSTMGates
from onward.cells.moments import Moments
from onward.credit.base import AbstractCredit
from onward.credit.columnwise import Columnwise
from onward.credit.rtrl import RTRL

EXACT = 1e-9
# A central difference of fourth order with steps of 1e-3: its own error stays below this.
FINITE_DIFFERENCE = 1e-6


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio_*`: over leaves, (g . r) / (r . r), which shows a factor that a cosine hides."""

    rule: str
    cell: str
    depth: int
    steps: int
    kind: str
    relative_error: float
    cosine: float
    ratio_min: float
    ratio_max: float
    ok: bool
    resets: bool
    streams: int
    finite_difference: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def in_float64(tree: PyTree) -> PyTree:
    """Every floating array as float64 (inside `jax.enable_x64`)."""
    return jax.tree.map(lambda a: a.astype(jnp.float64) if eqx.is_inexact_array(a) else a, tree)


def stepwise_gradient(
    cell: AbstractCell,
    rule: AbstractCredit,
    carry: Carry,
    xs: Float[Array, "time inputs"],
    resets: Bool[Array, " time"],
    cotangents: Float[Array, "time features"],
    *,
    key: PRNGKeyArray | None = None,
) -> PyTree:
    """The sum of the rule's pulls along a stream, one step after another."""
    fresh = rule.init(cell, xs[0], key=key)
    start = cell.init().hidden
    zero = jax.tree.map(jnp.zeros_like, eqx.filter(cell, cell.trainable()))

    def step(loop: Any, instant: Any) -> Any:
        carry, state, total = loop
        x, reset, cotangent = instant
        hidden, state = select(reset, (start, fresh), (carry.hidden, state))
        carry, state = rule.advance(cell, Carry(hidden, carry.stats), x, state, key=key)
        _, pullback = jax.vjp(lambda hidden: cell.features(Carry(hidden, carry.stats)), carry.hidden)
        gradient = rule.pull(cell, state, pullback(cotangent)[0])
        return (carry, state, jax.tree.map(jnp.add, total, gradient)), None

    return lax.scan(step, (carry, fresh, zero), (xs, resets, cotangents))[0][2]


def _value(cell: AbstractCell, carry: Carry, xs: Array, resets: Array, cotangents: Array, replay: PyTree | None) -> Any:
    start = cell.init().hidden

    def step(carry: Carry, instant: Any) -> Any:
        x, reset, cotangent, stats = instant
        hidden = jax.tree.map(lambda a, b: jnp.where(reset, a, b), start, carry.hidden)
        carry = cell(Carry(hidden, carry.stats), x)
        if replay is not None:
            carry = Carry(carry.hidden, stats)
        return carry, (cell.features(carry) @ cotangent, carry.stats)

    _, (values, stats) = lax.scan(step, carry, (xs, resets, cotangents, replay))
    return jnp.sum(values), stats


def reference_gradient(cell: AbstractCell, carry: Carry, xs: Array, resets: Array, cotangents: Array) -> PyTree:
    """The gradient by backpropagation through time."""
    parameters, rest = eqx.partition(cell, cell.trainable())
    loss = lambda p: _value(eqx.combine(p, rest), carry, xs, resets, cotangents, None)[0]
    return jax.grad(loss)(parameters)


@eqx.filter_jit
def _stepwise(
    cell: AbstractCell, rule: AbstractCredit, carry: Carry, xs: Array, starts: Array, cotangents: Array
) -> PyTree:
    one = lambda x, r, c: stepwise_gradient(cell, rule, carry, x, r, c)
    return jax.tree.map(lambda a: jnp.mean(a, 0), jax.vmap(one)(xs, starts, cotangents))


@eqx.filter_jit
def _reference(cell: AbstractCell, carry: Carry, xs: Array, starts: Array, cotangents: Array) -> PyTree:
    one = lambda x, r, c: reference_gradient(cell, carry, x, r, c)
    return jax.tree.map(lambda a: jnp.mean(a, 0), jax.vmap(one)(xs, starts, cotangents))


@eqx.filter_jit
def _values(
    cell: AbstractCell, carry: Carry, xs: Array, resets: Array, cotangents: Array, replay: PyTree | None
) -> Any:
    return _value(cell, carry, xs, resets, cotangents, replay)


def finite_difference_error(
    cell: AbstractCell, carry: Carry, xs: Array, resets: Array, cotangents: Array, gradient: PyTree, key: PRNGKeyArray
) -> float:
    """Largest relative error of the gradient along one random direction a leaf."""
    parameters, rest = eqx.partition(cell, cell.trainable())
    _, stats = _values(cell, carry, xs, resets, cotangents, None)
    leaves, structure = jax.tree.flatten(parameters)

    def value(leaves: list[Array]) -> float:
        moved = eqx.combine(jax.tree.unflatten(structure, leaves), rest)
        return float(_values(moved, carry, xs, resets, cotangents, stats)[0])

    worst = 0.0
    for i, (leaf, slope) in enumerate(zip(leaves, jax.tree.leaves(gradient), strict=True)):
        direction = jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
        at = lambda h, i=i, d=direction: value([a + h * d if j == i else a for j, a in enumerate(leaves)])
        h = 1e-3
        measured = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        claimed = float(jnp.sum(slope * direction))
        scale = float(jnp.linalg.norm(slope) * jnp.linalg.norm(direction)) / leaf.size**0.5
        worst = max(worst, abs(measured - claimed) / max(scale, 1e-300))
    return worst


def compare(gradient: PyTree, reference: PyTree) -> tuple[float, float, float, float]:
    """Largest relative error of a leaf, cosine of the whole, smallest and largest ratio of a leaf."""
    pairs = [
        (np.asarray(g, np.float64).ravel(), np.asarray(r, np.float64).ravel())
        for g, r in zip(jax.tree.leaves(gradient), jax.tree.leaves(reference), strict=True)
    ]
    tiny = 1e-300
    norms = [np.linalg.norm(r) for _, r in pairs]
    if not all(n > 1e-12 for n in norms):
        raise ValueError("the reference gradient of a parameter array is zero: the comparison would say nothing")
    error = max(float(np.linalg.norm(g - r) / n) for (g, r), n in zip(pairs, norms, strict=True))
    ratios = [float(g @ r / n**2) for (g, r), n in zip(pairs, norms, strict=True)]
    g, r = (np.concatenate(side) for side in zip(*pairs, strict=True))
    cosine = float(g @ r / max(float(np.linalg.norm(g) * np.linalg.norm(r)), tiny))
    return error, cosine, min(ratios), max(ratios)


def verify(
    cell: AbstractCell,
    rule: AbstractCredit,
    *,
    steps: int = 30,
    resets: bool = True,
    streams: int = 1,
    name: str | None = None,
    depth: int = 1,
    carry: Carry | None = None,
    key: PRNGKeyArray | None = None,
) -> Row:
    """Compare a rule with BPTT and finite differences on a cell, on random streams.

    `cell` may be any cell, of your own too. `resets`: episodes of random length; `streams` > 1: the
    mean gradient of several parallel streams. `ok` asks for what the rule claims: an exact rule must
    agree to 1e-9 and every ratio must be within 1e-9 of 1; the reference must agree with finite differences.

    >>> import jax
    >>> from onward import Columns, Columnwise, GRUGates
    >>> row = verify(Columns(GRUGates(), 3, 4, key=jax.random.key(0), spread=0.5), Columnwise(), steps=5)
    >>> row.ok, row.kind, row.relative_error < 1e-9
    (True, 'exact', True)
    """
    if steps < 1 or streams < 1:
        raise ValueError(f"verify: steps and streams must be at least 1, got {steps} and {streams}")
    with jax.enable_x64(True):
        key = jax.random.key(0) if key is None else key
        x_key, c_key, r_key, d_key = jax.random.split(key, 4)
        cell = in_float64(cell)
        carry = cell.init() if carry is None else in_float64(carry)
        shape = (streams, steps)
        xs = jax.random.normal(x_key, (*shape, cell.inputs), jnp.float64)
        cotangents = jax.random.normal(c_key, (*shape, cell.feature_count), jnp.float64)
        starts = jax.random.bernoulli(r_key, 0.15, shape) if resets else jnp.zeros(shape, bool)
        gradient = _stepwise(cell, rule, carry, xs, starts, cotangents)
        reference = _reference(cell, carry, xs, starts, cotangents)
        first = _reference(cell, carry, xs[:1], starts[:1], cotangents[:1])
        differences = finite_difference_error(cell, carry, xs[0], starts[0], cotangents[0], first, d_key)
        error, cosine, low, high = compare(gradient, reference)
    exact = error < EXACT and abs(low - 1) < EXACT and abs(high - 1) < EXACT
    ok = differences < FINITE_DIFFERENCE and (exact if rule.kind == "exact" else not exact)
    rule_name = type(rule).__name__
    return Row(
        rule_name, name or type(cell).__name__, depth, steps, rule.kind, error, cosine, low, high, bool(ok), resets,
        streams, differences,
    )  # fmt: skip


def cascade(
    gates: AbstractGates, depth: int, *, inputs: int = 3, width: int = 3, key: PRNGKeyArray
) -> tuple[Cascade, Carry]:
    """A grown cascade with running moments that have seen something."""
    key, x_key, first_key = jax.random.split(key, 3)
    moments = Moments(rate=0.9)
    stage = Columns(
        gates, inputs, width, key=first_key, spread=0.7, normalise_inputs=moments, normalise_features=moments
    )
    cell = Cascade(stage)
    carry = cell.init()
    xs = jax.random.normal(x_key, (20, inputs))
    for i in range(depth):
        if i:
            cell, carry = cell.grow(carry, key=jax.random.fold_in(key, i))
        carry, _ = lax.scan(lambda c, x, cell=cell: (cell(c, x), None), carry, xs)
    return cell, carry


def matrix(*, rules: Sequence[AbstractCredit] = (RTRL(), Columnwise())) -> list[Row]:
    """Every rule on every cell it accepts: depth, one and many steps, resets, parallel streams."""
    rows = []
    for label, gates in (("LSTM", LSTMGates()), ("GRU", GRUGates())):
        key = jax.random.key(1)
        cells: list[tuple[str, int, AbstractCell, Carry]] = []
        for depth in (1, 2, 3):
            grown, carry = cascade(gates, depth, key=key)
            cells.append((f"{label} cascade", depth, grown, carry))
        columns = Columns(gates, 3, 4, key=key, spread=0.7)
        dense = Dense(gates, 3, 4, key=key)
        cells += [(f"{label} columns", 1, columns, columns.init()), (f"{label} dense", 1, dense, dense.init())]
        for rule in rules:
            for name, depth, cell, carry in cells:
                if isinstance(rule, Columnwise) and isinstance(cell, Dense):
                    continue  # refused: its units read one another
                for steps, resets, streams in ((1, False, 1), (30, False, 1), (30, True, 1), (30, True, 3)):
                    # From a clean state one step has no recurrent gradient to compare, so it starts warm.
                    start = carry if streams > 1 or steps > 1 else _warm(cell, carry)
                    rows.append(
                        verify(
                            cell, rule, steps=steps, resets=resets, streams=streams, name=name, depth=depth, carry=start
                        )
                    )
    return rows


def _warm(cell: AbstractCell, carry: Carry) -> Carry:
    xs = jax.random.normal(jax.random.key(5), (5, cell.inputs))
    warm: Carry = lax.scan(lambda c, x: (cell(c, x), None), carry, xs)[0]
    return warm


def as_table(rows: Sequence[Row]) -> list[str]:
    """Lines of text."""
    lines = [
        f"{'rule':11} {'cell':13} depth steps resets streams kind   relative error  cosine     "
        "smallest - largest ratio  finite differences"
    ]
    for r in rows:
        lines.append(
            f"{r.rule:11} {r.cell:13} {r.depth:5} {r.steps:5} {'yes' if r.resets else 'no':6} {r.streams:7} {r.kind:6} "
            f"{r.relative_error:14.1e}  {r.cosine:.8f}  {r.ratio_min:.9f} - {r.ratio_max:.9f} "
            f"{r.finite_difference:14.1e}  {'ok' if r.ok else 'FAILED'}"
        )
    good = sum(r.ok for r in rows)
    return [*lines, f"{good} of {len(rows)} comparisons ok (float64; exact: below 1e-9 in every parameter array)"]
