"""Is a rule's gradient the gradient? Compared leaf by leaf with BPTT and with finite differences.

The rule is driven step by step, as it is in learning, with a cotangent on the features at every step:

    L(theta) = sum_t c_t . features(carry_t),   rule: sum_t pull(c_t),   reference: grad L by BPTT

A whole-sequence pullback through a forward rule would return BPTT for every rule, right or wrong.
Everything is computed in float64. Running moments are constants of the gradient, by definition; for
the finite differences they are replayed from the unperturbed run.

What a rule claims (`AbstractCredit.claim`) decides what is asked of it. Exact: every array of the gradient
agrees to 1e-9, and every ratio is 1 to 1e-9. Unbiased: over many seeds, no coordinate of the mean is 5
standard errors off, and neither is its ratio to the reference, whose standard error must be small enough
that a bias of a quarter would be noticed (else the test would say nothing). Biased: it must not be exact.
"""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from onward.cells.base import AbstractCell, AbstractColumnar, AbstractGates
from onward.cells.cascade import Cascade
from onward.cells.columns import Columns
from onward.cells.dense import Dense
from onward.cells.elman import ElmanGates
from onward.cells.gru import GRUGates
from onward.cells.hybrid import Hybrid
from onward.cells.lstm import LSTMGates
from onward.cells.moments import Moments
from onward.cells.stack import Stack
from onward.credit.base import AbstractCredit, Kind
from onward.credit.columnwise import Columnwise
from onward.credit.rflo import RFLO
from onward.credit.rtrl import RTRL
from onward.credit.snap import SnAp
from onward.credit.tbptt import TBPTT
from onward.credit.uoro import UORO
from onward.heads.linear import Linear
from onward.learners.online import Online
from onward.model import Model
from onward.objectives.supervised import Supervised
from onward.trees import select
from onward.types import Carry, PyTree, Step

