"""One bad reading and a real shift, on the target and on an input, as `onward learn` takes them: a picture of the four.

    python examples/bad_reading.py [FOLDER]

A load has a season of 50 rows between 90 and 110, follows the temperature of the row before by 2 a degree, and has noise
of deviation 1. One reading of the load is 1,000 and one of the temperature 500; later all loads are 300 higher, and then
all temperatures read 40 more, while the load stays as it is: another sensor. FOLDER/strange.png shows the rows around.
"""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onward.rows.learn import learn
from onward.rows.options import Learn

COLUMNS = ("row", "target", "prediction", "low", "high")
# What happens, in which row, and between which loads it is drawn.
EVENTS = (
    ("One load reads 1,000", 1501, (80, 130)),
    ("One temperature reads 500", 2001, (80, 130)),
    ("Every load is 300 higher from here on", 2501, (80, 430)),
    ("Every temperature reads 40 more from here on", 3001, (380, 430)),
)


def write(path: Path) -> None:
    """The stream as a CSV."""
    rng, t = np.random.default_rng(0), np.arange(3500)
    warmth = rng.normal(size=t.size)
    load = 100 + 10 * np.sin(2 * np.pi * t / 50) + 2 * np.roll(warmth, 1) + rng.normal(size=t.size)
    temperature = 15 + warmth
    outlier, odd, shift, other = (row - 1 for _, row, _ in EVENTS)
    load[outlier], temperature[odd] = 1000, 500
    load[shift:] += 300
    temperature[other:] += 40
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["load", "temperature"], *zip(load.round(3), temperature.round(3), strict=True)])


def draw(axes: Axes, lines: list[dict[str, str]], title: str, row: int, limits: tuple[float, float]) -> None:
    """The rows around one, and what was said of them before."""
    near = [line for line in lines if row - 20 <= int(line["row"]) <= row + 20]
    rows, target, said, low, high = (np.array([float(line[name]) for line in near]) for name in COLUMNS)
    axes.fill_between(rows, low, high, step="mid", color="#2563a8", alpha=0.18, lw=0, label="90% interval")
    axes.plot(rows, target, color="#6b7280", marker=".", ms=4, lw=1, label="load")
    axes.plot(rows, said, color="#2563a8", lw=1.6, label="predicted before")
    axes.axvline(row, color="#c2570c", lw=1, ls=":", label="strange")
    axes.set(ylim=limits, xlim=(rows[0], rows[-1]), xticks=range(row - 20, row + 21, 10))
    axes.set_title(title, loc="left", fontsize=10)


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
            print(f"row {line['row']}, {line['strange']}: not followed at once")
    figure = Figure(figsize=(4.0, 8.0), layout="constrained")
    for axes, event in zip(figure.subplots(len(EVENTS)), EVENTS, strict=True):
        draw(axes, lines, *event)
    axes.set_xlabel("row")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(folder / "strange.png", dpi=150)
    print(f"picture: {folder / 'strange.png'}")


if __name__ == "__main__":
    main()
