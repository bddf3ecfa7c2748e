"""The page of a run of `onward learn`: who predicts best, where, and how the last rows went."""

import csv
import json
from collections import deque
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from matplotlib.figure import Figure

from onward import saving
from onward.lab import page
from onward.lab.page import COLOURS, GREY, Picture, Table, number
from onward.rows.learn import METRICS, PREDICTIONS, load_options
from onward.rows.scores import CONTESTANTS, measure
from onward.rows.summary import load_summary
from onward.text import counted, markdown_table

# Rows of the series that are drawn, and windows of the error curve: more are averaged together.
DRAWN, WINDOWS = 300, 400


class _Window(TypedDict):
    """A line of metrics.jsonl, beside the error of each contestant."""

    rows: int
    row: int
    time: str
    count: int


def write_report(folder: Path) -> Path:
    """Draw and write report.html from what the folder holds."""
    scores, options = load_summary(folder), load_options(folder)[1]
    windows, what = read_windows(folder), measure(scores["task"])
    parts: list[Any] = [ranking(scores)]
    with page.style():
        if len(windows) > 1:
            parts += [_curves(windows, scores["contestants"], what), _where(windows, scores["contestants"], what)]
        if scores["task"] != "classification":
            parts.append(_tail(folder, scores["targets"][0], options["interval"]))
    parts += [read_as(scores), *_remarks(scores, options)]
    errors = dict(zip(scores["contestants"], np.mean(scores["mean absolute error"], 1).tolist(), strict=True))
    ours = errors.pop("network")
    best = min(errors, key=errors.__getitem__)
    skill = 1 - ours / errors[best] if errors[best] > 0 else float("nan")
    verdict = f"{skill:.1%} below" if skill > 0 else "not below"
    lead = (
        f"{', '.join(scores['targets'])} of {scores['source']}, {_task(options)}: predicted, scored, then learned, row "
        f"by row. The network's {what} over {scores['scored']:,} rows is {ours:.4g}, {verdict} that of the best "
        f"alternative ({best}, {errors[best]:.4g})."
    )
    title = f"Onward learned from {Path(scores['source']).name}"
    return page.write_page(folder, title=title, lead=lead, parts=parts, settings=json.dumps(options, indent=1))


def as_markdown(folder: Path) -> str:
    """The scores of a run folder, and what its columns were read as, as Markdown tables; then its notes."""
    scores = load_summary(folder)
    notes = [f"- {note}" for note in scores["notes"]]
    tables = [markdown_table(table.header, table.rows) for table in (ranking(scores), read_as(scores))]
    return "\n\n".join([*tables, *(["Notes:", "\n".join(notes)] if notes else [])])


def read_windows(folder: Path) -> list[dict[str, Any]]:
    """Every line of metrics.jsonl; a last line that was cut off is left out. OnwardError where one is damaged."""
    file, windows = folder / METRICS, []
    with saving.reading(file):
        *lines, _ = file.read_bytes().split(b"\n") if file.exists() else [b""]
    for i, line in enumerate(lines, 1):
        where = f"{file}, line {i}"
        with saving.reading(where):
            windows.append(json.loads(line))
            saving.check_meta(windows[-1], _Window, where)
            saving.check_meta({name: windows[-1].get(name) for name in CONTESTANTS}, dict[str, float], where)
    return windows


def _task(options: dict[str, Any]) -> str:
    if options["task"] == "return":
        return f"the return with discount {options['discount']:g}"
    ahead = options["horizon"]
    return "of the same row" if ahead == 0 else f"{ahead} row{'s' if ahead > 1 else ''} ahead"


def ranking(scores: dict[str, Any]) -> Table:
    """Contestants, best first, with the network's skill against each."""
    classes, period, several = scores["task"] == "classification", scores["period"], len(scores["targets"]) > 1
    label = {"seasonal": f"seasonal (every {period} rows)" if period else "seasonal (no season found)"}
    if classes:
        label |= {"last value": "last class", "mean": "most frequent class"}
    rows = []
    for i, target in enumerate(scores["targets"]):
        errors = [row[i] for row in scores["mean absolute error"]]
        for j in np.argsort(errors, kind="stable"):
            name = scores["contestants"][j]
            skill = "" if name == "network" or not errors[j] else f"{1 - errors[0] / errors[j]:+.1%}"
            square = [] if classes else [number(scores["root mean square error"][j][i], 4)]
            rows.append([target] * several + [label.get(name, name), number(errors[j], 4), *square, skill])
    square = [] if classes else ["root mean square"]
    header = ["target"] * several + ["", measure(scores["task"]), *square, "network's skill against it"]
    caption = "All on the same rows, each predicted before it was learned from; skill is 1 - ours / theirs."
    return Table(header, rows, caption)


