"""Scores that hold what they say, from surprises whose law nobody knows."""

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Any, Self

import numpy as np

# Surprises that a score is held against: of the last so many rows, or half of all; at first of so many imagined ones.
WINDOW, IMAGINED = 2000, 100
# The share of them that the tail is fitted to, after every so many rows, at first so many; and bounds of its shape.
TAIL, REFIT, EARLY, SHAPES = 0.1, 50, 5, (-1.0, 0.7)
# What a shape is taken for beforehand: as if so many surprises had had this one.
USUAL = 40, 0.2
# No score is smaller than this, and no value counts for more than this in what later ones are held against.
ODDEST, WEIGHED = 1e-12, 1e-4
# The least scale of a tail: of a target that never changes surprises differ by roundings.
NARROWEST = 1e-3
# Levels at which it is counted how often scores have been below, over about so many rows; a count is believed to so
# many of its standard errors. From `CALM` on a score is left as it is.
LEVELS = (0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10)
KEPT, ERRORS, CALM = 10_000, 2.0, 0.3
# Numbers of a calibration besides the surprises.
SUMS = 6 + len(LEVELS)


class Calibration:
    """Turns surprises into scores that hold what they say: of calm rows a share p has a score below p.

    A surprise is held against those of the last `WINDOW` rows (of half the rows while they are fewer than twice as
    many: errors are wider while most is still to be learned): by rank, and in the tail, of which there are few, by a
    generalised Pareto distribution, fitted by probability-weighted moments (Hosking and Wallis, 1987). Where surprises
    come and go with the times, that is not enough: more rows lie below a small score than it says. So it is counted
    how many did, at `LEVELS`, over the last `KEPT` rows, and where that is certain a score is taken for the share that
    has come true (as forecasts are calibrated: Dawid, 1984). It begins as if chances held what they say, and the score
    of row n is n^-1.5 at least: of few rows nobody can say that one is very odd. Costs some microseconds a row; WINDOW
    numbers.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._recent = deque(-math.log((i + 0.5) / IMAGINED) for i in range(IMAGINED))
        self._seen = 0
        self._scored, self._below = 0.0, [0.0] * len(LEVELS)
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

    def _by_rank(self, surprise: float) -> float:
        """The score by the surprises of the last rows."""
        if surprise > self._from:
            return max(self._survival(surprise), ODDEST)
        ranked = self._sorted
        return (len(ranked) - bisect_left(ranked, surprise) + 1) / (len(ranked) + 1)

    def _come_true(self, score: float) -> float:
        """The share of rows that have had a score below this one: between two levels straight in logarithms."""
        if score >= CALM:
            return score
        at, true, said = -math.log(score), -math.log(CALM), -math.log(CALM)
        for level, below in zip(LEVELS, self._below, strict=True):
            before, was = said, true
            said = -math.log(level)
            true = max(was, said - math.log(_certain(self._scored * level, below) if self._scored else 1.0))
            if at <= said:
                return math.exp(-was - (true - was) * (at - before) / (said - before))
        return math.exp(-true - (at - said))

    def score(self, surprise: float) -> float:
        """The score of a surprise; nothing changes."""
        return self._told(self._by_rank(surprise))

    def _told(self, by_rank: float) -> float:
        return min(max(self._come_true(by_rank), ODDEST, (self._seen + 1) ** -1.5), 1.0)

    def see(self, surprise: float) -> float:
        """The score of a surprise; later ones are held against this one, too."""
        by_rank = self._by_rank(surprise)
        score = self._told(by_rank)
        fade = 1 - 1 / KEPT
        self._scored = fade * self._scored + 1
        self._below = [fade * below + (by_rank < level) for below, level in zip(self._below, LEVELS, strict=True)]
        kept = min(surprise, self._surprise(WEIGHED))
        if len(self._recent) >= min(self._window, max(IMAGINED, self._seen // 2)):
            oldest = self._recent.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._recent.append(kept)
        insort(self._sorted, kept)
        self._seen += 1
        if self._seen % REFIT == 0 or (self._seen < self._window and self._seen % EARLY == 0):
            self._fit()
        return score

    def copy(self) -> Self:
        """One that goes on by itself."""
        other = object.__new__(type(self))
        other.__dict__ = self.__dict__ | {"_recent": self._recent.copy(), "_sorted": self._sorted.copy()}
        return other

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold, whole."""
        fit = {name: getattr(self, f"_{name}") for name in ("from", "shape", "scale", "share")}
        counts = {"scored": self._scored, "below": self._below}
        return {"recent": list(self._recent), "seen": self._seen, "fit": fit, **counts}

    def as_array(self) -> np.ndarray:
        """All of it: `SUMS` numbers, and then those of the window, NaN where there is none yet."""
        few = [self._seen, self._scored, *self._below, self._from, self._shape, self._scale, self._share]
        return np.array([*few, *self._recent, *[math.nan] * (self._window - len(self._recent))])

    @classmethod
    def of(cls, kept: np.ndarray) -> Self:
        """What `as_array` gave."""
        new = object.__new__(cls)
        (seen, new._scored, *below), recent = kept[:SUMS].tolist(), kept[SUMS:]
        *new._below, new._from, new._shape, new._scale, new._share = below
        new._seen, new._window, new._recent = int(seen), len(recent), deque(recent[recent == recent].tolist())
        new._sort()
        return new

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on as if never stopped."""
        self._recent, self._seen = deque(kept["recent"]), kept["seen"]
        self._scored, self._below = kept["scored"], list(kept["below"])
        self._sort()
        for name, value in kept["fit"].items():
            setattr(self, f"_{name}", value)


def _certain(expected: float, count: float) -> float:
    """How many times as many there are as expected, for certain."""
    error = ERRORS * math.sqrt(count)
    return min(max(expected, count - error), count + error + ERRORS**2) / expected


def is_true(kept: dict[str, Any]) -> bool:
    """Whether these can be numbers of a calibration."""
    finite = lambda values: all(map(math.isfinite, values))
    return (
        IMAGINED <= len(kept["recent"]) <= WINDOW
        and finite(kept["recent"])
        and kept["seen"] >= 0
        and {*kept["fit"]} == {"from", "shape", "scale", "share"}
        and finite(kept["fit"].values())
        and kept["fit"]["scale"] > 0
        and 0 < kept["fit"]["share"] < 1
        and len(kept["below"]) == len(LEVELS)
        and all(0 <= below <= kept["scored"] for below in kept["below"])
        and kept["scored"] <= KEPT
    )
