"""Which rules are compared on which cells: every structure with every kind of unit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jaxtyping import PRNGKeyArray

import onward as ow
from onward.verify.claims import SAMPLES, Row, case_of, judge, random_streams
from onward.verify.faults import Fault, locate
from onward.verify.gradients import in_float64, quick

# Steps of a stream, and parallel streams.
STEPS, STREAMS = 12, 3
GATES: dict[str, Callable[[], ow.AbstractGates]] = {
    "Elman": ow.ElmanGates,
    "GRU": ow.GRUGates,
    "LSTM": ow.LSTMGates,
    "MinGRU": ow.MinGRUGates,
    "ELSTM": ow.ELSTMGates,
    "RTU": ow.RTUGates,
    "RTU-nonlinear": lambda: ow.RTUGates(recurrence="nonlinear"),
    "LRU": ow.LRUGates,
}
# Every unit reads itself and its neighbours on a line; one edge spans it. Five steps reach everything.
LINE = (np.abs(np.subtract.outer(np.arange(5), np.arange(5))) < 2) | (np.arange(25).reshape(5, 5) == 4)
NORMAL: dict[str, Any] = dict.fromkeys(("normalise_inputs", "normalise_features"), ow.Moments(rate=0.9))

Start = tuple[int, ow.AbstractCell, ow.Carry]


def cascade(gates: ow.AbstractGates, depth: int, *, key: PRNGKeyArray) -> tuple[ow.Cascade, ow.Carry]:
    """A grown cascade with running moments that have seen something, of the inputs where these units allow it."""
    key, x_key, first_key = jax.random.split(key, 3)
    normal = NORMAL if gates.inputs_have_biases else {"normalise_features": ow.Moments(rate=0.9)}
    cell = ow.Cascade(ow.Columns(gates, 3, 3, key=first_key, spread=0.7, **normal))
    carry = cell.init()
    xs = jax.random.normal(x_key, (20, 3))
    for i in range(depth):
        if i:
            cell, carry = cell.grow(carry, key=jax.random.fold_in(key, i))
        carry, _ = lax.scan(lambda c, x, cell=cell: (cell(c, x), None), carry, xs)
    return cell, carry


def cells(kinds: Mapping[str, Callable[[], ow.AbstractGates]] = GATES) -> dict[str, Callable[[], Start]]:
    """By name, what makes the depth, the cell and a carry to start from: every structure that a kind of unit can have.

    Units without recurrent weights make columns, alone, in a cascade, and in two layers.
    """
    made: dict[str, Callable[[], Start]] = {}
    for label, kind in kinds.items():
        if kind().recurrent_slots:
            layer = lambda key, kind=kind, inputs=3, units=3, **options: ow.Dense(
                kind(), inputs, units, key=key, **options
            )
            made |= {
                f"{label} dense": fresh(1, lambda key, layer=layer: layer(key, units=4, **NORMAL)),
                f"{label} sparse": fresh(1, lambda key, layer=layer: layer(key, units=5, mask=LINE)),
                f"{label} stack": fresh(2, lambda key, layer=layer: two(layer, key)),
            }
        made |= {
            f"{label} columns": fresh(1, lambda key, kind=kind: large(kind(), 3, 4, key=key)),
            f"{label} cascade": lambda kind=kind: (
                2,
                *quick(lambda key: cascade(kind(), 2, key=key))(jax.random.key(1)),
            ),
            f"{label} column-stack": fresh(
                2, lambda key, kind=kind: two(lambda k, inputs=3: large(kind(), inputs, 3, key=k), key)
            ),
        }
    mixed = {"Encoder column-stack": fresh(2, encoded), "Mixed columns": fresh(1, side_by_side)}
    return made | (mixed if kinds is GATES else {})


def side_by_side(key: PRNGKeyArray) -> ow.Parallel:
    """Columns of two kinds, each with states of its own."""
    return ow.Parallel(
        large(ow.ELSTMGates(), 3, 2, key=key),
        ow.Columns(ow.LRUGates(), 3, 2, key=jax.random.key(2), spread=0.7, **NORMAL),
    )


def encoded(key: PRNGKeyArray) -> ow.Stack:
    """Columns over a layer without memory, all of whose weights are there."""
    return ow.Stack(ow.Encoder(3, 4, key=key, sparsity=0.0), large(ow.MinGRUGates(), 4, 3, key=jax.random.key(2)))


def large(gates: ow.AbstractGates, inputs: int, units: int, *, key: PRNGKeyArray) -> ow.Columns:
    """Columns whose weights are so large that all that could be wrong shows."""
    return ow.Columns(gates, inputs, units, key=key, spread=0.7)


def two(layer: Callable[..., ow.AbstractCell], key: PRNGKeyArray) -> ow.Stack:
    """Two layers, the second of which reads the features of the first."""
    below = layer(key)
    return ow.Stack(below, layer(jax.random.key(2), inputs=below.feature_count))


def fresh(depth: int, make: Callable[[PRNGKeyArray], ow.AbstractCell]) -> Callable[[], Start]:
    """What makes a cell, by one compiled program, and its first carry."""
    return lambda: (depth, cell := quick(make)(jax.random.key(1)), cell.init())


def rules(cell: ow.AbstractCell) -> list[ow.AbstractCredit]:
    """The rules that a cell of the matrix is put to, with their degenerate limits."""
    if isinstance(cell, ow.Stack) and not all(isinstance(layer, ow.Dense) for layer in cell.cells):
        exact = [ow.Columnwise()] if all(isinstance(layer, ow.Columns) for layer in cell.cells) else []
        return [*exact, ow.Layerwise(), ow.RTRL(), ow.UORO(), ow.TBPTT(4), ow.TBPTT(STEPS)]
    if isinstance(cell, ow.AbstractColumnar):
        return [ow.Columnwise(), ow.RTRL(), ow.SnAp(1), ow.UORO(), ow.TBPTT(4), ow.TBPTT(STEPS)]
    if isinstance(cell, ow.Parallel):
        return [ow.Columnwise(), ow.RTRL(), ow.UORO(), ow.TBPTT(4), ow.TBPTT(STEPS)]
    chosen = [ow.RTRL(), ow.SnAp(0), ow.SnAp(1), ow.SnAp(2), ow.UORO(), ow.TBPTT(4), ow.TBPTT(STEPS)]
    if isinstance(cell, ow.Stack):
        chosen.insert(1, ow.Layerwise())
    if isinstance(cell, ow.Dense):
        chosen.insert(4, ow.RFLO())
        if cell.sources is not None:
            chosen.insert(4, ow.SnAp(5))
    return chosen


SETTINGS = ((1, False, 1), (STEPS, False, 1), (STEPS, True, 1), (STEPS, True, STREAMS))


def rows(*, only_cells: Sequence[str] | None = None) -> list[Row]:
    """Every rule on every cell it accepts: depth, one and many steps, resets, parallel streams.

    `only_cells` chooses some cells by name. All of them take some minutes.
    """
    chosen = {name: make for name, make in cells().items() if only_cells is None or name in only_cells}
    return [row for name, make in chosen.items() for row, _ in judged(name, make())]


def judged(
    name: str,
    start: Start,
    chosen: Sequence[ow.AbstractCredit] | None = None,
    *,
    settings: Sequence[tuple[int, bool, int]] = SETTINGS,
    samples: int = SAMPLES,
) -> Iterator[tuple[Row, Fault | None]]:
    """Rules on one cell, by default those of the matrix, and of what is not as claimed where it goes wrong.

    start: depth, cell and carry. settings: steps, resets and streams of each comparison. samples: seeds of an unbiased
    rule.
    """
    with jax.enable_x64(True):
        depth, cell, carry = start
        cell, carry = in_float64(cell), in_float64(carry)
        data = random_streams(cell, STEPS, STREAMS, jax.random.key(3))
        cases = []
        for steps, resets, streams in settings:
            # From a clean state one step has no recurrent gradient to compare, so it starts warm.
            begin = carry if steps > 1 else warm(cell, carry)
            cases.append(case_of(name, depth, cell, begin, data, steps=steps, resets=resets, streams=streams))
        for rule in rules(cell) if chosen is None else chosen:
            # Of an unbiased rule the mean over streams would be one more average.
            for case in (case for case in cases if rule.kind != "unbiased" or case.streams == 1):
                row = judge(rule, case, samples, jax.random.key(4))
                yield row, None if row.ok else locate(rule, case)


@quick
def warm(cell: ow.AbstractCell, carry: ow.Carry) -> ow.Carry:
    """The state of a cell after five random observations."""
    xs = jax.random.normal(jax.random.key(5), (5, cell.inputs))
    after: ow.Carry = lax.scan(lambda c, x: (cell(c, x), None), carry, xs)[0]
    return after
