"""How odd a whole row is, of one number or several, as one score that holds what it says."""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from scipy.special import gammaincc

from onward.rows import calibration
from onward.rows.calibration import ODDEST, Calibration
from onward.rows.oddness import Shift, is_shift
from onward.saving import Unreadable

# From so many rows on the evidence of a shift begins anew.
SHIFTED = 1e4


def rarity(score: float, strength: float) -> float:
    """In how many rows a row like this comes once, as a logarithm: by its score, or by what came before as well."""
    return max(-math.log(score), math.log1p(strength))


def together(scores: Sequence[float]) -> float:
    """The surprise of several scores: the larger of two, Bonferroni's of the smallest and Fisher's of all.

    -log of min(1, n min p), and of the chance that as many independent scores have a product as small.
    """
    n, least = len(scores), min(scores)
    product = -math.fsum(map(math.log, scores))
    return max(-math.log(min(1.0, n * least)), -math.log(max(float(gammaincc(n, product)), ODDEST)))


class Rarity:
    """How odd rows of so many numbers are: each number's score and shift, and of all the score of the row.

    The score of a row: its surprise is that of its numbers' scores `together`, or the evidence that one of them has
    shifted, whichever is rarer; and that is held against those of the rows before (`Calibration`). So of calm rows a
    share p has a score below p, however the numbers hang together. It never changes: `after` gives
    the next one, a copy.
    """

    def __init__(self, numbers: int):
        self._calibrations = [Calibration() for _ in range(numbers)]
        self._shifts = [Shift(SHIFTED) for _ in range(numbers)]
        self._whole = Calibration()

    def _surprise(self, odd: np.ndarray, above: np.ndarray, values: np.ndarray) -> tuple[float, dict[int, float]]:
        """Of a row, and the score of each number that is known."""
        scores, strength = dict[int, float](), 0.0
        for i in np.flatnonzero(np.isfinite(odd)).tolist():
            scores[i] = score = self._calibrations[i].score(float(odd[i]))
            strength = max(strength, self._shifts[i].strength(score, bool(above[i]), float(values[i])))
        if not scores:
            return 0.0, scores
        return rarity(math.exp(-together([*scores.values()])), strength / len(scores)), scores

    def score(self, odd: np.ndarray, above: np.ndarray, values: np.ndarray) -> float:
        """Of a row (numbers,): surprises, NaN where nothing is known, whether they lie above the middle, and values.

        1 where nothing is known at all.
        """
        surprise, scores = self._surprise(odd, above, values)
        return self._whole.score(surprise) if scores else 1.0

    def after(self, odd: np.ndarray, above: np.ndarray, values: np.ndarray) -> Self:
        """With one more row, against which later ones are held, too."""
        surprise, scores = self._surprise(odd, above, values)
        if not scores:
            return self
        other = object.__new__(type(self))
        other._calibrations, other._shifts = self._calibrations.copy(), self._shifts.copy()
        other._whole = self._whole.copy()
        other._whole.see(surprise)
        for i, score in scores.items():
            other._calibrations[i], other._shifts[i] = self._calibrations[i].copy(), self._shifts[i].copy()
            other._calibrations[i].see(float(odd[i]))
            other._shifts[i].see(score, bool(above[i]), float(values[i]))
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        kept = [each.as_dict() for each in (*self._calibrations, self._whole)]
        return _unpickled, (kept, [each.as_dict() for each in self._shifts])


def _unpickled(calibrations: list[dict[str, Any]], shifts: list[dict[str, Any]]) -> Rarity:
    good = len(calibrations) == len(shifts) + 1
    if not (good and all(map(calibration.is_true, calibrations)) and all(map(is_shift, shifts))):
        raise Unreadable("the pickle of scores of rows holds numbers that cannot be: learn anew")
    again = Rarity(len(shifts))
    for each, its in zip((*again._calibrations, again._whole), calibrations, strict=True):
        each.restore(its)
    for shift, its in zip(again._shifts, shifts, strict=True):
        shift.restore(its)
    return again
