"""The report of both experiments on digits: errors over images, what these cost, answers step by step, a confusion matrix, a table."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from onward.lab.figures import (
    Row,
    Run,
    canvas,
    cell,
    colours_of,
    curve_with_spread,
    grid,
    interval_cell,
    level,
    published,
    spread_words,
)
from onward.lab.page import COLOURS, GREY, Picture, heat
from onward.lab.papers.digits import CLASSES, COLUMNAR, LAYERED, UNITS, DigitsExperiment
from onward.text import counted, sentence

PALETTE = (*COLOURS, "#8c564b", GREY, "#9acd32", "#4b0082", "#aaaaaa", "#444444")
# Where an error of none is drawn.
LEAST = 1e-3


def report(run: Run[DigitsExperiment]) -> tuple[str, list[Any]]:
    """The lead and the parts of the page."""
    experiment, rows, many = run.experiment, run.rows, len(run.experiment.images.test_labels)
    online = [m for m in rows if m["name"] in {*COLUMNAR, *UNITS, *LAYERED}]
    best = max(online or rows, key=lambda m: m["mean"])
    majority = run.references["majority-class"]
    lead = (
        f"{best['name']} classifies {best['mean']:.1%} of {many:,} held-out {_named(experiment)} after reading their "
        f"{'rows' if experiment.by == 'rows' else 'pixels'} one by one (mean of {counted(len(best['values']), 'seed')}; always answering the most frequent "
        f"class: {majority:.1%})."
    )
    if experiment.notice:
        lead = f"{sentence(experiment.notice)} {lead}"
    table = run.table(
        {
            "mean": cell(".4f"),
            "95 % interval": interval_cell(4),
            "range": lambda m: f"{min(m['values']):.4f} - {max(m['values']):.4f}",
        }
        | ({"paper": published} if any(m["published"] is not None for m in rows) else {})
        | {
            "step size": cell("g", "step_size"),
            "images seen": lambda m: f"{_images(experiment, m):,.0f}",
            "CPU µs an image": lambda m: f"{_cost(experiment, m):.0f}",
        },
        {"majority class (Frequencies)": [f"{majority:.4f}"]},
        f"Test accuracy at the end over {run.seeds} (95 % bootstrap interval of the mean), {many:,} images; one is {1 / many:.2%}. CPU: learning only, a seed.",
    )
    name = best["name"]
    return lead, [_curves(run, majority), table, _costs(run, majority), _reading(run, name), _confusion(run, name)]


def _images(experiment: DigitsExperiment, row: Row) -> float:
    """Images that a run has seen."""
    return float(row["steps"] * experiment.images_per_step(row["name"]))


def _cost(experiment: DigitsExperiment, row: Row) -> float:
    """CPU microseconds an image and seed."""
    return float(1e6 * row["cpu_seconds"] / len(row["values"]) / _images(experiment, row))


def _named(experiment: DigitsExperiment) -> str:
    return {"digits": "8x8 digits", "mnist": "MNIST digits"}.get(experiment.data, f"images of {experiment.data}")


def _curves(run: Run[DigitsExperiment], majority: float) -> Picture:
    figure, axes = canvas(4.6)
    experiment, colours = run.experiment, colours_of(run.rows, PALETTE)
    for row in run.rows:
        name, colour = row["name"], colours[row["name"]]
        steps, values = run.curve(row, "test_accuracy")
        scale = experiment.images_per_step(name) / 1e3
        error = np.maximum(1 - values, LEAST)
        curve_with_spread(axes, steps * scale, error, label=f"{name}: {1 - row['mean']:.3f}", colour=colour)
        for grown in row["grown_at"] if len(row["grown_at"]) < 10 else ():
            axes.plot([grown * scale] * 2, [0, 0.025], color=colour, lw=1, transform=axes.get_xaxis_transform())
    level(axes, 1 - majority, "majority class")
    _as_errors(axes)
    axes.set(xlabel="images seen (thousands)", xlim=(0, None))
    figure.legend(loc="outside lower center", ncols=4, title="mean error at the end")
    return Picture(
        "accuracy",
        figure,
        f"Share of errors on {len(experiment.images.test_labels):,} held-out {_named(experiment)}: mean over {run.seeds}; {spread_words(run.experiment.seeds)}. "
        "Ticks: a stage was added.",
    )


def _as_errors(axes: Axes) -> None:
    """Shares of errors on a log scale, in plain numbers."""
    axes.set(yscale="log", ylabel="test error")
    axes.set_ylim(bottom=min(axes.get_ylim()[0], 0.5))  # two ticks at least
    ticks = [tick for tick in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if axes.get_ylim()[0] <= tick]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _costs(run: Run[DigitsExperiment], majority: float) -> Picture:
    figure, axes = canvas(3.8)
    colours = colours_of(run.rows, PALETTE)
    cost = lambda row: _cost(run.experiment, row)
    for i, row in enumerate(sorted(run.rows, key=cost)):
        place = (cost(row), max(1 - row["mean"], LEAST))
        axes.scatter(*([at] for at in place), color=colours[row["name"]], s=45, zorder=3)
        side, shift = (("right", (-6, -12)), ("left", (6, 5)))[i % 2]
        axes.annotate(row["name"], place, xytext=shift, textcoords="offset points", fontsize=9, ha=side)
    level(axes, 1 - majority, "majority class")
    _as_errors(axes)
    axes.set(xscale="log", xlabel="CPU µs an image and seed, learning only")
    axes.margins(x=0.2)
    axes.set_ylim(bottom=0.75 * axes.get_ylim()[0])
    return Picture(
        "cost", figure, "What an image costs, and the errors that are left (the images seen are in the table)."
    )


def _reading(run: Run[DigitsExperiment], name: str) -> Picture:
    experiment = run.experiment
    answers = run.inspected(name)["probabilities"]
    time, many, _ = answers.shape
    images, labels = experiment.images.test_images[:many], experiment.images.test_labels[:many]
    wrong = np.flatnonzero(answers[-1].argmax(-1) != labels)
    shown = [
        int(np.flatnonzero(labels == c)[min(1, np.sum(labels == c) - 1)])
        for c in (3, 5, 8, 0, 4)
        if (labels == c).any()
    ]
    shown += [int(i) for i in wrong[:1]]
    figure, axes = grid(2, len(shown), 3.6, sharey="row")
    extent = (-0.5, CLASSES - 0.5, time + 0.5, 0.5)
    for column, image in zip(axes.T, shown, strict=True):
        answer = answers[-1, image].argmax()
        column[0].imshow(images[image], cmap="Greys", vmin=0, vmax=experiment.images.top)
        column[0].set_title(
            f"a {labels[image]}" + ("" if answer == labels[image] else f", read as {answer}"), fontsize=9
        )
        heat(column[1], answers[:, image], vmin=0, vmax=1, aspect="auto", extent=extent)
        column[1].set(xticks=range(CLASSES), xlabel="class")
        column[1].tick_params(labelsize=6)
        for a in column:
            a.spines[:].set_visible(False)
        column[0].set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("the image")
    axes[1, 0].set(ylabel=f"{experiment.by} read")
    return Picture(
        "reading",
        figure,
        f"Held-out digits, and below each the probability that {name} (seed {experiment.first_seed}) gives to each class after each step: dark 0, "
        f"bright 1. It was trained on the answer after {'every' if experiment.every else 'the last'} step{'' if experiment.every else ' only'}.",
    )


def _confusion(run: Run[DigitsExperiment], name: str) -> Picture:
    labels = run.experiment.images.test_labels
    counts = np.zeros((CLASSES, CLASSES), int)
    np.add.at(counts, (labels, run.inspected(name)["answers"]), 1)
    figure, axes = canvas(4.4, 4.6)
    axes.imshow(np.sqrt(counts), cmap="Blues")
    for i, j in np.argwhere(counts):
        axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=7, color="white" if i == j else "black")
    axes.set(xticks=range(CLASSES), yticks=range(CLASSES), xlabel="answer", ylabel="truth")
    axes.spines[:].set_visible(False)
    return Picture(
        "confusion",
        figure,
        f"The {len(labels):,} held-out digits as {name} (seed {run.experiment.first_seed}) reads them.",
    )
