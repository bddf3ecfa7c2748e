"""What came of a sweep: every run, every configuration, the best of each method, and how sure the order is."""

import csv
import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onward import saving
from onward.errors import OnwardError
from onward.lab.experiment import Experiment
from onward.lab.folder import read_config
from onward.lab.page import interval
from onward.lab.papers import kind_of
from onward.lab.results import SUMMARY, load_json
from onward.lab.sweeps import jobs
from onward.lab.sweeps.plan import PLAN, Job
from onward.lab.train import read_metrics

RESAMPLED = 4000
SHOWN_RANKS = 12


def score(run: dict[str, Any], higher_is_better: bool) -> float:
    """What a configuration is chosen by, less is better: validation where there is one, else the number reported."""
    if run["failed"]:
        return math.inf
    if "valid_least" in run["also"]:
        return float(run["also"]["valid_least"])
    return -float(run["value"]) if higher_is_better else float(run["value"])


def read(folder: Path) -> dict[str, Any]:
    """Everything that ended: `runs` (one dict a run), `axes`, `metric`, and the `definition` of the sweep."""
    definition, planned = read_config(folder, "sweep")["fields"], load_json(folder / PLAN)["jobs"]
    axes = [name for name in definition["axes"] if name not in ("methods", "step_sizes")]
    last = max((j["rung"] for j in planned), default=0)
    runs, metric = [], ""
    for entry in planned:
        job = Job.from_dict(entry["job"])
        result = jobs.read_result(folder / "results" / f"{job.id}.json")
        if result is None:
            continue
        metric = result["metric"]
        for run, got in zip(job.as_runs(), result["runs"], strict=True):
            runs.append(
                {
                    "configuration": run.configuration,
                    "method": run.row,
                    **{name: run.config[name] for name in axes},
                    "step_size": run.step_size,
                    "seed": run.seed,
                    "value": got["value"],
                    **got["also"],
                    "failed": got["failed"],
                    "steps": result["steps"],
                    "cpu_seconds": result["cpu_seconds"] / len(job.runs),
                    "job": job.id,
                    "last": entry["rung"] == last,
                    "score": score(got, _kind(definition).higher_is_better),
                    "config": run.config,
                }
            )
    return {"runs": runs, "axes": axes, "metric": metric, "definition": definition}


def _kind(definition: dict[str, Any]) -> type[Experiment]:
    kind: type[Experiment] = kind_of(definition["experiment"])
    return kind


def summarise(folder: Path, errors: dict[str, str] | None = None) -> dict[str, Any]:
    """What others script against: of every configuration its seeds' values, mean, interval, whether it is the best."""
    everything = read(folder)
    definition = everything["definition"]
    kind = _kind(definition)
    rows: dict[str, list[dict[str, Any]]] = {}
    for run in everything["runs"]:
        rows.setdefault(run["configuration"], []).append(run)
    configurations = [_configuration(sorted(own, key=lambda r: r["seed"]), everything["axes"]) for own in rows.values()]
    best: dict[str, dict[str, Any]] = {}
    for row in configurations:
        before = best.get(row["method"])
        if row["last"] and (before is None or _order(row) < _order(before)):
            best[row["method"]] = row
    for row in configurations:
        row["best"] = best.get(row["method"]) is row
    levels = _references(kind, configurations, folder)
    return {
        "experiment": definition["experiment"],
        "metric": everything["metric"],
        "higher_is_better": kind.higher_is_better,
        "chosen_by": "validation" if any("valid_least" in run for run in everything["runs"]) else "the metric itself",
        "definition": definition,
        "configurations": configurations,
        "chosen_on_other_seeds": {name: _cross_validated(configurations, name, kind.higher_is_better) for name in best},
        "ranks": ranks(configurations, list(best.values())),
        "agreement": agreement(configurations),
        "references": levels,
        "unfinished": errors or {},
    }


