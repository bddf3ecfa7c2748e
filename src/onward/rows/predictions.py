"""Predictions that wait for their targets, and the lines of predictions.csv."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

DIGITS = "%.7g"
# What is said of a number or a class besides: nothing, a probability, or the ends of an interval.
_EXTRA = ((), ("probability",), ("low", "high"))
_SPECIAL = re.compile('[,"\r\n]')


def as_text(values: np.ndarray) -> list[str]:
    """Numbers for a file; nothing where there is none."""
    told = (f"{DIGITS}\n" * len(values) % tuple(values.tolist())).split("\n")[:-1]  # faster than one by one
    for i in np.flatnonzero(np.isnan(values)).tolist():
        told[i] = ""
    return told


def quoted(cell: str) -> str:
    """A cell for a CSV."""
    return '"' + cell.replace('"', '""') + '"' if _SPECIAL.search(cell) else cell


def csv_line(cells: Iterable[str]) -> str:
    """Cells as a line of a CSV."""
    return ",".join(map(quoted, cells)) + "\n"


class Waiting(NamedTuple):
    """Predictions whose targets are not known yet, oldest first: where they were made, and what was said.

    `extra`: the ends of each target's interval; or the probability of the class that is said, and then that of each
    class there is, 0 where it was not known of. `experts`: what each said, and its weight, (rows, targets, 2,
    experts). `spread`: where rows are scored for how odd they are, each target's distribution in the learner's units
    (`Answers`), its median the prediction. Rows of NaN stand for predictions never made.
    """

    said: np.ndarray
    linear: np.ndarray
    extra: np.ndarray
    experts: np.ndarray
    spread: np.ndarray
    rows: list[int]
    times: list[str]

    @classmethod
    def empty(cls, count: int, targets: int, extras: int, experts: int = 0, spread: int = 0) -> "Waiting":
        """So many predictions that were never made."""
        none = lambda *shape: np.full((count, *shape), np.nan)
        arrays = none(targets), none(targets), none(extras), none(targets, 2, experts), none(targets, spread)
        return cls(*arrays, [0] * count, [""] * count)

    def then(self, later: "Waiting") -> "Waiting":
        """These, and later ones."""
        width = max(self.extra.shape[1], later.extra.shape[1])
        others = later.widened(width).arrays
        both = {name: np.concatenate([part, others[name]]) for name, part in self.widened(width).arrays.items()}
        return Waiting(**both, rows=self.rows + later.rows, times=self.times + later.times)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays, by name."""
        return {name: part for name, part in self._asdict().items() if name not in ("rows", "times")}

    def widened(self, width: int) -> "Waiting":
        """With room for so many numbers in `extra`."""
        return self._replace(extra=np.pad(self.extra, [(0, 0), (0, width - self.extra.shape[1])]))

    def pick(self, which: slice | list[int]) -> "Waiting":
        """Some of them."""
        some = range(len(self.rows))[which] if isinstance(which, slice) else which
        arrays = {name: part[which] for name, part in self.arrays.items()}
        return Waiting(**arrays, rows=[self.rows[i] for i in some], times=[self.times[i] for i in some])


class Odds(NamedTuple):
    """How odd rows were: scores (rows, targets), NaN where there is none, and whether they are an alarm or a shift."""

    score: np.ndarray
    alarm: np.ndarray
    shift: np.ndarray

    def then(self, later: "Odds") -> "Odds":
        """These, and later ones."""
        return Odds(*map(np.concatenate, zip(self, later, strict=True)))


