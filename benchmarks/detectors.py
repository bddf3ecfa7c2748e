"""Planted anomalies: how well `onward learn --alarm` and River's detectors find them, and what they say of calm rows.

    python benchmarks/detectors.py [FOLDER] [--kinds KIND ...] [--only NAME ...] [--most ROWS] [--every ROWS] [--seed S]
    python benchmarks/detectors.py [FOLDER] --calm [--most ROWS] [--only NAME ...]

Streams are five synthetic ones, and every CSV in FOLDER (`python examples/series.py FOLDER`): the first column is the
time, the second the target, no other is read; a missing value is the one before. After the first `--every` x 4 rows an
anomaly of one kind is planted in about every so many rows, at places and with sizes drawn from the seed; sizes are in
usual changes of the stream from row to row (1.48 times the median distance from the median change).

The score of a detector is the area under its precision-recall curve (average precision). An anomaly is found within a
window after its onset (of a spike that row alone), and counts as one, with the highest score in it. All other rows are
cut in windows of the same length, which count with their highest score, too; those that touch the 60 rows after a
window (of a lost season: two seasons) count for nobody, and neither do rows before the first quarter of the first
anomaly's row. Every detector says its score of a row before it learns from it.

Printed: the mean over streams for each kind, on how many streams Onward is at least as good as the best of River's,
chosen afterwards on each, and each stream's mean over kinds. `score` is the column of predictions.csv, `shift` the
evidence behind its column `shift`, and `onward` the rarer of both (`onward.rows.rarity`). Of River: half-space trees
over the value, over it and the seven before, and over the change to the last and to the last season's value, all scaled
to [0, 1]; and predictive detection with SNARIMAX, as documented (a score of 1 beyond 3 deviations) and without that
limit. `last difference`: the distance of a change from the median of the last 500, in their median distance.

`--calm` plants nothing and prints the share of rows with a score below .01 and .001, and of shifts, by `--alarm 1e-3`.
"""

import argparse
import csv
import datetime
import math
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rivals import Table, _snarimax, filled, read, seasons

from onward import cli

ALARM = 1e-3
# Rows after a window that count for nobody, and rows that a change from row to row is held against.
AFTER, RECENT = 60, 500
SYNTHETIC = ("season", "walk", "two seasons", "heavy tails", "autoregressive")


class Series(NamedTuple):
    """A stream: its name, when each row was (seconds), its values, and the rows of a season (0: none)."""

    name: str
    when: np.ndarray
    y: np.ndarray
    season: int


class Planted(NamedTuple):
    """Values with anomalies: where they begin, and how many rows after that they may be found in."""

    y: np.ndarray
    onsets: list[int]
    window: int


