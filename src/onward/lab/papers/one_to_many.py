"""What both one-to-many experiments share: recipes, methods by name, curves, samples and densities.

A method is `NETWORK-RULE` and is run at several lengths T. Two protocols: Onward's recipe (fresh rows, Adam, clipping) for
networks and rules that are meant to learn, and the paper's (a fixed training set, AdaGrad) for what the paper and its
authors' code do.
"""

import abc
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from onward.cells.base import AbstractCell
from onward.cells.dense import Dense
from onward.cells.elman import Elman
from onward.cells.gru import GRU
from onward.cells.hybrid import Hybrid
from onward.cells.lstm import LSTM
from onward.cells.start import chrono, knots, orthogonal
from onward.errors import OnwardError
from onward.heads.base import AbstractHead
from onward.lab import metrics
from onward.lab.experiment import Experiment, require_positive
from onward.lab.results import base_name, curves_of, load_environment, load_records, load_summary
from onward.lab.train import Method, read_metrics
from onward.learners.base import AbstractLearner
from onward.learners.bptt import BPTT
from onward.learners.inverses import (
    AbstractInverse,
    AffineInverse,
    FeedbackInverse,
    IdentityInverse,
    ResidualInverse,
    Transition,
)
from onward.learners.tptt import TPTT
from onward.model import Model
from onward.tasks.base import AbstractTask
from onward.types import PyTree
from onward.types import Sequence as Batch

POINTS = 5
# What the names of methods begin with that follow the paper's settings.
PROTOCOLS = ("paper-", "authors-")
# Where densities are drawn, each the mean over this many draws of the distractors.
INPUTS, DRAWS = np.linspace(-0.1, 1.1, 97), 8
CELLS: dict[str, Callable[..., Dense]] = {"gru": GRU, "lstm": LSTM, "elman": Elman}
NAMES = {"gru": "GRU", "lstm": "LSTM", "elman": "tanh Elman"}
# Input range that units are spread over.
RANGE = (0.0, 1.0)


class NoInverse(AbstractInverse):
    """A control: no target but the first, so only the last step learns."""

    def init(self, cell: AbstractCell, *, key: PRNGKeyArray) -> tuple[()]:
        """No weights."""
        return ()

    def shift(
        self, weights: tuple[()], cell: AbstractCell, transition: Transition, seen: tuple[()], d: PyTree
    ) -> PyTree:
        """Nothing is wanted of h_{t-1}."""
        return jax.tree.map(jnp.zeros_like, d)

    def loss(self, weights: tuple[()], cell: AbstractCell, transition: Transition, *, key: PRNGKeyArray) -> Array:
        """Nothing to lower."""
        return jnp.zeros(())


class Rule(NamedTuple):
    """How a network learns: the inverse model of TPTT (None: BPTT), whether it learns, and what to call it."""

    inverse: AbstractInverse | None
    learns: bool
    note: str


RULES = {
    "bptt": Rule(None, False, "BPTT"),
    "tptt": Rule(FeedbackInverse(0.1), True, "TPTT, feedback weights learned by difference reconstruction"),
    "random": Rule(FeedbackInverse(1.0), False, "TPTT, feedback weights fixed at random"),
    "memory": Rule(FeedbackInverse(0.0), False, "TPTT, only each unit's own memory carries targets back"),
    "hold": Rule(IdentityInverse(), False, "TPTT, identity inverse, nothing learned"),
    "affine": Rule(AffineInverse(), True, "TPTT, the paper's affine inverse, learned by reconstruction"),
    "affine-noise": Rule(AffineInverse(noise=0.1), True, "TPTT, affine inverse, reconstruction with noise 0.1"),
    "affine-difference": Rule(
        AffineInverse(training="difference"), True, "TPTT, affine inverse, learned by differences"
    ),
    "residual": Rule(ResidualInverse(noise=0.1), True, "TPTT, residual inverse, reconstruction with noise 0.1"),
    "residual-difference": Rule(
        ResidualInverse(training="difference"), True, "TPTT, residual inverse, learned by differences"
    ),
    "last-step": Rule(NoInverse(), False, "control: only the last step learns"),
}


