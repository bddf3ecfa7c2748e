"""A sweep from its definition to its table: plan what is missing, run it, compare."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from onward.devices import Process, precision
from onward.errors import OnwardError, Stopped
from onward.lab.cluster import require_place
from onward.lab.folder import CONFIG, RunFolder, read_config
from onward.lab.own import keep, kept_of, require_kept
from onward.lab.precision import require_precision
from onward.lab.progress import Progress
from onward.lab.signals import stopping
from onward.lab.sweeps import jobs, report, results
from onward.lab.sweeps.cluster import Cluster, Here, Task, place
from onward.lab.sweeps.plan import (
    PLAN,
    Job,
    Options,
    Run,
    Sweep,
    covers,
    defined,
    group,
    into_jobs,
    read_plan,
    require_defined,
    write_plan,
)
from onward.lab.watch import Watch


def run_sweep(sweep: Sweep, options: Options, path: Path, *, fresh: bool = False, quiet: bool = False) -> Path:
    """Run what is missing in the folder `path`, then write its tables and report; returns the path of the report.

    A folder that holds this sweep, or a part of it (fewer seeds, fewer values of a grid), is gone on with; `fresh`
    replaces it. Raises `Stopped` after Ctrl-C, with everything kept, and OnwardError where a job did not end.
    """
    sweep.experiments()
    require_place(options.workers, options.scheduler)
    with RunFolder(path, "sweep") as folder, Progress(quiet=quiet) as progress, stopping() as stop:
        state = _State(sweep, options, folder, fresh=fresh)
        if sweep.experiment.notice:
            progress.say(sweep.experiment.notice)
        with place(options.workers, options.scheduler, progress.say) as where:
            errors = _rungs(state, where, progress, stop)
        first, why = next(iter(errors.items()), ("", ""))
        if errors and not state.holds_result:
            raise OnwardError(f"none of {len(state.jobs)} jobs came to its end; {first}: {why}")
        progress.say("drawing the report ...")
        page = report.write_report(path, errors, events=options.tensorboard)
        if errors:
            raise OnwardError(
                f"{len(errors)} of {len(state.jobs)} jobs did not end; {first}: {why}. The others are in {page}; the "
                "same command tries these again"
            )
        folder.settle()
    return page


class _State:
    """What the folder holds: the definition and the settings of the sweep, and every job that was planned."""

    def __init__(self, sweep: Sweep, options: Options, folder: RunFolder, *, fresh: bool) -> None:
        self.sweep, self.options, self.folder = sweep, options, folder
        self._held = False
        before: dict[str, Any] = {}
        if folder.holds_run and not fresh:
            before = read_config(folder.path, "sweep", same_version=True)
            require_defined(before, str(folder / CONFIG))
            if differs := covers(sweep.as_dict(), before["fields"]):
                raise OnwardError(
                    f"{folder} holds another sweep: {differs}; choose another --out, or delete it with --replace"
                )
            require_precision(folder.path, before)
        else:
            folder.vacant(replace=fresh)
        chosen = before.get("settings") or self._choose()
        self.settings = {
            **chosen,
            "device": options.device,
            "experiment": sweep.experiment.reference,
            "folder": str(folder.path.resolve()),
            "onward": metadata.version("onward"),
            "precision": precision(),
        }
        jobs.set_up(self.settings)  # before anything asks JAX for its devices
        more = {"experiment": sweep.experiment.reference, "settings": chosen, "precision": precision()}
        more |= kept_of(sweep.experiment) | {"defined": defined(sweep.as_dict(), chosen)}
        if before:
            require_kept(sweep.experiment, before, folder.path)
            folder.resume()
            folder.configure(sweep.as_dict(), **more)
        else:
            folder.begin(sweep.as_dict(), replace=fresh, **more)
            keep(sweep.experiment, folder.path)
        self.jobs, self.tiles = read_plan(folder.path) if (folder / PLAN).exists() else ([], {})
        self.save()

    def _choose(self) -> dict[str, bool]:
        """Options of the compiler, the same for all jobs and ever after."""
        sweep = self.sweep
        methods = tuple(sweep.axes["methods"])  # type: ignore[arg-type]
        sizes = sweep.axes.get("step_sizes", [0.0])
        alone = sweep.experiment.seeds * (len(sizes) if isinstance(sizes, list) else 2) == 1
        columns = Process.of_command and replace(sweep.experiment, methods=methods).fuse_outputs
        return {"columns": columns, "single": alone}

    def save(self) -> None:
        """Write the plan."""
        write_plan(self.folder.path, self.jobs, self.tiles)

    @property
    def holds_result(self) -> bool:
        """Whether a job has a result."""
        return any(self.result(job) for _, job in self.jobs)

    def hold(self) -> None:
        """If a job has a checkpoint or a result by now, the sweep has something to go on with."""
        if not self._held and any(chain(*map(self.folder.path.glob, ("jobs/*/checkpoints/*.npz", "results/*.json")))):
            self._held = True
            self.folder.hold()

    def result(self, job: Job) -> dict[str, Any] | None:
        """A job's result, if it is there."""
        return jobs.read_result(self.folder.path, job)


