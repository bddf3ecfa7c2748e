"""How odd a row is: the chance of a value at least as unlikely under what was said before, and whether it shifted."""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import log_ndtr, logsumexp

from onward.rows.predictions import Odds, Waiting

# Surprises that a score is held against: of the last so many rows, at first of so many imagined ones.
WINDOW, IMAGINED = 2000, 100
# The share of them that the tail is fitted to, after every so many rows, at first so many; and bounds of its shape.
TAIL, REFIT, EARLY, SHAPES = 0.1, 50, 5, (-1.0, 0.7)
# What a shape is taken for beforehand: as if so many surprises had had this one.
USUAL = 40, 0.2
# No score is smaller than this, and no value counts for more than this in what later ones are held against.
ODDEST, WEIGHED = 1e-12, 1e-4
# The least scale of a tail: of a target that never changes surprises differ by roundings.
NARROWEST = 1e-3
# For a shift no row counts as odder: it takes several.
FOR_SHIFT = 0.01
# Statistics of a shift: upwards, downwards, and either way.
WAYS = 3
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


class Calibration:
    """Turns surprises into scores that hold what they say: of calm rows a share p has a score below p.

    A surprise is held against those of the last `WINDOW` rows: by rank, and in the tail, of which there are few, by a
    generalised Pareto distribution, fitted by probability-weighted moments (Hosking and Wallis, 1987). It begins as if
    chances held what they say, and the score of row n is n^-1.5 at least: of few rows nobody can say that one is very
    odd. Costs some microseconds a row; WINDOW numbers.
    """

    def __init__(self) -> None:
        self._recent = deque(-math.log((i + 0.5) / IMAGINED) for i in range(IMAGINED))
        self._seen = 0
        self._sort()
        self._fit()

    def _sort(self) -> None:
        self._sorted = sorted(self._recent)

    def _fit(self) -> None:
        """The tail: from where on, how many, and shape and scale."""
        ranked = self._sorted
        count = max(2, round(TAIL * len(ranked)))
        self._from = ranked[-count - 1]
        over = np.array(ranked[-count:]) - self._from
        mean = over.mean()
        weighted = (over * (1 - (np.arange(1, count + 1) - 0.35) / count)).mean()
        gap = mean - 2 * weighted
        shape = 2 - mean / gap if gap > 0 else SHAPES[1]
        few, usual = USUAL
        self._shape = (count * float(np.clip(shape, *SHAPES)) + few * usual) / (count + few)
        self._scale = max(float(mean) * (1 - self._shape), NARROWEST)
        self._share = count / len(ranked)

    def _survival(self, surprise: float) -> float:
        over, shape = (surprise - self._from) / self._scale, self._shape
        if abs(shape) < 1e-6:
            return self._share * math.exp(-over)
        return self._share * max(0.0, 1 + shape * over) ** (-1 / shape)

    def _surprise(self, score: float) -> float:
        """Where the tail has this score."""
        ratio, shape = score / self._share, self._shape
        over = -math.log(ratio) if abs(shape) < 1e-6 else (ratio**-shape - 1) / shape
        return self._from + self._scale * over

    def see(self, surprise: float) -> float:
        """The score of a surprise; later ones are held against this one, too."""
        if surprise > self._from:
            score = self._survival(surprise)
        else:
            ranked = self._sorted
            score = (len(ranked) - bisect_left(ranked, surprise) + 1) / (len(ranked) + 1)
        kept = min(surprise, self._surprise(WEIGHED))
        if len(self._recent) == WINDOW or self._seen < IMAGINED:
            oldest = self._recent.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._recent.append(kept)
        insort(self._sorted, kept)
        self._seen += 1
        if self._seen % REFIT == 0 or (self._seen < WINDOW and self._seen % EARLY == 0):
            self._fit()
        return min(max(score, ODDEST, self._seen**-1.5), 1.0)

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold, whole."""
        fit = {name: getattr(self, f"_{name}") for name in ("from", "shape", "scale", "share")}
        return {"recent": list(self._recent), "seen": self._seen, "fit": fit}

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on as if never stopped."""
        self._recent, self._seen = deque(kept["recent"]), kept["seen"]
        self._sort()
        for name, value in kept["fit"].items():
            setattr(self, f"_{name}", value)


