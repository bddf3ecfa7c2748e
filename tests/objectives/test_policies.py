"""Distributions of actions against numpy, and at their extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onward.objectives import policies

LOGITS = jnp.asarray([1.0, -0.5, 0.3, -4.0])
# Means, then raw logarithms of deviations.
REAL = jnp.asarray([0.5, -1.0, 0.3, -2.0])


def moments():
    mean, raw = np.split(np.asarray(REAL), 2)
    return mean, np.exp(4 * np.tanh(raw / 4))


def draws(policy, continuous, count=20_000):
    return np.asarray(
        jax.vmap(lambda k: policies.sample(policy, continuous, key=k))(jax.random.split(jax.random.key(1), count))
    )


def test_choices_come_as_often_as_the_softmax_says():
    p = np.exp(LOGITS) / np.exp(LOGITS).sum()
    found = np.bincount(draws(LOGITS, False), minlength=4) / 20_000
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / 20_000)).all()
    for a in range(4):
        assert policies.log_prob(LOGITS, a, False) == pytest.approx(np.log(p[a]), rel=1e-5)
    assert policies.entropy(LOGITS, False) == pytest.approx(-np.sum(p * np.log(p)), rel=1e-5)


def test_real_numbers_are_normal():
    mean, deviation = moments()
    found = draws(REAL, True)
    assert found.shape == (20_000, 2)
    assert (np.abs(found.mean(0) - mean) < 5 * deviation / np.sqrt(20_000)).all()
    assert (np.abs(found.std(0) / deviation - 1) < 5 / np.sqrt(2 * 20_000)).all()
    z = (found[:50] - mean) / deviation
    density = -0.5 * z**2 - np.log(deviation) - 0.5 * np.log(2 * np.pi)
    log_prob = jax.vmap(lambda a: policies.log_prob(REAL, a, True))(found[:50])
    np.testing.assert_allclose(log_prob, density.sum(1), rtol=1e-4, atol=1e-5)
    assert policies.entropy(REAL, True) == pytest.approx(np.sum(np.log(deviation) + 0.5 * np.log(2 * np.pi * np.e)))


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_sure_policies_stay_finite(size):
    """A gradient of the logits is at most 1, and a deviation is bounded both ways."""
    for policy in (size * LOGITS, -size * LOGITS):
        for action in range(4):
            gradient = jax.grad(policies.log_prob)(policy, action, False)
            assert np.abs(gradient).max() <= 1
        assert np.isfinite(jax.grad(policies.entropy)(policy, False)).all()
        assert 0 <= policies.sample(policy, False, key=jax.random.key(0)) < 4
    for sign in (1, -1):
        policy = jnp.asarray([0.0, 0.0, sign * size, sign * size])
        action = policies.sample(policy, True, key=jax.random.key(0))
        assert np.isfinite(action).all()
        assert np.isfinite(jax.grad(policies.log_prob)(policy, action, True)).all()
        assert np.abs(action).max() < 5 * np.exp(4.0)


@pytest.mark.parametrize("policy", [jnp.full(3, jnp.nan), jnp.asarray([jnp.inf, 0.0, 0.0])])
def test_a_choice_is_always_one_that_there_is(policy):
    assert 0 <= policies.sample(policy, False, key=jax.random.key(0)) < 3
