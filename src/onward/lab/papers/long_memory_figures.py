"""The report of the long-memory experiment: who solved what and when, and how the gradient goes back."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onward.lab.figures import Row, Run, curve_with_spread, dashed, grid, level, spread_words
from onward.lab.page import COLOURS, Picture, Table
from onward.lab.papers.long_memory import LongMemoryExperiment, success_of
from onward.text import counted

LongMemoryRun = Run[LongMemoryExperiment]
# What is drawn of the way back, and its axis.
PATHS = {"reach": "length of dE/dh", "others": "share through others", "shift_cosine": "cosine", "shift_ratio": "ratio"}


def report(run: LongMemoryRun) -> tuple[str, list[Any]]:
    """The lead and the parts of the page."""
    longest = max(run.experiment.lengths)
    shares = {m: success(run, _row(run, m, longest))[0] for m in run.experiment.methods}
    most = max(shares.values())
    names = ", ".join(m for m, share in shares.items() if share == most)
    lead = (
        f"{run.experiment.task}, T = {longest}: solved by {most:.0%} of {run.seeds} with {names}. Without memory "
        f"{run.references['memoryless']:.0%} of the answers are wrong; solved means fewer than 1 %."
    )
    return lead, [success_table(run), wrong_table(run), _curves(run), *_paths(run)]


def _row(run: LongMemoryRun, method: str, length: int) -> Row:
    """The summary row of a method at one length, at its best step size."""
    return next(row for row in run.rows if row["name"] == f"{method}-{length}")


def success(run: LongMemoryRun, row: Row) -> tuple[float, float]:
    """Share of seeds that solved the task, and the median of the updates it took those."""
    return success_of(run.experiment, *run.curve(row, "wrong"))


def _header(run: LongMemoryRun) -> list[str]:
    return ["", *(f"T = {n}" for n in run.experiment.lengths)]


def success_table(run: LongMemoryRun) -> Table:
    """By method and length the share of seeds that solved the task, and after how many updates."""
    lines = []
    for method in run.experiment.methods:
        rows = [_row(run, method, n) for n in run.experiment.lengths]
        cells = [
            f"{share:.0%}" + (f" ({steps:,.0f})" if share else "") for share, steps in (success(run, r) for r in rows)
        ]
        lines.append([f"{method}: {rows[0]['note']}", *cells])
    caption = (
        f"Share of {run.seeds} that solved the task at some point of the run: fewer than 1 % of "
        f"{run.experiment.held_out:,} sequences wrong. In brackets the median of the updates until then."
    )
    return Table(_header(run), lines, caption)


def wrong_table(run: LongMemoryRun) -> Table:
    """By method and length the share of wrong answers at the end and its spread over seeds; then exact levels."""
    lines = []
    for method in run.experiment.methods:
        rows = [_row(run, method, n) for n in run.experiment.lengths]
        spread = lambda v: f"{np.mean(v):.2%} ({min(v):.2%} to {max(v):.2%}, {counted(len(v), 'seed')})"
        lines.append([method, *(spread(row["values"]) for row in rows)])
    lines += [
        [f"{name} (exact)", *[f"{value:.2%}"] * len(run.experiment.lengths)] for name, value in run.references.items()
    ]
    return Table(_header(run), lines, "Wrong answers at the end: mean over seeds (best to worst seed).")


def _colours(run: LongMemoryRun) -> dict[str, str]:
    names = run.experiment.methods
    return dict(zip(names, COLOURS * len(names), strict=False))


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), fontsize=8)


def _curves(run: LongMemoryRun) -> Picture:
    lengths, colours = run.experiment.lengths, _colours(run)
    figure, (panels,) = grid(1, len(lengths), 3.6, 8.6, sharey=True)
    for axes, length in zip(panels, lengths, strict=True):
        for method in run.experiment.methods:
            steps, values = run.curve(_row(run, method, length), "wrong")
            curve_with_spread(axes, steps / steps[-1], values, label=method, colour=colours[method])
        level(axes, run.references["memoryless"], "without memory" if length == lengths[-1] else "", size=7)
        axes.set(title=f"T = {length}", xlabel="share of the training", xlim=(0, 1), ylim=(0, None))
    panels[0].set(ylabel="wrong answers")
    _legend_below(figure, panels[-1])
    caption = f"Wrong answers while learning: mean over seeds; {spread_words(run.experiment.seeds)}."
    return Picture("curves", figure, caption)


def _paths(run: LongMemoryRun) -> list[Picture | Table]:
    """How the gradient goes back in time at the end, and how the targets of each rule do beside it."""
    experiment, colours = run.experiment, _colours(run)
    ends = {
        (m, n): run.inspected((row := _row(run, m, n))["name"], row["step_size"])
        for m in experiment.methods
        for n in experiment.lengths
    }
    figure, panels = grid(len(PATHS), len(experiment.lengths), 8.6, 8.6, sharex="col", sharey="row")
    for column, length in zip(panels.T, experiment.lengths, strict=True):
        for method in experiment.methods:
            end = ends[method, length]
            for axes, key in zip(column, PATHS, strict=True):
                if key in end:
                    axes.plot(np.arange(length), end[key][::-1], color=colours[method], label=method, lw=1.4)
        column[0].set(title=f"T = {length}", yscale="log", ylim=(1e-8, 1e3))
        column[1].set(ylim=(-0.2, 1.5))
        column[2].set(ylim=(-0.3, 1.05))
        column[3].set(xlabel="steps back from the loss", yscale="log", ylim=(1e-4, 1e4))
        for axes in column:
            dashed(axes, 1)
    for axes, name in zip(panels[:, 0], PATHS.values(), strict=True):
        axes.set_ylabel(name)
    _legend_below(figure, panels[0, -1])
    picture = Picture(
        "paths",
        figure,
        "Steps back in time, at the end of training (first seed). Of the true gradient: its length, and the share of it "
        "that came through other units. Of each rule's targets: cosine and ratio to the gradient.",
    )
    number = lambda value: f"{value:.3f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.1e}"
    first = lambda end, key: number(float(np.asarray(end[key])[0])) if key in end else "-"
    of = lambda end, key: number(float(end[key])) if key in end else "-"
    lines = [
        [
            f"{method}, T = {length}",
            first(end, "reach"),
            first(end, "others"),
            f"{first(end, 'shift_cosine')} / {first(end, 'shift_ratio')}",
            first(end, "others_cosine"),
            f"{of(end, 'update_cosine')} / {of(end, 'update_ratio')}",
        ]
        for (method, length), end in ends.items()
    ]
    header = [
        "at the first step",
        "length of the gradient",
        "share through others",
        "target: cosine / ratio",
        "of what goes through others",
        "whole update: cosine / ratio",
    ]
    return [
        picture,
        Table(header, lines, "At the end of training, first seed; lengths are relative to the last step's."),
    ]
