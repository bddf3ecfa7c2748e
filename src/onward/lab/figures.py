"""What reports of experiments share: a finished run as it is read, kinds of figures, and the table of methods.

Only reports import this module and the `*_figures` of papers: running never imports matplotlib.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onward.lab.experiment import Experiment, jobs_of
from onward.lab.page import COLOURS, ENOUGH, GREY, Picture, Table, interval, number, span, style, write_page
from onward.lab.records import Record, load_record
from onward.lab.results import base_name, best_rows, curves_of, load_environment, load_summary
from onward.lab.train import METRICS, read_metrics
from onward.saving import reading, write_bytes
from onward.text import counted

E = TypeVar("E", bound=Experiment)
# A method of summary.json.
Row = dict[str, Any]
Cell = Callable[[Row], str]


@dataclass(frozen=True)
class Run(Generic[E]):
    """A finished run as its report reads it."""

    experiment: E
    folder: Path

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        return load_summary(self.folder)

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return read_metrics(self.folder)

    @cached_property
    def rows(self) -> list[Row]:
        """Of each method the summary row of its best step size."""
        return best_rows(self.summary, type(self.experiment))

    @property
    def references(self) -> dict[str, float]:
        """Levels that the metric is read against."""
        levels: dict[str, float] = self.summary["references"]
        return levels

    @property
    def sizes_tried(self) -> bool:
        """Whether methods were run at several step sizes."""
        return len(self.summary["methods"]) > len(self.rows)

    def curve(self, row: Row, key: str = "values") -> tuple[np.ndarray, np.ndarray]:
        """Steps (points,), and a metric at them (points, seeds), of a summary row, as they are drawn."""
        lines = self.lines
        with reading(self.folder / METRICS):
            steps, values = curves_of(self.experiment, lines, base_name(row), row["step_size"], key)
        counts = np.diff([0, *steps])
        if key != "values" or len(steps) < 3 or counts[-1] > counts[0] / 2:
            return steps, values
        # A last point of few steps is noise: it is drawn as a part of the one before, as far as both are known.
        weights = np.where(np.isnan(values[-2:]), 0, counts[-2:, None])
        with np.errstate(invalid="ignore"):
            last = np.nansum(weights * np.nan_to_num(values[-2:]), 0) / weights.sum(0)
        return np.delete(steps, -2), np.vstack([values[:-2], last])

    def records(self, name: str, when: str = "end", step_size: float | None = None) -> Record:
        """What was recorded at "start" or "end" of a method's first job, or the first of this step size."""
        jobs = jobs_of(self.experiment, name).items()
        job = next(job for job, tile in jobs if step_size in (None, tile[0][0]))
        return load_record(self.folder, job, when)

    def inspected(self, name: str, step_size: float | None = None) -> Record:
        """What was measured at the end of that job's first run."""
        return self.records(name, step_size=step_size).first()

    @property
    def seeds(self) -> str:
        """How many seeds there are, in words."""
        return counted(self.experiment.seeds, "seed")

    def table(
        self, columns: Mapping[str, Cell], levels: Mapping[str, Sequence[str]], caption: str, rows: Iterable[Row] = ()
    ) -> Table:
        """A line for each method, with its note, and one for each level, whose cells are those of the first columns."""
        name = lambda row: f"{row['name']} ({row['note']})" if row["note"] else row["name"]
        rows = list(rows) or self.rows
        mark = lambda row: " *" if self.beats_optimum(row) else ""
        lines = [[name(row) + mark(row), *(cell(row) for cell in columns.values())] for row in rows]
        lines += [[name, *cells, *[""] * (len(columns) - len(cells))] for name, cells in levels.items()]
        best = " Of each method its best step size." if self.sizes_tried else ""
        if any(map(self.beats_optimum, rows)):
            optimum = self.experiment.optimum
            best += f" *: better than {optimum}, the best possible on average: chance of so few steps, and no skill."
        return Table(["method", *columns], lines, caption + best)

    def beats_optimum(self, row: Row) -> bool:
        """Whether a mean is better than any method can be on average: the window it is over was an easy one."""
        level = self.references.get(self.experiment.optimum)
        sign = -1 if self.experiment.higher_is_better else 1
        return level is not None and sign * row["mean"] < sign * level


