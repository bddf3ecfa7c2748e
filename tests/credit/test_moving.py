"""Traces while the weights move: the correction against a replay with the weights of now, and to which order."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
import onward.verify as v
from onward.credit import correction
from onward.verify.gradients import quick

KINDS = {
    "GRU": ow.GRUGates(),
    "LSTM": ow.LSTMGates(),
    "Elman": ow.ElmanGates(),
    "minGRU": ow.MinGRUGates(),
    "eLSTM": ow.ELSTMGates(),
    "RTU": ow.RTUGates(),
    "RTU-inside": ow.RTUGates(recurrence="nonlinear"),
    "LRU": ow.LRUGates(),
}
STEPS = 12


def columns(gates, key, count=3):
    return v.in_float64(ow.Columns(gates, 2, count, key=key, spread=0.8))


def traces(cell, rule, weights, xs):
    """The state of `rule` after reading xs, the parameters at each step by `weights(t)`."""

    def step(loop, instant):
        carry, state = loop
        t, x = instant
        return rule.advance(weights(t), carry, x, state), None

    start = (cell.init(), rule.init(weights(0), xs[0]))
    return jax.lax.scan(step, start, (jnp.arange(len(xs)), xs))[0]


def influence(cell, rule, carry, state):
    """d hidden / d parameters as the rule has it, a cell-shaped tree with the hidden states in front."""
    flat, unravel = jax.flatten_util.ravel_pytree(carry.hidden)
    return jax.vmap(lambda one: rule.pull(cell, state, unravel(one)))(jnp.eye(flat.size))


def error(cell, rule, direction, size, xs):
    """Relative error of the influence of what walks along `direction`, against a replay with the last weights."""
    moved = lambda by: eqx.apply_updates(cell, jax.tree.map(lambda d: d * by, direction))
    walk = lambda t: moved(size * jnp.sin(0.7 * t) * t)
    end = walk(len(xs) - 1)
    found = influence(end, rule, *traces(cell, rule, walk, xs))
    plain = ow.RTRL()
    exact = influence(end, plain, *traces(end, plain, lambda t: end, xs))
    own = lambda tree: jax.tree.map(lambda a, d: a * (d != 0)[None], tree, direction)
    found, exact = own(found), own(exact)
    difference = jax.tree.map(jnp.subtract, found, exact)
    norm = lambda tree: jnp.sqrt(sum(jnp.sum(jnp.square(a)) for a in jax.tree.leaves(tree)))
    return norm(difference) / norm(exact)


def one_of_each_unit(cell, leaf, row):
    """A direction in which one parameter of every unit moves."""
    nothing = jax.tree.map(jnp.zeros_like, eqx.filter(cell, cell.trainable()))
    where = lambda c: getattr(c, leaf)
    shape = where(cell).shape
    moving = jnp.zeros((int(np.prod(shape[:-1])), shape[-1])).at[row].set(jnp.linspace(0.5, 1.0, shape[-1]))
    return eqx.tree_at(where, nothing, moving.reshape(shape))


def of_halved(cell, rule, directions, xs):
    """For each direction the error of a walk, and how it falls when the walk is halved: 2 for first order, 4 for second."""
    stacked = jax.tree.map(lambda *d: jnp.stack(d), *directions)
    sizes = jnp.asarray([2e-4, 1e-4])
    each = jax.vmap(lambda d: jax.vmap(lambda size: error(cell, rule, d, size, xs))(sizes))
    return [(float(small), float(large / small)) for large, small in quick(each)(stacked)]


@pytest.mark.parametrize("kind", KINDS)
def test_correction_is_of_second_order_where_one_parameter_of_a_unit_moves(kind, key):
    """For its own trace, of a weight, a bias and a recurrent weight of every kind of column; without it: first order."""
    with jax.enable_x64(True):
        cell = columns(KINDS[kind], key)
        xs = jax.random.normal(jax.random.fold_in(key, 1), (STEPS, 2))
        rows = [("weight", 0), ("weight", 1), ("bias", 0), ("bias", len(cell.bias) - 1)]
        if cell.recurrent is not None:
            rows += [("recurrent", 0), ("recurrent", len(cell.recurrent) - 1)]
        directions = [one_of_each_unit(cell, *row) for row in rows]
        plain = of_halved(cell, ow.Columnwise(), directions, xs)
        corrected = of_halved(cell, ow.Columnwise(diagonal_correction=True), directions, xs)
    for row, (far, first), (near, second) in zip(rows, plain, corrected, strict=True):
        if far < 1e-12:  # the trace does not depend on it at all: an input weight of a linear unit
            assert near < 1e-12, row
            continue
        assert 1.9 < first < 2.1, (row, first)
        assert near < 1e-12 or second > 3.8, (row, second)
        assert near < far / 20, row
    assert sum(far > 1e-12 for far, _ in plain) >= 2


def test_published_form_of_the_correction_is_of_first_order(key, monkeypatch):
    """A planted fault: W's recursion with its first and last term only, J W + the second derivative of one step."""
    whole = correction._twice

    def published(function, at, first, second):
        """Of the second derivative nothing that goes through the state."""
        still = jax.tree.map(jnp.zeros_like, first[1])
        slope, _ = whole(function, at, first, second)
        _, bent = whole(function, at, (first[0], still), second)
        return slope, bent

    monkeypatch.setattr(correction, "_twice", published)
    monkeypatch.setattr(correction, "lanes", lambda function, *fixed: functools.partial(function, *fixed))
    with jax.enable_x64(True):
        cell = columns(ow.RTUGates(), key)
        xs = jax.random.normal(jax.random.fold_in(key, 1), (STEPS, 2))
        direction = one_of_each_unit(cell, "bias", 0)
        [(_, ratio)] = of_halved(cell, ow.Columnwise(diagonal_correction=True), [direction], xs)
    assert ratio < 2.5