@dataclass(frozen=True)
class OneToManyExperiment(Experiment):
    """Fields of both experiments."""

    length_field: ClassVar[str] = "iterations"
    discrete: ClassVar[bool]

    lengths: tuple[int, ...]
    """Lengths T of the sequences; every method is run at each."""
    iterations: int
    """Updates of Onward's recipe, each on fresh rows."""
    batch: int
    """Rows of an update."""
    units: int
    """Hidden units."""
    slope: float
    """How steeply units respond to the input at the start (`knots`)."""
    gain: float
    """Size of the recurrent weights of gated units at the start (`orthogonal`)."""
    inverse_step_size: float
    """alpha_g: step size of the inverse model (Adam)."""
    target_step_size: float
    """alpha_i: how far the first target lies along the gradient."""
    transitions: int
    """Transitions of a batch that the inverse model learns from."""
    inverse_steps: int
    """Updates of the inverse model for each update of the network."""
    held_out: int
    """Held-out rows."""

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        if not self.lengths or min(self.lengths) < 1 or len(set(self.lengths)) != len(self.lengths):
            raise OnwardError(f"--lengths must be whole numbers of at least 1, each once, got {self.lengths}")
        require_positive(
            iterations=self.iterations,
            batch=self.batch,
            units=self.units,
            slope=self.slope,
            gain=self.gain,
            inverse_step_size=self.inverse_step_size,
            target_step_size=self.target_step_size,
            transitions=self.transitions,
            inverse_steps=self.inverse_steps,
            held_out=self.held_out,
        )

    @property
    def rows(self) -> tuple[str, ...]:
        """Every method at every length: METHOD-T."""
        return tuple(f"{method}-{length}" for length in self.lengths for method in self.methods)

    @abc.abstractmethod
    def protocol(self, name: str) -> Method:
        """A method of the paper (`paper-`) or of its authors' code (`authors-`), under their settings."""

    def build(self, name: str) -> Method:
        """A method at one length."""
        return self.protocol(name) if name.startswith(PROTOCOLS) else self.recipe(name)

    @abc.abstractmethod
    def head(self, method: str) -> AbstractHead:
        """The readout."""

    @abc.abstractmethod
    def task(self, length: int, batch: int, rows: int | None) -> Any:
        """The task at this length."""

    @abc.abstractmethod
    def share(self, method: str) -> float:
        """Share of stochastic units of a method's network."""

    @property
    @abc.abstractmethod
    def answers(self) -> np.ndarray:
        """Targets y at which densities are drawn."""

    @abc.abstractmethod
    def truth(self, v: np.ndarray) -> np.ndarray:
        """The true p(y | v) at those, (v, answers)."""

    @property
    @abc.abstractmethod
    def published(self) -> dict[str, dict[int, float]]:
        """The paper's table: by method and length."""

    @property
    def final_metric(self) -> str:
        """On held-out rows."""
        return "held_out"

    def final_values(self, lines: Sequence[dict[str, Any]]) -> np.ndarray:
        """At the last point."""
        return np.asarray(lines[-1]["held_out"])

    def default_step_size(self, name: str) -> float:
        """Of Adam."""
        return 6e-3

    def tile_of(self, name: str) -> int:
        """One by one: a batch of long sequences is large."""
        return 1

    def recipe(self, name: str) -> Method:
        """A network and a rule under Onward's recipe; `name` is NETWORK-RULE-T."""
        method, length = split(name)
        network, rule_name = method.removeprefix("det").split("-", 1)
        rule = RULES[rule_name]
        iterations = self.iterations
        optimiser = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(),
            optax.scale_by_schedule(
                optax.warmup_cosine_decay_schedule(0.0, -1.0, min(100, iterations // 4), iterations)
            ),
        )
        inverse_optimiser = optax.chain(
            optax.scale_by_adam(), optax.scale_by_schedule(optax.cosine_decay_schedule(-1.0, iterations, 0.1))
        )
        share = self.share(method)

        def model(key: PRNGKeyArray) -> Model:
            return Model(network_of(network, self.units, length, share, self.slope, self.gain, key), self.head(method))

        def tptt(step_size: Any) -> TPTT:
            assert rule.inverse is not None
            return TPTT(
                rule.inverse,
                optimiser,
                inverse_optimiser,
                step_size,
                self.inverse_step_size,
                self.target_step_size,
                inverse_steps=self.inverse_steps if rule.learns else 0,
                transitions=self.transitions,
            )

        def learner(model: Model, step_size: Any) -> AbstractLearner:
            return BPTT(optimiser, step_size) if rule.inverse is None else tptt(step_size)

        stochastic = f", {share:.0%} stochastic" if share else ""
        return self.method(
            name, self.task(length, self.batch, None), model, learner, iterations,
            f"{NAMES[network]} of {self.units} units{stochastic}; {rule.note}",
            None if rule.inverse is None else tptt(1.0),
        )  # fmt: skip

    def method(
        self,
        name: str,
        task: AbstractTask,
        model: Callable[[PRNGKeyArray], Model],
        learner: Callable[[Model, Any], AbstractLearner],
        steps: int,
        note: str,
        watched: TPTT | None = None,
        loss: Callable[..., tuple[Array, Array]] = metrics.network_loss,
    ) -> Method:
        """A method with what is measured of each.

        `watched`: compare its targets with the gradient. `loss`: how the network is read, where not as its cell says.
        """
        _, length = split(name)
        fresh = self.task(length, 1, None)
        sampled = fresh.held_out(1000, seed=3)
        credit = metrics.credit_by_step(watched, fresh.held_out(200, seed=2)) if watched is not None else None

        def inspect(state: Any) -> dict[str, Array]:
            found = self._answers(state, sampled, length, loss)
            return found if credit is None else found | credit(state)

        return Method(
            name=name,
            task=task,
            model=model,
            learner=learner,
            steps=steps,
            measure=metrics.training_loss,
            metric="training loss",
            batch_axis=0,
            tile=self.tile_of(name),
            point_every=max(1, steps // POINTS),
            evaluate=metrics.held_out_loss(fresh.held_out(self.held_out, seed=1), loss=loss),
            inspect=inspect,
            note=note,
        )

    def _answers(self, state: Any, sampled: Batch, length: int, loss: Any) -> dict[str, Array]:
        """p(y | v) over the grid, the mean over draws of the distractors, and one sampled answer to each held-out input."""
        model = state.model.evaluation()
        draw, sample = jax.random.split(state.key)
        xs = np.random.default_rng(0).random((length, len(INPUTS) * DRAWS, 1), np.float32)
        xs[0, :, 0] = np.repeat(INPUTS, DRAWS)
        y = jnp.asarray(self.answers, sampled.y.dtype)

        def read(xs: Array) -> Array:
            rows = xs.shape[1]
            example = Batch(xs, jnp.zeros((1, rows), y.dtype), jnp.ones((1, rows)))
            return loss(model, state.stats, example, draw)[1][0]

        density = jax.vmap(lambda p: jax.vmap(lambda y: jnp.exp(model.head.log_prob(p, y)))(y))(read(jnp.asarray(xs)))
        keys = jax.random.split(sample, sampled.xs.shape[1])
        answers = jax.vmap(lambda p, k: model.head.sample(p, key=k))(read(sampled.xs), keys)
        return {"density": jnp.mean(density.reshape(len(INPUTS), DRAWS, -1), 1), "samples": answers}

    def write_report(self, folder: Path) -> Path:
        """Tables, curves, samples, densities, and how targets compare with the gradient."""
        from onward.lab import page as report

        with report.style():
            return _report(self, folder)


def split(name: str) -> tuple[str, int]:
    """The method and the length of a row."""
    method, _, length = name.rpartition("-")
    return method, int(length)


def network_of(
    kind: str, units: int, length: int, share: float, slope: float, gain: float, key: PRNGKeyArray
) -> AbstractCell:
    """A layer that starts spread over the inputs' range and, where it has a gate for it, over time scales up to the length."""
    draw, mix, spread, time = jax.random.split(key, 4)
    elman = kind == "elman"
    cell = orthogonal(CELLS[kind](1, units, key=draw), 1.0 if elman else gain, key=mix, identity=elman)
    cell = knots(cell, *RANGE, slope=slope, key=spread)
    if not elman:
        cell = chrono(cell, max(length - 1, 1), key=time)
    return Hybrid(cell, share) if share else cell


def _report(experiment: OneToManyExperiment, folder: Path) -> Path:
    from onward.lab import page as report

    summary = load_summary(folder)
    rows = summary["methods"]
    longest = max(experiment.lengths)
    best = min((r for r in rows if split(base_name(r))[1] == longest), key=lambda r: r["mean"])
    floor_name, floor = min(summary["references"].items(), key=lambda kv: kv[1])
    lead = (
        f"T = {longest}: best is {split(base_name(best))[0]} with {best['mean']:.3f} nats on held-out rows (mean of "
        f"{len(best['values'])} seeds). "
        f"No answer can be better than {floor:.3f} ({floor_name}); ignoring the input gives "
        f"{summary['references']['learn nothing']:.3f}."
    )
    parts = [
        *_tables(experiment, folder, rows, summary["references"]),
        _curves(experiment, folder, rows, summary["references"]),
    ]
    parts += [_samples(experiment, folder), _densities(experiment, folder)]
    parts += _credit(experiment, folder)
    settings = json.dumps({**summary["config"], "environment": load_environment(folder)}, indent=1)
    return report.write_page(folder, title=experiment.title, lead=lead, parts=parts, settings=settings)


def table(experiment: OneToManyExperiment, rows: Sequence[Any], references: dict[str, float]) -> list[list[str]]:
    """Header and rows: by method and length the held-out loss, its spread over seeds, and the training loss."""
    lengths = experiment.lengths
    lines = [["", *(f"T = {n}" for n in lengths)]]
    for name, values in experiment.published.items():
        lines.append([f"paper: {name} (training loss)", *(f"{values[n]:.2f}" if n in values else "-" for n in lengths)])
    for method in experiment.methods:
        cells = []
        for n in lengths:
            chosen = min((r for r in rows if base_name(r) == f"{method}-{n}"), key=lambda r: r["mean"])
            v = chosen["values"]
            cells.append(f"{chosen['mean']:.3f} ({min(v):.3f} to {max(v):.3f}, {len(v)} seed{'s' * (len(v) > 1)})")
        note = next(r["note"] for r in rows if base_name(r) == f"{method}-{lengths[0]}")
        lines.append([f"{method}: {note}", *cells])
    lines += [[f"{name} (exact)", *[f"{value:.3f}"] * len(lengths)] for name, value in references.items()]
    return lines


def _tables(experiment: OneToManyExperiment, folder: Path, rows: Any, references: dict[str, float]) -> list[Any]:
    from onward.lab import page as report

    header, *body = table(experiment, rows, references)
    caption = "Loss in nats on held-out rows at the end: mean over seeds (best to worst seed)."
    lines = read_metrics(folder)
    training = []
    for method in experiment.methods:
        cells = []
        for n in experiment.lengths:
            best = min((r for r in rows if base_name(r) == f"{method}-{n}"), key=lambda r: r["mean"])
            last = curves_of(experiment, lines, f"{method}-{n}", best["step_size"])[1][-1]
            cells.append(f"{last.mean():.3f} ({last.min():.3f} to {last.max():.3f})")
        training.append([method, *cells])
    seen = f"Training loss, mean over the last {1 / POINTS:.0%} of the updates, each before its update (best to worst seed)."
    return [report.Table(header, body, caption), report.Table(header, training, seen)]


def _colours(experiment: OneToManyExperiment) -> dict[str, str]:
    from onward.lab import page as report

    names = experiment.methods
    return dict(zip(names, report.COLOURS * len(names), strict=False))


def _curves(experiment: OneToManyExperiment, folder: Path, rows: Any, references: dict[str, float]) -> Any:
    from matplotlib.figure import Figure

    from onward.lab import page as report

    lengths, colours, lines = experiment.lengths, _colours(experiment), read_metrics(folder)
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    panels = figure.subplots(1, len(lengths), sharey=True, squeeze=False)[0]
    for axes, length in zip(panels, lengths, strict=True):
        for row in rows:
            method, n = split(base_name(row))
            if n != length:
                continue
            steps, values = curves_of(experiment, lines, base_name(row), row["step_size"], "held_out")
            report.curve_with_spread(axes, steps / steps[-1], values, label=method, colour=colours[method])
        for name, value in references.items():
            axes.axhline(value, color=report.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
            if length == lengths[-1]:
                axes.annotate(
                    name, (1, value), xycoords=("axes fraction", "data"), xytext=(-2, 2),
                    textcoords="offset points", ha="right", color=report.GREY, fontsize=7,
                )  # fmt: skip
        axes.set(title=f"T = {length}", xlabel="share of the training", xlim=(0, 1))
    low, high = min(references.values()), references["learn nothing"]
    panels[0].set(ylabel="held-out loss (nats)", ylim=(low - 0.05 * (high - low), high + 0.25 * (high - low)))
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=8)
    caption = "Held-out loss while learning: mean over seeds, band from best to worst. Dashed: exact levels."
    return report.Picture("curves", figure, caption)


def _grid(experiment: OneToManyExperiment, first: str, draw: Any) -> Any:
    """A figure of one row a length and one column a method, after a first column for the data."""
    from matplotlib.figure import Figure

    rows, columns = len(experiment.lengths), 1 + len(experiment.methods)
    figure = Figure(figsize=(1.75 * columns + 0.4, 1.75 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for i, (line, length) in enumerate(zip(panels, experiment.lengths, strict=True)):
        for axes, method in zip(line, (None, *experiment.methods), strict=True):
            draw(axes, method, length)
            axes.tick_params(labelsize=7)
            if i == 0:
                axes.set_title(first if method is None else method, fontsize=8)
        line[0].set_ylabel(f"T = {length}", fontsize=9)
    return figure


def _records(experiment: OneToManyExperiment, folder: Path, method: str, length: int) -> Any:
    """What was recorded at the end of the first seed at the best step size."""
    rows = [r for r in load_summary(folder)["methods"] if base_name(r) == f"{method}-{length}"]
    best = min(range(len(rows)), key=lambda i: rows[i]["mean"])
    job = f"{method}-{length}" + (f".{best * experiment.seeds}" if experiment.seeds * len(rows) > 1 else "")
    return {k: v[0] for k, v in load_records(folder, job, "end").items()}


def _samples(experiment: OneToManyExperiment, folder: Path) -> Any:
    from onward.lab import page as report

    jitter = np.random.default_rng(0)

    def draw(axes: Any, method: str | None, length: int) -> None:
        data = experiment.task(length, 1, None).held_out(1000, seed=3)
        v = np.asarray(data.xs[0, :, 0])
        y = np.asarray(data.y[0] if method is None else _records(experiment, folder, method, length)["samples"], float)
        if experiment.discrete:
            for c in experiment.answers:
                if (y == c).any():
                    axes.plot([v[y == c].mean()] * 2, [c - 0.4, c + 0.4], color="black", lw=1.5, zorder=3)
            y = y + jitter.uniform(-0.25, 0.25, y.shape)
        axes.scatter(v, y, s=1.5, color=report.COLOURS[0] if method is None else report.COLOURS[1], alpha=0.5, lw=0)
        span = np.ptp(experiment.answers)
        axes.set_ylim(experiment.answers.min() - 0.12 * span, experiment.answers.max() + 0.12 * span)

    means = " Black bars: the mean input of each class." if experiment.discrete else ""
    return report.Picture(
        "samples",
        _grid(experiment, "data", draw),
        "1000 held-out inputs (across) and their answers (up): as they are, and sampled from each network "
        f"(seed {experiment.first_seed}).{means}",
    )


def _densities(experiment: OneToManyExperiment, folder: Path) -> Any:
    from onward.lab import page as report

    y = experiment.answers
    half = (y[1] - y[0]) / 2
    extent = (INPUTS[0], INPUTS[-1], y[0] - half, y[-1] + half)
    true = experiment.truth(INPUTS)
    top = np.quantile(true, 0.99)

    def draw(axes: Any, method: str | None, length: int) -> None:
        shown = true if method is None else _records(experiment, folder, method, length)["density"]
        axes.imshow(shown.T, origin="lower", aspect="auto", extent=extent, cmap="viridis", vmin=0, vmax=top)

    return report.Picture(
        "densities",
        _grid(experiment, "true p(y | x)", draw),
        f"The answer's distribution (up) for each input (across): the true one, and each network's (seed {experiment.first_seed}), "
        "averaged over eight draws of the distractors.",
    )


def _credit(experiment: OneToManyExperiment, folder: Path) -> list[Any]:
    """For methods with targets: how these compare with the gradient, step by step back in time."""
    from matplotlib.figure import Figure

    from onward.lab import page as report

    found = {
        (method, length): _records(experiment, folder, method, length)
        for method in experiment.methods
        for length in experiment.lengths
    }
    shown = [m for m in experiment.methods if "shift_cosine" in found[m, experiment.lengths[0]]]
    if not shown:
        return []
    colours = _colours(experiment)
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    panels = figure.subplots(2, len(experiment.lengths), sharex="col", sharey="row", squeeze=False)
    for column, length in zip(panels.T, experiment.lengths, strict=True):
        for method in shown:
            record = found[method, length]
            back = np.arange(length)
            for axes, key in zip(column, ("shift_cosine", "shift_ratio"), strict=True):
                axes.plot(back, record[key][::-1], color=colours[method], label=method, lw=1.5)
        column[0].set(title=f"T = {length}", ylim=(-0.3, 1.05))
        column[1].set(xlabel="steps back from the loss", yscale="log", ylim=(1e-3, 1e3))
        for axes in column:
            axes.axhline(1, color=report.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
    panels[0, 0].set_ylabel("cosine")
    panels[1, 0].set_ylabel("norm ratio")
    handles, labels = panels[0, -1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), fontsize=8)
    picture = report.Picture(
        "credit",
        figure,
        "Target shifts against those that follow the exact (for stochastic units, straight-through) gradient, over 200 held-out "
        f"rows, at the end of training (seed {experiment.first_seed}): cosine, and ratio of norms.",
    )
    rows = []
    for method in shown:
        for length in experiment.lengths:
            end = found[method, length]
            rows.append(
                [
                    f"{method}, T = {length}",
                    f"{end['update_cosine']:.3f} / {end['update_ratio']:.3g}",
                    f"{end['shift_cosine'][0]:.3f} / {end['shift_ratio'][0]:.3g}",
                    f"{end['inverse_loss']:.3g}",
                ]
            )
    header = [
        "cosine / norm ratio",
        "whole update",
        "target of the first step",
        "inverse loss",
    ]
    caption = (
        "The whole update of the recurrent layer, and the target of its first step, against the gradient, at the end of training. The inverse's loss is the "
        "squared error of reconstruction / 2 a transition, or the (negative) loss of difference reconstruction."
    )
    return [picture, report.Table(header, rows, caption)]