class Shift:
    """Whether scores have shifted: a Shiryaev-Roberts statistic of bets against them, R <- (1 + R) b(p).

    b(p) = 1 / (2 sqrt(p)), of p at least `FOR_SHIFT`, has a mean below 1 where scores are uniform and independent. So R
    less the number of rows is a supermartingale: with no shift the mean time until R first exceeds r is at least r
    rows. The mean of three is taken: of the scores, and of the one-sided ones upwards and downwards. It begins anew
    after each shift.
    """

    def __init__(self, rows: float):
        self.rows, self.evidence = rows, [0.0] * WAYS

    def see(self, score: float, above: bool) -> bool:
        """Whether with this row it is a shift; `above`: its value lies above the middle of what was said."""
        half = score / 2
        sides = (half, 1 - half) if above else (1 - half, half)
        bets = [0.5 / math.sqrt(max(p, FOR_SHIFT)) for p in (*sides, score)]
        self.evidence = [(1 + r) * b for r, b in zip(self.evidence, bets, strict=True)]
        found = sum(self.evidence) / WAYS >= self.rows
        if found:
            self.evidence = [0.0] * WAYS
        return found


class Oddness:
    """How odd each row is, of several targets: scores, alarms and shifts, counted, the first of them listed.

    A row is an alarm where the score of a target is below `alarm` divided by the number of targets, and a shift where
    the evidence of one of them is, by chance, reached once in 1 / `alarm` rows of each at most.
    """

    def __init__(self, alarm: float, targets: int):
        self.alarm = alarm
        self.calibrations = [Calibration() for _ in range(targets)]
        self.shifts = [Shift(1 / alarm) for _ in range(targets)]
        self.scored = self.alarms = self.shifted = 0
        self.first: list[dict[str, Any]] = []

    def see(self, surprise: np.ndarray, above: np.ndarray, rows: Sequence[int], times: Sequence[str]) -> Odds:
        """The scores of rows, one after the other.

        `surprise` (rows, targets): NaN where nothing is known. `above`: whether the value lies above the middle.
        """
        scores, shift = np.full(surprise.shape, np.nan), np.zeros(len(surprise), bool)
        for j, (calibration, moved) in enumerate(zip(self.calibrations, self.shifts, strict=True)):
            for i, (value, side) in enumerate(zip(surprise[:, j].tolist(), above[:, j].tolist(), strict=True)):
                if value == value:
                    scores[i, j] = score = calibration.see(value)
                    shift[i] |= moved.see(score, side)
        with np.errstate(invalid="ignore"):
            alarm = (scores < self.alarm / scores.shape[1]).any(1)
        self.scored += int(np.isfinite(scores).any(1).sum())
        self.alarms += int(alarm.sum())
        self.shifted += int(shift.sum())
        for i in np.flatnonzero(alarm | shift).tolist()[: LISTED - len(self.first)]:
            kind = "alarm" if alarm[i] else "shift"
            self.first.append({"row": rows[i], "time": times[i], "kind": kind, "score": float(np.nanmin(scores[i]))})
        return Odds(scores, alarm, shift)

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "counts": [self.scored, self.alarms, self.shifted],
            "first": self.first,
            "calibrations": [each.as_dict() for each in self.calibrations],
            "evidence": [each.evidence for each in self.shifts],
        }

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on as if never stopped."""
        self.scored, self.alarms, self.shifted = kept["counts"]
        self.first = [dict(each) for each in kept["first"]]
        for calibration, its in zip(self.calibrations, kept["calibrations"], strict=True):
            calibration.restore(its)
        for shift, evidence in zip(self.shifts, kept["evidence"], strict=True):
            shift.evidence = list(evidence)


def is_true(kept: dict[str, Any] | None, alarm: float | None, targets: int, rows: int) -> bool:
    """Whether what a checkpoint holds can be of so many targets after so many rows."""
    if kept is None or not alarm:
        return kept is None and not alarm
    scored, *marked = counts = kept["counts"]
    finite = lambda values: all(map(math.isfinite, values))
    return (
        len(counts) == 3
        and all(0 <= count <= scored for count in marked)
        and scored <= rows
        and len(kept["first"]) <= LISTED
        and len(kept["calibrations"]) == len(kept["evidence"]) == targets
        and all(len(each) == WAYS and finite(each) and min(each) >= 0 for each in kept["evidence"])
        and all(
            IMAGINED <= len(each["recent"]) <= WINDOW
            and finite(each["recent"])
            and each["seen"] >= 0
            and {*each["fit"]} == {"from", "shape", "scale", "share"}
            and finite(each["fit"].values())
            and each["fit"]["scale"] > 0
            and 0 < each["fit"]["share"] < 1
            for each in kept["calibrations"]
        )
    )
