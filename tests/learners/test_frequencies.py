"""The predictor without memory, and counts as maximum likelihood: against counts made with numpy."""

import functools

import jax
import numpy as np
import optax
import pytest

import onward as ow

# Tiny programs that run once: compile them fast rather than well.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def steps(x, y, weight=None):
    """A stream as one `Step` with a leading axis of time."""
    n = len(x)
    weight = np.ones(n) if weight is None else weight
    f = lambda a: np.asarray(a, np.float32)
    return ow.Step(f(x), np.asarray(y), f(weight), np.zeros(n, bool), np.asarray(y))


def said(head):
    """Bias and weight of a head as float64."""
    return np.asarray(head.bias, float), np.asarray(head.weight, float)


def feed(learner, model, examples):
    """Learn from examples along the leading axis; the last state, and what was said of each."""

    @quick
    def run(examples):
        state = learner.init(model, jax.tree.map(lambda a: a[0], examples), key=jax.random.key(0))
        return jax.lax.scan(learner.step, state, examples)

    state, info = run(examples)
    return state, info._replace(loss=np.asarray(info.loss))


def bernoulli(inputs, outputs):
    return ow.Model(ow.Echo(inputs), ow.Bernoulli(inputs, outputs))


def categorical(inputs, classes):
    return ow.Model(ow.Echo(inputs), ow.Categorical(inputs, classes))


def bits_table(x, y, weight, *, last, shared):
    """Counts (groups, contexts, 2), in float64."""
    contexts = [x == 0, x == 1] if last else [np.ones(y.shape, bool)]
    table = np.stack([[(weight[:, None] * c * (y == v)).sum(0) for v in (0, 1)] for c in contexts])
    table = np.moveaxis(table, -1, 0)
    return table.sum(0, keepdims=True) if shared else table


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("given", ["nothing", "last"])
def test_bits_are_counted_exactly(given, shared, rng):
    n, k = 300, 3
    x, y = rng.integers(0, 2, (n, k)), rng.integers(0, 2, (n, k)) * [1, 1, 0]
    weight = rng.choice([0, 1, 2.5], n)
    learner = ow.Frequencies(given, shared, pseudo=0.25)
    dirty = weight == 0
    state, info = feed(
        learner, bernoulli(k, k), steps(np.where(dirty[:, None], 7, x), np.where(dirty[:, None], -3, y), weight)
    )
    last = given == "last"
    table = bits_table(x, y, weight, last=last, shared=shared)
    assert np.array_equal(np.asarray(state.counts) + np.asarray(state.rest), table)
    share = (table[..., 1] + 0.25) / (table.sum(-1) + 0.5)
    bias, diagonal = said(state.model.head)
    for context in (0, 1):
        p = 1 / (1 + np.exp(-bias - diagonal @ np.full(k, context)))
        np.testing.assert_allclose(p, np.broadcast_to(share[:, context * last], k), rtol=1e-5)
    # The loss is of the prediction made before: at first 1/2 each.
    at = np.flatnonzero(weight)
    np.testing.assert_allclose(info.loss[at[0]], weight[at[0]] * k * np.log(2), rtol=1e-6)
    before = bits_table(x[: at[-1]], y[: at[-1]], weight[: at[-1]], last=last, shared=shared)
    p = np.broadcast_to((before[..., 1] + 0.25) / (before.sum(-1) + 0.5), (k, 1 + last))
    p = p[np.arange(k), x[at[-1]] * last]
    expected = -weight[at[-1]] * np.log(np.where(y[at[-1]] == 1, p, 1 - p)).sum()
    np.testing.assert_allclose(info.loss[at[-1]], expected, rtol=1e-5)
    assert not info.loss[weight == 0].any()


@pytest.mark.parametrize("given", ["nothing", "last"])
def test_classes_are_counted_exactly(given, rng):
    n, k, classes = 400, 2, 3
    context, y = rng.integers(0, k + 1, n), rng.integers(0, classes, n)
    x = np.eye(k + 1)[context][:, 1:]  # context 0: all zeros
    state, info = feed(ow.Frequencies(given, pseudo=1.0), categorical(k, classes), steps(x, y))
    table = np.zeros((k + 1, classes))
    np.add.at(table, (context, y), 1)
    table = table if given == "last" else table.sum(0, keepdims=True)
    assert np.array_equal(state.counts[0], table)
    share = (table + 1) / (table.sum(1, keepdims=True) + classes)
    bias, weights = said(state.model.head)
    for i, one in enumerate(np.eye(k + 1)[:, 1:]):
        p = np.exp(bias + weights @ one)
        np.testing.assert_allclose(p / p.sum(), share[i % len(share)], rtol=1e-5)
    if given == "nothing":
        assert bias.argmax() == np.bincount(y).argmax(), "the majority class"
    np.testing.assert_allclose(info.loss[0], np.log(classes), rtol=1e-6)


