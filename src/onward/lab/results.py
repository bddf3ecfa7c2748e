"""What comes out of a run: its numbers and its tables. And how one is run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from onward import saving
from onward.devices import Process, computing_in, precision
from onward.errors import OnwardError
from onward.lab.engine import Jobs, run_jobs
from onward.lab.experiment import Experiment, config_of, from_config, jobs_of
from onward.lab.folder import CONFIG, ENVIRONMENT, RunFolder, read_config, same_fields
from onward.lab.own import keep, kept_of, require_kept
from onward.lab.papers import kind_of
from onward.lab.precision import require_precision
from onward.lab.progress import Progress
from onward.lab.signals import stopping
from onward.lab.train import METRICS, read_metrics
from onward.saving import Number
from onward.text import markdown_table

SUMMARY = "summary.json"


def execute(
    experiment: Experiment,
    path: Path,
    *,
    resume: bool = False,
    replace: bool = False,
    quiet: bool = False,
    workers: int | None = None,
) -> Path:
    """Run every method in the folder `path`, then write summary and report; returns the path of the report.

    `resume` goes on in a folder of the same experiment, `replace` deletes an older run there. `workers`: processes that
    share the jobs, with the same numbers to the bit; left out, as many as pay, or this one alone where a program goes
    on (others start as `multiprocessing`'s do by spawn). Raises OnwardError where
    the experiment or the folder does not allow it, and Stopped after Ctrl-C, with what was learned kept.
    """
    experiment.check()
    with stopping() as stop, computing_in(precision()):
        methods = [experiment.build(name) for name in experiment.rows]
        fields = config_of(experiment)
        with RunFolder(path, "run") as folder, Progress(quiet=quiet) as progress:
            if resume:
                config = folder.resume()
                require_kept(experiment, config, path)
                same_fields(path, config["fields"], fields)
                require_precision(path, config)
            else:
                kept = kept_of(experiment)
                folder.begin(fields, replace=replace, experiment=experiment.reference, precision=precision(), **kept)
                keep(experiment, path)
            if experiment.notice:
                progress.say(experiment.notice)
            ends = run_jobs(
                Jobs(experiment, methods),
                folder,
                progress=progress,
                stop=stop,
                load=experiment_of if _found_again(experiment, path) else None,
                workers=workers if workers or Process.of_command else 1,
            )
            folder.settle()
            saving.write_json(folder / SUMMARY, summarise(experiment, path, ends))
            progress.say("drawing the report ...")
            return experiment.write_report(path)


def _found_again(experiment: Experiment, path: Path) -> bool:
    """Whether another process finds the class of an experiment by what the folder says."""
    try:
        return type(experiment).__qualname__ == kind_of(experiment.reference, path).__qualname__
    except OnwardError:
        return False


def summarise(experiment: Experiment, folder: Path, ends: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What others script against: final numbers of every method and step size, one value a seed.

    `ends`: of every job, the meta of its last checkpoint.
    """
    lines = read_metrics(folder)
    methods = []
    for name in experiment.rows:
        method, jobs = experiment.build(name), jobs_of(experiment, name)
        mine = {job: [m for m in lines if m["job"] == job] for job in jobs}
        if odd := [job for job, own in mine.items() if not own or own[-1]["step"] != method.steps]:
            raise OnwardError(f"{folder / METRICS} lacks the end of {odd[0]}: put back what it was, or start anew")
        with saving.reading(folder / METRICS):
            values = np.concatenate([experiment.final_values(mine[job]) for job in jobs])
            also = {k: np.concatenate([mine[job][-1][k] for job in jobs]) for k in experiment.also}
        runs = [run for tile in jobs.values() for run in tile]
        first = next(iter(jobs))
        sizes = list(dict.fromkeys(size for size, _ in runs))
        for size in sizes:
            chosen = np.asarray([s == size for s, _ in runs])
            own = values[chosen]
            methods.append(
                {
                    "name": name if len(sizes) == 1 else f"{name}@{size:g}",
                    "metric": experiment.final_metric,
                    "also": {k: v[chosen].tolist() for k, v in also.items()},
                    "values": own.tolist(),
                    "mean": float(own.mean()),
                    "median": float(np.median(own)),
                    "std": float(own.std(ddof=1)) if len(own) > 1 else 0.0,
                    "steps": method.steps,
                    "cpu_seconds": sum(ends[job]["cpu_seconds"] for job in jobs) / len(sizes),
                    "compile_seconds": sum(ends[job]["compile_seconds"] for job in jobs) / len(sizes),
                    "published": method.published,
                    "step_size": size,
                    "seeds": [seed for s, seed in runs if s == size],
                    "grown_at": ends[first]["grown_at"],
                    "note": method.note,
                }
            )
    return {
        "experiment": experiment.reference,
        "config": config_of(experiment),
        "methods": methods,
        "references": experiment.references(),
    }


def load_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run folder; OnwardError where it is missing or damaged."""
    if not path.is_file():
        raise OnwardError(f"{path} is missing: {path.parent} has not been finished; go on with it first")
    return saving.read_json(path)


class _Row(TypedDict):
    name: str
    metric: str
    also: dict[str, list[Number]]
    values: list[Number]
    mean: Number
    median: Number
    std: Number
    steps: int
    cpu_seconds: float
    published: float | None
    step_size: float
    seeds: list[int]
    note: str


class _Summary(TypedDict):
    config: dict[str, Any]
    methods: list[_Row]
    references: dict[str, Number]


def load_summary(folder: Path) -> dict[str, Any]:
    """The summary of a finished run; OnwardError where it is missing or damaged."""
    summary = load_json(folder / SUMMARY)
    saving.check_meta(summary, _Summary, str(folder / SUMMARY))
    return summary


def load_environment(folder: Path) -> dict[str, Any]:
    """The machine and the versions that a run was begun on."""
    return load_json(folder / ENVIRONMENT)


def experiment_of(folder: Path) -> Experiment:
    """The experiment of a run folder; OnwardError where the folder is none, or of fields that there are no more."""
    config, file = read_config(folder, "run"), folder / CONFIG
    saving.check_meta(config.get("experiment"), str, f"{file}, experiment")
    experiment = from_config(kind_of(config["experiment"], folder), config["fields"], file)
    require_kept(experiment, config, folder)
    try:
        experiment.check()
    except OnwardError as error:
        raise OnwardError(f"{file}: {error}") from error
    return experiment


def finished(folder: Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment of a finished run, and its summary; OnwardError where they are of different fields."""
    experiment, summary = experiment_of(folder), load_summary(folder)
    for name, now in config_of(experiment).items():
        if now != (was := summary["config"].get(name)):
            raise OnwardError(f"{folder / CONFIG}: {name} is {now}, and was {was} when it was run: put {was} back")
    return experiment, summary


def write_report(folder: Path) -> Path:
    """Draw the figures and report.html of a finished run again; returns the path of the page."""
    return finished(folder)[0].write_report(folder)


def curves_of(
    experiment: Experiment, lines: Sequence[dict[str, Any]], name: str, step_size: float, key: str = "values"
) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and a metric at them as (points, seeds), of one method at one step size; `lines` from `read_metrics`."""
    columns, steps = [], np.zeros(0)
    for job, tile in jobs_of(experiment, name).items():
        mine = [m for m in lines if m["job"] == job]
        steps = np.asarray([m["step"] for m in mine])
        chosen = [i for i, (size, _) in enumerate(tile) if size == step_size]
        columns.append(np.asarray([m[key] for m in mine])[:, chosen])
    return steps, np.concatenate(columns, 1)


def base_name(row: dict[str, Any]) -> str:
    """The method of a summary row, without its step size."""
    return str(row["name"]).split("@")[0]


def best_rows(summary: dict[str, Any], kind: type[Experiment]) -> list[dict[str, Any]]:
    """Of each method the row of its best step size, named without it.

    Best by the mean over seeds, on validation data where there are.
    """
    sign = -1 if kind.higher_is_better else 1
    chosen_by = lambda m: np.mean(m["also"]["valid_least"]) if "valid_least" in kind.also else sign * m["mean"]
    best: dict[str, dict[str, Any]] = {}
    for row in summary["methods"]:
        name = base_name(row)
        if name not in best or chosen_by(row) < chosen_by(best[name]):
            best[name] = {**row, "name": name}
    return list(best.values())


def as_markdown(folder: Path) -> str:
    """The summary of a finished run as Markdown: of each method the best step size, then all of them, then every seed."""
    from onward.lab.page import interval, span

    experiment, summary = finished(folder)
    kind = type(experiment)
    digits = 4 if any(v >= 0.1 for m in summary["methods"] for v in m["values"]) else 5
    show = lambda v: f"{v:.{digits}f}"
    best, sizes = best_rows(summary, kind), list(dict.fromkeys(m["step_size"] for m in summary["methods"]))
    also = [f"{name} (mean)" for name in kind.also]
    header = [best[0]["metric"], "mean", "95 % interval", "median", "sd", "least", "most", *also]
    header += ["step size", "steps", "CPU s a seed"]
    rows = []
    for m in best:
        values = m["values"]
        low, high = interval(values)
        numbers = map(show, (m["median"], m["std"], min(values), max(values)))
        more = (show(float(np.mean(m["also"][name]))) for name in kind.also)
        cost = f"{m['cpu_seconds'] / len(values):.1f}"
        name = ": ".join(filter(None, (m["name"], m["note"])))
        rows.append(
            [
                name,
                show(m["mean"]),
                span(low, high, show),
                *numbers,
                *more,
                f"{m['step_size']:g}",
                f"{m['steps']:,}",
                cost,
            ]
        )
    for name, value in summary["references"].items():
        rows.append([f"*{name}* ({kind.levels})", show(value), *[""] * (len(header) - 2)])
    parts = [markdown_table(header, rows)]
    if len(summary["methods"]) > len(best):
        rows = []
        for m in best:
            means = {r["step_size"]: show(r["mean"]) for r in summary["methods"] if base_name(r) == m["name"]}
            rows.append([m["name"], *(means.get(size, "-") for size in sizes)])
        parts += ["Mean by step size:", markdown_table(["", *(f"{size:g}" for size in sizes)], rows)]
    seeds = lambda m: f"seeds {m['seeds'][0]} to {m['seeds'][-1]}"
    lines = [f"- {m['name']}, {seeds(m)}: {', '.join(map(show, m['values']))}" for m in best]
    return "\n\n".join([*parts, "Every seed:", "\n".join(lines)])
