"""Trace patterning (Javed et al.): columnar, constructive and columnar-constructive networks, online."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from onward.cells.base import AbstractGates
from onward.cells.cascade import Cascade
from onward.cells.columns import Columns
from onward.cells.dense import Dense
from onward.cells.gru import GRUGates
from onward.cells.lstm import LSTMGates
from onward.cells.moments import Moments
from onward.credit.base import AbstractCredit
from onward.credit.columnwise import Columnwise
from onward.credit.rtrl import RTRL
from onward.credit.tbptt import TBPTT
from onward.credit.uoro import UORO
from onward.errors import OnwardError
from onward.heads.linear import Linear
from onward.lab import metrics
from onward.lab.experiment import (
    Experiment,
    batch_axis,
    require_interval,
    require_positive,
    require_share,
    require_stages,
    rule_named,
)
from onward.lab.results import base_name, best_rows, curves_of, load_environment, load_records, load_summary, plan_of
from onward.lab.train import Growth, Method, job_names, read_metrics
from onward.learners.online import Online
from onward.learners.optimisers import rms, scale_head
from onward.learners.watched import Watched
from onward.model import Model
from onward.objectives.td import TDLambda
from onward.tasks.animal import AbstractConditioning, NoisyPatterning, TraceConditioning, TracePatterning

RECORDED = 600
FINAL_WINDOW = 200_000
STRUCTURES = ("ccn", "columnar", "constructive")
# Steps back and units of the truncated networks: the paper's grid, each at about 4,000 multiply-adds a step.
TBPTT_GRID = ((2, 13), (3, 10), (5, 8), (8, 5), (10, 5), (15, 4), (20, 3), (30, 2))
DENSE_STEP_SIZE = 3e-4


def trace_factor(gates: AbstractGates) -> int:
    """Multiply-adds a parameter of forward traces: 5 for the two states of an LSTM, 2 for one state."""
    return gates.states**2 + gates.states - (gates.states > 1)


def dense_cost(rule: AbstractCredit, gates: AbstractGates, inputs: int, units: int) -> int:
    """Multiply-adds a step of forward pass and gradient on a dense layer (docs/exactness.md)."""
    rows = len(gates.input_slots) * units
    parameters = rows * (units + inputs + 1)
    if isinstance(rule, TBPTT):
        return parameters + rule.window * (parameters + rows * units)
    if isinstance(rule, RTRL):
        return parameters + gates.states * units**2 * parameters
    return parameters + (3 if isinstance(rule, UORO) else trace_factor(gates)) * parameters


@dataclass(frozen=True)
class TracePatterningExperiment(Experiment):
    """Learn which of 20 patterns announces a stimulus some 30 steps later, from one endless stream.

    A prediction of the discounted return is made at every step, scored, and learned from with TD(lambda): by exact
    column traces, or on a dense layer by the rule a method names. The error is the mean squared difference from the true return.
    """

    name: ClassVar[str] = "trace-patterning"
    title: ClassVar[str] = "Trace patterning, learned online"

    methods: tuple[str, ...] = ("ccn", "columnar", "constructive")
    seeds: int = 16
    first_seed: int = 0
    step_sizes: tuple[float, ...] = ()
    steps: int = 800_000
    """Steps of each run."""
    stream: Literal["patterning", "conditioning", "noisy"] = "patterning"
    """Trace patterning; trace conditioning (one stimulus, always followed); or patterning without a gap and 10 % wrong labels (use --discount 0 there: the error counts this trial's US only)."""
    gates: Literal["gru", "lstm"] = "gru"
    """Kind of column. The paper's are LSTM columns; GRU columns learn faster."""
    ccn_columns: int = 20
    """Columns of the columnar-constructive network when fully grown."""
    ccn_width: int = 4
    """Columns in each of its stages."""
    columnar_columns: int = 7
    """Columns of the columnar network."""
    constructive_columns: int = 10
    """Columns of the constructive network, grown one by one."""
    budget: int = 5600
    """Multiply-adds a step that snap-1, uoro and rtrl may take: it decides their units."""
    watch: tuple[str, ...] = ()
    """Rules that ride along with the dense methods' own and are compared with the exact gradient: snap-1, uoro, tbptt-5 ..."""
    growth: Literal["schedule", "plateau"] = "schedule"
    """Add stages after equal shares of the steps, or as soon as the error stops falling."""
    stage_steps: int = 0
    """Steps of a stage (plateau: at most). 0: the steps divided by the stages."""
    plateau_window: int = 50_000
    """Plateau: compare the error of this many steps with that of as many before."""
    plateau_gain: float = 0.02
    """Plateau: grow when the error fell by less than this fraction."""
    isi: tuple[int, int] = (24, 36)
    """Least and most steps from pattern to stimulus."""
    iti: tuple[int, int] = (80, 120)
    """Least and most steps from stimulus to the next pattern."""
    discount: float = 0.9
    """Discount of the return."""
    trace_decay: float = 0.99
    """Lambda of TD(lambda)."""
    spread: float | None = None
    """Column weights start uniform in -spread .. spread (published: 0.01). None: what suits the gates best."""
    memory_bias: float | None = None
    """Added to the first bias of the LSTM's forget gate or the GRU's update gate (published: 0). None: as above."""
    moment_rate: float = 0.99999
    """Rate of the running moments that normalise inputs and features."""
    moment_prior: float = 0.0
    """Steps that the first guess of the moments counts for; 0: a constant rate, as published."""
    second_moment_decay: float = 0.99999
    """Decay of RMSProp's second moment (published: 0.9999)."""
    second_moment_start: float = 0.0
    """Its first value without bias correction (published: 1); 0: bias-corrected."""

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """The paper's three structures, and dense layers with the rules it compares them with."""
        return (*STRUCTURES, *(f"tbptt-{k}-{d}" for k, d in TBPTT_GRID), "snap-1", "uoro", "rtrl")

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        require_positive(
            steps=self.steps,
            ccn_columns=self.ccn_columns,
            ccn_width=self.ccn_width,
            columnar_columns=self.columnar_columns,
            budget=self.budget,
            constructive_columns=self.constructive_columns,
            plateau_window=self.plateau_window,
            spread=1.0 if self.spread is None else self.spread,
        )
        require_interval(1, isi=self.isi)
        require_interval(0, iti=self.iti)
        require_share(
            discount=self.discount,
            plateau_gain=self.plateau_gain,
            moment_rate=self.moment_rate,
            second_moment_decay=self.second_moment_decay,
        )
        if not 0 <= self.trace_decay <= 1:
            raise OnwardError(f"--trace-decay must be in [0, 1], got {self.trace_decay}")
        require_stages(self.ccn_columns, self.ccn_width)
        for name in self.watch:
            rule_named(name)
        if self.watch and all(name in STRUCTURES for name in self.methods):
            raise OnwardError("--watch compares rules on dense layers: name one in --methods, tbptt-15-4 for example")
        if set(self.watch) & set(self.methods) or len(set(self.watch)) < len(self.watch):
            raise OnwardError("--watch: name each rule once, and none that trains (it is always compared)")
        if self.stage_steps < 0:
            raise OnwardError(f"--stage-steps must not be negative, got {self.stage_steps}")
        if self.moment_prior != 0 and not self.moment_prior >= 1:
            raise OnwardError(f"--moment-prior must be 0 or at least 1, got {self.moment_prior}")
        if self.second_moment_start < 0:
            raise OnwardError(f"--second-moment-start must not be negative, got {self.second_moment_start}")

    @property
    def task(self) -> AbstractConditioning:
        """The stream."""
        if self.stream == "noisy":
            return NoisyPatterning(iti=self.iti, discount=self.discount)
        kind = TracePatterning if self.stream == "patterning" else TraceConditioning
        return kind(isi=self.isi, iti=self.iti, discount=self.discount)

    @property
    def fuse_outputs(self) -> bool:
        """Only for columns."""
        return all(name in STRUCTURES for name in self.methods)

    def default_step_size(self, name: str) -> float:
        """From the sweeps in docs/experiments."""
        return RECIPES[self.gates].step_sizes.get(name, DENSE_STEP_SIZE)

    def dense(self, name: str) -> tuple[AbstractCredit, int]:
        """The rule of a dense method and its units: k and d of tbptt-k-d, else the largest within the budget."""
        kind = name.split("-")[0]
        if kind == "tbptt":
            _, window, width = name.split("-")
            return TBPTT(int(window)), int(width)
        rule = rule_named(name)
        units = 1
        while dense_cost(rule, self.column_gates, self.task.inputs, units + 1) <= self.budget:
            units += 1
        return rule, units

    def cost(self, name: str, grown: int | None = None) -> int:
        """Multiply-adds a step of forward pass and gradient, with `grown` stages (None: all)."""
        inputs, gates = self.task.inputs, self.column_gates
        if name in STRUCTURES:
            width, stages = self.shape(name)
            rows = [inputs + 2 + width * stage for stage in range(grown or stages)]
            per_stage = [len(gates.input_slots) * width * r for r in rows]
            return sum(per_stage) + trace_factor(gates) * per_stage[-1]
        rule, units = self.dense(name)
        return dense_cost(rule, gates, inputs, units)

    def spent(self, name: str, steps: np.ndarray, grown_at: Sequence[int]) -> np.ndarray:
        """Multiply-adds spent after each of `steps`, given when stages were added."""
        ends = [0, *grown_at, np.inf]
        return sum(
            (np.clip(steps, low, high) - low) * self.cost(name, stage + 1)
            for stage, (low, high) in enumerate(itertools.pairwise(ends))
        )

    @property
    def column_gates(self) -> AbstractGates:
        """The kind of unit, with its bias."""
        recipe = RECIPES[self.gates]
        bias = recipe.memory_bias if self.memory_bias is None else self.memory_bias
        return GRUGates(bias) if self.gates == "gru" else LSTMGates(bias)

    def shape(self, name: str) -> tuple[int, int]:
        """Width of a stage and number of stages."""
        return {
            "ccn": (self.ccn_width, self.ccn_columns // self.ccn_width),
            "columnar": (self.columnar_columns, 1),
            "constructive": (1, self.constructive_columns),
        }[name]

    def build(self, name: str) -> Method:
        """A cascade with column traces, or a dense layer with another rule; all else is the same for both."""
        task, gates = self.task, self.column_gates
        moments = Moments(rate=self.moment_rate, prior=self.moment_prior or math.inf)
        options: Any = {"normalise_inputs": moments, "normalise_features": moments}
        kind = self.gates.upper()
        rule: AbstractCredit
        if name in STRUCTURES:
            rule = Columnwise()
            width, stages = self.shape(name)
            spread = RECIPES[self.gates].spread if self.spread is None else self.spread
            cell: Any = lambda key: Cascade(Columns(gates, task.inputs, width, key=key, spread=spread, **options))
            note = f"{stages} stage{'s' if stages > 1 else ''} of {width} {kind} column{'s' if width > 1 else ''}"
        else:
            rule, width = self.dense(name)
            stages = 1
            cell = lambda key: Dense(gates, task.inputs, width, key=key, spread=self.spread, **options)
            back = f", {rule.window} steps back at every step" if isinstance(rule, TBPTT) else ""
            note = f"dense layer of {width} {kind} unit{'s' if width > 1 else ''}{back}"

        watch = () if name in STRUCTURES else tuple(map(rule_named, self.watch))
        watched = (name, *self.watch) if watch else ()

        def model(key: PRNGKeyArray) -> Model:
            return Model(cell(key), Linear(width))

        def learner(model: Model, step_size: Any) -> Online | Watched:
            optimiser = optax.chain(
                rms(self.second_moment_decay, initial=self.second_moment_start or None),
                scale_head(1 / model.cell.feature_count),
            )
            objective = TDLambda(self.discount, self.trace_decay)
            online = Online(rule, objective, optimiser, step_size)
            return Watched(online, watch) if watch else online

        return Method(
            name=name,
            task=task,
            model=model,
            learner=learner,
            steps=self.steps,
            measure=metrics.return_error,
            metric="error",
            monitor=metrics.alignment(watched) if watched else None,
            monitored=tuple(f"{rule} {what}" for rule in watched for what in ("cosine", "ratio")),
            growth=Growth(
                stages=stages,
                every=self.stage_steps or max(1, self.steps // stages),
                plateau=self.plateau_gain if self.growth == "plateau" else None,
                window=self.plateau_window,
                least=2 * self.plateau_window,
            ),
            point_every=max(1, self.final_window // 10),
            record_steps=RECORDED,
            batch_axis=batch_axis(rule, width),
            note=note,
        )

    @property
    def final_window(self) -> int:
        """The last steps, over which the reported error is averaged."""
        return min(FINAL_WINDOW, max(1, self.steps // 5))

    @property
    def final_metric(self) -> str:
        """Mean squared return error at the end."""
        return "return_error"

    def final_values(self, lines: Sequence[dict[str, Any]]) -> np.ndarray:
        """Mean over the final window."""
        late = [m for m in lines if m["step"] > self.steps - self.final_window]
        weights = np.asarray([m["count"] for m in late], float)
        return np.asarray([m["values"] for m in late]).T @ weights / weights.sum()

    def references(self) -> dict[str, float]:
        """Computed by enumerating every trial."""
        return self.task.references()

    def write_report(self, folder: Path) -> Path:
        """Learning curves, windows of the stream, finals of every seed, and a table."""
        from onward.lab import page as report

        with report.style():
            return _report(self, folder)


@dataclass(frozen=True)
class Recipe:
    """What suits a kind of column, found by the sweep in docs/experiments/trace-patterning.md."""

    spread: float
    memory_bias: float
    step_sizes: dict[str, float]


RECIPES = {
    "gru": Recipe(0.3, 1.0, {"ccn": 5e-4, "columnar": 3e-4, "constructive": 5e-4}),
    "lstm": Recipe(0.1, 2.0, {"ccn": 2e-4, "columnar": 2e-4, "constructive": 2e-4}),
}


def _report(experiment: TracePatterningExperiment, folder: Path) -> Path:
    from onward.lab import page as report

    summary = load_summary(folder)
    references = summary["references"]
    rows = best_rows(summary, type(experiment))
    best = min(rows, key=lambda m: m["mean"])
    share = (references["predict-zero"] - best["mean"]) / (references["predict-zero"] - references["bayes"])
    lead = (
        f"{best['name']} came {share:.0%} of the way from knowing nothing (error {references['predict-zero']:.4f}) to the best that any predictor can "
        f"do (Bayes, {references['bayes']:.5f}): its mean squared error is {best['mean']:.5f} over {len(best['values'])} "
        f"seed{'s' if len(best['values']) > 1 else ''}, after {best['steps']:,} steps of one pass over an endless stream."
    )
    header = [
        "method",
        "mean",
        "95 % interval",
        "sd",
        "best",
        "worst",
        "step size",
        "multiply-adds",
        "CPU µs a step",
        "published",
    ]
    table = report.Table(
        header,
        [
            [
                f"{m['name']} ({m['note']})",
                f"{m['mean']:.5f}",
                "{:.5f} - {:.5f}".format(*report.interval(m["values"])),
                *(f"{v:.5f}" for v in (m["std"], min(m["values"]), max(m["values"]))),
                f"{m['step_size']:g}",
                f"{experiment.cost(m['name']):,}",
                f"{1e6 * m['cpu_seconds'] / (m['steps'] * len(m['values'])):.2f}",
                report.number(m["published"]),
            ]
            for m in rows
        ]
        + [[f"exact level: {k}", f"{v:.5f}", *[""] * 8] for k, v in references.items()],
        f"Mean squared return error over the last {experiment.final_window:,} steps, over seeds (95 % bootstrap interval of the mean). The exact levels are "
        "computed by enumerating every trial. Multiply-adds: forward pass and gradient of one step, fully grown. The paper published curves over 50 M steps and no numbers."
        + (" Of each method the best of the step sizes below." if len(summary["methods"]) > len(rows) else ""),
    )
    parts = [_curves(experiment, folder, rows, references), table]
    if any(m["name"] not in STRUCTURES for m in rows):
        parts += [_against_compute(experiment, folder, rows, references)]
    if len(summary["methods"]) > len(rows):
        parts += [_sensitivity(summary, rows, references)]
    parts += [_alignment(experiment, folder, m) for m in rows if experiment.watch and m["name"] not in STRUCTURES]
    parts += [_window(experiment, folder, best["name"])]
    parts += [report.finals(rows, references, label="mean squared return error at the end")]
    settings = json.dumps({**summary["config"], "environment": load_environment(folder)}, indent=1)
    return report.write_page(folder, title=experiment.title, lead=lead, parts=parts, settings=settings)


LEVELS = {"predict-zero": "predict zero", "pattern-blind": "pattern-blind timer", "bayes": "Bayes: the best possible"}


def _shown(rows: Any) -> Any:
    """At most one truncated network, the best, so that a figure stays readable."""
    truncated = [m for m in rows if m["name"].startswith("tbptt")]
    worse = sorted(truncated, key=lambda m: m["mean"])[1:] if len(rows) > 7 else []
    return [m for m in rows if m not in worse]


def _levels(axes: Any, references: dict[str, float]) -> None:
    from onward.lab import page as report

    for name, value in references.items():
        report.level(axes, value, LEVELS[name], above=name != "bayes")


def _curves(experiment: TracePatterningExperiment, folder: Path, rows: Any, references: dict[str, float]) -> Any:
    from matplotlib.figure import Figure

    from onward.lab import page as report

    figure = Figure(figsize=(8.2, 4.4), layout="constrained")
    axes = figure.subplots()
    lines = read_metrics(folder)
    shown = _shown(rows)
    for i, (colour, row) in enumerate(zip(report.COLOURS * len(shown), shown, strict=False)):
        steps, values = curves_of(experiment, lines, row["name"], row["step_size"])
        report.curve_with_spread(axes, steps / 1e6, values, label=row["name"], colour=colour, interval=len(shown) > 3)
        for grown in row["grown_at"]:
            span = (0.022 * i, 0.022 * i + 0.018)
            axes.plot([grown / 1e6] * 2, span, color=colour, lw=1.2, transform=axes.get_xaxis_transform())
    _levels(axes, references)
    axes.set(
        xlabel="steps (millions)",
        ylabel="mean squared return error",
        ylim=(-0.0018, 1.6 * references["predict-zero"] if len(shown) > 3 else None),
        xlim=(0, experiment.steps / 1e6),
    )
    axes.set_title("Error of the prediction made before each update")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    seeds = experiment.seeds
    return report.Picture(
        "learning-curves",
        figure,
        f"Lines: mean over {seeds} seed{'s' if seeds > 1 else ''}; bands: {'its 95 % interval' if len(shown) > 3 else 'best to worst seed'}; ticks at the bottom: a stage was added. "
        "Dashed: exact levels. No predictor of this stream can do better than Bayes."
        + (" Of the truncated networks, the best." if len(shown) < len(rows) else ""),
    )


def _against_compute(
    experiment: TracePatterningExperiment, folder: Path, rows: Any, references: dict[str, float]
) -> Any:
    from matplotlib.figure import Figure

    from onward.lab import page as report

    figure = Figure(figsize=(8.2, 4.2), layout="constrained")
    over_time = figure.subplots()
    lines = read_metrics(folder)
    shown = _shown(rows)
    colours = dict(zip([m["name"] for m in shown], report.COLOURS * len(shown), strict=False))
    for row in shown:
        steps, values = curves_of(experiment, lines, row["name"], row["step_size"])
        spent = experiment.spent(row["name"], steps, row["grown_at"])
        over_time.plot(spent / 1e9, values.mean(1), color=colours[row["name"]], lw=1.6, label=row["name"])
    _levels(over_time, references)
    over_time.set(xlabel="multiply-adds spent (billions)", ylabel="mean squared return error", xlim=(0, None))
    over_time.set(ylim=(0, 1.3 * references["predict-zero"]), title="Error against compute")
    over_time.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return report.Picture(
        "compute",
        figure,
        "The same curves against the multiply-adds spent so far: forward pass and gradient; a network that grows is cheaper before. "
        "A method ends where its steps end. Dashed: exact levels.",
    )


def _sensitivity(summary: Any, rows: Any, references: dict[str, float]) -> Any:
    from matplotlib.figure import Figure

    from onward.lab import page as report

    figure = Figure(figsize=(8.2, 4.2), layout="constrained")
    axes = figure.subplots()
    shown = _shown(rows)
    for colour, row in zip(report.COLOURS * len(shown), shown, strict=False):
        mine = sorted((m for m in summary["methods"] if base_name(m) == row["name"]), key=lambda m: m["step_size"])
        bars = np.asarray([np.abs(np.subtract(report.interval(m["values"]), m["mean"])) for m in mine]).T
        means = [m["mean"] for m in mine]
        axes.errorbar(
            [m["step_size"] for m in mine],
            means,
            bars,
            fmt="o-",
            ms=4,
            lw=1.5,
            capsize=3,
            color=colour,
            label=row["name"],
        )
    _levels(axes, references)
    axes.set(xscale="log", xlabel="step size", ylabel="error at the end", ylim=(0, 1.3 * references["predict-zero"]))
    axes.set_title("Which step size")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return report.Picture(
        "step-sizes",
        figure,
        "Mean over seeds at the end, with its 95 % bootstrap interval, for every step size that was run.",
    )


def _alignment(experiment: TracePatterningExperiment, folder: Path, row: Any) -> Any:
    from matplotlib.figure import Figure

    from onward.lab import page as report

    figure = Figure(figsize=(8.2, 3.4), layout="constrained")
    cosine, ratio = figure.subplots(1, 2)
    lines = read_metrics(folder)
    for colour, rule in zip(report.COLOURS, (row["name"], *experiment.watch), strict=False):
        for axes, what in ((cosine, "cosine"), (ratio, "ratio")):
            steps, values = curves_of(experiment, lines, row["name"], row["step_size"], f"{rule} {what}")
            report.curve_with_spread(axes, steps / 1e6, values, label=rule, colour=colour)
    cosine.axhline(1, color=report.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
    ratio.axhline(1, color=report.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
    cosine.set(xlabel="steps (millions)", title="Cosine to the exact gradient", ylim=(-0.1, 1.05))
    ratio.set(xlabel="steps (millions)", title="Norm, relative to it", yscale="log")
    ratio.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return report.Picture(
        f"alignment-{row['name']}",
        figure,
        f"The gradient of the prediction at each step, by the rule that trains ({row['name']}) and by rules that ride along, "
        "compared with exact RTRL on the same network. Means over the steps of a point; bands: best to worst seed.",
    )


def _window(experiment: TracePatterningExperiment, folder: Path, name: str) -> Any:
    from matplotlib.figure import Figure

    from onward.lab import page as report

    job = job_names(experiment.build(name), len(plan_of(experiment, name)))[0]
    figure = Figure(figsize=(8.2, 4.8), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True, height_ratios=(1, 2, 1, 2))
    for when, title, (inputs, answers) in (
        ("start", "The first 600 steps", axes[:2]),
        ("end", f"After {experiment.steps:,} steps", axes[2:]),
    ):
        seen = load_records(folder, job, when)
        x, time, us = seen["x"], np.arange(len(seen["x"])), experiment.task.cs_inputs
        groups = (
            ("pattern", range(us), report.COLOURS[0]),
            ("US", (us,), report.COLOURS[1]),
            ("distractors", range(us + 1, x.shape[1]), "#c4c4c4"),
        )
        for label, columns, colour in groups:
            for column in columns:
                on = np.flatnonzero(x[:, column])
                inputs.scatter(
                    on,
                    np.full(len(on), -column),
                    s=7,
                    marker="s",
                    color=colour,
                    label=label if column == columns[0] else None,
                )
        inputs.set(yticks=[], title=title, ylim=(-x.shape[1], 1))
        inputs.spines["left"].set_visible(False)
        answers.fill_between(time, seen["truth"], color="#d9d9d9", lw=0, label="true return")
        answers.plot(time, seen["prediction"], color=report.COLOURS[1], lw=1.4, label="prediction")
        answers.set(ylim=(-0.15, 1.1), ylabel="return", xlim=(0, len(time)))
    axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1.2), fontsize=8, handletextpad=0.2)
    axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    axes[3].set(xlabel="step within the window")
    return report.Picture(
        "windows",
        figure,
        f"What {name} (seed {experiment.first_seed}, step size {plan_of(experiment, name)[0][0][0]:g}) sees, and what it predicts. The grey ramps are "
        "the return before a US that comes; a good prediction follows them and stays flat else. When exactly the US comes is random, so even "
        "the best prediction is not sharp.",
    )
