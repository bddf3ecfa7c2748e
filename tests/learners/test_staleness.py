"""Staleness of traces: against derivatives of a replay that nobody carried along."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import onward as ow
import onward.verify as v

STEPS = 25


def learner_of(rule, size=0.05):
    return ow.Online(rule, ow.Supervised(), optax.sgd(size))


def stream(key, resets=(0,)):
    a, b = jax.random.split(key)
    reset = jnp.zeros(STEPS, bool).at[jnp.asarray(resets)].set(True)
    return ow.Step(jax.random.normal(a, (STEPS, 2)), jax.random.normal(b, (STEPS,)), jnp.ones(STEPS), reset)


def learned(learner, model, examples, key):
    """States before and after: all steps, and of the last one the reading only."""
    first = jax.tree.map(lambda a: a[0], examples)
    before = learner.init(model, first, key=key)
    most, last = (jax.tree.map(lambda a, i=i: a[i], examples) for i in (slice(None, -1), -1))
    state, _ = jax.lax.scan(learner.step, before, most)
    return before, learner.read(state, last.x, last.reset)[0]


def replayed(model, examples):
    """D hidden / d parameters by backpropagation through the episode that runs now, in numpy."""
    cell = model.cell
    start = int(np.flatnonzero(np.asarray(examples.reset))[-1])
    theta, unravel = ravel_pytree(cell)

    def hidden(theta):
        carry = unravel(theta).init()
        for x in examples.x[start:]:
            carry = unravel(theta)(carry, x)
        return ravel_pytree(carry.hidden)[0]

    return np.asarray(jax.jacrev(hidden)(theta))


@pytest.mark.parametrize("resets", [(0,), (0, 11)])
@pytest.mark.parametrize("dense", [False, True], ids=["columns", "dense"])
def test_staleness_is_the_distance_to_a_replay_with_the_weights_of_now(dense, resets, key):
    with jax.enable_x64(True):
        make = ow.Dense if dense else ow.Columns
        model = v.in_float64(ow.Model(make(ow.GRUGates(), 2, 3, key=key, spread=0.6), ow.Linear(3)))
        learner = learner_of(ow.RTRL() if dense else ow.Columnwise())
        examples = stream(key, resets)
        before, after = learned(learner, model, examples, key)
        found = ow.staleness(learner, before, after, examples)
        exact = replayed(after.model, examples)
        flat, unravel = ravel_pytree(after.carry.hidden)
        rows = [learner.credit.pull(after.model.cell, after.credit, unravel(one)) for one in np.eye(flat.size)]
        carried = np.stack([np.asarray(ravel_pytree(row)[0]) for row in rows])
    expected = np.linalg.norm(carried - exact) / np.linalg.norm(exact)
    assert expected > 1e-3
    np.testing.assert_allclose(found.whole, expected, rtol=1e-9)
    per_leaf = [float(a) for a in jax.tree.leaves(found.leaves)]
    ends = np.cumsum([a.size for a in jax.tree.leaves(after.model.cell)])[:-1]
    gone, size = (np.split(m, ends, axis=1) for m in (carried - exact, exact))
    np.testing.assert_allclose(
        per_leaf, [np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(gone, size, strict=True)], rtol=1e-9
    )


def test_standing_weights_have_fresh_traces_and_larger_steps_staler_ones(key):
    model = ow.Model(ow.Columns(ow.LSTMGates(), 2, 3, key=key, spread=0.6), ow.Linear(3))
    examples = stream(key)
    found: list[float] = []
    for size in (0.0, 0.1, 0.5):
        learner = learner_of(ow.Columnwise(), size)
        found.append(float(ow.staleness(learner, *learned(learner, model, examples, key), examples).whole))
    assert found[0] < 1e-6
    assert 1e-3 < found[1] < 0.5 * found[2]


def test_a_replay_with_the_weights_of_then_would_be_noticed(key, monkeypatch):
    """A planted fault."""
    model = ow.Model(ow.Columns(ow.GRUGates(), 2, 3, key=key, spread=0.6), ow.Linear(3))
    learner, examples = learner_of(ow.Columnwise()), stream(key)
    before, after = learned(learner, model, examples, key)
    honest = float(ow.staleness(learner, before, after, examples).whole)
    of_then = float(ow.staleness(learner, before, after._replace(model=before.model), examples).whole)
    assert abs(of_then - honest) > 1e-3


def test_states_that_do_not_belong_together_are_refused(key):
    model = ow.Model(ow.Cascade(ow.Columns(ow.GRUGates(), 2, 3, key=key)), ow.Linear(3))
    learner, examples = learner_of(ow.Columnwise()), stream(key)
    before, after = learned(learner, model, examples, key)
    first = jax.tree.map(lambda a: a[0], examples)
    with pytest.raises(ValueError, match="25 observations were read between the two states"):
        ow.staleness(learner, before, after, jax.tree.map(lambda a: a[1:], examples))
    with pytest.raises(ValueError, match="has grown"):
        ow.staleness(learner, before, learner.grow(after, first), examples)
    with pytest.raises(TypeError, match="one stream, got with streams"):
        ow.staleness(ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(0.1), streams=2), before, after, examples)
    with pytest.raises(TypeError, match="got Late"):
        ow.staleness(ow.Late(learner, 2), before, after, examples)
