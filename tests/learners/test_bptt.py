"""Backpropagation through time: how far back a window lets a gradient go."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from onward.learners.bptt import sequence_loss

pytestmark = pytest.mark.usefixtures("compile_fast")
STEPS = 5


@pytest.mark.parametrize("window", [None, 1, 3, STEPS, STEPS + 2])
def test_inputs_before_the_window_have_no_gradient_and_those_in_it_have_one(window, key):
    model = ow.Model(ow.GRU(2, 3, key=key), ow.Linear(3))
    model = eqx.tree_at(lambda m: m.head.weight, model, jnp.asarray([1.0, -2.0, 3.0]))
    xs = jax.random.normal(key, (STEPS, 2, 2))
    example = ow.Sequence(xs, jnp.ones((1, 2)), jnp.ones((1, 2)))
    loss = lambda xs: sequence_loss(model, model.cell.init().stats, example._replace(xs=xs), window=window)[0]
    size = np.abs(jax.grad(loss)(xs)).max((1, 2))
    reached = min(window or STEPS, STEPS)
    assert (size > 0).tolist() == [False] * (STEPS - reached) + [True] * reached
    plain = sequence_loss(model, model.cell.init().stats, example)[0]
    np.testing.assert_allclose(loss(xs), plain, rtol=1e-6)  # a window changes the gradient, not the loss
