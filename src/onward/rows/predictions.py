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
    experts). Rows of NaN stand for predictions never made.
    """

    said: np.ndarray
    linear: np.ndarray
    extra: np.ndarray
    experts: np.ndarray
    rows: list[int]
    times: list[str]

    @classmethod
    def empty(cls, count: int, targets: int, extras: int, experts: int = 0) -> "Waiting":
        """So many predictions that were never made."""
        none = np.full((count, targets), np.nan)
        others = np.full((count, targets, 2, experts), np.nan)
        return cls(none, none, np.full((count, extras), np.nan), others, [0] * count, [""] * count)

    def then(self, later: "Waiting") -> "Waiting":
        """These, and later ones."""
        width = max(self.extra.shape[1], later.extra.shape[1])
        both = zip(self.widened(width)[:4], later.widened(width)[:4], strict=True)
        said, linear, extra, experts = map(np.concatenate, both)
        return Waiting(said, linear, extra, experts, self.rows + later.rows, self.times + later.times)

    def widened(self, width: int) -> "Waiting":
        """With room for so many numbers in `extra`."""
        return self._replace(extra=np.pad(self.extra, [(0, 0), (0, width - self.extra.shape[1])]))

    def pick(self, which: slice | list[int]) -> "Waiting":
        """Some of them."""
        some = range(len(self.rows))[which] if isinstance(which, slice) else which
        said, linear, extra, experts = (part[which] for part in self[:4])
        return Waiting(said, linear, extra, experts, [self.rows[i] for i in some], [self.times[i] for i in some])


class Format:
    """How predictions stand in predictions.csv.

    `targets`: their names. `extra`: what is said of each besides, 0: nothing, 1: a probability, 2: the ends of an
    interval. Numbers have 7 digits; a class stands by its name.
    """

    def __init__(self, targets: Sequence[str], extra: int, *, classes: bool):
        self.targets, self.extra, self.classes = targets, extra, classes

    @property
    def header(self) -> list[str]:
        """The names of the columns."""
        parts = ("target", "prediction", *_EXTRA[self.extra], "error")
        return ["row", "time", *self._named(parts), "strange"]

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
    ) -> str:
        """Lines for predictions of which `arrived` came true at these rows; `labels` are the names of classes.

        `marks`: the column of these rows whose reading was not believed, or nothing.
        """
        names = [quoted(label) for label in labels]

        def text(values: np.ndarray) -> Sequence[str]:
            if self.classes:
                return [names[int(v)] if v == v and v < len(names) else "" for v in values.tolist()]
            return as_text(values)

        when = [quoted(each) if each else each for each in times]
        columns: list[Sequence[str]] = [[str(row or "") for row in numbers], when]
        for i in range(arrived.shape[1]):
            columns += [text(arrived[:, i]), text(judged.said[:, i])]
            columns += map(as_text, judged.extra[:, self.extra * i : self.extra * (i + 1)].T)
            columns.append(as_text(error[:, i]))
        columns.append([quoted(mark) if mark else mark for mark in marks])
        return "".join(line + "\n" for line in map(",".join, zip(*columns, strict=True)))

    def stream_header(self, *, ahead: bool) -> str:
        """The first line of `answers`; `ahead`: whether they are of the row that is predicted."""
        return csv_line(["of_row" if ahead else "from_row", *self._named(("prediction", *_EXTRA[self.extra]))])

    def answers(self, said: Waiting, ahead: int, labels: Sequence[str]) -> str:
        """Lines for what was said at rows of a stream, of the rows `ahead` after them."""
        own = said.extra[:, : self.extra * said.said.shape[1]]
        each = np.concatenate([said.said[..., None], own.reshape(*said.said.shape, self.extra)], 2)
        lines = []
        for row, values in zip(
            said.rows, each.reshape(len(each), len(self.targets) * (1 + self.extra)).tolist(), strict=True
        ):
            named = []
            if self.classes:
                number = values.pop(0)
                named = [labels[int(number)] if number == number else ""]
            lines.append(csv_line([str(row + ahead), *named, *map(DIGITS.__mod__, values)]))
        return "".join(lines)
