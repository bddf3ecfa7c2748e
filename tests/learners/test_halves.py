"""The two halves of a step, own losses, and what learners refuse."""

import io

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.cells.base import AbstractCell

pytestmark = pytest.mark.usefixtures("compile_fast")
STEPS = 12


class Leak(AbstractCell):
    """A cell of one's own: h <- tanh(W x + decay h), with nothing but what a cell must have."""

    weight: jax.Array
    decay: jax.Array

    @property
    def inputs(self):
        return self.weight.shape[1]

    @property
    def feature_count(self):
        return self.weight.shape[0]

    def init(self):
        return ow.Carry(jnp.zeros_like(self.decay), ())

    def __call__(self, carry, x, *, key=None):
        return ow.Carry(jnp.tanh(self.weight @ x + self.decay * carry.hidden), ())

    def features(self, carry, *, key=None):
        return carry.hidden


def model():
    cell = Leak(0.5 * jax.random.normal(jax.random.key(3), (4, 3)), jnp.linspace(0.1, 0.9, 4))
    return eqx.tree_at(lambda m: m.head.weight, ow.Model(cell, ow.Linear(4)), jnp.arange(1.0, 5.0))


def stream(streams=None):
    rng = np.random.default_rng(0)
    shape = (STEPS,) if streams is None else (STEPS, streams)
    reset = np.zeros((STEPS, streams or 1), bool)
    reset[5, 0] = reset[8, -1] = True
    floats = lambda a: jnp.asarray(a, jnp.float32)
    x, y, weight = rng.normal(size=(*shape, 3)), rng.normal(size=shape), rng.choice([0, 0.5, 1], shape)
    return ow.Step(floats(x), floats(y), floats(weight), jnp.asarray(reset.reshape(shape)))


def sequences(steps=5, batch=3, outputs=1):
    rng = np.random.default_rng(1)
    floats = lambda a: jnp.asarray(a, jnp.float32)
    shape = (outputs, batch)
    return ow.Sequence(floats(rng.normal(size=(steps, batch, 3))), floats(rng.normal(size=shape)), jnp.ones(shape))


def at(tree, t):
    return jax.tree.map(lambda a: a[t], tree)


def online(objective=None, streams=None, optimiser=None):
    return ow.Online(ow.RTRL(), objective or ow.Supervised(), optimiser or optax.sgd(0.1), streams=streams)


def scan(step, state, examples):
    return jax.jit(lambda s: jax.lax.scan(step, s, examples))(state)


def same(a, b):
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def arrays(tree):
    return jax.tree.map(
        lambda a: jax.random.key_data(a) if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key) else a,
        eqx.filter(tree, eqx.is_array),
    )


