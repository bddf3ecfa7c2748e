"""The one loop: compile a stretch of a stream, run it in chunks, keep what was learned."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from onward import saving
from onward.devices import platform
from onward.errors import NotFinite, OnwardError, Stopped
from onward.lab import folder as run_folder
from onward.lab.folder import RunFolder
from onward.lab.progress import Progress
from onward.learners.base import AbstractLearner
from onward.model import Model
from onward.tasks.base import AbstractTask
from onward.types import Info

TILE = 64
CHUNK_SECONDS = 0.25
CHECKPOINT_SECONDS = 20.0
METRICS = "metrics.jsonl"

# Wider vectors than XLA's default: 1.4-1.5x on CPUs with AVX-512, nothing on others (decisions.md).
CPU_OPTIONS = {"xla_cpu_prefer_vector_width": "512"}


@dataclass(frozen=True)
class Growth:
    """When a `Cascade` adds its next stage, up to `stages` of them.

    By schedule: every `every` steps. By plateau (`plateau` not None): as soon as the metric of the
    last `window` steps is less than this fraction below that of the `window` steps before, but no
    sooner than `least` and no later than `every` steps after the last growth. The metric is the mean over the runs
    that share a tile, which therefore grow together.
    """

    stages: int = 1
    every: int = 1
    plateau: float | None = None
    window: int = 50_000
    least: int = 100_000

    def due(self, step: int, grown_at: Sequence[int], history: Sequence["Point"]) -> bool:
        """Whether to grow now."""
        if len(grown_at) + 1 >= self.stages:
            return False
        age = step - (grown_at[-1] if grown_at else 0)
        if age >= self.every:
            return True
        if self.plateau is None or age < max(self.least, 2 * self.window):
            return False
        late = _mean_over(history, step - self.window, step)
        early = _mean_over(history, step - 2 * self.window, step - self.window)
        whole = np.isfinite(late) & np.isfinite(early)
        return bool(late[whole].mean() > (1 - self.plateau) * early[whole].mean()) if whole.any() else False


@dataclass(frozen=True)
class Method:
    """A learner on a task, and how to run it.

    `model(key)` draws a network; `learner(model, step_size)` builds what trains it and is called again
    after growth; `measure(example, info)` gives (metric, weight) of one step, to be averaged by
    weight; `monitor(example, info)` gives as many more by name: those in `monitored`. `batch_axis` is where
    independent runs lie: -1 for columns and small layers, 0 for matrix products.
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
    measure: Callable[[Any, Info], tuple[Array, Array]]
    metric: str
    growth: Growth = field(default_factory=Growth)
    batch_axis: int = -1
    tile: int = TILE
    point_every: int = 10_000
    examples_per_step: float = 1.0
    record_steps: int = 0
    evaluate: Callable[[Any], dict[str, Array]] | None = None
    inspect: Callable[[Any], dict[str, Array]] | None = None
    conclude: Callable[[Any], dict[str, Array]] | None = None
    select: str | None = None
    monitor: Callable[[Any, Info], dict[str, tuple[Array, Array]]] | None = None
    monitored: tuple[str, ...] = ()
    published: float | None = None
    note: str = ""


class Point(NamedTuple):
    """The metric of one stretch of steps, one number a run."""

    step: int
    steps: int
    values: np.ndarray


def _mean_over(history: Sequence[Point], after: int, until: int) -> np.ndarray:
    inside = [p for p in history if after < p.step <= until]
    weights = sum(p.steps for p in inside)
    return np.sum([p.values * p.steps for p in inside], 0) / weights


def step_sizes_of_tile(seeds: Sequence[int], step_sizes: Sequence[float], tile: int) -> list[list[tuple[float, int]]]:
    """(step size, seed) of every run, in tiles of at most `tile`."""
    runs = [(size, seed) for size in step_sizes for seed in seeds]
    return [runs[i : i + tile] for i in range(0, len(runs), tile)]


