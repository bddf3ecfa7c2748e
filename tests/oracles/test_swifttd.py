"""SwiftTD against its authors' own code: the wheel `swifttd` 0.2.0, which computes in single precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow

swifttd = pytest.importorskip("swifttd", reason="make test-oracles installs it")

SETTINGS = {
    "small steps": {"initial": 1e-3, "largest": 0.5, "decay": 0.99, "meta": 1e-3},
    "steps that hit the bound": {"initial": 0.05, "largest": 0.1, "decay": 0.9, "meta": 1e-2},
    "fast adaptation": {"initial": 1e-2, "largest": 1.0, "decay": 0.999, "meta": 1e-2},
}


@pytest.mark.parametrize("lam", [0.0, 0.8, 0.95])
@pytest.mark.parametrize("setting", SETTINGS)
def test_predictions_are_those_of_the_authors(setting, lam):
    """Its floor of step sizes never acts (it compares with a logarithm), so ours is set where it does not either."""
    given, gamma, features = SETTINGS[setting], 0.9, 6
    # Positional: features, lambda, alpha, gamma, eps, eta, decay, meta step, eta_min.
    theirs = swifttd.SwiftTDNonSparse(
        features, lam, given["initial"], gamma, 1e-8, given["largest"], given["decay"], given["meta"], 1e-10
    )
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, features)) * (rng.random((400, features)) < 0.5)
    r = x[:, 0] - 0.5 * np.roll(x[:, 1], 3) + 0.1 * rng.normal(size=400)
    rule = ow.swift_td(gamma, lam, smallest=1e-30, **given)
    with jax.enable_x64(True):
        w = jnp.zeros(features)
        state, v_old, old = rule.init(w), 0.0, np.zeros(features)
        step = jax.jit(lambda s, d, e: rule.update(e, s, delta=d, eligibility=e))
        mine, others = [], []
        for now, reward in zip(x, r, strict=True):
            v = float(w @ now)
            updates, state = step(state, jnp.asarray(reward + gamma * v - v_old), jnp.asarray(old))
            w, v_old, old = w + updates, v, now
            mine.append(v)
            others.append(theirs.step(list(now), float(reward)))
    mine, others = np.array(mine), np.array(others)
    assert np.abs(others).max() > 0.05
    np.testing.assert_allclose(mine, others, atol=2e-4 * np.abs(others).max())