def read_as(scores: dict[str, Any]) -> Table:
    """Every column, and what it was read as."""
    rows = [
        [c["name"], c["role"] or "none", c["read as"], c["otherwise"], f"{c['missing']:,}", f"{c['odd']:,}"]
        for c in scores["columns"]
    ]
    caption = (
        "What every column was read as, and the option that says otherwise. Missing counts cells without a value from "
        "the column's first value on, odd those of them that hold something else."
    )
    return Table(["column", "used as", "read as", "to say otherwise", "missing", "odd"], rows, caption, texts=4)


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
    means = values.mean(0)
    far = means > 3 * means.min()
    for j, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        ours = name == "network"
        if ours or not far[j]:
            axes.plot(rows, values[:, j], color=colour, lw=2.0 if ours else 1.1, label=name, zorder=3 if ours else 2)
    axes.set(xlabel="row", ylabel=f"{what} of a window")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper right", ncols=5)
    left_out = [name for name, out in zip(names, far, strict=True) if out and name != "network"]
    gone = f" Left out, far above: {', '.join(left_out)}." if left_out else ""
    return Picture("errors", figure, f"The {what}, window by window.{gone}")


def _where(windows: list[dict[str, Any]], names: list[str], what: str) -> Table:
    """The windows where the network is best and worst against the best alternative of each."""
    others = [n for n in names if n != "network"]
    scored = []
    for w in windows:
        rival = min(others, key=lambda n: w[n])
        when = f"up to row {w['row']:,}" + (f" ({w['time']})" if w["time"] else "")
        scored.append((w["network"] / w[rival] if w[rival] > 0 else 1.0, when, w["network"], rival, w[rival]))
    won = sum(ratio < 1 for ratio, *_ in scored)
    ordered = sorted(scored, key=lambda window: window[0])
    few = ordered[:3] + ordered[-3:] if len(ordered) > 6 else ordered
    rows = [[when, number(ours, 4), rival, number(theirs, 4), f"{r:.2f}"] for r, when, ours, rival, theirs in few]
    header = ["window", "network", "best alternative", "its error", "ratio"]
    caption = (
        f"Where it wins and where it loses: the network is ahead of whichever alternative was best in {won} of "
        f"{len(scored)} windows. Below, its best windows and its worst ({what})."
    )
    return Table(header, rows, caption)


def _tail(folder: Path, name: str, share: float) -> Picture:
    """The last rows of the first target, with what was said of them before."""
    with saving.reading(folder / PREDICTIONS):
        with open(folder / PREDICTIONS, newline="", encoding="utf-8") as file:
            header = next(csv.reader(file))
            last = list(deque(csv.reader(file), maxlen=DRAWN))
        named = {column: [line[at] for line in last] for at, column in enumerate(header)}
        truth, said = ("target", "prediction") if "target" in header else (name, f"{name} prediction")
        wanted = ("row", truth, said, *(("low", "high") if "low" in header else ()))
        columns = {column: np.array([float(cell or "nan") for cell in named[column]]) for column in wanted}
    rows = columns["row"]
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    axes = figure.subplots()
    if "low" in header:
        ends = columns["low"], columns["high"]
        axes.fill_between(rows, *ends, color=COLOURS[0], alpha=0.18, lw=0, label=f"{share:.0%} interval")
    axes.plot(rows, columns[truth], color=GREY, lw=1.4, label=name)
    axes.plot(rows, columns[said], color=COLOURS[0], lw=1.4, label="predicted before")
    axes.set(xlabel="row", ylabel=name)
    figure.legend(loc="outside upper right", ncols=3)
    caption = f"The last {len(last):,} predictions; where the line of the target ends, it is still to come."
    return Picture("last-rows", figure, caption)


def _remarks(scores: dict[str, Any], options: dict[str, Any]) -> list[str]:
    texts, notes = [], scores["notes"]
    interval = scores.get("interval")
    if interval and interval["rows"]:
        right, size = f"{interval['inside']:.1%}", interval["size"]
        if options["task"] == "classification":
            texts.append(f"The class was right in {right} of rows; the mean probability given to it was {size:.1%}.")
        else:
            texts.append(
                f"{right} of targets lay between low and high, which were to hold {options['interval']:.0%}; "
                f"mean width {size:.4g}."
            )
    if scores["constant"]:
        texts.append("The target never changed: there was nothing to learn, and no score says anything.")
    texts.append(
        f"{scores['rows']:,} rows, {scores['columns read']} columns read as {scores['inputs']} inputs, "
        f"{scores['cpu_seconds']:.1f} CPU seconds of learning, scoring and compiling."
    )
    if strange := scores.get("strange", {}).get("rows", 0):
        texts.append(
            f"Far from all before it was a reading in {counted(strange, 'row')}; it was not followed unless the next "
            'one agreed. The column "strange" of predictions.csv marks each.'
        )
    if notes:
        name = f"{scores['source']}: "
        said = "; ".join(note.removeprefix(name) for note in notes[:8])
        texts.append(f"Remarks on the data ({len(notes)}): {said}{'; ...' * (len(notes) > 8)}")
    return texts
