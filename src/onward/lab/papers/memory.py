"""Copying and counting: streams on which truncated and biased gradients show."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import PRNGKeyArray

import onward as ow
from onward.lab import metrics
from onward.lab.experiment import StreamExperiment, require_positive, rule_named
from onward.lab.method import Method

WINDOWS = (1, 4, 10, 20)
SECOND_MOMENT_DECAY = 0.999
COLUMN_SPREAD = 0.5
METHODS = ("rtrl", "snap-1", "uoro", *(f"tbptt-{k}" for k in WINDOWS), "columns")
RECORDED = 60
# By task, the best of three sizes for each method, and that of the methods not named (docs/experiments/memory.md).
STEP_SIZES = {
    "copy": {"snap-1": 3e-3, "uoro": 3e-3, "tbptt-1": 3e-3, "tbptt-4": 3e-3},
    "anbn": {"uoro": 1e-3, "tbptt-1": 1e-3, "columns": 1e-3},
}
OTHER_STEP_SIZE = {"copy": 1e-2, "anbn": 3e-4}


@dataclass(frozen=True, kw_only=True)
class MemoryExperiment(StreamExperiment):
    """Recall symbols after a delay, or count, from one endless stream that is never cut into sequences.

    One network and one optimiser, and several ways to assign credit: exact (rtrl), biased (snap-1, tbptt), unbiased
    but noisy (uoro), and columns, whose exact gradient is cheap. The error is the mean cross-entropy, in nats, of the
    predictions made before each update, where there is something to predict.
    """

    name: ClassVar[str] = "memory"
    optimum: ClassVar[str] = "bayes"
    title: ClassVar[str] = "Memory: exact, biased and truncated credit on copying and counting"
    figures: ClassVar[str] = "onward.lab.papers.memory_figures"
    final_metric: ClassVar[str] = "cross_entropy"
    longest_window: ClassVar[int] = 10_000

    methods: tuple[str, ...] = METHODS
    seeds: int = 8
    task: Literal["copy", "anbn"] = "copy"
    """Say the symbols again after a delay; or predict n times a, a newline, n times b, a newline, with a new n each time."""
    steps: int = 60_000
    cell: Literal["gru", "lstm"] = "gru"
    """Kind of unit, of the dense layer and of the columns."""
    units: int = 12
    """Units of the dense layer. The columnar network gets the columns that make about as many parameters."""
    memory_bias: float = 1.0
    """Added to the first bias of the GRU's update gate or the LSTM's forget gate."""
    length: int = 2
    """copy: symbols to remember."""
    delay: int = 8
    """copy: blank steps before the recall; a symbol is due length + delay steps after it was shown."""
    symbols: int = 2
    """copy: different symbols."""
    least: int = 1
    """anbn: least n."""
    most: int = 8
    """anbn: greatest n."""

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """Every rule on the same dense layer, then columns."""
        return METHODS

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        require_positive(self, "steps", "units", "length", "least")
        if self.delay < 0:
            raise ow.OnwardError(f"--delay must not be negative, got {self.delay}")
        if self.symbols < 2:
            raise ow.OnwardError(f"--symbols must be at least 2, got {self.symbols}")
        if self.most < self.least:
            raise ow.OnwardError(f"--most must be at least --least, {self.least}, got {self.most}")
        if not math.isfinite(self.memory_bias):
            raise ow.OnwardError(f"--memory-bias must be finite, got {self.memory_bias}")
        if self.task == "copy" and self.steps < 10 * self.stream.period:
            least = 10 * self.stream.period
            raise ow.OnwardError(f"--steps must be at least {least}, ten episodes of this stream, got {self.steps}")

    @property
    def stream(self) -> Any:
        """The task that the fields describe."""
        if self.task == "copy":
            return ow.Copy(self.length, self.delay, self.symbols)
        return ow.AnBn(self.least, self.most)

    @property
    def classes(self) -> int:
        """What is predicted: symbols, or the three characters."""
        return self.symbols if self.task == "copy" else 3

    @property
    def horizon(self) -> int:
        """Steps back that credit must reach for every prediction to be learned: to the symbol, or to the first a."""
        return self.length + self.delay if self.task == "copy" else 2 * self.most

    def default_step_size(self, name: str) -> float:
        """From the sweeps in docs/experiments/memory.md."""
        return STEP_SIZES[self.task].get(name, OTHER_STEP_SIZE[self.task])

    @property
    def fuse_outputs(self) -> bool:
        """Where all methods are columns."""
        return self.methods == ("columns",)

    @property
    def columns(self) -> int:
        """Columns with about as many parameters as the dense layer: k (inputs + 2) = units (units + inputs + 1)."""
        inputs = self.stream.inputs
        return max(1, round(self.units * (self.units + inputs + 1) / (inputs + 2)))

    def build(self, name: str) -> Method:
        """The same layer, head and optimiser with another rule; or columns."""
        task, kind, columnar = self.stream, self.cell.upper(), name == "columns"
        gates = (ow.GRUGates if self.cell == "gru" else ow.LSTMGates)(self.memory_bias)
        rule = ow.Columnwise() if columnar else rule_named(name)
        width = self.columns if columnar else self.units

        def model(key: PRNGKeyArray) -> ow.Model:
            if columnar:
                cell: ow.AbstractCell = ow.Columns(gates, task.inputs, width, key=key, spread=COLUMN_SPREAD)
            else:
                cell = ow.Dense(gates, task.inputs, width, key=key)
            return ow.Model(cell, ow.Categorical(width, self.classes))

        def learner(model: ow.Model, step_size: Any) -> ow.Online:
            return ow.Online(rule, ow.Supervised(), ow.rms(SECOND_MOMENT_DECAY), step_size)

        layer = f"{width} {kind} columns" if columnar else f"dense layer of {width} {kind} unit{'s' * (width > 1)}"
        return Method(
            name=name,
            task=task,
            model=model,
            learner=learner,
            steps=self.steps,
            measure=metrics.stream_loss,
            metric="nats",
            point_every=self.point_every,
            record_steps=RECORDED if self.task == "anbn" else max(RECORDED, 3 * task.period),
            note=layer,
        )

    @property
    def point_every(self) -> int:
        """A tenth of the final window, in whole episodes, so that every point of a curve holds as many recalls."""
        tenth = max(1, self.final_window // 10)
        return tenth if self.task == "anbn" else self.stream.period * max(1, tenth // self.stream.period)

    def scored(self, steps: int) -> int:
        """How many of the first `steps` have something to predict."""
        if self.task == "anbn":
            return steps
        episodes, phase = divmod(steps, self.stream.period)
        return episodes * self.length + max(0, phase - self.stream.lag)

    def references(self) -> dict[str, float]:
        """Exact levels, as the task computes them."""
        levels: dict[str, float] = self.stream.references()
        return levels
