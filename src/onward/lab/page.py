"""Figures and the HTML page of a run folder. Reports never train."""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onward import saving

# Okabe and Ito's colours, told apart by colour-blind readers too; methods take them in this order.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6b6b6b"
STYLE: Any = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "onward",
}


@dataclass(frozen=True)
class Picture:
    """A figure with its file name and what it shows."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first column is left-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str


@contextmanager
def style() -> Iterator[None]:
    """Onward's look, for the figures made inside."""
    with matplotlib.rc_context(STYLE):
        yield


def curve_with_spread(
    axes: Axes, x: np.ndarray, values: np.ndarray, *, label: str, colour: str, interval: bool = False
) -> None:
    """The mean over runs (columns of `values`) as a line; the band is best to worst run, or the mean's 95 % interval."""
    mean = values.mean(1)
    axes.plot(x, mean, color=colour, lw=1.8, label=label)
    if values.shape[1] > 1:
        error = 1.96 * values.std(1, ddof=1) / np.sqrt(values.shape[1])
        low, high = (mean - error, mean + error) if interval else (values.min(1), values.max(1))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def level(axes: Axes, value: float, label: str, *, above: bool = True) -> None:
    """A horizontal reference line, named at its right end."""
    axes.axhline(value, color=GREY, lw=1, ls=(0, (4, 3)), zorder=0)
    axes.annotate(
        label,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3 if above else -3),
        textcoords="offset points",
        ha="right",
        va="bottom" if above else "top",
        color=GREY,
        fontsize=9,
    )


def interval(values: Sequence[float], *, draws: int = 10_000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean (percentiles; the resampling is seeded)."""
    array = np.asarray(values, float)
    chosen = np.random.default_rng(0).integers(0, len(array), (draws, len(array)))
    low, high = np.percentile(array[chosen].mean(1), [2.5, 97.5])
    return float(low), float(high)


def finals(
    rows: Sequence[Any], references: dict[str, float], *, label: str, colours: dict[str, str] | None = None
) -> Picture:
    """Every seed's number at the end, method by method, between the exact levels; levels far above all of them are left out."""
    figure = Figure(figsize=(8.2, 1.3 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [row["name"] for row in rows]
    colours = colours or dict(zip(names, COLOURS * len(rows), strict=False))
    top = max(v for row in rows for v in row["values"])
    for i, row in enumerate(rows):
        colour = colours[row["name"]]
        axes.scatter(row["values"], np.full(len(row["values"]), -i), color=colour, s=22, alpha=0.6)
        axes.scatter([row["mean"]], [-i], color=colour, marker="|", s=320, lw=2)
    for name, value in references.items():
        if value > 2 * top:
            continue
        top = max(top, value)
        axes.axvline(value, color=GREY, lw=1, ls=(0, (4, 3)), zorder=0)
        place: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
        axes.annotate(name, (value, 1), xytext=(0, 3), color=GREY, fontsize=8, **place)
    axes.set(yticks=[-i for i in range(len(rows))], yticklabels=names, xlabel=label)
    axes.set(ylim=(-len(rows) + 0.5, 0.5), xlim=(-0.03 * top, 1.08 * top))
    return Picture("final-errors", figure, "Every seed at the end (dots) and their mean (bar). Dashed: exact levels.")


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table."""
    return "-" if value is None else f"{value:.{digits}g}"


def _save(folder: Path, picture: Picture) -> str:
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
        picture.figure.savefig(buffer, format=kind, metadata=metadata)
        saving.write_bytes(folder / "figures" / f"{picture.name}.{kind}", buffer.getvalue())
    data = base64.b64encode((folder / "figures" / f"{picture.name}.png").read_bytes()).decode()
    return f'<figure><img alt="{html.escape(picture.caption)}" src="data:image/png;base64,{data}">' + (
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(h)}</th>" for h in table.header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in table.rows)
    return f"<table><caption>{html.escape(table.caption)}</caption><tr>{head}</tr>{body}</table>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:1.5rem auto;padding:0 1rem;color:#1a1a1a}}
h1{{font-size:1.5rem;margin:0}} .lead{{font-size:1.1rem;margin:.4rem 0 1rem}}
figure{{margin:1rem 0}} img{{max-width:100%;height:auto}} figcaption,caption{{color:#555;font-size:.9rem;text-align:left}}
table{{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}}
th,td{{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #ddd}} th:first-child,td:first-child{{text-align:left;min-width:13rem}}
details{{margin:1rem 0}} pre{{background:#f5f5f5;padding:.7rem;overflow-x:auto;font-size:.85rem}}
</style></head><body><h1>{title}</h1><p class="lead">{lead}</p>{body}
<details><summary>Settings and machine</summary><pre>{settings}</pre></details></body></html>
"""


def write_page(folder: Path, *, title: str, lead: str, parts: Sequence[Picture | Table | str], settings: str) -> Path:
    """Save every figure as PNG and SVG, and one HTML file that needs nothing else."""
    body = "".join(
        _save(folder, p)
        if isinstance(p, Picture)
        else _table(p)
        if isinstance(p, Table)
        else f"<p>{html.escape(p)}</p>"
        for p in parts
    )
    page = _PAGE.format(title=html.escape(title), lead=html.escape(lead), body=body, settings=html.escape(settings))
    path = folder / "report.html"
    saving.write_bytes(path, page.encode())
    return path
