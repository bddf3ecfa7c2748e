"""One job of a run: its loop in chunks, its checkpoints, its metric lines and its records."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from onward import saving
from onward.errors import NotFinite, OnwardError, Stopped
from onward.lab import folder as run_folder
from onward.lab.folder import RunFolder
from onward.lab.method import Method
from onward.lab.progress import Progress
from onward.loop import Loop, Programs, Run

CHUNK_SECONDS = 0.25
CHECKPOINT_SECONDS = 20.0
METRICS = "metrics.jsonl"


class _Line(TypedDict):
    job: str
    step: int
    count: int
    values: list[saving.Number]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Every line of a run's metrics; a last line that was cut off is left out. OnwardError where one is damaged."""
    path = folder / METRICS
    lines: list[dict[str, Any]] = []
    first: dict[str, dict[str, int]] = {}
    with saving.reading(path):
        *whole, _ = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for i, line in enumerate(whole, 1):
        where = f"{path}, line {i}"
        with saving.reading(where):
            lines.append(json.loads(line))
            saving.check_meta(lines[-1], _Line, where)
            # Of each run the same numbers as at the job's first point; there may be more at its end.
            sizes = {name: len(value) if isinstance(value, list) else 0 for name, value in lines[-1].items()}
            if lost := {*first.setdefault(lines[-1]["job"], sizes).items()} - {*sizes.items()}:
                raise ValueError(f"it lacks {min(lost)[0]}")
    return lines


def train(
    method: Method,
    tile: Sequence[Run],
    *,
    job: str,
    folder: RunFolder,
    digest: str,
    progress: Progress,
    stop: Callable[[], bool],
    metrics: str = METRICS,
    programs: Programs | None = None,
    tolerant: bool = False,
) -> dict[str, Any]:
    """Run one job to its end, from its newest good checkpoint if there is one; returns the last checkpoint's meta.

    `digest` says what decides the numbers: a checkpoint with another one is refused. `metrics`: the file of the folder
    for this job's lines, and no other's. `programs`: compiled programs, shared by jobs of one method and as many runs.
    `tolerant`: a run that becomes NaN or infinite is noted in the meta's `failed` (its index: the step), and the
    others go on; else it ends the job with `NotFinite`. Raises `Stopped` soon after `stop()` is true, with a checkpoint
    written.
    """
    training = Training(method, method.loop(tile, programs), folder, job, digest, tolerant, metrics)
    training.resume(progress)
    if training.done:
        return training.meta()
    training.begin()
    saved = time.monotonic()
    while not training.done:
        with training.chunk() as steps:
            training.loop.advance(steps)
        if training.at_point:
            training.point()
            training.grow()
        stopped = stop()
        if training.done:
            training.record("end")  # before the checkpoint, from which nobody goes on
        if training.done or stopped or time.monotonic() - saved > CHECKPOINT_SECONDS:
            training.keep()
            saved = time.monotonic()
        training.show(progress)
        if stopped and not training.done:
            at = f"step {training.position.step:,} of {job}"
            raise Stopped(f"stopped at {at}; go on with: onward run --resume {folder}")
    return training.meta()


@dataclass
class Position:
    """How far a job has come: what a checkpoint says of itself."""

    step: int = 0
    grown_at: list[int] = field(default_factory=list)
    cpu_seconds: float = 0.0
    compile_seconds: float = 0.0
    metrics_bytes: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    """Runs that broke (index: step)."""


class _Kept(TypedDict):
    digest: str
    job: str
    stages: int
    step: int
    grown_at: list[int]
    cpu_seconds: float
    compile_seconds: float
    metrics_bytes: int
    failed: NotRequired[dict[str, int]]


