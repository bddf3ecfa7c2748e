"""What experiments share in which a network acts: networks, objectives, and the return of an episode."""

import abc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

import onward as ow
from onward.lab.experiment import StreamExperiment, falling, require_positive, require_share, rule_named
from onward.lab.method import Growth, Method, Monitor
from onward.loop import Measure
from onward.types import Actions, Info, Step

# Units that columns can be made of.
COLUMNS: dict[str, Callable[..., ow.AbstractGates]] = {
    "mingru": ow.MinGRUGates,
    "rtu": ow.RTUGates,
    "lru": ow.LRUGates,
    "elstm": ow.ELSTMGates,
    "lstm": ow.LSTMGates,
    "gru": ow.GRUGates,
}
KINDS = {
    "mingru": "minimal GRU",
    "rtu": "RTU",
    "lru": "LRU",
    "elstm": "element-wise LSTM",
    "lstm": "LSTM",
    "gru": "GRU",
}
# Rules of one dense layer of GRU units.
RULES = ("tbptt-1", "tbptt-32", "snap-1", "rtrl")
METHODS = (*COLUMNS, "ccn", *RULES, "memoryless")
# Of columns that turn, where an order is to be kept: what they keep from step to step.
RADII = 0.9, 0.999
STAGES = 4
# First weights of columns, times the root of the number of inputs.
SPREAD = 1.5
# The first share of the run over which exploration falls from the first to the second of --exploration.
EXPLORES = 0.5


