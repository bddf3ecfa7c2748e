"""What drives itself into chaos has a derivative that grows without bound: traces start anew, and learning goes on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.credit import base
from onward.credit.uoro import RankOne

pytestmark = pytest.mark.usefixtures("compile_fast")
STEPS = 4_000
# A unit as it came out of learning, whose memory jumps to and fro without end: gates of its own memory by -3.
WEIGHT = [[-1.135, 0.514, 0.363], [0.029, -0.558, -0.31]]
BIAS = [-2.238, 0.513, -1.295, -3.011, -3.249, -0.703]


def jumping(units=3):
    columns = ow.Columns(ow.ELSTMGates(), 2, units, key=jax.random.key(0), spread=0.3)
    where = lambda c: (c.weight, c.bias)
    wild = columns.weight.at[..., 0].set(jnp.asarray(WEIGHT)), columns.bias.at[..., 0].set(jnp.asarray(BIAS))
    return eqx.tree_at(where, columns, wild)


def wild_layer(units=16, **more):
    """A layer whose random weights are three times what keeps it quiet."""
    layer = ow.Elman(2, units, key=jax.random.key(1), **more)
    draw = jax.random.normal(jax.random.key(5), layer.recurrent.shape)
    wild = 3 * draw / np.sqrt(layer.recurrent.shape[0])
    return eqx.tree_at(lambda c: (c.recurrent, c.bias), layer, (wild, 0.1 + 0 * layer.bias))


def above():
    return ow.Stack(ow.Columns(ow.MinGRUGates(), 2, 2, key=jax.random.key(3), spread=0.5), jumping())


CASES = {
    "columns": (jumping, ow.Columnwise()),
    "stack": (above, ow.Columnwise()),
    "layerwise": (above, ow.Layerwise()),
    "corrected columns": (jumping, ow.Columnwise(diagonal_correction=True)),
    "corrected": (wild_layer, ow.RTRL(diagonal_correction=True)),
    "rtrl": (wild_layer, ow.RTRL()),
    "rtrl of any cell": (lambda: ow.Skip(wild_layer()), ow.RTRL()),
    "snap-2 of blocks": (
        lambda: wild_layer(mask=np.kron(np.eye(2, dtype=bool), np.ones((16, 16), bool)), units=32),
        ow.SnAp(2),
    ),
    "uoro": (wild_layer, ow.UORO()),
    "nobacktrack": (wild_layer, ow.UORO("nobacktrack")),
    "uoro of any cell": (lambda: ow.Skip(wild_layer()), ow.UORO()),
}


def run(cell, rule):
    """The largest number of the rule's state, of two factors their product, and of all that is learned, at each step."""
    learner = ow.Online(rule, ow.Supervised(), optax.chain(optax.scale_by_rms(), optax.scale(-1e-6)))
    model = ow.Model(cell, ow.Linear(cell.feature_count))
    step = lambda t: ow.Step(jnp.asarray([0.0, 0.0]), jnp.sin(0.1 * t), 1.0, False)
    state = learner.init(model, step(0.0), key=jax.random.key(2))

    def body(state, t):
        state, _ = learner.step(state, step(t))
        size = lambda tree: jnp.stack(
            [jnp.abs(a).max() for a in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))]
        )
        factors = state.credit[:2] if isinstance(state.credit, RankOne) else [state.credit]
        influence = jnp.prod(jnp.stack([size(factor).max() for factor in factors]))
        return state, (influence, size((state.model, state.optimiser)).max())

    _, (largest, learned) = jax.lax.scan(body, state, jnp.arange(float(STEPS)))
    return np.asarray(largest), np.asarray(learned)


@pytest.mark.parametrize("name", CASES)
def test_a_trace_that_grows_without_bound_starts_anew(name):
    cell, rule = CASES[name]
    largest, learned = run(cell(), rule)
    assert np.isfinite(largest).all()
    assert np.isfinite(learned).all()
    assert largest.max() > 1e9, "nothing grew: the case says nothing"


def test_without_the_bound_numbers_are_lost(monkeypatch):
    monkeypatch.setattr(base, "LARGEST", np.inf)
    # Of another size, for which nothing is compiled yet.
    largest, learned = run(jumping(5), ow.Columnwise())
    assert not np.isfinite(largest).all()
    assert not np.isfinite(learned).all()