@pytest.mark.parametrize("outputs", [2, 5])
def test_sequences_count_where_the_mask_says(outputs, rng):
    time, batch, k, batches = 5, 4, 2, 3
    xs = rng.integers(0, 2, (batches, time, batch, k))
    y = rng.integers(0, 2, (batches, outputs, batch, k))
    mask = rng.choice([0, 1, 0.5], (batches, outputs, batch))
    mask[:, 0, 0] = 1
    dirty = (mask == 0)[..., None]
    read = xs[:, time - outputs :]
    xs[:, time - outputs :] = np.where(dirty, 9, read)
    f = lambda a: np.asarray(a, np.float32)
    examples = ow.Sequence(f(xs), np.where(dirty, 5, y), f(mask))
    model = bernoulli(k, k)
    state, info = feed(ow.Frequencies("last"), model, examples)
    flat = lambda a: a.reshape(-1, *a.shape[3:])
    clean = np.where(dirty, 0, xs[:, time - outputs :])
    table = bits_table(flat(clean), flat(y), flat(mask), last=True, shared=False)
    assert np.array_equal(np.asarray(state.counts) + np.asarray(state.rest), table)
    assert info.prediction.shape == (batches, outputs, batch, k)
    np.testing.assert_allclose(info.loss[0], k * np.log(2), rtol=1e-6, err_msg="before the update")
    # The same numbers as BPTT reports of the same model.
    bptt, last = ow.BPTT(optax.sgd(0.0)), jax.tree.map(lambda a: a[-1], examples)

    @quick
    def again(examples):
        before, _ = jax.lax.scan(
            ow.Frequencies("last").step,
            ow.Frequencies("last").init(model, last, key=jax.random.key(0)),
            jax.tree.map(lambda a: a[:-1], examples),
        )
        return bptt.step(bptt.init(before.model, last, key=jax.random.key(0)), last)[1]

    expected = again(examples)
    np.testing.assert_allclose(info.loss[-1], expected.loss, rtol=1e-6)
    np.testing.assert_allclose(info.prediction[-1], expected.prediction, rtol=1e-5, atol=1e-6)


def test_counts_do_not_stop_at_the_end_of_float32():
    learner, one = ow.Frequencies(), jax.tree.map(lambda a: a[0], steps(np.zeros((1, 1)), np.zeros((1, 1), int)))

    @jax.jit
    def run():
        state = learner.init(bernoulli(1, 1), one, key=jax.random.key(0))
        state = state._replace(counts=state.counts.at[0, 0, 0].set(2.0**24))
        return jax.lax.fori_loop(0, 1001, lambda _, s: learner.step(s, one)[0], state)

    after = run()
    total = np.asarray(after.counts, np.float64) + np.asarray(after.rest, np.float64)
    assert total[0, 0, 0] == 2**24 + 1001


def test_no_other_table_is_better_on_what_was_counted(rng):
    n, k = 2000, 2
    x = rng.integers(0, 2, (n, k))
    y = (rng.random((n, k)) < np.where(x, [0.9, 0.3], [0.2, 0.6])).astype(int)
    state, _ = feed(ow.Frequencies("last", pseudo=1e-3), bernoulli(k, k), steps(x, y))

    def lost(bias, weight):
        logits = bias + x @ weight.T
        return np.mean(np.sum(np.logaddexp(0, logits) - y * logits, 1))

    bias, weight = said(state.model.head)
    best = lost(bias, weight)
    for _ in range(100):
        moved = 0.05 * rng.standard_normal((2, k))
        assert lost(bias + moved[0], weight + np.diag(moved[1])) > best
    for learner in (ow.Frequencies("last", shared=True), ow.Frequencies(), ow.Frequencies(shared=True)):
        worse, _ = feed(learner, bernoulli(k, k), steps(x, y))
        assert best < lost(*said(worse.model.head)) - 0.01


def test_a_markov_chain_is_predicted_to_its_conditional_entropy(rng):
    n, stay = 20_000, 0.9
    flips = rng.random((n + 1, 2)) > stay
    bits = flips.cumsum(0) % 2
    for given, shared in (("last", False), ("last", True), ("nothing", False)):
        _, info = feed(ow.Frequencies(given, shared), bernoulli(2, 2), steps(bits[:-1], bits[1:]))
        entropy = 2 * -(stay * np.log(stay) + (1 - stay) * np.log(1 - stay)) if given == "last" else 2 * np.log(2)
        # 5 standard errors of a mean of log-probabilities, and log(n) / n for each number that was learned.
        spread = 5 * np.sqrt(2 * stay * (1 - stay)) * np.log(stay / (1 - stay)) / np.sqrt(n)
        assert (
            abs(float(info.loss.mean()) - entropy) < (spread if given == "last" else 5 / np.sqrt(n)) + 4 * np.log(n) / n
        )


