"""What cells of text and other values say as numbers and times; counts in words, and tables as Markdown."""

import datetime
import math
from collections.abc import Iterable, Sequence

import numpy as np


def number(value: object) -> float | None:
    """The finite number that a cell says; None where it says none, or one too large for a float.

    Text is read as Python reads it, but for underscores, which are no part of a number. `None` says none. Which words
    stand for a missing cell, or for a number, is for the caller to know.

    >>> number(" 1.5 "), number("1e999"), number("1_000"), number("ten"), number(None)
    (1.5, None, None, None, None)
    """
    if value is None or (isinstance(value, str) and "_" in value):
        return None
    try:
        read = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return read if math.isfinite(read) else None


def seconds(value: object) -> float:
    """A time in seconds since 1970, UTC unless it says otherwise; NaN where it is none.

    `value`: a date or time of Python or NumPy, ISO text, or a number, which is taken as it is.

    >>> seconds("1970-01-02"), seconds("1970-01-01T01:00+01:00"), seconds("12.5"), seconds(datetime.date(1970, 1, 2))
    (86400.0, 0.0, 12.5, 86400.0)
    >>> seconds("noon"), seconds(None)
    (nan, nan)
    """
    if isinstance(value, np.datetime64):
        return math.nan if np.isnat(value) else float(value.astype("datetime64[ms]").astype(np.int64)) / 1e3
    try:
        if isinstance(value, datetime.datetime):
            moment = value
        elif isinstance(value, datetime.date):
            moment = datetime.datetime(value.year, value.month, value.day)
        elif (plain := number(value)) is not None:
            return plain
        else:
            moment = datetime.datetime.fromisoformat(str(value).strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def counted(count: int, what: str, several: str = "") -> str:
    """A number and what it counts, with an s unless it is one; `several`: where that is another word.

    >>> counted(1, "seed"), counted(1000, "seed"), counted(2, "entity", "entities")
    ('1 seed', '1,000 seeds', '2 entities')
    """
    return f"{count:,} {what if count == 1 else several or what + 's'}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A Markdown table, without a line end; a bar within a cell is escaped.

    Raises ValueError if a row has not as many cells as the header.

    >>> print(markdown_table(["rule", "error"], [["SnAp|1", "0.2"], ["RTRL", ""]]))
    | rule | error |
    |---|---|
    | SnAp\|1 | 0.2 |
    | RTRL | |
    """
    lines = [_line(header), "|" + "---|" * len(header)]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells under a header of {len(header)}: {list(row)}")
        lines.append(_line(row))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in escaped)


def sentence(text: str) -> str:
    """With a capital at the start and a full stop at the end."""
    return f"{text[:1].upper()}{text[1:]}."