def synthetic(kind: str, rows: int, seed: int) -> Series:
    """A calm stream, hourly."""
    rng = np.random.default_rng([SYNTHETIC.index(kind), seed])
    t, noise = np.arange(rows), rng.normal(size=rows)
    wave = 10 * np.sin(2 * np.pi * t / 24)
    y = {
        "season": lambda: wave + noise,
        "walk": lambda: np.cumsum(noise),
        "two seasons": lambda: wave * (1 + 0.5 * (t // 24 % 7 < 5)) + 3 * np.cos(2 * np.pi * t / 12) + 0.5 * noise,
        "heavy tails": lambda: wave / 2 + rng.standard_t(3, rows),
        "autoregressive": lambda: _autoregressive(noise),
    }[kind]()
    return Series(kind, 1.6e9 + 3600.0 * t, y, 0 if kind in ("walk", "autoregressive") else 24)


def _autoregressive(noise: np.ndarray) -> np.ndarray:
    y = noise.copy()
    for t in range(2, len(y)):
        y[t] += 1.2 * y[t - 1] - 0.4 * y[t - 2]
    return y


def real(path: Path, most: int) -> Series:
    """A file's target, without rows before its first value."""
    table = read(path, most + 500)
    first = int(np.argmax(np.isfinite(table.y)))
    when, y = table.when[first:][:most], filled(table.y)[first:][:most]
    found = seasons(Table(when, y, y[:, None]))
    if not np.isfinite(when).all():
        when = 1.6e9 + 86400.0 * np.arange(len(y))
    return Series(path.stem, when, y, found[0] if found and found[0] <= len(y) // 12 else 0)


# Anomalies: (values, row, usual change, season, random numbers) -> how many rows later the next may come; `y` is changed.


def usual_change(y: np.ndarray) -> float:
    """1.48 times the median distance of changes from their median; of a stream that mostly stands, their deviation."""
    change = np.diff(y)
    return float(1.4826 * np.median(np.abs(change - np.median(change))) or np.std(change) or 1.0)


def sized(rng: np.random.Generator, least: float = 4, most: float = 8) -> float:
    """A size of either sign."""
    return float(rng.uniform(least, most) * rng.choice([-1, 1]))


def spike(y: np.ndarray, at: int, unit: float, season: int, rng: np.random.Generator) -> None:
    """One value, 4 to 8 usual changes off."""
    y[at] += unit * sized(rng)


def level(y: np.ndarray, at: int, unit: float, season: int, rng: np.random.Generator) -> None:
    """All values from here on."""
    y[at:] += unit * sized(rng)


def variance(y: np.ndarray, at: int, unit: float, season: int, rng: np.random.Generator) -> None:
    """Noise of two usual changes over 48 rows."""
    y[at : at + 48] += 2 * unit * rng.normal(size=len(y[at : at + 48]))


def lost_season(y: np.ndarray, at: int, unit: float, season: int, rng: np.random.Generator) -> None:
    """The mean of the last four seasons is left out of one."""
    before = y[at - 4 * season : at].reshape(4, season).mean(0)
    part = y[at : at + season]
    part -= (before - before.mean())[: len(part)]


def stuck(y: np.ndarray, at: int, unit: float, season: int, rng: np.random.Generator) -> None:
    """A sensor that says the same for 24 rows."""
    y[at : at + 24] = y[at - 1]


def drift(y: np.ndarray, at: int, unit: float, season: int, rng: np.random.Generator) -> None:
    """A slope of a half to a whole usual change a row for 24 rows, which stays."""
    rise = np.minimum(np.arange(1, len(y) - at + 1), 24)
    y[at:] += unit * sized(rng, 0.5, 1) * rise


def swapped(y: np.ndarray, at: int, unit: float, season: int, rng: np.random.Generator) -> None:
    """Twelve rows in the wrong order, the last first."""
    y[at : at + 12] = y[at : at + 12][::-1].copy()


def gap(y: np.ndarray, at: int, unit: float, season: int, rng: np.random.Generator) -> None:
    """Seven to seventeen rows that are lost without notice: the clock goes on as if they had come."""
    lost = int(rng.integers(7, 18))
    y[at : len(y) - lost] = y[at + lost :].copy()


def dropout(y: np.ndarray, at: int, unit: float, season: int, rng: np.random.Generator) -> None:
    """Three rows of the least value there was."""
    y[at : at + 3] = y[:at].min()


# By name: what plants it, and in how many rows it is to be found (None: a season's).
KINDS: dict[str, tuple[Callable[..., None], int | None]] = {
    "spike": (spike, 1),
    "level shift": (level, 8),
    "variance": (variance, 24),
    "missing season": (lost_season, None),
    "stuck": (stuck, 24),
    "drift": (drift, 24),
    "swapped": (swapped, 12),
    "gap": (gap, 8),
    "dropout": (dropout, 3),
}


def planted(series: Series, kind: str, every: int, seed: int) -> Planted | None:
    """A stream with anomalies of one kind, some `every` rows apart; None where there is no season to lose."""
    plant, window = KINDS[kind]
    if window is None and not series.season:
        return None
    window = min(series.season, 48) if window is None else window
    apart = max(every, 4 * series.season + 2 * AFTER) if kind == "missing season" else every
    rng = np.random.default_rng([seed, zlib.crc32(series.name.encode()), zlib.crc32(kind.encode())])
    y, unit, onsets = series.y.copy(), usual_change(series.y), []
    at = max(min(4 * every, len(y) // 3), 4 * series.season) + int(rng.integers(apart // 2))
    while at < len(y) - window - AFTER:
        plant(y, at, unit, series.season, rng)
        onsets.append(at)
        at += int(rng.integers(3 * apart // 4, 5 * apart // 4))
    return Planted(y, onsets, window)


def average_precision(score: np.ndarray, found: Planted, after: int) -> float:
    """The area under the precision-recall curve of windows."""
    from sklearn.metrics import average_precision_score

    n, window = len(score), found.window
    score = np.where(np.isnan(score), -np.inf, score)
    free = np.ones(n, bool)
    for at in found.onsets:
        free[at : at + window + after] = False
    values = [score[at : at + window].max() for at in found.onsets]
    first = found.onsets[0] // 4
    for start in range(first, n - window + 1, window):
        if free[start : start + window].all():
            values.append(score[start : start + window].max())
    values = np.unique(values, return_inverse=True)[1]
    return float(average_precision_score(np.arange(len(values)) < len(found.onsets), values))


# Detectors: the score of each row, higher where odder.


def onward(series: Series, y: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """`onward learn --alarm`: its score, the evidence of its shifts, and both; its alarms and shifts, as written."""
    from onward.rows.oddness import Shift
    from onward.rows.rarity import rarity

    source = folder / "stream.csv"
    with open(source, "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["time", "y"])
        for when, value in zip(series.when, y, strict=True):
            lines.writerow([datetime.datetime.fromtimestamp(when, datetime.UTC).isoformat(), repr(float(value))])
    out, sys.stdout = sys.stdout, sys.stderr
    command = ["learn", str(source), "--target", "y", "--time", "time", "--alarm", str(ALARM)]
    try:
        status = cli.main([*command, "--out", str(folder / "learned"), "--replace"])
    finally:
        sys.stdout = out
    if status:
        raise SystemExit(status)
    with open(folder / "learned" / "predictions.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["target"]]
    number = lambda name: np.array([float(row[name] or "nan") for row in rows])
    evidence, score = Shift(1e4), number("score")
    shift, both = np.zeros((2, len(rows)))
    above, values = number("target") > number("prediction"), number("target")
    for i, row in enumerate(zip(score.tolist(), above.tolist(), values.tolist(), strict=True)):
        if row[0] == row[0]:
            shift[i] = evidence.strength(*row)
            both[i] = rarity(row[0], shift[i])
            evidence.see(*row)
    return {"score": -np.log(score), "shift": shift, "onward": both, "flag": number("shift") == 1}


def half_spaces(rows: Iterator[dict[str, float]]) -> np.ndarray:
    """River's half-space trees, over features scaled to [0, 1] as its documentation shows."""
    from river import anomaly, preprocessing

    scale, trees, said = preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(n_trees=25, seed=42), []
    for x in rows:
        scale.learn_one(x)
        z = scale.transform_one(x)
        said.append(trees.score_one(z))
        trees.learn_one(z)
    return np.array(said)


def lagged(y: np.ndarray, lags: int) -> Iterator[dict[str, float]]:
    """Each value with those before it."""
    for t in range(len(y)):
        yield {f"{i} before": float(y[max(t - i, 0)]) for i in range(lags)}


def changes(y: np.ndarray, season: int) -> Iterator[dict[str, float]]:
    """The changes to the last value and to that of a season ago."""
    backs = [1, season] if season else [1]
    for t in range(len(y)):
        yield {f"since {back} before": float(y[t] - y[max(t - back, 0)]) for back in backs}


def predictive(series: Series, y: np.ndarray) -> dict[str, np.ndarray]:
    """River's predictive anomaly detection with its SNARIMAX, of which one forecast a row serves both."""
    from river import anomaly
    from river.time_series.base import Forecaster

    class Said(Forecaster):
        """Says what was forecast before."""

        def learn_one(self, y, x=None):
            pass

        def forecast(self, horizon, xs=None):
            return [self.next]

    model = _snarimax(series.season)
    limits = {"PAD": 3.0, "PAD, no limit": 1e6}
    detectors = {name: anomaly.PredictiveAnomalyDetection(Said(), n_std=n) for name, n in limits.items()}
    said = {name: np.zeros(len(y)) for name in limits}
    for t, value in enumerate(y.tolist()):
        try:
            forecast = model.forecast(horizon=1)[0]
        except (IndexError, ValueError, ZeroDivisionError, TypeError):
            forecast = math.nan
        if not abs(forecast) < 1e12:
            forecast = float(y[t - 1]) if t else value
        for name, detector in detectors.items():
            detector.predictive_model.next = forecast
            said[name][t] = detector.score_one(None, value) if t > 2 else 0.0
            detector.learn_one(None, value)
        model.learn_one(value)
    return said


def last_difference(y: np.ndarray) -> np.ndarray:
    """The distance of each change from the median of those before it, in their median distance."""
    change, said = np.diff(y, prepend=y[0]), np.zeros(len(y))
    for t in range(10, len(y)):
        before = change[max(0, t - RECENT) : t]
        middle = np.median(before)
        said[t] = abs(change[t] - middle) / (np.median(np.abs(before - middle)) or np.std(before) or 1.0)
    return said


def river(series: Series, y: np.ndarray) -> dict[str, np.ndarray]:
    """All of River's."""
    return {
        "HST": half_spaces(lagged(y, 1)),
        "HST, 8 values": half_spaces(lagged(y, 8)),
        "HST, changes": half_spaces(changes(y, series.season)),
        **predictive(series, y),
    }


def streams(folder: Path | None, most: int, seed: int, only: list[str] | None) -> Iterator[Series]:
    """The synthetic ones, then the files, of at least 500 rows."""
    for kind in SYNTHETIC:
        if not only or kind in only:
            yield synthetic(kind, most, seed)
    for path in sorted(folder.glob("*.csv")) if folder else []:
        if not only or path.stem in only:
            series = real(path, most)
            if len(series.y) >= 500:
                yield series


def calm(asked: argparse.Namespace, folder: Path) -> None:
    """What is said of streams as they are."""
    print(f"| stream | rows | below .01 | below .001 | shifts in 1,000 rows |\n|{'---|' * 5}", flush=True)
    for series in streams(asked.folder, asked.most, asked.seed, asked.only):
        said = onward(series, series.y, folder)
        score = np.exp(-said["score"][np.isfinite(said["score"])])
        below = [np.mean(score < p) for p in (0.01, 0.001)]
        cells = f"{below[0]:.4f} | {below[1]:.4f} | {1000 * np.mean(said['flag']):.2f}"
        print(f"| {series.name} | {len(score):,} | {cells} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--most", type=int, default=4000)
    parser.add_argument("--every", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calm", action="store_true")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    if asked.calm:
        return calm(asked, folder)
    table: dict[str, dict[str, dict[str, float]]] = {}
    seconds = dict.fromkeys(("onward", "river"), 0.0)
    for series in streams(asked.folder, asked.most, asked.seed, asked.only):
        for kind in asked.kinds:
            found = planted(series, kind, asked.every, asked.seed)
            if not found or len(found.onsets) < 3:
                continue
            after = 2 * series.season if kind == "missing season" else AFTER
            began = time.process_time()
            said = onward(series, found.y, folder)
            del said["flag"]
            seconds["onward"] += time.process_time() - began
            began = time.process_time()
            theirs = river(series, found.y)
            seconds["river"] += time.process_time() - began
            said |= theirs | {"last difference": last_difference(found.y)}
            each = {name: average_precision(values, found, after) for name, values in said.items()}
            each["best of River"] = max(each[name] for name in theirs)
            table.setdefault(kind, {})[series.name] = each
        row = [table[kind][series.name] for kind in asked.kinds if series.name in table.get(kind, {})]
        if row:
            told = ", ".join(f"{name} {np.mean([each[name] for each in row]):.3f}" for name in row[0])
            print(f"{series.name}: {told}", file=sys.stderr, flush=True)
    report(table)
    print(f"\nCPU seconds: onward {seconds['onward']:.0f}, River {seconds['river']:.0f}")


def report(table: dict[str, dict[str, dict[str, float]]]) -> None:
    """A line of each kind, and one of each stream."""
    names = list(next(iter(next(iter(table.values())).values())))
    print(f"| kind | streams | {' | '.join(names)} | at least the best of River |\n|{'---|' * (len(names) + 3)}")
    for kind, rows in table.items():
        wins = sum(row["onward"] >= row["best of River"] for row in rows.values())
        means = " | ".join(f"{np.mean([row[name] for row in rows.values()]):.3f}" for name in names)
        print(f"| {kind} | {len(rows)} | {means} | {wins} of {len(rows)} |")
    print(f"\n| stream | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for stream in dict.fromkeys(name for rows in table.values() for name in rows):
        rows = [each[stream] for each in table.values() if stream in each]
        print(f"| {stream} | {' | '.join(f'{np.mean([row[name] for row in rows]):.3f}' for name in names)} |")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