def _configuration(runs: list[dict[str, Any]], axes: Sequence[str]) -> dict[str, Any]:
    good = [run for run in runs if not run["failed"]]
    values = [run["value"] for run in good]
    low, high = interval(values) if values else (math.nan, math.nan)
    show = lambda v: None if math.isnan(v) else float(v)
    first = runs[0]
    return {
        "configuration": first["configuration"],
        "method": first["method"],
        **{name: first[name] for name in axes},
        "step_size": first["step_size"],
        "steps": first["steps"],
        "last": first["last"],
        "seeds": [run["seed"] for run in runs],
        "values": [run["value"] for run in runs],
        "scores": [run["score"] if math.isfinite(run["score"]) else None for run in runs],
        "failed": {str(run["seed"]): run["failed"] for run in runs if run["failed"]},
        "mean": show(np.mean(values) if values else math.nan),
        "median": show(np.median(values) if values else math.nan),
        "sd": show(np.std(values, ddof=1) if len(values) > 1 else (0.0 if values else math.nan)),
        "low": show(low),
        "high": show(high),
        "valid": show(np.mean([run["valid_least"] for run in good])) if good and "valid_least" in good[0] else None,
        "cpu_seconds": float(sum(run["cpu_seconds"] for run in runs)),
        "config": first["config"],
    }


def _scores(row: dict[str, Any]) -> np.ndarray:
    return np.asarray([math.inf if s is None else s for s in row["scores"]], float)


def _order(row: dict[str, Any]) -> float:
    """The mean score over seeds; a configuration that failed once comes after all that never did."""
    return float(np.mean(_scores(row)))


def _cross_validated(configurations: Sequence[dict[str, Any]], method: str, higher: bool) -> dict[str, Any] | None:
    """The mean over seeds of what the configuration best on all *other* seeds did on this one.

    Free of the luck of choosing the best among many on the same seeds that are reported.
    """
    own = [row for row in configurations if row["method"] == method and row["last"]]
    if len(own) < 2 or any(row["seeds"] != own[0]["seeds"] for row in own) or len(own[0]["seeds"]) < 2:
        return None
    scores, values = np.stack([_scores(row) for row in own]), [row["values"] for row in own]
    reported = []
    for i in range(scores.shape[1]):
        chosen = int(np.argmin(np.delete(scores, i, 1).mean(1)))
        if values[chosen][i] is None:
            return None
        reported.append(values[chosen][i])
    low, high = interval(reported)
    return {"mean": float(np.mean(reported)), "low": low, "high": high}


def _table_of_scores(rows: Sequence[dict[str, Any]]) -> np.ndarray | None:
    """(configurations, seeds), if all have the same seeds."""
    if len(rows) < 2 or any(row["seeds"] != rows[0]["seeds"] for row in rows) or len(rows[0]["seeds"]) < 2:
        return None
    return np.stack([_scores(row) for row in rows])


def label(row: dict[str, Any], vary: Sequence[str]) -> str:
    """A configuration in words."""
    parts = [f"{name.replace('_', ' ')} {show_value(row[name])}" for name in vary]
    return ", ".join([row["method"], *parts])


def show_value(value: Any) -> str:
    """The value of a field."""
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def ranks(configurations: Sequence[dict[str, Any]], best: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """How often each is first, second, ... when the seeds are drawn anew (paired bootstrap).

    Of the best of every method; where there is one method only, of its best configurations.
    """
    rows = sorted(best, key=_order)
    if len(rows) == 1:
        rows = sorted([c for c in configurations if c["last"]], key=_order)[:SHOWN_RANKS]
    table = _table_of_scores(rows)
    if table is None:
        return None
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, table.shape[1], (RESAMPLED, table.shape[1]))
    means = table[:, drawn].mean(2)
    order = np.argsort(np.argsort(means, 0, kind="stable"), 0)
    share = [[float((order[i] == k).mean()) for k in range(len(rows))] for i in range(len(rows))]
    return {"configurations": [row["configuration"] for row in rows], "share": share}


def agreement(configurations: Sequence[dict[str, Any]]) -> list[dict[str, float]] | None:
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


def _references(kind: type[Experiment], configurations: Sequence[dict[str, Any]], folder: Path) -> dict[str, float]:
    """The exact levels, where they are the same for all configurations."""
    seen: dict[str, dict[str, float]] = {}
    for row in configurations:
        config = {**row["config"], "methods": [], "steps": 0}
        if str(config) not in seen:
            seen[str(config)] = jobs.experiment_of(kind.name, row["config"], folder).references()
        if len(seen) > 1 and len({tuple(v.items()) for v in seen.values()}) > 1:
            return {}
    return next(iter(seen.values()), {})


