"""The HTML page of a run folder, with tables and figures, and their look. Reports never train."""

import base64
import html
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from onward import saving

# Okabe and Ito's colours, told apart by colour-blind readers too; methods take them in this order.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6b6b6b"
# Values of which a bootstrap interval says something.
ENOUGH = 5
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
    """Rows of text under a header; the first columns, so many as are `texts`, are left-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    texts: int = 1


@contextmanager
def style() -> Iterator[None]:
    """A context in which figures are made with Onward's look."""
    with matplotlib.rc_context(STYLE):
        yield


def span(low: float | None, high: float | None, show: Callable[[float], str]) -> str:
    """An interval for a table, on one line; where there is none, why."""
    if low is None or high is None or math.isnan(low):
        return "too few seeds"
    return f"{show(low)} - {show(high)}"


def interval(values: Sequence[float] | np.ndarray, *, draws: int = 10_000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of `values` (percentiles of `draws` resamplings, seeded); NaN where they are few.

    Of fewer than `ENOUGH` values it would be too short: of two it is their range, and holds the mean half of the time.
    """
    array = np.asarray(values, float)
    if len(array) < ENOUGH:
        return float("nan"), float("nan")
    chosen = np.random.default_rng(0).integers(0, len(array), (draws, len(array)))
    low, high = np.percentile(array[chosen].mean(1), [2.5, 97.5])
    return float(low), float(high)


def number(value: float | None, digits: int = 3) -> str:
    """`value` to so many significant digits, for a table; "-" where there is none."""
    return "-" if value is None else f"{value:.{digits}g}"


def _save(folder: Path, picture: Picture) -> str:
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
        with style():  # its salt decides the names within an SVG
            picture.figure.savefig(buffer, format=kind, metadata=metadata)
        saving.write_bytes(folder / "figures" / f"{picture.name}.{kind}", buffer.getvalue())
    data = base64.b64encode((folder / "figures" / f"{picture.name}.png").read_bytes()).decode()
    return f'<figure><img alt="{html.escape(picture.caption)}" src="data:image/png;base64,{data}">' + (
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    kind = lambda i: " class=text" if 0 < i < table.texts else ""
    head = "".join(f"<th{kind(i)}>{html.escape(h)}</th>" for i, h in enumerate(table.header))
    whole = lambda text: html.escape(text).replace(" - ", "&nbsp;-&nbsp;")  # an interval stays on one line
    cells = lambda row: "".join(f"<td{kind(i)}>{whole(c)}</td>" for i, c in enumerate(row))
    body = "".join(f"<tr>{cells(row)}</tr>" for row in table.rows)
    caption = f"<p class=caption>{html.escape(table.caption)}</p>" if table.caption else ""
    return f"{caption}<table><tr>{head}</tr>{body}</table>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:1.5rem auto;padding:0 1rem;color:#1a1a1a}}
h1{{font-size:1.5rem;margin:0}} .lead{{font-size:1.1rem;margin:.4rem 0 1rem}}
figure{{margin:1rem 0}} img{{max-width:100%;height:auto}} figcaption,.caption{{color:#555;font-size:.9rem;text-align:left}}
table{{border-collapse:collapse;margin:.5rem 0 1rem;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}}
th,td{{padding:.2rem .5rem;text-align:right;border-bottom:1px solid #ddd}} th:first-child,td:first-child{{text-align:left;min-width:10rem}}
th.text,td.text{{text-align:left}}
details{{margin:1rem 0}} pre{{background:#f5f5f5;padding:.7rem;overflow-x:auto;font-size:.85rem}}
</style></head><body><h1>{title}</h1><p class="lead">{lead}</p>{body}
<details><summary>Settings and machine</summary><pre>{settings}</pre></details></body></html>
"""


def _list(texts: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in texts)}</ul>"


def write_page(
    folder: Path, *, title: str, lead: str, parts: Sequence[Picture | Table | str | list[str]], settings: str
) -> Path:
    """Save every figure as PNG and SVG in `folder`/figures, and report.html, which needs no other file; returns its path.

    `lead`: the paragraph under the title. `parts`: what follows, in order; a text is a paragraph, a list of texts a list. `settings`: shown folded at
    the end.
    """
    body = "".join(
        _save(folder, p)
        if isinstance(p, Picture)
        else _table(p)
        if isinstance(p, Table)
        else _list(p)
        if isinstance(p, list)
        else f"<p>{html.escape(p)}</p>"
        for p in parts
    )
    page = _PAGE.format(title=html.escape(title), lead=html.escape(lead), body=body, settings=html.escape(settings))
    path = folder / "report.html"
    saving.write_bytes(path, page.encode())
    return path
