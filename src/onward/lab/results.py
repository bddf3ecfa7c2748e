"""What comes out of a run: its folder, its numbers, its tables. And how one is run."""

import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from onward import saving
from onward.errors import OnwardError
from onward.lab.experiment import Experiment, config_of, digest_of
from onward.lab.progress import Progress
from onward.lab.train import job_names, read_metrics, step_sizes_of_tile, stopping, train


def environment() -> dict[str, Any]:
    """What the numbers were made on."""
    import jax

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    versions = {name: metadata.version(name) for name in ("onward", "jax", "jaxlib", "equinox", "optax", "numpy")}
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "devices": [str(d) for d in jax.devices()],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **versions,
    }


def load_config(folder: Path) -> dict[str, Any]:
    """The config.json of a run folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise OnwardError(f"{folder} is not a run folder: it has no config.json")
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        config["experiment"], config["fields"], config["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise OnwardError(f"{path} is damaged ({type(error).__name__}: {error})") from error
    if config["format"] != saving.FORMAT:
        raise OnwardError(f"{path} has format {config['format']!r}, this version of onward reads {saving.FORMAT}")
    return config


def open_folder(experiment: Experiment, folder: Path, *, resume: bool, replace: bool) -> None:
    """Make a new run folder, or check that an old one is this experiment's."""
    if resume:
        return
    if folder.exists() and any(folder.iterdir()):
        if not replace:
            raise OnwardError(f"{folder} is not empty; choose another --out, or --replace it, or --resume {folder}")
        if not (folder / "config.json").is_file():
            raise OnwardError(f"{folder} is not empty and not a run folder: --replace will not delete it")
        shutil.rmtree(folder)
    for name in ("checkpoints", "figures", "records"):
        try:
            (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OnwardError(f"cannot make {folder / name}: {error.strerror}; choose another --out") from error
    head = {"format": saving.FORMAT, "onward": metadata.version("onward"), "experiment": experiment.name}
    saving.write_json(folder / "config.json", {**head, "fields": config_of(experiment)})
    saving.write_json(folder / "environment.json", environment())


def execute(
    experiment: Experiment, folder: Path, *, resume: bool = False, replace: bool = False, quiet: bool = False
) -> Path:
    """Run every method, then write summary and report; returns the path of the report."""
    experiment.check()
    plans = [(experiment.build(name), plan_of(experiment, name)) for name in experiment.rows]
    open_folder(experiment, folder, resume=resume, replace=replace)
    digest = digest_of(experiment)
    ends: dict[str, dict[str, Any]] = {}
    with Progress(quiet=quiet) as progress, stopping() as stop:
        if experiment.notice:
            progress.say(experiment.notice)
        offset = 0
        for name, (method, tiles) in zip(experiment.rows, plans, strict=True):
            # A last, smaller tile needs programs of its own.
            programs: dict[int, dict[str, Any]] = {len(tile): {} for tile in tiles}
            for job, tile in zip(job_names(name, len(tiles)), tiles, strict=True):
                ends[job] = train(
                    method,
                    tile,
                    job=job,
                    folder=folder,
                    digest=digest,
                    progress=progress,
                    stop=stop,
                    start_offset=offset,
                    programs=programs[len(tile)],
                )
                offset = ends[job]["metrics_bytes"]
        saving.write_json(folder / "summary.json", summarise(experiment, folder, ends))
        progress.say("drawing the report ...")
        report = experiment.write_report(folder)
    return report


def plan_of(experiment: Experiment, name: str) -> list[list[tuple[float, int]]]:
    """The runs of a method, in tiles."""
    seeds = range(experiment.first_seed, experiment.first_seed + experiment.seeds)
    sizes = experiment.step_sizes or (experiment.default_step_size(name),)
    return step_sizes_of_tile(seeds, sizes, experiment.tile_of(name))


def summarise(experiment: Experiment, folder: Path, ends: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What others script against: final numbers of every method, one value a seed."""
    lines = read_metrics(folder)
    methods = []
    for name in experiment.rows:
        method, tiles = experiment.build(name), plan_of(experiment, name)
        jobs = job_names(name, len(tiles))
        mine = {job: [m for m in lines if m["job"] == job] for job in jobs}
        values = np.concatenate([experiment.final_values(mine[job]) for job in jobs])
        also = {k: np.concatenate([mine[job][-1][k] for job in jobs]) for k in experiment.also}
        runs = [run for tile in tiles for run in tile]
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
                    "grown_at": ends[jobs[0]]["grown_at"],
                    "note": method.note,
                }
            )
    return {
        "experiment": experiment.name,
        "config": config_of(experiment),
        "methods": methods,
        "references": experiment.references(),
    }


def load_records(folder: Path, job: str, when: str) -> dict[str, np.ndarray]:
    """What was recorded step by step at the start or the end of a job."""
    path = folder / "records" / f"{job}-{when}.npz"
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return {k: file[k] for k in file.files}


def load_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run folder."""
    if not path.is_file():
        raise OnwardError(f"{path} is missing: the run has not finished; go on with: onward run --resume {path.parent}")
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise OnwardError(f"{path} is damaged: {error}") from error
    return value


def load_summary(folder: Path) -> dict[str, Any]:
    """The summary.json of a finished run."""
    return load_json(folder / "summary.json")


def load_environment(folder: Path) -> dict[str, Any]:
    """The environment.json of a run."""
    return load_json(folder / "environment.json")


def curves_of(
    experiment: Experiment, lines: Sequence[dict[str, Any]], name: str, step_size: float, key: str = "values"
) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and a metric at them as (points, seeds), of one method at one step size."""
    plan = plan_of(experiment, name)
    columns, steps = [], np.zeros(0)
    for job, tile in zip(job_names(name, len(plan)), plan, strict=True):
        mine = [m for m in lines if m["job"] == job]
        steps = np.asarray([m["step"] for m in mine])
        chosen = [i for i, (size, _) in enumerate(tile) if size == step_size]
        columns.append(np.asarray([m[key] for m in mine])[:, chosen])
    return steps, np.concatenate(columns, 1)


def base_name(row: dict[str, Any]) -> str:
    """The method of a summary row, without its step size."""
    return str(row["name"]).split("@")[0]


def best_rows(summary: dict[str, Any], kind: type[Experiment]) -> list[dict[str, Any]]:
    """Of each method the row of its best step size, by the mean over seeds (on validation data, where there are), named without it."""
    sign = -1 if kind.higher_is_better else 1
    chosen_by = lambda m: np.mean(m["also"]["valid_least"]) if "valid_least" in kind.also else sign * m["mean"]
    found: dict[str, dict[str, Any]] = {}
    for row in summary["methods"]:
        name = base_name(row)
        if name not in found or chosen_by(row) < chosen_by(found[name]):
            found[name] = {**row, "name": name}
    return list(found.values())


def as_markdown(folder: Path, kind: type[Experiment]) -> str:
    """The summary of a finished run as Markdown tables: of each method the best step size, then all of them, then every seed."""
    from onward.lab.page import interval

    summary = load_summary(folder)
    digits = 4 if any(v >= 0.1 for m in summary["methods"] for v in m["values"]) else 5
    show = lambda v: f"{v:.{digits}f}"
    best, sizes = best_rows(summary, kind), list(dict.fromkeys(m["step_size"] for m in summary["methods"]))
    names = kind.also
    lines = [
        f"| {best[0]['metric']} | mean | 95 % interval | median | sd | least | most | "
        f"{''.join(f'{name} (mean) | ' for name in names)}step size | steps | CPU s a seed |",
        "|---|---|---|---|---|---|---|---|---|---|" + "---|" * len(names),
    ]
    for m in best:
        values = m["values"]
        low, high = interval(values)
        numbers = (
            show(m["mean"]),
            f"{show(low)} - {show(high)}",
            *map(show, (m["median"], m["std"], min(values), max(values))),
            *(show(float(np.mean(m["also"][name]))) for name in names),
        )
        cost = m["cpu_seconds"] / len(values)
        lines.append(
            f"| {m['name']}: {m['note']} | {' | '.join(numbers)} | {m['step_size']:g} | {m['steps']:,} | {cost:.1f} |"
        )
    blank = "| " * (8 + len(names))
    lines += [f"| *{name}* ({kind.levels}) | {show(value)} {blank}|" for name, value in summary["references"].items()]
    if len(summary["methods"]) > len(best):
        lines += [
            "",
            "Mean by step size:",
            "",
            f"| | {' | '.join(f'{s:g}' for s in sizes)} |",
            "|---|" + "---|" * len(sizes),
        ]
        for m in best:
            means = {r["step_size"]: show(r["mean"]) for r in summary["methods"] if base_name(r) == m["name"]}
            lines.append(f"| {m['name']} | {' | '.join(means.get(s, '-') for s in sizes)} |")
    lines += ["", "Every seed:", ""]
    for m in best:
        seeds = f"seeds {m['seeds'][0]} to {m['seeds'][-1]}"
        lines.append(f"- {m['name']}, {seeds}: {', '.join(map(show, m['values']))}")
    return "\n".join(lines)