EXACT = 1e-9
# A central difference of fourth order with steps of 1e-3: its own error stays below this.
FINITE_DIFFERENCE = 1e-6
SIGMAS = 5.0
# Seeds of an unbiased rule, and the largest standard error of its ratio that still tells: 5 sigmas are a quarter.
SAMPLES, TIGHT = 20_000, 0.05
BATCH = 2_000
# The matrix: steps of a stream, parallel streams, and its sizes.
STEPS, STREAMS = 12, 3


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio_*`: over leaves, (g . r) / (r . r), which shows a factor that a cosine hides.

    For an unbiased rule they are those of the mean over `samples` seeds, `worst_z` is the largest deviation of
    a coordinate in standard errors, and `ratio_error` the standard error of the whole gradient's ratio.
    """

    rule: str
    cell: str
    depth: int
    steps: int
    kind: Kind
    claim: Kind
    found: Kind
    relative_error: float
    cosine: float
    ratio_min: float
    ratio_max: float
    ok: bool
    resets: bool
    streams: int
    finite_difference: float
    samples: int = 1
    worst_z: float | None = None
    ratio_error: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Cost:
    """What a rule takes on a cell: floats of its state, multiply-adds and microseconds of one learning step."""

    rule: str
    cell: str
    parameters: int
    floats: int
    multiply_adds: int
    microseconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def name_of(rule: AbstractCredit) -> str:
    """The rule with what it was given, as one writes it."""
    given = [str(getattr(rule, f)) for f in ("n", "window") if hasattr(rule, f)]
    scaling = getattr(rule, "scaling", "uoro")
    return f"{type(rule).__name__}{f'({given[0]})' if given else ''}{'' if scaling == 'uoro' else f'({scaling})'}"


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


# Tiny programs that run a few times: compile them fast rather than well.
_quick: Any = functools.partial(eqx.filter_jit, compiler_options={"xla_backend_optimization_level": 0})


def _gradients(
    cell: AbstractCell, rule: AbstractCredit, carry: Carry, xs: Array, starts: Array, cotangents: Array, keys: Array
) -> PyTree:
    """The rule's gradient for each key, averaged over streams."""

    def of_key(key: PRNGKeyArray) -> PyTree:
        one = lambda x, r, c, k: stepwise_gradient(cell, rule, carry, x, r, c, key=k)
        found = jax.vmap(one)(xs, starts, cotangents, jax.random.split(key, len(xs)))
        return jax.tree.map(lambda a: jnp.mean(a, 0), found)

    return lax.map(of_key, keys, batch_size=200)


_gradient = _quick(_gradients)
_gradient_of_seeds = eqx.filter_jit(_gradients)


@_quick
def _reference(cell: AbstractCell, carry: Carry, xs: Array, starts: Array, cotangents: Array) -> PyTree:
    one = lambda x, r, c: reference_gradient(cell, carry, x, r, c)
    return jax.tree.map(lambda a: jnp.mean(a, 0), jax.vmap(one)(xs, starts, cotangents))


@_quick
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


@dataclass(frozen=True)
class _Streams:
    """Random streams that a gradient is taken on."""

    xs: Array
    starts: Array
    cotangents: Array

    def masked(self, steps: int, streams: int, *, resets: bool) -> "_Streams":
        """The same shapes, with no loss after `steps` steps or outside the first `streams`: programs are shared."""
        counted = jnp.zeros(self.starts.shape).at[:streams, :steps].set(1)
        return _Streams(self.xs, self.starts & resets, self.cotangents * counted[..., None])


def _streams(cell: AbstractCell, steps: int, streams: int, key: PRNGKeyArray) -> _Streams:
    x_key, c_key, r_key = jax.random.split(key, 3)
    shape = (streams, steps)
    return _Streams(
        jax.random.normal(x_key, (*shape, cell.inputs), jnp.float64),
        jax.random.bernoulli(r_key, 0.15, shape),
        jax.random.normal(c_key, (*shape, cell.feature_count), jnp.float64),
    )


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
    samples: int = SAMPLES,
    key: PRNGKeyArray | None = None,
) -> Row:
    """Compare a rule with BPTT and finite differences on a cell, on random streams.

    `cell` may be any cell, of your own too. `resets`: episodes of random length; `streams` > 1: the
    mean gradient of several parallel streams; `samples`: seeds of an unbiased rule. `ok` asks for what
    the rule claims on this cell (see the module), and for a reference that agrees with finite differences.

    >>> import jax
    >>> from onward import Columns, Columnwise, GRUGates
    >>> row = verify(Columns(GRUGates(), 3, 4, key=jax.random.key(0), spread=0.5), Columnwise(), steps=5)
    >>> row.ok, row.kind, row.relative_error < 1e-9
    (True, 'exact', True)
    """
    if steps < 1 or streams < 1:
        raise ValueError(f"verify: steps and streams must be at least 1, got {steps} and {streams}")
    if isinstance(cell, Hybrid) and cell.stochastic:
        raise TypeError(
            "verify: a Hybrid samples its units, and finite differences of samples say nothing; "
            "onward.verify.targets checks the straight-through gradient"
        )
    with jax.enable_x64(True):
        key, data_key = jax.random.split(jax.random.key(0) if key is None else key)
        cell = in_float64(cell)
        carry = cell.init() if carry is None else in_float64(carry)
        data = _streams(cell, steps, streams, data_key).masked(steps, streams, resets=resets)
        reference, differences = _references(cell, carry, data, streams)
        return _row(
            cell, rule, carry, data, reference, differences, steps, resets, streams, name, depth, samples, key
        )  # fmt: skip


def _references(cell: AbstractCell, carry: Carry, data: _Streams, streams: int) -> tuple[PyTree, float]:
    reference = _reference(cell, carry, data.xs, data.starts, data.cotangents)
    reference = jax.tree.map(lambda g: g * (len(data.xs) / streams), reference)
    one = data.masked(data.xs.shape[1], 1, resets=True)
    first = _reference(cell, carry, one.xs, one.starts, one.cotangents)
    first = jax.tree.map(lambda g: g * len(data.xs), first)
    key = jax.random.key(11)
    return reference, finite_difference_error(
        cell, carry, data.xs[0], data.starts[0], data.cotangents[0], first, key
    )  # fmt: skip


def _row(
    cell: AbstractCell,
    rule: AbstractCredit,
    carry: Carry,
    data: _Streams,
    reference: PyTree,
    differences: float,
    steps: int,
    resets: bool,
    streams: int,
    name: str | None,
    depth: int,
    samples: int,
    key: PRNGKeyArray,
) -> Row:
    claim = rule.claim(cell, steps)
    scale = len(data.xs) / streams
    # Every rule gets a key; exact and biased ones have no use for it.
    gradients = _gradient_of_seeds if claim == "unbiased" else _gradient
    take = lambda keys: gradients(cell, rule, carry, data.xs, data.starts, data.cotangents, keys)
    z, spread = None, None
    if claim == "unbiased":
        chunks = [take(jax.random.split(jax.random.fold_in(key, i), BATCH)) for i in range(-(-samples // BATCH))]
        drawn = jax.tree.map(lambda *g: scale * np.concatenate(g), *chunks)
        gradient = jax.tree.map(lambda g: g.mean(0), drawn)
        z, spread = _test_of_mean(drawn, reference)
        samples = BATCH * len(chunks)
    else:
        gradient, samples = jax.tree.map(lambda g: scale * g[0], take(key[None])), 1
    error, cosine, low, high = compare(gradient, reference)
    exact = error < EXACT and abs(low - 1) < EXACT and abs(high - 1) < EXACT
    unbiased = z is not None and spread is not None and z < SIGMAS and spread < TIGHT
    found: Kind = "exact" if exact else "unbiased" if unbiased else "biased"
    ok = differences < FINITE_DIFFERENCE and found == claim
    return Row(
        name_of(rule), name or type(cell).__name__, depth, steps, rule.kind, claim, found, error, cosine, low, high,
        bool(ok), resets, streams, differences, samples, z, spread,
    )  # fmt: skip


def _test_of_mean(drawn: PyTree, reference: PyTree) -> tuple[float, float]:
    """Largest deviation of the mean in standard errors, over coordinates and the ratio; standard error of the ratio."""
    g = np.concatenate([np.asarray(a).reshape(len(a), -1) for a in jax.tree.leaves(drawn)], 1)
    r = np.concatenate([np.asarray(a).ravel() for a in jax.tree.leaves(reference)])
    standard = lambda a: a.std(0, ddof=1) / np.sqrt(len(a))
    off = np.abs(g.mean(0) - r)
    moved = standard(g) > 0
    z = np.where(moved, off / np.where(moved, standard(g), 1), np.where(off > EXACT, np.inf, 0))
    ratio = g @ r / (r @ r)
    error = float(standard(ratio))
    return float(max(z.max(), abs(ratio.mean() - 1) / max(error, 1e-300))), error


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


GATES: dict[str, Callable[[], AbstractGates]] = {"Elman": ElmanGates, "GRU": GRUGates, "LSTM": LSTMGates}
# Every unit reads itself and its neighbours on a line; one edge spans it. Five steps reach everything.
LINE = (np.abs(np.subtract.outer(np.arange(5), np.arange(5))) < 2) | (np.arange(25).reshape(5, 5) == 4)


Case = tuple[int, AbstractCell, Carry]


def matrix_cells() -> dict[str, Callable[[], Case]]:
    """By name, what makes the depth, the cell and a carry to start from: every structure with every kind of unit."""
    key = jax.random.key(1)
    moments = Moments(rate=0.9)
    fresh = lambda depth, cell: (depth, cell, cell.init())
    normal = {"normalise_inputs": moments, "normalise_features": moments}
    cells: dict[str, Callable[[], Case]] = {}
    for label, kind in GATES.items():
        layer = lambda kind=kind, units=3, key=key, **options: Dense(kind(), 3, units, key=key, **options)
        cells |= {
            f"{label} dense": lambda layer=layer: fresh(1, layer(units=4, **normal)),
            f"{label} sparse": lambda layer=layer: fresh(1, layer(units=5, mask=LINE)),
            f"{label} stack": lambda layer=layer: fresh(2, Stack(layer(), layer(key=jax.random.key(2)))),
            f"{label} columns": lambda kind=kind: fresh(1, Columns(kind(), 3, 4, key=key, spread=0.7)),
            f"{label} cascade": lambda kind=kind: (2, *cascade(kind(), 2, key=key)),
        }
    return cells


def matrix_rules(cell: AbstractCell) -> list[AbstractCredit]:
    """The rules that a cell of the matrix is put to, with their degenerate limits."""
    if isinstance(cell, AbstractColumnar):
        return [Columnwise(), RTRL(), SnAp(1), UORO(), TBPTT(4), TBPTT(STEPS)]
    rules = [RTRL(), SnAp(1), SnAp(2), UORO(), TBPTT(4), TBPTT(STEPS)]
    if isinstance(cell, Dense):
        rules.insert(3, RFLO())
        if cell.sources is not None:
            rules.insert(3, SnAp(5))
    return rules


SETTINGS = ((1, False, 1), (STEPS, False, 1), (STEPS, True, 1), (STEPS, True, STREAMS))


def matrix(*, rules: Sequence[type[AbstractCredit]] | None = None, cells: Sequence[str] | None = None) -> list[Row]:
    """Every rule on every cell it accepts: depth, one and many steps, resets, parallel streams.

    `rules` and `cells` choose some of them (by class, and by name).
    """
    rows = []
    with jax.enable_x64(True):
        for name, make in matrix_cells().items():
            if cells is not None and name not in cells:
                continue
            depth, cell, start = make()
            cell, start = in_float64(cell), in_float64(start)
            data = _streams(cell, STEPS, STREAMS, jax.random.key(3))
            cases = []
            for steps, resets, streams in SETTINGS:
                # From a clean state one step has no recurrent gradient to compare, so it starts warm.
                carry = start if steps > 1 else _warm(cell, start)
                shown = data.masked(steps, streams, resets=resets)
                cases.append((steps, resets, streams, carry, shown, *_references(cell, carry, shown, streams)))
            for rule in matrix_rules(cell):
                if rules is not None and type(rule) not in rules:
                    continue
                for steps, resets, streams, carry, shown, reference, differences in cases:
                    if rule.kind == "unbiased" and streams > 1:
                        continue  # the mean over streams is one more average
                    rows.append(
                        _row(
                            cell, rule, carry, shown, reference, differences, steps, resets, streams, name, depth,
                            SAMPLES, jax.random.key(4),
                        )
                    )  # fmt: skip
    return rows


def _warm(cell: AbstractCell, carry: Carry) -> Carry:
    xs = jax.random.normal(jax.random.key(5), (5, cell.inputs))
    warm: Carry = lax.scan(lambda c, x: (cell(c, x), None), carry, xs)[0]
    return warm


def costs(units: int = 32, inputs: int = 8) -> list[Cost]:
    """Memory, work and time of each rule on a dense GRU and LSTM, and of columns with as many parameters or fewer."""
    found = []
    for label in ("GRU", "LSTM"):
        gates = GATES[label]()
        key = jax.random.key(0)
        dense = Dense(gates, inputs, units, key=key)
        columns = Columns(gates, inputs, 4 * units, key=key)
        for rule in (Columnwise(), SnAp(1), RFLO(), UORO(), TBPTT(1), TBPTT(10), RTRL()):
            cell: AbstractCell = columns if isinstance(rule, Columnwise) else dense
            name = f"{label}, {4 * units} columns" if isinstance(rule, Columnwise) else f"{label}, {units} units"
            found.append(_cost(rule, cell, name))
    return found


def _cost(rule: AbstractCredit, cell: AbstractCell, name: str) -> Cost:
    learner = Online(rule, Supervised(), optax.sgd(1.0), 1e-6)
    zero = jnp.zeros(())
    example = lambda t: Step(jnp.full(cell.inputs, 0.5) + 0.1 * t, zero, zero + 1, jnp.asarray(False), zero)
    state = learner.init(Model(cell, Linear(cell.feature_count)), example(zero), key=jax.random.key(0))
    dynamic, static = eqx.partition(state, eqx.is_array)

    def step(dynamic: Any, t: Array) -> Any:
        return eqx.filter(learner.step(eqx.combine(dynamic, static), example(t))[0], eqx.is_array)

    @jax.jit
    def loop(dynamic: Any, steps: Array) -> Any:
        return lax.fori_loop(0, steps, lambda t, d: step(d, jnp.sin(0.1 * t)), dynamic)

    analysis = jax.jit(step).lower(dynamic, zero).compile().cost_analysis()
    flops = float((analysis or {}).get("flops", 0))
    count, best = 16, float("inf")
    jax.block_until_ready(loop(dynamic, jnp.asarray(2)))
    for _ in range(12):
        started = time.process_time()
        jax.block_until_ready(loop(dynamic, jnp.asarray(count)))
        spent = time.process_time() - started
        best = min(best, spent / count)
        count = count if spent > 0.05 else 2 * count
    parameters = sum(a.size for a in jax.tree.leaves(eqx.filter(cell, cell.trainable())))
    return Cost(name_of(rule), name, parameters, state_floats(rule, cell), round(flops / 2), 1e6 * best)


def state_floats(rule: AbstractCredit, cell: AbstractCell) -> int:
    """Floats that a rule keeps for a cell, from the sizes of its arrays."""
    x, key = jax.ShapeDtypeStruct((cell.inputs,), jnp.float32), jax.random.key(0)
    state = jax.eval_shape(lambda x: rule.init(cell, x, key=key), x)
    return sum(leaf.size for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact))


def as_table(rows: Sequence[Row], spent: Sequence[Cost] = ()) -> list[str]:
    """Lines of text: every comparison, what each rule costs, and the count."""
    lines = [
        f"{'rule':11} {'cell':13} depth steps resets streams claim     relative error  cosine     "
        "smallest - largest ratio  finite differences"
    ]
    for r in rows:
        of_mean = f"  mean of {r.samples:,}: worst {r.worst_z:.1f} se" if r.worst_z is not None else ""
        lines.append(
            f"{r.rule:11} {r.cell:13} {r.depth:5} {r.steps:5} {'yes' if r.resets else 'no':6} {r.streams:7} {r.claim:8} "
            f"{r.relative_error:14.1e}  {r.cosine:.8f}  {r.ratio_min:.9f} - {r.ratio_max:.9f} "
            f"{r.finite_difference:14.1e}  {'ok' if r.ok else f'FAILED: it is {r.found}'}{of_mean}"
        )
    if spent:
        lines += ["", f"{'rule':11} {'cell':18} parameters    floats  multiply-adds  microseconds a step"]
    for c in spent:
        lines.append(
            f"{c.rule:11} {c.cell:18} {c.parameters:10,} {c.floats:9,} {c.multiply_adds:14,} {c.microseconds:20.1f}"
        )
    good = sum(r.ok for r in rows)
    return [*lines, f"{good} of {len(rows)} comparisons ok (float64; exact: below 1e-9 in every parameter array)"]


# Title of each section of the page, and how the names of its cells end.
STRUCTURES = {
    "One layer, every unit reads every unit (normalised inputs and features)": "dense",
    "One layer, sparse": "sparse",
    "Two layers": "stack",
    "Columns": "columns",
    "A cascade of two stages, normalised": "cascade",
}


def in_order(rules: Iterable[str]) -> list[str]:
    """Names of rules once each, exact ones first, as the README lists them."""
    first = ("Columnwise", "RTRL", "SnAp", "UORO", "TBPTT", "RFLO")
    place = lambda rule: [rule.strip("`").startswith(name) for name in first].index(True)
    return sorted(dict.fromkeys(rules), key=lambda rule: (place(rule), len(rule), rule))


