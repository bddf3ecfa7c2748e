"""The report of piano: a table, validation curves, a piece as it was heard and continued, samples as MIDI files."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from onward.errors import OnwardError
from onward.lab.data import datasets
from onward.lab.figures import Run, canvas, cell, curve_with_spread, grid, interval_cell, level, published, spread_words
from onward.lab.page import COLOURS, Picture, Table
from onward.lab.papers.piano import ONLINE, PianoExperiment, split, trivial_levels
from onward.tasks.piano import NOTES, window_starts
from onward.text import sentence


def report(run: Run[PianoExperiment]) -> tuple[str, list[Any]]:
    """The lead and the parts of the page."""
    experiment, rows, references = run.experiment, run.rows, run.references
    best = min(rows, key=lambda m: m["mean"])
    pieces = datasets.load_music(experiment.data)
    windows = _windows(pieces.test, experiment.length)
    trivial = min(references, key=lambda k: references[k])
    what = {"etudes": "generated etudes"}.get(experiment.data, experiment.data)
    lead = (
        f"On {what}, T = {experiment.length}, {best['name']} predicts the next frame at {best['mean']:.3f} nats over all {windows:,} test windows (mean "
        f"of {run.seeds}). The best predictor that only counts ({trivial}) is at "
        f"{references[trivial]:.3f}, note frequencies at {references['note frequencies']:.3f}."
    )
    if experiment.origin:
        lead = f"{sentence(experiment.origin)} {lead}"
    held = min(experiment.validation_windows, _windows(pieces.valid, experiment.length))
    # Curves are of validation windows, so are the levels beside them.
    beside = trivial_levels(pieces.train, pieces.valid, experiment.length)
    batch = [m for m in rows if split(m["name"])[0] not in ONLINE] or rows
    heard = min(batch, key=lambda m: m["mean"])["name"]
    parts: list[Any] = [_table(run, windows, held), _curves(run, beside), _roll(run, heard, pieces.test)]
    parts += [_midi(run, pieces.test)]
    parts += [sentence(experiment.left_out)] if experiment.left_out else []
    return lead, parts


def _windows(pieces: Sequence[np.ndarray], length: int) -> int:
    return len(window_starts([len(p) for p in pieces], length))


def _table(run: Run[PianoExperiment], windows: int, held: int) -> Table:
    experiment = run.experiment
    also = lambda name: lambda m: f"{np.mean(m['also'][name]):.3f}"
    return run.table(
        {
            "test NLL": cell(".3f"),
            "95 % interval": interval_cell(3),
            "least": lambda m: f"{min(m['values']):.3f}",
            "most": lambda m: f"{max(m['values']):.3f}",
        }
        | ({"paper": published} if any(m["published"] is not None for m in run.rows) else {})
        | {title: also(name) for title, name in zip(("joint", "valid", "whole pieces"), experiment.also, strict=True)}
        | {
            "step size": cell("g", "step_size"),
            "CPU s a seed": lambda m: f"{m['cpu_seconds'] / len(m['values']):.0f}",
        },
        {f"counting: {k}": [f"{v:.3f}"] for k, v in run.references.items()},
        f"Nats a frame, 88 notes: the frame after every window of {experiment.length} frames of the test pieces ({windows:,}), each read from a clean "
        f"state; mean over seeds. Kept is the state that was best on {held:,} validation windows (valid: its loss there). Whole pieces: "
        "every frame but a piece's first, given all before it in the piece. Of stochastic networks, a note's probability is the mean over "
        f"{experiment.evaluation} trajectories; joint: the mean of the probability of the whole frame, a mixture that may know which notes go together.",
        sorted(run.rows, key=lambda m: m["mean"]),
    )


def _curves(run: Run[PianoExperiment], levels: dict[str, float]) -> Picture:
    figure, axes = canvas(4.4)
    lowest = np.inf
    for i, row in enumerate(run.rows):
        steps, values = run.curve(row, "valid")
        label, colour = f"{row['name']}: test {row['mean']:.2f}", COLOURS[i % len(COLOURS)]
        curve_with_spread(axes, steps / steps[-1], values, label=label, colour=colour)
        axes.lines[-1].set_linestyle(("-", "--", ":", "-.")[i // len(COLOURS) % 4])
        lowest = min(lowest, values.min())
    for name in ("note frequencies", "repeat last, table"):
        level(axes, levels[name], name)
        lowest = min(lowest, levels[name])
    top = 1.05 * levels["note frequencies"]
    axes.set(
        xlabel="share of the updates made",
        ylabel="NLL on validation windows (nats)",
        xlim=(0, 1),
        ylim=(lowest - 0.04 * (top - lowest), top),
    )
    figure.legend(loc="outside lower center", ncols=3)
    return Picture(
        "curves",
        figure,
        f"Mean over {run.seeds}; {spread_words(run.experiment.seeds)}. What is kept is the lowest point of each seed.",
    )


def _roll(run: Run[PianoExperiment], name: str, pieces: Sequence[np.ndarray]) -> Picture:
    source = run.experiment.sampled(pieces)
    piece, heard, prompt = np.asarray(source.frames), run.inspected(name), source.prompt
    own = np.concatenate([piece[:prompt], heard["continuation"]])
    used = np.flatnonzero(piece.any(0) | own.any(0))
    low, high = (int(used.min()), int(used.max())) if len(used) else (0, NOTES - 1)
    figure, column = grid(3, 1, 7.2, sharex=True, sharey=True)
    axes = column[:, 0]
    views = (
        (piece[1:], "what was played"),
        (heard["probabilities"], "probability that it gave each note, given all frames before"),
        (own[1:], f"its own: {prompt} frames of the piece, then samples"),
    )
    look: Any = {"cmap": "Greys", "vmin": 0, "vmax": 1, "origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    for a, (values, title) in zip(axes, views, strict=True):
        a.imshow(values.T, extent=(1, len(values) + 1, 20.5, 20.5 + NOTES), **look)
        a.set(title=title, ylabel="MIDI note", ylim=(low + 20, high + 22), xlim=(1, len(piece)))
    axes[2].axvline(prompt, color=COLOURS[1], lw=1.5)
    axes[2].set_xlabel("frame")
    return Picture(
        "piano-roll",
        figure,
        f"A test piece, heard by {name} (seed {run.experiment.first_seed}). The orange line: from here on it hears only what it played.",
    )


def _midi(run: Run[PianoExperiment], pieces: Sequence[np.ndarray]) -> str:
    """Writes the samples, and says where they are."""
    source = run.experiment.sampled(pieces)
    names = []
    for row in run.rows:
        heard = run.inspected(row["name"])
        if "continuation" not in heard:
            continue
        own = np.concatenate([np.asarray(source.frames)[: source.prompt], heard["continuation"]])
        try:
            datasets.write_midi(own, run.folder / "samples" / f"{row['name']}.mid")
        except OnwardError as error:
            return f"No samples were written as MIDI: {error}"
        names.append(f"samples/{row['name']}.mid")
    return (
        f"To listen to, each {source.prompt} frames of the piece and then {source.steps} sampled: {', '.join(names)}."
    )
