"""Named cells of a row as numbers that a network reads: one slot a number, one slot a category."""

import copy
import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from onward.rows.kinds import Column, Fit, Judge, hint_of
from onward.rows.remarks import Remark
from onward.rows.sources import Cell, is_missing, number_in, numbers, numbers_of
from onward.rows.sources.numerals import PLAIN, Numerals
from onward.rows.units import Unit, in_units
from onward.saving import Unreadable, check_meta

# Slots at the start; doubled whenever they are full.
CAPACITY = 8
# More slots than this are refused to new columns and categories: memory stays bounded.
MOST_SLOTS = 1024
CAPACITIES = tuple(CAPACITY * 2**i for i in range((MOST_SLOTS // CAPACITY).bit_length()))
# Categories of one column that get a slot of their own, and slots that all later ones share by their hash.
VOCABULARY = 64
SHARED = 16
# Of numbers as they stand.
AS_THEY_STAND = Unit(0.0)
# What is kept of an encoder as it is.
_KEPT = (
    *("slots", "waves", "vocabulary", "shared", "dropped", "used", "capacity", "full"),
    *("odd", "missing", "quiet", "fits", "born"),
)
# A column that was judged by one cell is revised when so many more cells contradict it than three times those that
# agree; it is not any more after so many cells.
AGAINST, OPEN = 5, 1000
_TALLIED: tuple[Fit, ...] = ("agrees", "clearly", "against")


class _Column(TypedDict):
    kind: str
    decimal: str
    mark: str
    sure: bool
    seen: str


class _Kept(TypedDict):
    """What JSON holds of an encoder."""

    slots: dict[str, int]
    waves: dict[str, int]
    vocabulary: dict[str, dict[str, int]]
    shared: dict[str, int]
    dropped: list[int]
    used: int
    capacity: int
    full: bool
    odd: dict[str, int]
    missing: dict[str, int]
    quiet: list[str]
    fits: dict[str, list[int]]
    born: dict[str, int]
    columns: dict[str, _Column]
    origins: dict[str, float]
    plain: list[int]


class Encoder:
    """Gives every column, and every category of a column, a slot when it is first seen.

    What a column is, its first cell that says something decides (`judge`), unless `columns` knows it already; it is
    revised when what follows contradicts it, and what was learned of other columns stays. Numbers are given in units
    of their first value, NaN where missing; a category is 1 in its slot and 0 in all others. Of one column
    `VOCABULARY` categories get a slot of their own, later ones share `SHARED` by their hash; times get none. Columns
    and categories beyond `MOST_SLOTS` are not read. `plain` says of each slot that it is not to be normalised; the
    argument of that name gives slots to columns that are computed (the time of day) before all others.

    Slots are given in the order of rows, and in the order of names within a row, so that what is learned depends
    neither on the order of columns nor on how rows come in blocks.
    """

    def __init__(
        self,
        *,
        judge: Judge = Judge(),  # noqa: B008 - a constant
        columns: Mapping[str, Column] = {},
        plain: Sequence[str] = (),
        complain: Callable[[str], None] = lambda text: None,
    ):
        self.judge, self.columns = judge, dict(columns)
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
        self.missing: dict[str, int] = {}
        self.dropped: list[int] = []
        self.quiet: list[str] = []  # columns of whose odd cells all was said
        self._first: dict[str, int] = {}  # the row of the first value of columns that `give_slots` has just met
        # Of a column that may be revised: how its cells fit, as `_TALLIED` says.
        self.fits: dict[str, list[int]] = {}
        self.born: dict[str, int] = {}  # after how many rows a feature was first seen, where rows come one by one
        for name in plain:
            if self.used == self.capacity:
                self._double()
            self.waves[name] = self.used
            self.plain[self.used] = True
            self.used += 1

    def settle(self, cells: Mapping[str, Sequence[Cell]], start: int, stop: int) -> int:
        """Judge and revise what columns are, by rows start .. stop; returns the row up to which that holds.

        A column is revised only for row `start` itself: rows before are learned before it.
        """
        fits: dict[str, list[Fit]] = {}
        for name in sorted(cells):
            if name not in self.columns or name in self.fits:
                fits[name] = self._fits(name, cells[name], start, stop)
                stop = start + len(fits[name])
        for name, each in fits.items():
            if name in self.fits:
                for kind, fit in enumerate(_TALLIED):
                    self.fits[name][kind] += each[: stop - start].count(fit)
                if sum(self.fits[name]) >= OPEN:
                    del self.fits[name]
        return stop

    def _fits(self, name: str, column: Sequence[Cell], start: int, stop: int) -> list[Fit]:
        """How each cell fits what the column is read as, up to the row that revises it; that is done at `start`."""
        found: list[Fit] = []
        tally = dict(zip(_TALLIED, self.fits.get(name, (0, 0, 0)), strict=True))
        for i in range(start, stop):
            cell = column[i]
            if name not in self.columns:
                if (judged := self.judge.column([cell], name)) is None:
                    found.append("nothing")
                    continue
                self.columns[name] = judged
                if judged.sure:
                    return found + ["nothing"] * (stop - i)
                self.fits[name] = [0, 0, 0]
            fit = self.columns[name].fit(cell)
            if fit == "against" and name in self.judge.numbers:
                fit = "nothing"  # a person knows better
            if fit in tally:
                tally[fit] += 1
            otherwise = fit == "otherwise" and not tally["clearly"]
            if otherwise or tally["against"] > AGAINST + 3 * (tally["agrees"] + tally["clearly"]):
                if i > start:
                    return found
                self._revise(name, cell)
                return ["nothing"] * (stop - start)
            found.append(fit)
        return found

    def _revise(self, name: str, cell: Cell) -> None:
        """Read a column as this cell is read, from now on; if it becomes another kind, its slots are left empty."""
        before, after = self.columns[name], self.judge.column([cell], name)
        assert after is not None
        self.columns[name] = after._replace(sure=True)
        del self.fits[name]
        self.complain(
            f"column {name!r} was read as {before.words}, by its first cells, and what follows is {after.words}: from "
            f"{cell!r} on it is read as that; {hint_of(name, after.kind)} says so from the start"
        )
        if after.kind == before.kind:
            return
        if name in self.slots:
            self.dropped.append(self.slots.pop(name))
            del self.units[name]
        self.dropped += self.vocabulary.pop(name, {}).values()
        if name in self.shared:
            first = self.shared.pop(name)
            self.dropped += range(first, first + SHARED)

    def give_slots(self, cells: Mapping[str, Sequence[Cell]], start: int, stop: int) -> int:
        """Give slots to what is new in rows start .. stop, which are settled; the row up to which there is room.

        The capacity grows, if it must, only for row `start` itself: rows before a growth are learned before it.
        """
        self._first = {}
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
            if name not in self.slots and name not in self.vocabulary:
                self._first[name] = row
            self._register(name, value, needs)
        return stop

    def _news(self, cells: Mapping[str, Sequence[Cell]], start: int, stop: int) -> list[tuple[int, str, Cell]]:
        """(row, column, cell) of everything that has no slot yet; of a category column its new categories."""
        if self.full:
            return []
        news: list[tuple[int, str, Cell]] = []
        for name, column in cells.items():
            kind = self.columns[name].kind if name in self.columns else "time"
            if name in self.slots or name in self.shared or kind == "time":
                continue
            if kind in ("number", "hashed"):
                part = column[start:stop]
                if kind == "number":
                    said = np.isfinite(numbers(part, self.numerals(name))[0])
                else:
                    said = np.array([not is_missing(cell) for cell in part], bool)
                first = start + int(np.argmax(said))
                news += [(first, name, column[first])] if said.any() else []
                continue
            known, part = self.vocabulary.get(name, {}), column[start:stop]
            # By their text: 1, 1.0 and True are equal, and three categories.
            texts = part if set(map(type, part)) <= {str} else list(map(_text, part))
            first_row = dict(zip(reversed(texts), range(len(texts) - 1, -1, -1), strict=True))
            new = (at for text, at in first_row.items() if text not in known and not is_missing(part[at]))
            news += [(start + at, name, part[at]) for at in new]
        return news

    def numerals(self, name: str) -> Numerals:
        """How a column writes its numbers."""
        return self.columns[name].numerals if name in self.columns else PLAIN

    def _needs(self, name: str, value: Cell) -> int:
        """How many slots a number, or a category, takes."""
        if self.columns[name].kind == "hashed":
            return 0 if name in self.shared else SHARED
        known = self.vocabulary.get(name, {})
        if name in self.shared or _text(value) in known:
            return 0
        return SHARED if len(known) >= VOCABULARY else 1

    def _register(self, name: str, value: Cell, needs: int) -> None:
        kind = self.columns[name].kind
        if kind == "number":
            self.slots[name], self.units[name] = self.used, Unit(self.number(value, self.numerals(name)))
        elif needs:
            known = self.vocabulary.setdefault(name, {})
            if needs == SHARED:
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
        *,
        raw: bool = False,
    ) -> np.ndarray:
        """Rows start .. stop as (rows, capacity) floats; `rows` holds the number of every row, for complaints.

        `raw`: numbers as they stand, in double precision, for who has units of his own.

        `waves` holds the columns that were named as plain: numbers that are read as they are. A slot that no column
        has yet is NaN, so that a row is the same whether the column's first cell comes in its block or in a later one.
        """
        x = np.full((stop - start, self.capacity), np.nan, float if raw else np.float32)
        x[:, self.plain] = 0
        read = [name for name in self.slots if name in cells]
        if read:
            parts = [cells[name][start:stop] for name in read]
            since = [max(0, self._first.get(name, start) - start) for name in read]
            units = [AS_THEY_STAND if raw else self.units[name] for name in read]
            measured = self._measured(read, units, parts, rows[start:stop], since)
            x[:, [self.slots[name] for name in read]] = measured.T
        for name, slot in self.waves.items():
            x[:, slot] = waves[name][start:stop]
        for name in self.vocabulary:
            for i, cell in enumerate(cells[name][start:stop] if name in cells else ()):
                place = self.slot_of(name, cell)
                if place is not None:
                    x[i, place] = 1.0
                elif is_missing(cell) and start + i >= self._first.get(name, 0):
                    self.missing[name] = self.missing.get(name, 0) + 1
        return x

    def measure(self, name: str, unit: Unit, part: Sequence[Cell], rows: Sequence[int]) -> np.ndarray:
        """Cells of a number column in its unit, NaN where missing or unusable; the latter is complained about."""
        return self._measured([name], [unit], [part], rows, [0])[0]

    def _measured(
        self,
        names: Sequence[str],
        units: Sequence[Unit],
        parts: Sequence[Sequence[Cell]],
        rows: Sequence[int],
        since: Sequence[int],
    ) -> np.ndarray:
        """The same of several columns, (columns, rows): of one row it takes little longer than of one column.

        `since`: where each column's first number stands. What comes before is not complained about.
        """
        values, odd = self._values(names, parts)
        values = values.reshape(len(names), len(rows))
        u = in_units(values, np.array([[u.origin] for u in units]), np.array([[u.length] for u in units]))
        none = np.isnan(u)
        if not none.any():
            return u
        far = np.flatnonzero(none & np.isfinite(values)).tolist()
        for i in sorted([*odd, *far]):
            column, row = divmod(i, len(rows))
            if row >= since[column]:
                self._say(names[column], rows[row], parts[column][row])
        for name, row, count in zip(names, since, none.sum(1).tolist(), strict=True):
            if count > row:
                self.missing[name] = self.missing.get(name, 0) + count - row
        return u

    def _values(self, names: Sequence[str], parts: Sequence[Sequence[Cell]]) -> tuple[np.ndarray, list[int]]:
        """`numbers_of`, with each column's own way of writing numbers."""
        written = [self.numerals(name) for name in names]
        if all(numerals == PLAIN for numerals in written):
            return numbers_of(parts)
        found = [numbers(part, numerals) for part, numerals in zip(parts, written, strict=True)]
        self.columns |= {n: self.columns[n].after(p) for n, p in zip(names, parts, strict=True) if n in self.columns}
        odd = [at + i for at, (_, each) in zip(itertools.count(0, len(parts[0])), found) for i in each]
        return np.concatenate([values for values, _ in found]), odd

    @staticmethod
    def number(cell: Cell, numerals: Numerals = PLAIN) -> float:
        """One cell as a number; NaN if it is none."""
        found = number_in(cell, numerals)
        return math.nan if found is None else found

    def _say(self, name: str, row: int, cell: Cell) -> None:
        """Complain about a cell of a column of numbers, and count it."""
        self.odd[name] = self.odd.get(name, 0) + 1
        text = f"row {row}, column {name!r}: {cell!r} is not a usable number there; taken as missing"
        text = "" if name in self.quiet else text
        self.complain(Remark(text, row, f"cells of column {name!r} that hold no usable number, taken as missing"))

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
        columns = {name: each.as_dict() for name, each in self.columns.items()}
        return kept | {"columns": columns, "origins": origins, "plain": plain}

    @classmethod
    def from_dict(
        cls,
        kept: dict[str, Any],
        *,
        judge: Judge = Judge(),  # noqa: B008 - a constant
        complain: Callable[[str], None] = lambda text: None,
        what: str = "the encoder",
    ) -> "Encoder":
        """The encoder again; `what` says in errors where it is from. Raises `onward.saving.Unreadable`."""
        check_meta(kept, _Kept, what)
        columns = {name: Column.from_dict(each) for name, each in kept["columns"].items()}
        given = [*kept["slots"].values(), *kept["waves"].values(), *kept["dropped"]]
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
            and {*kept["slots"], *kept["vocabulary"], *kept["fits"]} <= {*columns}
            and all(len(tally) == 3 and min(tally) >= 0 for tally in kept["fits"].values())
            and all(each is not None for each in columns.values())
            and all(columns[name].kind == "number" for name in kept["slots"])  # type: ignore[union-attr]
            and all(columns[name].kind in ("category", "hashed") for name in kept["vocabulary"])  # type: ignore[union-attr]
        )
        if not good:
            raise Unreadable(f"{what} is damaged: not every slot of its columns is given once")
        self = cls(judge=judge, columns=columns, complain=complain)  # type: ignore[arg-type]
        for name in _KEPT:
            setattr(self, name, kept[name])
        self.units = {name: Unit(origin) for name, origin in kept["origins"].items()}
        self.plain = np.zeros(self.capacity, bool)
        self.plain[kept["plain"]] = True
        return self


def _text(cell: Any) -> str:
    return cell if isinstance(cell, str) else str(cell)
