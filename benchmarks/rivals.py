"""What people use on a series today: each predicts every row from those before it, and never sees it first.

Each takes a `Table` and the rows ahead, and gives a prediction for each row, NaN where it has none. Nothing is tuned:
settings are those of each library, or what its documentation shows, with the same inputs for all that take any: the
last 48 values, those of the seasons that the clock suggests, the calendar, and the other columns as they stood.
"""

import csv
import datetime
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DAY = 86400.0
LAGS = 48
# Fits of LightGBM in a series.
FITS = 20


class Table(NamedTuple):
    """A series: when each row was (seconds, NaN where that is no date), the target, and the other columns of numbers."""

    when: np.ndarray
    y: np.ndarray
    others: np.ndarray


def read(path: Path, most: int) -> Table:
    """The first rows of a CSV whose first column is the time and whose second is the target."""
    with open(path, newline="") as file:
        _, *lines = csv.reader(file)
    lines = lines[:most]
    others = [[number(cell) for cell in column] for column in zip(*(line[2:] for line in lines), strict=True)]
    kept = [column for column in others if np.isfinite(column).mean() > 0.5]
    when = np.array([moment(line[0]) for line in lines])
    return Table(when, np.array([number(line[1]) for line in lines]), np.array(kept).T.reshape(len(lines), -1))