@pytest.mark.parametrize("kind", KINDS)
def test_both_rules_correct_alike(kind, key):
    """Columns by column and by the whole Jacobian, all weights moving: one correction. And less is left than without."""
    with jax.enable_x64(True):
        cell = columns(KINDS[kind], key)
        xs = jax.random.normal(jax.random.fold_in(key, 1), (STEPS, 2))
        direction = jax.tree.map(
            lambda a: jax.random.normal(jax.random.fold_in(key, a.size), a.shape), eqx.filter(cell, cell.trainable())
        )
        walk = lambda t: eqx.apply_updates(cell, jax.tree.map(lambda d: 1e-3 * t * d, direction))
        found = []
        for rule in (ow.Columnwise(diagonal_correction=True), ow.RTRL(diagonal_correction=True)):
            of = quick(lambda rule=rule: influence(cell, rule, *traces(cell, rule, walk, xs)))
            found.append(jax.tree.leaves(of()))
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_standing_weights_need_no_correction(key):
    """On any cell, warm or not, the gradient is then that of BPTT."""
    dense = ow.Dense(ow.LSTMGates(), 2, 3, key=key)
    with jax.enable_x64(True):
        stacked = ow.Stack(columns(ow.RTUGates(), key), ow.Columns(ow.GRUGates(), 6, 2, key=key, spread=0.8))
        single = columns(ow.GRUGates(), key)
        cascade = ow.Cascade(ow.Columns(ow.LSTMGates(), 2, 2, key=key, spread=0.5))
        cascade, _ = cascade.grow(cascade.init(), key=key)
        xs = jax.random.normal(jax.random.fold_in(key, 1), (STEPS, 2))
        starts = jnp.zeros(STEPS, bool).at[5].set(True)
        for cell, rule in [
            (single, ow.Columnwise(diagonal_correction=True)),
            (cascade, ow.Columnwise(diagonal_correction=True)),
            (stacked, ow.RTRL(diagonal_correction=True)),
            (dense, ow.RTRL(diagonal_correction=True)),
        ]:
            cell = v.in_float64(cell)
            warm = cell(cell(cell.init(), xs[0]), xs[1])
            cotangents = jax.random.normal(key, (STEPS, cell.feature_count))
            found = quick(v.stepwise_gradient)(cell, rule, warm, xs, starts, cotangents)
            exact = quick(v.reference_gradient)(cell, warm, xs, starts, cotangents)
            assert v.compare(found, exact).relative_error < 1e-9


def test_correction_of_a_stack_is_refused_by_name(key):
    cell = ow.Stack(ow.Columns(ow.GRUGates(), 2, 3, key=key), ow.Columns(ow.GRUGates(), 3, 2, key=key))
    with pytest.raises(TypeError, match=r"RTRL\(diagonal_correction=True\)"):
        ow.Columnwise(diagonal_correction=True).init(cell, jnp.zeros(2))
