"""Observations and rewards of unit size: against plain loops in numpy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow

STEPS = 400


class Given(ow.AbstractTask):
    """A stream that was written down."""

    x: jax.Array
    y: jax.Array
    reset: jax.Array
    inputs: int = eqx.field(default=3, static=True)

    def init(self, key):
        return jnp.zeros((), jnp.int32)

    def emit(self, state):
        return state + 1, ow.Step(self.x[state], self.y[state], jnp.ones(()), self.reset[state], 10 * self.y[state])


def given(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(STEPS, 3)) * [1, 100, 0.01] + [0, 50, 3]
    y = rng.normal(size=STEPS) * 7 + 2
    return Given(jnp.asarray(x), jnp.asarray(y), jnp.asarray(rng.random(STEPS) < 0.02))


def seen(task):
    return jax.jit(lambda key: jax.lax.scan(lambda s, _: task.emit(s), task.init(key), None, STEPS))(jax.random.key(0))


def by_hand(x, y, reset, discount):
    """Both normalisers, one number after the other."""
    mean, var, total, m, v = np.zeros(3), np.ones(3), 0.0, 0.0, 1.0
    xs, ys = [], []
    for t in range(len(x)):
        eta = 1 / (t + 1)
        mean = mean + eta * (x[t] - mean)
        var = var + eta * ((x[t] - mean) ** 2 - var)
        xs.append((x[t] - mean) / np.sqrt(np.maximum(var, 1e-8)))
        eta = 1 / (t + 2)
        total = (0 if reset[t] else discount * total) + y[t]
        m = m + eta * (total - m)
        v = v + eta * ((total - m) ** 2 - v)
        ys.append(y[t] / np.sqrt(v))
    return np.array(xs), np.array(ys)


def test_both_normalisers_are_what_a_loop_makes_of_them():
    with jax.enable_x64(True):
        task = given()
        _, found = seen(ow.Normalised(task, rewards=ow.ReturnScale(0.9)))
        found = jax.tree.map(np.asarray, found)
        x, y = by_hand(*(np.asarray(a) for a in (task.x, task.y, task.reset)), 0.9)
    np.testing.assert_allclose(found.x, x, rtol=1e-9)
    np.testing.assert_allclose(found.y, y, rtol=1e-9)
    np.testing.assert_allclose(found.truth, 10 * y, rtol=1e-9)
    assert np.abs(found.x[200:].std(0) - 1).max() < 0.2


def test_an_episode_that_starts_forgets_the_rewards_of_the_last():
    """A planted fault: without resets the rewards come out otherwise."""
    task = given()
    _, found = seen(ow.Normalised(task, None, ow.ReturnScale(0.9)))
    _, other = seen(
        ow.Normalised(eqx.tree_at(lambda t: t.reset, task, jnp.zeros(STEPS, bool)), None, ow.ReturnScale(0.9))
    )
    np.testing.assert_array_equal(found.x, task.x)
    assert float(jnp.abs(found.y - other.y).max()) > 1e-3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_passed_on_and_stays_in_no_moment(bad):
    """The rows after it are as if it had not been."""
    task = given()
    x, y = np.asarray(task.x).copy(), np.asarray(task.y).copy()
    x[50, 1] = y[60] = bad
    _, found = seen(ow.Normalised(Given(jnp.asarray(x), jnp.asarray(y), task.reset), rewards=ow.ReturnScale(0.9)))
    assert not np.isfinite(found.x[50, 1])
    assert not np.isfinite(found.y[60])
    rest = np.delete(np.arange(STEPS), [50, 60])
    assert np.isfinite(found.x[rest]).all()
    assert np.isfinite(found.y[rest]).all()
    _, clean = seen(ow.Normalised(task, rewards=ow.ReturnScale(0.9)))
    np.testing.assert_array_equal(found.x[:50], clean.x[:50])
    np.testing.assert_allclose(found.x[51:], clean.x[51:], atol=0.2)
    np.testing.assert_allclose(found.y[70:], clean.y[70:], rtol=0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_moments_of_a_cell_survive_a_value_that_is_no_number(bad, key):
    moments = ow.Moments(rate=0.9, prior=1)
    state = moments.update(moments.init(jnp.zeros(2)), jnp.asarray([1.0, 2.0]))
    after = moments.update(state, jnp.asarray([bad, 3.0]))
    assert float(after.mean[0]) == float(state.mean[0])
    assert float(after.variance[0]) == float(state.variance[0])
    assert float(after.mean[1]) > float(state.mean[1])
    assert not np.isfinite(moments(after, jnp.asarray([bad, 3.0]))[0])


def test_what_does_not_fit_is_refused(key):
    with pytest.raises(ValueError, match=r"ReturnScale: discount must be in \[0, 1\), got 1.0"):
        ow.ReturnScale(1.0)
    images = np.full((4, 8, 8), 255, np.uint8)
    task = ow.Normalised(ow.SequentialDigits(images, np.zeros(4, int), 2))
    with pytest.raises(TypeError, match="Normalised takes a task of steps, SequentialDigits emits Sequence"):
        task.emit(task.init(key))
    for rate in (1.0, 1.1, -0.1):
        with pytest.raises(ValueError, match=r"Moments: rate must be in \[0, 1\)"):
            ow.Moments(rate=rate)
