"""One job of a sweep, as it runs in any process: idempotent, resumable, its result a file that is there or is not."""

import math
import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

import jax
import numpy as np

from onward import saving
from onward.devices import computing_in, platform, set_up_jax
from onward.errors import OnwardError, Stopped
from onward.lab.experiment import Experiment, data_of, from_config
from onward.lab.folder import CONFIG, LOCK, RunFolder
from onward.lab.papers import kind_of
from onward.lab.progress import Progress
from onward.lab.sweeps.plan import Job, require_digest, with_digest
from onward.lab.train import METRICS, read_metrics, train
from onward.lab.watch import ProgressFile
from onward.loop import Loop

STOP, AT = "stop", "at.json"
CANDIDATES = {"cpu": (1, 16, 64), "gpu": (64, 1024, 16384)}
WORTH_MEASURING = 20.0
"""CPU seconds of a group below which no other tile is tried: each costs a compilation."""
MEMORY_SHARE = 0.25


def set_up(settings: Mapping[str, Any]) -> None:
    """In every process that computes, before it uses JAX. The same options everywhere, or numbers would differ."""
    set_up_jax(columns=settings["columns"], single=settings["single"], device=settings["device"])


def experiment_of(name: str, config: dict[str, Any], folder: Path) -> Experiment:
    """The experiment of a configuration."""
    return from_config(kind_of(name, folder), config, folder / CONFIG)


def measure(group: dict[str, Any], settings: dict[str, Any], side_by_side: int = 1) -> dict[str, Any]:
    """How many runs of a group should advance together: run-steps per CPU second and compile seconds, tile by tile.

    Measured at the first stage of a network that grows. A tile is only tried if the group is long enough to pay for its
    compilation, and its state fits into the memory.
    """
    with computing_in(settings["precision"]):
        set_up(settings)
        return _measure(Job.from_dict(group), settings, side_by_side)


def _measure(job: Job, settings: dict[str, Any], side_by_side: int) -> dict[str, Any]:
    method = experiment_of(settings["experiment"], job.config, Path(settings["folder"])).build(job.row)
    most, kind = len(job.runs), "cpu" if platform() == "cpu" else "gpu"
    own = min(most, method.tile if kind == "cpu" else CANDIDATES["gpu"][1])
    tried: dict[int, dict[str, float]] = {}

    def seconds(tile: int) -> float:
        stages = method.growth.stages
        return method.steps * most / tried[tile]["rate"] + tried[tile]["compile"] * stages

    for tile in (own, *(min(most, c) for c in CANDIDATES[kind])):
        if tile in tried or (tried and seconds(own) < WORTH_MEASURING):
            continue
        loop = method.loop(_padded(job, tile))
        floats = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(loop.shapes()) if hasattr(leaf, "shape"))
        if tried and 4 * floats * side_by_side > MEMORY_SHARE * _memory():
            continue
        tried[tile] = _rate(loop)
    best = min(tried, key=seconds)
    return {"tile": best, "tried": {str(k): v for k, v in tried.items()}, "device": platform()}


def _rate(loop: Loop) -> dict[str, float]:
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
    return {"rate": steps * len(loop.runs) / spent, "compile": compiling}


def _memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError):
        return 8e9


def _padded(job: Job, width: int) -> list[tuple[float, int]]:
    """(step size, seed) of `width` runs; the last run is repeated where there are fewer."""
    return [job.runs[min(i, len(job.runs) - 1)] for i in range(width)]


_PROGRAMS: dict[tuple[str, str], dict[str, Any]] = {}


