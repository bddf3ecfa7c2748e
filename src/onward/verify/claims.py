"""Is a rule's gradient what the rule claims? Judged by BPTT and finite differences, in float64.

What a rule claims (`AbstractCredit.claim`) decides what is asked of it. Exact: every array of the gradient
agrees to 1e-9, and every ratio is 1 to 1e-9. Unbiased: over many seeds, no coordinate of the mean is 5
standard errors off, and neither is its ratio to the reference, whose standard error must be small enough
that a bias of a quarter would be noticed (else the test would say nothing). Biased: it must not be exact.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from onward.cells.base import AbstractCell
from onward.cells.hybrid import Hybrid
from onward.credit.base import AbstractCredit, Kind
from onward.types import Carry, PyTree
from onward.verify.gradients import (
    compare,
    finite_difference_error,
    gradient_of_seeds,
    in_float64,
    mean_gradient,
    mean_reference,
    quick,
)

EXACT = 1e-9
# A central difference of fourth order with steps of 1e-3: its own error stays below this.
FINITE_DIFFERENCE = 1e-6
SIGMAS = 5.0
# Seeds of an unbiased rule, and the largest standard error of its ratio that still tells: 5 sigmas are a quarter.
SAMPLES, TIGHT = 20_000, 0.05
BATCH = 2_000


@dataclass(frozen=True)
class Row:
    """One comparison: what a rule claims on a cell, and what it is found to be, with the numbers of a `Comparison`.

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


def name_of(rule: AbstractCredit) -> str:
    """The rule with what it was given, as one writes it."""
    given = [str(getattr(rule, f)) for f in ("n", "window") if hasattr(rule, f)]
    scaling = getattr(rule, "scaling", "uoro")
    return f"{type(rule).__name__}{f'({given[0]})' if given else ''}{'' if scaling == 'uoro' else f'({scaling})'}"


@dataclass(frozen=True)
class Streams:
    """Random streams that a gradient is taken on, (streams, steps, ...)."""

    xs: np.ndarray
    starts: np.ndarray
    cotangents: np.ndarray

    def masked(self, steps: int, streams: int, *, resets: bool) -> "Streams":
        """The same shapes, with no loss after `steps` steps or outside the first `streams`: programs are shared."""
        counted = np.zeros((*self.starts.shape, 1))
        counted[:streams, :steps] = 1
        return Streams(self.xs, self.starts & resets, self.cotangents * counted)


def random_streams(cell: AbstractCell, steps: int, streams: int, key: PRNGKeyArray) -> Streams:
    """Normal observations and cotangents in float64, and episodes of some 7 steps."""
    return Streams(*(np.asarray(a) for a in _random_streams((streams, steps), cell.inputs, cell.feature_count, key)))


@quick
def _random_streams(shape: tuple[int, int], inputs: int, features: int, key: PRNGKeyArray) -> tuple[Array, ...]:
    x_key, c_key, r_key = jax.random.split(key, 3)
    return (
        jax.random.normal(x_key, (*shape, inputs), jnp.float64),
        jax.random.bernoulli(r_key, 0.15, shape),
        jax.random.normal(c_key, (*shape, features), jnp.float64),
    )


@dataclass(frozen=True)
class Case:
    """A cell on random streams, and the gradient that rules are compared with. In float64."""

    name: str
    depth: int
    cell: AbstractCell
    carry: Carry
    steps: int
    resets: bool
    streams: int
    data: Streams
    reference: PyTree
    finite_difference: float
    # What was held against finite differences: episodes of every stream, cotangents of the first.
    starts: np.ndarray
    first: np.ndarray


def case_of(
    name: str,
    depth: int,
    cell: AbstractCell,
    carry: Carry,
    data: Streams,
    *,
    steps: int,
    resets: bool,
    streams: int,
) -> Case:
    """The case of the first `steps` and `streams` of `data`, its reference computed and held against differences."""
    data = data.masked(steps, streams, resets=resets)
    reference = mean_reference(cell, carry, data.xs, data.starts, data.cotangents)
    reference = jax.tree.map(lambda g: np.asarray(g) * (len(data.xs) / streams), reference)
    alone = data.masked(data.xs.shape[1], 1, resets=True)
    first = mean_reference(cell, carry, alone.xs, alone.starts, alone.cotangents)
    first = jax.tree.map(lambda g: np.asarray(g) * len(data.xs), first)
    differences = finite_difference_error(
        cell, carry, data.xs[0], data.starts[0], data.cotangents[0], first, jax.random.key(11)
    )
    return Case(
        name,
        depth,
        cell,
        carry,
        steps,
        resets,
        streams,
        data,
        reference,
        differences,
        alone.starts,
        alone.cotangents[0],
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
        data = random_streams(cell, steps, streams, data_key)
        case = case_of(
            name or type(cell).__name__, depth, cell, carry, data, steps=steps, resets=resets, streams=streams
        )
        return judge(rule, case, samples, key)


def judge(rule: AbstractCredit, case: Case, samples: int, key: PRNGKeyArray) -> Row:
    """What a rule's gradient is in a case (inside `jax.enable_x64`); `samples`: seeds of an unbiased rule."""
    cell, data = case.cell, case.data
    claim = rule.claim(cell, case.steps)
    if claim == "unbiased":  # thousands of seeds: no stream that does not count is computed
        data = Streams(*(a[: case.streams] for a in (data.xs, data.starts, data.cotangents)))
    scale = len(data.xs) / case.streams
    # Every rule gets a key; exact and biased ones have no use for it.
    on = (cell, rule, case.carry, data.xs, data.starts, data.cotangents)
    z, spread = None, None
    if claim == "unbiased":
        chunks = [gradient_of_seeds(*on, _keys(key, np.uint32(i))) for i in range(-(-samples // BATCH))]
        drawn = jax.tree.map(lambda *g: scale * np.concatenate(g), *chunks)
        mean = jax.tree.map(lambda g: g.mean(0), drawn)
        z, spread = _test_of_mean(drawn, case.reference)
        samples = BATCH * len(chunks)
    else:
        mean, samples = jax.tree.map(lambda g: scale * np.asarray(g), mean_gradient(*on, key)), 1
    compared = compare(mean, case.reference)
    error, _, low, high = compared
    exact = error < EXACT and abs(low - 1) < EXACT and abs(high - 1) < EXACT
    unbiased = z is not None and spread is not None and z < SIGMAS and spread < TIGHT
    is_kind: Kind = "exact" if exact else "unbiased" if unbiased else "biased"
    return Row(
        rule=name_of(rule),
        cell=case.name,
        depth=case.depth,
        steps=case.steps,
        kind=rule.kind,
        claim=claim,
        found=is_kind,
        **compared._asdict(),
        ok=bool(case.finite_difference < FINITE_DIFFERENCE and is_kind == claim),
        resets=case.resets,
        streams=case.streams,
        finite_difference=case.finite_difference,
        samples=samples,
        worst_z=z,
        ratio_error=spread,
    )


@quick
def _keys(key: PRNGKeyArray, chunk: Array) -> PRNGKeyArray:
    return jax.random.split(jax.random.fold_in(key, chunk), BATCH)


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
