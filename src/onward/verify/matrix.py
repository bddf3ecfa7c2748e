"""Which rules are compared on which cells: every structure with every kind of unit."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import lax
from jaxtyping import PRNGKeyArray

from onward.cells.base import AbstractCell, AbstractColumnar, AbstractGates
from onward.cells.cascade import Cascade
from onward.cells.columns import Columns
from onward.cells.dense import Dense
from onward.cells.elman import ElmanGates
from onward.cells.gru import GRUGates
from onward.cells.lstm import LSTMGates
from onward.cells.moments import Moments
from onward.cells.stack import Stack
from onward.credit.base import AbstractCredit
from onward.credit.columnwise import Columnwise
from onward.credit.rflo import RFLO
from onward.credit.rtrl import RTRL
from onward.credit.snap import SnAp
from onward.credit.tbptt import TBPTT
from onward.credit.uoro import UORO
from onward.types import Carry
from onward.verify.claims import SAMPLES, Row, case_of, judge, random_streams
from onward.verify.gradients import in_float64

# Steps of a stream, and parallel streams.
STEPS, STREAMS = 12, 3
GATES: dict[str, Callable[[], AbstractGates]] = {"Elman": ElmanGates, "GRU": GRUGates, "LSTM": LSTMGates}
# Every unit reads itself and its neighbours on a line; one edge spans it. Five steps reach everything.
LINE = (np.abs(np.subtract.outer(np.arange(5), np.arange(5))) < 2) | (np.arange(25).reshape(5, 5) == 4)

Start = tuple[int, AbstractCell, Carry]


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


def cells() -> dict[str, Callable[[], Start]]:
    """By name, what makes the depth, the cell and a carry to start from: every structure with every kind of unit."""
    key = jax.random.key(1)
    moments = Moments(rate=0.9)
    fresh = lambda depth, cell: (depth, cell, cell.init())
    normal = {"normalise_inputs": moments, "normalise_features": moments}
    made: dict[str, Callable[[], Start]] = {}
    for label, kind in GATES.items():
        layer = lambda kind=kind, units=3, key=key, **options: Dense(kind(), 3, units, key=key, **options)
        made |= {
            f"{label} dense": lambda layer=layer: fresh(1, layer(units=4, **normal)),
            f"{label} sparse": lambda layer=layer: fresh(1, layer(units=5, mask=LINE)),
            f"{label} stack": lambda layer=layer: fresh(2, Stack(layer(), layer(key=jax.random.key(2)))),
            f"{label} columns": lambda kind=kind: fresh(1, Columns(kind(), 3, 4, key=key, spread=0.7)),
            f"{label} cascade": lambda kind=kind: (2, *cascade(kind(), 2, key=key)),
        }
    return made


def rules(cell: AbstractCell) -> list[AbstractCredit]:
    """The rules that a cell of the matrix is put to, with their degenerate limits."""
    if isinstance(cell, AbstractColumnar):
        return [Columnwise(), RTRL(), SnAp(1), UORO(), TBPTT(4), TBPTT(STEPS)]
    chosen = [RTRL(), SnAp(1), SnAp(2), UORO(), TBPTT(4), TBPTT(STEPS)]
    if isinstance(cell, Dense):
        chosen.insert(3, RFLO())
        if cell.sources is not None:
            chosen.insert(3, SnAp(5))
    return chosen


SETTINGS = ((1, False, 1), (STEPS, False, 1), (STEPS, True, 1), (STEPS, True, STREAMS))


def rows(
    *, only_rules: Sequence[type[AbstractCredit]] | None = None, only_cells: Sequence[str] | None = None
) -> list[Row]:
    """Every rule on every cell it accepts: depth, one and many steps, resets, parallel streams.

    `only_rules` and `only_cells` choose some of them (by class, and by name). All of them take some minutes.
    """
    compared = []
    with jax.enable_x64(True):
        for name, make in cells().items():
            if only_cells is not None and name not in only_cells:
                continue
            depth, cell, start = make()
            cell, start = in_float64(cell), in_float64(start)
            data = random_streams(cell, STEPS, STREAMS, jax.random.key(3))
            cases = []
            for steps, resets, streams in SETTINGS:
                # From a clean state one step has no recurrent gradient to compare, so it starts warm.
                carry = start if steps > 1 else warm(cell, start)
                cases.append(case_of(name, depth, cell, carry, data, steps=steps, resets=resets, streams=streams))
            for rule in rules(cell):
                if only_rules is not None and type(rule) not in only_rules:
                    continue
                for case in cases:
                    if rule.kind == "unbiased" and case.streams > 1:
                        continue  # the mean over streams is one more average
                    compared.append(judge(rule, case, SAMPLES, jax.random.key(4)))
    return compared


def warm(cell: AbstractCell, carry: Carry) -> Carry:
    """The state of a cell after five random observations."""
    xs = jax.random.normal(jax.random.key(5), (5, cell.inputs))
    after: Carry = lax.scan(lambda c, x: (cell(c, x), None), carry, xs)[0]
    return after
