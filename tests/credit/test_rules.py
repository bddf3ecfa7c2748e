"""What rules refuse, what they keep, and that a batch of small networks is the same as one after another."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward import verify as v
from onward.cells.base import AbstractCell
from onward.credit.snap import pairs_of, reach
from onward.verify.claims import random_streams
from onward.verify.gradients import quick

N, M = 6, 3
MASK = np.eye(N, dtype=bool) | np.eye(N, k=1, dtype=bool) | np.eye(N, k=-4, dtype=bool)


@pytest.mark.parametrize("make", [ow.LSTM, ow.GRU, ow.Elman])
def test_memory_is_what_the_docs_say(make, key):
    """GROUND TRUTH's cost table, with the states and gates of each kind of unit."""
    cell = make(M, N, key=key)
    states, gates, slots = cell.gates.states, len(cell.gates.input_slots), cell.gates.slots
    p = gates * N * (N + M + 1)
    floats = lambda rule: v.costs.state_floats(rule, cell)
    assert floats(ow.RTRL()) == states * N * p
    assert floats(ow.SnAp(1)) == floats(ow.RFLO()) == states * p
    assert floats(ow.SnAp(2)) == floats(ow.RTRL())
    assert floats(ow.UORO()) == p + states * N
    assert floats(ow.TBPTT(7)) == 7 * (M + 1 + (states + slots) * N)
    if make is ow.LSTM:
        assert floats(ow.TBPTT(7)) == 7 * (M + 1 + 6 * N)
        assert floats(ow.RTRL()) == 2 * N * p
    columns = ow.Columns(cell.gates, M, N, key=key)
    assert v.costs.state_floats(ow.Columnwise(), columns) == states * gates * N * (M + 2)


def test_snap_keeps_only_what_its_pattern_keeps(key):
    """Memory falls with the kept pairs, and with sparse weights."""
    cell = ow.LSTM(M, N, key=key, mask=MASK)
    fan_in = int(MASK.sum(0).max())
    assert cell.recurrent.shape == (fan_in, 4, N)
    for n in (1, 2):
        kept = int(reach(cell.sources, N, n).sum())
        assert kept < N * N
        assert v.costs.state_floats(ow.SnAp(n), cell) == 2 * kept * 4 * (M + fan_in + 1)
    one, two, all_of_it = (v.costs.state_floats(rule, cell) for rule in (ow.SnAp(1), ow.SnAp(2), ow.RTRL()))
    assert one < two < all_of_it


def test_reach_is_read_off_the_wiring():
    """A chain 0 -> 1 -> 2 without self-connections: each step reaches one unit further."""
    sources = ((), (0,), (1,))
    np.testing.assert_array_equal(reach(sources, 3, 1), np.eye(3, dtype=bool))
    np.testing.assert_array_equal(reach(sources, 3, 2), [[1, 0, 0], [1, 1, 0], [0, 1, 1]])
    np.testing.assert_array_equal(reach(sources, 3, 3), np.tri(3, dtype=bool))
    assert len(pairs_of(sources, 3, 2).unit) == 5


@pytest.mark.parametrize(("make", "mask"), [(ow.LSTM, None), (ow.GRU, MASK)], ids=["full LSTM", "sparse GRU"])
def test_an_influence_larger_than_the_cache_is_updated_row_by_row_to_the_same(make, mask, key, monkeypatch):
    from onward.credit import rtrl

    with jax.enable_x64(True):
        cell = v.in_float64(make(M, N, key=key, mask=mask))
        xs = jax.random.normal(key, (5, M), jnp.float64)

        def gradient(cache):
            monkeypatch.setattr(rtrl, "CACHE", cache)
            rule = ow.RTRL()
            carry, state = cell.init(), rule.init(cell, jax.ShapeDtypeStruct((M,), jnp.float64), key=key)
            program = str(jax.make_jaxpr(lambda c, s: rule.advance(cell, c, xs[0], s, key=key))(carry, state))
            (turns,) = re.findall(r"length=(\d+)", program)
            for x in xs:
                carry, state = rule.advance(cell, carry, x, state, key=key)
            return rule.pull(cell, state, jax.tree.map(lambda h: jnp.cos(h) + 1, carry.hidden)), int(turns)

        (whole, few), (rows, more) = gradient(2**20), gradient(0)
    assert few == 1
    assert more == M + int(cell.recurrent.shape[0]) + 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), whole, rows)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(whole)) > 1e-3


