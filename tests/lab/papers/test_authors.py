"""The authors' variants: against losses written out again, against PyTorch's in-place autograd, and each switch against its undoing."""

import functools
import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.lab.papers.authors import AuthorsSTE, AuthorsTPTT, adagrad, start
from onward.lab.papers.authors_heads import VarianceMixture
from onward.learners.tptt import TPTTState
from onward.random import seed_of, uniform
from onward.tasks.one_to_many import OneToManyClasses, OneToManyMixture
from onward.types import Sequence
from onward.verify import in_float64

# Tiny programs that run once: compile them fast rather than well.
quick = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)
TIME, BATCH, UNITS, SAMPLES, CLASSES = 3, 6, 4, 3, 10
KEY = jax.random.key(7)


@functools.cache
def mixture(units=UNITS):
    """A deterministic network with a mixture to answer."""

    def build(key):
        return start(ow.Model(ow.Elman(1, units, key=key), VarianceMixture(ow.Mixture(units, 3))), key=key)

    return jax.device_get(quick(build)(jax.random.key(1)))


@functools.cache
def classes(samples=SAMPLES, share=0.5, units=UNITS):
    """A stochastic network with classes to answer."""

    def build(key):
        cell = ow.Hybrid(ow.Elman(1, units, key=key, activation="sigmoid"), share)
        return start(ow.Model(cell, ow.MonteCarlo(ow.Categorical(units, CLASSES), samples)), key=key)

    return jax.device_get(quick(build)(jax.random.key(1)))


@functools.cache
def batch_of(task):
    return jax.device_get(quick(lambda key: task.emit(task.init(key))[1])(jax.random.key(3)))


MIXED = OneToManyMixture(TIME, BATCH)
CLASSED = OneToManyClasses(TIME, BATCH)


@quick
def run(learner, model, example, blind):
    """A state and what one batch says. `blind`: G ignores h at the start. The learner is an argument: one program serves all rates."""
    state = in_float64(learner.init(model, example, key=jax.random.key(4)))
    state = state._replace(inverse=state.inverse._replace(hidden=jnp.where(blind, 0, state.inverse.hidden)))
    return state, learner.propagate(state, example, key=KEY)


def propagated(learner, model, example, blind=False):
    """In float64, where differences of G need not be taken analytically."""
    with jax.enable_x64(True):
        return jax.device_get(run(learner, *as_float64(model, example), blind))


def as_float64(*trees):
    return jax.tree.map(lambda a: np.asarray(a, float) if eqx.is_inexact_array_like(a) else a, trees)


@quick
def graded(learner, model, example):
    """The loss of straight-through BPTT, and its gradient."""
    parameters, rest = eqx.partition(model, eqx.is_inexact_array)
    loss = lambda p: learner.loss(eqx.combine(p, rest), example, key=KEY)[0]
    return jax.value_and_grad(loss)(parameters)


def assert_close(ours, theirs, **tolerances):
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, **tolerances)


def steps_of(cell):
    layer = cell.cell if isinstance(cell, ow.Hybrid) else cell
    activation = jax.nn.sigmoid if isinstance(cell, ow.Hybrid) else jnp.tanh
    return lambda h, x: activation(x @ layer.weight[:, 0] + h @ layer.recurrent[:, 0] + layer.bias[None])


