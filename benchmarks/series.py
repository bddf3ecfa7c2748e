"""`onward learn` on real series, untouched, beside the simple alternatives and beside what people use today.

    python examples/series.py FOLDER && python benchmarks/series.py FOLDER [--against NAME ...] [learn options ...]

Every CSV in the folder: the first column is the time, the second the target. Mean absolute error of predictions made
before the row was seen, of the first `--most` rows (20,000), the first `--skip` of them (a tenth) left out; the best of
each row in bold; "ratio" is Onward's error by that of the best of all others, so below 1 it wins. Then how often it is
ahead of each, the geometric mean of its error by theirs, and the same by the age of the stream.

--against: least-squares, lightgbm, river-snarimax, river-holt-winters, river-forest, river-rules, or all
of them (benchmarks/rivals.py; `pip install lightgbm river`). --horizon and all other options are those of
`onward learn`. --out DIR keeps what was learned.
"""

import argparse
import csv
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rivals import RIVALS, Table, read

from onward import cli

OURS = "onward"
# Rows up to which a stream is young, and grown.
AGES = {"rows up to 1,000": (0, 1000), "up to 5,000": (1000, 5000), "later": (5000, 10**9)}


def by_option(name: str) -> str:
    """How a rival is called on the command line."""
    return name.lower().replace(" ", "-")


def learned(path: Path, folder: Path, options: list[str]) -> tuple[np.ndarray, float]:
    """What `onward learn` said of every row before it was seen, and its CPU seconds."""
    with open(path, newline="") as file:
        when, target, *_ = next(csv.reader(file))
    out, sys.stdout = sys.stdout, sys.stderr
    command = ["learn", str(path), "--target", target, "--time", when, "--out", str(folder), "--replace", *options]
    try:
        status = cli.main(command)
    finally:
        sys.stdout = out
    if status:
        raise SystemExit(status)
    with open(folder / "predictions.csv", newline="") as file:
        said = [float(row["prediction"] or "nan") for row in csv.DictReader(file)]
    return np.array(said), json.loads((folder / "summary.json").read_text())["cpu_seconds"]


def simple(table: Table, horizon: int) -> dict[str, np.ndarray]:
    """The last value, and the mean of all before."""
    y = table.y
    at = np.maximum.accumulate(np.where(np.isfinite(y), np.arange(len(y)), -1))
    last = np.where(at >= 0, y[np.maximum(at, 0)], np.nan)
    mean = np.nancumsum(y) / np.maximum(np.cumsum(np.isfinite(y)), 1)
    later = lambda values: np.concatenate([np.full(horizon, np.nan), values])[: len(y)]
    return {"last value": later(last), "mean": later(mean)}


def errors(said: dict[str, np.ndarray], y: np.ndarray, start: int, stop: int) -> dict[str, float]:
    """The mean absolute error of each, over the rows of a stretch that all of them answered."""
    part = slice(start, stop)
    each = {name: np.abs(values[: len(y)][part] - y[part]) for name, values in said.items()}
    known = np.all([np.isfinite(error) for error in each.values()], 0)
    return {name: float(error[known].mean()) if known.any() else math.nan for name, error in each.items()}


def geometric(ratios: list[float]) -> float:
    """The geometric mean."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def told(rows: list[dict[str, float]], what: str) -> None:
    """How often we are ahead of each, and by how much."""
    rows = [row for row in rows if all(value > 0 for value in row.values())]
    if not rows:
        return
    print(f"\n{what} ({len(rows)} series): ahead of, of how many; geometric mean of the error by theirs; worst")
    others = {name: [row[OURS] / row[name] for row in rows] for name in rows[0] if name != OURS}
    others["the best of all, chosen afterwards"] = [
        row[OURS] / min(value for name, value in row.items() if name != OURS) for row in rows
    ]
    for name, ratios in others.items():
        print(f"- {name}: {sum(r < 1 for r in ratios)} of {len(ratios)}; {geometric(ratios):.3f}; {max(ratios):.3f}")


def main() -> None:
    """Learn every file, then print."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--most", type=int, default=20_000)
    parser.add_argument("--skip", type=float, default=0.1)
    parser.add_argument("--horizon", type=int, default=1)
    parser.add_argument("--only", nargs="*")
    asked, options = parser.parse_known_args()
    files = [path for path in sorted(asked.folder.glob("*.csv")) if not asked.only or path.stem in asked.only]
    if not files:
        raise SystemExit(f"no CSV in the folder {str(asked.folder)!r}; examples/series.py writes the series")
    names = {by_option(name): name for name in RIVALS}
    chosen = list(names) if asked.against == ["all"] else asked.against
    if unknown := [name for name in chosen if name not in names]:
        raise SystemExit(f"--against {unknown[0]}: there are {', '.join(names)}, or all")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    out = asked.out or Path(tempfile.mkdtemp())
    found, parts, cpu = [], {age: [] for age in AGES}, dict.fromkeys([OURS, *(names[c] for c in chosen)], 0.0)
    columns = [OURS, "last value", "mean", *(names[c] for c in chosen)]
    print(f"| series | rows | {' | '.join(columns)} | ratio |\n|{'---|' * (len(columns) + 3)}", flush=True)
    for path in files:
        table = read(path, asked.most)
        ours, seconds = learned(path, out / path.stem, ["--horizon", str(asked.horizon), *options])
        cpu[OURS] += seconds
        said = {OURS: ours, **simple(table, asked.horizon)}
        for name in (names[c] for c in chosen):
            began = time.process_time()
            said[name] = RIVALS[name](table, asked.horizon)
            cpu[name] += time.process_time() - began
        n = len(table.y)
        start = int(asked.skip * n)
        row = errors(said, table.y, start, n)
        found.append(row)
        for age, (first, last) in AGES.items():
            if min(last, n) - max(first, start) >= 200:
                parts[age].append(errors(said, table.y, max(first, start), min(last, n)))
        best = min(row.values())
        cells = [f"**{row[name]:.4g}**" if row[name] == best else f"{row[name]:.4g}" for name in columns]
        ratio = row[OURS] / min(value for name, value in row.items() if name != OURS)
        print(f"| {path.stem} | {n:,} | {' | '.join(cells)} | {ratio:.3f} |", flush=True)
    told(found, "All rows")
    for age, rows in parts.items():
        told(rows, age[0].upper() + age[1:])
    print("\nCPU seconds: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in cpu.items()))


if __name__ == "__main__":
    main()