def run_job(
    job: dict[str, Any],
    settings: dict[str, Any],
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Run a job to its end, from where it was, unless its result is there already; returns the result.

    `settings`: folder, experiment, columns, single, device, precision. Raises `Stopped` when asked to stop.
    """
    folder = Path(settings["folder"])
    if not (folder / CONFIG).is_file():
        raise OnwardError(
            f"{socket.gethostname()} does not see {folder}: all workers need the folder of the sweep, on a shared disk"
        )
    if settings["onward"] != metadata.version("onward"):
        raise OnwardError(f"{socket.gethostname()} has onward {metadata.version('onward')}, not {settings['onward']}")
    this = Job.from_dict(job)
    end = folder / "results" / f"{this.id}.json"
    asked = stop or (lambda: (folder / STOP).exists())

    def wait(holder: dict[str, Any]) -> bool:
        """For another process that has this job in hand: a worker that was given up may still be alive."""
        if asked():
            raise Stopped("stopped")
        return True

    with RunFolder(folder / "jobs" / this.id, "job", wait=wait) as place, computing_in(settings["precision"]):
        if (done := read_result(folder, this)) is not None:
            _tidy(place.path)
            return done
        set_up(settings)
        if place.holds_run:
            place.resume()
        else:
            place.begin(job, experiment=settings["experiment"])
        result = _train(this, settings, place, progress or ProgressFile(place / AT), asked)
        saving.write_json(end, with_digest(result))
        _tidy(place.path)
    return result


def tidy(folder: Path, job: Job) -> None:
    """Take away what a job of a sweep has left that was killed when it had its result."""
    place = folder / "jobs" / job.id
    if any((place / name).exists() for name in (LOCK, "checkpoints", AT)):
        with suppress(OnwardError), RunFolder(place, "job"):  # or it is being done at this moment
            _tidy(place)


def _tidy(place: Path) -> None:
    """Take away what is of no use beside a result."""
    shutil.rmtree(place / "checkpoints", ignore_errors=True)
    for path in place.glob(f"{AT}*"):
        path.unlink(missing_ok=True)


class _Run(TypedDict):
    value: float | None
    also: dict[str, saving.Number]
    failed: str


class _Result(TypedDict):
    id: str
    runs: list[_Run]
    metric: str
    steps: int
    cpu_seconds: float
    compile_seconds: float


def read_result(folder: Path, job: Job) -> dict[str, Any] | None:
    """The result of a job of a sweep, if it is there and whole; a damaged one counts as none, and is made again."""
    path = folder / "results" / f"{job.id}.json"
    try:
        result = saving.read_json(path)
        saving.check_meta(result, _Result, str(path))
        require_digest(result, str(path))
    except saving.Unreadable:
        return None
    whole = all(run["failed"] or run["value"] is not None for run in result["runs"])
    return result if whole and result["id"] == job.id and len(result["runs"]) == len(job.runs) else None


def _train(job: Job, settings: Mapping[str, Any], place: RunFolder, progress: Progress, stop: Any) -> dict[str, Any]:
    folder, name = Path(settings["folder"]), settings["experiment"]
    experiment = experiment_of(name, job.config, folder)
    # Pictures of single steps are for reports of runs.
    method = replace(experiment.build(job.row), record_steps=0, inspect=None)
    program = job.program, settings["precision"]
    if program not in _PROGRAMS:
        _PROGRAMS.clear()  # of one group at a time: programs take memory
        _PROGRAMS[program] = {}
    began = time.monotonic()
    meta = train(
        method,
        _padded(job, job.width),
        job=job.row,
        folder=place,
        digest=f"{job.id} {data_of(experiment)}".strip(),
        progress=progress,
        stop=stop,
        programs=_PROGRAMS[program],
        tolerant=True,
    )
    lines = [line for line in read_metrics(place.path) if line["job"] == job.row]
    failed = {int(i): f"NaN or infinite by step {step:,}" for i, step in meta.get("failed", {}).items()}
    whole = len(failed) < job.width
    with saving.reading(place / METRICS):
        values = experiment.final_values(lines) if whole else np.full(job.width, np.nan)
        also = {k: lines[-1][k] for k in experiment.also} if whole else {}
    runs = []
    for i in range(len(job.runs)):
        good = math.isfinite(values[i]) and i not in failed
        kept = {k: float(v[i]) for k, v in also.items()} if good else {}
        why = "" if good else failed.get(i, "its last number is NaN")
        runs.append({"value": float(values[i]) if good else None, "also": kept, "failed": why})
    return {
        "id": job.id,
        "runs": runs,
        "metric": experiment.final_metric,
        "steps": method.steps,
        "note": method.note,
        "cpu_seconds": meta["cpu_seconds"],
        "compile_seconds": meta["compile_seconds"],
        "wall_seconds": time.monotonic() - began,
        "grown_at": meta["grown_at"],
        "host": socket.gethostname(),
        "device": platform(),
    }
