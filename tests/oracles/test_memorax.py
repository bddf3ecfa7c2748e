"""RTU columns against memorax's own RTU and its traces: same parameters, same stream.

memorax is on GitHub only: the wheel of that name on PyPI, 1.0.1, has no RTU. Its cell is the nonlinear one.
"""

import importlib
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
import onward.verify as v

INPUTS, UNITS, STEPS = 3, 5, 40


@pytest.fixture
def rtu():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("memorax.networks.sequence_models.rtu")
        except ImportError as error:
            pytest.skip(f"memorax with its RTU is not installed (GitHub: memory-ring/memorax): {error}")


def test_the_traces_of_its_rtu_give_our_gradient(rtu, key):
    with jax.enable_x64(True):
        cell = v.in_float64(ow.Columns(ow.RTUGates("tanh", "nonlinear"), INPUTS, UNITS, key=key, spread=0.7))
        xs, cotangents = (
            jax.random.normal(jax.random.key(i), (STEPS, n), jnp.float64) for i, n in ((1, INPUTS), (2, 2 * UNITS))
        )
        never = jnp.zeros(STEPS, bool)
        ours = eqx.filter_jit(v.stepwise_gradient)(cell, ow.Columnwise(), cell.init(), xs, never, cotangents, key=key)
        module = rtu.RTUCell(rtu.RTUConfig(INPUTS, UNITS))
        own = dict(zip(("nu_log", "theta_log"), cell.bias, strict=True))
        weights = {"B_real": cell.weight[:, 0].T, "B_imag": cell.weight[:, 1].T}
        carry = rtu.RTUCarry(*jnp.zeros((2, 1, UNITS)))
        traces = jax.tree.map(lambda a: jnp.zeros((1, 2, *a.shape)), own | weights)
        total = jax.tree.map(jnp.zeros_like, own | weights)
        with jax.numpy_rank_promotion("allow"):
            step = jax.jit(
                lambda c, x, s: module.apply({"params": own | weights}, c, x[None], s, method="local_jacobian")
            )
            for x, cotangent in zip(xs, cotangents, strict=True):
                carry, _, traces = step(carry, x, traces)
                by_state = cotangent.reshape(2, UNITS)
                for name, trace in traces.items():
                    total[name] = total[name] + jnp.einsum("sh,sh...->h...", by_state, trace[0])
    theirs = (
        np.stack([total["B_real"].T, total["B_imag"].T], 1),
        np.stack([total["nu_log"], total["theta_log"]]),
    )
    assert v.compare((ours.weight, ours.bias), theirs).relative_error < 1e-9