def number(cell: str) -> float:
    """The number of a cell, NaN where it is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def moment(cell: str) -> float:
    """Seconds of an ISO date, NaN of anything else."""
    try:
        when = datetime.datetime.fromisoformat(cell)
    except ValueError:
        return math.nan
    return (when if when.tzinfo else when.replace(tzinfo=datetime.UTC)).timestamp()


def filled(values: np.ndarray) -> np.ndarray:
    """NaN replaced by what stood before it."""
    at = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), -1))
    return np.where(at >= 0, values[np.maximum(at, 0)], np.nan)


def seasons(table: Table) -> list[int]:
    """Rows of a day, a week and a year, by the middle step of the clock: at most half the series, at least 4."""
    step = np.nanmedian(np.diff(table.when)) if np.isfinite(table.when).all() else np.nan
    if not step > 0:
        return []
    rows = [round(span / step) for span in (DAY, 7 * DAY, 365.25 * DAY)]
    return [n for n in rows if 4 <= n <= len(table.y) // 2]


def inputs(table: Table, ahead: int) -> tuple[np.ndarray, np.ndarray]:
    """What all that take inputs read to predict row t, nothing of the rows after t - ahead: values of the target, the
    last first, and all else."""
    y, n = filled(table.y), len(table.y)
    back = lambda values, rows: np.concatenate([np.full(min(rows, n), np.nan), values[: max(n - rows, 0)]])
    values = [back(y, ahead + i) for i in range(LAGS)]
    for season in seasons(table):
        rows = season * -(-ahead // season)
        values += [back(y, rows + i) for i in (0, 1, -1) if rows + i >= ahead]
    rest = [back(filled(column), ahead) for column in table.others.T]
    if np.isfinite(table.when).all():
        step = np.median(np.diff(table.when))
        when = back(table.when, ahead) + ahead * step  # as the clock lets expect
        waves = []
        for span in (DAY, 7 * DAY, 365.25 * DAY):
            if span > 2 * step:
                phase = 2 * np.pi * when / span
                waves += [np.sin(phase), np.cos(phase)]
        rest = [*waves, when % DAY // 3600, (when // DAY + 3) % 7, *rest]
    return np.stack(values, 1), np.array(rest).T.reshape(n, -1)


def scaled(values: np.ndarray) -> np.ndarray:
    """Each column in running standard deviations from its running mean; NaN is 0."""
    known = np.isfinite(values)
    count = np.maximum(np.cumsum(known, 0), 1)
    clean = np.where(known, values, 0)
    mean = np.cumsum(clean, 0) / count
    spread = np.sqrt(np.maximum(np.cumsum(clean**2, 0) / count - mean**2, 1e-12))
    return np.where(known, np.clip((clean - mean) / spread, -10, 10), 0)


def least_squares(table: Table, ahead: int) -> np.ndarray:
    """Recursive least squares, forgetting .9995, over changes to the last value."""
    y, (values, rest) = filled(table.y), inputs(table, ahead)
    base = values[:, 0]
    differences = np.nan_to_num(values[:, 1:] - base[:, None])
    size = np.sqrt(
        np.maximum.accumulate(np.nan_to_num(np.nancumsum(differences**2, 0) / np.arange(1, len(y) + 1)[:, None]))
    )
    phi = np.concatenate([differences / np.maximum(size, 1e-9), scaled(rest), np.ones((len(y), 1))], 1)
    p, w, out = 10 * np.eye(phi.shape[1]), np.zeros(phi.shape[1]), np.full(len(y), np.nan)
    for t in range(len(y)):
        out[t] = base[t] + phi[t] @ w
        s = t - ahead + 1  # what has just become known
        if s >= 0 and np.isfinite(table.y[s]) and np.isfinite(base[s]):
            k = p @ phi[s] / (0.9995 + phi[s] @ p @ phi[s])
            w = w + k * (table.y[s] - base[s] - phi[s] @ w)
            p = (p - np.outer(k, phi[s] @ p)) / 0.9995
            p = (p + p.T) / 2
    return out


def lightgbm(table: Table, ahead: int) -> np.ndarray:
    """Gradient boosted trees of LightGBM as they come, fitted anew to all rows so far, `FITS` times."""
    import lightgbm as gbm

    x, y = np.concatenate(inputs(table, ahead), 1), table.y
    base = x[:, 0]
    out = base.copy()
    cuts = [int(len(y) * i / FITS) for i in range(1, FITS)]
    for start, stop in zip(cuts, [*cuts[1:], len(y)], strict=True):
        rows = np.flatnonzero(
            np.isfinite(y[: max(start - ahead + 1, 0)]) & np.isfinite(base[: max(start - ahead + 1, 0)])
        )
        if len(rows) < 40:
            continue
        model = gbm.LGBMRegressor(verbosity=-1, n_jobs=1)
        model.fit(x[rows], y[rows] - base[rows])
        out[start:stop] = base[start:stop] + model.predict(x[start:stop])
    return out


def _river(model: Callable[[], Any]) -> Callable[[Table, int], np.ndarray]:
    """A regressor of River on the inputs, that learns each row when it is known."""

    def predict(table: Table, ahead: int) -> np.ndarray:
        values, rest = inputs(table, ahead)
        base = values[:, 0]
        x = np.concatenate([values[:, :1], values[:, 1:] - base[:, None], rest], 1)
        rows = [dict(enumerate(np.nan_to_num(row).tolist())) for row in x]
        one, out = model(), base.copy()
        for t in range(len(rows)):
            if np.isfinite(base[t]):
                out[t] = base[t] + one.predict_one(rows[t])
            s = t - ahead + 1
            if s >= 0 and np.isfinite(table.y[s]) and np.isfinite(base[s]):
                one.learn_one(rows[s], float(table.y[s] - base[s]))
        return out

    return predict


def _forest() -> Any:
    from river import forest

    return forest.ARFRegressor(seed=0)


def _rules() -> Any:
    from river import preprocessing, rules

    return preprocessing.StandardScaler() | rules.AMRules()


def _forecaster(model: Callable[[int], Any]) -> Callable[[Table, int], np.ndarray]:
    def predict(table: Table, ahead: int) -> np.ndarray:
        y, n = filled(table.y), len(table.y)
        season = (seasons(table) or [1])[0]
        one, out = model(season), np.full(n, np.nan)
        for t in range(n):
            if np.isfinite(y[t]):
                one.learn_one(float(y[t]))
                if t + ahead < n:
                    try:
                        out[t + ahead] = one.forecast(horizon=ahead)[-1]
                    except (IndexError, ValueError, ZeroDivisionError, TypeError):
                        out[t + ahead] = y[t]
                    if not abs(out[t + ahead]) < 1e12:
                        out[t + ahead] = y[t]
        return out

    return predict


def _snarimax(season: int) -> Any:
    from river import linear_model, optim, preprocessing, time_series

    seasonal = {"m": season, "sp": 2} if 1 < season < 400 else {}
    return time_series.SNARIMAX(
        p=12, d=1, q=3, **seasonal,
        # With the step of its documentation, .01, it leaves all bounds on most series.
        regressor=preprocessing.StandardScaler() | linear_model.LinearRegression(optimizer=optim.SGD(0.001)),
    )  # fmt: skip


def _holt_winters(season: int) -> Any:
    from river import time_series

    if 1 < season < 400:
        return time_series.HoltWinters(alpha=0.3, beta=0.1, gamma=0.6, seasonality=season)
    return time_series.HoltWinters(alpha=0.3, beta=0.1)


RIVALS: dict[str, Callable[[Table, int], np.ndarray]] = {
    "least squares": least_squares,
    "LightGBM": lightgbm,
    "River SNARIMAX": _forecaster(_snarimax),
    "River Holt-Winters": _forecaster(_holt_winters),
    "River forest": _river(_forest),
    "River rules": _river(_rules),
}
