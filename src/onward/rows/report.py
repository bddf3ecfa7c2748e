"""The page of a run of `onward learn`: who predicts best, where, and how the last rows went."""

import csv
import json
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from onward.errors import OnwardError
from onward.lab import page as report
from onward.lab.folder import read_config
from onward.lab.page import COLOURS, GREY, Picture, Table, number
from onward.rows.learn import METRICS, PREDICTIONS, SUMMARY
from onward.text import markdown_table

# Rows of the series that are drawn, and windows of the error curve: more are averaged together.
DRAWN, WINDOWS = 300, 400


def write_report(folder: Path) -> Path:
    """Draw and write report.html from what the folder holds."""
    found, options = load_summary(folder), read_config(folder, "learn")["fields"]
    windows = (
        [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
        if (folder / METRICS).exists()
        else []
    )
    classes = options["task"] == "classification"
    what = "error rate" if classes else "mean absolute error"
    parts: list[Any] = [ranking(found, what, classes)]
    with report.style():
        if len(windows) > 1:
            parts += [_curves(windows, found["contestants"], what), _where(windows, found["contestants"], what)]
        if not classes:
            parts.append(_tail(folder, found, options))
    parts += _remarks(found, options)
    best = min(found["contestants"][1:], key=lambda name: _mean(found, name))
    ours, theirs = _mean(found, "network"), _mean(found, best)
    skill = 1 - ours / theirs if theirs > 0 else float("nan")
    verdict = f"{skill:.1%} below" if skill > 0 else "not below"
    lead = (
        f"{', '.join(found['targets'])} of {found['source']}, {_task(options)}: predicted, scored, then learned, row by row. "
        f"The network's {what} over {found['scored']:,} rows is {ours:.4g}, {verdict} that of the best "
        f"alternative ({best}, {theirs:.4g})."
    )
    title = f"Onward learned from {Path(found['source']).name}"
    return report.write_page(folder, title=title, lead=lead, parts=parts, settings=json.dumps(options, indent=1))


def as_markdown(folder: Path) -> str:
    """The scores of a run folder, of every contestant and target, as a Markdown table; then its notes."""
    scores = load_summary(folder)
    classes = scores["task"] == "classification"
    table = ranking(scores, "error rate" if classes else "mean absolute error", classes)
    notes = [f"- {note}" for note in scores["notes"]]
    return "\n\n".join([markdown_table(table.header, table.rows), *(["Notes:", "\n".join(notes)] if notes else [])])


def load_summary(folder: Path) -> dict[str, Any]:
    """The summary of a run that came to its end."""
    try:
        summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text())
    except FileNotFoundError as error:
        raise OnwardError(f"{folder} has not been learned to its end: {error.filename} is missing") from None
    return summary


def _task(options: dict[str, Any]) -> str:
    if options["task"] == "return":
        return f"the return with discount {options['discount']:g}"
    ahead = options["horizon"]
    return "of the same row" if ahead == 0 else f"{ahead} row{'s' if ahead > 1 else ''} ahead"


def _mean(found: dict[str, Any], name: str) -> float:
    """The mean absolute error of a contestant, averaged over targets."""
    return float(np.mean(found["mean absolute error"][found["contestants"].index(name)]))


def ranking(found: dict[str, Any], what: str, classes: bool) -> Table:
    """Contestants, best first, with the network's skill against each."""
    rows = []
    targets = found["targets"]
    for i, target in enumerate(targets):
        errors = [row[i] for row in found["mean absolute error"]]
        squares = [row[i] for row in found["root mean square error"]]
        for j in np.argsort(errors, kind="stable"):
            name = found["contestants"][j]
            skill = "" if name == "network" or not errors[j] else f"{1 - errors[0] / errors[j]:+.1%}"
            label = {
                "seasonal": f"seasonal (every {found['period']} rows)"
                if found["period"]
                else "seasonal (no season found)"
            }
            if classes:
                label |= {"last value": "last class", "mean": "most frequent class"}
            cells = [label.get(name, name), number(errors[j], 4), *([] if classes else [number(squares[j], 4)]), skill]
            rows.append([target, *cells] if len(targets) > 1 else cells)
    header = ["", what, *([] if classes else ["root mean square"]), "network's skill against it"]
    caption = "All on the same rows, each predicted before it was learned from; skill is 1 - ours / theirs."
    return Table(["target", *header] if len(targets) > 1 else header, rows, caption)