@pytest.mark.parametrize("rule", [ow.RTRL(), ow.SnAp(1), ow.SnAp(2), ow.RFLO(), ow.TBPTT(4), ow.UORO()], ids=v.name_of)
@pytest.mark.parametrize(("make", "mask"), [(ow.LSTM, None), (ow.GRU, MASK)], ids=["full LSTM", "sparse GRU"])
def test_a_batch_of_networks_is_each_of_them(make, mask, rule, key):
    """The kernels for batches (`runs`) compute what they compute alone, up to the order of sums."""
    with jax.enable_x64(True):
        cells = [v.in_float64(make(M, N, key=jax.random.key(i), mask=mask)) for i in range(3)]
        data = random_streams(cells[0], 6, 3, key)
        one = lambda cell, x, r, c: v.stepwise_gradient(cell, rule, cell.init(), x, r, c, key=key)
        single = quick(one)
        alone = [single(*a) for a in zip(cells, data.xs, data.starts, data.cotangents, strict=True)]
        stacked = jax.tree.map(lambda *a: jnp.stack(a), *cells)
        together = quick(eqx.filter_vmap(one))(stacked, data.xs, data.starts, data.cotangents)
    for i, gradient in enumerate(alone):
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-10, atol=1e-12)


def test_sparse_layers_are_full_ones_with_zeros(key):
    cell = ow.GRU(M, N, key=key, mask=MASK)
    index = [np.flatnonzero(MASK[:, u]) for u in range(N)]
    full = np.zeros((N, 3, N), np.float32)
    for u, sources in enumerate(index):
        full[sources, :, u] = cell.recurrent[: len(sources), :, u]
    dense = eqx.tree_at(lambda c: c.recurrent, ow.GRU(M, N, key=key), jnp.asarray(full))
    carry, same = cell.init(), dense.init()
    for x in jax.random.normal(key, (5, M)):
        carry, same = cell(carry, x), dense(same, x)
    np.testing.assert_allclose(carry.hidden[-1], same.hidden[-1], rtol=1e-6)


def test_refused_at_construction(key):
    for build, match in (
        (lambda: ow.SnAp(-1), "SnAp: n must be a whole number of at least 0, got -1"),
        (lambda: ow.TBPTT(0), "TBPTT: window must be a whole number of at least 1, got 0"),
        (lambda: ow.TBPTT(2.5), "TBPTT: window must be a whole number"),
        (lambda: ow.UORO("best"), "scaling must be 'uoro', 'nobacktrack' or 'none', got 'best'"),
        (lambda: ow.ElmanGates("step"), "activation must be one of tanh, sigmoid, relu, got 'step'"),
        (lambda: ow.Stack(), "at least one cell"),
        (lambda: ow.Stack(ow.GRU(3, 4, key=key), ow.GRU(3, 4, key=key)), "cell 1 reads 3 inputs, cell 0 below has 4"),
        (lambda: ow.GRU(3, 4, key=key, mask=np.ones((3, 3), bool)), r"shape \(4, 4\), mask\[h, u\]"),
        (lambda: ow.GRU(3, 4, key=key, mask=np.zeros((4, 4), bool)), "keeps no recurrent weight"),
    ):
        with pytest.raises(ValueError, match=match):
            build()


class Odd(AbstractCell):
    """A cell of a user: a counter in its state, or an integer parameter, or nothing to learn."""

    w: jax.Array
    count: bool = False
    still: bool = False

    inputs = 2
    feature_count = 2

    def init(self):
        return ow.Carry((jnp.zeros(2), jnp.zeros((), jnp.int32)) if self.count else (jnp.zeros(2),), ())

    def __call__(self, carry, x, *, key=None):
        h = jnp.tanh(self.w * x + carry.hidden[0])
        return ow.Carry((h, carry.hidden[1] + 1) if self.count else (h,), ())

    def features(self, carry, *, key=None):
        return carry.hidden[0]

    def trainable(self):
        return jax.tree.map(lambda a: eqx.is_array(a) and not self.still, self)


