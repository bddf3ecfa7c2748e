"""A cell whose head sees the observation: exact wherever its cell is."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward import verify as v
from onward.credit.base import AbstractCredit, Kind
from onward.rows.stream import Inside
from onward.verify.claims import random_streams
from onward.verify.gradients import quick

pytestmark = pytest.mark.usefixtures("compile_fast")


def _columns(key):
    return ow.Columns(ow.LSTMGates(), 3, 4, key=key, spread=0.7)


def _over(cell, carry):
    """Skip over a cell that is under way."""
    return ow.Skip(cell), ow.Carry((jnp.zeros(cell.inputs), carry.hidden), carry.stats)


CELLS = {
    "columns": lambda key: _over(_columns(key), _columns(key).init()),
    "grown cascade": lambda key: _over(*v.matrix.cascade(ow.GRUGates(), 2, key=key)),
}


def _error(cell, carry, rule, key, steps=6):
    """The error of the rule's gradient to that of backpropagation through time, in float64, with resets."""
    with jax.enable_x64(True):
        cell, carry = v.in_float64(cell), v.in_float64(carry)
        data = random_streams(cell, steps, 1, key)
        arguments = (cell, carry, data.xs[0], data.starts[0], data.cotangents[0])
        found = quick(lambda c, *a: v.stepwise_gradient(c, rule, *a, key=key))(*arguments)
        wanted = quick(v.reference_gradient)(*arguments)
        return v.compare(found, wanted).relative_error


@pytest.mark.parametrize("name", ["grown cascade", pytest.param("columns", marks=pytest.mark.slow)])
def test_columnwise_is_exact(name, key):
    assert _error(*CELLS[name](key), ow.Columnwise(), key) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("name", CELLS)
def test_columnwise_passes_the_whole_check(name, streams, key):
    """Finite differences too."""
    cell, carry = CELLS[name](key)
    row = v.verify(cell, ow.Columnwise(), steps=20, streams=streams, carry=carry)
    assert row.ok, row


@pytest.mark.parametrize("rule", [ow.RTRL(), Inside(ow.RTRL())], ids=["RTRL", "inside"])
def test_over_a_dense_cell(rule, key):
    cell = ow.Skip(ow.GRU(3, 4, key=key))
    assert _error(cell, cell.init(), rule, key) < 1e-12


@pytest.mark.parametrize("rule", [pytest.param(ow.SnAp(1), marks=pytest.mark.slow), ow.RFLO()], ids=v.name_of)
def test_a_biased_rule_inside_is_what_it_is_without(rule, key):
    """The gradient of the cell alone, for the cotangents that fall on its own features."""
    inner = ow.GRU(3, 4, key=key)
    cell = ow.Skip(inner)
    with jax.enable_x64(True):
        wide, narrow = v.in_float64(cell), v.in_float64(inner)
        data = random_streams(wide, 6, 1, key)
        xs, starts, cotangents = data.xs[0], data.starts[0], data.cotangents[0]
        run = lambda c, r, on: quick(lambda c: v.stepwise_gradient(c, r, c.init(), xs, starts, on, key=key))(c)
        found, wanted = run(wide, Inside(rule), cotangents), run(narrow, rule, cotangents[:, 3:])
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    assert Inside(rule).claim(cell, 6) == rule.claim(inner, 6) == "biased"
    assert Inside(ow.RTRL()).claim(cell, 6) == "exact"


class Shifted(AbstractCredit):
    """A planted fault: the cotangent on the observation is taken for that on a state."""

    kind: ClassVar[Kind] = "exact"

    def on(self, cell):
        return ow.Columnwise().on(cell)

    def pull(self, cell, state, cotangent):
        x, states = cotangent
        return ow.Columnwise().pull(cell, state, (x, (states[0] + jnp.sum(x), *states[1:])))


def test_a_cotangent_in_the_wrong_place_is_caught(key):
    assert _error(*CELLS["columns"](key), Shifted(), key) > 1e-3


def test_features_are_the_observation_then_the_cell_s(key):
    inner = ow.GRU(3, 4, key=key)
    cell, carry, plain = ow.Skip(inner), ow.Skip(inner).init(), inner.init()
    np.testing.assert_array_equal(cell.features(carry), np.zeros(7))
    for x in jax.random.normal(key, (5, 3)):
        carry, plain = cell(carry, x), inner(plain, x)
        np.testing.assert_array_equal(cell.features(carry), jnp.concatenate([x, inner.features(plain)]))
    assert (cell.inputs, cell.feature_count) == (3, 7)


def test_only_the_cell_is_trainable(key):
    cell, _ = v.matrix.cascade(ow.GRUGates(), 2, key=key)
    assert jax.tree.leaves(ow.Skip(cell).trainable()) == jax.tree.leaves(cell.trainable())
    rule, skip = ow.Columnwise(), ow.Skip(cell)
    state = rule.init(skip, jnp.ones(3))
    carry, state = rule.advance(skip, skip.init(), jnp.ones(3), state)
    gradient = rule.pull(skip, state, jax.tree.map(jnp.ones_like, carry.hidden))
    assert jax.tree.structure(gradient) == jax.tree.structure(eqx.filter(skip, skip.trainable()))


def test_a_cascade_grows_inside(key):
    """The observation and the old features stay where they are, and the prediction is that of before."""
    learner = ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(0.1))
    model = ow.Model(ow.Skip(ow.Cascade(_columns(key))), ow.Linear(7))
    steps = [ow.Step(x, x.sum(), jnp.ones(()), jnp.asarray(False), 0.0) for x in jax.random.normal(key, (12, 3))]
    state, step = learner.init(model, steps[0], key=key), jax.jit(learner.step)
    for example in steps[:8]:
        state, _ = step(state, example)
    grown = learner.grow(state, steps[0])
    before, after = (s.model.features(s.carry) for s in (state, grown))
    np.testing.assert_array_equal(after, jnp.concatenate([before, jnp.zeros(4)]))
    assert float(jnp.abs(before).min()) > 0
    np.testing.assert_allclose(grown.model.head(after), state.model.head(before), rtol=1e-6)
    step = jax.jit(learner.step)
    for example in steps[8:]:
        grown, info = step(grown, example)
    assert np.isfinite(info.loss)
    assert grown.model.cell.inputs == 3
    assert not np.array_equal(grown.model.head.weight[7:], np.zeros(4))


def test_what_is_refused(key):
    dense = ow.Skip(ow.GRU(3, 4, key=key))
    with pytest.raises(TypeError, match=r"got Skip\(Dense\); use RTRL"):
        ow.Columnwise().init(dense, jnp.ones(3))
    with pytest.raises(TypeError, match=r"only a Cascade grows, got Skip\(Dense\)"):
        dense.grow(dense.init(), key=key)
    with pytest.raises(TypeError, match=r"only a Cascade grows, got Skip\(Columns\)"):
        ow.Skip(_columns(key)).grow(ow.Skip(_columns(key)).init(), key=key)