def _merged(windows: list[dict[str, Any]], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Row counts, and mean errors (window, contestant), of at most WINDOWS windows."""
    rows = np.array([w["rows"] for w in windows])
    values = np.array([[w[name] for name in names] for w in windows])
    weight = np.array([w["count"] for w in windows], float)
    group = -(-len(windows) // WINDOWS)
    parts = [slice(i, i + group) for i in range(0, len(windows), group)]
    return np.array([rows[p][-1] for p in parts]), np.array([np.average(values[p], 0, weight[p]) for p in parts])


def _curves(windows: list[dict[str, Any]], names: list[str], what: str) -> Picture:
    rows, values = _merged(windows, names)
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(np.mean(values, 0))
    best = values[:, order[0]].mean()
    left_out = []
    for j, colour in zip(range(len(names)), COLOURS, strict=False):
        if values[:, j].mean() > 3 * best and names[j] != "network":
            left_out.append(names[j])
            continue
        axes.plot(
            rows, values[:, j], color=colour, lw=2.0 if j == 0 else 1.1, label=names[j], zorder=3 if j == 0 else 2
        )
    axes.set(xlabel="row", ylabel=f"{what} of a window")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper right", ncols=5)
    gone = f" Left out, far above: {', '.join(left_out)}." if left_out else ""
    return Picture("errors", figure, f"The {what}, window by window.{gone}")


def _where(windows: list[dict[str, Any]], names: list[str], what: str) -> Table:
    """The windows where the network is best and worst against the best alternative of each."""
    others = [n for n in names if n != "network"]
    scored = []
    for w in windows:
        rival = min(others, key=lambda n: w[n])
        scored.append((w["network"] / w[rival] if w[rival] > 0 else 1.0, rival, w))
    won = sum(ratio < 1 for ratio, _, _ in scored)
    ordered = sorted(scored, key=lambda s: s[0])
    few = ordered[:3] + ordered[-3:] if len(ordered) > 6 else ordered
    rows = [
        [
            f"up to row {w['row']:,}" + (f" ({w['time']})" if w["time"] else ""),
            number(w["network"], 4),
            rival,
            number(w[rival], 4),
            f"{ratio:.2f}",
        ]
        for ratio, rival, w in few
    ]
    header = ["window", "network", "best alternative", "its error", "ratio"]
    caption = (
        f"Where it wins and where it loses: the network is ahead of whichever alternative was best in {won} of "
        f"{len(scored)} windows. Below, its best windows and its worst ({what})."
    )
    return Table(header, rows, caption)


def _tail(folder: Path, found: dict[str, Any], options: dict[str, Any]) -> Picture:
    """The last rows of the first target, with what was said of them before."""
    with open(folder / PREDICTIONS, newline="", encoding="utf-8") as file:
        header, *_ = [next(csv.reader(file))]
        last = list(deque(csv.reader(file), maxlen=DRAWN))
    at = {name: header.index(name) for name in ("row", "target", "prediction", "low", "high") if name in header}
    if "target" not in at:
        first = found["targets"][0]
        at |= {"target": header.index(first), "prediction": header.index(f"{first} prediction")}
    column = lambda name: np.array([float(line[at[name]]) if line[at[name]] else np.nan for line in last])
    rows = column("row")
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    axes = figure.subplots()
    if "low" in at:
        share = f"{options['interval']:.0%} interval"
        axes.fill_between(rows, column("low"), column("high"), color=COLOURS[0], alpha=0.18, lw=0, label=share)
    axes.plot(rows, column("target"), color=GREY, lw=1.4, label=found["targets"][0])
    axes.plot(rows, column("prediction"), color=COLOURS[0], lw=1.4, label="predicted before")
    axes.set(xlabel="row", ylabel=found["targets"][0])
    figure.legend(loc="outside upper right", ncols=3)
    return Picture(
        "last-rows",
        figure,
        f"The last {len(last):,} predictions; where the line of the target ends, it is still to come.",
    )


def _remarks(found: dict[str, Any], options: dict[str, Any]) -> list[str]:
    texts = []
    interval = found.get("interval")
    if interval and interval["rows"]:
        if options["task"] == "classification":
            texts.append(
                f"The class was right in {interval['inside']:.1%} of rows; the mean probability given to it was {interval['size']:.1%}."
            )
        else:
            texts.append(
                f"{interval['inside']:.1%} of targets lay between low and high, which were to hold {options['interval']:.0%}; "
                f"mean width {interval['size']:.4g}."
            )
    if found["constant"]:
        texts.append("The target never changed: there was nothing to learn, and no score says anything.")
    texts.append(
        f"{found['rows']:,} rows, {found['columns read']} columns read as {found['inputs']} inputs, {found['cpu_seconds']:.1f} CPU seconds "
        "of learning, scoring and compiling."
    )
    if found["notes"]:
        texts.append(
            f"Remarks on the data ({len(found['notes'])}): "
            + "; ".join(found["notes"][:8])
            + ("; ..." if len(found["notes"]) > 8 else "")
        )
    return texts