class _Loop:
    """One method on one tile of runs: its state, and the compiled functions of its current stage."""

    def __init__(self, method: Method, tile: Sequence[tuple[float, int]], programs: dict[str, Any] | None = None):
        self.method, self.tile = method, tile
        # An accelerator wants its runs in front.
        self.axis = method.batch_axis if platform() == "cpu" else 0
        # Arrays of the task (a data set, say) are arguments of every program: as constants they would be compiled in.
        self.data, self._task = eqx.partition(method.task, eqx.is_array)
        self.sizes = jnp.asarray([size for size, _ in tile], jnp.float32)
        self.keys = jax.vmap(jax.random.key)(jnp.asarray([seed for _, seed in tile], jnp.uint32))
        self.state: Any = None
        self.best: Any = ()
        self.sums = self._zero_sums()
        self.compile_seconds = 0.0
        self._programs = {} if programs is None else programs

    @property
    def kept(self) -> Any:
        """What a checkpoint holds."""
        return (self.state, self.sums, self.best) if self.method.select else (self.state, self.sums)

    def resume(self, path: Path, stages: int) -> dict[str, Any]:
        """Read a checkpoint, made after `stages - 1` growths."""
        state = self._skeleton(stages)
        skeleton: Any = (state, self.sums)
        if self.method.select:
            skeleton = (*skeleton, (jax.ShapeDtypeStruct((len(self.tile),), jnp.float32), state[1]))
        (self.state, self.sums, *best), meta = saving.load(path, skeleton)
        if best:
            values, learned = best[0]
            self.best = (values, eqx.filter(learned, eqx.is_array))
        return meta

    def _forget_best(self) -> None:
        """No best state yet, of this structure."""
        if self.method.select:
            learned = jax.tree.map(jnp.copy, eqx.filter(self.state[1], eqx.is_array))
            self.best = (jnp.full(len(self.tile), jnp.inf), learned)

    def keep_best(self, values: np.ndarray) -> None:
        """Of each run whose value is the least so far, the present state."""
        best, learned = self.best
        better = jnp.asarray(values) < best

        def choose(new: Array, old: Array) -> Array:
            shape = [1] * new.ndim
            shape[self.axis] = len(self.tile)
            return jnp.where(better.reshape(shape), new, old)

        learned = jax.tree.map(choose, eqx.filter(self.state[1], eqx.is_array), learned)
        self.best = (jnp.where(better, jnp.asarray(values, jnp.float32), best), learned)

    def _skeleton(self, stages: int) -> Any:
        """Shapes of the state after `stages - 1` growths, computing nothing."""
        grown = eqx.filter_eval_shape(self._start, self.data, self.keys, self.sizes)
        for _ in range(stages - 1):
            grown = eqx.filter_eval_shape(self._grown, self.data, grown)
        return grown

    def _zero_sums(self) -> Any:
        """Sum and weight of the metric, and of what is monitored; each its own buffer, for they are donated."""
        zero = lambda: jnp.full(len(self.tile), 0.0)
        zeros = lambda: (zero(), zero())
        monitored = self.method.monitored
        return (*zeros(), {name: zeros() for name in monitored}) if monitored else zeros()

    def start(self) -> None:
        if "start" not in self._programs:
            self._programs["start"] = eqx.filter_jit(self._start, **_once())
        self.state = self._programs["start"](self.data, self.keys, self.sizes)
        self._forget_best()

    def grow(self) -> None:
        self.state = eqx.filter_jit(self._grown, **_once())(self.data, self.state)
        self._programs = {}
        self._forget_best()

    def _start(self, data: Any, keys: Array, sizes: Array) -> Any:
        source = eqx.combine(data, self._task)

        def one(key: PRNGKeyArray, size: Array) -> Any:
            model_key, task_key, learner_key = jax.random.split(key, 3)
            task = source.init(task_key)
            model = self.method.model(model_key)
            _, example = source.emit(task)
            return task, self.method.learner(model, size).init(model, example, key=learner_key)

        return eqx.filter_vmap(one, out_axes=eqx.if_array(self.axis))(keys, sizes)

    def _grown(self, data: Any, state: Any) -> Any:
        source = eqx.combine(data, self._task)

        def one(state: Any) -> Any:
            task, learned = state
            _, example = source.emit(task)
            learner: Any = self.method.learner(learned.model, 1.0)
            return task, learner.grow(learned, example)

        axis = eqx.if_array(self.axis)
        return eqx.filter_vmap(one, in_axes=axis, out_axes=axis)(state)

    def _step(self, static: Any, data: Any) -> Callable[..., Any]:
        source = eqx.combine(data, self._task)

        def one(dynamic: Any, size: Array) -> Any:
            task, learned = eqx.combine(dynamic, static)
            task, example = source.emit(task)
            learned, info = self.method.learner(learned.model, size).step(learned, example)
            return eqx.filter((task, learned), eqx.is_array), (example, info)

        return jax.vmap(one, in_axes=(self.axis, 0), out_axes=(self.axis, 0))

    def advance(self, steps: int) -> None:
        """Learn for `steps` steps, adding metric and weight of each to `sums`."""
        dynamic, static = eqx.partition(self.state, eqx.is_array)
        if "advance" not in self._programs:
            measure, monitor = self.method.measure, self.method.monitor

            def chunk(dynamic: Any, sums: Any, data: Any, sizes: Array, steps: Array) -> Any:
                step = self._step(static, data)

                def body(_: Any, loop: Any) -> Any:
                    dynamic, sums = loop
                    dynamic, (example, info) = step(dynamic, sizes)
                    seen: Any = jax.vmap(measure)(example, info)
                    if monitor is not None:
                        seen = (*seen, jax.vmap(monitor)(example, info))
                    return dynamic, jax.tree.map(jnp.add, sums, seen)

                return lax.fori_loop(0, steps, body, (dynamic, sums))

            started = time.process_time()
            self._programs["advance"] = _compile(
                jax.jit(chunk, donate_argnums=(0, 1)), dynamic, self.sums, self.data, self.sizes, jnp.asarray(1)
            )
            self.compile_seconds += time.process_time() - started
        advance = self._programs["advance"]
        dynamic, self.sums = advance(dynamic, self.sums, self.data, self.sizes, jnp.asarray(steps))
        jax.block_until_ready(self.sums)
        self.state = eqx.combine(dynamic, static)

    def take_means(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The weighted means of the metric and of what is monitored since the last call, NaN where nothing weighed."""

        def mean(total: Array, weight: Array) -> np.ndarray:
            sums, counts = np.asarray(total, np.float64), np.asarray(weight, np.float64)
            return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)

        total, weight, *more = self.sums
        found = mean(total, weight), {k: mean(*sums) for part in more for k, sums in part.items()}
        self.sums = self._zero_sums()
        return found

    def record(self, steps: int) -> dict[str, np.ndarray]:
        """The next `steps` steps of the first run, step by step, on a copy of the state."""
        dynamic, static = eqx.partition(self.state, eqx.is_array)
        if "record" not in self._programs:

            def roll(dynamic: Any, data: Any, sizes: Array) -> Any:
                step = self._step(static, data)

                def body(dynamic: Any, _: Any) -> Any:
                    dynamic, seen = step(dynamic, sizes)
                    return dynamic, jax.tree.map(lambda a: a[0], seen)

                return lax.scan(body, dynamic, length=steps)[1]

            self._programs["record"] = jax.jit(roll)
        example, info = self._programs["record"](dynamic, self.data, self.sizes)
        return {k: np.asarray(v) for k, v in {**example._asdict(), **info._asdict()}.items()}

    def evaluate(self, which: str, *, best: bool = False) -> dict[str, np.ndarray]:
        """What the method measures on held-out data, one array a run; `best`: in the best state, where that is kept."""
        function = getattr(self.method, which)
        if function is None:
            return {}
        dynamic, static = eqx.partition(self.state, eqx.is_array)
        if best and self.method.select:
            dynamic = (dynamic[0], self.best[1])
        # Arrays of a measurement that is a module are arguments, as the task's are.
        held_out, rest = eqx.partition(function, eqx.is_array)
        if which not in self._programs:

            def each(dynamic: Any, held_out: Any) -> Any:
                one = lambda dynamic: eqx.combine(held_out, rest)(eqx.combine(dynamic, static)[1])
                return jax.vmap(one, in_axes=self.axis)(dynamic)

            self._programs[which] = jax.jit(each, **(_once() if which == "inspect" else {}))
        return {k: np.asarray(v) for k, v in self._programs[which](dynamic, held_out).items()}

    def broken(self) -> np.ndarray:
        """Which runs hold a number, of the network or of the learner's state, that is not finite."""
        broken = np.zeros(len(self.tile), bool)
        for leaf in jax.tree.leaves(eqx.filter(self.state[1], eqx.is_inexact_array)):
            finite = np.isfinite(np.moveaxis(np.asarray(leaf), self.axis, 0))
            broken |= ~finite.reshape(len(self.tile), -1).all(1)
        return broken

    def not_finite(self) -> str | None:
        """The first array of the network, or else of the learner's state, that is not finite."""
        flat, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(self.state[1], eqx.is_inexact_array))
        for path, leaf in flat:
            if not np.isfinite(np.asarray(leaf)).all():
                return jax.tree_util.keystr(path, simple=True, separator=".")
        return None