LEARNERS = {
    "Online": lambda: online(),
    "Online, TD": lambda: online(ow.TDLambda(0.9)),
    "Online, streams": lambda: online(streams=2),
    "Watched": lambda: ow.Watched(online(), (ow.UORO(),)),
    "Late": lambda: ow.Late(online(), 3),
    "Late by 1, streams": lambda: ow.Late(online(streams=2), 1),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_step_is_its_two_halves(name, key):
    """To the bit: read, then learn; of late targets learn, then read."""
    learner, late = LEARNERS[name](), name.startswith("Late")
    steps = stream(2 if "streams" in name else None)
    state = learner.init(model(), at(steps, 0), key=key)

    def halves(state, example):
        if late:
            state, info = learner.learn(state, example)
            state, prediction = learner.read(state, example.x, example.reset)
            return state, (prediction, info.loss)
        state, prediction = learner.read(state, example.x, example.reset)
        state, info = learner.learn(state, example)
        return state, (prediction, info.loss)

    whole, info = scan(learner.step, state, steps)
    parts, said = scan(halves, state, steps)
    same(arrays(whole), arrays(parts))
    same((info.prediction, info.loss), said)
    assert not np.array_equal(whole.model.head.weight, model().head.weight)


def test_late_by_one_is_learning_before_reading(key):
    """A twin by hand: `Online` itself, told first and asked then; the first row has no prediction to learn from."""
    steps, learner = stream(), online()
    steps = steps._replace(weight=steps.weight.at[0].set(1))
    twin = lambda s, e: (lambda s, i: (lambda s, p: (s, ow.Info(p, i.loss)))(*learner.read(s, e.x, e.reset)))(
        *learner.learn(s, e)
    )
    late = ow.Late(learner, 1)
    state, info = scan(late.step, late.init(model(), at(steps, 0), key=key), steps)
    hand = steps._replace(weight=steps.weight.at[0].set(0))
    other, told = scan(twin, learner.init(model(), at(steps, 0), key=key), hand)
    same(arrays(state.online), arrays(other))
    same(info, told)


@pytest.mark.parametrize("name", ["Online", "Late", "Watched"])
def test_reading_alone_predicts_and_leaves_the_weights(name, key):
    learner, steps = LEARNERS[name](), stream()
    state = learner.init(model(), at(steps, 0), key=key)
    after, said = scan(lambda s, e: learner.read(s, e.x), state, steps)
    same(arrays(after.model), arrays(state.model))
    plain = jax.lax.scan(lambda c, x: model()(c, x), model().init(), steps.x)[1]
    np.testing.assert_allclose(said, plain, rtol=1e-6)
    assert np.abs(said).min() > 1e-3


def test_a_step_may_leave_out_what_it_does_not_say(key):
    """Defaults are those written out, alone and in streams, under jit and scan and outside of both."""
    for streams in (None, 2):
        learner, steps = online(streams=streams), stream(streams)
        shape = steps.y.shape
        full = steps._replace(weight=jnp.ones(shape), reset=jnp.zeros(shape, bool))
        state = learner.init(model(), ow.Step(steps.x[0], steps.y[0]), key=key)
        short = lambda s, xy, learner=learner: learner.step(s, ow.Step(*xy))
        want, told = scan(learner.step, state, full)
        got, said = scan(short, state, (steps.x, steps.y))
        same((arrays(got), said), (arrays(want), told))
        eager, _ = short(state, (np.asarray(steps.x[0]), steps.y[0]))
        compiled, _ = jax.jit(short)(state, (steps.x[0], steps.y[0]))
        same(arrays(eager), arrays(compiled))
    assert ow.Step(jnp.ones(3), 1.0)[2:] == (1.0, False, None, None)
    many = jax.vmap(lambda y: learner.step(state, ow.Step(steps.x[0], y))[1].loss)(jnp.ones((5, 2)))
    assert many.shape == (5, 2)


def absolute(head, prediction, y):
    return jnp.abs(head.mean(prediction) - y)


def test_an_own_loss_is_written_once(key):
    """Online with exact traces and one update at the end, and BPTT: both the gradient of the loss by hand."""
    example, own = sequences(batch=1), ow.Supervised(absolute)

    def by_hand(model):
        carry = jax.lax.scan(lambda c, x: (model.cell(c, x), None), model.init(), example.xs[:, 0])[0]
        return jnp.abs(model.head(model.features(carry)) - example.y[0, 0])

    wanted = jax.tree.map(lambda w, g: w - g, model(), jax.grad(by_hand)(model()))
    batches = ow.BPTT(optax.sgd(1.0), objective=own)
    whole, info = batches.step(batches.init(model(), example, key=key), example)
    late = jnp.zeros(5).at[-1].set(1)
    steps = ow.Step(example.xs[:, 0], jnp.full(5, example.y[0, 0]), late, jnp.zeros(5, bool))
    learner = online(own, optimiser=optax.sgd(1.0))
    stepped, told = scan(learner.step, learner.init(model(), at(steps, 0), key=key), steps)
    for found in (whole.model, stepped.model):
        for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose([info.loss, told.loss[-1]], by_hand(model()), rtol=1e-6)


def test_tptt_descends_an_own_loss(key):
    """The head's gradient is that of the loss; a fault, the default loss, would be another number."""
    example = sequences(outputs=2)
    gradient = lambda objective: (lambda made: made.propagate(made.init(model(), example, key=key), example, key=key))(
        ow.TPTT(ow.AffineInverse(), optax.sgd(1.0), objective=objective)
    )
    carries = jax.vmap(lambda xs: jax.lax.scan(lambda c, x: (model().cell(c, x),) * 2, model().init(), xs)[1])(
        example.xs.swapaxes(0, 1)
    )
    h = carries.hidden[:, -2:].swapaxes(0, 1)
    total = lambda head: jnp.sum(jnp.abs(jax.vmap(jax.vmap(head))(h) - example.y))
    loss, wanted = jax.value_and_grad(total)(model().head)
    own, plain = gradient(ow.Supervised(absolute)), gradient(ow.Supervised())
    np.testing.assert_allclose(own.loss, loss, rtol=1e-6)
    np.testing.assert_allclose(own.gradient.head.weight, wanted.weight, rtol=1e-5)
    assert not np.allclose(plain.gradient.head.weight, wanted.weight, rtol=1e-2)


def test_losses_and_objectives_that_do_not_fit_are_named(key):
    for make in (ow.BPTT, lambda *a, **k: ow.TPTT(ow.AffineInverse(), *a, **k)):
        with pytest.raises(TypeError, match=r"PTT needs the loss of each instant by itself, .*, not TDLambda"):
            make(optax.sgd(0.1), objective=ow.TDLambda())
    with pytest.raises(TypeError, match=r"loss must be a function \(head, prediction, y\) -> scalar, got 'l1'"):
        ow.Supervised("l1")
    learner = online(ow.Supervised(lambda head, prediction, y: jnp.ones(2)))
    example = ow.Step(jnp.ones(3), 1.0)
    with pytest.raises(ValueError, match=r"loss must give one number, got shape \(2,\)"):
        learner.step(learner.init(model(), example, key=key), example)


def test_a_negative_weight_counts_as_given(key):
    """As much away from a target as a positive one moves towards it, online and in batches."""
    sgd = optax.sgd(0.1)

    def move(learner, example):
        after, _ = learner.step(learner.init(model(), example, key=key), example)
        return jax.tree.map(jnp.subtract, after.model, model())

    step, batch = ow.Step(jnp.ones(3), 1.0), sequences()
    down, up = (move(online(optimiser=sgd), step._replace(weight=w)) for w in (0.5, -0.5))
    # In batches the weight of all is one: of three rows one is negated, and the step is the mean of the three.
    for learner in (ow.BPTT(sgd), ow.TPTT(ow.IdentityInverse(), sgd)):
        rows = [move(learner, jax.tree.map(lambda a, i=i: a[:, i : i + 1], batch)) for i in range(3)]
        mixed = move(learner, batch._replace(mask=jnp.array([[1.0, -1.0, 1.0]])))
        wanted = jax.tree.map(lambda a, b, c: (a - b + c) / 3, *rows)
        for a, b in zip(*map(jax.tree.leaves, (mixed, wanted)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(*map(jax.tree.leaves, (down, up)), strict=True):
        np.testing.assert_allclose(a, -b, rtol=1e-5, atol=1e-7)
    assert np.abs(down.cell.weight).min() > 0


def test_a_negative_weight_takes_a_count_back(key):
    learner = ow.Frequencies(pseudo=1.0)
    example = ow.Step(jnp.zeros(1), jnp.ones(1))
    start = learner.init(ow.Model(ow.Echo(1), ow.Bernoulli(1, outputs=1)), example, key=key)
    once, _ = learner.step(start, example)
    back, info = learner.step(once, example._replace(weight=-1.0))
    same(back.counts, start.counts)
    np.testing.assert_allclose(info.loss, np.log(2 / 3), rtol=1e-6)  # minus one times -log p


@pytest.mark.parametrize("traced", [False, True])
def test_an_array_of_step_sizes_is_refused(traced, key):
    def run(sizes):
        for make, example in (
            (lambda s: ow.Online(ow.RTRL(), ow.Supervised(), optax.sgd(1.0), s), ow.Step(jnp.ones(3), 1.0)),
            (lambda s: ow.BPTT(optax.sgd(1.0), s), sequences()),
            (lambda s: ow.TPTT(ow.IdentityInverse(), optax.sgd(1.0), step_size=s), sequences()),
        ):
            state = make(1.0).init(model(), example, key=key)
            for ask in (lambda m: m.init(model(), example, key=key), lambda m: m.step(state, example)):  # noqa: B023
                with pytest.raises(
                    ValueError, match=r"step_size must be a scalar, got an array of shape \(2,\); .*vmap"
                ):
                    ask(make(sizes))
        return sizes

    (jax.jit(run) if traced else run)(jnp.array([0.1, 0.2]))


def test_a_step_outside_jit_is_traced_once(key):
    """Seen by a loss that counts how often it is traced: values of Python numbers make no other program."""
    traced = []

    def loss(head, prediction, y):
        traced.append(1)
        return absolute(head, prediction, y)

    learner = online(ow.Supervised(loss))
    state = learner.init(model(), ow.Step(jnp.ones(3), 1.0), key=key)
    state, _ = learner.step(state, ow.Step(jnp.ones(3), 1.0))
    once = len(traced)
    for y in (2.0, 3.0):
        state, _ = learner.step(state, ow.Step(jnp.ones(3), y, weight=0.25 * y))
    assert len(traced) == once > 0


def test_equinox_does_not_write_a_state_in_silence(key):
    """JAX's typed keys are no arrays to equinox, which names the leaf; nothing is left out in silence."""
    state = online().init(model(), ow.Step(jnp.ones(3), 1.0), key=key)
    with pytest.raises(Exception, match=r"Error at leaf with path .*name='key'"):
        eqx.tree_serialise_leaves(io.BytesIO(), state)


def test_an_observation_of_another_width_is_named(key):
    example, wide = ow.Step(jnp.ones(3), 1.0), ow.Step(jnp.ones(5), 1.0)
    learner, late = online(), ow.Late(online(), 2)
    match = r"the Leak reads 3 inputs, so x must have shape \(3,\); the stream has \(5,\)"
    with pytest.raises(ValueError, match=match):
        learner.init(model(), wide, key=key)
    for made in (learner, late):
        state = made.init(model(), example, key=key)
        for ask in (lambda m, s: m.step(s, wide), lambda m, s: m.read(s, wide.x)):
            with pytest.raises(ValueError, match=match):
                ask(made, state)
    with pytest.raises(ValueError, match=r"3 inputs in each of 2 streams, so x must have shape \(2, 3\); .*\(3,\)"):
        online(streams=2).init(model(), example, key=key)
    batches, batch = ow.BPTT(optax.sgd(0.1)), sequences()._replace(xs=jnp.ones((5, 3, 4)))
    with pytest.raises(ValueError, match=r"BPTT needs xs of shape \(time, batch, 3\), the task gives \(5, 3, 4\)"):
        batches.init(model(), batch, key=key)


OPTIMISERS = {
    "adam": lambda: optax.adam(0.01),
    "sgd": lambda: optax.sgd(0.01),
    "adafactor": lambda: optax.adafactor(0.01),
    "reduce_on_plateau": lambda: optax.chain(optax.adam(0.01), optax.contrib.reduce_on_plateau()),
    "polyak_sgd": lambda: optax.polyak_sgd(),
    "momo": lambda: optax.contrib.momo(),
    "prodigy": lambda: optax.contrib.prodigy(),
    "lbfgs": lambda: optax.lbfgs(),
    "rms": lambda: ow.rms(),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_get_what_they_want_or_are_refused(name, key):
    """`value` and `grad` are given; a line search, which wants the function itself, is refused by name."""
    rule = OPTIMISERS[name]()
    batch, step = sequences(), ow.Step(jnp.ones(3), 1.0)
    learners = [(online(optimiser=rule), step), (online(optimiser=rule, streams=2), stream(2)), (ow.BPTT(rule), batch)]
    learners += [(ow.TPTT(ow.AffineInverse(), rule), batch)]
    for learner, example in learners:
        first = at(example, 0) if example is not step and learner is learners[1][0] else example
        if name == "lbfgs":
            with pytest.raises(TypeError, match=r"the optimiser wants .*'value_fn'.*linesearch=None"):
                learner.init(model(), first, key=key)
            continue
        state = eqx.filter_eval_shape(learner.init, model(), first, key=key)
        after, _ = eqx.filter_eval_shape(learner.step, state, first)
        assert jax.tree.structure(after) == jax.tree.structure(state)


def test_polyak_steps_by_the_loss(key):
    """The value that reaches the optimiser is the loss: one step of Polyak is loss / |gradient|^2."""
    learner = online(optimiser=optax.polyak_sgd(max_learning_rate=1e9), objective=ow.Supervised(absolute))
    example = ow.Step(jnp.ones(3), 1.0)
    loss = lambda m: jnp.abs(m(m.init(), example.x)[1] - 1.0)
    value, gradient = jax.value_and_grad(loss)(model())
    size = value / sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient))
    wanted = jax.tree.map(lambda w, g: w - size * g, model(), gradient)
    after, _ = learner.step(learner.init(model(), example, key=key), example)
    for a, b in zip(*map(jax.tree.leaves, (after.model, wanted)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_only_what_grows_needs_to_say_how(key):
    """A cell, a head and an objective of one's own without `grow` learn; they are named where growth is asked for."""
    learner, example = online(), ow.Step(jnp.ones(3), 1.0)
    with pytest.raises(TypeError, match="only a Cascade grows, got Leak"):
        learner.grow(learner.init(model(), example, key=key), example)
    head, objective = ow.Linear.__mro__[1], ow.Supervised.__mro__[1]
    assert not head.grow.__dict__.get("__isabstractmethod__")
    assert not objective.grow.__dict__.get("__isabstractmethod__")
    with pytest.raises(TypeError, match=r"Linear has no grow\(features\)"):
        head.grow(ow.Linear(4), 5)
    with pytest.raises(TypeError, match=r"Supervised has no grow\(state, model\)"):
        objective.grow(ow.Supervised(), (), model())
