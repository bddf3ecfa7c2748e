"""Sequential digits: real scanned images, read row by row and learned one at a time."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from onward import metrics
from onward.cells.base import AbstractCell, AbstractGates
from onward.cells.cascade import Cascade
from onward.cells.columns import Columns
from onward.cells.gru import GRUGates
from onward.cells.lstm import LSTM, LSTMGates
from onward.credit.columnwise import Columnwise
from onward.experiments.base import (
    Experiment,
    curves_of,
    load_environment,
    load_records,
    load_summary,
    plan_of,
    require_positive,
    require_stages,
)
from onward.heads.categorical import Categorical
from onward.learners.bptt import BPTT
from onward.learners.online import Online
from onward.model import Model
from onward.objectives.supervised import Supervised
from onward.run import Growth, Method, job_names, read_metrics
from onward.tasks.digits import CLASSES, INPUTS, ROWS, SequentialDigits, load_digits

POINTS = 30
STEP_SIZES = {"columnar": 3e-3, "ccn": 3e-3, "bptt": 3e-3}


@dataclass(frozen=True)
class SequentialDigitsExperiment(Experiment):
    """Classify scanned 8x8 digits read one row of pixels at a time; the label comes with the last row.

    The columnar networks learn online, one image after another, with exact traces in constant memory.
    Beside them a dense LSTM of about as many parameters learns with backpropagation through time.
    """

    name: ClassVar[str] = "sequential-digits"
    title: ClassVar[str] = "Sequential digits: real images, row by row"
    higher_is_better: ClassVar[bool] = True

    methods: tuple[str, ...] = ("columnar", "ccn", "bptt")
    seeds: int = 5
    first_seed: int = 0
    step_sizes: tuple[float, ...] = ()
    passes: float = 50.0
    """Images seen, as a multiple of the 1,438 training images."""
    gates: Literal["lstm", "gru"] = "lstm"
    """Kind of column."""
    columns: int = 63
    """Columns of the columnar network."""
    ccn_columns: int = 64
    """Columns of the columnar-constructive network when fully grown."""
    ccn_width: int = 32
    """Columns in each of its stages."""
    units: int = 24
    """Units of the dense LSTM."""
    batch: int = 4
    """Images per update of BPTT; the online learners always take one."""
    spread: float = 0.5
    """Column weights start uniform in -spread .. spread."""
    memory_bias: float = 1.0
    """Added to the first bias of the columns' forget gate (LSTM) or update gate (GRU)."""

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """Two that learn online, one that cannot."""
        return ("columnar", "ccn", "bptt")

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        require_positive(
            passes=self.passes,
            columns=self.columns,
            ccn_columns=self.ccn_columns,
            ccn_width=self.ccn_width,
            units=self.units,
            batch=self.batch,
            spread=self.spread,
        )
        require_stages(self.ccn_columns, self.ccn_width)

    @property
    def fuse_outputs(self) -> bool:
        """The option has been tried with all three methods of this experiment."""
        return True

    def default_step_size(self, name: str) -> float:
        """Of Adam."""
        return STEP_SIZES[name]

    def build(self, name: str) -> Method:
        """Online columns, or BPTT."""
        images, labels = load_digits()[2:]
        seen = max(1, round(self.passes * len(load_digits()[0])))
        online = name != "bptt"
        steps = seen * ROWS if online else max(1, seen // self.batch)
        width = self.ccn_width if name == "ccn" else self.columns
        stages = self.ccn_columns // self.ccn_width if name == "ccn" else 1
        gates: AbstractGates = LSTMGates(self.memory_bias) if self.gates == "lstm" else GRUGates(self.memory_bias)

        def model(key: PRNGKeyArray) -> Model:
            cell: AbstractCell
            if online:
                cell = Cascade(Columns(gates, INPUTS, width, key=key, spread=self.spread))
            else:
                cell = LSTM(INPUTS, self.units, key=key)
            return Model(cell, Categorical(cell.feature_count, CLASSES))

        def learner(model: Model, step_size: Any) -> Any:
            if not online:
                return BPTT(optax.adam(1.0), step_size)
            return Online(Columnwise(), Supervised(), optax.adam(1.0), step_size)

        kind = self.gates.upper()
        notes = {
            "columnar": f"{width} {kind} columns, exact traces, online",
            "ccn": f"{stages} stages of {width} {kind} columns, exact traces, online",
            "bptt": f"dense LSTM of {self.units} units, BPTT, {self.batch} image{'s' if self.batch > 1 else ''} an update",
        }
        return Method(
            name=name,
            task=SequentialDigits(None if online else self.batch),
            model=model,
            learner=learner,
            steps=steps,
            measure=metrics.accuracy,
            metric="training accuracy",
            growth=Growth(stages=stages, every=max(1, steps // stages)),
            batch_axis=0,
            point_every=max(ROWS if online else 1, steps // POINTS),
            examples_per_step=1 / ROWS if online else self.batch,
            evaluate=metrics.test_accuracy(images, labels),
            inspect=metrics.class_probabilities(images),
            note=notes[name],
        )

    @property
    def final_metric(self) -> str:
        """On the 359 held-out images."""
        return "test_accuracy"

    def final_values(self, lines: Sequence[dict[str, Any]]) -> np.ndarray:
        """At the last point."""
        return np.asarray(lines[-1]["test_accuracy"])

    def references(self) -> dict[str, float]:
        """Always answering the most frequent training class, and the ceiling."""
        _, train, _, test = load_digits()
        return {"majority-class": float(np.mean(test == np.bincount(train).argmax())), "perfect": 1.0}

    def write_report(self, folder: Path) -> Path:
        """Accuracy over images seen, a confusion matrix, and digits with the answer after each row."""
        from onward import report

        with report.style():
            return _report(self, folder)


def _report(experiment: SequentialDigitsExperiment, folder: Path) -> Path:
    from onward import report

    summary = load_summary(folder)
    rows = summary["methods"]
    online = [m for m in rows if m["name"].split("@")[0] != "bptt"]
    best = max(online or rows, key=lambda m: m["mean"])
    majority = summary["references"]["majority-class"]
    lead = (
        f"{best['name']} classifies {best['mean']:.1%} of 359 held-out digits after reading their eight rows (mean of "
        f"{len(best['values'])} seeds; always answering the most frequent class: {majority:.1%})."
    )
    table = report.Table(
        ["method", "mean", "median", "sd", "worst", "best", "step size", "images seen", "CPU seconds a seed"],
        [
            [
                f"{m['name']} ({m['note']})",
                *(f"{v:.4f}" for v in (m["mean"], m["median"], m["std"], min(m["values"]), max(m["values"]))),
                f"{m['step_size']:g}",
                f"{m['steps'] * experiment.build(m['name'].split('@')[0]).examples_per_step:,.0f}",
                f"{m['cpu_seconds'] / len(m['values']):.1f}",
            ]
            for m in rows
        ]
        + [["majority class", f"{majority:.4f}", *[""] * 7]],
        "Test accuracy at the end, over seeds.",
    )
    name = best["name"].split("@")[0]
    parts = [_curves(experiment, folder, rows, majority), table, _reading(experiment, folder, name)]
    parts += [_confusion(experiment, folder, name)]
    settings = json.dumps({**summary["config"], "environment": load_environment(folder)}, indent=1)
    return report.write_page(folder, title=experiment.title, lead=lead, parts=parts, settings=settings)


def _curves(experiment: SequentialDigitsExperiment, folder: Path, rows: Any, majority: float) -> Any:
    from matplotlib.figure import Figure

    from onward import report

    figure = Figure(figsize=(8.2, 4.0), layout="constrained")
    axes = figure.subplots()
    lines = read_metrics(folder)
    for colour, row in zip(report.COLOURS * len(rows), rows, strict=False):
        name = row["name"].split("@")[0]
        steps, values = curves_of(experiment, lines, name, row["step_size"], "test_accuracy")
        scale = experiment.build(name).examples_per_step / 1e3
        report.curve_with_spread(axes, steps * scale, values, label=f"{row['name']}: {row['mean']:.3f}", colour=colour)
        for grown in row["grown_at"]:
            axes.plot([grown * scale] * 2, [0, 0.025], color=colour, lw=1, transform=axes.get_xaxis_transform())
    report.level(axes, majority, "majority class")
    axes.set(xlabel="images seen (thousands)", ylabel="test accuracy", ylim=(0, 1.01), xlim=(0, None))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.15))
    return report.Picture(
        "accuracy",
        figure,
        f"Accuracy on 359 held-out digits: mean over {experiment.seeds} seeds, band from worst to best. Ticks: a stage was added.",
    )


def _answers(experiment: SequentialDigitsExperiment, folder: Path, name: str) -> np.ndarray:
    job = job_names(experiment.build(name), len(plan_of(experiment, name)))[0]
    return load_records(folder, job, "end")["probabilities"][0]


def _reading(experiment: SequentialDigitsExperiment, folder: Path, name: str) -> Any:
    from matplotlib.figure import Figure

    from onward import report

    answers = _answers(experiment, folder, name)
    images, labels = load_digits()[2:]
    wrong = np.flatnonzero(answers[-1].argmax(-1) != labels)
    shown = [int(np.flatnonzero(labels == c)[1]) for c in (3, 5, 8, 0, 4)] + [int(i) for i in wrong[:1]]
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    axes = figure.subplots(2, len(shown), sharey="row")
    for column, image in zip(axes.T, shown, strict=True):
        right = answers[-1, image].argmax() == labels[image]
        column[0].imshow(images[image], cmap="Greys", vmin=0, vmax=1)
        column[0].set_title(f"a {labels[image]}" + ("" if right else ", misread"), fontsize=9)
        column[1].imshow(answers[:, image], cmap="viridis", vmin=0, vmax=1, aspect="auto")
        column[1].set(xticks=range(CLASSES), xlabel="class")
        column[1].tick_params(labelsize=7)
        for a in column:
            a.spines[:].set_visible(False)
        column[0].set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("the image")
    axes[1, 0].set(ylabel="rows read", yticks=range(ROWS), yticklabels=range(1, ROWS + 1))
    return report.Picture(
        "reading",
        figure,
        f"Held-out digits, and below each the probability that {name} (seed {experiment.first_seed}) gives to each class after each row: dark 0, "
        "bright 1. It was trained on the answer after the last row only.",
    )


def _confusion(experiment: SequentialDigitsExperiment, folder: Path, name: str) -> Any:
    from matplotlib.figure import Figure

    from onward import report

    labels = load_digits()[3]
    counts = np.zeros((CLASSES, CLASSES), int)
    np.add.at(counts, (labels, _answers(experiment, folder, name)[-1].argmax(-1)), 1)
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.sqrt(counts), cmap="Blues")
    for i, j in np.argwhere(counts):
        axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8, color="white" if i == j else "black")
    axes.set(xticks=range(CLASSES), yticks=range(CLASSES), xlabel="answer", ylabel="truth")
    axes.spines[:].set_visible(False)
    return report.Picture(
        "confusion", figure, f"The 359 held-out digits as {name} (seed {experiment.first_seed}) reads them."
    )
