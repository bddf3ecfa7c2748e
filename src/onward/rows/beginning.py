"""Which of a column's first values are wild: so far off that none of the others is of their size."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from onward.rows.stream.guard import WARM as BELIEVED

# A value lies far off if it is so many times as far from the middle as nearly all others; of `ENOUGH` values it is
# enough to lie `BEYOND` times as far as all others but one (of many: three).
WILD, BEYOND = 1000.0, 100.0
LEAST, ENOUGH = 3, 10
# Of the median, the least that the usual distance from it counts for.
NEARLY = 0.01
# Rows of a stream in which first values are judged anew with each.
ROWS = 2 * BELIEVED


def wild(numbers: np.ndarray) -> list[int]:
    """Where the first `BELIEVED` numbers of a column (or of its sample) are wild; NaN counts as none.

    Far off is what lies `WILD` times as far from the median as all but k of n values, k = max(1, min(n / 8, 6),
    n / 100), a hundredth of the median at least; where these are all the same, as far as `WILD` times the median
    itself. The guard of a stream (`stream/guard.py`) has nothing to go by before it has seen so many.
    """
    known = np.flatnonzero(np.isfinite(numbers))
    n = len(known)
    if n < LEAST:
        return []
    values = numbers[known]
    with np.errstate(over="ignore"):
        middle = np.median(values)
        away = np.abs(values - middle)
        ordered = np.sort(away)[::-1]
        usual, near = ordered[max(1, min(n // 8, 6), n // 100)], ordered[min(3, 1 + n // 200)]
        # Two first values that nearly agree say little of how far others lie.
        reach = WILD * (max(usual, NEARLY * abs(middle)) if usual else abs(middle)) or math.inf
        if n >= ENOUGH and near > 0:
            reach = min(reach, BEYOND * near)
    return known[:BELIEVED][away[:BELIEVED] > reach].tolist()


class Beginning(NamedTuple):
    """The first values of the columns of a stream, judged anew with each row. It never changes: `see` gives the next.

    `values`: of each column, in order. `passed`: which of them were not believed when they came, or are not any more.
    `strange`: the columns whose value in the last row is not believed. `anew`: those of which one was believed and is
    not any more, with the last value that is; what was learned so far was learned from it.
    """

    rows: int = 0
    values: Mapping[str | None, tuple[float, ...]] = {}
    passed: Mapping[str | None, tuple[int, ...]] = {}
    strange: tuple[str | None, ...] = ()
    anew: Mapping[str | None, float] = {}

    @property
    def open(self) -> bool:
        """Whether first values are still judged."""
        return self.rows < ROWS

    def see(self, row: Mapping[str | None, float]) -> "Beginning":
        """After one more row; NaN where a column has no value."""
        if self.rows + 1 >= ROWS:
            return CLOSED
        values, passed, strange, anew = dict(self.values), dict(self.passed), [], {}
        for name, value in row.items():
            before = values.get(name, ())
            if not math.isfinite(value) or len(before) >= BELIEVED:
                continue
            values[name] = (*before, value)
            found = wild(np.array(values[name]))
            if len(before) in found:
                strange.append(name)
            if {*found} - {*passed.get(name, ()), len(before)}:
                anew[name] = next(v for i, v in reversed([*enumerate(values[name])]) if i not in found)
            passed[name] = tuple(sorted({*passed.get(name, ()), *found}))
        return Beginning(self.rows + 1, values, passed, tuple(strange), anew)

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        values, passed = ({name: list(each) for name, each in part.items()} for part in (self.values, self.passed))
        return {"rows": self.rows, "values": values, "passed": passed}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> "Beginning":
        """The same again."""
        values, passed = ({name: tuple(each) for name, each in kept[part].items()} for part in ("values", "passed"))
        return cls(kept["rows"], values, passed)


CLOSED = Beginning(ROWS)