class Format:
    """How predictions stand in predictions.csv.

    `targets`: their names. `extra`: what is said of each besides, 0: nothing, 1: a probability, 2: the ends of an
    interval. `odds`: whether it is said how odd a row was. `by`: the columns that name entities. Numbers have 7 digits;
    a class stands by its name.
    """

    def __init__(
        self, targets: Sequence[str], extra: int, *, classes: bool, odds: bool = False, by: Sequence[str] = ()
    ):
        self.targets, self.extra, self.classes, self.odds, self.by = targets, extra, classes, odds, by

    @property
    def header(self) -> list[str]:
        """The names of the columns."""
        parts = ("target", "prediction", *_EXTRA[self.extra], "error", *(["score"] * self.odds))
        return ["row", "time", *self.by, *self._named(parts), *self._flags, "strange"]

    @property
    def _flags(self) -> tuple[str, ...]:
        return ("alarm", "shift") if self.odds else ()

    def _named(self, parts: Sequence[str]) -> list[str]:
        """Columns of every target: of one by what they hold, of several by its name as well."""
        if len(self.targets) == 1:
            return list(parts)
        return [name if part == "target" else f"{name} {part}" for name in self.targets for part in parts]

    def lines(
        self,
        judged: Waiting,
        numbers: Sequence[int],
        times: Sequence[str],
        arrived: np.ndarray,
        error: np.ndarray,
        labels: Sequence[str],
        marks: Sequence[str],
        odds: Odds | None = None,
        whose: Sequence[Sequence[str]] = (),
    ) -> str:
        """Lines for predictions of which `arrived` came true at these rows; `labels` are the names of classes.

        `marks`: the column of these rows whose reading was not believed, or nothing. `odds`: how odd they were.
        `whose`: the entity of each row, a sequence a column of `by`.
        """
        names = [quoted(label) for label in labels]

        def text(values: np.ndarray) -> Sequence[str]:
            if self.classes:
                return [names[int(v)] if v == v and v < len(names) else "" for v in values.tolist()]
            return as_text(values)

        when = [quoted(each) if each else each for each in times]
        columns: list[Sequence[str]] = [[str(row or "") for row in numbers], when]
        columns += [[quoted(each) for each in part] for part in whose]
        for i in range(arrived.shape[1]):
            columns += [text(arrived[:, i]), text(judged.said[:, i])]
            columns += map(as_text, judged.extra[:, self.extra * i : self.extra * (i + 1)].T)
            columns.append(as_text(error[:, i]))
            if self.odds:
                columns.append(as_text(odds.score[:, i]) if odds else [""] * len(numbers))
        if self.odds:
            columns += [_flag(each) for each in odds[1:]] if odds else [[""] * len(numbers)] * 2
        columns.append([quoted(mark) if mark else mark for mark in marks])
        return "".join(line + "\n" for line in map(",".join, zip(*columns, strict=True)))

    def stream_header(self, *, ahead: bool) -> str:
        """The first line of `answers`; `ahead`: whether they are of the row that is predicted."""
        names = self._named(("prediction", *_EXTRA[self.extra], *(["score"] * self.odds)))
        return csv_line(["of_row" if ahead else "from_row", *self.by, *names, *self._flags])

    def answers(
        self,
        said: Waiting,
        ahead: int,
        labels: Sequence[str],
        odds: Odds | None = None,
        whose: Sequence[Sequence[str]] = (),
    ) -> str:
        """Lines for what was said at rows of a stream, of the rows `ahead` after them; `odds`: of these rows.

        `whose`: as in `lines`; rows are then counted as they came, and `ahead` is 0.
        """
        own = said.extra[:, : self.extra * said.said.shape[1]]
        parts = [said.said[..., None], own.reshape(*said.said.shape, self.extra)]
        if self.odds:
            parts.append(np.full((*said.said.shape, 1), np.nan) if odds is None else odds.score[..., None])
        each = np.concatenate(parts, 2)
        flags = [_flag(part) for part in odds[1:]] if odds else [[""] * len(each)] * (2 * self.odds)
        lines = []
        named = zip(*whose, strict=True) if whose else [()] * len(each)
        for row, values, entity, *flagged in zip(said.rows, each.tolist(), named, *flags, strict=True):
            cells = [*entity]
            for told in values:
                last = [_number(told.pop())] if self.odds else []
                if self.classes:
                    number = told.pop(0)
                    cells.append(labels[int(number)] if number == number else "")
                cells += [*map(DIGITS.__mod__, told), *last]
            lines.append(csv_line([str(row + ahead), *cells, *flagged]))
        return "".join(lines)


def _number(value: float) -> str:
    return DIGITS % value if value == value else ""


def _flag(each: np.ndarray) -> list[str]:
    """1 where it is so, else nothing."""
    return ["1" if one else "" for one in each.tolist()]
