"""Trace conditioning: the return after a stimulus, by columns of any kind, over gaps of growing length."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

import onward as ow
from onward.lab.experiment import (
    StreamExperiment,
    falling,
    require_positive,
    require_share,
    require_stages,
)
from onward.lab.method import Growth, Method
from onward.types import Info, Step

SPREAD = 0.3
# Units that columns can be made of.
COLUMNS: dict[str, Callable[[], ow.AbstractGates]] = {
    "mingru": ow.MinGRUGates,
    "elstm": ow.ELSTMGates,
    "gru": ow.GRUGates,
    "lstm": ow.LSTMGates,
    "rtu": ow.RTUGates,
    "rtu-nonlinear": lambda: ow.RTUGates(recurrence="nonlinear"),
    "lru": ow.LRUGates,
}
NAMES = {
    "mingru": "minimal GRU",
    "elstm": "element-wise LSTM",
    "lstm": "LSTM",
    "rtu": "RTU",
    "rtu-nonlinear": "nonlinear RTU",
    "lru": "LRU",
}
TRUNCATED = ("tbptt-1", "tbptt-gap")
METHODS = (*COLUMNS, "ccn", *TRUNCATED)
# Chosen as docs/experiments/trace-conditioning.md says.
STEP_SIZES: dict[str, float] = {"mingru": 3e-4, "gru": 5e-4, "lstm": 5e-4, "tbptt-1": 3e-4, "tbptt-gap": 3e-4}
OTHER_STEP_SIZE = 1e-3


@dataclass(frozen=True, kw_only=True)
class TraceConditioningExperiment(StreamExperiment):
    """Predict the discounted sum of a stimulus that follows another after a gap, from one endless stream.

    The protocol of Farr et al. (2026): a stimulus of 4 steps, a gap of `interval` steps give or take a third, the stimulus to
    predict of 2 steps, 80 to 120 steps of nothing; no distractors; discount 1 - 1 / interval. One optimiser, and units of
    several kinds as columns with exact gradients, a growing network, and a dense layer with truncated ones. The error is
    the mean squared difference from the return of all that is to come, which TD learns; that of this trial's alone, which
    the testbed counts, is written beside it.
    """

    name: ClassVar[str] = "trace-conditioning"
    optimum: ClassVar[str] = "bayes"
    title: ClassVar[str] = "Trace conditioning: columns of any kind, over gaps of growing length"
    final_metric: ClassVar[str] = "return_error"
    longest_window: ClassVar[int] = 200_000

    methods: tuple[str, ...] = ("mingru", "elstm", "gru", "rtu")
    seeds: int = 10
    steps: int = 2_000_000
    interval: int = 20
    """Steps from stimulus to stimulus, give or take a third; it decides the discount too, 1 - 1 / interval."""
    columns: int = 32
    """Columns of a network, whatever their kind; and units of the dense layer."""
    hidden: int = 0
    """Units of a hidden layer between features and prediction; 0: the prediction is linear."""
    trace_decay: float = 0.9
    """Lambda of TD(lambda)."""
    ccn_width: int = 4
    """Columns in each stage of the columnar-constructive network."""
    second_moment_decay: float = 0.9999
    """Decay of RMSProp's second moment."""
    longest: float = 3.0
    """The longest memory that columns start with, in gaps."""
    decay: bool = True
    """Whether step sizes fall to zero along a cosine, over the run or, of the growing network, over each stage."""

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """Kinds of columns, a network that grows, and a dense layer with truncated gradients."""
        return METHODS

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        require_positive(self, "columns", "ccn_width", "longest")
        require_share(self, "second_moment_decay")
        if self.interval < 3:
            raise ow.OnwardError(f"--interval must be at least 3 steps, got {self.interval}")
        if self.hidden < 0:
            raise ow.OnwardError(f"--hidden must not be negative, got {self.hidden}")
        if not 0 <= self.trace_decay <= 1:
            raise ow.OnwardError(f"--trace-decay must be in [0, 1], got {self.trace_decay}")
        if "ccn" in self.methods:
            require_stages(self.columns, self.ccn_width, columns_field="columns")

    @property
    def task(self) -> ow.TraceConditioning:
        """The stream that the fields describe."""
        third = self.interval // 3
        return ow.TraceConditioning(
            isi=(self.interval - third, self.interval + third),
            iti=(80, 120),
            cs_length=4,
            us_length=2,
            discount=1 - 1 / self.interval,
            returns="both",
        )

    @property
    def fuse_outputs(self) -> bool:
        """Where all methods are columns."""
        return not {*self.methods} & {*TRUNCATED}

    def default_step_size(self, name: str) -> float:
        """Chosen as docs/experiments/trace-conditioning.md says."""
        return STEP_SIZES.get(name, OTHER_STEP_SIZE)

    def build(self, name: str) -> Method:
        """The same stream, objective and optimiser for all."""
        task = self.task
        stages = self.columns // self.ccn_width if name == "ccn" else 1
        stage_steps = max(1, self.steps // stages)
        rule: ow.AbstractCredit = ow.Columnwise()
        if name in TRUNCATED:
            rule = ow.TBPTT(1 if name == "tbptt-1" else self.interval)
        gates = COLUMNS.get(name, ow.GRUGates)()

        def cell(key: PRNGKeyArray) -> ow.AbstractCell:
            draw, start = jax.random.split(key)
            longest = self.longest * self.interval
            if name in TRUNCATED:
                return ow.chrono(ow.GRU(task.inputs, self.columns, key=draw), longest, key=start)
            width = self.ccn_width if name == "ccn" else self.columns
            columns = ow.Columns(gates, task.inputs, width, key=draw, spread=SPREAD)
            columns = ow.chrono(columns, longest, key=start)
            return ow.Cascade(columns) if name == "ccn" else columns

        def model(key: PRNGKeyArray) -> ow.Model:
            cell_key, head_key = jax.random.split(key)
            made = cell(cell_key)
            if not self.hidden:
                return ow.Model(made, ow.Linear(made.feature_count))
            return ow.Model(made, ow.MLP(ow.Linear(self.hidden), made.feature_count, self.hidden, key=head_key))

        def learner(model: ow.Model, step_size: Any) -> ow.Online:
            objective = ow.TDLambda(task.discount, self.trace_decay)
            optimiser = ow.rms(self.second_moment_decay)
            if self.decay:
                optimiser = optax.chain(optimiser, falling(stage_steps))
            return ow.Online(rule, objective, optimiser, step_size)

        kind = NAMES.get(name, "GRU")
        layer = f"{self.columns} {kind} columns"
        if name in TRUNCATED:
            layer = f"dense layer of {self.columns} GRU units"
        elif stages > 1:
            layer = f"{stages} stages of {self.ccn_width} {kind} columns"
        if isinstance(rule, ow.TBPTT):
            layer += f", {rule.window} steps back at every step"
        return Method(
            name=name,
            task=task,
            model=model,
            learner=learner,
            steps=self.steps,
            measure=return_error,
            metric="error",
            monitor=trial_error,
            monitored=("trial error",),
            growth=Growth(stages=stages, every=stage_steps),
            point_every=max(1, self.final_window // 10),
            record_steps=600,
            note=layer + (f", hidden layer of {self.hidden}" if self.hidden else ""),
        )

    def references(self) -> dict[str, float]:
        """Exact levels of the return of all that is to come."""
        return {name: self.task.level(name) for name in ("predict-zero", "memoryless", "us-blind", "bayes")}


def return_error(example: Step, info: Info) -> tuple[Array, Array]:
    """(return - prediction)^2 of all that is to come, the prediction made before the update."""
    truth: Any = example.truth
    return jnp.square(truth[0] - info.prediction), jnp.ones(())


def trial_error(example: Step, info: Info) -> dict[str, tuple[Array, Array]]:
    """The same of this trial's stimulus alone."""
    truth: Any = example.truth
    return {"trial error": (jnp.square(truth[1] - info.prediction), jnp.ones(()))}
