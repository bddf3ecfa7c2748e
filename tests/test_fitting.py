"""One call over arrays does what a loop over steps does, and says what is wrong with arrays that do not fit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.errors import NotFinite

KEY = jax.random.key(5)
RNG = np.random.default_rng(0)
TIME, INPUTS = 12, 2
XS, YS = RNG.normal(size=(TIME, INPUTS)).astype("f4"), RNG.normal(size=TIME).astype("f4")
WEIGHTS = np.where(np.arange(TIME) == 4, 0, np.linspace(0.5, 1, TIME)).astype("f4")
RESETS = np.arange(TIME) == 7
GRU = ow.Model(ow.GRU(INPUTS, 3, key=KEY), ow.Linear(3))
ONLINE = ow.Online(ow.SnAp(1), ow.Supervised(), optax.adam(1.0), 0.1)


def row(t, xs=XS, ys=YS):
    arrays = jax.tree.map(lambda a: jnp.asarray(a)[t], (xs, ys, WEIGHTS, RESETS))
    return ow.Step(*arrays, truth=arrays[1])


def by_hand(learner, state, examples):
    """A loop over one jitted step."""
    step, infos = eqx.filter_jit(learner.step), []
    for example in examples:
        state, info = step(state, example)
        infos.append(info)
    return state, jax.tree.map(lambda *parts: jnp.stack(parts), *infos)


def test_a_stream_is_learned_as_step_by_step(compile_well):
    state, info = ow.fit(ONLINE, GRU, XS, YS, key=KEY, weights=WEIGHTS, resets=RESETS)
    expected = by_hand(ONLINE, ONLINE.init(GRU, row(0), key=KEY), map(row, range(TIME)))
    assert eqx.tree_equal((state, info), expected)
    assert float(info.loss[4]) == 0

    half, first = ow.fit(ONLINE, GRU, XS[:6], YS[:6], key=KEY, weights=WEIGHTS[:6], resets=RESETS[:6])
    rest = {"weights": WEIGHTS[6:], "resets": RESETS[6:]}
    whole, second = ow.fit(ONLINE, GRU, XS[6:], YS[6:], key=jax.random.key(99), state=half, **rest)
    joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)
    assert eqx.tree_equal((whole, joined), (state, info))


@pytest.mark.parametrize("outputs", [1, TIME])
@pytest.mark.parametrize("name", ["BPTT", "TPTT"])
def test_batches_are_learned_as_update_by_update(name, outputs, compile_well):
    learner = {"BPTT": ow.BPTT(optax.adam(1.0), 0.1), "TPTT": ow.TPTT(ow.FeedbackInverse(), optax.sgd(1.0), None, 0.1)}[
        name
    ]
    xs, ys = RNG.normal(size=(TIME, 5, INPUTS)).astype("f4"), RNG.normal(size=(outputs, 5)).astype("f4")
    mask = np.ones((outputs, 5), "f4")
    mask[0, 3] = 0.5
    state, info = ow.fit(learner, GRU, xs, ys, key=KEY, weights=mask, passes=3)
    example = ow.Sequence(*map(jnp.asarray, (xs, ys, mask)))
    expected, every = by_hand(learner, learner.init(GRU, example, key=KEY), [example] * 3)
    assert eqx.tree_equal(state, expected)
    assert eqx.tree_equal(info, ow.Info(every.prediction[-1], every.loss))
    assert info.loss[2] < info.loss[0]


def test_passes_and_parallel_streams():
    learner = ow.Online(ow.SnAp(1), ow.Supervised(), optax.sgd(0.1), streams=2)
    xs, ys = np.stack([XS, XS], 1), np.stack([YS, YS], 1)
    _, once = ow.fit(learner, GRU, xs, ys, key=KEY)
    state, twice = ow.fit(learner, GRU, xs, ys, key=KEY, passes=2)
    assert twice.loss.shape == (2 * TIME, 2)
    assert np.array_equal(twice.loss[:TIME], once.loss)
    assert int(state.steps) == 2 * TIME
    with pytest.raises(ValueError, match=r"the learner has 2 streams, xs of shape \(12, 1, 2\) has 1"):
        ow.fit(learner, GRU, xs[:, :1], ys[:, :1], key=KEY)


def test_integers_are_inputs_as_floats_and_targets_as_classes():
    classes = ow.Model(ow.GRU(1, 3, key=KEY), ow.Categorical(3, 4))
    x = np.arange(TIME)[:, None] % 4
    _, whole = ow.fit(ONLINE, classes, x, x[:, 0], key=KEY)
    _, floats = ow.fit(ONLINE, classes, x.astype("f4"), x[:, 0].tolist(), key=KEY)
    assert np.array_equal(whole.loss, floats.loss)
    assert float(whole.loss[0]) == pytest.approx(np.log(4))
    with pytest.raises(NotFinite, match=r"at step 3 of 12.*a class it does not have"):
        ow.fit(ONLINE, classes, x, np.where(np.arange(TIME) == 3, 9, 1), key=KEY)


def test_it_is_compiled_once():
    traced = 0

    def loss_free(updates, state, params=None):
        nonlocal traced
        traced += 1
        return updates, state

    learner = ow.BPTT(optax.GradientTransformation(lambda p: (), loss_free), 0.1)
    xs, ys = np.ones((3, 4, INPUTS)), np.ones((1, 4))
    after = []
    for seed in range(3):
        ow.fit(learner, GRU, xs, ys * seed, key=jax.random.key(seed), passes=2)
        after.append(traced)
    assert after == [2, 3, 4]  # every start tries the optimiser once; the update is compiled by the first


def nan_at(array, *place):
    array = np.array(array, float)
    array[place] = np.nan
    return array


BAD = {
    "lengths": ({"ys": YS[:-1]}, r"with xs of shape \(12, 2\), ys must be \(12, ...\); got \(11,\)"),
    "width": ({"xs": XS[:, :1]}, r"xs must have the shape \(time, 2\), got \(12, 1\)"),
    "no width": ({"xs": XS[:, 0]}, r"xs must have the shape \(time, 2\), got \(12,\)"),
    "empty": ({"xs": XS[:0], "ys": YS[:0]}, "xs is empty"),
    "NaN in xs": ({"xs": nan_at(XS, 5, 1)}, r"xs\[5, 1\] is nan: fill it in"),
    "infinity in xs": ({"xs": np.where(XS[3, 0] == XS, np.inf, XS)}, r"xs\[3, 0\] is inf"),
    "NaN in ys": ({"ys": nan_at(YS, 8)}, r"ys\[8\] is nan: give that row weight 0"),
    "weights": ({"weights": np.ones(3)}, r"weights must have the shape \(12,\), one for each target, got \(3,\)"),
    "NaN in weights": ({"weights": nan_at(WEIGHTS, 2)}, r"weights\[2\] is nan"),
    "resets": ({"resets": np.arange(TIME)}, "resets must be true or false"),
    "passes": ({"passes": 0}, "passes must be a whole number of at least 1"),
    "ys too wide": ({"ys": np.ones((TIME, 1))}, r"the head predicts one number, but a target has the shape \(1,\); give ys\[..., 0\]"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_arrays_that_do_not_fit_are_refused(fault):
    changes, message = BAD[fault]
    with pytest.raises(ValueError, match=message):
        ow.fit(ONLINE, GRU, **({"xs": XS, "ys": YS, "key": KEY} | changes))


def test_what_is_no_number_and_resets_of_batches_are_refused():
    with pytest.raises(TypeError, match="xs must hold numbers, got <U1"):
        ow.fit(ONLINE, GRU, [["a", "b"]], [1], key=KEY)
    with pytest.raises(TypeError, match="resets are for learners of streams"):
        ow.fit(ow.BPTT(optax.sgd(0.1)), GRU, np.ones((3, 4, 2)), np.ones((1, 4)), key=KEY, resets=[True])
    pair = ow.Model(GRU.cell, ow.Linear(3, 2))
    with pytest.raises(ValueError, match=r"Online cannot learn from x of shape \(2,\) and y of shape \(3,\): "):
        ow.fit(ONLINE, pair, XS, np.ones((TIME, 3)), key=KEY)
    with pytest.raises(ValueError, match=r"xs must have the shape \(time, batch, 2\), got \(12, 2\)"):
        ow.fit(ow.BPTT(optax.sgd(0.1)), GRU, XS, YS, key=KEY)
    assert np.isfinite(ow.fit(ONLINE, GRU, XS, nan_at(YS, 4), key=KEY, weights=WEIGHTS)[1].loss).all()


def test_a_head_that_does_not_fit_its_cell_is_named():
    key, xs = jax.random.key(0), jnp.ones((5, 2))
    for cell, head, message in (
        (ow.GRU(2, 12, key=key), ow.Linear(8), "the Linear head reads 8 features, the Dense cell gives 12"),
        (ow.Columns(ow.GRUGates(), 2, 4, key=key), ow.Linear(3), "the Linear head reads 3 features, the Columns cell"),
    ):
        rule = ow.Columnwise() if isinstance(cell, ow.Columns) else ow.SnAp(1)
        learner = ow.Online(rule, ow.Supervised(), optax.sgd(0.1), 1e-2)
        with pytest.raises(ValueError, match=message):
            ow.fit(learner, ow.Model(cell, head), xs, xs[:, 0], key=key)