class Training:
    """One job: a method's loop over a tile of runs, in a folder, at a position."""

    def __init__(
        self,
        method: Method,
        loop: Loop,
        folder: RunFolder,
        job: str,
        digest: str,
        tolerant: bool = False,
        metrics: str = METRICS,
    ) -> None:
        self.metrics = metrics
        self.method, self.loop, self.job, self.tolerant = method, loop, job, tolerant
        self.folder, self.checkpoints = folder, folder.checkpoints
        self.position = Position()
        self._digest = digest
        self._chunk, self._rate = 256, 0.0
        self._count = 0
        self._value: float | None = None
        self._compiled_before = 0.0

    @property
    def done(self) -> bool:
        """Whether the last step is made, or no run is left that could go on."""
        return self.position.step >= self.method.steps or len(self.position.failed) == len(self.loop.runs)

    @property
    def at_point(self) -> bool:
        """Whether the metric is to be written now: every `point_every` steps, and at the end."""
        return self.position.step in (self._point_before() + self.method.point_every, self.method.steps)

    def _point_before(self) -> int:
        """The last step before this one at which the metric was written."""
        last = max(self.position.step - 1, 0)
        return last - last % self.method.point_every

    def meta(self) -> dict[str, Any]:
        """The position as a checkpoint has it."""
        position = {name: value for name, value in vars(self.position).items() if name != "failed" or value}
        return {"digest": self._digest, "job": self.job, **position}

    def resume(self, progress: Progress) -> bool:
        """Go on from the newest good checkpoint; whether there is one."""

        def read(path: Path) -> Position:
            meta = saving.read_meta(path)
            position = self._position_of(meta, path)
            self.loop.load(path)  # the last, for it changes the loop
            return position

        position = run_folder.newest_good(self.checkpoints, self.job, read, progress.say)
        if position is None:
            return False
        self.position, self._compiled_before = position, position.compile_seconds
        progress.say(f"{self.job}: resuming at step {position.step:,}")
        return True

    def _position_of(self, meta: dict[str, Any], path: Path) -> Position:
        """What a checkpoint says of itself, if it can be true; OnwardError where it is of another run."""
        saving.check_meta(meta, _Kept, str(path))
        if meta["digest"] != self._digest:
            raise OnwardError(
                f"{path} was written by a run of another configuration, or of other data; it cannot be resumed here"
            )
        at = Position(**{name: meta[name] for name in vars(Position()) if name in meta})
        grown, failed = at.grown_at, at.failed
        good = (
            meta["job"] == self.job
            and 0 <= at.step <= self.method.steps
            and path == run_folder.path_of(self.checkpoints, self.job, at.step)
            and all(step - before >= self.method.growth.every for before, step in pairwise([0, *grown]))
            and max(grown, default=0) <= at.step
            and meta["stages"] == len(grown) + 1 <= max(1, self.method.growth.stages)
            and min(at.cpu_seconds, at.compile_seconds, at.metrics_bytes) >= 0
            and {*failed} <= {*map(str, range(len(self.loop.runs)))}
            and all(0 <= step <= at.step for step in failed.values())
        )
        if not good:
            raise saving.Unreadable(f"{path} says of itself what cannot be: {vars(at)}")
        return at

    def begin(self) -> None:
        """Cut the metrics back to where the job stands, and draw its networks if it has none yet."""
        self.folder.cut({self.metrics: self.position.metrics_bytes})
        if self.loop.state is None:
            self.loop.start()
            self.record("start")

    @contextmanager
    def chunk(self) -> Iterator[int]:
        """The steps of the next chunk, at most to the next point. Learning them inside is clocked, then judged."""
        at, loop = self.position, self.loop
        point_end = min(at.step - at.step % self.method.point_every + self.method.point_every, self.method.steps)
        self._count = min(self._chunk, point_end - at.step)
        clock, work, compiled = time.monotonic(), time.process_time(), loop.compile_seconds
        yield self._count
        compiling = loop.compile_seconds - compiled
        at.cpu_seconds += time.process_time() - work - compiling
        at.step += self._count
        self._judge(loop.broken(state=False))
        seconds = time.monotonic() - clock
        # A short rest says little about speed.
        if not compiling and (self._count == self._chunk or seconds > CHUNK_SECONDS / 4):
            self._rate = self._count / seconds
            self._chunk = max(1, math.ceil(self._rate * CHUNK_SECONDS))

    def point(self) -> None:
        """Write the metric since the last point, and what is measured on held-out data."""
        method, step = self.method, self.position.step
        values, monitored = self.loop.means()
        self._value = float(np.nanmean(values)) if np.isfinite(values).any() else None
        self._judge(self.loop.broken())
        measured = self._evaluate("evaluate")
        if method.select is not None:
            self.loop.keep_best(measured[method.select])
        if step == method.steps:
            measured |= self._evaluate("conclude", best=True)
            if method.select is not None:
                measured[f"{method.select}_least"] = np.asarray(self.loop.best[0])
        extra = {name: value.tolist() for name, value in (measured | monitored).items()}
        head = {"job": self.job, "step": step, "count": step - self._point_before(), "values": values.tolist()}
        self.folder.append(self.metrics, json.dumps({**head, **extra}) + "\n")

    def grow(self) -> None:
        """Let the networks grow, if it is time and there are steps left."""
        at = self.position
        if at.step < self.method.steps and self.method.growth.due(at.step, at.grown_at):
            self.loop.grow()
            at.grown_at.append(at.step)

    def keep(self) -> None:
        """Write a checkpoint, and remove old ones."""
        at = self.position
        at.compile_seconds = self._compiled_before + self.loop.compile_seconds
        at.metrics_bytes = self.folder.sizes(self.metrics)[self.metrics]
        self.loop.save(run_folder.path_of(self.checkpoints, self.job, at.step), **self.meta())
        run_folder.prune(self.checkpoints, self.job)
        self.folder.hold()

    def record(self, when: str) -> None:
        """Keep the next steps of the first run, one by one, and what the method inspects at the start and the end."""
        steps = self.method.record_steps
        if not (steps or self.method.inspect):
            return
        arrays = self.loop.record(steps) if steps else {}
        arrays |= self._evaluate("inspect", best=when == "end", once=True)
        self.folder.record(self.job, when, arrays)

    def show(self, progress: Progress) -> None:
        """Tell a person where the job is."""
        method, step = self.method, self.position.step
        stages = f"  stage {self.loop.stages}/{method.growth.stages}" if method.growth.stages > 1 else ""
        note = f"{stages}  {len(self.loop.runs)} runs"
        progress.show(self.job, step, method.steps, rate=self._rate, metric=method.metric, value=self._value, note=note)

    def _evaluate(self, which: str, *, best: bool = False, once: bool = False) -> dict[str, np.ndarray]:
        """What the method measures under this name, one array a run; `best`: in the best state, where that is kept."""
        function = getattr(self.method, which)
        best = best and self.method.select is not None
        return {} if function is None else self.loop.evaluate(which, function, best=best, once=once)

    def _judge(self, broken: np.ndarray) -> None:
        """Note runs that broke in the last chunk, or end the job."""
        at = self.position
        if broken.any() and not self.tolerant:
            size, seed = self.loop.runs[int(np.flatnonzero(broken)[0])]
            good = run_folder.newest_first(self.checkpoints, self.job)
            last = f"the last good checkpoint is {good[0]}" if good else "there is no checkpoint yet"
            raise NotFinite(
                f"{self.job} (seed {seed}, step size {size:g}): {self.loop.not_finite() or 'the metric'} became NaN or "
                f"infinite between steps {at.step - self._count:,} and {at.step:,}; {last}. Try a smaller step size"
            )
        for i in np.flatnonzero(broken):
            at.failed.setdefault(str(i), at.step)
