"""What a forecast must beat: the last value, the seasonal last value and the running mean, on the same rows."""

from typing import Any

import numpy as np

# Rows that are remembered: a period can be found up to half of it.
MEMORY = 4096
# Rows after which a period is looked for, and again at every multiple of the last of them.
LOOK = (256, 512, 1024, 2048, MEMORY)
# Least autocorrelation, of the series without its trend, that makes a period.
LEAST = 0.2
NAMES = ("last value", "seasonal", "mean")
_ARRAYS = ("total", "count", "counts")


class _Memory:
    """The last `rows` rows, NaN before the first, at the end of an array that is twice as long: few are ever moved."""

    def __init__(self, rows: int, width: int):
        self.rows, self.end = rows, rows
        self.held = np.full((2 * rows, width), np.nan)

    def last(self, rows: int) -> np.ndarray:
        return self.held[self.end - rows : self.end]

    def add(self, more: np.ndarray) -> np.ndarray:
        """The rows kept so far, and more, which are kept from now on. Good until the next call."""
        n = len(more)
        if self.end + n > len(self.held):
            self.held[: self.rows] = self.last(self.rows).copy()
            self.end = self.rows
        self.held[self.end : self.end + n] = more
        self.end += n
        return self.last(self.rows + n)


class Baselines:
    """Predictions of y_t from y_{t-lag} and what came before it; how the rows come in blocks makes no difference.

    y has one column a target, NaN where missing (the last known value stands in). For classes, y holds their
    numbers and the mean is the most frequent one. `period=None` finds it: the lag, at least 2, at which the
    autocorrelation of the last `MEMORY` values has its highest peak; until one is found the seasonal value is the last.
    `path`: of y_{t-lag+1} ... y_t instead, from y_{t-lag} and what came before it: lag outputs a target.
    State: `MEMORY` + lag rows of y, sums, and counts of classes.
    """

    def __init__(self, targets: int, lag: int, *, period: int | None = None, classes: bool = False, path: bool = False):
        self.spans = range(1, lag + 1) if path else (lag,)
        self.lag, self.given, self.classes = lag, period, classes
        self.period = period
        self.rows = 0
        self.memory = max(MEMORY, 2 * (period or 0)) + lag
        self._past, self._averages = _Memory(self.memory, targets), _Memory(self.memory, targets)
        self.total = np.zeros(targets)
        self.count = np.zeros(targets)
        self.counts = np.zeros(0)
        self.ahead = np.zeros((0, targets))
        self.periods = np.zeros(0, np.int64)

    def score(self, y: np.ndarray) -> np.ndarray:
        """(baseline, rows, outputs) predictions for the rows of y (rows, targets), then remember y.

        `ahead` is then, for each of these rows, the value one season before the row that lies `lag` rows after it;
        `periods` how long that season is, 0 where none is known.
        """
        parts, ahead, periods = [], [], [np.zeros(0, np.int64)]
        while len(y):
            later = MEMORY * (self.rows // MEMORY + 1)
            upto = min(event for event in (*LOOK, later) if event > self.rows)
            part, y = y[: upto - self.rows], y[upto - self.rows :]
            said, season = self._stretch(part)
            parts.append(said)
            ahead.append(season)
            periods.append(np.full(len(part), self.period or 0))
            if self.given is None and self.rows == upto:
                # What is known when the next row is predicted, `lag` rows before.
                known = self._past.last(self.memory)[1 : self.memory - self.lag + 1, 0]
                self.period = find_period(known, self.classes)
        targets = len(self.total)
        self.ahead = np.concatenate(ahead) if ahead else np.zeros((0, targets))
        self.periods = np.concatenate(periods)
        return np.concatenate(parts, 1) if parts else np.zeros((len(NAMES), 0, targets * len(self.spans)))

    def _stretch(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n = len(y)
        filled = self._past.add(_carry_forward(np.concatenate([self._past.last(1), y]))[1:])
        means = self._averages.add(self._means(y))
        self.rows += n
        before = lambda values, rows: values[self.memory - rows :][:n]
        last, mean = before(filled, self.lag), before(means, self.lag)
        each = []
        for span in self.spans:
            back = self._back(span)
            # The row that is predicted lies `lag - span` rows back by now.
            seasonal = before(filled, back + self.lag - span)
            each.append(np.stack([last, np.where(np.isnan(seasonal), last, seasonal), mean]))
        out = np.stack(each, 3).reshape(len(NAMES), n, -1)
        ahead = before(filled, self._back(self.lag) - self.lag).copy() if self.period else np.full(y.shape, np.nan)
        return out, ahead

    def _back(self, span: int) -> int:
        """Rows from one predicted `span` rows ahead to the nearest that was known then, whole seasons before."""
        back = self.period * -(-span // self.period) if self.period else span
        return back if back + self.lag - span <= self.memory else span

    def _means(self, y: np.ndarray) -> np.ndarray:
        if self.classes:
            return self._majority(y[:, 0])[:, None]
        known = ~np.isnan(y)
        # Sequential sums: the same whatever the blocks.
        total = np.cumsum(np.concatenate([self.total[None], np.where(known, y, 0)]), 0)[1:]
        count = np.cumsum(np.concatenate([self.count[None], known]), 0)[1:]
        if len(y):
            self.total, self.count = total[-1].copy(), count[-1].copy()
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)

    def _majority(self, y: np.ndarray) -> np.ndarray:
        out = np.full(len(y), np.nan)
        for i, value in enumerate(y):
            if value == value:
                c = int(value)
                if c >= len(self.counts):
                    self.counts = np.concatenate([self.counts, np.zeros(c + 1 - len(self.counts))])
                self.counts[c] += 1
            if len(self.counts):
                out[i] = np.argmax(self.counts)
        return out

    def forget(self, target: int) -> None:
        """As if nothing was known of a target so far."""
        self.total[target] = self.count[target] = 0
        for memory in (self._past, self._averages):
            memory.held[:, target] = np.nan

    def arrays(self) -> dict[str, np.ndarray]:
        """What changes, for a checkpoint."""
        scalars = np.array([self.rows, self.period or 0], np.int64)
        memory = {"past": self._past.last(self.memory), "means": self._averages.last(self.memory)}
        return {"scalars": scalars} | memory | {name: getattr(self, name) for name in _ARRAYS}

    def restore(self, arrays: dict[str, Any]) -> None:
        """Go on from there."""
        self.rows, period = (int(v) for v in arrays["scalars"])
        self.period = period or None
        for name in _ARRAYS:
            setattr(self, name, np.array(arrays[name]))
        for memory, name in ((self._past, "past"), (self._averages, "means")):
            memory.add(arrays[name])


def _carry_forward(y: np.ndarray) -> np.ndarray:
    """NaN replaced by the last value before it in its column."""
    if not np.isnan(y).any():
        return y
    rows = np.where(np.isnan(y), -1, np.arange(len(y))[:, None])
    at = np.maximum.accumulate(rows, 0)
    return np.where(at >= 0, np.take_along_axis(y, np.maximum(at, 0), 0), np.nan)


def find_period(y: np.ndarray, classes: bool = False) -> int | None:
    """The lag of the highest peak of the autocorrelation, the linear trend taken out; None if there is none."""
    y = y[~np.isnan(y)]
    n = len(y)
    if n < 16:
        return None
    if classes:
        kinds = [k for k in np.unique(y) if 0 < np.mean(y == k) < 1][:8]
        series = [(y == k).astype(float) for k in kinds]
    else:
        series = [y]
    total = np.zeros(n // 2 + 1)
    for values in series:
        t = np.arange(n) - (n - 1) / 2
        values = values - values.mean()
        values = values - t * (t @ values) / (t @ t)
        # Two outliers are no period.
        most = 5 * np.mean(np.abs(values))
        values = np.clip(values, -most, most)
        power = np.abs(np.fft.rfft(values, 2 * n)) ** 2
        total = total + np.fft.irfft(power)[: n // 2 + 1] * n / (n - np.arange(n // 2 + 1))
    if not total[0] > 1e-12 * n * max(1.0, float(np.max(np.abs(y))) ** 2):
        return None
    r, chance = total / total[0], 1 / np.sqrt(n - np.arange(n // 2 + 1))
    least = np.maximum(LEAST, 4 * chance)
    # A peak stands out of what lies before it: a trend has none.
    rise = r - np.minimum.accumulate(r)
    inner = np.arange(2, len(r) - 1)
    peaks = inner[(r[inner] > r[inner - 1]) & (r[inner] >= r[inner + 1])]
    peaks = peaks[np.minimum(r, rise)[peaks] > least[peaks]]
    if not len(peaks):
        return None
    best = r[peaks].max()
    # The shortest of nearly equal ones: multiples of a period peak too.
    first = int(peaks[r[peaks] >= best - max(0.05 * best, 4 / np.sqrt(n))][0])
    # Noise moves a peak: of those nearby, the one whose multiples are highest.
    near = np.arange(first - first // 8, min(first + first // 4, len(r) - 1) + 1)
    multiples = np.arange(1, max(1, min(8, (len(r) - 1) // near[-1])) + 1)
    return int(near[np.argmax(r[np.outer(multiples, near)].mean(0))])