def _once() -> dict[str, Any]:
    """For a program that runs once or twice: compile it fast rather than well."""
    return {"compiler_options": {"xla_backend_optimization_level": 0}} if platform() == "cpu" else {}


def _compile(function: Any, *arguments: Any) -> Any:
    lowered = function.lower(*arguments)
    # XLA's arctangent is wrong in vectors of 512 bits (docs/developer/decisions.md).
    if platform() == "cpu" and ".atan" not in lowered.as_text():
        try:
            return lowered.compile(compiler_options=dict(CPU_OPTIONS))
        except jax.errors.JaxRuntimeError as error:  # an XLA that no longer knows the option
            if "option" not in str(error):
                raise
    return lowered.compile()


def job_names(method: Method, tiles: int) -> list[str]:
    """One job a tile of a method."""
    return [method.name] if tiles == 1 else [f"{method.name}.{i}" for i in range(tiles)]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Every line of a run's metrics; a last line that was cut off is left out."""
    lines = []
    path = folder / METRICS
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def train(
    method: Method,
    tile: Sequence[tuple[float, int]],
    *,
    job: str,
    folder: RunFolder,
    digest: str,
    progress: Progress,
    stop: Callable[[], bool],
    start_offset: int,
    programs: dict[str, Any] | None = None,
    tolerant: bool = False,
) -> dict[str, Any]:
    """Run one job to its end, from its newest good checkpoint if there is one; returns the last checkpoint's meta.

    `programs`: compiled programs, shared by jobs of one method and as many runs. `tolerant`: a run that becomes NaN or
    infinite is noted in the meta's `failed` (its index: the step), and the others go on; else it ends the job.
    """
    loop = _Loop(method, tile, programs)
    checkpoints = folder.checkpoints
    meta = _restore(loop, checkpoints, job, digest, progress) or {
        "step": 0,
        "grown_at": [],
        "cpu_seconds": 0.0,
        "compile_seconds": 0.0,
        "metrics_bytes": start_offset,
    }
    failed: dict[str, int] = dict(meta.get("failed", {}))
    if meta["step"] >= method.steps or len(failed) == len(tile):
        return meta
    folder.cut({METRICS: meta["metrics_bytes"]})
    if loop.state is None:
        loop.start()
        _record(loop, folder, job, "start")
    history = [
        Point(line["step"], line["count"], np.asarray(line["values"]))
        for line in read_metrics(folder.path)
        if line["job"] == job
    ]
    step, grown_at, cpu = meta["step"], list(meta["grown_at"]), meta["cpu_seconds"]
    compile_before = meta["compile_seconds"]
    saved, chunk, rate = time.monotonic(), 256, 0.0
    value: float | None = None

    def keep() -> dict[str, Any]:
        made = {
            "digest": digest,
            "job": job,
            "step": step,
            "grown_at": grown_at,
            "cpu_seconds": cpu,
            "compile_seconds": compile_before + loop.compile_seconds,
            "metrics_bytes": folder.sizes(METRICS)[METRICS],
            **({"failed": failed} if failed else {}),
        }
        saving.save(run_folder.path_of(checkpoints, job, step), loop.kept, made)
        run_folder.prune(checkpoints, job)
        return made

    def judge(bad: np.ndarray) -> None:
        """Note runs that broke in the last `count` steps, or end the job."""
        if bad.any() and not tolerant:
            _fail(loop, job, step, count, bad, checkpoints)
        for i in np.flatnonzero(bad):
            failed.setdefault(str(i), step)

    point_start = history[-1].step if history else 0
    while step < method.steps and len(failed) < len(tile):
        point_end = min(step - step % method.point_every + method.point_every, method.steps)
        count = min(chunk, point_end - step)
        clock, work, compiled = time.monotonic(), time.process_time(), loop.compile_seconds
        loop.advance(count)
        compiling = loop.compile_seconds - compiled
        cpu += time.process_time() - work - compiling
        step += count
        judge(~np.isfinite(np.asarray(loop.sums[0])))
        seconds = time.monotonic() - clock
        if not compiling and (count == chunk or seconds > CHUNK_SECONDS / 4):  # a short rest says little about speed
            rate = count / seconds
            chunk = max(1, math.ceil(rate * CHUNK_SECONDS))
        if step == point_end:
            values, monitored = loop.take_means()
            value = float(np.nanmean(values)) if np.isfinite(values).any() else None
            judge(loop.broken())
            history.append(Point(step, step - point_start, values))
            found = loop.evaluate("evaluate")
            if method.select is not None:
                loop.keep_best(found[method.select])
            if step == method.steps:
                found |= loop.evaluate("conclude", best=True)
                if method.select is not None:
                    found[f"{method.select}_least"] = np.asarray(loop.best[0])
            extra = {k: v.tolist() for k, v in (found | monitored).items()}
            line = {"job": job, "step": step, "count": step - point_start, "values": values.tolist(), **extra}
            folder.append(METRICS, json.dumps(line) + "\n")
            point_start = step
            if step < method.steps and method.growth.due(step, grown_at, history):
                loop.grow()
                grown_at.append(step)
        if step == method.steps or len(failed) == len(tile) or stop() or time.monotonic() - saved > CHECKPOINT_SECONDS:
            meta, saved = keep(), time.monotonic()
        stages = f"  stage {len(grown_at) + 1}/{method.growth.stages}" if method.growth.stages > 1 else ""
        note = f"{stages}  {len(tile)} runs"
        progress.show(job, step, method.steps, rate=rate, metric=method.metric, value=value, note=note)
        if stop() and step < method.steps and len(failed) < len(tile):
            raise Stopped(f"stopped at step {step:,} of {job}; go on with: onward run --resume {folder}")
    _record(loop, folder, job, "end")
    return meta


