"""The report of the memory experiment: learning curves, what networks predict at the end, finals of every seed, a table."""

import math
from typing import Any

import numpy as np

from onward.lab.experiment import plan_of
from onward.lab.figures import (
    Row,
    Run,
    canvas,
    cell,
    cpu_a_step,
    curve_with_spread,
    dashed,
    finals,
    grid,
    spread_columns,
    spread_words,
)
from onward.lab.page import COLOURS, GREY, Picture
from onward.lab.papers.memory import WINDOWS, MemoryExperiment

LEVELS = {
    "predict-marginal": "frequencies",
    "memoryless": "memoryless",
    "counter-blind": "cannot count",
    "bayes": "best possible",
}
# The truncated networks are grey, darker with a longer window.
METHOD_COLOURS = dict(zip(("rtrl", "snap-1", "uoro", "columns"), COLOURS, strict=False))
METHOD_COLOURS |= {
    f"tbptt-{k}": grey for k, grey in zip(WINDOWS, ("#c8c8c8", "#9a9a9a", "#5f5f5f", "#000000"), strict=True)
}


def report(run: Run[MemoryExperiment]) -> tuple[str, list[Any]]:
    """The lead and the parts of the page."""
    experiment, rows, references = run.experiment, run.rows, run.references
    unit = "recalled symbol" if experiment.task == "copy" else "character"
    best, short = min(rows, key=lambda m: m["mean"]), _truncated(experiment, rows)
    lead = (
        f"{best['name']} ends at {best['mean']:.4f} nats a {unit} over {run.seeds}, "
        f"where the best possible is {references['bayes']:.4f} and a prediction from the current input alone {references['memoryless']:.4f}."
    )
    if short is not None:
        lead += (
            f" {short['name']}, whose gradient goes back {int(short['name'].split('-')[1]) - 1} of the up to {experiment.horizon} steps that matter, "
            f"ends at {short['mean']:.4f}."
        )
    columns, levels = spread_columns(4), {k: [f"{v:.4f}"] for k, v in references.items()}
    if experiment.task == "anbn":
        bits = lambda value: f"{value / math.log(2):.4f}"
        columns = {"mean": columns.pop("mean"), "mean, bits": lambda m: bits(m["mean"]), **columns}
        levels = {k: [*nats, bits(references[k])] for k, nats in levels.items()}
    table = run.table(
        columns | {"step size": cell("g", "step_size"), "CPU µs a step": cpu_a_step(1)},
        {f"exact level: {k}": cells for k, cells in levels.items()},
        f"Mean cross-entropy in nats a {unit} over the last {experiment.final_window:,} of {experiment.steps:,} steps, over seeds (95 % bootstrap interval of the mean).",
    )
    parts = [_curves(run), table, _stream(run)]
    return lead, [*parts, finals(rows, references, label="cross-entropy at the end (nats)", colours=METHOD_COLOURS)]


def _truncated(experiment: MemoryExperiment, rows: list[Row]) -> Row | None:
    """Of the networks whose window ends before what they need, the one with the longest window."""
    short = {k: m for k in WINDOWS for m in rows if m["name"] == f"tbptt-{k}" and k <= experiment.horizon}
    return short[max(short)] if short else None


def _curves(run: Run[MemoryExperiment]) -> Picture:
    figure, axes = canvas(4.9)
    experiment = run.experiment
    for row in run.rows:
        steps, values = run.curve(row)
        shown = np.isfinite(values).all(1)
        label, colour = f"{row['name']}: {row['mean']:.3f}", METHOD_COLOURS[row["name"]]
        curve_with_spread(axes, steps[shown] / 1e3, values[shown], label=label, colour=colour)
        if row["name"].startswith("tbptt"):  # dashed, so that a curve beneath stays visible
            axes.lines[-1].set_linestyle((0, (2.5, 1)))
    top = 1.25 * run.references["memoryless"]
    for name, value in run.references.items():
        if value < top:
            dashed(axes, value)
            where: Any = {"xycoords": ("axes fraction", "data"), "xytext": (5, 0), "textcoords": "offset points"}
            axes.annotate(LEVELS[name], (1, value), va="center", color=GREY, fontsize=9, **where)
    axes.set(xlabel="steps (thousands)", ylabel="cross-entropy (nats)", xlim=(0, experiment.steps / 1e3))
    axes.set(ylim=(-0.03 * top, top), title="Error of the prediction made before each update")
    figure.legend(loc="outside lower center", ncols=min(4, len(run.rows)), title="mean at the end")
    return Picture(
        "learning-curves",
        figure,
        f"Lines: mean over {run.seeds}; {spread_words(run.experiment.seeds)}. Horizontal lines: exact levels.",
    )


def _stream(run: Run[MemoryExperiment]) -> Picture:
    experiment = run.experiment
    by_name = {m["name"]: m for m in run.rows}
    exact = by_name.get("rtrl") or min(run.rows, key=lambda m: m["mean"])
    short = _truncated(experiment, run.rows)
    shown = [exact] + ([short] if short is not None and short is not exact else [])
    copying = experiment.task == "copy"
    names = [*map(str, range(experiment.symbols)), "cue"] if copying else ["a", "b", "newline"]
    answers = names[: experiment.classes]
    tall = 0.24 * (len(names) + len(shown) * len(answers))
    heights = [len(names), *[len(answers)] * len(shown)]
    figure, column = grid(len(heights), 1, 1.9 + 0.35 * len(shown) + tall, sharex=True, height_ratios=heights)
    panels = column[:, 0]
    image: Any = None
    for row, axes in zip(shown, panels[1:], strict=True):
        # The records are of the first run: the first step size.
        seen, size = run.records(row["name"]), plan_of(experiment, row["name"])[0][0][0]
        due = seen["weight"] > 0
        chances = np.where(due, np.exp(seen["prediction"]).T, np.nan)
        image = axes.imshow(chances, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.scatter(np.flatnonzero(due), seen["y"][due], s=13, color=COLOURS[1], lw=0)
        axes.set(yticks=range(len(answers)), yticklabels=answers)
        what = "symbol due" if copying else "next character"
        axes.set_title(f"Probability of the {what}: {row['name']}, step size {size:g}", fontsize=9)
        panels[0].imshow(seen["x"].T, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    panels[0].set(yticks=range(len(names)), yticklabels=names)
    panels[0].set_title("What comes in", fontsize=9)
    for axes in panels:
        axes.tick_params(axis="y", labelsize=8, length=0)
        axes.spines[:].set_visible(False)
    panels[-1].set(xlabel="step")
    figure.colorbar(image, ax=list(panels[1:]), label="probability", shrink=0.9, pad=0.01)
    too_short = (
        f" {shown[1]['name']} is the truncated network with the longest window that is too short." if shown[1:] else ""
    )
    return Picture(
        "stream",
        figure,
        f"A stretch of the stream after the last step (seed {experiment.first_seed}): blue, the probability that a network gives to each answer; "
        f"orange dots, what is right.{too_short}",
    )
