"""Where each row lies in time: when a season before it was, and what kind of hour the predicted row lies in."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from onward.rows.holidays import Holidays

DAY, YEAR = 86400.0, 31557600.0
# What repeats: a day, a week, a year, and last the season that was found in the data.
SEASONS = (DAY, 7 * DAY, YEAR)
# Slots of time that are remembered, each a step of the clock long: a week of minutes, a year of hours. Times are told
# in parts of a step.
SLOTS, PARTS = 10_240, 8
# Ways of sorting times into classes, and classes of each: half hours of seven days.
SORTS, CLASSES = 2, 336
# Of a row: its time; the times a season before it, from where on as many rows later are known as are predicted; and of
# the row that is predicted the phases in day, week and year, of `TURN` each, and the classes.
TURN = 2**24
WIDTH = 1 + len(SEASONS) + 1 + len(SEASONS) + SORTS
# A time that is none.
NONE = -(2**31)
# Rows after which the clock's step is judged, and again at every multiple of the last.
_LOOK = (4, 16, 64, 256, 1024, 4096)
# Steps by which it is judged; how far steps may lie from the middle one to count; by how much a new one must differ.
_RECENT, _NEAR, _CHANGED = 256, 0.2, 0.05
# Least steps in a season.
_LEAST = 3.5


class Calendar:
    """The places of rows in time; how the rows come in blocks makes no difference.

    The step of the clock is found from the rows so far, and how wide a slot may be that no two rows share; of an even
    clock they are the same. Without dates a row is a step, and only a season that was found in the data is known.
    `lag`: rows until the target of a prediction is known; only what is known by then is looked up. `path`: of each of
    the 1, 2, ... `lag` rows that are predicted. `holidays`: days that count as Sundays.
    """

    def __init__(self, lag: int, holidays: Holidays | None = None, *, path: bool = False):
        self.spans, self.holidays = range(1, lag + 1) if path else (lag,), holidays
        self.rows = 0
        self.step = self.width = 0.0
        self.origin = np.nan
        self.base = 0
        self.last = np.nan
        self.recent: list[float] = []

    def at(self, moments: np.ndarray, periods: np.ndarray, *, dated: bool) -> np.ndarray:
        """(rows, spans * WIDTH) integers, as `WIDTH` has them, `NONE` or -1 where nothing is known.

        `moments`: seconds since 1970, NaN where unknown. `periods`: rows of a season found in the data by then, or 0.
        """
        parts = [np.zeros((0, len(self.spans) * WIDTH), np.int32)]
        while len(moments):
            upto = next((n for n in _LOOK if n > self.rows), _LOOK[-1] * (self.rows // _LOOK[-1] + 1))
            n = min(upto - self.rows, len(moments))
            parts.append(self._stretch(moments[:n], periods[:n], dated))
            moments, periods = moments[n:], periods[n:]
            if self.rows == upto and dated:
                self._judge()
        return np.concatenate(parts)

    def _stretch(self, moments: np.ndarray, periods: np.ndarray, dated: bool) -> np.ndarray:
        if dated:
            self._see(moments[np.isfinite(moments)])
        each = [self._ahead(moments, periods.astype(np.int64), dated, span) for span in self.spans]
        self.rows += len(moments)
        return np.clip(np.concatenate(each, 1), NONE, 2**31 - 1).astype(np.int32)

    def _ahead(self, moments: np.ndarray, periods: np.ndarray, dated: bool, lag: int) -> np.ndarray:
        """(rows, WIDTH) where rows of a stretch lie, of which the row `lag` rows later is predicted."""
        n = len(moments)
        out = np.full((n, WIDTH), NONE, np.int64)
        out[:, 2 + len(SEASONS) :] = -1
        known = np.isfinite(moments)
        if dated and self.step:
            time, wide = self._time(moments), self.step / self.width
            for i, season in enumerate(SEASONS):
                steps = season / self.step
                back = season * np.ceil(lag * self.step / season - 1e-9)
                if steps >= _LEAST and back / self.width < SLOTS - 1:
                    out[known, 1 + i] = self._time(moments - back)[known]
            expected = moments[known] + lag * self.step
            out[known, -SORTS:] = self._classes(moments[known], expected, lag)
            for i, season in enumerate(SEASONS):
                if season > 2 * self.step:
                    phase = np.mod(expected, season) / season
                    out[known, 2 + len(SEASONS) + i] = np.floor(phase * TURN).astype(np.int64) % TURN
        else:
            time, wide = PARTS * (self.rows + np.arange(n)), 1.0
            known = np.full(n, not dated)
        out[known, 0] = time[known]
        back = periods * -(-lag // np.maximum(periods, 1))
        there = known & (periods > 0) & (back * wide < SLOTS - 1)
        out[there, len(SEASONS) + 1] = (time - np.floor(PARTS * wide * back + 0.5).astype(np.int64))[there]
        return out

    def _time(self, moments: np.ndarray) -> np.ndarray:
        where = np.floor((moments - self.origin) / self.width * PARTS + 0.5)
        return self.base + np.nan_to_num(np.clip(where, -(2**29), 2**29)).astype(np.int64)

    def _see(self, moments: np.ndarray) -> None:
        steps = np.diff(np.concatenate([[self.last], moments]))
        self.recent = [*self.recent, *steps[steps > 0].tolist()][-_RECENT:]
        if len(moments):
            self.last = float(moments[-1])

    def _judge(self) -> None:
        """Find the step of the clock; where it is another than before, all that was remembered is forgotten."""
        if len(self.recent) < 3:
            return
        recent = np.array(self.recent)
        middle = float(np.median(recent))
        near = recent[np.abs(recent - middle) <= _NEAR * middle]
        if not len(near):  # half of the steps are far below the middle, half far above: none is usual
            return
        even = np.mean(np.abs(near - middle) <= 1e-6 * middle) >= 0.9
        step, width = (middle, middle) if even else (float(near.mean()), float(near.min()))
        if abs(step - self.step) > _CHANGED * self.step:
            self.base = int(self._time(np.array([self.last]))[0]) + 2 * PARTS * SLOTS if self.step else 0
            self.step, self.width, self.origin = step, width, self.last

    def _classes(self, now: np.ndarray, moments: np.ndarray, lag: int) -> np.ndarray:
        """(rows, SORTS) classes of the moments that are expected `lag` rows after those of `now`.

        By the hour or half hour and whether it is a working day, and by the hour of the week; of days and longer steps
        by the day of the week, and by the month.
        """
        days = np.floor(moments / DAY)
        weekday = (days.astype(np.int64) + 3) % 7
        if self.holidays is not None and self.step < 1.5 * DAY:
            weekday = np.where(self.holidays.on(days.astype(np.int64)), 6, weekday)
        if self.step < 0.9 * DAY:
            half = self.step < 0.9 * 3600
            hour = ((moments - days * DAY) // (1800 if half else 3600)).astype(np.int64)
            kind = np.maximum(weekday - 4, 0)  # a working day, a Saturday, a Sunday
            return np.stack([hour * 3 + kind, hour * 7 + weekday], 1)
        # Of months and longer steps it is counted which comes next: they are not of one length.
        ahead = round(self.step / (YEAR / 12)) * lag if self.step > 27 * DAY else 0
        when = now if ahead else moments
        month = (when.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64) + ahead) % 12
        daily = self.step < 1.5 * DAY
        return np.stack([weekday if daily else np.full_like(weekday, -1), month], 1)

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON."""
        told = lambda value: None if np.isnan(value) else value
        scalars = {"rows": self.rows, "step": self.step, "width": self.width, "base": self.base}
        return scalars | {"origin": told(self.origin), "last": told(self.last), "recent": self.recent}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on as `as_dict` said."""
        self.rows, self.base = int(kept["rows"]), int(kept["base"])
        self.step, self.width = float(kept["step"]), float(kept["width"])
        self.origin, self.last = (np.nan if kept[name] is None else float(kept[name]) for name in ("origin", "last"))
        self.recent = [float(step) for step in kept["recent"]]
