"""One job of a sweep, as it runs in any process: idempotent, resumable, its result a file that is there or is not."""

import json
import math
import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from onward import checkpoint
from onward._devices import platform, set_up_jax
from onward._progress import Progress
from onward.errors import OnwardError, Stopped
from onward.experiments import kind_of
from onward.experiments.base import Experiment, from_config
from onward.run import Method, _Loop, read_metrics, train
from onward.sweeps.plan import Job

STOP = "stop"
CANDIDATES = {"cpu": (1, 16, 64), "gpu": (64, 1024, 16384)}
WORTH_MEASURING = 20.0
"""CPU seconds of a group below which no other tile is tried: each costs a compilation."""
MEMORY_SHARE = 0.25


class Watched(Progress):
    """What a job would show, kept as a file for whoever watches the folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(quiet=True)
        self._path, self._written = path, 0.0

    def show(self, job: str, step: int, steps: int, **more: Any) -> None:
        """Where the job is; about once a second."""
        if time.monotonic() - self._written > 1 or step == steps:
            self._written = time.monotonic()
            checkpoint.write_json(self._path, {"step": step, "value": more["value"]})


def set_up(settings: Mapping[str, Any]) -> None:
    """In every process that computes, before it uses JAX. The same options everywhere, or numbers would differ."""
    set_up_jax(columns=settings["columns"], single=settings["single"], device=settings["device"])


def experiment_of(name: str, config: Mapping[str, Any], numbers: Mapping[str, float], folder: Path) -> Experiment:
    """The experiment of a configuration, its `numbers` filled in."""
    return from_config(kind_of(name), {**config, **numbers}, folder / "sweep.json")


def varying(experiment: Experiment, row: str) -> Method:
    """The row's method, which can be asked for other values of the experiment's numbers."""
    return replace(experiment.build(row), at=lambda numbers: replace(experiment, **numbers).build(row))


def traceable(experiment: Experiment, row: str, values: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """Which of the fields in `values` may differ between the runs of one program.

    Those that reach the arithmetic and nothing else: no shape, no branch, no schedule of growth. The method is traced
    with them as unknowns; what fails is compiled apart. So is all that a method measures on held-out data.
    """
    method = varying(experiment, row)
    if method.evaluate or method.inspect or method.conclude:
        return ()
    found = []
    for name, (first, *others) in values.items():
        if others and _traces(method, name, first, others[0]):
            found.append(name)
    return tuple(found)


def _traces(method: Method, name: str, one: float, other: float) -> bool:
    plain = lambda m: replace(m, **dict.fromkeys(("task", "model", "learner", "measure", "monitor", "at")))  # type: ignore[arg-type]
    assert method.at is not None
    try:
        if plain(method.at({name: one})) != plain(method.at({name: other})):
            return False
        loop = _Loop(method, [(1e-3, 0), (1e-3, 1)], numbers={name: [one, other]})
        state = loop._skeleton(1)
        dynamic, static = eqx.partition(state, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
        jax.eval_shape(lambda d, data, n: loop._step(static, data)(d, n), dynamic, loop.data, loop.numbers)
    except Exception:  # whatever a part does with a number that has no value yet
        return False
    return True


def measure(group: dict[str, Any], settings: dict[str, Any], workers: int = 1) -> dict[str, Any]:
    """How many runs of a group should advance together: run-steps per CPU second and compile seconds, tile by tile.

    Measured at the first stage of a network that grows. A tile is only tried if the group is long enough to pay for its
    compilation, and its state fits into the memory.
    """
    set_up(settings)
    job = Job.from_dict(group)
    experiment = experiment_of(settings["experiment"], job.config, _numbers_of(job, 0), Path(settings["folder"]))
    method = varying(experiment, job.row)
    most, kind = len(job.runs), "cpu" if platform() == "cpu" else "gpu"
    own = min(most, method.tile if kind == "cpu" else CANDIDATES["gpu"][1])
    tried: dict[int, dict[str, float]] = {}

    def seconds(tile: int) -> float:
        stages = method.growth.stages
        return method.steps * most / tried[tile]["rate"] + tried[tile]["compile"] * stages

    for tile in (own, *(min(most, c) for c in CANDIDATES[kind])):
        if tile in tried or (tried and seconds(own) < WORTH_MEASURING):
            continue
        tiled, numbers = _padded(job, tile)
        loop = _Loop(method, tiled, numbers=numbers)
        floats = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(loop._skeleton(1)) if hasattr(leaf, "shape"))
        if tried and 4 * floats * workers > MEMORY_SHARE * _memory():
            continue
        tried[tile] = _rate(loop)
    best = min(tried, key=seconds)
    return {"tile": best, "tried": {str(k): v for k, v in tried.items()}, "device": platform()}


def _rate(loop: _Loop) -> dict[str, float]:
    started = time.process_time()
    loop.start()
    loop.advance(1)
    compiling = time.process_time() - started
    clock = time.process_time if platform() == "cpu" else time.perf_counter
    steps, spent = 1, 0.0
    while spent < 0.1:
        steps *= 4 if spent < 0.02 else 2
        began = clock()
        loop.advance(steps)
        spent = clock() - began
    for _ in range(2):
        began = clock()
        loop.advance(steps)
        spent = min(spent, clock() - began)
    return {"rate": steps * len(loop.tile) / spent, "compile": compiling}


def _memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError):
        return 8e9


def _padded(job: Job, width: int) -> tuple[list[tuple[float, int]], dict[str, list[float]] | None]:
    """(step size, seed) of `width` runs, and their numbers; the last run is repeated where there are fewer."""
    runs = [job.runs[min(i, len(job.runs) - 1)] for i in range(width)]
    numbers = {name: [float(run[name]) for run in runs] for name in job.numbers}
    return [(run["step_size"], run["seed"]) for run in runs], numbers or None


def _numbers_of(job: Job, run: int) -> dict[str, float]:
    return {name: job.runs[run][name] for name in job.numbers}


_PROGRAMS: dict[str, dict[str, Any]] = {}


def run_job(
    job: dict[str, Any],
    settings: dict[str, Any],
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Run a job to its end, from where it was, unless its result is there already; returns the result.

    `settings`: folder, experiment, columns, single, device. Raises `Stopped` when asked to stop.
    """
    folder = Path(settings["folder"])
    if not (folder / "sweep.json").is_file():
        raise OnwardError(
            f"{socket.gethostname()} does not see {folder}: all workers need the folder of the sweep, on a shared disk"
        )
    if settings["onward"] != metadata.version("onward"):
        raise OnwardError(f"{socket.gethostname()} has onward {metadata.version('onward')}, not {settings['onward']}")
    this = Job.from_dict(job)
    place, end = folder / "jobs" / this.id, folder / "results" / f"{this.id}.json"
    place.mkdir(parents=True, exist_ok=True)
    asked = stop or (lambda: (folder / STOP).exists())
    with _alone(place, asked):
        if (done := read_result(end)) is not None:
            return done
        set_up(settings)
        result = _train(this, settings, place, progress or Watched(place / "at.json"), asked)
        checkpoint.write_json(end, result)
    shutil.rmtree(place / "checkpoints", ignore_errors=True)
    return result


