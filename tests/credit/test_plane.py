"""One complex trace for the weights of both inputs of a unit whose states are one complex number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
import onward.verify as v
from onward.cells.rtu import cos_sin


class TwoTraces(ow.RTUGates):
    """The same units, with a trace for each weight."""

    in_a_plane = False


class TwoTracesLRU(ow.LRUGates):
    in_a_plane = False


class Claims(ow.RTUGates):
    """A recurrence that is not linear, and says that it is."""

    in_a_plane = True


def gradient(gates, key):
    with jax.enable_x64(True):
        cell = v.in_float64(ow.Columns(gates, 3, 5, key=key, spread=0.7))
        xs, cotangents = (jax.random.normal(jax.random.key(i), (40, n), jnp.float64) for i, n in ((1, 3), (2, 10)))
        starts = jnp.zeros(40, bool).at[25].set(True)
        found = v.stepwise_gradient(cell, ow.Columnwise(), cell.init(), xs, starts, cotangents, key=key)
        return found.weight, found.bias


@pytest.mark.parametrize(("one", "two"), [(ow.RTUGates, TwoTraces), (ow.LRUGates, TwoTracesLRU)])
def test_one_complex_trace_gives_the_gradient_of_two(one, two, key):
    assert ow.Columnwise().init(ow.Columns(one(), 3, 5, key=key), jnp.ones(3)).of_state[0].weight.shape == (3, 1, 5)
    assert v.compare(gradient(one(), key), gradient(two(), key)).relative_error < 1e-12


def test_a_false_claim_is_another_gradient(key):
    given = ("tanh", "nonlinear")
    assert v.compare(gradient(Claims(*given), key), gradient(ow.RTUGates(*given), key)).relative_error > 1e-2


@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 2e-7), (np.float64, 4e-16)])
@pytest.mark.parametrize("largest", [7.0, 1e4])
def test_cosine_and_sine(dtype, most, largest):
    with jax.enable_x64(True):
        angle = np.random.default_rng(0).uniform(0, largest, 10_000).astype(dtype)
        cos, sin = jax.jit(cos_sin)(jnp.asarray(angle))
        assert cos.dtype == sin.dtype == dtype
    exact = angle.astype(np.longdouble)
    assert np.abs(np.asarray(cos) - np.cos(exact)).max() < most
    assert np.abs(np.asarray(sin) - np.sin(exact)).max() < most
