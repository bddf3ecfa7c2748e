"""How odd the rows of many entities are: of each its own scores and shifts, whose numbers lie in its record."""

from typing import Any

import numpy as np

from onward.rows.calibration import SUMS, Calibration
from onward.rows.fleet.panel import Groups
from onward.rows.oddness import SHIFT, Shift, scored

# Surprises of an entity that later ones of it are held against.
WINDOW = 256


def fields(targets: int) -> dict[str, Any]:
    """What a record holds before the first row: numbers of each target, and the alarms and shifts so far."""
    scale, shift = Calibration(WINDOW).as_array(), Shift(np.inf).as_array()
    assert (len(scale), len(shift)) == (SUMS + WINDOW, SHIFT)
    counts = {name: np.int64(0) for name in ("alarms", "shifts")}
    return {"scale": np.tile(scale, (targets, 1)), "shift": np.tile(shift, (targets, 1))} | counts


def see(
    records: np.ndarray,
    at: np.ndarray,
    rows: Groups,
    alarm: float,
    surprise: np.ndarray,
    above: np.ndarray,
    values: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (rows, targets) and shifts (rows,) of sorted rows, of the entities whose records lie `at` (groups,).

    `surprise`, `above`, `values`: as in `Oddness.see`. The records go on.
    """
    scores, moved = np.full(surprise.shape, np.nan), np.zeros(len(surprise), bool)
    scales, shifts = records["scale"][at], records["shift"][at]
    known = np.isfinite(surprise).any(1)
    for group in np.unique(rows.group[known]).tolist():
        part = slice(rows.first[group], rows.first[group] + rows.counts[group])
        calibrations = [Calibration.of(each) for each in scales[group]]
        evidence = [Shift.of(1 / alarm, each) for each in shifts[group]]
        scores[part], moved[part] = scored(calibrations, evidence, surprise[part], above[part], values[part])
        scales[group] = [each.as_array() for each in calibrations]
        shifts[group] = [each.as_array() for each in evidence]
    records["scale"][at], records["shift"][at] = scales, shifts
    with np.errstate(invalid="ignore"):
        found = (scores < alarm / scores.shape[1]).any(1)
    for name, which in (("alarms", found), ("shifts", moved)):
        counts = np.zeros(len(at), np.int64)
        np.add.at(counts, rows.group[which], 1)
        records[name][at] += counts
    return scores, moved