class _alone:  # noqa: N801
    """Wait for another process that has this job in hand: a worker that was given up may still be alive."""

    def __init__(self, folder: Path, stop: Callable[[], bool]) -> None:
        self._folder, self._stop = folder, stop

    def __enter__(self) -> None:
        while True:
            self._lock = checkpoint.alone(self._folder)
            try:
                return self._lock.__enter__()
            except OnwardError:
                if self._stop():
                    raise Stopped("stopped") from None
                time.sleep(0.5)

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)


def read_result(path: Path) -> dict[str, Any] | None:
    """A result, if it is there and whole."""
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        return result if "runs" in result else None
    except (OSError, ValueError):
        return None


def _train(job: Job, settings: Mapping[str, Any], place: Path, progress: Progress, stop: Any) -> dict[str, Any]:
    folder, name = Path(settings["folder"]), settings["experiment"]
    experiment = experiment_of(name, job.config, _numbers_of(job, 0), folder)
    if job.program not in _PROGRAMS:
        _PROGRAMS.clear()  # of one group at a time: programs take memory
        _PROGRAMS[job.program] = {}
    tile, numbers = _padded(job, job.width)
    method = varying(experiment, job.row)
    began = time.monotonic()
    meta = train(
        method if numbers else experiment.build(job.row),
        tile,
        job=job.row,
        folder=place,
        digest=f"{job.id} {experiment.fingerprint}".strip(),
        progress=progress,
        stop=stop,
        start_offset=0,
        programs=_PROGRAMS[job.program],
        numbers=numbers,
        tolerant=True,
    )
    lines = [line for line in read_metrics(place) if line["job"] == job.row]
    failed = {int(i): step for i, step in meta.get("failed", {}).items()}
    runs = []
    for i, run in enumerate(job.runs):
        own = experiment_of(name, job.config, _numbers_of(job, i), folder)
        if i in failed:
            runs.append({**run, "value": None, "also": {}, "failed": f"NaN or infinite by step {failed[i]:,}"})
            continue
        with np.errstate(invalid="ignore"):
            value = float(own.final_values(lines)[i])
        also = {k: float(lines[-1][k][i]) for k in own.also}
        bad = "" if math.isfinite(value) else "its last number is NaN"
        runs.append({**run, "value": None if bad else value, "also": also, "failed": bad})
    return {
        "id": job.id,
        "row": job.row,
        "runs": runs,
        "metric": experiment.final_metric,
        "steps": method.steps,
        "examples_per_step": method.examples_per_step,
        "note": method.note,
        "cpu_seconds": meta["cpu_seconds"],
        "compile_seconds": meta["compile_seconds"],
        "wall_seconds": time.monotonic() - began,
        "grown_at": meta["grown_at"],
        "host": socket.gethostname(),
        "device": platform(),
    }
