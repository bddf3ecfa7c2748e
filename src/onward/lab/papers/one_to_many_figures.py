"""The report of both one-to-many experiments: tables, curves, samples, densities, and targets beside the gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onward.lab.figures import Row, Run, curve_with_spread, dashed, grid, level, spread_words
from onward.lab.page import COLOURS, Picture, Table, heat
from onward.lab.papers.one_to_many import INPUTS, POINTS, OneToManyExperiment, split
from onward.text import counted

OneToManyRun = Run[OneToManyExperiment]


def report(run: OneToManyRun) -> tuple[str, list[Any]]:
    """The lead and the parts of the page."""
    longest = max(run.experiment.lengths)
    best = min((r for r in run.rows if split(r["name"])[1] == longest), key=lambda r: r["mean"])
    floor_name, floor = min(run.references.items(), key=lambda kv: kv[1])
    lead = (
        f"T = {longest}: best is {split(best['name'])[0]} with {best['mean']:.3f} nats on held-out rows (mean of {run.seeds}). "
        f"No answer can be better than {floor:.3f} ({floor_name}); ignoring the input gives "
        f"{run.references['learn nothing']:.3f}."
    )
    return lead, [
        held_out_table(run),
        _training_table(run),
        _curves(run),
        _samples(run),
        _densities(run),
        *_credit(run),
    ]


def _row(run: OneToManyRun, method: str, length: int) -> Row:
    """The summary row of a method at one length, at its best step size."""
    return next(row for row in run.rows if row["name"] == f"{method}-{length}")


def held_out_table(run: OneToManyRun) -> Table:
    """By method and length the held-out loss and its spread over seeds; before them the paper's, after them exact levels."""
    experiment, lengths = run.experiment, run.experiment.lengths
    lines = [
        [f"paper: {name} (training loss)", *(f"{values[n]:.2f}" if n in values else "-" for n in lengths)]
        for name, values in experiment.published.items()
    ]
    for method in experiment.methods:
        rows = [_row(run, method, n) for n in lengths]
        lines.append([f"{method}: {rows[0]['note']}", *map(_spread, rows)])
    lines += [[f"{name} (exact)", *[f"{value:.3f}"] * len(lengths)] for name, value in run.references.items()]
    caption = "Loss in nats on held-out rows at the end: mean over seeds (best to worst seed)."
    return Table(_header(experiment), lines, caption)


def _header(experiment: OneToManyExperiment) -> list[str]:
    return ["", *(f"T = {n}" for n in experiment.lengths)]


def _spread(row: Row) -> str:
    values = row["values"]
    return f"{row['mean']:.3f} ({min(values):.3f} to {max(values):.3f}, {counted(len(values), 'seed')})"


def _training_table(run: OneToManyRun) -> Table:
    lines = []
    for method in run.experiment.methods:
        ends = [run.curve(_row(run, method, n))[1][-1] for n in run.experiment.lengths]
        lines.append([method, *(f"{end.mean():.3f} ({end.min():.3f} to {end.max():.3f})" for end in ends)])
    caption = f"Training loss, mean over the last {1 / POINTS:.0%} of the updates, each before its update (best to worst seed)."
    return Table(_header(run.experiment), lines, caption)


def _colours(run: OneToManyRun) -> dict[str, str]:
    names = run.experiment.methods
    return dict(zip(names, COLOURS * len(names), strict=False))


def _curves(run: OneToManyRun) -> Picture:
    lengths, colours, references = run.experiment.lengths, _colours(run), run.references
    figure, (panels,) = grid(1, len(lengths), 3.6, 8.6, sharey=True)
    for axes, length in zip(panels, lengths, strict=True):
        for row in run.rows:
            method, n = split(row["name"])
            if n == length:
                steps, values = run.curve(row, "held_out")
                curve_with_spread(axes, steps / steps[-1], values, label=method, colour=colours[method])
        for name, value in references.items():
            level(axes, value, name if length == lengths[-1] else "", size=7)
        axes.set(title=f"T = {length}", xlabel="share of the training", xlim=(0, 1))
    low, high = min(references.values()), references["learn nothing"]
    panels[0].set(ylabel="held-out loss (nats)", ylim=(low - 0.05 * (high - low), high + 0.25 * (high - low)))
    _legend_below(figure, panels[-1], 4)
    caption = (
        f"Held-out loss while learning: mean over seeds; {spread_words(run.experiment.seeds)}. Dashed: exact levels."
    )
    return Picture("curves", figure, caption)


