"""What came of a sweep: every run, every configuration, the best of each method, and how sure the order is."""

import csv
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from onward import saving
from onward.lab.experiment import Experiment
from onward.lab.folder import CONFIG, read_config
from onward.lab.page import ENOUGH, interval, span
from onward.lab.papers import kind_of
from onward.lab.results import SUMMARY, load_json
from onward.lab.sweeps import jobs
from onward.lab.sweeps.plan import Definition, Job, read_plan, require_defined
from onward.lab.train import read_metrics
from onward.saving import Number
from onward.text import counted

RESAMPLED = 4000
SHOWN_RANKS = 12
# A configuration, as summary.json has it.
Configuration = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """What has ended of a sweep: its definition, the kind of experiment, what is measured, and a dict for every run."""

    definition: dict[str, Any]
    kind: type[Experiment]
    metric: str
    runs: list[dict[str, Any]]

    @property
    def axes(self) -> list[str]:
        """The fields that vary, but for methods and step sizes."""
        return axes_of(self.definition)


def axes_of(definition: dict[str, Any]) -> list[str]:
    """The fields that vary in a sweep, but for methods and step sizes."""
    return [name for name in definition["axes"] if name not in ("methods", "step_sizes")]


def score(run: dict[str, Any], higher_is_better: bool) -> float:
    """What a configuration is chosen by, less is better: validation where there is one, else the number reported."""
    if run["failed"]:
        return math.inf
    if "valid_least" in run["also"]:
        return float(run["also"]["valid_least"])
    return -float(run["value"]) if higher_is_better else float(run["value"])


def jobs_of(folder: Path) -> Iterator[tuple[int, Job, dict[str, Any]]]:
    """Rung, job and result of every job that ended."""
    for rung, job in read_plan(folder)[0]:
        if (result := jobs.read_result(folder, job)) is not None:
            yield rung, job, result


def read(folder: Path) -> Ended:
    """Everything that ended."""
    config = read_config(folder, "sweep")
    require_defined(config, str(folder / CONFIG))
    definition = config["fields"]
    kind: type[Experiment] = kind_of(definition["experiment"], folder)
    last = max((rung for rung, _ in read_plan(folder)[0]), default=0)
    runs, metric = [], ""
    for rung, job, result in jobs_of(folder):
        metric = result["metric"]
        for run, got in zip(job.as_runs(), result["runs"], strict=True):
            runs.append(
                {
                    "configuration": run.configuration,
                    "method": run.row,
                    **{name: run.config[name] for name in axes_of(definition)},
                    "step_size": run.step_size,
                    "seed": run.seed,
                    "value": got["value"],
                    **got["also"],
                    "failed": got["failed"],
                    "steps": result["steps"],
                    "cpu_seconds": result["cpu_seconds"] / len(job.runs),
                    "job": job.id,
                    "last": rung == last,
                    "score": score(got, kind.higher_is_better),
                    "config": run.config,
                }
            )
    return Ended(definition, kind, metric, runs)


