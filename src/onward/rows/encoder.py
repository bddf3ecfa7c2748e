"""Named cells of a row as numbers that a network reads: one slot a number, one slot a category."""

import copy
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from onward.rows.sources import Cell, is_missing, numbers, numbers_of
from onward.saving import Unreadable, check_meta
from onward.text import number, seconds

# Slots at the start; doubled whenever they are full.
CAPACITY = 8
# More slots than this are refused to new columns and categories: memory stays bounded.
MOST_SLOTS = 1024
CAPACITIES = tuple(CAPACITY * 2**i for i in range((MOST_SLOTS // CAPACITY).bit_length()))
# Categories of one column that get a slot of their own, and slots that all later ones share by their hash.
VOCABULARY = 64
SHARED = 16
# A number so many times as large as the first one of its column counts as missing.
REACH = 1e15
# Below this a first value says nothing about the size of those to come.
SMALL = 1e-9
_DAY, _WEEK, _YEAR = 86400.0, 604800.0, 31556952.0
CALENDAR = tuple(f"{name} {part}" for name in ("day", "week", "year") for part in ("sine", "cosine"))
# What is kept of an encoder as it is.
_KEPT = ("slots", "waves", "vocabulary", "shared", "used", "capacity", "full", "odd")


class _Kept(TypedDict):
    """What JSON holds of an encoder."""

    slots: dict[str, int]
    waves: dict[str, int]
    vocabulary: dict[str, dict[str, int]]
    shared: dict[str, int]
    used: int
    capacity: int
    full: bool
    odd: dict[str, int]
    categories: list[str]
    origins: dict[str, float]
    plain: list[int]


class Unit:
    """Where a column's zero lies and how long its unit is: its first number. Keeps single precision exact."""

    def __init__(self, origin: float):
        self.origin = origin
        self.length = abs(origin) if abs(origin) > SMALL else 1.0

    def to(self, values: Any) -> Any:
        """In units from the origin; NaN for what is too far away to be a number of this column."""
        return _in_units(values, self.origin, self.length)

    def back(self, u: Any) -> Any:
        """The value again."""
        return self.origin + self.length * u


def _in_units(values: Any, origin: Any, length: Any) -> Any:
    with np.errstate(over="ignore", invalid="ignore"):
        u = (values - origin) / length
    return np.where(np.abs(u) < REACH, u, np.nan)


class Encoder:
    """Gives every column, and every category of a column, a slot when it is first seen.

    The kind of a column is that of its first cell that is not missing: a number (or boolean), or else a category;
    `categories` names columns that are categories although they look like numbers. Numbers are given in units of
    their first value, NaN where missing; a category is 1 in its slot and 0 in all others. Of one column
    `VOCABULARY` categories get a slot of their own, later ones share `SHARED` by their hash. Columns and categories
    beyond `MOST_SLOTS` are not read. `plain` says of each slot that it is not to be normalised; the argument
    of that name gives slots to columns that are computed (the time of day) before all others.

    Slots are given in the order of rows, and in the order of names within a row, so that what is learned depends
    neither on the order of columns nor on how rows come in blocks.
    """

    def __init__(
        self,
        *,
        categories: Sequence[str] = (),
        plain: Sequence[str] = (),
        complain: Callable[[str], None] = lambda text: None,
    ):
        self.categories = frozenset(categories)
        self.complain = complain
        self.slots: dict[str, int] = {}
        self.waves: dict[str, int] = {}
        self.units: dict[str, Unit] = {}
        self.vocabulary: dict[str, dict[str, int]] = {}
        self.shared: dict[str, int] = {}
        self.used = 0
        self.capacity = CAPACITY
        self.plain = np.zeros(CAPACITY, bool)
        self.full = False
        self.odd: dict[str, int] = {}
        for name in plain:
            if self.used == self.capacity:
                self._double()
            self.waves[name] = self.used
            self.plain[self.used] = True
            self.used += 1

    def give_slots(self, cells: Mapping[str, Sequence[Cell]], start: int, stop: int) -> int:
        """Give slots to what is new in rows start .. stop; returns the row up to which the present capacity is enough.

        The capacity grows, if it must, only for row `start` itself: rows before a growth are learned before it.
        """
        for row, name, value in sorted(self._news(cells, start, stop), key=lambda new: (new[0], new[1])):
            needs = self._needs(name, value)
            while self.used + needs > self.capacity and self.capacity < MOST_SLOTS:
                if row > start:
                    return row
                self._double()
            if self.used + needs > self.capacity:
                self.complain(
                    f"more than {MOST_SLOTS} columns and categories: {name!r} and all later ones are not read"
                )
                self.full = True
                break
            self._register(name, value, needs)
        return stop

    def _news(self, cells: Mapping[str, Sequence[Cell]], start: int, stop: int) -> list[tuple[int, str, Cell]]:
        """(row, column, cell) of everything that has no slot yet; of a category column its new categories."""
        if self.full:
            return []
        news: list[tuple[int, str, Cell]] = []
        for name, column in cells.items():
            if name in self.slots:
                continue
            if name not in self.vocabulary:
                first = next((i for i in range(start, stop) if not is_missing(column[i])), None)
                if first is None:
                    continue
                if not self._is_category(name, column[first]):
                    news.append((first, name, column[first]))
                    continue
            if name in self.shared:
                continue
            known, part = self.vocabulary.get(name, {}), column[start:stop]
            # By their text: 1, 1.0 and True are equal, and three categories.
            texts = part if set(map(type, part)) <= {str} else list(map(_text, part))
            first_row = dict(zip(reversed(texts), range(len(texts) - 1, -1, -1), strict=True))
            new = (at for text, at in first_row.items() if text not in known and not is_missing(part[at]))
            news += [(start + at, name, part[at]) for at in new]
        return news

    def _is_category(self, name: str, cell: Cell) -> bool:
        return name in self.categories or not np.isfinite(self.number(cell))

    def _needs(self, name: str, value: Cell) -> int:
        """How many slots a number, or a category, takes."""
        known = self.vocabulary.get(name, {})
        if name in self.shared or _text(value) in known:
            return 0
        return SHARED if len(known) >= VOCABULARY else 1

    def _register(self, name: str, value: Cell, needs: int) -> None:
        if name not in self.vocabulary and not self._is_category(name, value):
            self.slots[name], self.units[name] = self.used, Unit(self.number(value))
        elif needs:
            known = self.vocabulary.setdefault(name, {})
            if len(known) >= VOCABULARY:
                self.shared[name] = self.used
            else:
                known[_text(value)] = self.used
            self.plain[self.used : self.used + needs] = True
        self.used += needs

    def _double(self) -> None:
        self.plain = np.concatenate([self.plain, np.zeros(self.capacity, bool)])
        self.capacity *= 2

    def encode(
        self,
        cells: Mapping[str, Sequence[Cell]],
        start: int,
        stop: int,
        rows: Sequence[int],
        waves: Mapping[str, np.ndarray] = {},
    ) -> np.ndarray:
        """Rows start .. stop as (rows, capacity) floats; `rows` holds the number of every row, for complaints.

        `waves` holds the columns that were named as plain: numbers that are read as they are. A slot that no column
        has yet is NaN, so that a row is the same whether the column's first cell comes in its block or in a later one.
        """
        x = np.full((stop - start, self.capacity), np.nan, np.float32)
        x[:, self.plain] = 0
        read = [name for name in self.slots if name in cells]
        if read:
            parts = [cells[name][start:stop] for name in read]
            measured = self._measured(read, [self.units[name] for name in read], parts, rows[start:stop])
            x[:, [self.slots[name] for name in read]] = measured.T
        for name, slot in self.waves.items():
            x[:, slot] = waves[name][start:stop]
        for name in self.vocabulary:
            for i, cell in enumerate(cells[name][start:stop] if name in cells else ()):
                place = self.slot_of(name, cell)
                if place is not None:
                    x[i, place] = 1.0
        return x

    def measure(self, name: str, unit: Unit, part: Sequence[Cell], rows: Sequence[int]) -> np.ndarray:
        """Cells of a number column in its unit, NaN where missing or unusable; the latter is complained about."""
        return self._measured([name], [unit], [part], rows)[0]

    def _measured(
        self, names: Sequence[str], units: Sequence[Unit], parts: Sequence[Sequence[Cell]], rows: Sequence[int]
    ) -> np.ndarray:
        """The same of several columns, (columns, rows): of one row it takes little longer than of one column."""
        values, odd = numbers_of(parts)
        values = values.reshape(len(names), len(rows))
        u = _in_units(values, np.array([[u.origin] for u in units]), np.array([[u.length] for u in units]))
        missing = np.isnan(u)
        far = np.flatnonzero(missing & np.isfinite(values)).tolist() if missing.any() else []
        for i in sorted([*odd, *far]):
            column, row = divmod(i, len(rows))
            self._say(
                names[column],
                f"row {rows[row]}, column {names[column]!r}: {parts[column][row]!r} is not a usable number there; "
                "taken as missing",
            )
        return u

    @staticmethod
    def number(cell: Cell) -> float:
        """One cell as a number; NaN if it is none."""
        return float(numbers([cell])[0][0])

    def _say(self, name: str, text: str) -> None:
        """Complain about the first few cells of a column; all are counted."""
        self.odd[name] = self.odd.get(name, 0) + 1
        if self.odd[name] <= 3:
            self.complain(text)

    def slot_of(self, name: str, cell: Cell) -> int | None:
        """The slot of a category of a column; None where it is missing or has none."""
        if is_missing(cell):
            return None
        text = _text(cell)
        slot = self.vocabulary[name].get(text)
        if slot is None and name in self.shared:
            slot = self.shared[name] + zlib.crc32(text.encode("utf-8", "surrogatepass")) % SHARED
        return slot

    def as_dict(self) -> dict[str, Any]:
        """All that was learned about columns, as JSON."""
        kept = {name: copy.deepcopy(getattr(self, name)) for name in _KEPT}
        origins = {name: unit.origin for name, unit in self.units.items()}
        plain = np.flatnonzero(self.plain).tolist()
        return kept | {"categories": sorted(self.categories), "origins": origins, "plain": plain}

    @classmethod
    def from_dict(
        cls, kept: dict[str, Any], *, complain: Callable[[str], None] = lambda text: None, what: str = "the encoder"
    ) -> "Encoder":
        """The encoder again; `what` says in errors where it is from. Raises `onward.saving.Unreadable`."""
        check_meta(kept, _Kept, what)
        given = [*kept["slots"].values(), *kept["waves"].values()]
        for name, known in kept["vocabulary"].items():
            first = kept["shared"].get(name, 0)
            given += [*known.values(), *(range(first, first + SHARED) if name in kept["shared"] else ())]
        good = (
            kept["capacity"] in CAPACITIES
            and len(given) == kept["used"] <= kept["capacity"]
            and sorted(given) == list(range(len(given)))
            and {*kept["shared"]} <= {*kept["vocabulary"]}
            and {*kept["origins"]} == {*kept["slots"]}
            and all(0 <= place < kept["capacity"] for place in kept["plain"])
        )
        if not good:
            raise Unreadable(f"{what} is damaged: not every slot of its columns is given once")
        self = cls(categories=kept["categories"], complain=complain)
        for name in _KEPT:
            setattr(self, name, kept[name])
        self.units = {name: Unit(origin) for name, origin in kept["origins"].items()}
        self.plain = np.zeros(self.capacity, bool)
        self.plain[kept["plain"]] = True
        return self


def _text(cell: Any) -> str:
    return cell if isinstance(cell, str) else str(cell)


def is_date(cell: Cell) -> bool:
    """Whether a time says where in the day, week and year it lies: a date, or seconds since 1970 (from 1973 on)."""
    moment = seconds(cell)
    return math.isfinite(moment) and (number(cell) is None or 1e8 < moment < 1e10)


def calendar(moments: np.ndarray) -> dict[str, np.ndarray]:
    """Where in the day, the week and the year: sine and cosine of each; 0 where the time is missing."""
    known = np.nan_to_num(np.asarray(moments, float), nan=0.0, posinf=0.0, neginf=0.0)
    waves: list[np.ndarray] = []
    for period in (_DAY, _WEEK, _YEAR):
        phase = 2 * np.pi * np.mod(known, period) / period
        waves += [np.sin(phase), np.cos(phase)]
    return dict(zip(CALENDAR, np.isfinite(moments) * np.stack(waves), strict=True))