def _legend_below(figure: Figure, axes: Axes, most: int) -> None:
    """The legend of one panel, for all, in at most so many columns."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(most, len(labels)), fontsize=8)


def _grid(experiment: OneToManyExperiment, first: str, draw: Callable[[Axes, str | None, int], None]) -> Figure:
    """A figure of one row a length and one column a method, after a first column for the data."""
    rows, columns = len(experiment.lengths), 1 + len(experiment.methods)
    figure, panels = grid(rows, columns, 1.75 * rows + 0.4, 1.75 * columns + 0.4, sharex=True, sharey=True)
    for i, (line, length) in enumerate(zip(panels, experiment.lengths, strict=True)):
        for axes, method in zip(line, (None, *experiment.methods), strict=True):
            draw(axes, method, length)
            axes.tick_params(labelsize=7)
            if i == 0:
                axes.set_title(first if method is None else method, fontsize=8)
        line[0].set_ylabel(f"T = {length}", fontsize=9)
    return figure


def _records(run: OneToManyRun, method: str, length: int) -> dict[str, np.ndarray]:
    """What was measured at the end of the first seed at the best step size."""
    row = _row(run, method, length)
    return run.inspected(row["name"], row["step_size"])


def _samples(run: OneToManyRun) -> Picture:
    experiment = run.experiment
    jitter = np.random.default_rng(0)

    def draw(axes: Axes, method: str | None, length: int) -> None:
        data = experiment.task(length, 1, None).held_out(1000, seed=3)
        v = np.asarray(data.xs[0, :, 0])
        y = np.asarray(data.y[0] if method is None else _records(run, method, length)["samples"], float)
        if experiment.discrete:
            for c in experiment.answers:
                if (y == c).any():
                    axes.plot([v[y == c].mean()] * 2, [c - 0.4, c + 0.4], color="black", lw=1.5, zorder=3)
            y = y + jitter.uniform(-0.25, 0.25, y.shape)
        axes.scatter(v, y, s=1.5, color=COLOURS[0] if method is None else COLOURS[1], alpha=0.5, lw=0)
        span = np.ptp(experiment.answers)
        axes.set_ylim(experiment.answers.min() - 0.12 * span, experiment.answers.max() + 0.12 * span)

    means = " Black bars: the mean input of each class." if experiment.discrete else ""
    return Picture(
        "samples",
        _grid(experiment, "data", draw),
        "1000 held-out inputs (across) and their answers (up): as they are, and sampled from each network "
        f"(seed {experiment.first_seed}).{means}",
    )


def _densities(run: OneToManyRun) -> Picture:
    experiment = run.experiment
    y = experiment.answers
    half = (y[1] - y[0]) / 2
    extent = (INPUTS[0], INPUTS[-1], y[0] - half, y[-1] + half)
    true = experiment.truth(INPUTS)
    top = np.quantile(true, 0.99)

    def draw(axes: Axes, method: str | None, length: int) -> None:
        shown = true if method is None else _records(run, method, length)["density"]
        heat(axes, shown.T, origin="lower", aspect="auto", extent=extent, vmin=0, vmax=top)

    return Picture(
        "densities",
        _grid(experiment, "true p(y | x)", draw),
        f"The answer's distribution (up) for each input (across): the true one, and each network's (seed {experiment.first_seed}), "
        "averaged over eight draws of the distractors.",
    )


def _credit(run: OneToManyRun) -> list[Picture | Table]:
    """For methods with targets: how these compare with the gradient, step by step back in time."""
    experiment = run.experiment
    ends = {(m, n): _records(run, m, n) for m in experiment.methods for n in experiment.lengths}
    shown = [m for m in experiment.methods if "shift_cosine" in ends[m, experiment.lengths[0]]]
    if not shown:
        return []
    colours = _colours(run)
    figure, panels = grid(2, len(experiment.lengths), 4.6, 8.6, sharex="col", sharey="row")
    for column, length in zip(panels.T, experiment.lengths, strict=True):
        for method in shown:
            for axes, key in zip(column, ("shift_cosine", "shift_ratio"), strict=True):
                axes.plot(
                    np.arange(length), ends[method, length][key][::-1], color=colours[method], label=method, lw=1.5
                )
        column[0].set(title=f"T = {length}", ylim=(-0.3, 1.05))
        column[1].set(xlabel="steps back from the loss", yscale="log", ylim=(1e-3, 1e3))
        for axes in column:
            dashed(axes, 1)
    panels[0, 0].set_ylabel("cosine")
    panels[1, 0].set_ylabel("norm ratio")
    _legend_below(figure, panels[0, -1], 5)
    picture = Picture(
        "credit",
        figure,
        "Target shifts against those that follow the exact (for stochastic units, straight-through) gradient, over 200 held-out "
        f"rows, at the end of training (seed {experiment.first_seed}): cosine, and ratio of norms.",
    )
    lines = [
        [
            f"{method}, T = {length}",
            f"{end['update_cosine']:.3f} / {end['update_ratio']:.3g}",
            f"{end['shift_cosine'][0]:.3f} / {end['shift_ratio'][0]:.3g}",
            f"{end['inverse_loss']:.3g}",
        ]
        for (method, length), end in ends.items()
        if method in shown
    ]
    header = ["cosine / norm ratio", "whole update", "target of the first step", "inverse loss"]
    caption = (
        "The whole update of the recurrent layer, and the target of its first step, against the gradient, at the end of training. The inverse's loss is the "
        "squared error of reconstruction / 2 a transition, or the (negative) loss of difference reconstruction."
    )
    return [picture, Table(header, lines, caption)]
