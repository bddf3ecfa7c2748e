"""What the page of a run says of entities: how far each is ahead, which stand out, and how some of them went."""

import csv
import io
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from onward import saving
from onward.lab.page import COLOURS, GREY, Picture, Table, number
from onward.rows.figures import short
from onward.rows.fleet.ranking import BINS, MOST, cells_of
from onward.rows.options import Learn
from onward.rows.predictions import Format
from onward.text import counted

# Bytes at the end of predictions.csv in which the rows that are drawn are looked for, and rows of an entity.
LOOKED, DRAWN = 2**25, 150


def entities(folder: Path, file: str, ranking: dict[str, Any], options: Learn) -> list[str | Table | Picture]:
    """The part of the page; `file`: the name of the predictions."""
    left = f" {counted(ranking['unnamed'], 'row')} named none and were passed over." if ranking["unnamed"] else ""
    few = ranking["count"] - ranking["scored"]
    short_ones = f", not counting {counted(few, 'entity', 'entities')} of few scored rows" if few else ""
    text = (
        f"{counted(ranking['count'], 'entity', 'entities')}, each by itself. Onward is ahead of whichever alternative "
        f"was best for an entity in {ranking['ahead']:,} of {ranking['scored']:,}{short_ones}. entities.csv has all of "
        f"them.{left}"
    )
    tables = [_table(ranking[name], what, options) for name, what in _LISTS.items() if ranking[name]]
    parts: list[str | Table | Picture] = [text, *tables]
    if ranking["scored"]:
        parts.insert(1, _shares(ranking["shares"]))
        parts.append(_drawn(folder / file, ranking, options))
    return parts


_LISTS = {
    "worst": "Where Onward is furthest behind the best alternative, or least ahead.",
    "best": "Where it is furthest ahead.",
    "changed": "Whose error of late has grown most, to that before (ratio below 1: it has shrunk).",
    "alarmed": "Which had the most alarms and shifts a row.",
}


def _table(entities: list[dict[str, Any]], caption: str, options: Learn) -> Table:
    late = lambda each: "" if each.get("late") is None else number(each["late"], 3)
    marks = ("alarms", "shifts") if options.alarm else ()
    rows = [
        [
            *cells_of(each["entity"], options.by),
            f"{each['rows']:,}",
            number(each["ratio"], 3),
            late(each),
            *(f"{each.get(name, 0):,}" for name in marks),
        ]
        for each in entities
    ]
    header = [*options.by, "rows", "error to best alternative", "of late to before", *marks]
    return Table(header, rows, caption, texts=len(options.by))


def _shares(counts: list[int]) -> Picture:
    figure = Figure(figsize=(8.2, 3.0), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, MOST, BINS + 1)
    axes.bar(edges[:-1], counts, MOST / BINS, align="edge", color=COLOURS[0])
    axes.axvline(1, color=GREY, lw=1.2)
    axes.set_xlabel("error as a share of the best alternative's")
    axes.set_ylabel("entities")
    more = f"; the last bar holds all from {MOST:g} on" if counts[-1] else ""
    return Picture("entities", figure, f"Entities by how far Onward is ahead: left of the line it is{more}.")


def _drawn(path: Path, ranking: dict[str, Any], options: Learn) -> Picture:
    """The last rows of the best, the worst and the most changed, of the first target: a panel each."""
    lists = {"best": "best", "worst": "worst", "changed": "most changed", "alarmed": "most alarms"}
    named: dict[str, str] = {}
    for name, what in lists.items():
        if ranking[name]:
            entity = ranking[name][0]["entity"]
            named[entity] = f"{named[entity]}, {what}" if entity in named else what
    extra, odds = 2 if options.coverage else 0, options.alarm is not None
    form = Format(options.outputs, extra, classes=False, odds=odds, by=options.by)
    lines = _last_lines(path, form, [tuple(cells_of(name, options.by)) for name in named])
    figure = Figure(figsize=(8.2, 0.9 + 2.1 * len(named)), layout="constrained")
    panels = figure.subplots(len(named), squeeze=False)[:, 0]
    first = 2 + len(options.by)
    for axes, (name, what), rows in zip(panels, named.items(), lines, strict=True):
        stop = first + 2 + (2 if options.coverage else 0)
        values = np.array([[float(cell or "nan") for cell in line[first:stop]] for line in rows]).reshape(len(rows), -1)
        truth, said, *between = values.T if len(rows) else np.zeros((stop - first, 0))
        at = np.arange(len(rows))
        if between:
            axes.fill_between(
                at, *between, color=COLOURS[0], alpha=0.18, lw=0, label=f"{options.coverage:.0%} interval"
            )
        axes.plot(at, truth, color=GREY, lw=1.4, label="target")
        axes.plot(at, said, color=COLOURS[0], lw=1.4, label="predicted before")
        if odds:
            stands = form.header.index("alarm")
            alarm = np.array([bool(line[stands]) for line in rows], bool)
            # Drawn where there is none, too: so that it stands in the legend.
            axes.plot(at[alarm], truth[alarm], "o", mfc="none", ms=7, mew=1.4, color=COLOURS[1], label="alarm")
        axes.set_title(f"{short(', '.join(cells_of(name, options.by)), 60)} ({what})")
    panels[-1].set_xlabel("its last rows")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=4)
    of = f" ({options.target[0]})" if len(options.target) > 1 else ""
    return Picture("some-entities", figure, f"The last rows of some entities{of}.")


def _last_lines(path: Path, form: Format, wanted: list[tuple[str, ...]]) -> list[list[list[str]]]:
    """The last lines of some entities, as they were written."""
    with saving.reading(path), open(path, "rb") as file:
        head = file.readline()
        if next(csv.reader([head.decode()])) != form.header:
            raise ValueError(f"its columns are {head[:200]!r}, and not {form.header}")
        size = file.seek(0, io.SEEK_END)
        start = max(len(head), size - LOOKED)
        file.seek(start)
        if start > len(head):
            file.readline()
        found: dict[tuple[str, ...], deque[list[str]]] = defaultdict(lambda: deque(maxlen=DRAWN))
        stop = 2 + len(form.by)
        for line in csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline="")):
            if (name := tuple(line[2:stop])) in wanted:
                found[name].append(line)
    return [list(found[name]) for name in wanted]