def as_markdown(rows: Sequence[Row], spent: Sequence[Cost]) -> str:
    """`docs/exactness.md`: the matrix in short, and the cost of each rule."""
    cells = list(dict.fromkeys(r.cell for r in rows))
    rules = in_order(r.rule for r in rows)
    lines = [
        "# Exactness",
        "",
        "Written by `make exactness` (`onward verify --markdown`); do not edit. Each rule is driven step by step in float64 and",
        f"compared, parameter array by parameter array, with BPTT, and BPTT with finite differences: {len(rows)} comparisons, of which",
        f"{sum(r.ok for r in rows)} say what the rule claims. Each entry is the worst over one step, {STEPS} steps, {STEPS} steps with resets, and {STREAMS} parallel streams.",
        "",
        "- **exact** with the largest relative error of an array.",
        "- **biased** with relative error and cosine of the whole gradient, after more than one step.",
        f"- **unbiased** with the largest deviation of the mean of {SAMPLES:,} seeds, in standard errors over all coordinates (5 would fail),",
        "  and the standard error of its ratio to the gradient (±; the test would notice a bias five times as large).",
        "",
        f"TBPTT({STEPS}) sees the whole stream, SnAp(5) on the sparse layer and SnAp(2) on a full one leave nothing out: then both are exact, as they should be.",
    ]
    for title, structure in STRUCTURES.items():
        mine = [c for c in cells if c.endswith(structure)]
        if not mine:
            continue
        lines += [
            "",
            f"## {title}",
            "",
            f"| rule | {' | '.join(c.split()[0] for c in mine)} |",
            "|---|" + "---|" * len(mine),
        ]
        for rule in rules:
            found = [[r for r in rows if r.rule == rule and r.cell == cell] for cell in mine]
            if any(found):
                lines.append(f"| `{rule}` | {' | '.join(_entry(f) for f in found)} |")
    lines += [
        "",
        "## Cost",
        "",
        "One learning step (forward, gradient, SGD update) with 8 inputs. Floats of the rule's own state, counted from its arrays; multiply-adds as",
        "XLA counts the compiled step's operations, halved; microseconds of CPU time on one core of a shared machine, best of twelve, without the",
        "options that the command line sets. `make bench` has the ratios.",
        "",
        "| cell | rule | parameters | floats | multiply-adds | microseconds |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {c.cell} | `{c.rule}` | {c.parameters:,} | {c.floats:,} | {c.multiply_adds:,} | {c.microseconds:.1f} |"
        for c in spent
    ]
    worst = max(r.finite_difference for r in rows)
    lines += [
        "",
        f"BPTT against finite differences: largest relative error along a random direction of each array {worst:.1e}.",
    ]
    return "\n".join(lines)


