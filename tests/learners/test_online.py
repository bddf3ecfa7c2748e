"""The online learner: against an implementation written by hand in numpy, and in its variants."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.verify import in_float64


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


class HandWritten:
    """GROUND_TRUTH A2 in numpy, loops and all: LSTM columns, TD(lambda), RMSProp with a first second moment of 1."""

    def __init__(self, cell, alpha, discount, decay, beta, rate):
        self.w = {k: np.array(getattr(cell, k), np.float64) for k in ("weight", "recurrent", "bias")}
        n, m = cell.columns, cell.inputs
        self.n, self.m = n, m
        self.c, self.h = np.zeros(n), np.zeros(n)
        self.tc = {k: np.zeros_like(v) for k, v in self.w.items()}
        self.th = {k: np.zeros_like(v) for k, v in self.w.items()}
        self.e = {k: np.zeros_like(v) for k, v in self.w.items()} | {"out": np.zeros(n), "b": np.zeros(())}
        self.w |= {"out": np.zeros(n), "b": np.zeros(())}
        self.q = {k: np.ones_like(v) for k, v in self.w.items()}
        self.im, self.iv, self.fm, self.fv = np.zeros(m), np.ones(m), np.zeros(n), np.ones(n)
        self.old = 0.0
        self.alpha, self.discount, self.decay, self.beta, self.eta = alpha, discount, decay, beta, 1 - rate

    def step(self, x, cumulant):
        w, n, m = self.w, self.n, self.m
        self.im += self.eta * (x - self.im)
        self.iv += self.eta * ((x - self.im) ** 2 - self.iv)
        z = (x - self.im) / np.sqrt(np.maximum(self.iv, 0.01))
        new_c, new_h = np.zeros(n), np.zeros(n)
        tc, th = {k: v.copy() for k, v in self.tc.items()}, {k: v.copy() for k, v in self.th.items()}
        for k in range(n):
            a = [z @ w["weight"][:, g, k] + w["recurrent"][g, k] * self.h[k] + w["bias"][g, k] for g in range(4)]
            i, f, o, g = sigmoid(a[0]), sigmoid(a[1]), sigmoid(a[2]), np.tanh(a[3])
            new_c[k] = f * self.c[k] + i * g
            t = np.tanh(new_c[k])
            new_h[k] = o * t
            slopes = [i * (1 - i), f * (1 - f), o * (1 - o), 1 - g * g]
            u = w["recurrent"][:, k]
            entries = [("weight", (j, gate, k), gate, z[j]) for j in range(m) for gate in range(4)]
            entries += [("recurrent", (gate, k), gate, self.h[k]) for gate in range(4)]
            entries += [("bias", (gate, k), gate, 1.0) for gate in range(4)]
            for name, index, gate, reads in entries:
                da = [u[q] * self.th[name][index] + (reads if q == gate else 0) for q in range(4)]
                di, df, do, dg = (s * d for s, d in zip(slopes, da, strict=True))
                tc[name][index] = f * self.tc[name][index] + self.c[k] * df + i * dg + g * di
                th[name][index] = o * (1 - t * t) * tc[name][index] + t * do
        self.tc, self.th, self.c, self.h = tc, th, new_c, new_h
        self.fm += self.eta * (self.h - self.fm)
        self.fv += self.eta * ((self.h - self.fm) ** 2 - self.fv)
        scale = 1 / np.sqrt(np.maximum(self.fv, 0.01))
        features = (self.h - self.fm) * scale
        y = float(w["out"] @ features + w["b"])
        error = cumulant + self.discount * y - self.old
        gradient = {k: (w["out"] * scale) * self.th[k] for k in self.tc} | {"out": features, "b": np.ones(())}
        for k in w:
            g = error * self.e[k]
            self.q[k] = self.beta * self.q[k] + (1 - self.beta) * g * g
            self.e[k] = self.decay * self.e[k] + gradient[k]
            w[k] = w[k] + self.alpha * (1 / n if k in ("out", "b") else 1) * g / np.sqrt(self.q[k] + 1e-16)
        self.old = y
        return y


def test_online_td_with_columns_is_the_published_algorithm():
    """100 steps in float64 against the hand-written one: predictions and every parameter."""
    with jax.enable_x64(True):
        moments = ow.Moments(rate=0.99)
        normal = {"normalise_inputs": moments, "normalise_features": moments}
        cell = in_float64(ow.Columns(ow.LSTMGates(), 3, 2, key=jax.random.key(1), spread=0.5, **normal))
        learner = ow.Online(
            ow.Columnwise(), ow.TDLambda(0.9, 0.8), optax.chain(ow.rms(0.99, initial=1.0), ow.scale_head(1 / 2)), 0.05
        )
        model = in_float64(ow.Model(cell, ow.Linear(2)))
        rng = np.random.default_rng(0)
        xs, ys = rng.normal(size=(100, 3)), rng.normal(size=100)
        example = lambda t: ow.Step(jnp.asarray(xs[t]), jnp.asarray(ys[t]))
        state = learner.init(model, example(0), key=jax.random.key(2))
        hand = HandWritten(cell, 0.05, 0.9, 0.9 * 0.8, 0.99, 0.99)
        step = jax.jit(learner.step)
        for t in range(100):
            state, info = step(state, example(t))
            y = hand.step(xs[t], ys[t])
            np.testing.assert_allclose(float(info.prediction), y, rtol=1e-9, atol=1e-12)
        for name in ("weight", "recurrent", "bias"):
            np.testing.assert_allclose(getattr(state.model.cell, name), hand.w[name], rtol=1e-8)
        np.testing.assert_allclose(state.model.head.weight, hand.w["out"], rtol=1e-8)
        assert abs(hand.w["out"]).max() > 1e-2, "nothing was learned: the comparison would say nothing"


def _model(gates=None):
    key = jax.random.key(3)
    moments = ow.Moments(rate=0.99)
    cell = ow.Cascade(
        ow.Columns(
            gates or ow.GRUGates(), 3, 4, key=key, spread=0.5, normalise_inputs=moments, normalise_features=moments
        )
    )
    return ow.Model(cell, ow.Linear(4))


def _stream(key, steps=40, streams=None):
    shape = (steps,) if streams is None else (steps, streams)
    x_key, y_key, r_key = jax.random.split(key, 3)
    return ow.Step(
        jax.random.normal(x_key, (*shape, 3)), jax.random.normal(y_key, shape), jnp.ones(shape),
        jax.random.bernoulli(r_key, 0.1, shape), jnp.zeros(shape),
    )  # fmt: skip


def _run(learner, model, stream, key, *, state=None):
    first = jax.tree.map(lambda a: a[0], stream)
    state = learner.init(model, first, key=key) if state is None else state
    return eqx.filter_jit(lambda s: jax.lax.scan(lambda s, e: learner.step(s, e), s, stream))(state)


def test_rtrl_and_columnwise_learn_the_same(key):
    runs = [
        _run(ow.Online(rule, ow.Supervised(), optax.sgd(0.05)), _model(), _stream(key), key)
        for rule in (ow.RTRL(), ow.Columnwise())
    ]
    for a, b in zip(*(jax.tree.leaves(r[0].model) for r in runs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # float32, 40 updates


def test_one_stream_equals_a_batch_of_one(key):
    alone = _run(ow.Online(ow.Columnwise(), ow.TDLambda(), optax.sgd(0.05)), _model(), _stream(key), key)
    batch = jax.tree.map(lambda a: a[:, None], _stream(key))
    one = _run(ow.Online(ow.Columnwise(), ow.TDLambda(), optax.sgd(0.05), streams=1), _model(), batch, key)
    np.testing.assert_allclose(alone[1].prediction, one[1].prediction[:, 0], rtol=1e-5, atol=1e-6)


def test_parallel_streams_average_their_gradients(key):
    stream = _stream(key, steps=1, streams=3)
    learner = ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(1.0), streams=3)
    together, _ = _run(learner, _model(), stream, key)
    single = ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(1.0))
    apart = [_run(single, _model(), jax.tree.map(lambda a, i=i: a[:, i], stream), key)[0].model for i in range(3)]
    mean = jax.tree.map(lambda *a: sum(a) / 3, *(eqx.filter(m, eqx.is_array) for m in apart))
    for a, b in zip(jax.tree.leaves(eqx.filter(together.model, eqx.is_array)), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_step_of_weight_zero_changes_nothing_but_the_state(key):
    stream = _stream(key)._replace(weight=jnp.zeros(40))
    state, _ = _run(ow.Online(ow.Columnwise(), ow.Supervised(), optax.adam(0.1)), _model(), stream, key)
    for a, b in zip(jax.tree.leaves(state.model), jax.tree.leaves(_model()), strict=True):
        assert np.array_equal(a, b)
    assert float(jnp.abs(state.carry.hidden[0][0]).max()) > 0


def test_reset_clears_the_hidden_state_but_not_the_moments(key):
    learner = ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(0.0))
    stream = _stream(key, 20)._replace(reset=jnp.zeros(20, bool))
    state, _ = _run(learner, _model(), stream, key)
    last = jax.tree.map(lambda a: a[-1:], stream)._replace(reset=jnp.ones(1, bool))
    after, _ = _run(learner, _model(), last, key, state=state)
    carry = ow.Carry(state.model.init().hidden, state.carry.stats)
    clear = state._replace(carry=carry, credit=learner.credit.init(state.model.cell, last.x[0]))
    fresh, _ = _run(learner, _model(), last, key, state=clear)
    assert np.array_equal(after.carry.hidden[0][0], fresh.carry.hidden[0][0])
    assert float(after.carry.stats[0].features.steps) == 21


@pytest.mark.parametrize("gates", [ow.GRUGates(), ow.LSTMGates()])
@pytest.mark.parametrize("streams", [None, 3])
def test_growth_keeps_the_prediction_and_freezes_for_good(gates, streams, key):
    learner = ow.Online(ow.Columnwise(), ow.TDLambda(), optax.adam(0.01), streams=streams)
    stream = _stream(key, 60, streams)
    first = jax.tree.map(lambda a: a[0], stream)
    state, _ = _run(learner, _model(gates), stream, key)
    grown = learner.grow(state, first)
    assert grown.model.cell.feature_count == 8
    if streams is None:
        answer = lambda s: s.model.head(s.model.cell.features(s.carry))
        # The new columns start at h = 0 with zero output weights.
        np.testing.assert_allclose(answer(grown), answer(state), rtol=1e-6)
        x = jnp.ones(3)
        frozen, old = grown.model.cell.frozen[0], state.model.cell.stage
        moments = state.carry.stats[0].inputs
        z = (x - moments.mean) * moments.scale
        bare = eqx.tree_at(lambda c: c.normalise_inputs, old, None, is_leaf=lambda n: n is None)
        hidden = state.carry.hidden[0]
        stats = eqx.tree_at(lambda s: s.inputs, state.carry.stats[0], None, is_leaf=lambda n: n is None)
        folded, plain = frozen(ow.Carry(hidden, stats), x), bare(ow.Carry(hidden, stats), z)
        np.testing.assert_allclose(folded.hidden[-1], plain.hidden[-1], rtol=1e-4, atol=1e-6)
    after, _ = _run(learner, None, stream, key, state=grown)
    for a, b in zip(jax.tree.leaves(after.model.cell.frozen), jax.tree.leaves(grown.model.cell.frozen), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(after.model.cell.stage.weight, grown.model.cell.stage.weight)
    live = jax.tree.leaves(eqx.filter(after.optimiser, eqx.is_array))
    assert all(leaf.shape[0] != 3 for leaf in live if leaf.ndim == 3), "the optimiser still holds a frozen stage"


def test_growth_keeps_old_output_eligibility(key):
    learner = ow.Online(ow.Columnwise(), ow.TDLambda(), optax.sgd(0.01))
    state, _ = _run(learner, _model(), _stream(key)._replace(reset=jnp.zeros(40, bool)), key)
    grown = learner.grow(state, jax.tree.map(lambda a: a[0], _stream(key)))
    old, new = state.objective.eligibility.head.weight, grown.objective.eligibility.head.weight
    assert np.array_equal(new[:4], old)
    assert np.array_equal(new[4:], np.zeros(4))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grown.credit))


def test_only_a_cascade_grows(key):
    learner = ow.Online(ow.RTRL(), ow.Supervised(), optax.sgd(0.1))
    stream = _stream(key)
    first = jax.tree.map(lambda a: a[0], stream)
    state = learner.init(ow.Model(ow.LSTM(3, 4, key=key), ow.Linear(4)), first, key=key)
    with pytest.raises(TypeError, match="only a Cascade grows"):
        learner.grow(state, first)


def test_td_needs_a_scalar(key):
    model = ow.Model(ow.Columns(ow.GRUGates(), 3, 4, key=key), ow.Linear(4, 2))
    with pytest.raises(ValueError, match="scalar prediction"):
        _run(ow.Online(ow.Columnwise(), ow.TDLambda(), optax.sgd(0.1)), model, _stream(key), key)


def test_rms_equals_optax(key):
    """`scale_by_rms` has the sign of optax's, `rms` that of an optimiser, to the bit."""
    gradient = {"a": jax.random.normal(key, (3, 4)), "b": jnp.ones(())}
    rules = (
        ow.scale_by_rms(0.9, eps=1e-4),
        optax.scale_by_rms(0.9, eps=1e-8, bias_correction=True, eps_in_sqrt=True),
        ow.rms(0.9, eps=1e-4),
    )
    states = [rule.init(gradient) for rule in rules]
    for i in range(5):
        g = jax.tree.map(lambda a, i=i: a * (i + 1), gradient)
        updates, states = zip(
            *[rule.update(g, s, gradient) for rule, s in zip(rules, states, strict=True)], strict=True
        )
        for ours, theirs, down in zip(*map(jax.tree.leaves, updates), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)
            np.testing.assert_array_equal(down, -ours)
