"""The page of a run of `onward learn`: who predicts best, where, and how the last rows went."""

import csv
import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from onward import saving
from onward.lab import page
from onward.lab.page import COLOURS, GREY, Picture, Table, number
from onward.rows.class_figures import confused
from onward.rows.expert_figures import carried
from onward.rows.figures import WINDOWS, of_target, panels_of, short
from onward.rows.fleet.page import entities
from onward.rows.fleet.ranking import cells_of
from onward.rows.learn import METRICS, PREDICTIONS, load_options
from onward.rows.options import Learn
from onward.rows.path_figures import by_ahead, ends, last_path, narrowed, spans_of
from onward.rows.predictions import Format
from onward.rows.remarks import Remarks
from onward.rows.scores import CONTESTANTS, OURS, each_target, measure
from onward.rows.summary import best_first, check_targets, load_summary, without
from onward.text import counted, markdown_table

# Rows of the series that are drawn.
DRAWN = 300
# Windows are drawn up to so many times what is usual, where targets were not believed.
USUAL = 3.0
# Classes that are drawn by name.
SHOWN = 12
# Remarks on the data that the page lists.
NOTES = 20


class _Window(TypedDict):
    """A line of metrics.jsonl, beside the count and the error of each contestant, of each target (`by_target`)."""

    rows: int
    row: int
    time: str


def write_report(folder: Path) -> Path:
    """Draw and write report.html from what the folder holds."""
    whole, (said, options) = load_summary(folder), load_options(folder)
    outputs, what, spans = whole["targets"], measure(whole["task"]), spans_of(whole)
    windows, scores = read_windows(folder, outputs), whole
    if spans > 1:  # of each path its ends one by one
        shown = ends(outputs, spans)
        windows, scores = [narrowed(w, outputs, shown) for w in windows], narrowed(whole, outputs, shown)
    targets = scores["targets"]
    parts: list[Any] = ranking(scores)
    with page.style():
        parts += by_ahead(whole) if spans > 1 else []
        if len(windows) > 1:
            curves = [_Curve(windows, targets, i) for i in range(len(targets))]
            odd = [without(scores, i) is not None for i in range(len(targets))]
            parts.append(_curves(curves, targets, what, odd))
            parts += [_where(curve, what, of_target(targets, i)) for i, curve in enumerate(curves)]
        parts += [*confused(scores), *carried(scores, windows)]
        classes = scores["task"] == "classification"
        odds = said.alarm is not None
        parts += [*_oddest(scores, said)] if odds else []
        if "entities" in scores:
            parts += entities(folder, PREDICTIONS, scores["entities"], said)
        elif classes:
            parts.append(_classes(folder, targets[0], odds))
        else:
            parts += _tail(folder, outputs, spans, said.coverage, odds)
    parts += [read_as(scores), *_kinds(scores), *_remarks(scores, said)]
    verdicts = " ".join(_verdict(scores, i, what) for i in range(len(targets)))
    lead = (
        f"{', '.join(said.target)} of {scores['source']}, {_task(options)}: predicted, scored, then learned, row by row. "
        f"{verdicts}"
    )
    title = f"Onward learned from {Path(scores['source']).name}"
    return page.write_page(folder, title=title, lead=lead, parts=parts, settings=json.dumps(options, indent=1))


def as_markdown(folder: Path) -> str:
    """The scores of a run folder, and what its columns were read as, as Markdown tables; then its notes."""
    scores = load_summary(folder)
    notes, outputs = [f"- {note}" for note in scores["notes"]], scores["targets"]
    ranked = (
        ranking(narrowed(scores, outputs, ends(outputs, spans))) if (spans := spans_of(scores)) > 1 else ranking(scores)
    )
    ahead = [part for part in by_ahead(scores) if isinstance(part, Table)] if spans > 1 else []
    tables = [markdown_table(table.header, table.rows) for table in (*ranked, *ahead, read_as(scores))]
    return "\n\n".join([*tables, *(["Notes:", "\n".join(notes)] if notes else [])])


