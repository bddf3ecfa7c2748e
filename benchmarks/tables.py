r"""`onward learn --horizon 0`, untouched, on the tables of examples/tables.py, beside what people use on tables today.

    pip install river==0.26.1 lightgbm scikit-learn
    python examples/tables.py FOLDER && python benchmarks/tables.py FOLDER [NAME ...] [--numbers] [--out OUT]
    python examples/tables.py FOLDER --development && python benchmarks/tables.py FOLDER --development [--numbers]

Classes, or with --numbers numbers. Each contestant predicts every row before it learns it, and the first tenth of the
rows is not scored: accuracy of classes, mean absolute error of numbers, the best of each table in bold. Then the mean
rank over the tables (equal scores share their ranks), on how many each is first, and for numbers the geometric mean of
Onward's error by theirs, so below 1 it wins. A NAME may be any FOLDER/NAME.csv whose first column is the target.

Nothing is tuned. The others read numbers as they are and categories one-hot, the first 50 values of each; a missing
number is 0 to River's, and missing to LightGBM, which is fitted anew before each twentieth of the rows. CPU time: of
Onward all that `onward learn` does, compilation included where its cache has none yet (so a first run takes longer); of
the others without reading the file. --network-alone adds `onward learn --experts network`. --out OUT keeps what was
learned.
"""

import argparse
import csv
import json
import math
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

OURS = "onward"
NAMES = runpy.run_path(str(Path(__file__).resolve().parents[1] / "examples" / "tables.py"))
MISSING = {"", "NA", "nan"}
VALUES = 50
# Stretches of a table, with a LightGBM each.
FITS = 20
# What a contestant says of a row on which it has no answer.
NO_CLASS = -1


class Table(NamedTuple):
    """A table: the target (numbers, or places in `classes`), and the other columns, NaN where a number is missing."""

    y: np.ndarray
    classes: tuple[str, ...]
    x: np.ndarray

    @property
    def rows(self) -> list[dict[int, float]]:
        """`x` as River takes it."""
        return [dict(enumerate(row)) for row in np.nan_to_num(self.x).tolist()]


class Result(NamedTuple):
    """A contestant on a table."""

    score: float
    seconds: float


Predict = Callable[[Table], np.ndarray]


def encoded(cells: tuple[str, ...]) -> list[list[float]]:
    """A column of numbers, or a column for each of the first values of a category."""
    try:
        return [[math.nan if cell in MISSING else float(cell) for cell in cells]]
    except ValueError:
        return [[float(cell == value) for cell in cells] for value in list(dict.fromkeys(cells))[:VALUES]]


def read(path: Path, numbers: bool) -> Table:
    """A CSV whose first column is the target."""
    with open(path, newline="", encoding="utf-8") as file:
        _, *lines = csv.reader(file)
    target, *others = zip(*lines, strict=True)
    x = np.array([column for cells in others for column in encoded(cells)]).T
    if numbers:
        try:
            return Table(np.array([float(cell) for cell in target]), (), x)
        except ValueError:
            raise SystemExit(f"{path}: the first column has classes; leave out --numbers") from None
    place = {name: i for i, name in enumerate(dict.fromkeys(target))}
    return Table(np.array([place[cell] for cell in target]), tuple(place), x)


