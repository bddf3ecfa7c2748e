"""What a report says of paths: the error by rows ahead, and the last path with what came before it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from onward.lab.page import COLOURS, GREY, Picture, Table, number
from onward.rows.figures import panels_of, short
from onward.rows.scores import CONTESTANTS, OURS, each_target, measure

# Steps of a path that a table lists.
MOST = 24
# Rows before a path that are drawn with it: so many times its length, and so many at least.
BEFORE, LEAST = 4, 48


def spans_of(scores: dict[str, Any]) -> int:
    """How many numbers were predicted of each target."""
    spans: int = scores.get("path", 1)
    return spans


def ends(outputs: Sequence[str], spans: int) -> list[int]:
    """Which outputs a report shows one by one: all, or of each path the first and the last."""
    if spans == 1:
        return list(range(len(outputs)))
    return [i for start in range(0, len(outputs), spans) for i in (start, start + spans - 1)]


def narrowed(content: dict[str, Any], outputs: Sequence[str], which: Sequence[int]) -> dict[str, Any]:
    """A summary, or a line of metrics.jsonl, of some outputs only: at least two, as `by_target` has them."""
    names = [outputs[i] for i in which]

    def some(value: Any) -> Any:
        if isinstance(value, dict):
            if [*value] == [*outputs]:
                return {name: value[name] for name in names}
            return {key: some(part) for key, part in value.items()}
        if isinstance(value, list) and len(value) == len(CONTESTANTS) and all(isinstance(v, list) for v in value):
            return [[errors[i] for i in which] for errors in value]
        return value

    return {key: names if key == "targets" else some(value) for key, value in content.items()}


def by_ahead(scores: dict[str, Any]) -> list[Any]:
    """The error of every contestant by rows ahead: a picture, and a table of each target."""
    spans, outputs, what = spans_of(scores), scores["targets"], measure(scores["task"])
    errors = np.array(scores["mean absolute error"], float).reshape(len(CONTESTANTS), -1, spans)
    names = [output.rpartition(" +")[0] for output in outputs[::spans]]
    figure, panels = panels_of(len(names))
    ahead = np.arange(1, spans + 1)
    for i, (name, axes) in enumerate(zip(names, panels, strict=True)):
        for j, (contestant, colour) in enumerate(zip(CONTESTANTS, COLOURS, strict=False)):
            width = 2.0 if contestant == OURS else 1.1
            axes.plot(ahead, errors[j, i], color=colour, lw=width, label=contestant, zorder=2 + (contestant == OURS))
        axes.set_ylim(bottom=0)
        if len(names) > 1:
            axes.set_title(short(name, 60))
        else:
            axes.set_ylabel(what)
    panels[-1].set_xlabel("rows ahead")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=5)
    parts: list[Any] = [Picture("ahead", figure, f"The {what} by rows ahead: all from the same row, on the same rows.")]
    inside = scores.get("interval")
    for i, name in enumerate(names):
        rows = []
        for j in np.unique(np.linspace(0, spans - 1, min(spans, MOST)).round().astype(int)).tolist():
            held = each_target(outputs, inside)[i * spans + j] if inside else None
            share = [f"{held['inside']:.1%}"] if held else []
            rows.append([f"+{j + 1}", *(number(error, 4) for error in errors[:, i, j]), *share])
        header = ["rows ahead" if len(names) == 1 else f"rows ahead: {name}", *CONTESTANTS]
        caption = f"{what.capitalize()} by rows ahead."
        if inside:
            header += ["in the interval"]
            caption += " The last column: the share of targets between low and high."
        parts.append(Table(header, rows, caption))
    return parts


def last_path(
    outputs: Sequence[str], spans: int, rows: np.ndarray, first: np.ndarray, paths: np.ndarray, share: float
) -> Picture:
    """The last path of each target after the rows before it.

    `rows`: from which the last paths were predicted, the newest last. `first`: what came one row after each of them,
    (rows, targets), NaN where it is not known. `paths`: of the newest, (targets, spans, 1 or 3): what is said, and the
    ends of the interval.
    """
    names = [output.rpartition(" +")[0] for output in outputs[::spans]]
    figure, panels = panels_of(len(names))
    shown = slice(-(max(LEAST, BEFORE * spans) + spans), None)
    ahead = rows[-1] + np.arange(1, spans + 1)
    for i, (name, axes) in enumerate(zip(names, panels, strict=True)):
        axes.plot(rows[shown] + 1, first[shown, i], color=GREY, lw=1.4, label="target")
        if paths.shape[2] == 3:
            low, high = paths[i, :, 1:].T
            axes.fill_between(ahead, low, high, color=COLOURS[0], alpha=0.18, lw=0, label=f"{share:.0%} interval")
        axes.plot(ahead, paths[i, :, 0], color=COLOURS[0], lw=1.4, label="predicted")
        if len(names) > 1:
            axes.set_title(short(name, 60))
        else:
            axes.set_ylabel(short(name))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return Picture("path", figure, f"The path predicted at row {rows[-1]:,}, the last, after the rows before it.")
