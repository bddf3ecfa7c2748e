"""The report of any experiment: every method's curve, every seed at the end, step sizes, and the table."""

from typing import Any

import numpy as np

from onward.lab.experiment import Experiment
from onward.lab.figures import (
    Row,
    Run,
    canvas,
    cell,
    colours_of,
    cpu_a_step,
    curve_with_spread,
    finals,
    level,
    near,
    published,
    sensitivity,
    spread_columns,
    spread_words,
)
from onward.lab.page import Picture, Table
from onward.text import counted


def report(run: Run[Experiment]) -> tuple[str, list[Any]]:
    """Lead and parts of the page."""
    parts: list[Any] = [_table(run), _curves(run), _finals(run)]
    if run.sizes_tried:
        parts.append(_step_sizes(run))
    return _lead(run), parts


def _measured(run: Run[Experiment]) -> str:
    return run.experiment.final_metric.replace("_", " ")


def _best_first(run: Run[Experiment]) -> list[Row]:
    sign = -1 if run.experiment.higher_is_better else 1
    return sorted(run.rows, key=lambda row: sign * row["mean"])


def _lead(run: Run[Experiment]) -> str:
    best = _best_first(run)[0]
    of = f" of {counted(len(run.rows), 'method')}" if len(run.rows) > 1 else ""
    sense = "more" if run.experiment.higher_is_better else "less"
    levels = ", ".join(f"{name} {value:.4g}" for name, value in run.references.items())
    return (
        f"Best{of}: {best['name']}, {_measured(run)} {best['mean']:.4g} at the end, mean of {run.seeds}; {sense} is "
        f"better.{f' Levels ({run.experiment.levels}): {levels}.' if levels else ''}"
    )


def _table(run: Run[Experiment]) -> Table:
    columns = spread_columns(4, higher_is_better=run.experiment.higher_is_better)
    if any(row["published"] is not None for row in run.rows):
        columns["published"] = published
    columns |= {"step size": cell("g", "step_size"), "CPU us a step": cpu_a_step(2)}
    levels = {f"{name} ({run.experiment.levels})": [f"{value:.4f}"] for name, value in run.references.items()}
    return run.table(columns, levels, f"{_measured(run).capitalize()} at the end, over {run.seeds}.", _best_first(run))


def _finals(run: Run[Experiment]) -> Picture:
    better = run.experiment.higher_is_better
    colours = colours_of(run.rows)
    return finals(_best_first(run), run.references, label=_measured(run), colours=colours, higher_is_better=better)


def _curves(run: Run[Experiment]) -> Picture:
    figure, axes = canvas(4)
    colours = colours_of(run.rows)
    drawn: list[float] = []
    for row in run.rows:
        steps, values = run.curve(row)
        there = ~np.isnan(values).all(1)  # a point may hold nothing that is scored
        steps, values = steps[there], values[there]
        curve_with_spread(axes, steps, values, label=row["name"], colour=colours[row["name"]])
        drawn += [float(np.nanmin(values)), float(np.nanmax(values))] if values.size else []
    for name, value in near(drawn, run.references, 0.5, higher_is_better=run.experiment.higher_is_better)[2].items():
        level(axes, value, name)
    axes.set(xlabel="step", ylabel=_measured(run))
    figure.legend(loc="outside lower center", ncols=4)
    return Picture(
        "curves", figure, f"Lines: mean over {run.seeds}; {spread_words(run.experiment.seeds)}. Horizontal: levels."
    )


def _step_sizes(run: Run[Experiment]) -> Picture:
    figure, axes = canvas(3.6)
    sensitivity(axes, run.rows, run.summary["methods"])
    axes.set(ylabel=_measured(run))
    figure.legend(loc="outside lower center", ncols=4)
    return Picture("step-sizes", figure, f"The mean of {run.seeds} at the end, with its 95 % interval, by step size.")