def learned(path: Path, table: Table, folder: Path, options: list[str]) -> tuple[np.ndarray, float]:
    """What `onward learn` said of every row before it was seen, and its CPU seconds."""
    with open(path, newline="", encoding="utf-8") as file:
        target = next(csv.reader(file))[0]
    task = ["--task", "classification"] if table.classes else []
    command = [sys.executable, "-m", "onward", "learn", str(path), "--target", target, "--horizon", "0", *task]
    done = subprocess.run(
        [*command, "--out", str(folder), "--replace", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    place = {name: i for i, name in enumerate(table.classes)}
    said = np.full(len(table.y), NO_CLASS if table.classes else math.nan)
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cell = row["prediction"]
            said[int(row["row"]) - 1] = place.get(cell, NO_CLASS) if table.classes else float(cell or "nan")
    return said, json.loads((folder / "summary.json").read_text())["cpu_seconds"]


def online(model: Any, table: Table) -> np.ndarray:
    """A model of River, row by row."""
    said = []
    for x, y in zip(table.rows, table.y.tolist(), strict=True):
        answer = model.predict_one(x)
        said.append(NO_CLASS if answer is None else answer)
        model.learn_one(x, y)
    return np.array(said)


def refitted(model: Callable[..., Any], table: Table) -> np.ndarray:
    """LightGBM as it comes, fitted anew to all rows before each stretch."""
    y, said = table.y, np.full(len(table.y), NO_CLASS if table.classes else math.nan)
    cuts = np.linspace(0, len(y), FITS + 1).astype(int)
    for start, stop in pairwise(cuts[1:]):
        if table.classes and len(set(y[:start])) < 2:
            said[start:stop] = y[0]
        else:
            said[start:stop] = model(verbose=-1, n_jobs=1).fit(table.x[:start], y[:start]).predict(table.x[start:stop])
    return said


def before(table: Table) -> np.ndarray:
    """The class of the row before."""
    return np.concatenate([[NO_CLASS], table.y[:-1]])


def commonest(table: Table) -> np.ndarray:
    """The most frequent class so far."""
    counts, said = np.zeros(len(table.classes)), []
    for y in table.y:
        said.append(counts.argmax())
        counts[y] += 1
    return np.array(said)


def mean(table: Table) -> np.ndarray:
    """The mean of all rows before."""
    return np.concatenate([[math.nan], np.cumsum(table.y)[:-1] / np.arange(1, len(table.y))])


def of_river(numbers: bool) -> dict[str, Any]:
    """Models of River, new."""
    from river import forest, linear_model, naive_bayes, preprocessing, rules, tree

    scaler = preprocessing.StandardScaler
    if numbers:
        return {
            "ARFRegressor": forest.ARFRegressor(seed=1),
            "AMRules": rules.AMRules(),
            "HoeffdingAdaptiveTreeRegressor": tree.HoeffdingAdaptiveTreeRegressor(seed=1),
            "LinearRegression": scaler() | preprocessing.TargetStandardScaler(linear_model.LinearRegression()),
        }
    return {
        "ARFClassifier": forest.ARFClassifier(seed=1),
        "HoeffdingAdaptiveTreeClassifier": tree.HoeffdingAdaptiveTreeClassifier(seed=1),
        "GaussianNB": scaler() | naive_bayes.GaussianNB(),
        "SoftmaxRegression": scaler() | linear_model.SoftmaxRegression(),
    }


def contestants(numbers: bool, packages: set[str]) -> dict[str, Predict]:
    """All others, new, by name."""
    found: dict[str, Predict] = {}
    if "river" in packages:
        found |= {f"River {name}": partial(online, model) for name, model in of_river(numbers).items()}
    if "lightgbm" in packages:
        from lightgbm import LGBMClassifier, LGBMRegressor

        found["LightGBM"] = partial(refitted, LGBMRegressor if numbers else LGBMClassifier)
    return found | ({"mean so far": mean} if numbers else {"class before": before, "most frequent so far": commonest})


def score(said: np.ndarray, table: Table) -> float:
    """Accuracy of classes, mean absolute error of numbers, without the first tenth of the rows."""
    start = len(table.y) // 10
    each = said == table.y if table.classes else np.abs(said - table.y)
    return float(each[start:].mean())


def raced(path: Path, table: Table, out: Path, alone: bool, packages: set[str]) -> dict[str, Result]:
    """Every contestant on a table."""
    found = {}
    for name, options in {OURS: [], **({f"{OURS}, network alone": ["--experts", "network"]} if alone else {})}.items():
        said, seconds = learned(path, table, out / "-".join([path.stem, *options[1:]]), options)
        found[name] = Result(score(said, table), seconds)
    for name, predict in contestants(not table.classes, packages).items():
        began = time.process_time()
        said = predict(table)
        found[name] = Result(score(said, table), time.process_time() - began)
    return found


def loss(result: Result, numbers: bool) -> float:
    """What is least for the best; no answer is the worst."""
    return math.inf if math.isnan(result.score) else result.score if numbers else -result.score


def tell(name: str, table: Table, found: dict[str, Result]) -> None:
    """A table of one file."""
    n, numbers = len(table.y), not table.classes
    best = min(loss(result, numbers) for result in found.values())
    print(f"\n{name}: {n:,} rows, {'numbers' if numbers else f'{len(table.classes)} classes'}\n")
    measure = "mean absolute error" if numbers else "accuracy"
    print(f"| contestant | {measure} | CPU microseconds a row |\n|---|---|---|")
    for contestant, result in found.items():
        cell = f"{result.score:.5g}" if numbers else f"{result.score:.4f}"
        cell = f"**{cell}**" if loss(result, numbers) == best else cell
        print(f"| {contestant} | {cell} | {1e6 * result.seconds / n:,.0f} |", flush=True)


def summarise(every: list[dict[str, Result]], numbers: bool) -> None:
    """Ranks over all tables, and for numbers ratios."""
    losses = np.array([[loss(result, numbers) for result in found.values()] for found in every])
    ranks = np.array([rankdata(row) for row in losses]).mean(0)
    first = (losses == losses.min(1, keepdims=True)).sum(0)
    title = f"| contestant | mean rank | first on |{' onward by its, geometric mean |' * numbers}"
    print(f"\n{len(every)} table{'s' * (len(every) > 1)}\n\n{title}\n|{'---|' * (3 + numbers)}")
    for i, name in enumerate(every[0]):
        ratio = f" {np.exp(np.mean(np.log(losses[:, 0] / losses[:, i]))):.3f} |" if numbers else ""
        print(f"| {name} | {ranks[i]:.2f} | {first[i]} |{ratio}")


def main() -> None:
    """Run every contestant on every table, then print the ranks."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--development", action="store_true")
    parser.add_argument("--numbers", action="store_true")
    parser.add_argument("--network-alone", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_intermixed_args()
    kind = ("NUMBERS" if asked.numbers else "CLASSES") + "_DEVELOPMENT" * asked.development
    files = [asked.folder / f"{name}.csv" for name in asked.names or NAMES[kind]]
    if absent := [path.stem for path in files if not path.is_file()]:
        raise SystemExit(f"first: python examples/tables.py {asked.folder} {' '.join(absent)}")
    packages = {"river", "lightgbm"}
    for package, needs in {"river": ["river"], "lightgbm": ["lightgbm", "scikit-learn"]}.items():
        if missing := [name for name in needs if find_spec(name.replace("scikit-learn", "sklearn")) is None]:
            packages.remove(package)
            print(f"without {package}: pip install {' '.join(missing)}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    out, every = asked.out or Path(tempfile.mkdtemp()), []
    for path in files:
        table = read(path, asked.numbers)
        every.append(raced(path, table, out, asked.network_alone, packages))
        tell(path.stem, table, every[-1])
    summarise(every, asked.numbers)


if __name__ == "__main__":
    main()
