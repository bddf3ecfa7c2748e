"""What a forecast must beat: against loops over rows that remember everything."""

from collections import Counter

import numpy as np
import pytest

from onward.rows.baselines import LEAST, LOOK, MEMORY, NAMES, Baselines, find_period

nan = np.nan


def _series(rows, targets, seed, *, classes=False, missing=0.2):
    rng = np.random.default_rng(seed)
    if classes:
        y = rng.integers(0, 4, (rows, 1)).astype(float)
    else:
        y = np.sin(2 * np.pi * np.arange(rows) / 12)[:, None] + 0.1 * rng.normal(size=(rows, targets))
    y[rng.random(y.shape) < missing] = nan
    y[:3] = nan
    return y


def _naive(y, lag, given=None, classes=False):
    """(baseline, rows, targets) by looking at all rows before, for every row anew."""
    rows, targets = y.shape
    out = np.full((3, rows, targets), nan)
    filled, period = [], given
    for t in range(rows):
        if given is None and (t in LOOK or (t and t % MEMORY == 0)):
            column = np.array([row[0] for row in filled[: t - lag + 1][-MEMORY:]])
            period = find_period(column, classes)
        back = -(-lag // period) * period if period else lag
        for k in range(targets):
            at = lambda i, k=k: filled[i][k] if i >= 0 else nan
            out[0, t, k] = at(t - lag)
            out[1, t, k] = at(t - back)
            if np.isnan(out[1, t, k]):
                out[1, t, k] = out[0, t, k]
            seen = y[: max(0, t - lag + 1), k]
            seen = seen[~np.isnan(seen)].tolist()
            if seen and classes:
                counts = Counter(seen)
                out[2, t, k] = min(c for c in counts if counts[c] == max(counts.values()))
            elif seen:
                total = 0.0
                for value in seen:
                    total += value
                out[2, t, k] = total / len(seen)
        filled.append([y[t, k] if y[t, k] == y[t, k] else (filled[-1][k] if filled else nan) for k in range(targets)])
    return out


def _in_blocks(y, sizes, *arguments, **options):
    one, parts, start = Baselines(y.shape[1], *arguments, **options), [], 0
    for size in sizes:
        parts.append(one.score(y[start : start + size]))
        start += size
    parts.append(one.score(y[start:]))
    return np.concatenate(parts, 1), one


@pytest.mark.parametrize("lag", [1, 5])
@pytest.mark.parametrize("given", [None, 2, 12, 700])
def test_equals_a_loop_over_all_rows(lag, given):
    y = _series(900, 2, 1)
    found, one = _in_blocks(y, [], lag, period=given)
    np.testing.assert_array_equal(found, _naive(y, lag, given))
    assert one.period == (given or 12)
    assert len(NAMES) == len(found)


@pytest.mark.parametrize("lag", [1, 5])
def test_classes(lag):
    y = _series(300, 1, 2, classes=True)
    found, _ = _in_blocks(y, [7] * 30, lag, classes=True)
    np.testing.assert_array_equal(found, _naive(y, lag, classes=True))


@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("given", [None, 5])
def test_blocks_make_no_difference(given, classes):
    """Not in the last bit: blocks of any size, of one row and of none, over every look for a period."""
    y = _series(9000, 1, 3, classes=classes)
    options = {"period": given, "classes": classes}
    whole, one = _in_blocks(y, [], 3, **options)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sizes = [*rng.integers(0, 3, 20), *rng.integers(0, 900, 12)]
        parts, other = _in_blocks(y, sizes, 3, **options)
        np.testing.assert_array_equal(whole, parts)
        for name, kept in one.arrays().items():
            np.testing.assert_array_equal(kept, other.arrays()[name])


def test_goes_on_from_its_arrays():
    for classes in (False, True):
        y = _series(700, 1, 4, classes=classes)
        for cut in (0, 2, 255, 256, 400):
            one = Baselines(1, 5, classes=classes)
            one.score(y[:cut])
            kept = {name: array.copy() for name, array in one.arrays().items()}
            other = Baselines(1, 5, classes=classes)
            other.restore(kept)
            np.testing.assert_array_equal(one.score(y[cut:]), other.score(y[cut:]))
            assert all(np.array_equal(a, other.arrays()[name], equal_nan=True) for name, a in one.arrays().items())


def test_no_look_ahead():
    """What is said of a row does not change with the row, nor with any later one."""
    y = _series(600, 1, 5)
    for lag in (1, 5):
        said, _ = _in_blocks(y, [], lag)
        for t in (0, 3, 255, 256, 300):
            other = y.copy()
            other[t:] = 1e6
            changed, _ = _in_blocks(other, [], lag)
            np.testing.assert_array_equal(changed[:, : t + lag], said[:, : t + lag])
            if t > 3:
                assert not np.array_equal(changed[:, t + lag], said[:, t + lag])


def test_nothing_known():
    found, _ = _in_blocks(np.full((300, 2), nan), [], 1)
    assert np.isnan(found).all()
    assert Baselines(2, 1).score(np.zeros((0, 2))).shape == (3, 0, 2)


# Periods.

T = np.arange(MEMORY)


def _wave(period, size=1.0, phase=0.3):
    return size * np.sin(2 * np.pi * T / period + phase)


@pytest.mark.parametrize("rows", LOOK)
@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_a_daily_wave_in_noise(rows, noise):
    """Noise of the amplitude of the wave: at 256 rows now and then another multiple, later always 24."""
    found = [find_period((_wave(24) + noise * np.random.default_rng(s).normal(size=MEMORY))[:rows]) for s in range(20)]
    hits = found.count(24)
    assert hits >= (17 if rows == 256 and noise == 1 else 19), Counter(found)


def test_day_and_week():
    rng = np.random.default_rng(0)
    noise = 0.3 * rng.normal(size=MEMORY)
    assert find_period(_wave(24) + _wave(168, 0.2) + noise) == 24
    assert find_period(_wave(24) + _wave(168, 1.0) + noise) == 168
    working_days = (T // 24 % 7 < 5) * (2 + _wave(24))
    assert find_period(working_days + noise) == 168
    assert find_period((_wave(24) + _wave(168, 0.2) + noise)[:256]) == 24


@pytest.mark.parametrize("period", [2, 3, 7, 12, 24, 100, 365, 1000])
def test_any_shape_that_repeats(period):
    shape = np.random.default_rng(period).normal(size=period)
    assert find_period(np.tile(shape, MEMORY // period + 1)[:MEMORY]) == period


def test_a_period_under_a_trend_and_with_holes():
    y = _wave(24) + 0.01 * T + 1e4
    assert find_period(y) == 24
    assert find_period(1e6 * y) == 24
    classes = (T % 5).astype(float)
    assert find_period(classes, classes=True) == 5


NOTHING = {
    "white noise": lambda rng, n: rng.normal(size=n),
    "heavy tails": lambda rng, n: rng.standard_t(2, size=n),
    "trend": lambda rng, n: 0.05 * np.arange(n),
    "trend and noise": lambda rng, n: 0.01 * np.arange(n) + rng.normal(size=n),
    "parabola and noise": lambda rng, n: 20 * (np.arange(n) / n) ** 2 + rng.normal(size=n),
    "exponential": lambda rng, n: np.exp(3 * np.arange(n) / n) + 0.1 * rng.normal(size=n),
    "constant": lambda rng, n: np.full(n, 7.25),
    "large constant": lambda rng, n: np.full(n, 1e9 / 3),
}


@pytest.mark.parametrize("name", NOTHING)
def test_where_there_is_no_period(name):
    """Chance may make a peak at 256 rows once in 50 times."""
    found = [find_period(NOTHING[name](np.random.default_rng(s), n)) for n in LOOK for s in range(20)]
    assert len(found) - found.count(None) <= 2, Counter(found)


def test_too_little_to_say():
    assert find_period(np.zeros(0)) is None
    assert find_period(_wave(4)[:15]) is None
    assert find_period(np.full(100, nan)) is None
    assert find_period(np.zeros(100), classes=True) is None
    assert 0 < LEAST < 1
