"""Whether intervals hold what they say, from errors whose law is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onward.rows.stream.density import Density, interval


def held(errors, rows, start=None):
    """For each of the last rows whether its error lay in the 90 % interval that was said before, and its width."""

    def step(one, error):
        spread = one.around(jnp.zeros(2), jnp.zeros(()), jnp.ones(()), False, jnp.nan)
        return one.learn(jnp.zeros(2), error), spread

    errors = np.asarray(errors, np.float32)
    spread = np.asarray(jax.jit(lambda e: jax.lax.scan(step, start or Density.start(2, 3), e)[1])(errors))
    ends = interval(spread[-rows:], np.zeros(rows), 0.9, 512)
    late = errors[-rows:]
    return (ends[:, 0] <= late) & (late <= ends[:, 1]), ends[:, 1] - ends[:, 0]


@pytest.mark.parametrize("size", [0.01, 0.3, 1.0, 30.0])
def test_an_interval_holds_its_share_whatever_the_size_of_errors(size):
    """In units of the target's usual change, from row 60 on: of a normal law 3.29 deviations wide."""
    errors = size * np.random.default_rng(0).normal(size=3000)
    for rows, slack in ((slice(60, 300), 0.06), (slice(300, 1500), 0.03), (slice(1500, 3000), 0.02)):
        inside, width = held(errors[: rows.stop], rows.stop - rows.start)
        assert abs(inside.mean() - 0.9) < slack, (rows, inside.mean())
        assert 0.9 < width.mean() / (3.29 * size) < 1.15


@pytest.mark.parametrize(("factor", "slack"), [(0.2, 0.04), (5.0, 0.04), (0.05, 0.1), (20.0, 0.1)])
def test_an_interval_follows_errors_that_shrink_or_grow(factor, slack):
    """From 1,000 rows after they have; the mixture takes longer to forget a change of 20 times."""
    rng = np.random.default_rng(1)
    errors = np.concatenate([rng.normal(size=2000), factor * rng.normal(size=2000)])
    inside, width = held(errors, 1000)
    assert abs(inside.mean() - 0.9) < slack  # 1,000 rows say it to 0.01
    assert 0.75 < width.mean() / (3.29 * factor) < 1.3


def test_errors_in_the_units_of_the_usual_change_alone_would_be_too_wide_for_long():
    """The planted fault: a usual size that stays what it was at the start."""
    errors = 0.03 * np.random.default_rng(0).normal(size=1000)

    class Fixed(Density):
        def learn(self, features, residual):
            after = super().learn(features, residual)
            return Fixed(after.head, after.optimiser, self.usual, self.seen)

    right = held(errors, 800)[1].mean()
    assert held(errors, 800, Fixed(*Density.start(2, 3)))[1].mean() > 2 * right


def test_what_is_not_known_changes_nothing_and_one_outlier_little():
    one = Density.start(2, 3)
    for error in np.random.default_rng(2).normal(size=60):
        one = one.learn(jnp.zeros(2), jnp.float32(error))
    after = one.learn(jnp.zeros(2), jnp.float32(np.nan))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    far = one.learn(jnp.zeros(2), jnp.float32(1e9))
    assert 1 < float(far.usual / one.usual) < 1.3
    assert np.isfinite(jax.tree.leaves(far.head)[0]).all()
