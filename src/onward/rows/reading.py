"""What the cells of a table are read as: the kinds of its columns, and the clock of its times."""

import difflib
import math
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from onward.errors import OnwardError
from onward.rows.beginning import CLOSED, Beginning, wild
from onward.rows.clock import CALENDAR, Clock, calendar, clock_of, judged
from onward.rows.columns import (
    describe,
    is_units_row,
    looks_like_clock,
    looks_like_days,
    looks_like_time,
    surprises,
)
from onward.rows.encoder import Encoder
from onward.rows.kinds import Column, agreed_decimal, says_nothing
from onward.rows.options import Learn
from onward.rows.remarks import Remark
from onward.rows.sources import Cell, Rows, is_missing, numbers
from onward.rows.sources.numerals import PLAIN
from onward.text import number

# So many cells of a target that are no numbers, before its first number, are taken for marks of what is missing.
FIRST = 20
# Rows under the header that may hold units and the like.
UNITS_ROWS = 3


class Reading:
    """How a table is read, as its rows come; `complain` is told what a person should know, a line each.

    `computed` names columns of numbers that come beside those of the table.
    """

    def __init__(self, options: Learn, complain: Callable[[str], None], computed: Collection[str] = ()):
        self.options, self.complain = options, complain
        self.computed = dict.fromkeys(computed, Column("number", sure=True))
        self.moments = clock_of(options.time_format) if options.time_format else None
        self.marks: frozenset[Any] = frozenset(options.missing) | {
            value for mark in options.missing if (value := number(mark)) is not None
        }
        self.encoder = self._encoder()
        self.names: dict[str, None] = {}
        self.judged = self.begun = False
        self.units_rows = 0  # rows at the top of a table which hold no values, that are still to be left out
        self.wild: dict[str, list[int]] = {}  # rows of a column whose numbers are not believed, by its sample
        self.beginning, self.anew = CLOSED if options.by else Beginning(), dict[str, float]()
        self.clock = -np.inf

    def _encoder(self, columns: Mapping[str, Column] = {}) -> Encoder:
        """A new one; with places for the time of day if there is a time, or may be."""
        dates = self.options.time and (self.moments is None or self.moments.dates)
        plain = CALENDAR if dates else ()
        columns = {**self.computed, **columns}
        return Encoder(judge=self.options.judge, columns=columns, plain=plain, complain=self.complain)

    # Which columns are read.

    def choose(self, names: Sequence[str], source: str, *, whole: bool) -> None:
        """Check the columns that were asked for; `whole`: the source cannot bring others later."""
        options = self.options
        asked = (
            *options.target,
            *((options.offset,) if options.offset else ()),
            *options.by,
            *self.time_columns(names),
            *options.features,
            *options.categories,
            *options.numbers,
        )
        for name in (*asked, *options.ignore):
            if name not in names and whole:
                if len(names) == 1 and name in re.split(r"\W+", names[0]):
                    raise OnwardError(
                        f"{source} has one column, {names[0]!r:.80}: say --delimiter; where spaces part the columns, "
                        "tr -s ' ' , <FILE makes commas of them"
                    )
                near = difflib.get_close_matches(name, names, 1, 0.4)
                hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(map(repr, names[:20]))}"
                raise OnwardError(f"{source} has no column {name!r}{hint}")
        if whole and not self.inputs(names) and not (options.horizon or options.task == "return"):
            raise OnwardError(f"{source}: with --horizon 0 there must be a column to read besides the target")

    def inputs(self, names: Collection[str]) -> list[str]:
        """The columns that the network reads."""
        options = self.options
        passed = {options.time, *self.time_columns(names), *options.ignore, *options.by}
        if options.task != "return" and options.horizon == 0:
            passed |= set(options.target)
        return [
            n for n in names if n not in passed and (not options.features or n in (*options.features, *options.target))
        ]

    def time_columns(self, names: Collection[str]) -> tuple[str, ...]:
        """The column, or the two, that say when."""
        name = self.options.time
        parts = tuple(name.split("+"))
        return () if not name else parts if len(parts) == 2 and name not in names else (name,)

    # What they are.

    def judge(self, sample: Rows, *, whole: bool = False) -> list[str]:
        """Say what the columns of a table are by its first rows, before the first is read; what is surprising.

        `whole`: there are no other rows.

        Raises OnwardError for a target of numbers that holds none.
        """
        cells = self.cells(sample)
        judge = self.options.judge
        if not judge.decimal:
            judge = judge._replace(decimal=agreed_decimal(list(cells.values())))
        columns = {name: judge.column(column, name, many=True) for name, column in cells.items()}
        known = {name: column for name, column in columns.items() if column is not None}
        top = self.units_rows = self._units_rows(cells, known)
        cells = {name: column[top:] for name, column in cells.items()}
        rows = sample.numbers[top:]
        self._require_target(cells, known, rows, 0 if whole else FIRST)
        self._begin(cells, known)
        self.judged, self.beginning = True, CLOSED
        found: list[str] = []
        for name in dict.fromkeys([*self.options.target, *self.inputs(cells)]):
            column = known.get(name)
            values, odd = numbers(cells.get(name, ()), column.numerals if column else PLAIN)
            found += surprises(name, cells.get(name, ()), column, values, rows)
            # What is far off for one entity is usual for another.
            if column and column.kind == "number" and not self.options.by and (at := wild(values)):
                self.wild[name] = [rows[i] for i in at]
                counts = "it counts" if len(at) == 1 else f"{len(at)} such numbers count"
                found.append(
                    f"{name!r} holds {cells[name][at[0]]} in row {rows[at[0]]:,}, many times as far off as nearly all "
                    f"others: {counts} as missing"
                )
            if column and column.kind == "number" and odd:
                self.encoder.quiet.append(name)
            if not self.options.time and name not in self.options.target and looks_like_time(cells[name], values):
                found.append(f"{name!r} looks like a time, and is read as a number (--time {name})")
        return found + self._of_time(cells, known)

    def _of_time(self, cells: Mapping[str, Sequence[Cell]], columns: Mapping[str, Column]) -> list[str]:
        """What a person may want to say of the times of a sample."""
        name = self.options.time
        if name:
            plain = self.moments is not None and self.moments.form == "steps" and not self.options.time_format
            if not plain or not looks_like_days(numbers(cells.get(name, ()))[0]):
                return []
            return [
                f"{name!r} is read as plain numbers, which say nothing of the time of day; if they are days since "
                "1900, as spreadsheets count them: --time-format excel"
            ]
        dates = [date for date in self.inputs(cells) if date in columns and columns[date].kind == "time"]
        clocks = [clock for clock in self.inputs(cells) if looks_like_clock(cells[clock])]
        both = [f"{dates[0]}+{clocks[0]}"] if dates and clocks else []
        return [f"{clocks[0]!r} looks like the time of day of {dates[0]!r} (--time {shlex.quote(t)})" for t in both]

    def _require_target(
        self, cells: Mapping[str, Sequence[Cell]], columns: Mapping[str, Column], rows: Sequence[int], most: int
    ) -> None:
        for name in self.options.target if self.options.task != "classification" else ():
            if name in columns:
                continue
            column = cells.get(name, ())
            texts = [(row, cell) for row, cell in zip(rows, column, strict=False) if not says_nothing(cell)]
            if len(texts) > most:
                row, cell = texts[0]
                raise OnwardError(
                    f"row {row}, column {name!r}: the target {cell!r} is not a number, nor is any other in "
                    f"{len(rows):,} rows; for a target of names say --task classification"
                )

    def _begin(self, cells: Mapping[str, Sequence[Cell]], columns: Mapping[str, Column] = {}) -> None:
        """Before the first row: what its columns are, as far as is known, and whether it has a time of day."""
        if self.moments is None and self.options.time:
            self.moments = judged(cells.get(self.options.time, ()))
        self.encoder = self._encoder({**self.encoder.columns, **columns})

    def parts(self, block: Rows) -> Iterator[Rows]:
        """A block in parts, in each of which every column is one thing."""
        cells, start, n = self._believed(self.cells(block), block.numbers), 0, len(block.numbers)
        self.names |= dict.fromkeys(block.cells)
        if not self.begun:
            start = self._start(cells, block.numbers)
        wanted = {*self.inputs(cells), *(self.options.target if self.options.task != "classification" else ())}
        while start < n:
            stop = self.encoder.settle({name: cells[name] for name in wanted & {*cells}}, start, n)
            stop = self._watched(cells, block.numbers, start, stop)
            part = {name: column[start:stop] for name, column in cells.items()}
            yield block._replace(numbers=block.numbers[start:stop], cells=part)
            start = stop

    def _watched(self, cells: dict[str, Sequence[Cell]], rows: Sequence[int], start: int, stop: int) -> int:
        """Take the wild ones out of the first values of a stream; the row up to which none that was believed is one.

        For row `start` itself `anew` then holds the columns of which one is, and a number for each to go by.
        """
        encoder = self.encoder
        believed = () if self.options.task == "regression" else self.options.target
        columns = {name: column for name, column in encoder.columns.items() if name in cells and name not in believed}
        names = [name for name, column in columns.items() if column.kind == "number"]
        for i in range(start, stop) if self.beginning.open else ():
            after = self.beginning.see({n: encoder.number(cells[n][i], encoder.numerals(n)) for n in names})
            if after.anew and i > start:
                return i
            self.beginning = after
            for name in map(str, after.anew):
                self.anew[name] = after.anew[name]
                values = after.values[name]
                gone = ", ".join(f"{values[at]:g}" for at in after.passed[name] if at < len(values) - 1)
                text = f"row {rows[i]}, column {name!r}: {gone} before it is far from all others and is not believed"
                self.complain(Remark(f"{text}; learning begins anew with this row", rows[i]))
            for name in map(str, after.strange):
                text = f"row {rows[i]}, column {name!r}: {cells[name][i]} is far from all before it; taken as missing"
                self.complain(Remark(text, rows[i], f"first values of column {name!r} far from the others"))
                cells[name] = [None if at == i else cell for at, cell in enumerate(cells[name])]
        return stop

    def _believed(self, cells: dict[str, Sequence[Cell]], rows: Sequence[int]) -> dict[str, Sequence[Cell]]:
        """Cells of rows, without the numbers of which the sample said that they are wild."""
        for name, wild_rows in self.wild.items():
            if name in cells and wild_rows[-1] >= rows[0]:
                gone = {*wild_rows}
                cells[name] = [None if row in gone else cell for row, cell in zip(rows, cells[name], strict=True)]
        return cells

    def _units_rows(self, cells: Mapping[str, Sequence[Cell]], columns: Mapping[str, Column]) -> int:
        """How many rows at the top hold units, or say how values were made, and hold no values."""
        rows = [
            dict(zip(cells, row, strict=True)) for row in zip(*(c[:UNITS_ROWS] for c in cells.values()), strict=True)
        ]
        return next((i for i, row in enumerate(rows) if not is_units_row(row, columns)), len(rows))

    def _start(self, cells: Mapping[str, Sequence[Cell]], rows: Sequence[int]) -> int:
        """The first row that holds values: that after rows of units."""
        if not self.judged:
            top = {name: column[0] for name, column in cells.items()}
            self.units_rows = int(rows[0] == 1 and is_units_row(top, self.encoder.columns))
        start = min(self.units_rows, len(rows))
        self.units_rows -= start
        for i in range(start):
            shown = ", ".join(repr(column[i]) for column in cells.values() if not is_missing(column[i]))
            self.complain(Remark(f"row {rows[i]} holds units and no values ({shown:.60}); left out", rows[i]))
        first = {name: column[start : start + 1] for name, column in cells.items()}
        self.begun = any(first.values())
        if self.begun and not self.judged:
            self._begin(first)
        return start

    def cells(self, block: Rows) -> dict[str, Sequence[Cell]]:
        """The columns of a block, without the cells that a person has said to stand for nothing."""
        cells, marks = dict(block.cells), self.marks
        if marks:
            bare = lambda cell: cell.strip() if isinstance(cell, str) else cell
            stands = lambda cell: bare(cell) in marks or number(cell) in marks
            cells = {name: [None if stands(cell) else cell for cell in column] for name, column in cells.items()}
        if len(parts := self.time_columns(cells)) > 1:
            nothing = [None] * len(block.numbers)
            both = zip(*(cells.get(part) or nothing for part in parts), strict=True)
            joined: list[Cell] = [None if is_missing(date) else f"{date} {clock}" for date, clock in both]
            others = {name: column for name, column in cells.items() if name not in parts}
            cells = {**others, self.options.time: joined}
        return cells

    # Times.

    def times(self, block: Rows) -> tuple[np.ndarray, Sequence[str]]:
        """When each row was, in seconds since 1970 (or as numbers say), NaN where unknown; and as it is written."""
        n, name = len(block.numbers), self.options.time
        if not name:
            return np.full(n, np.nan), [""] * n
        column = block.cells.get(name) or [None] * n
        if self.moments is not None and self.moments.sure:
            moments = self.moments.moments(column)
        else:
            moments = np.array([self._moment(cell, row) for cell, row in zip(column, block.numbers, strict=True)])
        for i in np.flatnonzero(np.isnan(moments)).tolist():
            if not is_missing(column[i]):
                text = (
                    f"row {block.numbers[i]}, column {name!r}: {column[i]!r:.60} is no time"
                    + (f" where {self.moments.words} are read" if self.moments else "")
                    + "; write it as 2026-01-31T23:59:00 or as a number, or say how it is written, as in "
                    "--time-format '%d.%m.%Y %H:%M'"
                )
                self.complain(Remark(text, block.numbers[i], f"cells of column {name!r} that are no time"))
        told = ["" if cell is None else str(cell) for cell in column]
        if not self.options.by:  # of entities each has its own
            known = np.where(np.isfinite(moments), moments, -np.inf)
            latest = np.maximum.accumulate(np.concatenate([[self.clock], known]))
            self.backwards(np.flatnonzero(moments < latest[:-1]).tolist(), block.numbers, told)
            self.clock = float(latest[-1])
        return moments, told

    def backwards(
        self, rows: Sequence[int], numbers: Sequence[int], told: Sequence[str], whose: Sequence[str] = ()
    ) -> None:
        """Complain of rows of a block whose time lies before one that was there already; `whose`: of which entity."""
        for i in rows:
            name, entity = self.options.time, f" of {whose[i]!r:.80}" if whose else ""
            text = (
                f"row {numbers[i]}, column {name!r}: the clock{entity} runs backwards, to {told[i]}; rows are taken in "
                "the order they come"
            )
            self.complain(Remark(text, numbers[i], f"rows in which the clock {name!r} runs backwards"))

    def _moment(self, cell: Cell, row: int) -> float:
        """A time, where the column may yet turn out to be written in another way."""
        if is_missing(cell):
            return math.nan
        if self.moments is None:
            self.moments = judged([cell])
        elif (other := self.moments.or_other(cell)) is not self.moments:
            self.moments = other
            text = (
                f"row {row}, column {self.options.time!r}: {cell!r} can only be {other.words}, from here on; say "
                f"--time-format {other.form} to have all rows read so"
            )
            self.complain(Remark(text, row))
        return self.moments.read(cell) if self.moments else math.nan

    @property
    def dated(self) -> bool:
        """Whether a time says where in the day it lies."""
        return bool(self.options.time) and (self.moments is None or self.moments.dates)

    def waves(self, moments: np.ndarray) -> dict[str, np.ndarray]:
        """Where in the day, the week and the year; nothing where times are plain numbers."""
        if not self.encoder.waves:
            return {}
        dated = self.moments is None or self.moments.dates
        return calendar(moments if dated else np.full(len(moments), np.nan))

    # What was read.

    def columns(self) -> list[dict[str, Any]]:
        """Every column: what it was read as, how many of its cells are missing or odd, and how to say otherwise."""
        found, names = [], list(self.names)
        inputs, times = self.inputs(names), self.time_columns(names)
        for name in names:
            parts = {"target": self.options.target, "entity": self.options.by, "time": times, "input": inputs}
            roles = [role for role, those in parts.items() if name in those]
            kind, hint = describe(name, roles, self.encoder.columns.get(name), self.moments, self.options)
            counts = {"missing": self.encoder.missing.get(name, 0), "odd": self.encoder.odd.get(name, 0)}
            found.append({"name": name, "role": " and ".join(roles), "read as": kind, **counts, "otherwise": hint})
        return found

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {
            "encoder": self.encoder.as_dict(),
            "moments": None if self.moments is None else list(self.moments),
            "clock": None if math.isinf(self.clock) else self.clock,
            "names": list(self.names),
            "wild": self.wild,
            "beginning": self.beginning.as_dict(),
        }

    def restore(self, kept: Mapping[str, Any], encoder: Encoder) -> None:
        """Read on as `as_dict` said, with its encoder, which is good."""
        self.encoder, self.begun = encoder, True
        self.moments = None if kept["moments"] is None else Clock(*kept["moments"])
        self.clock = -np.inf if kept["clock"] is None else float(kept["clock"])
        self.names = dict.fromkeys(kept["names"])
        self.wild, self.beginning = kept["wild"], Beginning.from_dict(kept["beginning"])