@pytest.mark.parametrize("rule", [ow.RTRL(), ow.UORO(), ow.TBPTT(3)], ids=v.name_of)
def test_cells_that_have_no_gradient_are_refused(rule, key):
    x = jnp.zeros(2)
    start = lambda cell, x=x: rule.init(cell, x, key=key)
    with pytest.raises(TypeError, match=r"hidden state '1' of Odd is of type int32.*carry.stats"):
        start(Odd(jnp.ones(2), count=True))
    with pytest.raises(TypeError, match="parameter 'w' of Odd is of type int32"):
        start(Odd(jnp.ones(2, jnp.int32)))
    with pytest.raises(ValueError, match=r"the Odd reads 2 inputs, the observation has shape \(3,\)"):
        start(Odd(jnp.ones(2)), jnp.zeros(3))
    with pytest.raises(TypeError, match="no array of this Odd is trainable"):
        start(Odd(jnp.ones(2), still=True))


def test_rules_that_need_structure_say_what_to_use(key):
    x = jnp.zeros(2)
    with pytest.raises(TypeError, match="use RTRL, which is exact for any cell"):
        ow.Columnwise().init(ow.GRU(2, 3, key=key), x)
    with pytest.raises(TypeError, match="use RTRL, UORO or TBPTT, which take any cell"):
        ow.SnAp(1).init(Odd(jnp.ones(2)), x)
    with pytest.raises(TypeError, match="RFLO is for Dense cells, got Odd"):
        ow.RFLO().init(Odd(jnp.ones(2)), x)
    with pytest.raises(ValueError, match="give init a key"):
        ow.UORO().init(ow.GRU(2, 3, key=key), x)


def test_too_much_memory_is_refused_before_it_is_taken(key):
    cell = eqx.filter_eval_shape(lambda: ow.LSTM(10, 2000, key=key))
    with pytest.raises(MemoryError, match=r"RTRL would need 239\.7\d GiB .* memory_limit is 8\.00 GiB.*SnAp\(1\)"):
        jax.eval_shape(lambda: ow.RTRL().init(ow.LSTM(10, 2000, key=key), jnp.zeros(10)))
    assert cell.units == 2000
    small = ow.GRU(2, 8, key=key)
    for rule in (ow.RTRL(1000), ow.SnAp(1, 1000), ow.UORO(memory_limit=1000), ow.TBPTT(100, 1000), ow.RFLO(1000)):
        with pytest.raises(MemoryError, match=type(rule).__name__ + " would need"):
            rule.init(small, jnp.zeros(2), key=key)


def test_tbptt_without_recurrent_paths_is_rflo_on_elman_units(key):
    cell = ow.Elman(3, 4, key=key)
    with jax.enable_x64(True):
        cell = v.in_float64(cell)
        data = random_streams(cell, 6, 1, key)
        take = lambda rule: v.stepwise_gradient(cell, rule, cell.init(), data.xs[0], data.starts[0], data.cotangents[0])
        pairs = zip(*map(jax.tree.leaves, (take(ow.RFLO()), take(ow.TBPTT(1)))), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("streams", [None, 3])
def test_watched_rules_ride_along_and_change_nothing(streams, key):
    """Cosine and ratio of the rule that trains and of its passengers; the model is that of a run without them."""
    task = ow.TracePatterning(isi=(3, 5), iti=(4, 6))
    model = ow.Model(ow.LSTM(task.inputs, 4, key=key, spread=0.5), ow.Linear(4))
    online = ow.Online(ow.SnAp(1), ow.TDLambda(0.9), optax.sgd(0.01), streams=streams)
    emit = task.emit if streams is None else jax.vmap(task.emit)

    def run(learner):
        stream = task.init(key) if streams is None else jax.vmap(task.init)(jax.random.split(key, streams))
        state = learner.init(model, emit(stream)[1], key=key)

        def body(loop, _):
            stream, example = emit(loop[0])
            state, info = learner.step(loop[1], example)
            return (stream, state), info.alignment

        return jax.jit(lambda s: jax.lax.scan(body, s, length=60))((stream, state))

    (_, plain), nothing = run(online)
    (_, watched), seen = run(ow.Watched(online, (ow.RTRL(), ow.TBPTT(2), ow.UORO())))
    assert nothing == ()
    own, exact, truncated, random = (np.asarray(a).reshape(-1, 3) for a in seen)
    for a, b in zip(jax.tree.leaves(plain.model), jax.tree.leaves(watched.model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    there = exact[:, 2] == 1  # the readout starts at zero: no gradient before its first update
    assert there.sum() >= 5
    own, exact, truncated, random = (a[there] for a in (own, exact, truncated, random))
    np.testing.assert_allclose(exact[:, :2], 1, rtol=1e-4)
    assert 0.5 < own[:, 0].mean() < 1
    assert truncated[:, 0].mean() < 0.999
    assert random[:, 0].mean() < own[:, 0].mean()
