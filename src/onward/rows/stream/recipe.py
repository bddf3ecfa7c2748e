"""What learns from rows, and the network at its start."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from onward.cells.base import AbstractCell
from onward.cells.cascade import Cascade
from onward.cells.columns import Columns
from onward.cells.elstm import ELSTMGates
from onward.cells.gru import GRU
from onward.cells.lstm import LSTM, LSTMGates
from onward.cells.parallel import Parallel
from onward.cells.rtu import LRUGates
from onward.cells.skip import Skip
from onward.cells.start import ring
from onward.credit.base import AbstractCredit
from onward.credit.columnwise import Columnwise
from onward.credit.rflo import RFLO
from onward.credit.rtrl import RTRL
from onward.credit.snap import SnAp
from onward.credit.tbptt import TBPTT
from onward.credit.uoro import UORO
from onward.rows.stream.experts import AHEAD, Experts
from onward.rows.stream.inside import Inside
from onward.rows.stream.mixture import AbstractExperts, NoExperts
from onward.rows.stream.row_experts import OF_CLASSES, OF_NUMBERS, ClassExperts, NumberExperts

Kind = Literal["number", "class", "return"]
Network = Literal["columnar", "ccn", "gru", "lstm"]
NETWORKS: tuple[str, ...] = get_args(Network)
RULES: dict[str, Callable[[], AbstractCredit]] = {
    "exact": RTRL,
    "snap-1": SnAp,
    "rflo": RFLO,
    "uoro": UORO,
    "tbptt-10": lambda: TBPTT(10),
}
# The names of all experts.
EXPERTS = tuple(dict.fromkeys((*OF_NUMBERS[:-1], *AHEAD, *OF_CLASSES)))
# Size of the columns' first weights, and the longest of their first memories, in rows.
SPREAD, LONGEST = 1.5, 10.0
# Of columns that turn, the share of their state that they keep from row to row.
RADII = 0.9, 0.99


def mixture_of(kind: Kind, lag: int) -> type[AbstractExperts]:
    """Which experts may answer beside the network, and their mixture; of returns there are none."""
    if kind == "return":
        return NoExperts
    return ClassExperts if kind == "class" else Experts if lag else NumberExperts


def experts_of(kind: Kind, lag: int) -> tuple[str, ...]:
    """The names of the experts of a prediction, the network among them, in the order of their answers."""
    return mixture_of(kind, lag).names()


@dataclass(frozen=True)
class RowRecipe:
    """What learns.

    `targets`: numbers predicted side by side. `path`: how many of them are of one column, 1, 2, ... `path` rows ahead,
    one column after the other; 1: each is `horizon` rows ahead. `lag`: rows until all targets of a prediction are
    known. `step_size`: of the recurrent weights (of classes: of all); None: the usual one. `components`: Gaussians of
    the distribution of a number; 0: none is learned. `experts`: who answers beside the network, mixed; none: the
    network alone.
    """

    kind: Kind = "number"
    targets: int = 1
    path: int = 1
    network: Network = "columnar"
    rule: str = "exact"
    units: int = 32
    stages: int = 2
    stage_rows: int = 20_000
    horizon: int = 1
    lag: int = 1
    discount: float = 0.9
    step_size: float | None = None
    components: int = 0
    experts: tuple[str, ...] = ()
    seed: int = 0

    @property
    def columns(self) -> int:
        """How many columns the targets are of."""
        return self.targets // self.path

    @property
    def mixture(self) -> type[AbstractExperts]:
        """The experts that answer beside the network."""
        return mixture_of(self.kind, self.lag) if self.experts else NoExperts

    @property
    def answering(self) -> tuple[str, ...]:
        """All experts of what is predicted, chosen or not, in the order of their answers; none: the network alone."""
        return self.mixture.names()

    def credit(self) -> AbstractCredit:
        """The credit rule of the network."""
        return Inside(Columnwise() if self._has_columns else RULES[self.rule]())

    def cell(self, inputs: int, key: PRNGKeyArray) -> Skip:
        """The network at the start; what it reads are features too."""
        within: AbstractCell
        if self.network in ("gru", "lstm"):
            within = (GRU if self.network == "gru" else LSTM)(inputs, self.units, key=key)
        elif self.network == "columnar" and self.kind == "number" and self.horizon <= 1:
            within = mixed_columns(inputs, self.units, key)
        else:
            width = self.units // self.stages if self.network == "ccn" else self.units
            within = start_columns(Columns(LSTMGates(), inputs, width, key=key, spread=SPREAD), key)
            within = Cascade(within) if self.network == "ccn" else within
        return Skip(within)

    @property
    def _has_columns(self) -> bool:
        return self.network in ("ccn", "columnar")


def mixed_columns(inputs: int, features: int, key: PRNGKeyArray) -> Parallel | Columns:
    """Columns that forget by what they read, and beside them, of each 32 features 12, columns that turn and shrink.

    The latter remember what came some rows ago exactly, linear as they are: their angles lie evenly over half a turn.
    For numbers at most one row ahead: least squares over many errors, each known at once, find of such memories what
    helps. Classes and returns, whose readout learns by gradients, and errors known many rows later lose by them.
    """
    turning = features * 3 // 16
    gated = start_columns(Columns(ELSTMGates(), inputs, features - 2 * turning, key=key, spread=SPREAD), key)
    if not turning:
        return gated
    draw, place = jax.random.split(jax.random.fold_in(key, 2))
    linear = Columns(LRUGates(), inputs, turning, key=draw, spread=1.0)
    return Parallel(gated, ring(linear, *RADII, phase=math.pi, even=True, key=place))


def start_columns(columns: Columns, key: PRNGKeyArray) -> Columns:
    """Content that tells inputs apart, gates that hardly see them yet, memories from one step to `LONGEST`."""
    kinds = jax.random.split(jax.random.fold_in(key, 1), 3)
    weight = SPREAD * jax.random.normal(kinds[0], columns.weight.shape) / jnp.sqrt(columns.inputs)
    weight = weight.at[:, :-1].multiply(0.3)
    bias = jnp.zeros_like(columns.bias).at[-1].set(0.3 * jax.random.normal(kinds[1], columns.bias[-1].shape))
    log_time = jnp.log(LONGEST) * jax.random.uniform(kinds[2], columns.bias[-1].shape)
    bias = columns.gates.remember(bias, log_time)
    recurrent = None if columns.recurrent is None else columns.recurrent * (0.3 / columns.spread)
    return eqx.tree_at(
        lambda c: (c.weight, c.recurrent, c.bias), columns, (weight, recurrent, bias), is_leaf=lambda a: a is None
    )