def _verdict(scores: dict[str, Any], i: int, what: str) -> str:
    """Onward beside the best alternative for one target."""
    targets = scores["targets"]
    errors = dict(best_first(scores, i))
    if not errors:
        return f"No row of {targets[i]} could be scored."
    ours = errors.pop(OURS)
    best, theirs = next(iter(errors.items()))
    skill = 1 - ours / theirs if theirs > 0 else float("nan")
    verdict = f"{skill:.1%} below" if skill > 0 else "not below"
    rows = each_target(targets, scores["scored"])[i]
    beside = ""
    if left := without(scores, i):
        said = {name: mean for name, (mean, _) in left[1].items() if mean is not None}
        if OURS in said:
            ours_left, (rival, least) = said.pop(OURS), min(said.items(), key=lambda each: each[1])
            beside = (
                f" Without {counted(left[0], 'row')} whose target was not believed it is {ours_left:.4g} ({rival}, "
                f"{least:.4g})."
            )
    return (
        f"Onward's {what}{of_target(targets, i)} over {rows:,} rows is {ours:.4g}, {verdict} that of the best alternative "
        f"({best}, {theirs:.4g}).{beside}"
    )


def read_windows(folder: Path, targets: list[str]) -> list[dict[str, Any]]:
    """Every line of metrics.jsonl; a last line that was cut off is left out. OnwardError where one is damaged."""
    file, windows = folder / METRICS, []
    with saving.reading(file):
        *lines, _ = file.read_bytes().split(b"\n") if file.exists() else [b""]
    for i, line in enumerate(lines, 1):
        where = f"{file}, line {i}"
        with saving.reading(where):
            windows.append(json.loads(line))
            saving.check_meta(windows[-1], _Window, where)
            if "weights" in windows[-1]:
                check_targets(windows[-1]["weights"], targets, dict[str, float], f"{where}, weights")
            for name in ("count", *CONTESTANTS):
                kind: Any = int if name == "count" else float if len(targets) == 1 else float | None
                check_targets(windows[-1].get(name), targets, kind, f"{where}, {name}")
    return windows


def _task(options: dict[str, Any]) -> str:
    if options["task"] == "return":
        return f"the return with discount {options['discount']:g}"
    ahead = options["horizon"]
    if options["path"]:
        return f"1 to {ahead} rows ahead"
    return "of the same row" if ahead == 0 else f"{ahead} row{'s' if ahead > 1 else ''} ahead"


def ranking(scores: dict[str, Any]) -> list[Table]:
    """Contestants, best first, with Onward's skill against each: a table a target."""
    classes, period, targets = scores["task"] == "classification", scores["period"], scores["targets"]
    label = {"seasonal": f"seasonal (every {period} rows)" if period else "seasonal (no season found)"}
    if classes:
        label |= {"last value": "last class", "mean": "most frequent class"}
    square = [] if classes else ["root mean square"]
    tables = []
    for i, target in enumerate(targets):
        ranked, rows, left = best_first(scores, i), [], without(scores, i)
        for name, error in ranked:
            skill = "" if name == OURS or not error else f"{1 - dict(ranked)[OURS] / error:+.1%}"
            j = scores["contestants"].index(name)
            squares = [number(scores["root mean square error"][j][i], 4) for _ in square]
            beside = [number(each, 4) for each in left[1][name]] if left else []
            rows.append([label.get(name, name), number(error, 4), *squares, skill, *beside])
        header = [target if len(targets) > 1 else "", measure(scores["task"]), *square, "Onward's skill against it"]
        header += [f"{measure(scores['task'])}, believed rows", "root mean square, believed rows"] if left else []
        caption = "All on the same rows, each predicted before it was learned from; skill is 1 - ours / theirs."
        if left:
            caption += f" Believed rows: without {counted(left[0], 'row')} whose target was not believed."
        tables.append(
            Table(
                header,
                rows or [["no row could be scored", "-", *["-"] * len(square), ""]],
                caption if left or not i else "",
            )
        )
    return tables


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


def _kinds(scores: dict[str, Any]) -> list[Table]:
    """Where the rows are of which not every one has a remark of its own."""
    kinds = Remarks(scores.get("remarks")).kinds
    rows = [[kind, f"{each.count:,}", each.words()] for kind, each in kinds.items() if each.count > each.told]
    caption = "Of these more rows are meant than the remarks below name; summary.json lists all (remarks)."
    return [Table(["what", "how many", "rows"], rows, caption, texts=1)] if rows else []


