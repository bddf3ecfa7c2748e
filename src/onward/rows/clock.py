"""Times as people and machines write them, read in one way for a whole column."""

import contextlib
import datetime
import math
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from onward.errors import OnwardError
from onward.rows.sources import Cell, is_missing
from onward.text import number, seconds

# How a column of times is read. iso: as Python reads a date. compact: YYYYMMDD, with HH, MM and SS perhaps.
# s, ms, us, ns: since 1970. steps: numbers that say when, but not where in a day.
Form = Literal["iso", "compact", "s", "ms", "us", "ns", "excel", "steps", "year-first", "day-first", "month-first"]
SCALES = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
WORDS = {
    "iso": "ISO dates",
    "compact": "dates without marks, YYYYMMDD and so on",
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
    "excel": "days since 1900, as spreadsheets count them",
    "steps": "plain numbers, which say nothing of the time of day",
    "year-first": "dates, year first",
    "day-first": "dates, day first",
    "month-first": "dates, month first",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLOCK = (
    r"(?:[T ,:]+(?P<hour>\d{1,2})(?:[:.h](?P<minute>\d{2}))?(?:[:.](?P<second>\d{2})(?:[.,:](?P<part>\d{1,9}))?)?"
    r" ?(?P<half>[ap]\.?m\.?)?)? ?(?P<zone>Z|UTC|GMT|[-+]\d{2}:?(?:\d{2})?)?"
)
_DATE = re.compile(
    r"(?:[^\W\d]{3,9},? )?(?:(?P<a>\d{1,4})|(?P<named>[^\W\d]{3,9})\.?)(?P<mark>[-./ ] ?)"
    r"(?:(?P<b>\d{1,2})|(?P<name>[^\W\d]{3,9}))(?:(?P=mark)|\.? |, ?)(?P<c>\d{1,4})" + _CLOCK,
    re.IGNORECASE,
)
_COMMA = re.compile(r"\s*-?\d{4,},\d+\s*")
# What stands around a date, and the order of C and of the shell: Sat Mar  1 00:00:00 UTC 2025.
_AROUND = re.compile(r"\[?([^\[\]]*?)(?:\[\w+(?:/[-\w]+)*\])?\]?")
_SHELL = re.compile(r"[^\W\d]{3} ([^\W\d]{3}) +(\d{1,2}) (\d\d:\d\d:\d\d)( UTC| GMT)? (\d{4})", re.IGNORECASE)
_COMPACT = re.compile(
    r"(?P<y>(?:19|20)\d\d)(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12]\d|3[01])"
    r"(?:[T ]?(?P<H>[01]\d|2[0-3])(?P<M>[0-5]\d)?(?P<S>[0-5]\d)?)?Z?"
)
_DAY, _WEEK, _YEAR = 86400.0, 604800.0, 31556952.0
CALENDAR = tuple(f"{name} {part}" for name in ("day", "week", "year") for part in ("sine", "cosine"))
_EXCEL = 25569  # 1970-01-01, as spreadsheets count days
# Seconds since 1970 of the years in which data are likely: from 1973 to 2286.
_EARLY, _LATE = 1e8, 1e10


class Clock(NamedTuple):
    """How times are read: their form, or a `pattern` of `datetime.strptime`.

    `sure`: whether day and month could be told apart; where not, the first date that says so decides.

    >>> Clock("ms").read("1740787200000"), Clock("day-first").read("01.03.2025 00:00")
    (1740787200.0, 1740787200.0)
    >>> Clock("compact").read(202503010000), Clock("iso").read("2025-03-01 00:00:00 UTC")
    (1740787200.0, 1740787200.0)
    """

    form: Form = "iso"
    pattern: str = ""
    sure: bool = True

    @property
    def dates(self) -> bool:
        """Whether a time says where in the day, the week and the year it lies."""
        return self.form != "steps"

    @property
    def words(self) -> str:
        """What is read, in words."""
        return f"dates like {self.pattern!r}" if self.pattern else WORDS[self.form]

    def read(self, cell: Cell) -> float:
        """Seconds since 1970, of a time without a zone as if it were UTC; NaN where it is no such time."""
        if self.pattern:
            return _by_pattern(cell, self.pattern)
        if self.form in (*SCALES, "steps", "excel"):
            value = _count(cell)
            if value is None:
                return math.nan
            return (value - _EXCEL) * 86400 if self.form == "excel" else value / SCALES.get(self.form, 1.0)
        if self.form == "compact":
            return _compact(cell)
        if isinstance(cell, bool | int | float) or cell is None:
            return math.nan
        if self.form == "iso":
            with contextlib.suppress(ValueError, OverflowError):
                return seconds(datetime.datetime.fromisoformat(cell.strip()))
        return _dated(cell, self.form)

    def moments(self, cells: Sequence[Cell]) -> np.ndarray:
        """`read` of many."""
        return np.array([self.read(cell) for cell in cells], float)

    def or_other(self, cell: Cell) -> "Clock":
        """The clock that reads a cell which this one does not, day and month swapped; or this one, if it is sure."""
        other = {"day-first": "month-first", "month-first": "day-first"}.get(self.form)
        if self.sure or other is None or not math.isnan(self.read(cell)):
            return self
        swapped = Clock(other)  # type: ignore[arg-type]
        return self if math.isnan(swapped.read(cell)) else swapped


def clock_of(said: str) -> Clock:
    """The clock that a person names: a form, or a pattern of `strptime`; OnwardError for what is none."""
    if said in WORDS:
        return Clock(said)  # type: ignore[arg-type]
    if "%" not in said:
        raise OnwardError(
            f"--time-format {said!r} is none of {', '.join(WORDS)}, nor a pattern such as '%d.%m.%Y %H:%M'"
        )
    try:
        datetime.datetime.strptime(datetime.datetime(2000, 1, 2).strftime(said), said)
    except ValueError as error:
        raise OnwardError(f"--time-format {said!r}: {error}") from error
    return Clock("iso", said)


def judged(cells: Iterable[Cell]) -> Clock | None:
    """The clock of a column by some of its cells; None where they are no times."""
    known = [cell for cell in cells if not is_missing(cell)]
    if not known:
        return None
    shares = {form: np.mean([not math.isnan(m) for m in Clock(form).moments(known)]) for form in ("compact", "iso")}
    if shares["compact"] > 0.9:
        return Clock("compact")
    values = [value for cell in known if (value := _count(cell)) is not None]
    if len(values) > 0.9 * len(known):
        return Clock(_scale(values))
    if shares["iso"] > 0.9 and all(isinstance(cell, str) for cell in known):
        return Clock("iso")
    return _ordered(known)


def _scale(values: Sequence[float]) -> Form:
    """By magnitude: since 1970 in one of four units, or no date."""
    middle = float(np.median(np.abs(values)))
    for form, scale in SCALES.items():
        if _EARLY * scale <= middle < _LATE * scale:
            return form  # type: ignore[return-value]
    return "steps"


def _ordered(cells: Sequence[Cell]) -> Clock | None:
    """Which of day, month and year stands first: what reads the most; of equals, in which time jumps least."""
    forms: tuple[Form, ...] = ("year-first", "day-first", "month-first")
    moments = {form: Clock(form).moments(cells) for form in forms}
    count = {form: int(np.isfinite(moments[form]).sum()) for form in forms}
    best = max(count.values())
    if best <= 0.9 * len(cells):
        return None
    good = [form for form in forms if count[form] == best]
    if len(good) == 1:
        return Clock(good[0])
    if any(np.array_equal(moments[good[0]], moments[form], equal_nan=True) for form in good[1:]) and len(cells) > 1:
        return Clock(good[0])
    jumps = {form: float(np.nansum(np.abs(np.diff(moments[form])))) for form in good}
    if len(cells) > 1 and min(jumps.values()) < max(jumps.values()):
        return Clock(min(good, key=jumps.__getitem__), "", False)
    # Nothing tells: a point stands in dates of the day-first kind, a stroke in those of the other.
    return Clock("month-first" if "/" in str(cells[0]) else "day-first", "", False)


def _count(cell: Cell) -> float | None:
    """A time that is a number; with a decimal comma too, where that cannot separate thousands."""
    if isinstance(cell, bool):
        return None
    if isinstance(cell, str) and _COMMA.fullmatch(cell):
        cell = cell.replace(",", ".")
    return number(cell)


def _by_pattern(cell: Cell, pattern: str) -> float:
    try:
        return seconds(datetime.datetime.strptime(str(cell).strip(), pattern))
    except ValueError:
        return math.nan


def _compact(cell: Cell) -> float:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    found = _COMPACT.fullmatch(str(cell).strip())
    if found is None:
        return math.nan
    parts = (found[part] for part in "ymdHMS")
    return _moment(*(int(part or 0) for part in parts))


def _dated(cell: str, form: str) -> float:
    around = _AROUND.fullmatch(cell.strip())
    found = _DATE.fullmatch(_SHELL.sub(r"\1 \2 \5 \3\4", around[1]) if around else cell)
    if found is None:
        return math.nan
    a, b, c = found["a"], found["b"], found["c"]
    name = found["named"] or found["name"]
    if name:
        if name[:3].lower() not in _MONTHS or (found["named"] and found["name"]):
            return math.nan
        month = _MONTHS.index(name[:3].lower()) + 1
        first = a or b
        year, day = (first, c) if len(first) == 4 else (c, first)
    else:
        parts = {"year-first": (a, b, c), "iso": (a, b, c), "day-first": (c, b, a), "month-first": (c, a, b)}[form]
        year, month, day = parts[0], int(parts[1]), parts[2]
    if len(year) == 3 or (len(year) < 3 and form in ("year-first", "iso")) or len(day) > 2:
        return math.nan
    full = int(year) if len(year) == 4 else int(year) + (2000 if int(year) < 70 else 1900)
    hour = int(found["hour"] or 0)
    if found["half"]:
        if not 1 <= hour <= 12:
            return math.nan
        hour = hour % 12 + 12 * (found["half"][0].lower() == "p")
    moment = _moment(full, month, int(day), hour, int(found["minute"] or 0), int(found["second"] or 0))
    part = found["part"]
    return moment + (int(part) / 10 ** len(part) if part else 0.0) - _offset(found["zone"])


def _moment(year: int, month: int, day: int, hour: int, minute: int, second: int) -> float:
    try:
        day_ = datetime.date(year, month, day).toordinal() - datetime.date(1970, 1, 1).toordinal()
    except ValueError:
        return math.nan
    # 24:00 ends a day, and a second may leap.
    if not (hour < 24 or (hour == 24 and not minute and not second)) or minute > 59 or second > 60:
        return math.nan
    return float(86400 * day_ + 3600 * hour + 60 * minute + second)


def _offset(zone: str | None) -> float:
    if not zone or zone[0] not in "+-":
        return 0.0
    digits = zone[1:].replace(":", "")
    size = 3600 * int(digits[:2]) + 60 * int(digits[2:] or 0)
    return float(-size if zone[0] == "-" else size)


def calendar(moments: np.ndarray) -> dict[str, np.ndarray]:
    """Where in the day, the week and the year: sine and cosine of each; 0 where the time is missing."""
    known = np.nan_to_num(np.asarray(moments, float), nan=0.0, posinf=0.0, neginf=0.0)
    waves: list[np.ndarray] = []
    for period in (_DAY, _WEEK, _YEAR):
        phase = 2 * np.pi * np.mod(known, period) / period
        waves += [np.sin(phase), np.cos(phase)]
    return dict(zip(CALENDAR, np.isfinite(moments) * np.stack(waves), strict=True))
