"""Cells of a table as numbers, and which of them are missing."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from onward.errors import OnwardError
from onward.rows.sources.numerals import PLAIN, Numerals
from onward.text import number

Cell = str | float | int | bool | None
# What pandas, R, spreadsheets and loggers write where there is nothing; in capitals or not.
_MARKS = (
    *(
        "",
        "na",
        "n/a",
        "n.a.",
        "n.a",
        "nan",
        "-nan",
        "+nan",
        "<na>",
        "<nan>",
        "#na",
        "#n/a",
        "#n/a n/a",
        "#n/a!",
        "nat",
    ),
    *(
        "null",
        "(null)",
        "<null>",
        "#null!",
        "none",
        "<none>",
        "nil",
        "\\n",
        "-",
        "--",
        "---",
        "----",
        "\u2013",
        "\u2014",
    ),
    *(
        ".",
        "..",
        "...",
        "\u2026",
        "?",
        "??",
        "???",
        "1.#ind",
        "-1.#ind",
        "1.#qnan",
        "-1.#qnan",
        "nan(ind)",
        "-nan(ind)",
    ),
    *("#div/0!", "#ref!", "#value!", "#name?", "#num!", "#calc!", "#error!", "###", "####"),
)
MISSING = frozenset(
    form for mark in _MARKS for form in (mark, mark.upper(), mark.capitalize(), mark.title(), "NaN", "NaT")
)
# Words of no number that do not make a column of numbers one of categories; among categories they are such.
NO_NUMBER = frozenset(
    (
        *(
            "unknown",
            "unavailable",
            "undefined",
            "undef",
            "missing",
            "void",
            "empty",
            "invalid",
            "error",
            "err",
            "err.",
        ),
        *("fault", "bad", "no data", "nodata", "no value", "no reading", "not available", "not applicable", "overflow"),
        *("over", "under", "off-scale", "out of range", "inf", "-inf", "+inf", "infinity", "-infinity", "+infinity"),
    )
)
MAX_COLUMNS = 10_000
_WORDS: dict[Any, float] = {None: math.nan} | dict.fromkeys(MISSING, math.nan)
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), 1.0) | dict.fromkeys(("false", "False", "FALSE"), 0.0)
_LONGEST = max(map(len, MISSING))


def is_missing(cell: Cell) -> bool:
    """Whether a cell stands for nothing: None, NaN, empty, or one of the marks of `MISSING` in any case."""
    if not isinstance(cell, str):
        return cell is None or cell != cell
    text = cell.strip()
    return len(text) <= _LONGEST and (text in MISSING or text.lower() in MISSING)


def numbers(cells: Sequence[Cell], numerals: Numerals = PLAIN) -> tuple[np.ndarray, list[int]]:
    """The cells as float64, NaN where one is missing; and where a cell is neither missing nor a finite number.

    >>> numbers(["1.5", "NA", "ten", "true", "inf"])
    (array([1.5, nan, nan, 1. , nan]), [2, 4])
    """
    plain = numerals == PLAIN
    values = _plain(cells) if plain else None
    if values is None and _is_plain(cells):
        values = _floats([_WORDS.get(cell, cell) for cell in cells]) if plain else _marked(cells, numerals)
    if values is None:
        read = [number_in(cell, numerals) for cell in cells]
        values = np.array([math.nan if value is None else value for value in read], np.float64)
    return values, _odd(values, cells, numerals)


def numbers_of(columns: Sequence[Sequence[Cell]]) -> tuple[np.ndarray, list[int]]:
    """`numbers` of columns of equal length end to end; where every cell is plain, little slower than of one column."""
    cells = list(itertools.chain.from_iterable(columns))
    values = _plain(cells)
    if values is None:
        values = np.concatenate([numbers(column)[0] for column in columns])
    return values, _odd(values, cells, PLAIN)


def _plain(cells: Sequence[Cell]) -> np.ndarray | None:
    """The cells as numbers if Python reads each of them as one, and as we do."""
    return _floats(cells) if _is_plain(cells) else None


def all_plain(cells: Sequence[Cell]) -> bool:
    """Whether each cell is a finite number that Python reads as we do: what is so most often, told fast."""
    values = _plain(cells)
    return values is not None and bool(np.isfinite(values).all())


def _marked(cells: Sequence[Cell], numerals: Numerals) -> np.ndarray | None:
    """The same for numbers of which each has its mark, and a decimal comma but no thousands."""
    mark, comma = numerals.mark, not numerals.plain
    if comma and not all(isinstance(cell, str) and "." not in cell for cell in cells):
        return None
    bare = lambda cell: cell.strip().removeprefix(mark).removesuffix(mark) if isinstance(cell, str) else cell
    words = [_WORDS[cell] if cell in _WORDS else bare(cell) for cell in cells]
    return _floats([word.replace(",", ".") if comma and isinstance(word, str) else word for word in words])


def _is_plain(cells: Sequence[Cell]) -> bool:
    try:
        return "_" not in "".join(cells)  # type: ignore[arg-type]
    except TypeError:
        return str not in set(map(type, cells))


def _odd(values: np.ndarray, cells: Sequence[Cell], numerals: Numerals) -> list[int]:
    """Where a cell is no number and not missing; NaN is put there."""
    if np.isfinite(values).all():
        return []
    none = ((i, cells[i]) for i in np.flatnonzero(~np.isfinite(values)).tolist())
    odd = [i for i, cell in none if cell is not None and cell == cell and number_in(cell, numerals) is None]
    values[odd] = math.nan
    return odd


def _floats(cells: Sequence[Any]) -> np.ndarray | None:
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except (ValueError, TypeError, OverflowError):
        return None


def number_in(cell: Cell, numerals: Numerals = PLAIN) -> float | None:
    """The number of a cell, NaN where it is missing; None where it is neither missing nor a finite number."""
    if is_missing(cell):
        return math.nan
    if not isinstance(cell, str):
        return number(cell)
    word = cell.strip().lower()
    return _WORDS[word] if word in ("true", "false") else numerals.read(cell)


def checked_names(source: str, names: Sequence[str], header: bool = False) -> tuple[str, ...]:
    """The names of columns, if they can be told apart."""
    values, bad = numbers(names)
    if header and not bad and np.isfinite(values).all():
        raise OnwardError(
            f"{source}: its first line holds only numbers ({', '.join(names[:3])} ...); a header is needed that names "
            "the columns: write one, or give the names"
        )
    for i, name in enumerate(names):
        if not name:
            raise OnwardError(f"{source}: column {i + 1} of {len(names)} has no name; name it in the header")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        later = ", or say --skip if the header is a later line" if header else ""
        raise OnwardError(f"{source}: several columns are named {', '.join(map(repr, twice[:5]))}; rename them{later}")
    if not 0 < len(names) <= MAX_COLUMNS:
        raise OnwardError(f"{source} has {len(names):,} columns; 1 to {MAX_COLUMNS:,} are allowed")
    return tuple(names)
