"""What each expert of `onward learn`, and each group of what least squares reads, is worth: errors with it left out.

    python examples/series.py FOLDER --development && python benchmarks/ablations.py FOLDER [--most 20000]
    python examples/tables.py FOLDER --development && python benchmarks/ablations.py FOLDER --tables

Progressive mean absolute error of each series, the first tenth of its rows left out, by that with everything: the
geometric mean over the series, the least and the most. Above 1 it was worth having. With --tables: the log loss of
classes, and the mean absolute error of numbers, of all rows of the development tables that lie there.
"""

import argparse
import contextlib
import csv
import io
import json
import math
import os
import runpy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from rivals import read
from series import learned

from onward.cli import main as onward
from onward.rows.stream import experts, experts_of
from onward.rows.stream.programs import programs_of

GROUPS = ("lags", "seasons", "classes", "mean", "waves")
whole = experts.groups


def without(group: str) -> Callable[..., dict[str, jnp.ndarray]]:
    """`groups`, of which one says nothing."""
    return lambda *given: {name: 0 * part if name == group else part for name, part in whole(*given).items()}


def teller(files: list[Path], what: str, error: Callable[[Path, list[str]], float]) -> Callable[[str, list[str]], None]:
    """What prints a line for what is left out by options."""
    usual = {path: error(path, []) for path in files}
    print(f"{len(files)} {what}\n| left out | geometric mean | least | most |\n|---|---|---|---|", flush=True)

    def tell(what: str, options: list[str]) -> None:
        ratios = [error(path, options) / usual[path] for path in files]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"| {what} | {mean:.4f} | {min(ratios):.3f} | {max(ratios):.3f} |", flush=True)

    return tell


def leave_out(names: tuple[str, ...], tell: Callable[[str, list[str]], None]) -> None:
    """Each expert in turn, then all but the network."""
    for name in names:
        tell(f"expert {name}", ["--experts", *(each for each in names if each != name)])
    tell("all experts but the network", ["--experts", "network"])


def of_tables(folder: Path) -> None:
    """The development tables that lie in a folder: classes by their log loss, numbers by their error."""
    lists = runpy.run_path(str(Path(__file__).resolve().parents[1] / "examples" / "tables.py"))
    out = tempfile.mkdtemp()

    def error(path: Path, options: list[str], task: str) -> float:
        with open(path, encoding="utf-8") as file:
            target = next(csv.reader(file))[0]
        said = ["--target", target, "--task", task, "--horizon", "0", "--out", out, "--replace", *options]
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            assert onward(["learn", str(path), *said]) == 0
        found = json.loads(Path(out, "summary.json").read_text())
        return float(found["classes"]["log loss"] if "classes" in found else found["mean absolute error"][0][0])

    for name, task, kind in (
        ("CLASSES_DEVELOPMENT", "classification", experts_of("class", 0)),
        ("NUMBERS_DEVELOPMENT", "regression", experts_of("number", 0)),
    ):
        files = [path for path in sorted(folder.glob("*.csv")) if path.stem in lists[name]]
        leave_out(kind, teller(files, f"tables, {task}", partial(error, task=task)))


def main() -> None:
    """Learn every series with all, then with each part left out."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=20_000)
    parser.add_argument("--tables", action="store_true")
    asked = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if asked.tables:
        of_tables(asked.folder)
        return
    files, out = sorted(asked.folder.glob("*.csv")), Path(tempfile.mkdtemp())
    tables = {path: read(path, asked.most) for path in files}

    def error(path: Path, options: list[str]) -> float:
        with contextlib.redirect_stderr(io.StringIO()):
            said, _ = learned(path, out / path.stem, options)
        y = tables[path].y
        return float(np.nanmean(np.abs(said[: len(y)] - y)[len(y) // 10 :]))

    tell = teller(files, "series", error)
    leave_out(experts_of("number", 1), tell)
    for group in GROUPS:
        programs_of.cache_clear()
        experts.groups = without(group)
        tell(f"what is read: {group}", [])
    programs_of.cache_clear()
    experts.groups = whole


if __name__ == "__main__":
    main()
