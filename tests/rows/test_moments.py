"""Running moments of rows, against plain sums by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from onward.rows.stream import moments as rows
from onward.rows.stream.moments import LIMIT, RATE_CHANGES, RATE_INPUTS, Running, deviation_of, see_squares

pytestmark = pytest.mark.usefixtures("compile_fast")


def table(steps, columns=3, missing=0.0, seed=0):
    """Columns that lie far apart, some values of which are missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(steps, columns)) * 10.0 ** np.arange(columns) + np.arange(columns)
    x[rng.random(x.shape) < missing] = np.nan
    return x


def seen(x, rate):
    """The moments after every row of x."""
    with jax.enable_x64(True):
        start = jax.tree.map(lambda a: a.astype(float), Running.start(x.shape[1]))
        see = lambda running, row: (running.see(row, rate),) * 2
        return jax.device_get(jax.lax.scan(see, start, jnp.asarray(x))[1])


@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_the_first_rows_are_averaged_plainly(missing):
    """Up to the row 1 / rate: the mean and variance of numpy over what was there, row by row."""
    x = table(60, missing=missing)
    running = seen(x, rate=1 / 60)
    for t in range(60):
        for column, values in enumerate(x[: t + 1].T):
            known = values[np.isfinite(values)]
            assert running.seen[t, column] == len(known)
            if len(known):
                np.testing.assert_allclose(running.mean[t, column], known.mean(), rtol=1e-10, atol=1e-12)
                np.testing.assert_allclose(running.variance[t, column], known.var(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rate", [0.5, 0.1, RATE_INPUTS, RATE_CHANGES])
def test_later_rows_are_weighed_by_the_rate(rate):
    """From the row 1 / rate on: each takes the share `rate`, and every one before it keeps the rest."""
    first, more = round(1 / rate), 8
    x = table(first + more)
    running = seen(x, rate)
    weights = np.full(first + more, 1 / first)
    for t in range(first, first + more):
        weights[:t] *= 1 - rate
        weights[t] = rate
    np.testing.assert_allclose(weights.sum(), 1)
    mean = weights @ x
    np.testing.assert_allclose(running.mean[-1], mean, rtol=1e-9)
    np.testing.assert_allclose(running.variance[-1], weights @ np.square(x - mean), rtol=1e-9)


def test_a_normalised_input_is_within_the_limit_and_missing_is_zero():
    running = Running(jnp.full(4, 9.0), jnp.asarray([1.0, 1.0, 1.0, 5.0]), jnp.asarray([4.0, 4.0, 4.0, 0.0]))
    z = running.normalise(jnp.asarray([5.0, 1e9, jnp.nan, 7.0]))
    np.testing.assert_allclose(z, [2.0, LIMIT, 0.0, 0.0])
    np.testing.assert_allclose(running.normalise(jnp.asarray([-3.0, -1e9, jnp.inf, 5.0])), [-2.0, -LIMIT, 0.0, 0.0])
    np.testing.assert_allclose(running.scale, [0.5, 0.5, 0.5, 0.0])
    np.testing.assert_allclose(running.deviation(), [2.0, 2.0, 2.0, 1.0])


@pytest.mark.parametrize(("mean", "varies"), [(0.0, 1e-12), (1e3, 1.0)])
def test_what_varies_by_rounding_only_has_not_varied(mean, varies):
    """A millionth of the mean, and 1e-15 about zero, are the least that count as change."""
    least = 1e-6 * mean + 1e-15
    scale = lambda deviation: float(Running(jnp.ones(1), jnp.full(1, mean), jnp.full(1, deviation**2)).scale[0])
    assert scale(0.5 * least) == 0
    assert scale(2 * least) == pytest.approx(1 / (2 * least), rel=1e-5)
    assert scale(varies) == pytest.approx(1 / varies, rel=1e-5)


@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_changes_are_averaged_as_squares_about_zero(missing):
    """Plainly up to the row 1 / RATE_CHANGES, then by that rate."""
    first = round(1 / RATE_CHANGES)
    x = table(3 * first, missing=missing)
    with jax.enable_x64(True):
        start = jax.tree.map(lambda a: a.astype(float), Running.start(3))
        step = lambda running, row: (see_squares(running, row),) * 2
        running = jax.device_get(jax.lax.scan(step, start, jnp.asarray(x))[1])
    for column, values in enumerate(x.T):
        count, mean = 0, 0.0
        for t, value in enumerate(values):
            if np.isfinite(value):
                count += 1
                mean += max(1 / count, RATE_CHANGES) * (value**2 - mean)
            assert running.seen[t, column] == count
            if t in (0, 5, first - 1, first, 3 * first - 1):
                np.testing.assert_allclose(running.variance[t, column], mean, rtol=1e-9)
                deviation = deviation_of(jax.tree.map(lambda a, t=t: a[t], running))[column]
                np.testing.assert_allclose(deviation, np.sqrt(mean) if mean > 1e-30 else 1, rtol=1e-6)
    assert not running.mean.any()


def test_before_any_change_the_deviation_is_one():
    assert deviation_of(Running.start(2)).tolist() == [1, 1]
    assert Running.start(2).deviation().tolist() == [1, 1]
    assert (rows.RATE_INPUTS, rows.RATE_CHANGES, rows.LIMIT) == (1e-3, 3e-3, 10.0)


# Those of cells.


@pytest.mark.parametrize("rate", [0.0, 0.9, 0.999])
@pytest.mark.parametrize("prior", [1.0, 2.0, 7.5, float("inf")])
def test_moments_of_a_cell_are_those_of_its_formula(rate, prior):
    """eta = max(1 - rate, 1 / (steps + prior)), of the step that is taken in; one step by hand after another."""
    x = table(40)
    law = ow.Moments(rate=rate, prior=prior, floor=0.5)
    with jax.enable_x64(True):
        state = law.init(jnp.zeros(3))
        mean, variance = np.zeros(3), np.ones(3)
        for steps, row in enumerate(x, 1):
            state = law.update(state, jnp.asarray(row))
            eta = max(1 - rate, 1 / (steps + prior))
            mean += eta * (row - mean)
            variance += eta * (np.square(row - mean) - variance)
            np.testing.assert_allclose(state.mean, mean, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(state.variance, variance, rtol=1e-9)
            np.testing.assert_allclose(state.scale, 1 / np.sqrt(np.maximum(variance, 0.5)), rtol=1e-9)
            assert state.steps == steps
        np.testing.assert_allclose(law(state, jnp.ones(3)), (1 - mean) * np.asarray(state.scale), rtol=1e-9)


@pytest.mark.parametrize("prior", [1.0, 3.0])
def test_moments_with_a_prior_average_plainly_as_if_it_had_been_seen(prior):
    """The mean is that of `prior` zeros and all values."""
    x, law = table(30), ow.Moments(rate=0.9999, prior=prior)
    with jax.enable_x64(True):
        state = law.init(jnp.zeros(3))
        for row in x:
            state = law.update(state, jnp.asarray(row))
    np.testing.assert_allclose(state.mean, x.sum(0) / (30 + prior), rtol=1e-9)


def test_what_stands_for_a_missing_value_is_a_number_after_any_stretch_of_zeros():
    """The sum of squares fades with every value and would end at 0: the share would be 0 / 0."""
    faded = rows.Carried(jnp.zeros(2), jnp.zeros(2), jnp.full(2, 1e-44))
    faded, _ = faded.fill(jnp.zeros(2), jnp.array([True, True]))
    _, z = faded.fill(jnp.array([jnp.nan, 0.5]), jnp.array([False, True]))
    np.testing.assert_array_equal(z, [0, 0.5])
