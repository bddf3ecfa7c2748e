"""The HTML page of a run folder, with tables and figures, and their look. Reports never train."""

import html
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
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


def heat(axes: Axes, values: np.ndarray, **look: Any) -> None:
    """A picture of numbers, dark where they are small: on a dark page too, where all else of a figure is inverted."""
    place = axes.figure.axes.index(axes)
    axes.imshow(values, cmap="viridis", gid=f"heat-{place}", **look)


def _save(folder: Path, picture: Picture) -> str:
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
        # Its salt decides the names within an SVG. A name whose letters no font has is drawn as boxes.
        with style(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            picture.figure.savefig(buffer, format=kind, metadata=metadata)
        saving.write_bytes(folder / "figures" / f"{picture.name}.{kind}", buffer.getvalue())
    drawn = (folder / "figures" / f"{picture.name}.svg").read_text(encoding="utf-8")
    return f"<figure>{_inline(drawn, picture)}<figcaption>{html.escape(picture.caption)}</figcaption></figure>"


def _inline(drawn: str, picture: Picture) -> str:
    """An SVG as a part of a page: it says what it shows, and its names are its own."""
    start = drawn.index("<svg")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{picture.name}-", drawn[start:])
    svg = re.sub(r'^<svg ([^>]*?)width="([\d.]+)pt"', r'<svg \1width="\2pt" style="--wide:\2pt"', svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(picture.caption)}" ', 1)


# A table of more columns than this, or of wider ones than so many letters together, is read downwards on a small screen:
# each row a block, each number with its name.
MANY, LETTERS = 5, 40


def _is_wide(table: Table) -> bool:
    columns = zip(*(list(row[1:]) for row in table.rows), strict=False)
    # A header is broken between words, a cell is not.
    longest = [max(map(len, column), default=0) for column in columns]
    words = [max(map(len, name.split()), default=0) for name in table.header[1:]]
    letters = sum(max(pair) + 2 for pair in zip(longest, words, strict=False))
    return len(table.header) > MANY or letters > LETTERS


def _table(table: Table) -> str:
    kind = lambda i: " class=text" if 0 < i < table.texts else ""
    named = lambda i: f' data-label="{html.escape(table.header[i])}"'
    head = "".join(f"<th scope=col{kind(i)}>{html.escape(h)}</th>" for i, h in enumerate(table.header))
    whole = lambda text: html.escape(text).replace(" - ", "&nbsp;-&nbsp;")  # an interval stays on one line
    cell = lambda i, text: f"<td{kind(i)}{named(i)}>{whole(text)}</td>" if i else f"<th scope=row>{whole(text)}</th>"
    body = "".join(f"<tr>{''.join(cell(i, c) for i, c in enumerate(row))}</tr>" for row in table.rows)
    caption = f"<p class=caption>{html.escape(table.caption)}</p>" if table.caption else ""
    label = f' aria-label="{html.escape(table.caption or "table")}"'
    many = " class=many" if _is_wide(table) else ""
    return f"{caption}<div class=wide tabindex=0 role=region{label}><table{many}><tr>{head}</tr>{body}</table></div>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>{title}</title><style>
body{{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:1.5rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}}
p,ul,figcaption{{max-width:60rem}} h1{{font-size:1.5rem;margin:0}} .lead{{font-size:1.1rem;margin:.4rem 0 1rem}}
figure{{margin:1rem 0}} figure svg{{width:100%;max-width:var(--wide,60rem);height:auto;display:block}}
figcaption,.caption{{color:#555;font-size:.9rem}} .caption{{margin-bottom:0}}
.wide{{overflow-x:auto;margin:.5rem 0 1rem}} table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}
th,td{{padding:.2rem .5rem;text-align:right;border-bottom:1px solid #ddd;vertical-align:top;font-weight:400}} th[scope=col]{{font-weight:600}}
td{{white-space:nowrap}} td.text{{white-space:normal}} th:first-child{{text-align:left;min-width:8rem;max-width:22rem}} th.text,td.text{{text-align:left}}
details{{margin:1rem 0}} pre{{background:#f5f5f5;padding:.7rem;overflow-x:auto;font-size:.85rem}}
@media(max-width:40rem){{th,td{{padding:.15rem .3rem;font-size:.8rem}} th:first-child{{min-width:5rem;max-width:9rem;position:sticky;left:0;background:inherit}} tr{{background:#fff}}
table.many,.many tbody,.many tr,.many th,.many td{{display:block}} .many tr:first-child{{display:none}} .many tr{{margin-bottom:.7rem}}
.many th[scope=row]{{position:static;max-width:none;font-weight:600;padding-left:0}} .many td{{display:flex;gap:1rem;border:0;padding-left:.8rem;white-space:normal}}
.many td::before{{content:attr(data-label);flex:0 0 9rem;text-align:left;opacity:.7}} .many td:empty{{display:none}}}}
@media screen and (prefers-color-scheme:dark){{body{{color:#e4e4e4;background:#16181b}} figcaption,.caption{{color:#a9a9a9}}
th,td{{border-color:#3a3d41}} pre{{background:#22252a}} figure svg{{filter:invert(.91) hue-rotate(180deg)}} figure svg [id*="-heat-"]{{filter:invert(1) hue-rotate(180deg)}} tr{{background:#16181b}}}}
@media print{{body{{font-size:10px;margin:0;max-width:none}} .wide{{overflow:visible}} th,td{{padding:.1rem .3rem}} th:first-child{{min-width:0}}
figure,table{{break-inside:avoid}} details{{display:none}}}}
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
