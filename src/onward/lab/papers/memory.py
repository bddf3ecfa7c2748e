"""Copying and counting: streams on which truncated and biased gradients show."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import PRNGKeyArray

from onward.cells.base import AbstractCell, AbstractGates
from onward.cells.columns import Columns
from onward.cells.dense import Dense
from onward.cells.gru import GRUGates
from onward.cells.lstm import LSTMGates
from onward.credit.columnwise import Columnwise
from onward.errors import OnwardError
from onward.heads.categorical import Categorical
from onward.lab import metrics
from onward.lab.experiment import Experiment, batch_axis, require_positive, rule_named
from onward.lab.results import best_rows, curves_of, load_environment, load_records, load_summary, plan_of
from onward.lab.train import Method, job_names, read_metrics
from onward.learners.online import Online
from onward.learners.optimisers import rms
from onward.model import Model
from onward.objectives.supervised import Supervised
from onward.tasks.anbn import AnBn
from onward.tasks.copy import Copy

WINDOWS = (1, 4, 10, 20)
SECOND_MOMENT_DECAY = 0.999
COLUMN_SPREAD = 0.5
RECORDED = 60
FINAL_WINDOW = 10_000
# By task, the best of three sizes for each method, and that of the methods not named (docs/experiments/memory.md).
STEP_SIZES = {
    "copy": {"snap-1": 3e-3, "uoro": 3e-3, "tbptt-1": 3e-3, "tbptt-4": 3e-3},
    "anbn": {"uoro": 1e-3, "tbptt-1": 1e-3, "columns": 1e-3},
}
OTHER_STEP_SIZE = {"copy": 1e-2, "anbn": 3e-4}
LEVELS = {
    "predict-marginal": "frequencies",
    "memoryless": "memoryless",
    "counter-blind": "cannot count",
    "bayes": "best possible",
}


@dataclass(frozen=True)
class MemoryExperiment(Experiment):
    """Recall symbols after a delay, or count, from one endless stream that is never cut into sequences.

    One network and one optimiser, and several ways to assign credit: exact (rtrl), biased (snap-1, tbptt), unbiased
    but noisy (uoro), and columns, whose exact gradient is cheap. The error is the mean cross-entropy, in nats, of the
    predictions made before each update, where there is something to predict.
    """

    name: ClassVar[str] = "memory"
    title: ClassVar[str] = "Memory: exact, biased and truncated credit on copying and counting"

    methods: tuple[str, ...] = ("rtrl", "snap-1", "uoro", *(f"tbptt-{k}" for k in WINDOWS), "columns")
    seeds: int = 8
    first_seed: int = 0
    step_sizes: tuple[float, ...] = ()
    task: Literal["copy", "anbn"] = "copy"
    """Say the symbols again after a delay; or predict n times a, a newline, n times b, a newline, with a new n each time."""
    steps: int = 60_000
    """Steps of each run."""
    cell: Literal["gru", "lstm"] = "gru"
    """Kind of unit, of the dense layer and of the columns."""
    units: int = 12
    """Units of the dense layer. The columnar network gets the columns that make about as many parameters."""
    memory_bias: float = 1.0
    """Added to the first bias of the GRU's update gate or the LSTM's forget gate."""
    length: int = 2
    """copy: symbols to remember."""
    delay: int = 8
    """copy: blank steps before the recall; a symbol is due length + delay steps after it was shown."""
    symbols: int = 2
    """copy: different symbols."""
    least: int = 1
    """anbn: least n."""
    most: int = 8
    """anbn: greatest n."""

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """Every rule on the same dense layer, then columns."""
        return ("rtrl", "snap-1", "uoro", *(f"tbptt-{k}" for k in WINDOWS), "columns")

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        require_positive(steps=self.steps, units=self.units, length=self.length, least=self.least)
        if self.delay < 0:
            raise OnwardError(f"--delay must not be negative, got {self.delay}")
        if self.symbols < 2:
            raise OnwardError(f"--symbols must be at least 2, got {self.symbols}")
        if self.most < self.least:
            raise OnwardError(f"--most must be at least --least, {self.least}, got {self.most}")
        if not math.isfinite(self.memory_bias):
            raise OnwardError(f"--memory-bias must be finite, got {self.memory_bias}")
        if self.task == "copy" and self.steps < 10 * self.stream.period:
            least = 10 * self.stream.period
            raise OnwardError(f"--steps must be at least {least}, ten episodes of this stream, got {self.steps}")

    @property
    def stream(self) -> Any:
        """The task itself."""
        if self.task == "copy":
            return Copy(self.length, self.delay, self.symbols)
        return AnBn(self.least, self.most)

    @property
    def classes(self) -> int:
        """What is predicted: symbols, or the three characters."""
        return self.symbols if self.task == "copy" else 3

    @property
    def horizon(self) -> int:
        """Steps back that credit must reach for every prediction to be learned: to the symbol, or to the first a."""
        return self.length + self.delay if self.task == "copy" else 2 * self.most

    def default_step_size(self, name: str) -> float:
        """From the sweeps in docs/experiments/memory.md."""
        return STEP_SIZES[self.task].get(name, OTHER_STEP_SIZE[self.task])

    @property
    def fuse_outputs(self) -> bool:
        """Only for columns."""
        return self.methods == ("columns",)

    @property
    def columns(self) -> int:
        """Columns with about as many parameters as the dense layer: k (inputs + 2) = units (units + inputs + 1)."""
        inputs = self.stream.inputs
        return max(1, round(self.units * (self.units + inputs + 1) / (inputs + 2)))

    def build(self, name: str) -> Method:
        """The same layer, head and optimiser with another rule; or columns."""
        task, kind = self.stream, self.cell.upper()
        gates: AbstractGates = GRUGates(self.memory_bias) if self.cell == "gru" else LSTMGates(self.memory_bias)
        columnar = name == "columns"
        rule = Columnwise() if columnar else rule_named(name)
        width = self.columns if columnar else self.units

        def model(key: PRNGKeyArray) -> Model:
            cell: AbstractCell
            if columnar:
                cell = Columns(gates, task.inputs, width, key=key, spread=COLUMN_SPREAD)
            else:
                cell = Dense(gates, task.inputs, width, key=key)
            return Model(cell, Categorical(width, self.classes))

        def learner(model: Model, step_size: Any) -> Online:
            return Online(rule, Supervised(), rms(SECOND_MOMENT_DECAY), step_size)

        layer = f"{width} {kind} columns" if columnar else f"dense layer of {width} {kind} unit{'s' * (width > 1)}"
        return Method(
            name=name,
            task=task,
            model=model,
            learner=learner,
            steps=self.steps,
            measure=metrics.stream_loss,
            metric="nats",
            point_every=self.point_every,
            record_steps=RECORDED if self.task == "anbn" else max(RECORDED, 3 * task.period),
            batch_axis=batch_axis(rule, width),
            note=layer,
        )

    @property
    def final_window(self) -> int:
        """The last steps, over which the reported error is averaged."""
        return min(FINAL_WINDOW, max(1, self.steps // 5))

    @property
    def point_every(self) -> int:
        """A tenth of it, in whole episodes, so that every point of a curve holds as many recalls."""
        tenth = max(1, self.final_window // 10)
        return tenth if self.task == "anbn" else self.stream.period * max(1, tenth // self.stream.period)

    @property
    def final_metric(self) -> str:
        """Mean cross-entropy at the end, in nats."""
        return "cross_entropy"

    def final_values(self, lines: Sequence[dict[str, Any]]) -> np.ndarray:
        """Mean over the final window, weighted as the loss is."""
        late = [m for m in lines if m["step"] > self.steps - self.final_window]
        weights = np.asarray([self._weight(m["step"]) - self._weight(m["step"] - m["count"]) for m in late], float)
        values = np.asarray([m["values"] for m in late])[weights > 0]  # the last point may hold no recall
        return values.T @ weights[weights > 0] / weights.sum()

    def _weight(self, step: int) -> int:
        """Steps with something to predict among the first `step`."""
        if self.task == "anbn":
            return step
        episodes, phase = divmod(step, self.stream.period)
        return episodes * self.length + max(0, phase - self.stream.lag)

    def references(self) -> dict[str, float]:
        """Exact, from the task."""
        levels: dict[str, float] = self.stream.references()
        return levels

    def write_report(self, folder: Path) -> Path:
        """Learning curves, what two networks predict at the end, finals of every seed, and a table."""
        from onward.lab import page as report

        with report.style():
            return _report(self, folder)


def _report(experiment: MemoryExperiment, folder: Path) -> Path:
    from onward.lab import page as report

    summary = load_summary(folder)
    rows, references = best_rows(summary, type(experiment)), summary["references"]
    unit = "recalled symbol" if experiment.task == "copy" else "character"
    best, short = min(rows, key=lambda m: m["mean"]), _truncated(experiment, rows)
    lead = (
        f"{best['name']} ends at {best['mean']:.4f} nats a {unit} over {len(best['values'])} seed{'s' * (len(best['values']) > 1)}, "
        f"where the best possible is {references['bayes']:.4f} and a prediction from the current input alone {references['memoryless']:.4f}."
    )
    if short is not None:
        lead += (
            f" {short['name']}, whose gradient goes back {int(short['name'].split('-')[1]) - 1} of the up to {experiment.horizon} steps that matter, "
            f"ends at {short['mean']:.4f}."
        )
    bits = experiment.task == "anbn"
    header = ["method", "mean", "95 % interval", "sd", "best", "worst", "step size", "CPU µs a step"]
    in_bits = lambda value: [f"{value / math.log(2):.4f}"] if bits else []
    table = report.Table(
        header[:2] + ["mean, bits"] * bits + header[2:],
        [
            [
                f"{m['name']} ({m['note']})",
                f"{m['mean']:.4f}",
                *in_bits(m["mean"]),
                "{:.4f} - {:.4f}".format(*report.interval(m["values"])),
                *(f"{v:.4f}" for v in (m["std"], min(m["values"]), max(m["values"]))),
                f"{m['step_size']:g}",
                f"{1e6 * m['cpu_seconds'] / (m['steps'] * len(m['values'])):.1f}",
            ]
            for m in rows
        ]
        + [[f"exact level: {k}", f"{v:.4f}", *in_bits(v), *[""] * 6] for k, v in references.items()],
        f"Mean cross-entropy in nats a {unit} over the last {experiment.final_window:,} of {experiment.steps:,} steps, over seeds (95 % bootstrap "
        "interval of the mean)."
        + (" Of each method its best step size." if len(summary["methods"]) > len(rows) else ""),
    )
    parts = [_curves(experiment, folder, rows, references), table, _stream(experiment, folder, rows)]
    parts += [report.finals(rows, references, label="cross-entropy at the end (nats)", colours=_colours())]
    settings = json.dumps({**summary["config"], "environment": load_environment(folder)}, indent=1)
    return report.write_page(folder, title=experiment.title, lead=lead, parts=parts, settings=settings)


def _truncated(experiment: MemoryExperiment, rows: Any) -> Any:
    """Of the networks whose window ends before what they need, the one with the longest window."""
    short = {k: m for k in WINDOWS for m in rows if m["name"] == f"tbptt-{k}" and k <= experiment.horizon}
    return short[max(short)] if short else None


def _colours() -> dict[str, str]:
    """A colour a method; the truncated networks are grey, darker with a longer window."""
    from onward.lab import page as report

    greys = ("#c8c8c8", "#9a9a9a", "#5f5f5f", "#000000")
    named = dict(zip(("rtrl", "snap-1", "uoro", "columns"), report.COLOURS, strict=False))
    return named | {f"tbptt-{k}": grey for k, grey in zip(WINDOWS, greys, strict=True)}


def _curves(experiment: MemoryExperiment, folder: Path, rows: Any, references: dict[str, float]) -> Any:
    from matplotlib.figure import Figure

    from onward.lab import page as report

    figure = Figure(figsize=(8.2, 4.9), layout="constrained")
    axes = figure.subplots()
    lines, colours = read_metrics(folder), _colours()
    for row in rows:
        steps, values = curves_of(experiment, lines, row["name"], row["step_size"])
        shown = np.isfinite(values).all(1)
        label = f"{row['name']}: {row['mean']:.3f}"
        report.curve_with_spread(axes, steps[shown] / 1e3, values[shown], label=label, colour=colours[row["name"]])
        if row["name"].startswith("tbptt"):  # dashed, so that a curve beneath stays visible
            axes.lines[-1].set_linestyle((0, (2.5, 1)))
    top = 1.25 * references["memoryless"]
    for name, value in references.items():
        if value < top:
            axes.axhline(value, color=report.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
            where: Any = {"xycoords": ("axes fraction", "data"), "xytext": (5, 0), "textcoords": "offset points"}
            axes.annotate(LEVELS[name], (1, value), va="center", color=report.GREY, fontsize=9, **where)
    axes.set(xlabel="steps (thousands)", ylabel="cross-entropy (nats)", xlim=(0, experiment.steps / 1e3))
    axes.set(ylim=(-0.03 * top, top), title="Error of the prediction made before each update")
    figure.legend(loc="outside lower center", ncols=min(4, len(rows)), title="mean at the end")
    return report.Picture(
        "learning-curves",
        figure,
        f"Lines: mean over {experiment.seeds} seed{'s' * (experiment.seeds > 1)}; bands: best to worst seed. Horizontal lines: exact levels.",
    )


def _stream(experiment: MemoryExperiment, folder: Path, rows: Any) -> Any:
    from matplotlib.figure import Figure

    from onward.lab import page as report

    by_name = {m["name"]: m for m in rows}
    exact = by_name.get("rtrl") or min(rows, key=lambda m: m["mean"])
    short = _truncated(experiment, rows)
    shown = [exact] + ([short] if short is not None and short is not exact else [])
    copying = experiment.task == "copy"
    names = [*map(str, range(experiment.symbols)), "cue"] if copying else ["a", "b", "newline"]
    answers = names[: experiment.classes]
    tall = 0.24 * (len(names) + len(shown) * len(answers))
    figure = Figure(figsize=(8.2, 1.9 + 0.35 * len(shown) + tall), layout="constrained")
    heights = [len(names), *[len(answers)] * len(shown)]
    panels = figure.subplots(1 + len(shown), 1, sharex=True, height_ratios=heights)
    image: Any = None
    for row, axes in zip(shown, panels[1:], strict=True):
        plan = plan_of(experiment, row["name"])
        # The records are of the first run of the first tile: the first step size.
        seen = load_records(folder, job_names(row["name"], len(plan))[0], "end")
        asked = seen["weight"] > 0
        chances = np.where(asked, np.exp(seen["prediction"]).T, np.nan)
        image = axes.imshow(chances, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.scatter(np.flatnonzero(asked), seen["y"][asked], s=13, color=report.COLOURS[1], lw=0)
        axes.set(yticks=range(len(answers)), yticklabels=answers)
        what = "symbol due" if copying else "next character"
        axes.set_title(f"Probability of the {what}: {row['name']}, step size {plan[0][0][0]:g}", fontsize=9)
        panels[0].imshow(seen["x"].T, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    panels[0].set(yticks=range(len(names)), yticklabels=names)
    panels[0].set_title("What comes in", fontsize=9)
    for axes in panels:
        axes.tick_params(axis="y", labelsize=8, length=0)
        axes.spines[:].set_visible(False)
    panels[-1].set(xlabel="step")
    figure.colorbar(image, ax=list(panels[1:]), label="probability", shrink=0.9, pad=0.01)
    return report.Picture(
        "stream",
        figure,
        f"A stretch of the stream after the last step (seed {experiment.first_seed}): blue, the probability that a network gives to each answer; "
        "orange dots, what is right."
        + (
            f" {short['name']} is the truncated network with the longest window that is too short."
            if len(shown) > 1
            else ""
        ),
    )
