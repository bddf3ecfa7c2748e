"""Cells of a table as numbers, and which of them are missing."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from onward.errors import OnwardError
from onward.text import number

Cell = str | float | int | bool | None
MISSING = frozenset(("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-", "?"))
MAX_COLUMNS = 10_000
_WORDS: dict[Any, float] = {None: math.nan} | dict.fromkeys(MISSING, math.nan)
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), 1.0) | dict.fromkeys(("false", "False", "FALSE"), 0.0)


def is_missing(cell: Cell) -> bool:
    """Whether a cell stands for nothing: None, NaN, or empty or spelt as in `MISSING`."""
    return cell.strip() in MISSING if isinstance(cell, str) else cell is None or cell != cell


def numbers(cells: Sequence[Cell]) -> tuple[np.ndarray, list[int]]:
    """The cells as float64, NaN where one is missing; and where a cell is neither missing nor a finite number.

    >>> numbers(["1.5", "NA", "ten", "true", "inf"])
    (array([1.5, nan, nan, 1. , nan]), [2, 4])
    """
    values = _plain(cells)
    if values is None:
        values = _floats([_WORDS.get(cell, cell) for cell in cells]) if _is_plain(cells) else None
    if values is None:
        read = [_number(cell) for cell in cells]
        values = np.array([math.nan if value is None else value for value in read], np.float64)
    return values, _odd(values, cells)


def numbers_of(columns: Sequence[Sequence[Cell]]) -> tuple[np.ndarray, list[int]]:
    """`numbers` of columns of equal length end to end; where every cell is plain, little slower than of one column."""
    cells = list(itertools.chain.from_iterable(columns))
    values = _plain(cells)
    if values is None:
        values = np.concatenate([numbers(column)[0] for column in columns])
    return values, _odd(values, cells)


def _plain(cells: Sequence[Cell]) -> np.ndarray | None:
    """The cells as numbers if Python reads each of them as one, and as we do."""
    return _floats(cells) if _is_plain(cells) else None


def _is_plain(cells: Sequence[Cell]) -> bool:
    try:
        return "_" not in "".join(cells)  # type: ignore[arg-type]
    except TypeError:
        return str not in set(map(type, cells))


def _odd(values: np.ndarray, cells: Sequence[Cell]) -> list[int]:
    """Where a cell is no number and not missing; NaN is put there."""
    if np.isfinite(values).all():
        return []
    odd = [i for i in np.flatnonzero(~np.isfinite(values)).tolist() if _number(cells[i]) is None]
    values[odd] = math.nan
    return odd


def _floats(cells: Sequence[Any]) -> np.ndarray | None:
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except (ValueError, TypeError, OverflowError):
        return None


def _number(cell: Cell) -> float | None:
    if is_missing(cell):
        return math.nan
    word = cell.strip().lower() if isinstance(cell, str) else ""
    return _WORDS[word] if word in ("true", "false") else number(cell)


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
        raise OnwardError(f"{source}: several columns are named {', '.join(map(repr, twice[:5]))}; rename them")
    if not 0 < len(names) <= MAX_COLUMNS:
        raise OnwardError(f"{source} has {len(names):,} columns; 1 to {MAX_COLUMNS:,} are allowed")
    return tuple(names)
