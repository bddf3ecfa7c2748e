"""What is run: a learner on a task, for so many steps, and what is measured on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jaxtyping import Array, PRNGKeyArray

from onward.learners.base import AbstractLearner
from onward.loop import Loop, Measure, Programs, Run
from onward.model import Model
from onward.tasks.base import AbstractTask
from onward.types import Info, PyTree

TILE = 64
Monitor = Callable[[Any, Info], dict[str, tuple[Array, Array]]]
Evaluation = Callable[[PyTree], dict[str, Array]]


@dataclass(frozen=True)
class Growth:
    """When a `Cascade` adds its next stage, up to `stages` of them: every `every` steps."""

    stages: int = 1
    every: int = 1

    def due(self, step: int, grown_at: Sequence[int]) -> bool:
        """Whether to grow at `step`, given the steps of earlier growths."""
        age = step - (grown_at[-1] if grown_at else 0)
        return len(grown_at) + 1 < self.stages and age >= self.every


@dataclass(frozen=True)
class Method:
    """A learner on a task, and how to run it.

    `model(key)` draws a network; `learner(model, step_size)` builds what trains it and is called again
    after growth; `measure(example, info)` gives (metric, weight) of one step, to be averaged by
    weight; `monitor(example, info)` gives as many more by name: those in `monitored`. `batch_axis` is where
    independent runs lie; None: where `Loop` puts them.
    A point of the curves is the mean of `point_every` steps, unless said a hundredth of all.
    `evaluate(state)` is an optional measurement on held-out data, made at every point. `tile` is how many runs
    advance together: one by one where a run's own arrays are large. `select` names one of the evaluated numbers: the
    state at the point where it was least (since the last growth) is kept of every run (early stopping), `inspect` at
    the end reads that state, and `conclude(state)` is measured on it once, after the last step.
    """

    name: str
    task: AbstractTask
    model: Callable[[PRNGKeyArray], Model]
    learner: Callable[[Model, Any], AbstractLearner]
    steps: int
    measure: Measure
    metric: str
    growth: Growth = field(default_factory=Growth)
    batch_axis: int | None = None
    tile: int = TILE
    point_every: int = 0
    examples_per_step: float = 1.0
    record_steps: int = 0
    evaluate: Evaluation | None = None
    inspect: Evaluation | None = None
    conclude: Evaluation | None = None
    select: str | None = None
    monitor: Monitor | None = None
    monitored: tuple[str, ...] = ()
    published: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not self.point_every:
            object.__setattr__(self, "point_every", max(1, self.steps // 100))

    def loop(self, runs: Sequence[Run], programs: Programs | None = None) -> Loop:
        """The loop over these (step size, seed) pairs; `programs` as in `Loop`."""
        monitor = {name: partial(_monitored, self.monitor, name) for name in self.monitored} if self.monitor else {}
        return Loop(
            self.task,
            self.model,
            self.learner,
            self.measure,
            runs=runs,
            monitor=monitor,
            axis=self.batch_axis,
            keeps_best=self.select is not None,
            programs=programs,
        )


def _monitored(monitor: Monitor, name: str, example: Any, info: Info) -> tuple[Array, Array]:
    return monitor(example, info)[name]


def step_sizes_of_tile(seeds: Sequence[int], step_sizes: Sequence[float], tile: int) -> list[list[Run]]:
    """(step size, seed) of every run, in tiles of at most `tile`."""
    runs = [(size, seed) for size in step_sizes for seed in seeds]
    return [runs[i : i + tile] for i in range(0, len(runs), tile)]
