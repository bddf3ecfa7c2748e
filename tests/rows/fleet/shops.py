"""A table of shops of very different sizes."""

import csv

import numpy as np

from onward.rows import learn
from onward.rows.options import Learn

SMALL = {"units": 4, "every": 50, "checkpoint_seconds": 1e9}


def options(**fields):
    return Learn(**({"target": ("y",), "by": ("shop",)} | SMALL | fields))


def panel(entities=7, rows=40, seed=0, gone=0.2):
    """Rows of shops of very different sizes, some of them left out: (shop, time, x, y), by time."""
    rng = np.random.default_rng(seed)
    found = []
    for t in range(rows):
        for e in rng.permutation(entities).tolist():
            if rng.random() > gone:
                size = 10.0 ** (e - 3)
                y = size * (5 + np.sin(t / 3 + e) + 0.1 * rng.normal())
                found.append((f"s{e}", t, float(f"{rng.normal() + e:.6g}"), float(f"{y:.7g}")))
    return found


def write(file, rows, names=("shop", "t", "x", "y")):
    with open(file, "w", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows([names, *rows])
    return str(file)


def learned(tmp_path, rows, name="out", **fields):
    source = write(tmp_path / f"{name}.csv", rows)
    learn.learn(options(**fields), source, tmp_path / name)
    return tmp_path / name