def write_report(experiment: Experiment, folder: Path) -> Path:
    """Figures and report.html of a finished run; returns the path of the page.

    The module that the experiment names as its `figures` draws: `report(run)` gives the lead and the parts of the page.
    """
    run = Run(experiment, folder)
    write_curves(run)
    with style():
        lead, parts = import_module(experiment.figures).report(run)
        settings = json.dumps({**run.summary["config"], "environment": load_environment(folder)}, indent=1)
        return write_page(folder, title=experiment.title, lead=lead, parts=parts, settings=settings)


def write_curves(run: Run[Any]) -> None:
    """curves.csv: every point of every run, a line each: method, step size, seed, step, value."""
    lines = ["method,step_size,seed,step,value"]
    for row in run.summary["methods"]:
        with reading(run.folder / METRICS):
            steps, values = curves_of(run.experiment, run.lines, base_name(row), row["step_size"])
        head = [f"{base_name(row)},{row['step_size']:g},{seed}" for seed in row["seeds"]]
        lines += [
            f"{head[i]},{step},{'' if np.isnan(value) else repr(value)}"
            for i in range(len(head))
            for step, value in zip(steps.tolist(), values[:, i].tolist(), strict=True)
        ]
    write_bytes(run.folder / "curves.csv", ("\n".join(lines) + "\n").encode())


def canvas(height: float, width: float = 8.2) -> tuple[Figure, Axes]:
    """A figure of one panel, in inches."""
    figure, panels = grid(1, 1, height, width)
    return figure, panels[0, 0]


def grid(rows: int, columns: int, height: float, width: float = 8.2, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure in inches and its panels (rows, columns); `options` of `Figure.subplots`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def colours_of(rows: Sequence[Row], palette: Sequence[str] = COLOURS) -> dict[str, str]:
    """A colour for each method, in the palette's order, from its start again where there are more methods."""
    names = [row["name"] for row in rows]
    return dict(zip(names, [*palette] * len(names), strict=False))


def curve_with_spread(axes: Axes, x: np.ndarray, values: np.ndarray, *, label: str, colour: str) -> None:
    """The mean over runs, columns of `values`, as a line; see `spread_words` for what lies around it."""
    axes.plot(x, values.mean(1), color=colour, lw=1.8, label=label)
    if values.shape[1] >= ENOUGH:
        low, high = np.asarray([interval(point, draws=1000) for point in values]).T
        axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
    elif values.shape[1] > 1:
        axes.plot(x, values, color=colour, lw=0.6, alpha=0.45)


def spread_words(seeds: int) -> str:
    """What lies around a mean in a curve over so many seeds, for its caption."""
    if seeds >= ENOUGH:
        return "bands: its 95 % interval"
    return "thin lines: each seed, too few for an interval" if seeds > 1 else "one seed says nothing of the spread"


def dashed(axes: Axes, value: float) -> None:
    """A horizontal reference line."""
    axes.axhline(value, color=GREY, lw=1, ls=(0, (4, 3)), zorder=0)


def level(axes: Axes, value: float, label: str, *, above: bool = True, size: int = 9) -> None:
    """A horizontal reference line, named at its right end."""
    dashed(axes, value)
    axes.annotate(
        label,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3 if above else -3),
        textcoords="offset points",
        ha="right",
        va="bottom" if above else "top",
        color=GREY,
        fontsize=size,
    )


