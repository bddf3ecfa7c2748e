"""What units carry back by themselves, and shifts of one length."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.verify import targets as vt
from onward.verify.gradients import quick

SGD = optax.sgd(1.0)
INPUTS, UNITS = vt.INPUTS, vt.UNITS


def sweep(inverse, model, example, key, weights=None):
    return vt.sweep(ow.TPTT(inverse, SGD, inverse_steps=0), model, example, key, weights, keep=True)


@pytest.mark.parametrize("gates", [ow.MinGRUGates, ow.LRUGates, ow.LSTMGates, ow.GRUGates], ids=lambda g: g.__name__)
def test_columns_need_no_inverse_of_their_own(gates, key):
    """Exact: TPTT of columns through their own memory is BPTT, and nothing was learned for it."""
    with jax.enable_x64(True):
        model = vt.small(lambda k: ow.Columns(gates(), INPUTS, UNITS, key=k, spread=0.8))
        example = vt.batch(6, 3, 2)
        found = sweep(ow.MemoryInverse(), model, example, key).gradient
        truth = vt.bptt_gradient(model, example)[1]
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True):
            assert np.abs(b).max() > 0
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14)
        # The planted fault: what columns hold is not what they were told.
        wrong = sweep(ow.IdentityInverse(), model, example, key).gradient
    assert (
        max(np.abs(np.asarray(a - b)).max() for a, b in zip(*map(jax.tree.leaves, (wrong, truth)), strict=True)) > 1e-4
    )


@pytest.mark.parametrize("kind", [ow.Elman, ow.GRU, ow.LSTM], ids=lambda k: k.__name__)
def test_the_memory_of_dense_units_is_feedback_without_weights(kind, key):
    with jax.enable_x64(True):
        model, example = vt.small(lambda k: kind(INPUTS, UNITS, key=k)), vt.batch(5, 3)
        found = sweep(ow.MemoryInverse(), model, example, key)
        nothing = jnp.zeros_like(model.cell.recurrent)
        same = sweep(ow.FeedbackInverse(), model, example, key, nothing)
        for a, b in zip(jax.tree.leaves(found.shifts), jax.tree.leaves(same.shifts), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-16)
    assert any(np.abs(d[:-1]).max() > 0 for d in jax.tree.leaves(found.shifts)) == (kind is not ow.Elman)


def lengths(tree):
    return np.sqrt(sum(np.sum(np.square(np.asarray(a)), -1) for a in jax.tree.leaves(tree)))


def test_steady_shifts_keep_their_length_and_the_others_direction(key):
    with jax.enable_x64(True):
        model, example = vt.small(lambda k: ow.LSTM(INPUTS, UNITS, key=k)), vt.batch(6, 3)
        weights = model.cell.recurrent
        steady = sweep(ow.SteadyInverse(ow.FeedbackInverse()), model, example, key, weights).shifts
        plain = sweep(ow.FeedbackInverse(), model, example, key, weights).shifts
    steady, plain = jax.tree.map(np.asarray, (steady, plain))
    np.testing.assert_allclose(lengths(steady), lengths(steady)[-1:] * np.ones((6, 1)), rtol=1e-12)
    assert lengths(plain)[0].max() < 0.5 * lengths(plain)[-1].min()
    # Shifts are linear in d, row by row: the direction is that of the gradient all the way.
    for a, b in zip(jax.tree.leaves(steady), jax.tree.leaves(plain), strict=True):
        scale = (lengths(steady) / lengths(plain))[..., None]
        np.testing.assert_allclose(a, scale * b, rtol=1e-9, atol=1e-14)


def test_a_shift_that_is_tiny_or_nothing_stays_finite(key):
    part, cell = ow.SteadyInverse(ow.IdentityInverse()), ow.Elman(INPUTS, UNITS, key=key)
    back = quick(lambda d: part.shift((), cell, None, (), (d,))[0])
    for size in (0.0, 1e-30, 1e-37, 1e30):
        d = jnp.full(UNITS, size, jnp.float32)
        np.testing.assert_allclose(back(d), d, rtol=1e-5)
    gone = ow.SteadyInverse(ow.MemoryInverse())  # an Elman layer carries nothing by itself
    example = vt.batch(4, 2)
    swept = sweep(gone, vt.small(lambda k: ow.Elman(INPUTS, UNITS, key=k)), example, key)
    assert not np.asarray(jax.tree.leaves(swept.shifts)[0][:-1]).any()


def test_what_an_inverse_does_not_fit_is_refused(key):
    stack = ow.Stack(ow.GRU(INPUTS, UNITS, key=key), ow.GRU(UNITS, UNITS, key=key))
    for inverse in (ow.MemoryInverse(), ow.SteadyInverse(ow.MemoryInverse())):
        with pytest.raises(TypeError, match=r"MemoryInverse fits a dense layer .*, or Columns, got Stack; Identity"):
            eqx.filter_eval_shape(lambda i=inverse: i.init(stack, key=key))
    with pytest.raises(TypeError, match="SteadyInverse: inverse is the class MemoryInverse, not a part made from it"):
        ow.SteadyInverse(ow.MemoryInverse)


def test_mirrored_feedback_makes_the_updates_of_the_layer(key):
    """V - U stays as it was, to rounding, and V itself does not; with a step of its own it moves on from there."""
    example = vt.batch(5, 3)
    with jax.enable_x64(True):
        model = vt.small(lambda k: ow.GRU(INPUTS, UNITS, key=k))
        mirrored = ow.FeedbackInverse(mirrored=True)
        for inverse in (mirrored, ow.SteadyInverse(mirrored), ow.FeedbackInverse()):
            learner = ow.TPTT(inverse, optax.adam(0.1), inverse_steps=0)
            start = quick(lambda m, lr=learner: lr.init(m, example, key=key))(model)
            after = quick(lambda s, lr=learner: lr.step(s, example)[0])(start)
            change = after.model.cell.recurrent - start.model.cell.recurrent
            assert np.abs(change).max() > 0.05
            follows = inverse != ow.FeedbackInverse()
            np.testing.assert_allclose(after.inverse - start.inverse, follows * np.asarray(change), atol=1e-14)
