"""The report of trace patterning: curves over steps and compute, step sizes, alignment, windows of the stream, finals, a table."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from onward.lab.experiment import plan_of
from onward.lab.figures import (
    Row,
    Run,
    canvas,
    cell,
    colours_of,
    cpu_a_step,
    curve_with_spread,
    dashed,
    finals,
    grid,
    legend_beside,
    level,
    sensitivity,
    spread_columns,
    spread_words,
)
from onward.lab.page import COLOURS, Picture
from onward.lab.papers.trace_patterning import STRUCTURES, TracePatterningExperiment

LEVELS = {"predict-zero": "predict zero", "pattern-blind": "pattern-blind timer", "bayes": "Bayes: the best possible"}
# More methods than this are drawn with intervals of the mean, and of more than MOST truncated ones only the best.
FEW, MOST = 3, 7


def report(run: Run[TracePatterningExperiment]) -> tuple[str, list[Any]]:
    """The lead and the parts of the page."""
    experiment, rows, references = run.experiment, run.rows, run.references
    best = min(rows, key=lambda m: m["mean"])
    share = (references["predict-zero"] - best["mean"]) / (references["predict-zero"] - references["bayes"])
    lead = (
        f"{best['name']} came {share:.0%} of the way from knowing nothing (error {references['predict-zero']:.4f}) to the best that any predictor can "
        f"do (Bayes, {references['bayes']:.5f}): its mean squared error is {best['mean']:.5f} over {run.seeds}, after {best['steps']:,} steps of one pass over an endless stream."
    )
    table = run.table(
        spread_columns(5)
        | {
            "step size": cell("g", "step_size"),
            "multiply-adds": lambda m: f"{experiment.cost(m['name']):,}",
            "CPU µs a step": cpu_a_step(2),
        },
        {f"exact level: {k}": [f"{v:.5f}"] for k, v in references.items()},
        f"Mean squared return error over the last {experiment.final_window:,} steps, over seeds (95 % bootstrap interval of the mean). The exact levels are "
        "computed by enumerating every trial. Multiply-adds: forward pass and gradient of one step, fully grown. The paper published curves over 50 M steps and no numbers.",
    )
    parts: list[Any] = [_curves(run), table]
    if any(m["name"] not in STRUCTURES for m in rows):
        parts += [_against_compute(run)]
    if run.sizes_tried:
        parts += [_step_sizes(run)]
    parts += [_alignment(run, m) for m in rows if experiment.watch and m["name"] not in STRUCTURES]
    parts += [_window(run, best["name"]), finals(rows, references, label="mean squared return error at the end")]
    return lead, parts


def _shown(rows: list[Row]) -> list[Row]:
    """At most one truncated network, the best, so that a figure stays readable."""
    truncated = [m for m in rows if m["name"].startswith("tbptt")]
    worse = sorted(truncated, key=lambda m: m["mean"])[1:] if len(rows) > MOST else []
    return [m for m in rows if m not in worse]


def _levels(axes: Axes, references: dict[str, float]) -> None:
    for name, value in references.items():
        level(axes, value, LEVELS[name], above=name != "bayes")


def _curves(run: Run[TracePatterningExperiment]) -> Picture:
    figure, axes = canvas(4.4)
    shown = _shown(run.rows)
    colours, many = colours_of(shown), len(shown) > FEW
    for i, row in enumerate(shown):
        steps, values = run.curve(row)
        colour = colours[row["name"]]
        curve_with_spread(axes, steps / 1e6, values, label=row["name"], colour=colour)
        for grown in row["grown_at"]:
            span = (0.022 * i, 0.022 * i + 0.018)
            axes.plot([grown / 1e6] * 2, span, color=colour, lw=1.2, transform=axes.get_xaxis_transform())
    _levels(axes, run.references)
    axes.set(
        xlabel="steps (millions)",
        ylabel="mean squared return error",
        ylim=(-0.0018, 1.6 * run.references["predict-zero"] if many else None),
        xlim=(0, run.experiment.steps / 1e6),
    )
    axes.set_title("Error of the prediction made before each update")
    legend_beside(axes)
    return Picture(
        "learning-curves",
        figure,
        f"Lines: mean over {run.seeds}; {spread_words(run.experiment.seeds)}; ticks at the bottom: a stage was added. "
        "Dashed: exact levels. No predictor of this stream can do better than Bayes."
        + (" Of the truncated networks, the best." if len(shown) < len(run.rows) else ""),
    )


def _against_compute(run: Run[TracePatterningExperiment]) -> Picture:
    figure, axes = canvas(4.2)
    shown = _shown(run.rows)
    colours = colours_of(shown)
    for row in shown:
        steps, values = run.curve(row)
        spent = run.experiment.spent(row["name"], steps, row["grown_at"])
        axes.plot(spent / 1e9, values.mean(1), color=colours[row["name"]], lw=1.6, label=row["name"])
    _levels(axes, run.references)
    axes.set(xlabel="multiply-adds spent (billions)", ylabel="mean squared return error", xlim=(0, None))
    axes.set(ylim=(0, 1.3 * run.references["predict-zero"]), title="Error against compute")
    legend_beside(axes)
    return Picture(
        "compute",
        figure,
        "The same curves against the multiply-adds spent so far: forward pass and gradient; a network that grows is cheaper before. "
        "A method ends where its steps end. Dashed: exact levels.",
    )


def _step_sizes(run: Run[TracePatterningExperiment]) -> Picture:
    figure, axes = canvas(4.2)
    sensitivity(axes, _shown(run.rows), run.summary["methods"])
    _levels(axes, run.references)
    axes.set(ylabel="error at the end", ylim=(0, 1.3 * run.references["predict-zero"]), title="Which step size")
    legend_beside(axes)
    return Picture(
        "step-sizes",
        figure,
        "Mean over seeds at the end, with its 95 % bootstrap interval, for every step size that was run.",
    )


def _alignment(run: Run[TracePatterningExperiment], row: Row) -> Picture:
    figure, ((cosine, ratio),) = grid(1, 2, 3.4)
    for colour, rule in zip(COLOURS, (row["name"], *run.experiment.watch), strict=False):
        for axes, what in ((cosine, "cosine"), (ratio, "ratio")):
            steps, values = run.curve(row, f"{rule} {what}")
            curve_with_spread(axes, steps / 1e6, values, label=rule, colour=colour)
    dashed(cosine, 1)
    dashed(ratio, 1)
    cosine.set(xlabel="steps (millions)", title="Cosine to the exact gradient", ylim=(-0.1, 1.05))
    ratio.set(xlabel="steps (millions)", title="Norm, relative to it", yscale="log")
    legend_beside(ratio)
    return Picture(
        f"alignment-{row['name']}",
        figure,
        f"The gradient of the prediction at each step, by the rule that trains ({row['name']}) and by rules that ride along, "
        "compared with exact RTRL on the same network. Means over the steps of a point; "
        f"{spread_words(run.experiment.seeds)}.",
    )


def _window(run: Run[TracePatterningExperiment], name: str) -> Picture:
    experiment = run.experiment
    figure, column = grid(4, 1, 4.8, sharex=True, height_ratios=(1, 2, 1, 2))
    axes = column[:, 0]
    for when, title, (inputs, answers) in (
        ("start", "The first 600 steps", axes[:2]),
        ("end", f"After {experiment.steps:,} steps", axes[2:]),
    ):
        seen = run.records(name, when)
        _inputs(inputs, seen["x"], experiment.task.cs_inputs)
        inputs.set_title(title)
        time = np.arange(len(seen["x"]))
        answers.fill_between(time, seen["truth"], color="#d9d9d9", lw=0, label="true return")
        answers.plot(time, seen["prediction"], color=COLOURS[1], lw=1.4, label="prediction")
        answers.set(ylim=(-0.15, 1.1), ylabel="return", xlim=(0, len(time)))
    axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1.2), fontsize=8, handletextpad=0.2)
    axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    axes[3].set(xlabel="step within the window")
    return Picture(
        "windows",
        figure,
        f"What {name} (seed {experiment.first_seed}, step size {plan_of(experiment, name)[0][0][0]:g}) sees, and what it predicts. The grey ramps are "
        "the return before a US that comes; a good prediction follows them and stays flat else. When exactly the US comes is random, so even "
        "the best prediction is not sharp.",
    )


def _inputs(axes: Axes, x: np.ndarray, us: int) -> None:
    """When each input (time, inputs) is on: a line of marks each, `us` being the place of the US."""
    groups = (
        ("pattern", range(us), COLOURS[0]),
        ("US", (us,), COLOURS[1]),
        ("distractors", range(us + 1, x.shape[1]), "#c4c4c4"),
    )
    for label, columns, colour in groups:
        for column in columns:
            on = np.flatnonzero(x[:, column])
            named = label if column == columns[0] else None
            axes.scatter(on, np.full(len(on), -column), s=7, marker="s", color=colour, label=named)
    axes.set(yticks=[], ylim=(-x.shape[1], 1))
    axes.spines["left"].set_visible(False)