def legend_beside(axes: Axes) -> None:
    """A legend to the right of the panel."""
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def sensitivity(axes: Axes, rows: Sequence[Row], everything: Sequence[Row]) -> None:
    """The mean at the end, with its 95 % interval, over the step sizes in `everything`, a line for each of `rows`."""
    colours = colours_of(rows)
    for row in rows:
        mine = sorted((m for m in everything if base_name(m) == row["name"]), key=lambda m: m["step_size"])
        means = [m["mean"] for m in mine]
        bars = np.asarray([np.abs(np.subtract(interval(m["values"]), m["mean"])) for m in mine]).T
        look: Any = {"fmt": "o-", "ms": 4, "lw": 1.5, "capsize": 3, "color": colours[row["name"]]}
        axes.errorbar([m["step_size"] for m in mine], means, bars, label=row["name"], **look)
    axes.set(xscale="log", xlabel="step size")


def near(
    values: Any, references: Mapping[str, float], beyond: float, *, higher_is_better: bool = False
) -> tuple[float, float, dict[str, float]]:
    """What an axis from 0 spans that shows these values, and the levels on it; equal ones under one name.

    Levels that lie further away than `beyond` times the span are left out, but for what is sought: those above where
    higher is better.
    """
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    low, top = min([0.0, *finite]), max([0.0, *finite])
    reach = beyond * ((top - low) or 1.0)
    shown = {
        name: value
        for name, value in references.items()
        if low - reach <= value and (value <= top + reach or higher_is_better)
    }
    together = {", ".join(n for n in shown if shown[n] == value): value for value in shown.values()}
    return min([low, *together.values()]), max([top, *together.values()]), together


def finals(
    rows: Sequence[Row],
    references: Mapping[str, float],
    *,
    label: str,
    colours: Mapping[str, str] | None = None,
    higher_is_better: bool = False,
) -> Picture:
    """Every seed's number at the end, by method, between exact levels; levels far from all numbers are left out."""
    figure, axes = canvas(1.3 + 0.42 * len(rows))
    colours = colours or colours_of(rows)
    values = [v for row in rows for v in row["values"]]
    low, top, shown = near(values, references, 1.0, higher_is_better=higher_is_better)
    for i, row in enumerate(rows):
        colour = colours[row["name"]]
        axes.scatter(row["values"], np.full(len(row["values"]), -i), color=colour, s=22, alpha=0.6)
        axes.scatter([row["mean"]], [-i], color=colour, marker="|", s=320, lw=2)
    for name, value in shown.items():
        axes.axvline(value, color=GREY, lw=1, ls=(0, (4, 3)), zorder=0)
        place: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
        axes.annotate(name, (value, 1), xytext=(0, 3), color=GREY, fontsize=8, **place)
    axes.set(yticks=[-i for i in range(len(rows))], yticklabels=[row["name"] for row in rows], xlabel=label)
    span = (top - low) or 1.0
    axes.set(ylim=(-len(rows) + 0.5, 0.5), xlim=(low - 0.03 * span, top + 0.08 * span))
    return Picture("final-errors", figure, "Every seed at the end (dots) and their mean (bar). Dashed: exact levels.")


def cell(form: str, key: str = "mean") -> Cell:
    """A column of a number of the summary in this format."""
    return lambda row: format(row[key], form)


def cpu_a_step(digits: int) -> Cell:
    """A column of the CPU microseconds of a step of one run."""
    return lambda row: f"{1e6 * row['cpu_seconds'] / (row['steps'] * len(row['values'])):.{digits}f}"


def published(row: Row) -> str:
    """The paper's number, if it has one."""
    return number(row["published"], 4)


def interval_cell(digits: int) -> Cell:
    """A column of 95 % intervals of the mean."""
    return lambda row: span(*interval(row["values"]), lambda value: f"{value:.{digits}f}")


def spread_columns(digits: int, *, higher_is_better: bool = False) -> dict[str, Cell]:
    """Columns of a number over seeds: mean and its interval, standard deviation, best and worst."""
    best, worst = (max, min) if higher_is_better else (min, max)
    return {
        "mean": cell(f".{digits}f"),
        "95 % interval": interval_cell(digits),
        "sd": cell(f".{digits}f", "std"),
        "best": lambda row: f"{best(row['values']):.{digits}f}",
        "worst": lambda row: f"{worst(row['values']):.{digits}f}",
    }
