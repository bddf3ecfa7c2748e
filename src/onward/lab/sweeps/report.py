"""The page of a sweep: the best of each method, sensitivity, how stable the order is, every configuration."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onward import saving
from onward.lab import page
from onward.lab.figures import Cell, Row, canvas, legend_beside, level
from onward.lab.page import Picture, Table
from onward.lab.results import SUMMARY, load_environment
from onward.lab.sweeps import results
from onward.text import counted, markdown_table

ROWS = 200


def write_report(folder: Path, errors: dict[str, str] | None = None, *, events: bool = False) -> Path:
    """All that is read of a sweep: summary.json, tables as CSV, report.html; and TensorBoard events if asked for.

    `errors` says why a job did not end, by its name. Returns the path of the report.
    """
    ended = results.read(folder)
    summary = results.summarise(ended, folder, errors)
    saving.write_json(folder / SUMMARY, summary)
    results.write_tables(ended, folder, summary["configurations"])
    if events:
        results.write_events(ended, folder)
    with page.style():
        settings = json.dumps({**summary["definition"], "environment": load_environment(folder)}, indent=1)
        title = f"Sweep: {ended.kind.title}"
        return page.write_page(folder, title=title, lead=_lead(summary), parts=_parts(summary), settings=settings)


def as_markdown(folder: Path) -> str:
    """Of a sweep the best of each method and every configuration, as Markdown tables."""
    summary = results.load_summary(folder)
    vary = results.varied(summary)
    tables = [_best(summary, vary), _all(summary, vary)]
    return "\n\n".join([_lead(summary), *(markdown_table(table.header, table.rows) for table in tables)])


def _lead(summary: dict[str, Any]) -> str:
    rows = summary["configurations"]
    runs, failed = sum(len(r["seeds"]) for r in rows), sum(len(r["failed"]) for r in rows)
    best = [row for row in rows if row["best"] and row["mean"] is not None]
    text = f"{counted(len(rows), 'configuration')}, {counted(runs, 'run')}"
    if failed:
        text += f", of which {failed} became NaN or infinite"
    if summary["unfinished"]:
        text += f"; {len(summary['unfinished'])} jobs did not end"
    if best:
        sign = -1 if summary["higher_is_better"] else 1
        first = min(best, key=lambda r: sign * r["mean"])
        text += (
            f". The best of all, chosen by {summary['chosen_by']}: {results.label(first, results.varied(summary))}, "
            f"{_name(summary)} {_show(first['mean'])} (95 % interval: {_span(first)}; "
            f"{counted(len(first['seeds']), 'seed')})"
        )
    return text + "."


def _name(summary: dict[str, Any]) -> str:
    return str(summary["metric"]).replace("_", " ")


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) >= 0.1 else f"{value:.5f}"


def _span(row: dict[str, Any]) -> str:
    """The interval, on one line."""
    return page.span(row["low"], row["high"], _show)


def _parts(summary: dict[str, Any]) -> list[Any]:
    rows, vary = summary["configurations"], results.varied(summary)
    if not rows:
        return ["No job has ended."]
    parts: list[Any] = [_best(summary, vary)]
    for name in vary:
        values = {str(row[name]) for row in rows}
        if len(values) > 1 and all(isinstance(row[name], int | float) for row in rows):
            parts.append(_sensitivity(summary, name, [v for v in vary if v != name]))
    if summary["ranks"]:
        parts.append(_ranks(summary, vary))
    if len(summary["agreement"] or ()) > 1:
        parts.append(_agreement(summary))
    parts.append(_all(summary, vary))
    failed = [row for row in rows if row["failed"]]
    if failed:
        parts.append(
            Table(
                ["failed configuration", "seed", "what happened"],
                [
                    [results.label(row, vary), seed, why]
                    for row in failed[:ROWS]
                    for seed, why in list(row["failed"].items())[:4]
                ],
                "At most four seeds a configuration; runs.csv has all. Means are over the seeds that ended; a configuration with a failure is never chosen as best while another has none.",
            )
        )
    if summary["unfinished"]:
        jobs = [[name, why] for name, why in summary["unfinished"].items()]
        parts.append(Table(["job", "why it did not end"], jobs, "The same command tries them again."))
    return parts


def _table(rows: Sequence[Row], columns: dict[str, Cell], caption: str) -> Table:
    return Table(list(columns), [[cell(row) for cell in columns.values()] for row in rows], caption)


def _fields(vary: list[str]) -> dict[str, Cell]:
    """A column for each of these fields."""
    return {name.replace("_", " "): lambda row, name=name: results.show_value(row[name]) for name in vary}


# Columns that both tables of configurations have.
NUMBERS: dict[str, Cell] = {
    "mean": lambda row: _show(row["mean"]),
    "95 % interval": lambda row: _span(row),
    "median": lambda row: _show(row["median"]),
}


def _best(summary: dict[str, Any], vary: list[str]) -> Table:
    sign = -1 if summary["higher_is_better"] else 1
    chosen = sorted((r for r in summary["configurations"] if r["best"]), key=lambda r: sign * (r["mean"] or math.inf))
    columns: dict[str, Cell] = {"best of each method": lambda row: row["method"], **_fields(vary), **NUMBERS}
    columns["sd"] = lambda row: _show(row["sd"])
    if summary["chosen_by"] == "validation":
        columns["validation"] = lambda row: _show(row["valid"])
    columns["seeds"] = lambda row: str(len(row["seeds"]))
    if any(row["failed"] for row in chosen):
        columns["failed"] = lambda row: str(len(row["failed"]))
    others = summary["chosen_on_other_seeds"]
    columns["steps"] = lambda row: f"{row['steps']:,}"
    columns["chosen on other seeds"] = lambda row: _show((others.get(row["method"]) or {}).get("mean"))
    caption = (
        f"{_name(summary).capitalize()} at the end, {'more' if summary['higher_is_better'] else 'less'} is better; 95 % bootstrap interval of the mean over seeds. "
        f"Chosen by {summary['chosen_by']}. Chosen on other seeds: each seed's number under the configuration that was best on all other seeds, averaged; it is free of the luck of picking the best of many. "
        "Last rows: reference levels."
    )
    table = _table(chosen, columns, caption)
    levels = [
        [name.replace("-", " "), *(_show(value) if column == "mean" else "" for column in list(columns)[1:])]
        for name, value in summary["references"].items()
    ]
    return replace(table, rows=[*table.rows, *levels])


def _sensitivity(summary: dict[str, Any], name: str, others: list[str]) -> Picture:
    """The metric over one field; the other fields at what is best for each value."""
    sign = -1 if summary["higher_is_better"] else 1
    rows = summary["configurations"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = canvas(4.2)
    tops, broken = [], False
    for i, method in enumerate(methods):
        colour, mark = page.COLOURS[i % len(page.COLOURS)], "osD^vP*"[i // len(page.COLOURS) % 7]
        own = [row for row in rows if row["method"] == method and row["last"]]
        best = []
        for value in sorted({row[name] for row in own}):
            same = [row for row in own if row[name] == value]
            good = [row for row in same if row["mean"] is not None and not row["failed"]]
            if good:
                best.append(min(good, key=lambda r: sign * r["mean"]))
            else:
                axes.plot([value], [1.0], marker="x", color=colour, transform=axes.get_xaxis_transform(), clip_on=False)
                broken = True
        if best:
            x = [row[name] for row in best]
            means = np.asarray([row["mean"] for row in best])
            low, high = (np.asarray([math.nan if r[end] is None else r[end] for r in best]) for end in ("low", "high"))
            bars = [means - low, high - means]
            axes.errorbar(x, means, np.maximum(bars, 0), fmt=f"{mark}-", ms=4, lw=1.5, capsize=3, color=colour, label=method)  # fmt: skip
            tops += [row["mean"] if row["high"] is None else row["high"] for row in best]
    if sign > 0 and tops:
        levels = [v for v in summary["references"].values() if v <= 2 * np.median(tops)]
        top = min(max([*tops, *levels]), max(4 * np.median(tops), *levels, 0) if levels else 4 * np.median(tops))
        axes.set_ylim(min(0, *tops), 1.15 * top)
    for key, value in summary["references"].items():
        if axes.get_ylim()[0] <= value <= axes.get_ylim()[1]:
            level(axes, value, key.replace("-", " "))
    values = sorted({row[name] for row in rows})
    if values[0] > 0 and values[-1] / values[0] >= 8:
        axes.set_xscale("log")
    axes.set(xlabel=name.replace("_", " "), ylabel=_name(summary))
    axes.set_title(f"Which {name.replace('_', ' ')}")
    legend_beside(axes)
    text = "Mean over seeds at the end with its 95 % bootstrap interval"
    text += f"; {', '.join(o.replace('_', ' ') for o in others)} at what is best for each value." if others else "."
    text += " A cross at the top: runs became NaN or infinite." if broken else ""
    return Picture(f"sensitivity-{name.replace('_', '-')}", figure, text)


def _ranks(summary: dict[str, Any], vary: list[str]) -> Picture:
    ranks, by_id = summary["ranks"], {row["configuration"]: row for row in summary["configurations"]}
    rows = [by_id[c] for c in ranks["configurations"]]
    share = np.asarray(ranks["share"])
    figure, axes = canvas(1.6 + 0.38 * len(rows))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, k in np.ndindex(*share.shape):
        if share[i, k] >= 0.005:
            colour = "white" if share[i, k] > 0.6 else "black"
            axes.text(k, i, f"{share[i, k]:.0%}", ha="center", va="center", fontsize=8, color=colour)
    methods = [row["method"] for row in rows]
    names = methods if len(set(methods)) == len(rows) else [results.label(row, vary) for row in rows]
    axes.set(yticks=range(len(rows)), xticks=range(len(rows)), xticklabels=range(1, len(rows) + 1), xlabel="rank")
    axes.set_yticklabels(names)
    axes.tick_params(length=0)
    axes.set_title("How sure the order is")
    what = "the best configuration of each method" if len(set(methods)) == len(rows) else "the best configurations"
    return Picture(
        "ranks", figure, f"How often {what} would take each rank if the seeds were drawn anew ({results.RESAMPLED:,} paired bootstrap draws of the same seeds for all)."
    )  # fmt: skip


def _agreement(summary: dict[str, Any]) -> Picture:
    points = summary["agreement"]
    figure, axes = canvas(2.8, 5.2)
    axes.plot([p["seeds"] for p in points], [p["tau"] for p in points], "o-", color=page.COLOURS[0])
    axes.set(xlabel="seeds", ylabel="Kendall's tau", ylim=(min(0, *(p["tau"] for p in points)), 1.02))
    axes.set_xticks([p["seeds"] for p in points])
    axes.set_title("Would other seeds give the same order?")
    return Picture(
        "agreement",
        figure,
        "Agreement between the orders of all configurations by two disjoint sets of so many seeds (1: the same order, 0: none; mean of 200 splits).",
    )


def _all(summary: dict[str, Any], vary: list[str]) -> Table:
    sign = -1 if summary["higher_is_better"] else 1
    key = lambda r: (r["method"], not r["last"], sign * r["mean"] if r["mean"] is not None else math.inf)
    rows = sorted(summary["configurations"], key=key)
    columns: dict[str, Cell] = {
        "every configuration": lambda row: row["method"] + (" (best)" if row["best"] else ""),
        **_fields(vary),
        **({} if all(row["last"] for row in rows) else {"steps": lambda row: f"{row['steps']:,}"}),
        **NUMBERS,
        "seeds": lambda row: str(len(row["seeds"])),
        "failed": lambda row: str(len(row["failed"]) or ""),
    }
    more = f" The first {ROWS} of {len(rows)}; configurations.csv has all." if len(rows) > ROWS else ""
    return _table(rows[:ROWS], columns, f"{_name(summary).capitalize()} at the end, best first.{more}")