def _rungs(state: _State, where: Here | Cluster, progress: Progress, stop: Callable[[], bool]) -> dict[str, str]:
    """Run every rung (of a grid or a random search: one); returns the errors of jobs that did not end."""
    sweep, chosen = state.sweep, None
    errors: dict[str, str] = {}
    count = sweep.rungs if sweep.search == "halving" else 1
    for rung in range(count):
        asked = sweep.runs(float(sweep.eta) ** (rung + 1 - count))
        asked = {k: runs for k, runs in asked.items() if chosen is None or k in chosen}
        runs = [run for own in asked.values() for run in own]
        _plan(state, rung, runs, where, progress, stop)
        errors |= _run(state, rung, where, progress, stop)
        if rung + 1 < count:
            chosen = _survivors(state, rung, asked)
            progress.say(f"rung {rung + 1} of {count}: {len(chosen)} of {len(asked)} configurations go on")
    return errors


def _plan(
    state: _State, rung: int, runs: Sequence[Run], where: Here | Cluster, progress: Progress, stop: Callable[[], bool]
) -> None:
    """Put runs that no job has yet into jobs."""
    known = {run.key for _, job in state.jobs for run in job.as_runs()}
    missing = [run for run in runs if run.key not in known]
    if not missing:
        return
    groups = group(missing)
    wholes = [into_jobs(own, len(own))[0] for own in groups]
    if not state.options.tile:
        tasks = [
            Task(jobs.measure, whole.as_dict(), whole.program)
            for whole in wholes
            if len(whole.runs) > 1 and whole.program not in state.tiles
        ]
        for done, task in enumerate(where.run(tasks, state.settings, lambda *_: {}, stop, side_by_side=where.workers)):
            if task.value is None:
                raise OnwardError(f"measuring how many runs to advance together: {task.error}")
            state.tiles[task.name] = task.value
            rates = ", ".join(f"{k}: {v['rate'] / 1e3:.3g} k" for k, v in task.value["tried"].items())
            progress.say(
                f"measured {done + 1}/{len(tasks)}: {task.argument['row']}: {task.value['tile']} of "
                f"{len(task.argument['runs'])} runs together (run-steps a CPU second by tile: {rates})"
            )
        if stop():
            raise Stopped("stopped before the first job; the same command starts again")
    tiles = [state.options.tile or state.tiles.get(w.program, {"tile": 1})["tile"] for w in wholes]
    if not state.options.tile:
        tiles = enough(tiles, [len(own) for own in groups], where.workers)
    for own, tile in zip(groups, tiles, strict=True):
        state.jobs += [(rung, job) for job in into_jobs(own, tile)]
    state.save()