class _Curve:
    """The windows of one target that scored a row of it: errors (window, contestant), and how many rows."""

    def __init__(self, windows: list[dict[str, Any]], targets: list[str], i: int):
        of = lambda content: each_target(targets, content)[i]
        self.windows = [window for window in windows if of(window["count"])]
        self.counts = np.array([of(window["count"]) for window in self.windows], float)
        errors = [[of(window[name]) for name in CONTESTANTS] for window in self.windows]
        self.errors = np.array(errors).reshape(-1, len(CONTESTANTS))

    def merged(self) -> tuple[np.ndarray, np.ndarray]:
        """Row counts, and mean errors (window, contestant), of at most WINDOWS windows."""
        rows = np.array([window["rows"] for window in self.windows])
        group = max(1, -(-len(rows) // WINDOWS))
        parts = [slice(i, i + group) for i in range(0, len(rows), group)]
        means = [np.average(self.errors[part], 0, self.counts[part]) for part in parts]
        return np.array([rows[part][-1] for part in parts]), np.array(means).reshape(-1, len(CONTESTANTS))


def _curves(curves: list[_Curve], targets: list[str], what: str, odd: list[bool]) -> Picture:
    """The errors of all contestants, window by window: a panel a target.

    `odd`: which have rows that were not believed. A window with such a row may go beyond the picture.
    """
    figure, panels = panels_of(len(targets))
    drawn: dict[str, Any] = {}
    left_out, beyond = [], False
    for curve, target, axes, is_odd in zip(curves, targets, panels, odd, strict=True):
        rows, values = curve.merged()
        means = values.mean(0) if len(values) else np.zeros(len(CONTESTANTS))
        far = means > 3 * means.min()
        for j, (name, colour) in enumerate(zip(CONTESTANTS, COLOURS, strict=False)):
            ours = name == OURS
            if ours or not far[j]:
                style: Any = {"lw": 2.0, "zorder": 3} if ours else {"lw": 1.1, "zorder": 2}
                (line,) = axes.plot(rows, values[:, j], color=colour, **style)
                drawn.setdefault(name, line)
        axes.set_ylim(bottom=0)
        most = values[:, ~far | (np.arange(len(CONTESTANTS)) == 0)].max(1)
        if is_odd and 0 < (top := USUAL * float(np.median(most))) < most.max():
            axes.set_ylim(top=top)
            beyond = True
        out = ", ".join(name for name, out in zip(CONTESTANTS, far, strict=True) if out and name != OURS)
        left_out += [f"{out} ({target})" if len(targets) > 1 else out] if out else []
        if len(targets) > 1:
            axes.set_title(short(target, 60))
    if len(targets) > 1:
        figure.supylabel(f"{what} of a window", fontsize="medium")
    else:
        panels[0].set_ylabel(f"{what} of a window")
    names = [name for name in CONTESTANTS if name in drawn]
    figure.legend([drawn[name] for name in names], names, loc="outside upper right", ncols=5)
    gone = f" Left out, far above: {'; '.join(left_out)}." if left_out else ""
    gone += " What goes beyond the picture holds rows whose target was not believed." if beyond else ""
    return Picture("errors", figure, f"The {what}, window by window.{gone}")


def _where(curve: _Curve, what: str, of: str) -> Table:
    """The windows of a target where Onward is best and worst against the best alternative of each."""
    scored = []
    for window, (ours, *others) in zip(curve.windows, curve.errors.tolist(), strict=True):
        theirs = min(others)
        when = f"up to row {window['row']:,}" + (f" ({window['time']})" if window["time"] else "")
        rival = CONTESTANTS[1 + others.index(theirs)]
        scored.append((ours / theirs if theirs > 0 else 1.0, when, ours, rival, theirs))
    won = sum(ratio < 1 for ratio, *_ in scored)
    ordered = sorted(scored, key=lambda window: window[0])
    few = ordered[:3] + ordered[-3:] if len(ordered) > 6 else ordered
    rows = [[when, number(ours, 4), rival, number(theirs, 4), f"{r:.2f}"] for r, when, ours, rival, theirs in few]
    header = ["window", OURS, "best alternative", "its error", "ratio"]
    caption = (
        f"Where it wins and where it loses: Onward is ahead of whichever alternative was best in {won} of "
        f"{len(scored)} windows{of}. Below, its best windows and its worst ({what})."
    )
    return Table(header, rows, caption)


@contextmanager
def _last_rows(folder: Path, form: Format) -> Iterator[list[list[str]]]:
    """The last lines of the predictions, as they were written; what is wrong with the file is said of it."""
    with saving.reading(folder / PREDICTIONS):
        with open(folder / PREDICTIONS, newline="", encoding="utf-8") as file:
            header = next(csv.reader(file))
            last = list(deque(csv.reader(file), maxlen=DRAWN))
        if header != form.header:
            raise ValueError(f"its columns are {header}, and not {form.header}")
        yield last


def _tail(folder: Path, outputs: list[str], spans: int, share: float, odds: bool) -> list[Picture]:
    """The last rows of every target, with what was said of them before: a panel each; of paths the last, too."""
    form = Format(outputs, 2 if share else 0, classes=False, odds=odds)
    with _last_rows(folder, form) as last:
        stop = form.header.index("alarm") if odds else -1
        numbers = np.array([[float(cell or "nan") for cell in [line[0], *line[2:stop]]] for line in last])
        marks = np.array([line[-1] for line in last])
        alarms = np.array([bool(odds and line[stop]) for line in last], bool)
    rows, each = numbers[:, 0], np.split(numbers[:, 1:], len(outputs), 1)
    each = [columns[:, :-1] for columns in each] if odds else each
    shown = ends(outputs, spans)
    if spans == 1:
        return [_said_before(rows, each, outputs, marks, share, alarms=alarms)]
    paths = np.array([columns[-1, 1:-1] for columns in each]).reshape(len(outputs) // spans, spans, -1)
    first = np.stack([columns[:, 0] for columns in each[::spans]], 1)
    return [
        last_path(outputs, spans, rows, first, paths, share),
        _said_before(
            rows, [each[i] for i in shown], [outputs[i] for i in shown], marks, share, [1, spans] * len(paths)
        ),
    ]


def _said_before(
    made: np.ndarray,
    each: list[np.ndarray],
    targets: list[str],
    marks: np.ndarray,
    share: float,
    ahead: Sequence[int] = (),
    alarms: np.ndarray | None = None,
) -> Picture:
    """Targets, with what was said of them before: a panel each. `ahead`: rows from those of the file to the targets.

    `alarms`: which rows are one.
    """
    figure, panels = panels_of(len(targets))
    for i, (target, columns, axes) in enumerate(zip(targets, each, panels, strict=True)):
        truth, said, *between, _ = columns.T
        rows = made + (ahead[i] if ahead else 0)
        if between:
            axes.fill_between(rows, *between, color=COLOURS[0], alpha=0.18, lw=0, label=f"{share:.0%} interval")
        axes.plot(rows, truth, color=GREY, lw=1.4, label=short(target) if len(targets) == 1 else "target")
        axes.plot(rows, said, color=COLOURS[0], lw=1.4, label="predicted before")
        # What is not believed, and an interval that holds it, may lie anywhere.
        strange = marks == target
        usual = np.concatenate([truth[~strange], said])
        usual = usual[np.isfinite(usual)]
        if (marks != "").any() and len(usual):
            room = 0.05 * np.ptp(usual) + (np.nanmedian(between[1] - between[0]) if between else 0)
            low, high = usual.min() - room, usual.max() + room
            if low < high:
                axes.set_ylim(low, high)
                if strange.any():
                    at = np.clip(truth[strange], low, high)
                    axes.plot(rows[strange], at, "x", color=COLOURS[1], clip_on=False, label="not believed")
        if alarms is not None and alarms.any():
            at = np.clip(truth[alarms], *axes.get_ylim())
            axes.plot(rows[alarms], at, "o", mfc="none", ms=7, mew=1.4, color=COLOURS[1], clip_on=False, label="alarm")
        if len(targets) == 1:
            axes.set_ylabel(short(target))
        else:
            axes.set_title(short(target, 60))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    caption = f"The last {len(made):,} predictions; where the line of a target ends, it is still to come."
    caption += " What was not believed may lie beyond the picture." if (marks != "").any() else ""
    return Picture("last-rows", figure, caption)


def _oddest(scores: dict[str, Any], options: Learn) -> list[str | Table]:
    """How many rows were odd, and the first of them."""
    odd, level = scores["odd"], options.alarm or 1.0
    text = (
        f"{counted(odd['alarms'], 'alarm')} among {counted(odd['scored'], 'row')} that were scored: rows whose value was "
        f"less likely than once in {1 / level:,.0f} calm rows; and {counted(odd['shifts'], 'shift')}: where values were "
        f"unlikely one after another, as by chance once in {1 / level:,.0f} rows{' of an entity' * bool(options.by)} at "
        "most."
    )
    if not odd["first"]:
        return [text]
    header, whose = ["row", "time", *options.by, "what", "score"], lambda each: cells_of(each["entity"], options.by)
    rows = [
        [
            f"{each['row']:,}",
            each["time"],
            *(whose(each) if options.by else []),
            each["kind"],
            f"{each['score']:.2g}",
        ]
        for each in odd["first"]
    ]
    more = odd["alarms"] + odd["shifts"] > len(rows)
    caption = "The first of them; predictions.csv marks each in its columns alarm and shift." if more else ""
    return [text, Table(header, rows, caption)]


def _classes(folder: Path, target: str, odds: bool) -> Picture:
    """The last rows of a target of classes: which came, which was said before, and how sure of it the network was."""
    with _last_rows(folder, Format([target], 1, classes=True, odds=odds)) as last:
        lines = [line for line in last if line[3]]
        rows, sure = np.array([[float(line[0]), float(line[4])] for line in lines]).reshape(-1, 2).T
        came, said = ([line[i] for line in lines] for i in (2, 3))
    often = [name for name, _ in Counter([*came, *said]).most_common() if name]
    names = sorted(often) if len(often) <= SHOWN else [*sorted(often[: SHOWN - 1]), "all others"]
    place = {name: i for i, name in enumerate(names)}
    at = lambda classes: np.array([place.get(c, len(names) - 1) if c else np.nan for c in classes])
    figure, (above, below) = panels_of(2)
    known = np.array([bool(c) for c in came], bool)
    wrong = known & np.array([a != b for a, b in zip(came, said, strict=True)], bool)
    above.plot(rows, at(came), drawstyle="steps-mid", color=GREY, lw=1.4, label=short(target))
    for chosen, colour, label in ((~wrong, COLOURS[0], "predicted before"), (wrong, COLOURS[1], "predicted wrongly")):
        if chosen.any():
            above.plot(rows[chosen], at(said)[chosen], "o", ms=3, color=colour, label=label)
    above.set(
        yticks=range(len(names)), yticklabels=[short(name) for name in names], ylim=(max(len(names), 1) - 0.5, -0.5)
    )
    below.plot(rows, sure, color=COLOURS[0], lw=1.1)
    below.set(ylim=(0, 1.02), ylabel="its probability", xlabel="row")
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    right = f", {int((known & ~wrong).sum()):,} of {int(known.sum()):,} right" if known.any() else ""
    caption = (
        f"The last {len(rows):,} predictions{right}: the class that came, the class that was predicted before, and below "
        "the probability that was given to it."
    )
    return Picture("last-rows", figure, caption)


def _remarks(scores: dict[str, Any], options: Learn) -> list[str | list[str]]:
    texts, notes, targets = [], scores["notes"], scores["targets"]
    if "interval" in scores:
        each = list(zip(targets, each_target(targets, scores["interval"]), strict=True))
        found = [(name, f"{part['inside']:.1%}", part["size"]) for name, part in each if part["rows"]]
        for _, right, size in found if len(targets) == 1 else ():
            texts.append(
                f"The class was right in {right} of rows; the mean probability given to it was {size:.1%}."
                if options.task == "classification"
                else f"{right} of targets lay between low and high, which were to hold {options.coverage:.0%}; "
                f"mean width {size:.4g}."
            )
        if len(targets) > 1:
            inside = ", ".join(f"{right} of {name} (mean width {size:.4g})" for name, right, size in found)
            texts.append(f"Between low and high, which were to hold {options.coverage:.0%}, lay {inside}.")
    if never := [name for name, same in zip(targets, each_target(targets, scores["constant"]), strict=True) if same]:
        which = (
            f"targets {', '.join(never)}" if len(never) > 1 else "target" + (f" {never[0]}" if len(targets) > 1 else "")
        )
        texts.append(f"The {which} never changed: there was nothing to learn, and no score says anything.")
    texts.append(
        f"{counted(scores['rows'], 'row')}, {counted(scores['columns read'], 'column')} read as "
        f"{counted(scores['inputs'], 'input')}, "
        f"{scores['cpu_seconds']:.1f} CPU seconds of learning, scoring and compiling."
    )
    if strange := scores.get("strange", {}).get("rows", 0):
        texts.append(
            f"Far from all before it was a reading in {counted(strange, 'row')}; it was not followed unless the next "
            'one agreed. The column "strange" of predictions.csv marks each.'
        )
    return [*texts, *_notes(scores["source"], notes)]


def _notes(source: str, notes: list[str]) -> list[str | list[str]]:
    """What was told of the data, as a list; where it is long, its beginning."""
    if not notes:
        return []
    bare = [note.removeprefix(source).lstrip(":, ") for note in notes[:NOTES]]
    more = len(notes) - len(bare)
    rest = [f"and {more:,} more, in summary.json"] if more else []
    return [f"Remarks on the data ({len(notes):,}):", [*bare, *rest]]