def _entry(rows: Sequence[Row]) -> str:
    if not rows:
        return "-"
    failed = "" if all(r.ok for r in rows) else " **FAILED**"
    several = [r for r in rows if r.steps > 1]
    claim = several[0].claim
    if claim == "unbiased":
        return f"unbiased, {max(r.worst_z or 0 for r in rows):.1f} se; ratio ± {max(r.ratio_error or 0 for r in rows):.3f}{failed}"
    worst = max(several, key=lambda r: r.relative_error)
    if claim == "exact":
        return f"exact, {worst.relative_error:.0e}{failed}"
    return f"biased, {worst.relative_error:.2g}; cosine {worst.cosine:.4f}{failed}"


def short_form(page: str) -> str:
    """Of `docs/exactness.md` what the README shows: one column, LSTM units, of each structure."""
    tables: dict[str, dict[str, str]] = {}
    for section in page.split("\n## ")[1:]:
        structure = STRUCTURES.get(section.splitlines()[0])
        rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
        if structure is not None:
            tables[structure] = {row[0]: row[-1] for row in rows[1:]}
    rules = in_order(rule for table in tables.values() for rule in table)
    lines = [f"| rule | {' | '.join(tables)} |", "|---|" + "---|" * len(tables)]
    lines += [f"| {rule} | {' | '.join(t.get(rule, '-') for t in tables.values())} |" for rule in rules]
    return "\n".join(lines) + "\n"
