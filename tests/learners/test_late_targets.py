"""Targets that come late: the learner against a loop that keeps every state it was ever in."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.trees import remember

pytestmark = pytest.mark.usefixtures("compile_fast")

STEPS = 24


def _columns():
    return ow.Columns(ow.LSTMGates(), 3, 4, key=jax.random.key(3), spread=0.5, normalise_features=ow.Moments(0.9))


CASES = {
    "Columnwise": (ow.Columnwise(), _columns),
    "RTRL": (ow.RTRL(), lambda: ow.GRU(3, 4, key=jax.random.key(3))),
}


def _stream(steps=STEPS, streams=None, seed=0):
    """Weights are 0 here and there, 0.5 elsewhere; two episodes start in the middle."""
    rng = np.random.default_rng(seed)
    shape = (steps,) if streams is None else (steps, streams)
    floats = lambda a: jnp.asarray(a, jnp.float32)
    weight = rng.choice([0, 0.5, 1], shape, p=[0.3, 0.2, 0.5])
    reset = np.zeros((steps, streams or 1), bool)
    reset[5, 0] = reset[steps - 8, -1] = True
    reset = reset.reshape(shape)
    x, y = rng.normal(size=(*shape, 3)), rng.normal(size=shape)
    return ow.Step(floats(x), floats(y), floats(weight), jnp.asarray(reset), jnp.zeros(shape))


def _at(stream, t):
    return jax.tree.map(lambda a: a[t], stream)


def _run(learner, model, stream, key):
    state = learner.init(model, _at(stream, 0), key=key)
    return jax.jit(lambda s: jax.lax.scan(learner.step, s, stream))(state)


class ByHand:
    """Every (carry, credit) is kept in a list; public parts only. Several streams are several lists."""

    def __init__(self, rule, optimiser, model, delay, streams=1, *, fault=None):
        self.rule, self.optimiser, self.model, self.delay, self.fault = rule, optimiser, model, delay, fault
        self.state = optimiser.init(eqx.filter(model, model.trainable()))
        now = (model.init(), rule.init(model.cell, jnp.zeros(model.cell.inputs)))
        self.now, self.kept = [now] * streams, []
        self.pull = jax.jit(self._pull)
        self.advance = jax.jit(lambda cell, carry, x, credit: rule.advance(cell, carry, x, credit))
        self.update = jax.jit(self._update)

    def _pull(self, model, carry, credit, y, weight):
        answer, pullback = model.answer(carry)
        head, hidden = pullback(weight * (answer - y))
        nothing = eqx.filter(model, jax.tree.map(lambda _: False, model))
        gradient = (self.rule.pull(model.cell, credit, hidden), head)
        return eqx.tree_at(lambda m: (m.cell, m.head), nothing, gradient)

    def _update(self, model, state, gradients):
        gradient = jax.tree.map(lambda *g: sum(g) / len(g), *gradients)
        updates, state = self.optimiser.update(gradient, state, eqx.filter(model, model.trainable()))
        return eqx.apply_updates(model, updates), state

    def step(self, examples):
        """The predictions of every stream."""
        back = self.delay - (self.fault == "too soon")
        if len(self.kept) >= self.delay:
            pairs = zip(self.kept[-back] if back else self.now, examples, strict=True)
            found = [self.pull(self.model, *then, e.y, e.weight) for then, e in pairs]
            if any(float(e.weight) > 0 for e in examples):
                self.model, self.state = self.update(self.model, self.state, found)
        said = []
        for i, example in enumerate(examples):
            carry, credit = self.now[i]
            if example.reset:
                carry = ow.Carry(self.model.init().hidden, carry.stats)
                credit = self.rule.init(self.model.cell, example.x)
            carry, credit = self.advance(self.model.cell, carry, example.x, credit)
            self.now[i] = carry, credit
            said.append(float(self.model.head(self.model.features(carry))))
        self.kept.append(list(self.now))
        return said


def _same_model(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


MORE = [("Columnwise", 2), ("Columnwise", 3), ("RTRL", 1), ("RTRL", 2), ("RTRL", 7)]


@pytest.mark.parametrize(
    ("name", "delay"),
    [("Columnwise", 1), ("Columnwise", 7), ("RTRL", 3)]
    + [pytest.param(*case, marks=pytest.mark.slow) for case in MORE],
)  # fmt: skip
def test_equals_a_loop_that_keeps_everything(name, delay, key):
    rule, make = CASES[name]
    model, stream = ow.Model(make(), ow.Linear(4)), _stream()
    assert int(stream.reset.sum()) == 2
    assert 0 < int((stream.weight == 0).sum()) < STEPS
    optimiser = optax.adam(0.03)
    state, info = _run(ow.Late(ow.Online(rule, ow.Supervised(), optimiser), delay), model, stream, key)
    hand = ByHand(rule, optimiser, model, delay)
    said = [hand.step([_at(stream, t)])[0] for t in range(STEPS)]
    np.testing.assert_allclose(info.prediction, said, rtol=1e-4, atol=1e-5)
    _same_model(state.model, hand.model, rtol=1e-4, atol=1e-5)
    assert np.abs(said[-5:]).min() > 1e-3, "nothing was learned: the comparison would say nothing"
    assert not np.any(info.prediction[:delay])
    assert (info.loss[delay:][stream.weight[delay:] > 0] > 0).all()
    assert not np.any(info.loss[:delay])


def test_a_state_of_another_step_is_caught():
    """The loop itself, with the state of one step later: far outside the tolerance above."""
    rule, make = CASES["Columnwise"]
    model, stream = ow.Model(make(), ow.Linear(4)), _stream()
    hands = [ByHand(rule, optax.adam(0.03), model, 3, fault=fault) for fault in (None, "too soon")]
    right, wrong = (np.array([hand.step([_at(stream, t)])[0] for t in range(STEPS)]) for hand in hands)
    assert np.abs(right - wrong).max() > 1e-2


def test_parallel_streams(key):
    rule, make = CASES["Columnwise"]
    model, stream, optimiser = ow.Model(make(), ow.Linear(4)), _stream(streams=2), optax.sgd(0.1)
    state, info = _run(ow.Late(ow.Online(rule, ow.Supervised(), optimiser, streams=2), 3), model, stream, key)
    hand = ByHand(rule, optimiser, model, 3, streams=2)
    said = [hand.step([_at(_at(stream, t), i) for i in range(2)]) for t in range(STEPS)]
    np.testing.assert_allclose(info.prediction, said, rtol=1e-4, atol=1e-5)
    _same_model(state.model, hand.model, rtol=1e-4, atol=1e-5)


def test_a_reset_between_prediction_and_target_does_not_touch_the_prediction(key):
    """What was predicted before an episode began is still learned from, with the credit of then."""
    rule, make = CASES["Columnwise"]
    model, stream = ow.Model(make(), ow.Linear(4)), _stream(6)
    stream = stream._replace(weight=jnp.array([0, 0, 0, 0, 0, 1.0]), reset=jnp.zeros(6, bool).at[4].set(True))
    calm = stream._replace(reset=jnp.zeros(6, bool))
    learner = ow.Late(ow.Online(rule, ow.Supervised(), optax.sgd(0.1)), 3)
    a, b = (_run(learner, model, s, key)[0].model for s in (stream, calm))
    _same_model(a, b, rtol=1e-6)
    assert np.any(a.head.weight)


@pytest.mark.parametrize(("delay", "streams"), [pytest.param(1, None, marks=pytest.mark.slow), (3, 2)])
def test_growth_drops_what_waits(delay, streams, key):
    """For `delay` steps there is nothing to learn from; what is learned then is finite, and of the new stage too."""
    model = ow.Model(ow.Cascade(_columns()), ow.Linear(4))
    stream = _stream(12, streams)
    stream = stream._replace(weight=jnp.ones_like(stream.weight), reset=jnp.zeros_like(stream.reset))
    learner = ow.Late(ow.Online(ow.Columnwise(), ow.Supervised(), optax.adam(0.03), streams=streams), delay)
    state, before = _run(learner, model, stream, key)
    grown = learner.grow(state, _at(stream, 0))
    run = jax.jit(
        lambda s: jax.lax.scan(lambda s, e: (lambda n: (n[0], (n[1], n[0].model)))(learner.step(s, e)), s, stream)
    )
    after, (info, models) = run(grown)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((eqx.filter(after.model, eqx.is_array), info)))
    assert not np.any(info.loss[:delay])
    assert np.all(info.loss[delay:] > 0)
    for t, same in ((delay - 1, True), (delay, False)):
        assert np.array_equal(models.head.weight[t], grown.model.head.weight) == same
    np.testing.assert_allclose(grown.model.head.weight[:4], state.model.head.weight)
    assert np.all(after.model.head.weight[4:] != 0)
    assert not np.array_equal(after.model.cell.stage.weight, grown.model.cell.stage.weight)
    assert np.any(before.loss)


def test_what_is_refused():
    online = lambda objective: ow.Online(ow.Columnwise(), objective, optax.sgd(0.1))
    for delay in (0, -1, 1.0, True, "2"):
        with pytest.raises(ValueError, match="Late: delay must be a whole number of at least 1, got"):
            ow.Late(online(ow.Supervised()), delay)
    with pytest.raises(TypeError, match="only targets of Supervised can come late, not those of TDLambda"):
        ow.Late(online(ow.TDLambda()), 1)
    with pytest.raises(TypeError, match="Late takes an Online learner, got Watched"):
        ow.Late(ow.Watched(online(ow.Supervised()), (ow.SnAp(1),)), 1)
    with pytest.raises(TypeError, match="got Late; rules are not watched where targets come late"):
        ow.Watched(ow.Late(online(ow.Supervised()), 1), (ow.SnAp(1),))
    with pytest.raises(TypeError, match="rules must be credit rules, got 'snap-1'"):
        ow.Watched(online(ow.Supervised()), ("snap-1",))


# What waits.

# Of each cell, rule and number of leaves of (carry, credit) in all: how many of them a gradient needs.
COLUMNS = lambda gates: ow.Columns(gates, 3, 4, key=jax.random.key(3), spread=0.5)
WAITING = {
    "LSTM columns": (ow.Columnwise(), lambda: COLUMNS(ow.LSTMGates()), 8, 4),
    "GRU columns": (ow.Columnwise(), lambda: COLUMNS(ow.GRUGates()), 4, 4),
    "normalised columns": (ow.Columnwise(), _columns, None, None),
    "cascade": (ow.Columnwise(), lambda: ow.Cascade(COLUMNS(ow.LSTMGates())), 8, 4),
    "GRU": (ow.RTRL(), lambda: ow.GRU(3, 4, key=jax.random.key(3)), None, None),
    "LSTM": (ow.RTRL(), lambda: ow.LSTM(3, 4, key=jax.random.key(3)), 4, 2),
    "LSTM, SnAp": (ow.SnAp(1), lambda: ow.LSTM(3, 4, key=jax.random.key(3)), None, None),
    "LSTM, RFLO": (ow.RFLO(), lambda: ow.LSTM(3, 4, key=jax.random.key(3)), None, None),
    "LSTM, UORO": (ow.UORO(), lambda: ow.LSTM(3, 4, key=jax.random.key(3)), None, None),
    "LSTM, TBPTT": (ow.TBPTT(3), lambda: ow.LSTM(3, 4, key=jax.random.key(3)), None, None),
}


@pytest.mark.parametrize("streams", [None, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", WAITING)
def test_what_is_not_kept_has_no_part_in_the_gradient(name, streams, key, monkeypatch):
    """Equal to a learner that keeps every leaf, but for what products with 0 may round; to another, without one leaf, not."""
    rule, make, every, needed = WAITING[name]
    model, stream = ow.Model(make(), ow.Linear(4)), _stream(streams=streams)
    learner = ow.Late(ow.Online(rule, ow.Supervised(), optax.adam(0.03), streams=streams), 3)
    state, _ = _run(learner, model, stream, key)
    of_all, kept = len(jax.tree.leaves((state.online.carry, state.online.credit))), learner._needed(state.online)
    if every is not None:
        assert (of_all, len(kept)) == (every, needed)
    assert len(state.rings) == len(kept)
    for others, same in ((range(of_all), True), (kept[:-1], False)):
        with monkeypatch.context() as patch:
            patch.setattr(ow.Late, "_needed", lambda self, state, others=others: list(others))
            other, _ = _run(learner, model, stream, key)
        close = [
            np.allclose(a, b, rtol=1e-5, atol=1e-7)
            for a, b in zip(jax.tree.leaves(state.model), jax.tree.leaves(other.model), strict=True)
        ]
        assert all(close) == same


# The ring.


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_remember_is_a_ring(slots):
    values = np.random.default_rng(0).normal(size=(17, 2)).astype(np.float32)

    def step(ring, i):
        ring, oldest = remember(ring, i, values_[i])
        return ring, oldest

    # At step t the value of the step before it comes in, and that of `slots` steps before comes out.
    values_ = jnp.asarray(np.concatenate([np.full((1, 2), 99, np.float32), values]))
    _, got = jax.lax.scan(step, jnp.zeros((slots, 2)), jnp.arange(18))
    said = [values_[t] for t in range(18)]
    for t in range(18):
        wanted = said[t - slots + 1] if t - slots + 1 >= 0 else np.zeros(2)
        np.testing.assert_array_equal(got[t], wanted)


def _body(remember, options, slots=1000):
    """The program of a loop over a ring, without what stands before and after the loop."""

    def loop(ring, values):
        def step(i, state):
            ring, total = state
            ring, oldest = remember(ring, i, values[i] + total)
            return ring, total + oldest

        return jax.lax.fori_loop(0, len(values), step, (ring, jnp.zeros(8)))

    lowered = jax.jit(loop, donate_argnums=0).lower(jnp.zeros((slots, 8)), jnp.zeros((50, 8)))
    text = lowered.compile(options).as_text()
    return [line for line in text[: text.index("ENTRY")].splitlines() if f"f32[{slots},8]" in line and "copy(" in line]


def read_first(ring, step, value):
    slots = len(ring)
    oldest = jax.lax.dynamic_index_in_dim(ring, step % slots, keepdims=False)
    return jax.lax.dynamic_update_index_in_dim(ring, value, step % slots, 0), oldest


def test_a_loop_does_not_copy_the_ring(as_users_compile):
    assert not _body(remember, as_users_compile)
    assert _body(read_first, as_users_compile), (
        "the other order is not copied either: the remark in `remember` is out of date"
    )
    assert "copies the ring" in inspect.getdoc(remember)


@pytest.mark.parametrize("delay", [1, 2, 4])
def test_what_is_learned_is_the_draw_that_was_predicted_from(delay, key):
    """Units that are all sampled, at odds of one half, and weights that stay: the head names the draw."""
    cell = ow.Hybrid(ow.Elman(1, 16, key=key, activation="sigmoid"), share=1.0)
    cell = jax.tree.map(lambda a: jnp.zeros_like(a) if eqx.is_inexact_array(a) else a, cell)
    head = eqx.tree_at(lambda h: h.weight, ow.Linear(16), 2.0 ** jnp.arange(16))
    learner = ow.Late(ow.Online(ow.RTRL(), ow.Supervised(), optax.sgd(0.0)), delay)
    one = ow.Step(jnp.zeros(1), jnp.zeros(()))
    state, said, learned = learner.init(ow.Model(cell, head), one, key=key), [], []
    for _ in range(delay + 3):
        state, info = learner.learn(state, one)
        state, prediction = learner.read(state, one.x)
        said.append(float(prediction))
        learned.append(float(info.prediction))
    assert len(set(said)) == len(said)
    assert learned[delay:] == said[:-delay]