def enough(tiles: list[int], runs: list[int], workers: int) -> list[int]:
    """Smaller tiles where there would be fewer jobs than workers."""
    tiles = list(tiles)
    count = lambda: sum(-(-n // t) for n, t in zip(runs, tiles, strict=True))
    while count() < min(workers, sum(runs)):
        largest = max(range(len(tiles)), key=lambda i: min(tiles[i], runs[i]))
        tiles[largest] = -(-min(tiles[largest], runs[largest]) // 2)
    return tiles


class _Watch(Watch):
    """How far the whole sweep is."""

    def __init__(self, state: _State, progress: Progress, where: Here | Cluster, todo: list[Job]) -> None:
        every, reference = [job for _, job in state.jobs], state.sweep.experiment.reference
        lengths: dict[str, int] = {}
        for job in every:  # building a task may take a second: once for all that share it
            if job.program not in lengths:
                experiment = jobs.experiment_of(reference, job.config, state.folder.path)
                lengths[job.program] = experiment.build(job.row).steps
        super().__init__(
            progress,
            state.sweep.experiment.name,
            steps={job.id: lengths[job.program] for job in every},
            runs={job.id: len(job.runs) for job in every},
            left={job.id for job in todo},
            file=lambda name: state.folder / f"jobs/{name}/{jobs.AT}",
            workers=lambda: where.workers,
            metric="mean",
            look=state.hold,
        )

    def __call__(self, task: Task | None, stop: Callable[[], bool]) -> dict[str, Any]:
        """Before a task that runs here, or while others run elsewhere."""
        if task is not None:
            self.job = task.name
            return {"progress": self, "stop": stop}
        self.poll()
        return {}


def _run(
    state: _State, rung: int, where: Here | Cluster, progress: Progress, stop: Callable[[], bool]
) -> dict[str, str]:
    """Run the jobs of a rung that have no result; returns the errors of those that did not end."""
    mine = [job for at, job in state.jobs if at == rung]
    todo = []
    for job in mine:
        if state.result(job) is None:
            todo.append(job)
        else:
            jobs.tidy(state.folder.path, job)
    if len(todo) < len(mine):
        progress.say(f"{len(mine) - len(todo)} of {len(mine)} jobs have ended before; {len(todo)} to run")
    if not todo:
        return {}
    watch = _Watch(state, progress, where, todo)
    if where.workers > 1:
        # A program is compiled by one worker, and read by the next from the cache on disk.
        programs = [job.program for job in todo]
        todo = [job for _, job in sorted(enumerate(todo), key=lambda at: programs[: at[0]].count(at[1].program))]
    tasks = [Task(jobs.run_job, job.as_dict(), job.id) for job in todo]
    errors = {}
    for task in where.run(tasks, state.settings, watch, stop):
        watch.ended(task.name)
        if task.error:
            errors[task.name] = task.error
            progress.say(f"{task.name}: {task.error}")
        else:
            assert task.value is not None
            job = Job.from_dict(task.argument)
            for (size, seed), run in zip(job.runs, task.value["runs"], strict=True):
                if run["failed"]:
                    progress.say(f"{job.row}, step size {size:g}, seed {seed}: {run['failed']}")
    state.hold()
    left = sum(state.result(job) is None for job in mine) - len(errors)
    if left:
        raise Stopped(
            f"stopped with {len(mine) - left} of {len(mine)} jobs done; the same command goes on with the rest"
        )
    return errors


def _survivors(state: _State, rung: int, asked: dict[tuple[int, str], list[Run]]) -> set[tuple[int, str]]:
    """Of each row, the best 1/eta of its configurations."""
    higher = type(state.sweep.experiment).higher_is_better
    scores = {}
    for at, job in state.jobs:
        result = state.result(job) if at == rung else None
        for run, got in zip(job.as_runs(), result["runs"] if result else (), strict=False):
            scores[run.key] = results.score(got, higher)
    chosen: set[tuple[int, str]] = set()
    for row in dict.fromkeys(row for _, row in asked):
        own = {k: np.mean([scores.get(run.key, np.inf) for run in runs]) for k, runs in asked.items() if k[1] == row}
        order = sorted(own, key=lambda k: own[k])
        chosen |= set(order[: -(-len(order) // state.sweep.eta)])
    return chosen
