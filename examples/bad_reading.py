"""One bad reading and a real shift, as `onward learn` takes them: a picture of each.

    python examples/bad_reading.py [FOLDER]

A season of 50 rows between 90 and 110, with noise of deviation 1. One reading of row 1,501 is 1,000; from row 2,501 on
everything is 300 higher. FOLDER/outlier.png and FOLDER/shift.png show the rows around both.
"""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from onward.rows.learn import learn
from onward.rows.options import Learn

OUTLIER, SHIFT = 1501, 2501
COLUMNS = ("row", "target", "prediction", "low", "high")


def write(path: Path) -> None:
    """The stream as a CSV."""
    t, noise = np.arange(3000), np.random.default_rng(0).normal(size=3000)
    load = 100 + 10 * np.sin(2 * np.pi * t / 50) + noise
    load[OUTLIER - 1] = 1000
    load[SHIFT - 1 :] += 300
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["load"], *([f"{value:.3f}"] for value in load)])


def draw(lines: list[dict[str, str]], row: int, limits: tuple[float, float], path: Path) -> None:
    """The rows around one, and what was said of them before."""
    near = [line for line in lines if row - 25 <= int(line["row"]) <= row + 25]
    rows, target, said, low, high = (np.array([float(line[name]) for line in near]) for name in COLUMNS)
    figure = Figure(figsize=(8.2, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(rows, low, high, step="mid", color="#2563a8", alpha=0.18, lw=0, label="90% interval")
    axes.plot(rows, target, color="#6b7280", marker=".", ms=4, lw=1, label="load")
    axes.plot(rows, said, color="#2563a8", lw=1.6, label="predicted before")
    for line in near:
        if line["strange"]:
            axes.axvline(int(line["row"]), color="#c2570c", lw=1, ls=":", label="strange" if line == near[25] else None)
    axes.set(xlabel="row", ylabel="load", ylim=limits, xlim=(rows[0], rows[-1]))
    figure.legend(loc="outside upper right", ncols=4)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Write the stream, learn from it, draw."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "load.csv")
    learn(Learn(target=("load",)), str(folder / "load.csv"), folder / "out", replace=True)
    with open(folder / "out" / "predictions.csv", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["target"] and line["prediction"]]
    for line in lines:
        if line["strange"]:
            print(f"row {line['row']}: {line['target']} was not followed at once")
    draw(lines, OUTLIER, (80, 130), folder / "outlier.png")
    draw(lines, SHIFT, (80, 430), folder / "shift.png")
    print(f"pictures: {folder / 'outlier.png'}, {folder / 'shift.png'}")


if __name__ == "__main__":
    main()
