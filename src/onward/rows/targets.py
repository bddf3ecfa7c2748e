"""What is to be predicted in a table, as numbers that a network learns, and answers in its own units again."""

import math
from collections.abc import Sequence

import numpy as np

from onward.errors import OnwardError
from onward.rows.options import Learn
from onward.rows.predictions import Waiting
from onward.rows.reading import FIRST, Reading
from onward.rows.remarks import Remark
from onward.rows.sources import Cell, is_missing
from onward.rows.stream import Answers, moved, placed
from onward.rows.units import Unit

MOST_CLASSES = 1024
# Numbers are kept in units of the first: one beyond this is a mark for something, and its square may be infinite.
LARGEST = 1e100


class Targets:
    """What is to be predicted, as numbers: in units of the first value, or the number of a class."""

    def __init__(self, options: Learn, reading: Reading):
        self.options, self.reading = options, reading
        self.units: dict[str, Unit] = {}
        self.classes: dict[str, int] = {}
        self.met = 0  # classes that came in the rows that were answered
        # What is said of each target besides: the probability of the class that is said, or the ends of the interval.
        self.extras = 1 if options.task == "classification" else 2 if options.recipe.components else 0
        self.none: dict[str, int] = {}  # cells of a target before its first number that are neither numbers nor missing

    def cuts(self, cells: dict[str, Sequence[Cell]], n: int) -> list[int]:
        """0, the rows that bring a class or a unit for the first time, and n: no row knows of what comes after it."""
        cuts = {0, n}
        for name in self.options.target:
            column, seen = cells.get(name) or [None] * n, set(self.classes)
            if self.options.task == "classification":
                for i, cell in enumerate(column):
                    if not is_missing(cell) and (label := str(cell).strip()) not in seen:
                        seen.add(label)
                        cuts.add(i)
            elif name not in self.units:
                cuts.add(next((i for i, cell in enumerate(column) if self._is_number(name, cell)), n))
        return sorted(cuts)

    def read(self, cells: dict[str, Sequence[Cell]], rows: Sequence[int]) -> np.ndarray:
        """(rows, targets) real values or class numbers, NaN where missing."""
        n = len(rows)
        if self.options.task == "classification":
            column = cells.get(self.options.target[0]) or [None] * n
            classes = np.full((n, 1), np.nan)
            for i, cell in enumerate(column):
                if not is_missing(cell):
                    classes[i, 0] = self.classes.setdefault(str(cell).strip(), len(self.classes))
                    if len(self.classes) > MOST_CLASSES:
                        raise OnwardError(
                            f"row {rows[i]}, column {self.options.target[0]!r}: {cell!r} would be class "
                            f"{len(self.classes):,}, and {MOST_CLASSES:,} is the most; for numbers leave out --task"
                        )
            return classes
        return np.stack([self._numbers(name, cells.get(name) or [None] * n, rows) for name in self.options.target], 1)

    def _numbers(self, name: str, column: Sequence[Cell], rows: Sequence[int]) -> np.ndarray:
        if name not in self.units:
            first = next((i for i, cell in enumerate(column) if self._is_number(name, cell)), None)
            self._require_numbers(name, column[:first], rows)
            if first is None:
                return np.full(len(rows), np.nan)
            value = self.reading.encoder.number(column[first], self.reading.encoder.numerals(name))
            if abs(value) > LARGEST:
                raise OnwardError(
                    f"row {rows[first]}, column {name!r}: the first target {column[first]!r} is too large to be "
                    "learned beside others; leave the row out, or write nothing there if it stands for nothing"
                )
            self.units[name] = Unit(value)
        unit = self.units[name]
        return unit.back(self.reading.encoder.measure(name, unit, column, rows))

    def _is_number(self, name: str, cell: Cell) -> bool:
        return math.isfinite(self.reading.encoder.number(cell, self.reading.encoder.numerals(name)))

    def _require_numbers(self, name: str, cells: Sequence[Cell], rows: Sequence[int]) -> None:
        """Complain about cells before the first number; refuse a target of which the first `FIRST` are none."""
        for i, cell in enumerate(cells):
            if is_missing(cell):
                continue
            self.none[name] = self.none.get(name, 0) + 1
            where = f"row {rows[i]}, column {name!r}: the target {cell!r} is not a number"
            if self.none[name] > FIRST:
                raise OnwardError(f"{where}, nor is any before it; for a target of names say --task classification")
            kind = f"cells of the target {name!r}, before its first number, that are none"
            self.reading.complain(Remark(f"{where}; taken as missing", rows[i], kind))

    def to_units(self, y: np.ndarray) -> np.ndarray:
        """As the learner takes them."""
        if self.options.task == "classification":
            return y
        return np.stack([unit.to(y[:, i]) for i, unit in enumerate(self._units(y.shape[1]))], 1)

    def _units(self, many: int) -> list[Unit]:
        """Of each of so many numbers: of one of a target, or of as many as are predicted of it."""
        each = many // len(self.options.target)
        return [self.units.get(name, Unit(0.0)) for name in self.options.target for _ in range(each)]

    def from_units(self, u: np.ndarray) -> np.ndarray:
        """Real values again; of a return, that of the real rewards."""
        share = self.options.whole
        units = self._units(u.shape[1])
        return np.stack([unit.origin * share + unit.length * u[:, i] for i, unit in enumerate(units)], 1)

    def arrived_to_units(self, arrived: np.ndarray) -> np.ndarray:
        """What is known now, as the learner takes it: targets, or returns."""
        if self.options.task != "return":
            return self.to_units(arrived)
        unit = self.units.get(self.options.target[0], Unit(0.0))
        return (arrived - unit.origin * self.options.whole) / unit.length

    def answered(
        self, answers: Answers, y: np.ndarray, numbers: Sequence[int], times: Sequence[str], *, block: int
    ) -> Waiting:
        """The answers in the targets' own units; `y`: what stands in these rows.

        Of classes the one that is most probable, with its probability and those of all. The ends of `block` intervals
        are found at once.
        """
        outputs, linear = answers.outputs.astype(float), answers.linear.astype(float)
        each = np.stack([answers.experts.astype(float), answers.weights.astype(float)], 2)
        if self.options.task == "classification":
            known = self._known(y)[:, None]
            seen = outputs[:, : max(1, len(self.classes))]
            seen = np.where(np.arange(seen.shape[1]) < known, seen, 0)
            said = np.argmax(seen, 1)[:, None]
            shares = seen / np.where(known > 0, seen.sum(1, keepdims=True), 1)
            extra = np.concatenate([np.take_along_axis(shares, said, 1), shares], 1)
            none = np.where(known > 0, 0.0, np.nan)  # no class has come yet
            each = each + none[..., None, None]
            nothing = np.zeros((*said.shape, 0))
            return Waiting(said + none, linear, extra + none, each, nothing, list(numbers), list(times))
        extra, around = np.zeros((len(outputs), 0)), np.zeros((*outputs.shape, 0))
        if self.extras:
            spread = answers.spread.reshape(outputs.size, answers.spread.shape[2])
            ends, by = placed(spread, outputs.ravel(), self.options.coverage, block)
            if self.options.alarm:
                around = moved(spread, by).reshape(answers.spread.shape)
            low, high = (self.from_units(ends.reshape(*outputs.shape, 2)[..., i]) for i in range(2))
            extra = np.stack([low, high], 2).reshape(len(outputs), -1)
        real = self.from_units
        for j in range(each.shape[3]):
            each[:, :, 0, j] = real(each[:, :, 0, j])
        return Waiting(real(outputs), real(linear), extra, each, around, list(numbers), list(times))

    def _known(self, y: np.ndarray) -> np.ndarray:
        """How many classes there had been when each row was answered: a block holds those of its later rows, too."""
        last = np.where(np.isfinite(y[:, 0]), y[:, 0], -1).astype(int)
        upto = np.maximum.accumulate(np.concatenate([[self.met - 1], last])) + 1
        self.met = int(upto[-1])
        return upto[1:] if self.options.lag else upto[:-1]
