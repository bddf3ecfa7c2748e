"""How odd a row is: the chance of a value at least as unlikely under what was said before, and whether it shifted."""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from scipy.special import log_ndtr, logsumexp

from onward.rows import calibration
from onward.rows.calibration import ODDEST, Calibration
from onward.rows.predictions import Odds, Waiting

# For a shift no row counts as odder: it takes several.
FOR_SHIFT = 0.01
# Statistics of a shift: upwards, downwards, and either way; and one of values that stand still, of runs up to `RUNS`.
WAYS, RUNS = 3, 64
# Numbers of a shift.
SHIFT = WAYS + 4 + RUNS
# What is left of a statistic after each row.
FADES = 0.97
# Alarms and shifts that are listed with what they were; all are marked and counted.
LISTED = 10


def surprise(spread: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a mixture of Gaussians the surprise of a value, and whether it lies above the middle.

    The surprise is -log of the chance of a value at least as far out, on either side. `spread` (rows, 3 components):
    log weights, means and log widths. `value` (rows,).
    """
    log_pi, mu, log_sigma = np.split(spread.astype(float), 3, 1)
    z = (value[:, None] - mu) * np.exp(-log_sigma)
    below, above = (logsumexp(log_pi + log_ndtr(side * z), 1) for side in (1, -1))
    return -np.minimum(np.minimum(below, above) + math.log(2), 0), below > above


def surprise_of_class(shares: np.ndarray, came: np.ndarray) -> np.ndarray:
    """The surprise of the class that came: -log of the chance of one at most as likely. `shares` (rows, classes)."""
    given = np.take_along_axis(shares, came[:, None], 1)
    return -np.log(np.clip(np.sum(np.where(shares <= given, shares, 0), 1), ODDEST, 1))


def surprises(judged: Waiting, values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of numbers (rows, targets), in the learner's units, by what was said of them: surprises, NaN where none is known,
    and whether each lies above the middle. `known`: which came, of those that something was said of.
    """
    odd, above = np.full(values.shape, np.nan), np.zeros(values.shape, bool)
    rows = known & np.isfinite(judged.spread).all(2)
    odd[rows], above[rows] = surprise(judged.spread[rows], values[rows])
    return odd, above


def surprises_of_classes(judged: Waiting, came: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of the numbers of classes (rows, 1); above the middle is a class that was not the one said."""
    odd, which = np.full(came.shape, np.nan), np.nan_to_num(came[:, 0]).astype(int)
    shares, rows = judged.extra[:, 1:], known[:, 0]
    room = max(0, int(which.max(initial=0)) + 1 - shares.shape[1])
    odd[rows, 0] = surprise_of_class(np.pad(shares, [(0, 0), (0, room)])[rows], which[rows])
    return odd, came != judged.said


class Runs:
    """How rare it is that a value stays the same for so long: in how many rows a run got as long once.

    Of a sensor that is stuck, whatever was predicted. With n rows and c runs before that were as long, n / (1 + c): so
    where nights are all zero a night is not rare.
    """

    def __init__(self) -> None:
        self.rows, self.length, self.last, self.reached = 0, 0, math.nan, [0] * RUNS

    def rarity(self, value: float) -> float:
        """With this value; 0 where it is another one, or the run is longer than what is counted."""
        length = self.length + 1
        return self.rows / (1 + self.reached[length - 1]) if value == self.last and length <= RUNS else 0.0

    def see(self, value: float) -> None:
        """Count it."""
        self.length = self.length + 1 if value == self.last else 0
        if 0 < self.length <= RUNS:
            self.reached[self.length - 1] += 1
        self.rows, self.last = self.rows + 1, value


class Shift:
    """Whether scores have shifted: a Shiryaev-Roberts statistic of bets against them, R <- `FADES` (1 + R) b(p).

    b(p) = 1 / (2 sqrt(p)), of p at least `FOR_SHIFT`, has a mean below 1 where scores are uniform and independent. So R
    less the number of rows is a supermartingale: with no shift the mean time until R first exceeds r is at least r
    rows; that it fades lets old evidence go, and makes it rarer still. The mean of three is taken: of the scores, and
    of the one-sided ones upwards and downwards. Beside it stands what the `Runs` of equal values say. Each may err once
    in twice as many `rows` as are asked for. The three begin anew after each shift, and a run tells of one once.
    """

    def __init__(self, rows: float):
        self.rows, self.evidence, self.runs, self.told = rows, [0.0] * WAYS, Runs(), False

    def _next(self, score: float, above: bool) -> list[float]:
        half = score / 2
        sides = (half, 1 - half) if above else (1 - half, half)
        bets = [0.5 / math.sqrt(max(p, FOR_SHIFT)) for p in (*sides, score)]
        return [FADES * (1 + r) * b for r, b in zip(self.evidence, bets, strict=True)]

    def strength(self, score: float, above: bool, value: float) -> float:
        """The evidence with this row, in rows; `above`: its value lies above the middle of what was said."""
        run = 0.0 if self.told and value == self.runs.last else self.runs.rarity(value)
        return max(sum(self._next(score, above)) / WAYS, run) / 2

    def see(self, score: float, above: bool, value: float = math.nan) -> bool:
        """Whether with this row it is a shift."""
        found = self.strength(score, above, value) >= self.rows
        self.evidence = [0.0] * WAYS if found else self._next(score, above)
        same = value == self.runs.last
        self.told = same and (found or self.told)
        self.runs.see(value)
        return found

    def copy(self) -> Self:
        """One that goes on by itself."""
        other = type(self)(self.rows)
        other.restore(self.as_dict())
        return other

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold, whole."""
        runs = self.runs
        last = runs.last if math.isfinite(runs.last) else None
        counts = {"rows": runs.rows, "length": runs.length, "last": last, "reached": [*runs.reached]}
        return {"evidence": [*self.evidence], "told": self.told, "runs": counts}

    def as_array(self) -> np.ndarray:
        """All of it, `SHIFT` numbers."""
        runs = self.runs
        return np.array([*self.evidence, self.told, runs.rows, runs.length, runs.last, *runs.reached], float)

    @classmethod
    def of(cls, rows: float, kept: np.ndarray) -> Self:
        """What `as_array` gave."""
        new, numbers = cls(rows), kept.tolist()
        new.evidence, runs = numbers[:WAYS], new.runs
        told, runs.rows, runs.length, runs.last, *runs.reached = numbers[WAYS:]
        runs.rows, runs.length, runs.reached = int(runs.rows), int(runs.length), list(map(int, runs.reached))
        new.told = bool(told)
        return new

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on as if never stopped."""
        self.evidence, self.told = [*kept["evidence"]], kept["told"]
        vars(self.runs).update(kept["runs"] | {"reached": [*kept["runs"]["reached"]]})
        if self.runs.last is None:
            self.runs.last = math.nan


class Marked:
    """Which rows are alarms and shifts, by their scores: counted, the first of them listed.

    A row is an alarm where the score of a target is below `alarm` divided by the number of targets.
    """

    def __init__(self, alarm: float):
        self.alarm = alarm
        self.scored = self.alarms = self.shifted = 0
        self.first: list[dict[str, Any]] = []

    def mark(
        self,
        scores: np.ndarray,
        shift: np.ndarray,
        rows: Sequence[int],
        times: Sequence[str],
        names: Sequence[str] = (),
    ) -> Odds:
        """Rows of these scores (rows, targets), NaN where there is none, some a shift; `names`: their entities."""
        with np.errstate(invalid="ignore"):
            alarm = (scores < self.alarm / scores.shape[1]).any(1)
        self.scored += int(np.isfinite(scores).any(1).sum())
        self.alarms += int(alarm.sum())
        self.shifted += int(shift.sum())
        for i in np.flatnonzero(alarm | shift).tolist()[: LISTED - len(self.first)]:
            kind = "alarm" if alarm[i] else "shift"
            whose = {"entity": names[i]} if names else {}
            each = {"row": int(rows[i]), "time": times[i], "kind": kind, "score": float(np.nanmin(scores[i]))}
            self.first.append(each | whose)
        return Odds(scores, alarm, shift)

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"counts": [self.scored, self.alarms, self.shifted], "first": self.first}

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on as if never stopped."""
        self.scored, self.alarms, self.shifted = kept["counts"]
        self.first = [dict(each) for each in kept["first"]]


class Oddness(Marked):
    """How odd each row of a stream is, of several targets.

    A row is a shift where the evidence of one of them is, by chance, reached once in 1 / `alarm` rows of each at most.
    """

    def __init__(self, alarm: float, targets: int):
        super().__init__(alarm)
        self.calibrations = [Calibration() for _ in range(targets)]
        self.shifts = [Shift(1 / alarm) for _ in range(targets)]

    def see(
        self,
        surprise: np.ndarray,
        above: np.ndarray,
        values: np.ndarray,
        rows: Sequence[int],
        times: Sequence[str],
    ) -> Odds:
        """The scores of rows, one after the other.

        `surprise` (rows, targets): NaN where nothing is known. `above`: whether the value lies above the middle.
        `values`: what came.
        """
        return self.mark(*scored(self.calibrations, self.shifts, surprise, above, values), rows, times)

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        calibrations = [each.as_dict() for each in self.calibrations]
        return super().as_dict() | {"calibrations": calibrations, "shifts": [each.as_dict() for each in self.shifts]}

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on as if never stopped."""
        super().restore(kept)
        for scale, its in zip(self.calibrations, kept["calibrations"], strict=True):
            scale.restore(its)
        for shift, its in zip(self.shifts, kept["shifts"], strict=True):
            shift.restore(its)


def scored(
    scales: Sequence[Calibration], shifts: Sequence[Shift], surprise: np.ndarray, above: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The scores of rows (rows, targets), and whether each is a shift; the arrays are as in `Oddness.see`."""
    scores, shift = np.full(surprise.shape, np.nan), np.zeros(len(surprise), bool)
    for j, (scale, moved) in enumerate(zip(scales, shifts, strict=True)):
        each = zip(surprise[:, j].tolist(), above[:, j].tolist(), values[:, j].tolist(), strict=True)
        for i, (odd, side, value) in enumerate(each):
            if odd == odd:
                scores[i, j] = score = scale.see(odd)
                shift[i] |= moved.see(score, side, value)
    return scores, shift


def are_marks(kept: dict[str, Any] | None, alarm: float | None, rows: int) -> bool:
    """Whether what a checkpoint holds can be the marks of so many rows."""
    if kept is None or not alarm:
        return kept is None and not alarm
    seen, *marked = counts = kept["counts"]
    return len(counts) == 3 and 0 <= max(marked) <= seen <= rows and min(marked) >= 0 and len(kept["first"]) <= LISTED


def is_true(kept: dict[str, Any] | None, alarm: float | None, targets: int, rows: int) -> bool:
    """Whether what a checkpoint holds can be of so many targets after so many rows."""
    return are_marks(kept, alarm, rows) and (
        kept is None
        or (
            len(kept["calibrations"]) == len(kept["shifts"]) == targets
            and all(map(calibration.is_true, kept["calibrations"]))
            and all(map(is_shift, kept["shifts"]))
        )
    )


def is_shift(kept: dict[str, Any]) -> bool:
    """Whether these can be numbers of a shift."""
    evidence, runs = kept["evidence"], kept["runs"]
    return (
        len(evidence) == WAYS
        and all(map(math.isfinite, evidence))
        and min(evidence) >= 0
        and kept["told"] in (True, False)
        and len(runs["reached"]) == RUNS
        and 0 <= runs["length"] <= runs["rows"]
        and all(0 <= count <= runs["rows"] for count in runs["reached"])
        and (runs["last"] is None or math.isfinite(runs["last"]))
        and {*runs} == {"rows", "length", "last", "reached"}
    )
