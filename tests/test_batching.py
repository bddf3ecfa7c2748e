"""The batching helpers give what plain JAX gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onward.batching import lanes, pointwise
from onward.trees import depends, select, when


def _kernel(weight, shared, state):
    rows = [weight[i] * shared[i] for i in range(weight.shape[0])]
    return {"sum": sum(rows) + state, "outer": weight * jnp.tanh(state)[None]}


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize(("runs", "columns"), [(1, 4), (5, 4), (40, 4), (5, 40), (40, 40)])
def test_lanes_equals_vmap(runs, columns, axis, key):
    weight = jax.random.normal(key, (runs, 3, columns))
    shared, state = jax.random.normal(key, (runs, 3, 1)), jax.random.normal(key, (runs, columns))
    expected = jax.vmap(_kernel)(weight, shared, state)
    arguments = [jnp.moveaxis(a, 0, axis) for a in (weight, shared, state)]
    found = jax.jit(jax.vmap(lanes(_kernel), in_axes=axis, out_axes=0))(*arguments)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)  # float32, other order of sums
    once = lanes(_kernel)(weight[0], shared[0], state[0])
    np.testing.assert_allclose(once["sum"], expected["sum"][0], rtol=1e-6)


@pytest.mark.parametrize("runs", [3, 40])
def test_lanes_with_unbatched_arguments_and_nested(runs, key):
    weight, shared, state = jax.random.normal(key, (2, runs, 3, 4)), jnp.ones((3, 1)), jnp.arange(4.0)
    inner = lambda w: lanes(_kernel)(w, shared, state)["sum"]
    plain = lambda w: _kernel(w, shared, state)["sum"]
    np.testing.assert_allclose(jax.vmap(jax.vmap(inner))(weight), jax.vmap(jax.vmap(plain))(weight), rtol=1e-6)


def test_lanes_can_be_differentiated_in_both_modes(key):
    f = lambda w: jnp.sum(lanes(_kernel)(w, jnp.ones((3, 1)), jnp.arange(4.0))["sum"] ** 2)
    g = lambda w: jnp.sum(_kernel(w, jnp.ones((3, 1)), jnp.arange(4.0))["sum"] ** 2)
    w = jax.random.normal(key, (3, 4))
    np.testing.assert_allclose(jax.grad(f)(w), jax.grad(g)(w), rtol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(f)(w), jax.jacfwd(g)(w), rtol=1e-6)
    batch = jnp.stack([w, 2 * w])
    np.testing.assert_allclose(jax.vmap(jax.grad(f))(batch), jax.vmap(jax.grad(g))(batch), rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("runs", [1, 5, 40])
def test_pointwise(shape, runs, key):
    f = lambda a, s, b: a * s + b
    a = jax.random.normal(key, (runs, *shape))
    s = jnp.arange(runs) * 1.0
    found = jax.vmap(pointwise(f), in_axes=(-1, 0, 0), out_axes=-1)(jnp.moveaxis(a, 0, -1), s, a)
    expected = a * s.reshape(-1, *[1] * len(shape)) + a
    np.testing.assert_allclose(jnp.moveaxis(found, -1, 0), expected, rtol=1e-6)


def test_select_and_when_choose_per_run():
    choose = jnp.array([True, False, True])
    a, b = jnp.ones((3, 2)), jnp.zeros((3, 2))
    assert jax.vmap(select)(choose, a, b).tolist() == [[1, 1], [0, 0], [1, 1]]
    double = jax.vmap(lambda c, x: when(c, lambda o: jax.tree.map(lambda v: 2 * v, o), x))
    assert double(choose, a).tolist() == [[2, 2], [1, 1], [2, 2]]
    assert double(jnp.zeros(3, bool), a).tolist() == a.tolist()
    assert when(jnp.asarray(True), lambda o: o + 1, jnp.array(1)) == 2


def test_depends_reads_the_program():
    f = lambda a, b, c: jnp.sin(a) * jax.nn.sigmoid(c)
    assert depends(f, 1.0, 1.0, 1.0) == (True, False, True)
    assert depends(lambda a, b: b * 0 + a, 1.0, 1.0) == (True, True)
