"""How the gradient goes back: against products of explicit Jacobians. And answers that are counted."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.lab.metrics import LagErrors, Paths
from onward.learners.bptt import BPTTState
from onward.learners.tptt import TPTTState
from onward.verify import targets as vt
from onward.verify.gradients import quick

STEPS, ROWS = 5, 2
measure = quick(lambda paths, state: paths(state))


def state_of(model, inverse=None):
    stats, key, zero = model.cell.init().stats, jax.random.key(0), jnp.zeros((), jnp.int32)
    return (
        BPTTState(model, stats, None, key, zero)
        if inverse is None
        else TPTTState(model, stats, inverse, None, None, key, zero)
    )


def jacobians(model, example):
    """Of each row dE/dh_T, and the Jacobian of each step, from first to last."""
    cell, start = model.cell, model.cell.init()
    flat = lambda h: jnp.concatenate(h)
    for row in range(ROWS):
        carry, found = start, []
        for t in range(STEPS):
            step = lambda h, x=example.xs[t, row], s=carry.stats: cell(ow.Carry(h, s), x).hidden
            jac = jax.jacobian(step)(carry.hidden)
            found.append(np.block([[np.asarray(b) for b in line] for line in jac]))
            carry = cell(carry, example.xs[t, row])
        loss = lambda h, c=carry, y=example.y[0, row]: (
            -model.head.log_prob(model.head(cell.features(ow.Carry(h, c.stats))), y)
        )
        yield np.asarray(flat(jax.grad(loss)(carry.hidden))), found


def by_hand(model, example):
    """`reach` and `others` (time,), all rows as one vector."""
    whole, own = np.zeros((2, STEPS, ROWS, 0)).tolist()
    for g, steps in jacobians(model, example):
        s = g
        for t in reversed(range(STEPS)):
            whole[t].append(g)
            own[t].append(s)
            g, s = steps[t].T @ g, same_unit(model.cell, steps[t]).T @ s
    g, s = (np.concatenate([np.stack(r[-ROWS:], 0).reshape(1, -1) for r in x]) for x in (whole, own))
    size = np.linalg.norm(g, axis=1)
    return size / size[-1], 1 - (g * s).sum(1) / size**2


def same_unit(cell, jacobian):
    """A step's Jacobian with nothing between different units; states of one unit stay together."""
    units = cell.bias.shape[-1]
    return jacobian * np.tile(np.eye(units), (len(jacobian) // units,) * 2)


KINDS = {
    "Elman": lambda k: ow.Elman(vt.INPUTS, vt.UNITS, key=k),
    "GRU": lambda k: ow.GRU(vt.INPUTS, vt.UNITS, key=k),
    "LSTM": lambda k: ow.LSTM(vt.INPUTS, vt.UNITS, key=k),
    "columns": lambda k: ow.Columns(ow.MinGRUGates(), vt.INPUTS, vt.UNITS, key=k, spread=0.8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_paths_are_those_of_explicit_jacobians(kind):
    with jax.enable_x64(True):
        model, example = vt.small(KINDS[kind]), vt.batch(STEPS, ROWS)
        found = measure(Paths(None, example), state_of(model))
        reach, others = by_hand(model, example)
        np.testing.assert_allclose(found["reach"], reach, rtol=1e-9)
        np.testing.assert_allclose(found["others"], others, atol=1e-9)
    assert set(found) == {"reach", "others"}
    if kind == "columns":
        assert abs(others).max() < 1e-12
    else:
        assert abs(others[0]) > 0.05


def test_targets_beside_the_gradient():
    with jax.enable_x64(True):
        model, example = vt.small(KINDS["GRU"]), vt.batch(STEPS, ROWS)
        learner = lambda inverse: ow.TPTT(inverse, optax.sgd(1.0), inverse_steps=0)
        exact = measure(Paths(learner(ow.FeedbackInverse()), example), state_of(model, model.cell.recurrent))
        memory = measure(Paths(learner(ow.MemoryInverse()), example), state_of(model, ()))
        exact, memory = jax.tree.map(np.asarray, (exact, memory))
    for key in ("shift_cosine", "shift_ratio", "update_cosine", "update_ratio"):
        np.testing.assert_allclose(exact[key], 1, rtol=1e-9)
    np.testing.assert_allclose(exact["others_cosine"][:-1], 1, rtol=1e-9)
    assert exact["others_cosine"][-1] == 0, "nothing has gone through anything at the last step"
    assert memory["update_cosine"] < 0.999
    assert memory["shift_cosine"][0] < 0.999
    assert memory["shift_cosine"][-1] == pytest.approx(1)


def test_where_there_is_no_gradient_nothing_is_undefined():
    model = ow.Model(ow.Elman(vt.INPUTS, 4, key=jax.random.key(0)), ow.Categorical(4, vt.CLASSES))
    example = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32 if a.dtype == float else None), vt.batch(4, 2))
    found = measure(Paths(None, example), state_of(model))
    assert not np.asarray(found["reach"]).any()
    assert np.isfinite(found["others"]).all()


def test_a_gradient_that_vanishes_keeps_its_direction():
    """float32, and a layer from which 1e-30 of the gradient comes back: cosines do not fall to 0."""
    model = vt.small(lambda k: ow.Elman(vt.INPUTS, vt.UNITS, key=k))
    model = jax.tree.map(lambda a: jnp.asarray(0.02 * a, jnp.float32), model)
    example = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32 if a.dtype == float else None), vt.batch(20, 3))
    learner = ow.TPTT(ow.FeedbackInverse(), optax.sgd(1.0), inverse_steps=0)
    found = measure(Paths(learner, example), state_of(model, model.cell.recurrent))
    assert 0 < found["reach"][0] < 1e-25
    np.testing.assert_allclose(found["shift_cosine"], 1, rtol=1e-5)
    np.testing.assert_allclose(found["shift_ratio"], 1, rtol=1e-4)


def test_wrong_answers_are_counted():
    """A head that always says XX is wrong for three classes of four; counted in blocks as in one."""
    task = ow.TemporalOrder(12, batch=3)
    model = ow.Model(ow.Elman(6, 4, key=jax.random.key(0)), ow.Categorical(4, 4))
    wrong = [measure(LagErrors(task, 600, block=b), state_of(model)) for b in (600, 250)]
    held = task.held_out(600, 1)
    for found in wrong:
        assert float(found["wrong"]) == pytest.approx(float((held.y != 0).mean()), abs=1e-6)
        assert float(found["held_out"]) == pytest.approx(np.log(4), rel=1e-5)
    adding = ow.Model(ow.Elman(2, 4, key=jax.random.key(0)), ow.Linear(4))
    found = measure(LagErrors(ow.Adding(12), 600), state_of(adding))
    y = ow.Adding(12).held_out(600, 1).y
    assert float(found["wrong"]) == pytest.approx(float((y**2 > 0.04).mean()), abs=1e-6)
