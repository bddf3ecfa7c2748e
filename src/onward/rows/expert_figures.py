"""What carried the predictions of `onward learn`: its experts' weights over time, and the error of each alone."""

from typing import Any

import numpy as np

from onward.lab.page import COLOURS, GREY, Picture, Table, number
from onward.rows.figures import WINDOWS, of_target, panels_of, short
from onward.rows.scores import each_target, measure
from onward.rows.stream import EXPERTS
from onward.rows.stream.experts import AHEAD
from onward.rows.summary import by_weight

# Experts in words.
WORDS = {
    "stack": "least squares over what the others say",
    "network": "the recurrent network",
    "lags": "least squares over lags, seasons, calendar and network",
    "calendar": "as lags, with a constant for each hour or day",
    "delays": "as lags, with the columns of many rows before",
    "last": "the last value",
    "mean": "the mean so far",
    "day": "the value a day before",
    "week": "the value a week before",
    "year": "the value a year before",
    "season": "the value one season before, as found in the data",
    "trees": "boosted trees over the last rows",
    "linear": "the linear baseline",
}
# The same of classes, where they say other things.
OF_CLASSES = {
    "stack": "the product of what the others say, each to a power",
    "last": "what followed the class before",
    "mean": "the share of each class so far",
}


def carried(scores: dict[str, Any], windows: list[dict[str, Any]]) -> list[Any]:
    """What carried the predictions of each target: the experts' weights over time, and their own errors."""
    targets = scores["targets"]
    ranked = [by_weight(scores, i) for i in range(len(targets))]
    if not any(ranked):
        return []
    parts: list[Any] = []
    there = [window for window in windows if "weights" in window]
    if len(there) > 1:
        figure, panels = panels_of(len(targets))
        names = [name for name in EXPERTS if any(name in [e["name"] for e in each] for each in ranked)]
        for i, (target, axes) in enumerate(zip(targets, panels, strict=True)):
            rows, weights = _weights(there, targets, i, names)
            axes.stackplot(rows, *weights.T, labels=names, colors=[_colour(name) for name in names], lw=0)
            axes.set(ylim=(0, 1), xlim=(rows[0], rows[-1]))
            if len(targets) > 1:
                axes.set_title(short(target, 60))
            else:
                axes.set_ylabel("weight")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=5)
        parts.append(
            Picture("weights", figure, "What carried the prediction: the weight of each expert, window by window.")
        )
    heard = "the power of each" if scores["task"] == "classification" else "what the stack multiplies each by"
    what, words = measure(scores["task"]), WORDS | (OF_CLASSES if scores["task"] == "classification" else {})
    for i in [i for i, each in enumerate(ranked) if each]:
        stacked = any(each.get("in stack") is not None for each in ranked[i])
        lines = [
            [
                f"{each['name']}: {words[each['name']]}",
                f"{each['weight']:.1%}",
                number(each["mean absolute error"], 4),
                f"{each['rows']:,}",
                *([_heard(each)] if stacked else []),
            ]
            for each in ranked[i]
        ]
        of = of_target(targets, i)
        header = [f"expert{of}", "mean weight", f"{what} alone", "rows answered"]
        header += ["in the stack"] if stacked else []
        caption = f"The prediction{of} is the mean of these answers, by weights that follow how well each did."
        caption += f" In the stack: {heard}, at the end." if stacked else ""
        parts.append(Table(header, lines, caption))
    return parts


def _weights(
    windows: list[dict[str, Any]], targets: list[str], i: int, names: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Row counts, and weights (window, expert), of at most WINDOWS windows of target i."""
    rows = np.array([window["rows"] for window in windows])
    weights = np.array([[each_target(targets, w["weights"])[i].get(name, 0.0) for name in names] for w in windows])
    group = max(1, -(-len(rows) // WINDOWS))
    cuts = range(0, len(rows), group)
    means = np.array([weights[at : at + group].mean(0) for at in cuts])
    return np.array([rows[at : at + group][-1] for at in cuts]), means / np.maximum(means.sum(1, keepdims=True), 1e-9)


def _heard(expert: dict[str, Any]) -> str:
    heard = expert.get("in stack")
    return "" if heard is None else f"{heard:.2f}"


# Of those that never answer side by side one colour is enough.
_ALIKE = {"trees": "lags", "linear": "calendar"}


def _colour(name: str) -> str:
    return [*COLOURS, GREY, "#8c6bb1", "#b8b8b8", "#d9d9d9"][AHEAD.index(_ALIKE.get(name, name))]
