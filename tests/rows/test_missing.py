"""What a missing number costs: what stands in its place, and what the first rows without it spoil."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onward.rows.stream import RowLearner, RowRecipe
from onward.rows.stream.moments import PRIOR, REMEMBERED, TINY, Carried

pytestmark = pytest.mark.usefixtures("compile_fast")

ROWS, CAPACITY = 300, 8
PLAIN = np.zeros(CAPACITY, bool)
LEARNERS: dict = {}


def filled(z):
    """What stands in each place of z, and the state at the end."""
    step = lambda carried, row: carried.fill(jnp.where(jnp.isfinite(row), row, 0), jnp.isfinite(row))
    return jax.lax.scan(step, Carried.start(z.shape[1]), jnp.asarray(z))


def drift(rows, share, seed=0):
    """A column of variance 1 of which `share` is left from one row to the next."""
    rng = np.random.default_rng(seed)
    z, noise = np.zeros(rows), rng.normal(size=rows)
    for t in range(1, rows):
        z[t] = share * z[t - 1] + np.sqrt(1 - share**2) * noise[t]
    return z


@pytest.mark.parametrize("seed", range(5))
def test_what_stands_for_a_missing_value_is_that_of_plain_loops(seed):
    rng = np.random.default_rng(seed)
    z = np.stack([drift(400, share, seed) for share in (0.0, 0.9, -0.5)], 1).astype(np.float32)
    z[rng.random(z.shape) < (0.1, 0.5, 0.3)] = np.nan
    _, found = filled(z)
    for column, values in enumerate(z.T.astype(float)):
        held, product, square = 0.0, 0.0, PRIOR
        for t, value in enumerate(values):
            if np.isfinite(value):
                product = product * (1 - 1 / REMEMBERED) + value * held
                square = max(square * (1 - 1 / REMEMBERED) + held * held, TINY)
                held = value
            else:
                held *= min(max(product / square, 0), 1)
            np.testing.assert_allclose(found[t, column], held, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.99])
def test_it_is_nearly_the_best_linear_guess(share):
    """Of one missing value, the error of the best guess from the value before has the variance 1 - share^2."""
    z = drift(20_000, share)[:, None].astype(np.float32)
    gone = np.arange(5_000, 20_000, 7)
    holes = z.copy()
    holes[gone] = np.nan
    error = np.mean(np.square(np.asarray(filled(holes)[1])[gone] - z[gone]))
    assert error < 1.05 * np.mean(np.square(z[gone] - share * z[gone - 1]))


def test_a_long_gap_fades_to_the_mean_and_nothing_else_changes():
    z = drift(1_000, 0.9)[:, None].astype(np.float32)
    holes = np.concatenate([z, np.full((200, 1), np.nan, np.float32)])
    after, found = filled(holes)
    assert (np.asarray(found[:1_000]) == z).all()
    assert abs(float(found[-1, 0])) < 1e-3 < abs(float(found[1_000, 0]))
    assert float(after.product[0]) == float(filled(z)[0].product[0])


def test_a_column_never_seen_stays_zero():
    assert (np.asarray(filled(np.full((50, 2), np.nan, np.float32))[1]) == 0).all()


def stream(seed):
    """A number that one column says nearly all of, in the same row; hours of a day in the other."""
    rng = np.random.default_rng([seed, 2])  # not those of the drift, which would tell what the noise is
    day = 2 * np.pi * np.arange(ROWS) / 24
    x = 5 * np.sin(day) + 3 * drift(ROWS, 0.9, seed)
    return np.stack([x, np.sin(day), np.cos(day)], 1), 2000 + 40 * x + 15 * rng.normal(size=ROWS)


def error(x, y):
    """The mean error of rows of the same row's target."""
    recipe = RowRecipe(units=8, horizon=0, lag=0)
    learner = LEARNERS.setdefault(recipe, RowLearner(recipe, CAPACITY, lengths=(ROWS,)))
    cells = np.full((ROWS, CAPACITY), np.nan, np.float32)
    cells[:, : x.shape[1]] = x
    # As the encoder gives them: in units of the first value.
    target = np.asarray(y - y[0], np.float32)
    return np.abs(learner.learn(cells, PLAIN, target[:, None])[1].outputs[:, 0] - target)


@pytest.mark.parametrize("gone", [[0], [0, 1], [1, 2], [2, 3], [4], [60], [150], [0, 1, 60]], ids=str)
def test_a_missing_cell_costs_its_own_row_and_little_more(gone):
    """The rows after it, beside those of the stream in which it is there, and of that without these rows; the mean of
    five streams.
    """
    kept = np.setdiff1d(np.arange(ROWS), gone)
    order, here = np.concatenate([kept, gone]), np.arange(max(gone) + 12, ROWS)
    ratios = []
    for seed in range(5):
        x, y = stream(seed)
        holes = x.copy()
        holes[gone, 0] = np.nan
        whole, found = error(x, y), error(holes, y)
        without = np.zeros(ROWS)
        without[kept] = error(x[order], y[order])[: kept.size]
        ratios.append([found[here].mean() / other[here].mean() for other in (whole, without)])
    beside_whole, beside_without = np.mean(ratios, 0)
    assert beside_whole < 1.03, ratios
    assert beside_without < 1.02, ratios


@pytest.mark.parametrize("since", [1, 3, 7, 40])
def test_a_column_that_comes_later_costs_little(since):
    ratios = []
    for seed in range(5):
        x, y = stream(seed)
        other = np.random.default_rng([seed, 1]).normal(size=(ROWS, 1))
        late = np.where(np.arange(ROWS)[:, None] < since, np.nan, other)
        pair = [error(np.concatenate([x, each], 1), y)[since + 12 :].mean() for each in (late, other)]
        ratios.append(pair[0] / pair[1])
    assert np.mean(ratios) < 1.05, ratios