def draws(key, samples, learner, time=TIME):
    """The z of readings 1 .. time, (samples, batch, units), and where they are used."""
    rows = learner.split == "rows"
    shape = (samples, BATCH // 2, UNITS) if rows else (samples, BATCH, UNITS // 2)
    lanes = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    padding = [(0, 0), (0, BATCH - shape[1]), (0, UNITS - shape[2])]
    z = [jnp.pad(uniform(seed_of(key), jnp.asarray(t), lanes).reshape(shape), padding) for t in range(1, time + 1)]
    used = jnp.zeros((samples, BATCH, UNITS), bool)
    return z, used.at[:, : BATCH // 2].set(True) if rows else used.at[:, :, : UNITS // 2].set(True)


def unroll(learner, cell, xs, key, samples, cut=False):
    """Lists of h_t and of what is read of them."""
    step, hidden, reading = steps_of(cell), [], []
    z, used = draws(key, samples, learner)
    h = jnp.zeros((samples, BATCH, UNITS))
    for t in range(TIME):
        read = reading[-1] if reading else h
        mean = step(jax.lax.stop_gradient(read) if cut else read, xs[t][None])
        fires = (z[t] > mean) if learner.reversed_firing else (z[t] < mean)
        through = 0 if learner.in_place else mean - jax.lax.stop_gradient(mean)
        stochastic = isinstance(cell, ow.Hybrid)
        reading.append(jnp.where(used, fires + through, mean) if stochastic else mean)
        hidden.append(mean)
    return hidden, reading


def energy(learner, model, reading, example):
    """E from readings (samples, batch, units)."""
    if not isinstance(model.head, ow.MonteCarlo):
        return -jnp.mean(jax.vmap(lambda f, y: model.head.log_prob(model.head(f), y))(reading[0], example.y[0]))
    logits = reading @ model.head.head.weight.T + model.head.head.bias[None, None]
    one_hot = jax.nn.one_hot(example.y[0], CLASSES)
    logits_first = learner.average == "logits"
    p = jax.nn.softmax(jnp.mean(logits, 0)) if logits_first else jnp.mean(jax.nn.softmax(logits), 0)
    return -jnp.mean(jnp.log(jnp.sum(p * one_hot, -1)))


SWITCHES = [
    {},
    {"split": "units", "in_place": False, "reversed_firing": True, "shared_inputs": False},
    {"average": "logits", "last_sample": False, "detached": True},
]


def written_out(learner, model, inverse, example):
    """What is propagated, from losses written out step by step, with G's update by AdaGrad."""
    inverse_key, trained_key, other_key = jax.random.split(KEY, 3)
    xs, samples = example.xs, model.head.trajectories or 1
    trained = 1 if learner.last_sample else samples
    layer = model.cell.cell if isinstance(model.cell, ow.Hybrid) else model.cell

    def g(weights, x, h):
        inputs = layer.weight[:, 0] if learner.shared_inputs else weights.inputs
        return jnp.tanh(x @ inputs + h @ weights.hidden + weights.bias[None, None])

    def reconstruction(weights):
        hidden = unroll(learner, model.cell, xs, inverse_key, 1)[0]
        return sum(jnp.mean((g(weights, xs[t][None], hidden[t]) - hidden[t - 1]) ** 2) for t in range(1, TIME))

    inverse_loss, of_inverse = jax.value_and_grad(reconstruction)(inverse)
    inverse = jax.tree.map(lambda w, g: w - learner.inverse_step_size * g / (jnp.abs(g) + 1e-10), inverse, of_inverse)

    def overwritten(cell):
        hidden, reading = unroll(learner, cell, xs, trained_key, trained, learner.detached)
        return [*hidden[:-1], reading[-1] if learner.in_place else hidden[-1]], reading[-1]

    hidden, reading = overwritten(model.cell)
    others = unroll(learner, model.cell, xs, other_key, samples - trained)[1][-1] if samples > trained else reading[:0]

    def loss(head, reading):
        return energy(learner, ow.Model(model.cell, head), jnp.concatenate([others, reading]), example)

    targets = [hidden[-1] - learner.target_step_size * jax.grad(loss, argnums=1)(model.head, reading)]
    for t in range(TIME - 1, 0, -1):
        x = xs[t][None]
        targets.insert(0, hidden[t - 1] - g(inverse, x, hidden[t]) + g(inverse, x, targets[0]))

    def local(cell):
        h = overwritten(cell)[0]
        return sum(jnp.sum((h[t] - jax.lax.stop_gradient(targets[t])) ** 2) for t in range(TIME)) / (BATCH * UNITS)

    gradient = eqx.filter_grad(local)(model.cell), eqx.filter_grad(lambda head: loss(head, reading))(model.head)
    return inverse_loss, of_inverse, inverse, loss(model.head, reading), local(model.cell), gradient


@pytest.mark.parametrize("kind", ["mixture", *range(len(SWITCHES))])
def test_gradient_of_tptt_is_that_of_the_losses_written_out(kind):
    switches = {} if kind == "mixture" else SWITCHES[kind]
    model, task = (mixture(), MIXED) if kind == "mixture" else (classes(), CLASSED)
    rates = {"step_size": 0.1, "inverse_step_size": 0.2, "target_step_size": 0.7}
    learner, example = AuthorsTPTT(**rates, **switches), batch_of(task)
    state, passed = propagated(learner, model, example)
    with jax.enable_x64(True):
        model, example = as_float64(model, example)
        expected = jax.device_get(quick(functools.partial(written_out, learner))(model, state.inverse, example))
    found = (passed.inverse_loss, passed.inverse_gradient, passed.inverse, passed.loss, passed.local_loss)
    found = *found, (passed.gradient.cell, passed.gradient.head)
    assert all(np.abs(a).max() > 0 for a in jax.tree.leaves(found[-1]))
    # Targets are 1e-4 from h and less: naive differences keep some 10 digits of them.
    assert_close(found, expected, rtol=1e-7, atol=1e-14)


@pytest.mark.parametrize(
    "switches", [{}, {"last_sample": False, "in_place": False, "split": "units", "average": "probabilities"}]
)
def test_gradient_of_ste_is_that_of_the_loss_written_out(switches):
    learner, model, example = AuthorsSTE(**switches), classes(), batch_of(CLASSED)
    trained = 1 if learner.last_sample else SAMPLES
    trained_key, other_key = jax.random.split(KEY)

    def loss(model):
        reading = unroll(learner, model.cell, example.xs, trained_key, trained)[1][-1]
        if not learner.last_sample:
            return energy(learner, model, reading, example)
        fixed = jax.tree.map(jax.lax.stop_gradient, model)
        others = unroll(learner, fixed.cell, example.xs, other_key, SAMPLES - 1)[1][-1]
        read = lambda m, r: jax.nn.log_softmax(r @ m.head.head.weight.T + m.head.head.bias[None, None])
        last = read(model, reading)
        each = jnp.concatenate([read(fixed, others), jax.lax.stop_gradient(last)])
        each = each + (last - jax.lax.stop_gradient(last))
        one_hot = jax.nn.one_hot(example.y[0], CLASSES)
        if learner.average == "logits":
            return -jnp.mean(jnp.sum(jax.nn.log_softmax(jnp.mean(each, 0)) * one_hot, -1))
        return -jnp.mean(jnp.log(jnp.sum(jnp.mean(jnp.exp(each), 0) * one_hot, -1)))

    expected = quick(lambda m: eqx.filter_value_and_grad(loss)(m))(model)
    assert_close(graded(learner, model, example), expected, rtol=1e-4, atol=1e-6)  # float32


def test_last_steps_local_loss_alone_is_backpropagation_through_time():
    """Where G ignores h, and does not learn, no other step has a target of its own."""
    learner = AuthorsTPTT(inverse_step_size=np.zeros(()), target_step_size=0.7)
    passed = propagated(learner, mixture(), batch_of(MIXED), blind=True)[1]
    assert not passed.shifts[:-1].any()
    with jax.enable_x64(True):
        bptt = jax.device_get(graded(AuthorsSTE(), *as_float64(mixture(), batch_of(MIXED)))[1])
    scale = 2 * 0.7 / (BATCH * UNITS)
    assert_close(passed.gradient.cell, jax.tree.map(lambda g: scale * g, bptt.cell), rtol=1e-9, atol=1e-18)
    assert_close(passed.gradient.head, bptt.head, rtol=1e-9, atol=1e-15)


def test_detached_it_is_the_librarys_local_gradient():
    """Its shifts with alpha_i / batch; a mean over units and a square without the half: 2 / units."""
    model, example = as_float64(mixture(), batch_of(MIXED))
    state, passed = propagated(AuthorsTPTT(detached=True, target_step_size=BATCH * 0.7), model, example)
    honest = ow.TPTT(ow.AffineInverse(), adagrad(), target_step_size=0.7)

    @quick
    def library(state, inverse):
        # G has input weights of its own there: here F's.
        state = state._replace(inverse=inverse._replace(inputs=state.model.cell.weight[:, 0]))
        return honest.propagate(state, example, key=KEY, keep=True)

    with jax.enable_x64(True):
        before, after = (jax.device_get(library(state, i)) for i in (state.inverse, passed.inverse))
    times = lambda factor, tree: jax.tree.map(lambda a: factor * a, tree)
    close = functools.partial(assert_close, rtol=1e-9, atol=1e-15)
    close(passed.shifts[:, 0], after.shifts[0])
    close(passed.gradient.cell, times(2 / UNITS / after.weight, after.gradient.cell))
    close(passed.gradient.head, times(1 / after.weight, after.gradient.head))
    close(passed.inverse_gradient[1:], times(2 * (TIME - 1) / UNITS / before.transitions, before.inverse_gradient[1:]))
    assert not passed.inverse_gradient.inputs.any()


def test_leaving_earlier_steps_in_the_graph_moves_the_gradient():
    model, example = mixture(), batch_of(MIXED)
    cells = [propagated(AuthorsTPTT(detached=d), model, example)[1].gradient.cell for d in (False, True)]
    whole, local = (np.concatenate([np.ravel(a) for a in jax.tree.leaves(c)]) for c in cells)
    assert np.linalg.norm(whole - local) > 0.1 * np.linalg.norm(local)


@quick
def many_readings(learner, cell, xs):
    hidden, reading = learner.unroll(cell, xs, KEY, 4000)
    return hidden[-1], reading


def readings(learner):
    return jax.device_get(many_readings(learner, classes().cell, batch_of(CLASSED).xs))


def test_half_of_the_rows_is_sampled_or_half_of_the_units():
    hidden, reading = readings(AuthorsSTE())
    binary = np.isin(reading, (0, 1)).all(0)
    assert binary[: BATCH // 2].all()
    assert not binary[BATCH // 2 :].any()
    assert (reading == hidden)[:, BATCH // 2 :].all()
    binary = np.isin(readings(AuthorsSTE(split="units"))[1], (0, 1)).all(0)
    assert binary[:, : UNITS // 2].all()
    assert not binary[:, UNITS // 2 :].any()


@pytest.mark.parametrize("reverse", [False, True])
def test_units_fire_as_often_as_h_or_reversed_as_often_as_not(reverse):
    hidden, reading = readings(AuthorsSTE(reversed_firing=reverse))
    half = slice(BATCH // 2)
    expected = (1 - hidden if reverse else hidden)[:, half]
    error = np.mean(reading[:, half] - expected, 0)
    # Five standard errors of a mean of 4000 coins.
    assert abs(error).max() < 5 * 0.5 / 4000**0.5
    assert abs(hidden[:, half] - 0.5).mean() > 5 * 0.5 / 4000**0.5, "a fair coin would tell nothing"


def test_no_gradient_passes_through_a_sampled_row_in_place():
    """The error of sampled rows alone: exactly nothing for the recurrent weights, though the readout learns."""
    example, model = batch_of(CLASSED), classes()
    example = example._replace(mask=np.float32(np.arange(BATCH) < BATCH // 2)[None])
    tptt = propagated(AuthorsTPTT(inverse_step_size=np.zeros(())), model, example, blind=True)[1]
    assert np.abs(tptt.shifts[-1, 0, : BATCH // 2]).max() > 0
    in_place, through = (jax.device_get(graded(AuthorsSTE(in_place=p), model, example)[1]) for p in (True, False))
    for gradient in (in_place, tptt.gradient):
        assert not any(a.any() for a in jax.tree.leaves(gradient.cell))
        assert gradient.head.head.weight.any()
    assert all(a.any() for a in jax.tree.leaves(through.cell))


@pytest.mark.parametrize("kind", [AuthorsTPTT, AuthorsSTE])
def test_probabilities_averaged_are_another_objective_than_logits(kind):
    example, model = batch_of(CLASSED), classes()
    model = eqx.tree_at(lambda m: m.head.head.weight, model, 3 * model.head.head.weight)

    @quick
    def both(model):
        (one, p), (other, q) = (kind(average=a).loss(model, example, key=KEY) for a in ("probabilities", "logits"))
        return one, other, p, q, -jnp.mean(jax.vmap(model.head.log_prob)(q[0], example.y[0]))

    one, other, p, q, again = jax.device_get(both(model))
    assert abs(one - other) > 1e-3
    assert p.shape == q.shape == (1, BATCH, SAMPLES, CLASSES)
    # A geometric mean of samples, one distribution for all: what the head makes of it is the same number.
    np.testing.assert_allclose(other, again, rtol=1e-6)
    assert np.ptp(q, axis=2).max() == 0 < np.ptp(p, axis=2).max()


def test_without_stochastic_units_ste_is_the_librarys_bptt():
    model, example = mixture(), batch_of(MIXED)

    def end(learner):
        state, info = learner.step(learner.init(model, example, key=KEY), example)
        return state.model, info.loss, info.prediction

    both = quick(lambda: (end(AuthorsSTE(step_size=0.05)), end(ow.BPTT(adagrad(), 0.05))))
    assert_close(*both(), rtol=2e-5, atol=1e-6)


def test_adagrad_is_that_of_pytorch_where_gradients_are_tiny():
    rule, gradients = adagrad(), [np.array([1e-8, -2.0, 0.0], np.float32), np.array([1e-8, 1.0, 3.0], np.float32)]
    state, total = rule.init(jnp.zeros(3)), np.zeros(3)
    for gradient in gradients:
        update, state = rule.update(jnp.asarray(gradient), state)
        total += gradient.astype(float) ** 2
        np.testing.assert_allclose(update, -gradient / (np.sqrt(total) + 1e-10), rtol=1e-6)
    other = optax.scale_by_rss(initial_accumulator_value=0.0, eps=1e-10)
    moved = other.update(jnp.asarray(gradients[0]), other.init(jnp.zeros(3)))[0]
    assert abs(moved[0]) < 2e-3, "eps under the root: optax's differs"
    assert adagrad() is adagrad(), "or every learner would compile anew"


def test_start_is_orthogonal_and_unbiased():
    for model, blocks in ((mixture(), 3), (classes(), 1)):
        layer = getattr(model.cell, "cell", model.cell)
        head = model.head.head
        np.testing.assert_allclose(layer.recurrent[:, 0] @ layer.recurrent[:, 0].T, np.eye(UNITS), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(layer.weight), 1, rtol=1e-6)
        assert not layer.bias.any()
        assert not head.bias.any()
        for part in np.split(head.weight, blocks):
            short = part if len(part) <= UNITS else part.T
            np.testing.assert_allclose(short @ short.T, np.eye(len(short)), atol=1e-6)


def test_variance_is_the_exponential_of_what_is_read():
    head = mixture().head
    f, y = np.arange(1.0, UNITS + 1, dtype=np.float32), np.float32(0.3)
    a, mu, r = np.split(head.head.weight @ f, 3)
    variance = np.exp(r)
    density = (
        np.exp(a) / np.exp(a).sum() @ (np.exp(-((0.3 - mu) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance))
    )
    more = np.arange(1.0, UNITS + 3, dtype=np.float32)
    answers = quick(
        lambda h: (h.log_prob(h(f), y), h.mean(h(f)), h.grow(UNITS + 2)(more) - h(f), h.sample(h(f), key=KEY))
    )
    log_prob, mean, grown, sample = answers(head)
    np.testing.assert_allclose(log_prob, np.log(density), rtol=1e-5)
    np.testing.assert_allclose(mean, np.exp(a) / np.exp(a).sum() @ mu, rtol=1e-5)
    np.testing.assert_allclose(grown, 0, atol=1e-6)
    assert sample.shape == ()


@quick
def train(learner, model, example):
    state = learner.init(model, example, key=KEY)
    end, losses = jax.lax.scan(lambda s, _: ((t := learner.step(s, example))[0], t[1].loss), state, None, length=100)
    return state, end, losses


@pytest.mark.parametrize("kind", ["tptt", "stptt", "ste"])
def test_a_hundred_iterations_lower_the_loss(kind):
    stochastic = kind in ("stptt", "ste")
    task = (OneToManyClasses if stochastic else OneToManyMixture)(3, 40)
    model = classes(units=12, samples=4) if stochastic else mixture(units=12)
    learner = {
        "tptt": AuthorsTPTT(step_size=0.05, inverse_step_size=1e-3, target_step_size=1.0),
        "stptt": AuthorsTPTT(step_size=0.1, inverse_step_size=1e-5, target_step_size=0.1),
    }.get(kind, AuthorsSTE(step_size=0.1))
    first, state, losses = jax.device_get(train(learner, model, batch_of(task)))
    assert np.isfinite(losses).all()
    assert losses[-10:].mean() < losses[0] - 0.1
    assert int(state.steps) == 100
    if kind.endswith("tptt"):
        assert (state.inverse.inputs == first.inverse.inputs).all(), "G reads x through F's weights"
        assert (state.inverse.hidden != first.inverse.hidden).any()
        assert isinstance(state, TPTTState)


def test_mistakes_are_refused():
    rates_of = {AuthorsTPTT: ("step_size", "inverse_step_size", "target_step_size"), AuthorsSTE: ("step_size",)}
    for kind, rates in rates_of.items():
        for rate in rates:
            for value in (0, -1.0, math.nan, math.inf):
                with pytest.raises(ValueError, match=f"{kind.__name__}: {rate} must be positive and finite"):
                    kind(**{rate: value})
        with pytest.raises(ValueError, match="split must be 'units' or 'rows', got 'columns'"):
            kind(split="columns")
        with pytest.raises(ValueError, match="average must be 'probabilities' or 'logits', got 'odds'"):
            kind(average="odds")
        assert kind(step_size=np.asarray(0.1)).step_size == 0.1
    with pytest.raises(ValueError, match="reconstruction"):
        AuthorsTPTT(inverse=ow.AffineInverse(noise=0.1))
    learner, example, model = AuthorsTPTT(), batch_of(CLASSED), classes()
    with pytest.raises(TypeError, match="must be an Elman layer"):
        learner.init(ow.Model(ow.GRU(1, 4, key=KEY), ow.Categorical(4, 3)), example, key=KEY)
    with pytest.raises(TypeError, match="no mask and normalise nothing"):
        learner.init(ow.Model(ow.Elman(1, 4, key=KEY, mask=np.eye(4) > 0), ow.Categorical(4, 3)), example, key=KEY)
    other = ow.Model(model.cell, ow.MonteCarlo(ow.Mixture(UNITS, 2), 3))
    with pytest.raises(TypeError, match="logits to average are those of a Categorical"):
        AuthorsSTE().init(other, batch_of(MIXED), key=KEY)
    with pytest.raises(TypeError, match="Categorical or a Mixture"):
        start(ow.Model(model.cell, ow.Linear(UNITS)), key=KEY)
    with pytest.raises(ValueError, match="no whole row"):
        learner.init(model, jax.tree.map(lambda a: a[:, :1], example), key=KEY)
    whole = Sequence(example.xs, np.stack([example.y[0]] * TIME), np.ones((TIME, BATCH)))
    with pytest.raises(ValueError, match="at the last step only"):
        learner.init(model, whole, key=KEY)


@pytest.mark.parametrize("kind", ["stptt", "ste"])
def test_samples_in_place_as_pytorch_differentiates_them(kind):
    """Tensors overwritten in place, as in the authors' code; the same draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch", reason="PyTorch is an optional oracle (dependency group: oracles)")
        learner = (AuthorsTPTT if kind == "stptt" else AuthorsSTE)()
        model, example = classes(), batch_of(CLASSED)
        wanted = {"dtype": torch.float64}
        tensor = lambda a, grad=False: torch.tensor(np.asarray(a, float).tolist(), requires_grad=grad, **wanted)
        weights = lambda m: [
            m.cell.cell.weight[:, 0],
            m.cell.cell.recurrent[:, 0],
            m.cell.cell.bias[0],
            m.head.head.weight.T,
            m.head.head.bias,
        ]
        w, u, b, v, c = (tensor(a, True) for a in weights(model))
        xs, one_hot, half = tensor(example.xs), tensor(np.eye(CLASSES)[example.y[0]]), BATCH // 2

        def overwrite(h, z):
            h[:half] = (z[:half] < h[:half]).double()
            return h

        def forward(z):
            hidden, read = [], torch.zeros(BATCH, UNITS, dtype=torch.float64)
            for t in range(TIME):
                h = torch.sigmoid(xs[t] @ w + read @ u + b)
                hidden.append(h)
                read = overwrite(h.clone(), z[t])
            hidden[-1] = read
            return hidden

        if kind == "stptt":
            _, last_key, other_key = jax.random.split(KEY, 3)
        else:
            last_key, other_key = jax.random.split(KEY)
        of_key = lambda key, n: [tensor(z) for z in quick(lambda: draws(key, n, learner)[0])()]
        others = of_key(other_key, SAMPLES - 1)
        runs = [forward([z[i] for z in others]) for i in range(SAMPLES - 1)]
        hidden = forward([z[0] for z in of_key(last_key, 1)])
        if kind == "stptt":
            passed = propagated(learner, model, example)[1]
            last = hidden[-1].detach().requires_grad_(True)
            seen = [*(r[-1].detach() for r in runs), last]
            cost = -(one_hot * torch.log(sum(torch.softmax(h @ v + c, 1) for h in seen) / SAMPLES)).sum(1).mean()
            blame, *of_head = torch.autograd.grad(cost, (last, v, c))
            back, shift = tensor(passed.inverse.hidden), tensor(passed.inverse.bias)
            g = lambda t, h: torch.tanh(h @ back + xs[t] @ w + shift)
            with torch.no_grad():
                targets = [last - blame]
                for t in range(TIME - 1, 0, -1):
                    targets.insert(0, hidden[t - 1] - g(t, hidden[t]) + g(t, targets[0]))
            local = sum(((h - target) ** 2).mean() for h, target in zip(hidden, targets, strict=True))
            ours, loss, digits = passed.gradient, passed.loss, 1e-6
        else:
            logits = sum(r[-1] @ v + c for r in (*runs, hidden)) / SAMPLES
            cost = -(one_hot * torch.log_softmax(logits, 1)).sum(1).mean()
            # Their backward pass is written by hand, with h (1 - h) at what has overwritten h, from the last sample.
            blame = ((torch.softmax(logits, 1) - one_hot) / BATCH).detach()
            local = (blame * (hidden[-1] @ v + c)).sum()
            of_head = torch.autograd.grad(local, (v, c), retain_graph=True)
            (loss, ours), digits = jax.device_get(graded(learner, model, example)), 1e-4
        of_cell = torch.autograd.grad(local, (w, u, b))
    np.testing.assert_allclose(loss, cost.item(), rtol=digits)
    for mine, theirs in zip(weights(ours), (*of_cell, *of_head), strict=True):
        assert np.abs(mine).max() > 0
        np.testing.assert_allclose(mine, theirs.tolist(), rtol=digits, atol=1e-3 * digits)