def test_text_is_predicted_as_well_as_without_memory():
    """On a task of the package: the levels of predictors without memory, reached."""
    task, n = ow.AnBn(1, 4), 10_000
    stream = quick(lambda k: jax.lax.scan(lambda s, _: task.emit(s), task.init(k), length=n)[1])(jax.random.key(0))
    levels = task.references()
    for given, name in (("nothing", "predict-marginal"), ("last", "memoryless")):
        _, info = feed(ow.Frequencies(given), categorical(3, 3), stream)
        assert abs(float(info.loss.mean()) - levels[name]) < 0.01, name


def test_a_context_that_is_neither_is_not_passed_over():
    half = steps(np.full((2, 2), 0.5), np.zeros((2, 2), int))
    assert np.isnan(feed(ow.Frequencies("last"), bernoulli(2, 2), half)[1].loss[1])
    two = steps(np.ones((2, 2)), np.zeros(2, int))
    assert np.isnan(feed(ow.Frequencies("last"), categorical(2, 2), two)[1].loss[1])
    assert np.isfinite(feed(ow.Frequencies(), categorical(2, 2), two)[1].loss).all()


def test_what_does_not_fit_is_refused(key):
    def start(learner, model, x=2, y=(2,), weight=()):
        example = ow.Step(np.zeros(x), np.zeros(y), np.ones(weight), np.asarray(False), np.zeros(y))
        jax.eval_shape(lambda: learner.init(model, example, key=key))

    count, last, shared = ow.Frequencies(), ow.Frequencies("last"), ow.Frequencies(shared=True)
    sequence = lambda x, *y: ow.Sequence(np.zeros((3, 1, x)), np.zeros((3, 1, *y)), np.ones((3, 1)))
    gru, linear = ow.Model(ow.GRU(2, 2, key=key), ow.Bernoulli(2, 2)), ow.Model(ow.Echo(2), ow.Linear(2))
    start(count, bernoulli(2, 2))
    for error, match, ask in (
        (TypeError, r"needs Model\(Echo\(inputs\), head\).* got Dense and Bernoulli", lambda: start(count, gru)),
        (TypeError, "got Echo and Linear", lambda: start(count, linear, y=())),
        (
            ValueError,
            "head reads 3 features, Echo gives 2",
            lambda: start(count, ow.Model(ow.Echo(2), ow.Bernoulli(3, 2))),
        ),
        (ValueError, "there are 3 outputs and 2 inputs", lambda: start(last, bernoulli(2, 3), y=(3,))),
        (TypeError, "shared=True is for the outputs of a Bernoulli", lambda: start(shared, categorical(2, 2), y=())),
        (
            ValueError,
            r"Bernoulli needs a target of shape \(2,\), the task gives \(\)",
            lambda: start(count, bernoulli(2, 2), y=()),
        ),
        (
            ValueError,
            r"Categorical needs a target of shape \(\), the task gives \(2,\)",
            lambda: start(count, categorical(2, 2)),
        ),
        (ValueError, "the cell reads 2 inputs", lambda: start(count, bernoulli(2, 2), x=3)),
        (ValueError, "the weight of a step must be a scalar", lambda: start(count, bernoulli(2, 2), weight=(2,))),
        (
            ValueError,
            r"needs xs of shape \(time, batch, 2\)",
            lambda: count.init(bernoulli(2, 2), sequence(4, 2), key=key),
        ),
        (ValueError, "the task gives", lambda: count.init(bernoulli(2, 2), sequence(2), key=key)),
    ):
        with pytest.raises(error, match=match):
            ask()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"given": "first"}, "given must be 'nothing' or 'last', got 'first'"),
        ({"shared": 1}, "shared must be True or False, got 1"),
        ({"pseudo": 0.0}, "pseudo must be positive and finite, got 0.0"),
        ({"pseudo": float("nan")}, "pseudo must be positive and finite, got nan"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=f"Frequencies: {message}"):
        ow.Frequencies(**fields)


@pytest.mark.parametrize("inputs", [0, 2.0])
def test_an_echo_of_nothing_is_refused(inputs):
    with pytest.raises(ValueError, match="Echo: inputs must be a whole number of at least 1"):
        ow.Echo(inputs)