def summarise(ended: Ended, folder: Path, errors: dict[str, str] | None = None) -> dict[str, Any]:
    """What others script against: of every configuration its seeds' values, mean, interval, whether it is the best.

    `errors` says why a job did not end, by its name.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for run in ended.runs:
        rows.setdefault(run["configuration"], []).append(run)
    configurations = [_configuration(sorted(own, key=lambda r: r["seed"]), ended.axes) for own in rows.values()]
    best: dict[str, Configuration] = {}
    for row in configurations:
        if row["last"] and (row["method"] not in best or mean_score(row) < mean_score(best[row["method"]])):
            best[row["method"]] = row
    for row in configurations:
        row["best"] = best.get(row["method"]) is row
    return {
        "experiment": ended.kind.reference,
        "metric": ended.metric,
        "higher_is_better": ended.kind.higher_is_better,
        "chosen_by": "validation" if any("valid_least" in run for run in ended.runs) else "the metric itself",
        "definition": ended.definition,
        "configurations": configurations,
        "chosen_on_other_seeds": {name: cross_validated(configurations, name) for name in best},
        "ranks": ranks(configurations, list(best.values())),
        "agreement": agreement(configurations),
        "references": _references(ended.kind, configurations, folder),
        "unfinished": errors or {},
    }


def _configuration(runs: list[dict[str, Any]], axes: Sequence[str]) -> Configuration:
    good = [run for run in runs if not run["failed"]]
    values = np.asarray([run["value"] for run in good] or [math.nan])
    low, high = interval(values)
    valid = float(np.mean([run.get("valid_least", math.nan) for run in good] or [math.nan]))
    known = lambda v: None if math.isnan(v) else float(v)
    first = runs[0]
    return {
        **{name: first[name] for name in ("configuration", "method", *axes, "step_size", "steps", "last")},
        "seeds": [run["seed"] for run in runs],
        "values": [run["value"] for run in runs],
        "scores": [run["score"] if math.isfinite(run["score"]) else None for run in runs],
        "failed": {str(run["seed"]): run["failed"] for run in runs if run["failed"]},
        "mean": known(values.mean()),
        "median": known(np.median(values)),
        "sd": known(values.std(ddof=min(1, len(values) - 1))),
        "low": known(low),
        "high": known(high),
        "valid": known(valid),
        "cpu_seconds": float(sum(run["cpu_seconds"] for run in runs)),
        "config": first["config"],
    }


def _scores(row: Configuration) -> np.ndarray:
    return np.asarray([math.inf if s is None else s for s in row["scores"]], float)


def mean_score(row: Configuration) -> float:
    """The mean score over seeds; a configuration that failed once comes after all that never did."""
    return float(np.mean(_scores(row)))


def _table_of_scores(rows: Sequence[Configuration]) -> np.ndarray | None:
    """(configurations, seeds), if all have the same seeds."""
    if len(rows) < 2 or any(row["seeds"] != rows[0]["seeds"] for row in rows) or len(rows[0]["seeds"]) < 2:
        return None
    return np.stack([_scores(row) for row in rows])


def cross_validated(configurations: Sequence[Configuration], method: str) -> dict[str, Any] | None:
    """The mean over seeds of what the configuration best on all *other* seeds did on this one.

    Free of the luck of choosing the best among many on the same seeds that are reported.
    """
    own = [row for row in configurations if row["method"] == method and row["last"]]
    scores = _table_of_scores(own)
    if scores is None:
        return None
    chosen = [int(np.argmin(np.delete(scores, i, 1).mean(1))) for i in range(scores.shape[1])]
    reported = [own[best]["values"][i] for i, best in enumerate(chosen)]
    if None in reported:
        return None
    low, high = (None if math.isnan(end) else end for end in interval(reported))
    return {"mean": float(np.mean(reported)), "low": low, "high": high}


def label(row: Configuration, vary: Sequence[str]) -> str:
    """A configuration in words."""
    parts = [f"{name.replace('_', ' ')} {show_value(row[name])}" for name in vary]
    return ", ".join([row["method"], *parts])


def show_value(value: Any) -> str:
    """The value of a field."""
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def ranks(configurations: Sequence[Configuration], best: Sequence[Configuration]) -> dict[str, Any] | None:
    """How often each is first, second, ... when the seeds are drawn anew (paired bootstrap).

    Of the best of every method; where there is one method only, of its best configurations. None of fewer than `ENOUGH`
    seeds: two that agree are no certainty.
    """
    rows = sorted(best, key=mean_score)
    if len(rows) == 1:
        rows = sorted([c for c in configurations if c["last"]], key=mean_score)[:SHOWN_RANKS]
    table = _table_of_scores(rows)
    if table is None or table.shape[1] < ENOUGH:
        return None
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, table.shape[1], (RESAMPLED, table.shape[1]))
    means = table[:, drawn].mean(2)
    order = np.argsort(np.argsort(means, 0, kind="stable"), 0)
    share = [[float((order[i] == k).mean()) for k in range(len(rows))] for i in range(len(rows))]
    return {"configurations": [row["configuration"] for row in rows], "share": share}


def agreement(configurations: Sequence[Configuration]) -> list[dict[str, float]] | None:
    """Kendall's tau between the orders of all configurations by two disjoint sets of k seeds, k up to half of them."""
    rows = [row for row in configurations if row["last"]][:200]
    table = _table_of_scores(rows)
    if table is None:
        return None
    table = np.where(np.isfinite(table), table, np.nanmax(np.where(np.isfinite(table), table, np.nan)) + 1)
    rng, seeds = np.random.default_rng(0), table.shape[1]
    first, second = np.triu_indices(len(rows), 1)
    points = []
    for k in sorted({2**p for p in range(10) if 2**p <= seeds // 2} | {seeds // 2}):
        taus = []
        for _ in range(200):
            mixed = rng.permutation(seeds)
            a, b = table[:, mixed[:k]].mean(1), table[:, mixed[k : 2 * k]].mean(1)
            taus.append(float(np.mean(np.sign(a[first] - a[second]) * np.sign(b[first] - b[second]))))
        points.append({"seeds": k, "tau": float(np.mean(taus))})
    return points


def _references(kind: type[Experiment], configurations: Sequence[Configuration], folder: Path) -> dict[str, float]:
    """The exact levels, where they are the same for all configurations."""
    seen: dict[str, dict[str, float]] = {}
    for row in configurations:
        config = {**row["config"], "methods": [], "steps": 0}
        if str(config) not in seen:
            seen[str(config)] = jobs.experiment_of(kind.reference, row["config"], folder).references()
        if len(seen) > 1 and len({tuple(v.items()) for v in seen.values()}) > 1:
            return {}
    return next(iter(seen.values()), {})


def write_tables(ended: Ended, folder: Path, configurations: Sequence[Configuration]) -> None:
    """runs.csv, configurations.csv and points.csv."""
    runs = ended.runs
    names = [k for k in (runs[0] if runs else {}) if k not in ("config", "last", "score", "value")]
    header = [*names, ended.metric or "value"]
    _write_csv(folder / "runs.csv", header, ([run[k] for k in (*names, "value")] for run in runs))
    numbers = ["mean", "median", "sd", "low", "high", "valid"]
    columns = ["configuration", "method", *ended.axes, "step_size", "steps", "best", *numbers]
    cells = ([*(row[c] for c in columns), len(row["seeds"]), len(row["failed"])] for row in configurations)
    _write_csv(folder / "configurations.csv", [*columns, "seeds", "failed"], cells)
    _write_csv(folder / "points.csv", ["configuration", "method", "step_size", "seed", "step", "value"], points(folder))


def points(folder: Path) -> Iterator[tuple[Any, ...]]:
    """(configuration, method, step size, seed, step, value) of every point of every run; the value may be None."""
    for _, job, _ in jobs_of(folder):
        lines = read_metrics(folder / "jobs" / job.id)
        for i, run in enumerate(job.as_runs()):
            for line in lines:
                value = None if math.isnan(line["values"][i]) else line["values"][i]
                yield run.configuration, run.row, run.step_size, run.seed, line["step"], value


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    plain = lambda v: "" if v is None else show_value(v) if isinstance(v, list) else v
    writer.writerows([plain(v) for v in row] for row in rows)
    saving.write_bytes(path, text.getvalue().encode())


def write_events(ended: Ended, folder: Path) -> None:
    """Every run's curve, and its fields and number at the end, for TensorBoard, under `tensorboard/`."""
    from tensorboardX import SummaryWriter

    curves = {k: list(g) for k, g in itertools.groupby(points(folder), key=lambda p: (p[0], p[3]))}
    for run in ended.runs:
        place = folder / "tensorboard" / f"{run['method']}-{run['configuration']}-seed{run['seed']}"
        for old in place.glob("events.*"):
            old.unlink()
        with SummaryWriter(str(place)) as writer:
            for *_, step, value in curves.get((run["configuration"], run["seed"]), []):
                if value is not None:
                    writer.add_scalar(ended.metric, value, step)
            if run["failed"]:
                continue
            known = {k: run[k] for k in (*ended.axes, "method", "step_size", "seed")}
            plain = {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in known.items()}
            writer.add_hparams(plain, {f"final {ended.metric}": run["value"]}, name="final", global_step=run["steps"])


class _Row(TypedDict):
    method: str
    step_size: float
    steps: int
    seeds: list[int]
    failed: dict[str, str]
    best: bool
    mean: Number | None
    low: Number | None
    high: Number | None
    median: Number | None
    sd: Number | None
    cpu_seconds: float


class _Summary(TypedDict):
    metric: str
    experiment: str
    higher_is_better: bool
    chosen_by: str
    definition: Definition
    configurations: list[_Row]
    chosen_on_other_seeds: dict[str, Any]
    references: dict[str, Number]
    unfinished: dict[str, str]


def load_summary(folder: Path) -> dict[str, Any]:
    """The summary of a sweep; OnwardError where it is missing or damaged."""
    summary = load_json(folder / SUMMARY)
    what = str(folder / SUMMARY)
    saving.check_meta(summary, _Summary, what)
    for row in summary["configurations"]:
        for name in axes_of(summary["definition"]):
            if name not in row:
                raise saving.Unreadable(f"{what} is damaged: a configuration has no {name}")
    return summary


def as_lines(folder: Path) -> list[str]:
    """The best of each method, for a terminal."""
    summary = load_summary(folder)
    vary = varied(summary)
    lines = []
    for row in summary["configurations"]:
        if row["best"]:
            failed = f", {len(row['failed'])} failed" if row["failed"] else ""
            seeds = counted(len(row["seeds"]), "seed")
            between = span(row["low"], row["high"], _show)
            lines.append(
                f"{label(row, vary):44} {summary['metric']} {_show(row['mean'])} "
                f"({seeds}: {between}{failed}, {row['steps']:,} steps)"
            )
    failures = sum(len(row["failed"]) for row in summary["configurations"])
    if failures:
        lines.append(f"{failures} runs became NaN or infinite: runs.csv names them")
    if summary["references"]:
        lines.append("   ".join(f"{k} {v:.5f}" for k, v in summary["references"].items()))
    return lines


def varied(summary: dict[str, Any]) -> list[str]:
    """Fields with more than one value among the configurations, the step size among them."""
    more = lambda name: len({str(row[name]) for row in summary["configurations"]}) > 1
    return [name for name in (*axes_of(summary["definition"]), "step_size") if more(name)]


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"