def write_tables(folder: Path, summary: dict[str, Any]) -> None:
    """runs.csv, configurations.csv and points.csv."""
    everything = read(folder)
    runs, metric, axes = everything["runs"], everything["metric"], everything["axes"]
    names = [k for k in (runs[0] if runs else {}) if k not in ("config", "last", "score", "value")]
    _write_csv(folder / "runs.csv", [*names, metric or "value"], ([run[k] for k in (*names, "value")] for run in runs))
    numbers = ["mean", "median", "sd", "low", "high", "valid"]
    columns = ["configuration", "method", *axes, "step_size", "steps", "best", *numbers]
    _write_csv(
        folder / "configurations.csv",
        [*columns, "seeds", "failed"],
        ([*(row[c] for c in columns), len(row["seeds"]), len(row["failed"])] for row in summary["configurations"]),
    )
    _write_csv(folder / "points.csv", ["configuration", "method", "step_size", "seed", "step", "value"], points(folder))


def points(folder: Path) -> Any:
    """(configuration, method, step size, seed, step, value) of every point of every run."""
    for entry in load_json(folder / PLAN)["jobs"]:
        job = Job.from_dict(entry["job"])
        if not (folder / "results" / f"{job.id}.json").exists():
            continue
        lines = read_metrics(folder / "jobs" / job.id)
        for i, run in enumerate(job.as_runs()):
            for line in lines:
                value = line["values"][i]
                yield (
                    run.configuration,
                    run.row,
                    run.step_size,
                    run.seed,
                    line["step"],
                    "" if math.isnan(value) else value,
                )


def _write_csv(path: Path, header: Sequence[str], rows: Any) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    plain = lambda v: "" if v is None else show_value(v) if isinstance(v, list) else v
    writer.writerows([plain(v) for v in row] for row in rows)
    saving.write_bytes(path, text.getvalue().encode())


def write_events(folder: Path, summary: dict[str, Any]) -> None:
    """Every run's curve, and its fields and number at the end, for TensorBoard, under `tensorboard/`."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise OnwardError("--tensorboard needs: pip install 'onward[tensorboard]'") from None
    everything = read(folder)
    curves = {k: list(g) for k, g in itertools.groupby(points(folder), key=lambda p: (p[0], p[3]))}
    for run in everything["runs"]:
        place = folder / "tensorboard" / f"{run['method']}-{run['configuration']}-seed{run['seed']}"
        for old in place.glob("events.*"):
            old.unlink()
        with SummaryWriter(str(place)) as writer:
            for *_, step, value in curves.get((run["configuration"], run["seed"]), []):
                if value != "":
                    writer.add_scalar(summary["metric"], value, step)
            fields = {
                k: run[k] if isinstance(run[k], int | float | str | bool) else str(run[k]) for k in everything["axes"]
            }
            known = {**fields, "method": run["method"], "step_size": run["step_size"], "seed": run["seed"]}
            final = {} if run["failed"] else {f"final {summary['metric']}": run["value"]}
            if final:
                writer.add_hparams(known, final, name="final", global_step=run["steps"])


def as_lines(folder: Path) -> list[str]:
    """The best of each method, for a terminal."""
    summary = load_json(folder / SUMMARY)
    vary = varied(summary)
    lines = []
    for row in summary["configurations"]:
        if row["best"]:
            failed = f", {len(row['failed'])} failed" if row["failed"] else ""
            lines.append(
                f"{label(row, vary):44} {summary['metric']} {_show(row['mean'])} ({_show(row['low'])} to "
                f"{_show(row['high'])}, {len(row['seeds'])} seeds{failed}, {row['steps']:,} steps)"
            )
    failures = sum(len(row["failed"]) for row in summary["configurations"])
    if failures:
        lines.append(f"{failures} runs became NaN or infinite: runs.csv names them")
    if summary["references"]:
        lines.append("   ".join(f"{k} {v:.5f}" for k, v in summary["references"].items()))
    return lines


def varied(summary: dict[str, Any]) -> list[str]:
    """Fields with more than one value among the configurations, the step size among them."""
    axes = [k for k in summary["definition"]["axes"] if k not in ("methods", "step_sizes")]
    more = lambda name: len({str(row[name]) for row in summary["configurations"]}) > 1
    return [name for name in (*axes, "step_size") if more(name)]


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"