@dataclass(frozen=True, kw_only=True)
class ControlExperiment(StreamExperiment):
    """A network that acts, and learns at every step of one stream of episodes.

    The number reported is the mean return of the episodes that end in the last tenth of the steps. Columns read the
    observation directly and learn by exact traces; `ccn` grows its columns in stages while it acts; a dense layer of
    GRU units learns by truncated, sparse or exact rules; `memoryless` is a layer without recurrence.
    """

    higher_is_better: ClassVar[bool] = True
    final_metric: ClassVar[str] = "return"
    optimum: ClassVar[str] = "best"
    longest_window: ClassVar[int] = 10**9

    objective: Literal["actor-critic", "q", "sarsa", "qrc"] = "actor-critic"
    """What is learned: a policy and its value, or values of actions."""
    discount: float = 0.99
    """What a reward one step later counts."""
    trace_decay: float = 0.0
    """Lambda. Columns carry credit in their own traces; lambda carries it over what they forget."""
    units: int = 64
    """Columns, or units of the dense layer."""
    hidden: int = 0
    """Units of a hidden layer between features and prediction; 0: the prediction is linear."""
    longest: float = 1000.0
    """The longest memory that units start with, in steps."""
    gate: float = 16.0
    """Columns: how much larger the first weights of the memory gate are than the others, so that some units store at once."""
    entropy: float = 0.01
    """actor-critic: weight of the policy's entropy."""
    actor: float = 3.0
    """actor-critic: the actor's step size in units of the critic's."""
    exploration: tuple[float, float] = (0.1, 0.01)
    """Values: share of random actions at first, and from the middle of the run on."""
    second_moment_decay: float = 0.9999
    """Decay of RMSProp's second moment."""
    decay: bool = False
    """Whether step sizes fall to zero along a cosine, over the run or, of growing networks, over each stage."""

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """Columns of every kind, columns that grow, a dense layer with several rules, no memory."""
        return METHODS

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        require_positive(self, "units", "longest", "gate", "actor")
        require_share(self, "discount", "second_moment_decay")
        if not 0 <= self.trace_decay <= 1:
            raise ow.OnwardError(f"--trace-decay must be in [0, 1], got {self.trace_decay}")
        if self.hidden < 0:
            raise ow.OnwardError(f"--hidden must not be negative, got {self.hidden}")
        if not self.entropy >= 0:
            raise ow.OnwardError(f"--entropy must not be negative, got {self.entropy}")
        if not all(0 <= share <= 1 for share in self.exploration):
            raise ow.OnwardError(f"--exploration must be two shares in [0, 1], got {self.exploration}")
        if self.longest < 1:
            raise ow.OnwardError(f"--longest must be at least 1 step, got {self.longest}")
        if "ccn" in self.methods and self.units % STAGES:
            raise ow.OnwardError(
                f"--units must be a multiple of {STAGES} for ccn, which has {STAGES} stages, got {self.units}"
            )

    @property
    def final_window(self) -> int:
        """The last tenth of the steps."""
        return max(1, self.steps // 10)

    def final_values(self, lines: Sequence[dict[str, Any]]) -> np.ndarray:
        """The mean over the episodes that ended in the final window; NaN where none did."""
        late = [m for m in lines if m["step"] > self.steps - self.final_window]
        ended = np.asarray([np.asarray(m["ended"]) * m["count"] for m in late])
        values = np.nan_to_num(np.asarray([m["values"] for m in late], float))
        with np.errstate(invalid="ignore"):
            found: np.ndarray = (values * ended).sum(0) / ended.sum(0)
        return found

    @property
    def fuse_outputs(self) -> bool:
        """Where all methods are columns."""
        return {*self.methods} <= {*COLUMNS, "ccn"}

    @abc.abstractmethod
    def task_of(self, row: str) -> Any:
        """The task of a row."""

    def method_of(self, row: str) -> str:
        """The method of a row. Default: the row is one."""
        return row

    @property
    def measure(self) -> Measure:
        """What is averaged: the return of each episode that ends."""
        return episode_return

    @property
    def monitor(self) -> Monitor:
        """How much each step weighs in that average."""
        return episodes_ended

    @property
    def moments(self) -> ow.Moments | None:
        """Running moments by which columns and the dense layer normalise what they read. Default: None, as it is."""
        return None

    @property
    def in_order(self) -> bool:
        """Whether units that turn begin at angles spread evenly over half a turn, like a delay line. Default: no."""
        return False

    def default_step_size(self, name: str) -> float:
        """Of the critic, or of the values."""
        return 1e-4 if self.objective == "actor-critic" else 5e-4

    def cell(self, name: str, inputs: int, key: PRNGKeyArray) -> ow.AbstractCell:
        """The network of a method; what columns read are features too."""
        draw, start = jax.random.split(key)
        if name == "memoryless":
            return ow.Skip(ow.Encoder(inputs, self.units, key=draw))
        if name in RULES:
            layer = ow.GRU(inputs, self.units, key=draw, normalise_inputs=self.moments)
            return ow.chrono(layer, self.longest, key=start)
        gates = COLUMNS.get(name, ow.MinGRUGates)()
        width = self.units // STAGES if name == "ccn" else self.units
        size = SPREAD * inputs**-0.5
        columns = ow.Columns(gates, inputs, width, key=draw, spread=size, normalise_inputs=self.moments)
        columns = ow.chrono(apart(columns, self.gate), self.longest, key=start)
        if self.in_order and gates.in_a_plane:
            columns = ow.ring(columns, *RADII, phase=math.pi, even=True, key=jax.random.fold_in(key, 1))
        return ow.Skip(ow.Cascade(columns) if name == "ccn" else columns)

    def rule(self, name: str) -> ow.AbstractCredit:
        """The credit rule of a method."""
        if name in RULES:
            return rule_named(name)
        return ow.SnAp(0) if name == "memoryless" else ow.Columnwise()  # all there is without recurrence

    def objective_of(self, actions: Actions) -> tuple[ow.AbstractObjective, int]:
        """The objective, and how many numbers it wants predicted."""
        if self.objective == "actor-critic":
            continuous = not isinstance(actions, int)
            policy = ow.ActorCritic(self.discount, self.trace_decay, self.entropy, self.actor, continuous)
            return policy, (2 * actions[0] if not isinstance(actions, int) else actions) + 1
        if not isinstance(actions, int):
            raise ow.OnwardError(
                f"--objective {self.objective} chooses among a few actions; real numbers: actor-critic"
            )
        explores = optax.linear_schedule(*self.exploration, max(1, int(EXPLORES * self.steps)))
        kind = {"q": ow.QLambda, "sarsa": ow.SarsaLambda, "qrc": ow.QRC}[self.objective]
        return kind(self.discount, self.trace_decay, explores), actions * (1 + (self.objective == "qrc"))

    def build(self, name: str) -> Method:
        """The network of the row's method on the row's task."""
        task, method = self.task_of(name), self.method_of(name)
        objective, outputs = self.objective_of(task.actions)
        rule = self.rule(method)

        def model(key: PRNGKeyArray) -> ow.Model:
            cell_key, head_key = jax.random.split(key)
            cell = self.cell(method, task.inputs, cell_key)
            if not self.hidden:
                return ow.Model(cell, ow.Linear(cell.feature_count, outputs))
            head = ow.Linear(self.hidden, outputs)
            return ow.Model(cell, ow.MLP(head, cell.feature_count, self.hidden, key=head_key))

        stages = STAGES if method == "ccn" else 1
        optimiser = ow.rms(self.second_moment_decay)
        if self.decay:
            optimiser = optax.chain(optimiser, falling(max(1, self.steps // stages)))

        def learner(model: ow.Model, step_size: Any) -> ow.Online:
            return ow.Online(rule, objective, optimiser, step_size)

        if method in RULES:
            layer = f"dense layer of {self.units} GRU units, {method}"
        elif method == "memoryless":
            layer = f"{self.units} units without recurrence"
        else:
            layer = f"{self.units} {KINDS.get(method, 'minimal GRU')} columns" + (
                f" in {STAGES} stages" * (method == "ccn")
            )
        return Method(
            name=name,
            task=task,
            model=model,
            learner=learner,
            steps=self.steps,
            measure=self.measure,
            metric="return",
            monitor=self.monitor,
            monitored=("ended",),
            growth=Growth(stages=stages, every=max(1, self.steps // stages)),
            point_every=max(1, self.steps // 50),
            record_steps=min(600, self.steps),
            note=layer + (f", hidden layer of {self.hidden}" if self.hidden else ""),
        )


def apart(columns: ow.Columns, factor: float) -> ow.Columns:
    """The same columns with `factor` times the weights by which inputs drive the memory gate, if they drive it."""
    gates = columns.gates
    with jax.ensure_compile_time_eval():
        by_span = np.asarray(gates.remember(jnp.zeros(columns.bias.shape), jnp.ones(columns.columns)))
    slots = {slot for slot, row in zip(gates.biases, by_span, strict=True) if row.any()}
    rows = [row for row, slot in enumerate(gates.input_slots) if slot in slots]
    return eqx.tree_at(lambda c: c.weight, columns, columns.weight.at[:, jnp.asarray(rows, int)].multiply(factor))


def episode_return(example: Step, info: Info) -> tuple[Array, Array]:
    """The sum of rewards of an episode, where it ends."""
    over = jnp.asarray(example.truth.over, jnp.float32)
    return example.truth.total * over, over


def episodes_ended(example: Step, info: Info) -> dict[str, tuple[Array, Array]]:
    """How many episodes end, a step."""
    return {"ended": (jnp.asarray(example.truth.over, jnp.float32), jnp.ones(()))}