def _restore(loop: _Loop, checkpoints: Path, job: str, digest: str, progress: Progress) -> dict[str, Any] | None:
    def read(path: Path) -> dict[str, Any]:
        meta = saving.read_meta(path)
        if meta["digest"] != digest:
            raise OnwardError(
                f"{path} was written by a run of another configuration, or of other data; it cannot be resumed here"
            )
        meta = loop.resume(path, len(meta["grown_at"]) + 1)
        progress.say(f"{job}: resuming at step {meta['step']:,}")
        return meta

    return run_folder.newest_good(checkpoints, job, read, progress.say)


def _record(loop: _Loop, folder: RunFolder, job: str, when: str) -> None:
    if not (loop.method.record_steps or loop.method.inspect):
        return
    found = loop.record(loop.method.record_steps) if loop.method.record_steps else {}
    found |= loop.evaluate("inspect", best=when == "end")
    folder.record(job, when, found)


def _fail(loop: _Loop, job: str, step: int, count: int, bad: np.ndarray, checkpoints: Path) -> None:
    size, seed = loop.tile[int(np.flatnonzero(bad)[0])]
    good = run_folder.newest_first(checkpoints, job)
    last = f"the last good checkpoint is {good[0]}" if good else "there is no checkpoint yet"
    raise NotFinite(
        f"{job} (seed {seed}, step size {size:g}): {loop.not_finite() or 'the metric'} became NaN or infinite between "
        f"steps {step - count:,} and {step:,}; {last}. Try a smaller step size"
    )
