"""Target propagation: what it claims holds, what would break it is caught, what it cannot do it refuses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import onward as ow
from contract import zoo
from onward.learners.base import gather_trajectories
from onward.learners.bptt import sequence_loss
from onward.learners.inverses import Transition, squash_difference
from onward.verify import targets as vt
from onward.verify.gradients import quick

# An example gives `init` shapes only: one program starts them all.
begin = quick(lambda learner, model, key: learner.init(model, vt.batch(4, 6, 2), key=key))
one_step = quick(lambda learner, state, example: learner.step(state, example))
INPUTS, UNITS = vt.INPUTS, vt.UNITS
# One object each, so that tests share compiled programs.
SGD = optax.sgd(1.0)
AFFINE = ow.TPTT(ow.AffineInverse(), SGD)


def shapes_of_start(learner, model, example, key):
    return eqx.filter_eval_shape(lambda model, key: learner.init(model, example, key=key), model, key)


def elman(seed=0, **options):
    return vt.small(lambda k: ow.Elman(INPUTS, UNITS, key=k, **options), seed=seed)


def moved(before, after):
    """How far each array of a tree has come."""
    arrays = lambda tree: jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return [np.asarray(b) - np.asarray(a) for a, b in zip(arrays(before), arrays(after), strict=True)]


@quick
def transition(cell, scale=1.0):
    rng = np.random.default_rng(7)
    like = cell.init()
    hidden = jax.tree.map(lambda a: jnp.asarray(0.5 * scale * rng.normal(size=a.shape)), like.hidden)
    before, key = ow.Carry(hidden, like.stats), jax.random.key(8)
    x = jnp.asarray(scale * rng.normal(size=cell.inputs))
    return Transition(before, x, cell(before, x, key=key).hidden, key)


# Claims, and faults that the checks must see.


def holds(checks):
    assert len({c.name for c in checks}) == len(checks)
    for check in checks:
        assert check.ok, check


# `exact_feedback` of a GRU and an Elman layer: in the slow test, and below on a sparse, normalised layer.
@pytest.mark.parametrize("part", [part for part in vt.PARTS if part is not vt.exact_feedback], ids=lambda p: p.__name__)
def test_each_check_holds(part):
    holds(part())


def test_the_check_of_exact_feedback_holds():
    holds(vt.exact_feedback(("LSTM",)))


@pytest.mark.slow
def test_all_checks_are_run():
    checks = vt.checks()
    holds(checks)
    assert len(checks) == 15
    assert {f"exact feedback, {kind}" for kind in ("Elman", "GRU", "LSTM")} < {c.name for c in checks}


class Leaky(ow.TPTT):
    """Planted fault: the local losses of the paper's released code, in which h_{t-1} is not a constant."""

    def propagate(self, state, example, *, key, keep=False):
        swept = super().propagate(state, example, key=key, keep=True)
        parameters, rest = eqx.partition(state.model.cell, state.model.cell.trainable())
        start = state.model.cell.init()
        spread = jax.tree.map(lambda a: jnp.stack([a] * example.xs.shape[1]), start)

        def blame(parameters):
            cell = eqx.combine(parameters, rest)
            step = lambda c, x: ((after := jax.vmap(cell)(c, x)), after.hidden)
            through_time = lax.scan(step, spread, example.xs)[1]
            return -sum(jnp.vdot(d, h) for d, h in zip(swept.shifts, through_time, strict=True))

        return swept._replace(gradient=eqx.tree_at(lambda m: m.cell, swept.gradient, jax.grad(blame)(parameters)))


def test_gradients_that_cross_a_step_are_caught():
    nothing_arrives, control, step_by_step = vt.local(Leaky)
    assert not nothing_arrives.ok
    assert nothing_arrives.value > 0
    assert control.ok
    assert not step_by_step.ok
    assert step_by_step.value > 1e-2


class Backwards(ow.Hybrid):
    """Planted fault: a unit fires where z > h, as in the paper's Appendix A."""

    def read(self, h, *, key):
        low, high = self.gates.span
        value = super().read(low + high - h, key=key)
        return jnp.concatenate([low + high - value[: self.stochastic], h[self.stochastic :]])


def test_units_that_fire_the_wrong_way_round_are_caught():
    (check,) = vt.straight_through(Backwards)
    assert not check.ok
    assert check.value > 1e-2


# Numerics.


@pytest.mark.parametrize("kind", ["tanh", "sigmoid"])
def test_small_shifts_keep_their_digits_in_float32(kind):
    a = np.random.default_rng(0).normal(size=200)
    for size, lost in ((1e-6, 0.02), (1e-8, 0.99)):
        e = size * np.random.default_rng(1).normal(size=200)
        single = [jnp.asarray(v, jnp.float32) for v in (a, e)]
        a64, e64 = (np.asarray(v, np.float64) for v in single)
        squash = np.tanh if kind == "tanh" else lambda v: 1 / (1 + np.exp(-v))
        slope = 1 - np.tanh(a64) ** 2 if kind == "tanh" else squash(a64) * squash(-a64)
        found = np.asarray(squash_difference(kind, *single), np.float64)
        # To second order in e, of which the next term is 1e-12 of the first.
        bend = -2 * np.tanh(a64) if kind == "tanh" else 1 - 2 * squash(a64)
        truth = e64 * slope * (1 + e64 * bend / 2)
        assert np.abs(found / truth - 1).max() < 1e-5
        naive = np.asarray(getattr(jax.nn, kind)(single[0] + single[1]) - getattr(jax.nn, kind)(single[0]))
        assert np.median(np.abs(naive / truth - 1)) > lost


def test_shifts_of_any_size_are_differences():
    with jax.enable_x64(True):
        a, e = np.linspace(-4, 4, 41)[:, None] * np.ones(9), np.linspace(-3, 3, 9) * np.ones((41, 1))
        np.testing.assert_allclose(squash_difference("tanh", a, e), np.tanh(a + e) - np.tanh(a), atol=1e-14)
        sigmoid = lambda v: 1 / (1 + np.exp(-v))
        np.testing.assert_allclose(squash_difference("sigmoid", a, e), sigmoid(a + e) - sigmoid(a), atol=1e-14)


# The learner.


def test_blocks_are_the_batch(key):
    """The sums of blocks are the sums of the batch; predictions keep their rows."""
    with jax.enable_x64(True):
        model, example = elman(), vt.batch(4, 6, 2)
        parted = ow.TPTT(ow.AffineInverse(), SGD, block=2)
        found = [vt.sweep(learner, model, example, key) for learner in (AFFINE, parted)]
        assert found[0].predictions.shape == (2, 6, vt.CLASSES)
        assert found[0].transitions == found[1].transitions == 3 * 6
        for whole, parts in zip(*map(jax.tree.leaves, found), strict=True):
            np.testing.assert_allclose(whole, parts, rtol=1e-12, atol=1e-14)


LINE = np.eye(UNITS, dtype=bool) | np.eye(UNITS, k=1, dtype=bool)


def test_exact_feedback_on_a_sparse_normalised_layer_in_blocks(key):
    """Whole updates, running moments included, are those of BPTT; outputs that the mask leaves out count nothing."""
    moments = ow.Moments(rate=0.9)
    with jax.enable_x64(True):
        model = elman(mask=LINE, normalise_inputs=moments, normalise_features=moments)
        example = vt.batch(5, 4, 3)
        example = example._replace(mask=example.mask.at[1, 2].set(0.0).at[0].set(0.5))
        tptt = ow.TPTT(ow.FeedbackInverse(), optax.sgd(0.5), inverse_steps=0, block=2)
        state = begin(tptt, model, key)
        by_targets, info = one_step(tptt, state._replace(inverse=model.cell.recurrent), example)
        assert np.array_equal(by_targets.inverse, model.cell.recurrent), "no steps of the inverse, no change of it"
        bptt = ow.BPTT(optax.sgd(0.5))
        by_bptt, same = one_step(bptt, bptt.init(model, example, key=key), example)
    np.testing.assert_allclose(info.loss, same.loss, rtol=1e-12)
    np.testing.assert_allclose(info.prediction, same.prediction, rtol=1e-10)
    assert all(np.abs(d).max() > 0 for d in moved(model, by_bptt.model))
    for a, b in zip(moved(model, by_targets.model), moved(model, by_bptt.model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    for a, b in zip(*map(jax.tree.leaves, (by_targets.stats, by_bptt.stats)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_each_rate_moves_its_own_part(key):
    """step_size: cell and head; target_step_size: the cell, in proportion while it is small; inverse_step_size: the inverse."""
    with jax.enable_x64(True):
        model, example = elman(), vt.batch(4, 3)
        names = ("step_size", "inverse_step_size", "target_step_size")
        arrays = lambda *rates: ow.TPTT(
            ow.AffineInverse(), SGD, **{n: jnp.asarray(r) for n, r in zip(names, rates, strict=True)}
        )
        state = begin(AFFINE, model, key)
        after = lambda learner: one_step(learner, state, example)[0]
        parts = lambda s: (
            moved(model.cell, s.model.cell),
            moved(model.head, s.model.head),
            moved(state.inverse, s.inverse),
        )
        base = parts(after(arrays(0.1, 0.2, 1e-4)))
        ratios = {
            (0.2, 0.2, 1e-4): (2, 2, 1),
            (0.1, 0.6, 1e-4): (1, 1, 3),
            (0.1, 0.2, 2e-4): (2, 1, 1),
        }
        for rates, expected in ratios.items():
            for found, plain, ratio in zip(parts(after(arrays(*rates))), base, expected, strict=True):
                for a, b in zip(found, plain, strict=True):
                    assert np.abs(b).max() > 0
                    np.testing.assert_allclose(a, ratio * b, rtol=2e-3, atol=1e-4 * np.abs(b).max())


def test_one_rate_serves_for_all(key):
    """None: the program is that of three equal rates."""
    example, model = vt.batch(3, 2), elman()
    rates = {"inverse_step_size": None, "target_step_size": None}, {"inverse_step_size": 0.1, "target_step_size": 0.1}
    one, three, other = (
        ow.TPTT(ow.AffineInverse(), SGD, step_size=0.1, **options)
        for options in (*rates, {"inverse_step_size": 0.2, "target_step_size": 0.1})
    )
    state = shapes_of_start(one, model, example, key)
    program = lambda made: str(eqx.filter_make_jaxpr(made.step)(state, example)[0])
    assert program(one) == program(three) != program(other)


def test_updates_of_the_inverse_are_counted(key):
    model, example = elman(), vt.batch(3, 2)
    learner = ow.TPTT(ow.AffineInverse(), SGD, optax.adam(1e-3), inverse_steps=2)
    state = begin(learner, model, key)
    after, _ = one_step(learner, state, example)
    assert after.inverse_optimiser[0].count == 2
    assert after.steps == 1
    # Each step of Adam is nearly its rate: two of them show that the second one started where the first had led.
    assert all(1e-3 < np.abs(d).max() < 2.001e-3 for d in moved(state.inverse, after.inverse))


def test_some_transitions_stand_for_all(key):
    """The mean gradient over drawn transitions is that of all of them, within 5 standard errors."""
    with jax.enable_x64(True):
        model, example = elman(), vt.batch(4, 6, 2)
        some = ow.TPTT(ow.AffineInverse(), SGD, transitions=5)
        state = begin(AFFINE, model, key)
        gradient = lambda swept: jax.tree.map(lambda g: g / swept.transitions, swept.inverse_gradient)
        all_of_them = gradient(vt.sweep(AFFINE, model, example, key))
        drawn = quick(jax.vmap(lambda k: gradient(some.propagate(state, example, key=k))))(jax.random.split(key, 1000))
    for g, truth in zip(*map(jax.tree.leaves, (drawn, all_of_them)), strict=True):
        g = np.asarray(g)
        error = g.std(0) / np.sqrt(len(g))
        assert (error > 0).all()
        assert (np.abs(g.mean(0) - np.asarray(truth)) < 5 * error).all()


def test_one_step_and_one_row_need_no_inverse(key):
    """T = 1: there is nowhere to send a target; the update is BPTT's, whatever the inverse, which stays as it is."""
    with jax.enable_x64(True):
        model, example = elman(), vt.batch(1, 1)
        state = begin(AFFINE, model, key)
        after, _ = one_step(AFFINE, state, example)
        _, reference = vt.bptt_gradient(model, example)
        for a, b in zip(jax.tree.leaves(reference), moved(model, after.model), strict=True):
            np.testing.assert_allclose(-a, b, rtol=1e-9, atol=1e-15)
    assert not any(map(np.any, moved(state.inverse, after.inverse)))


CELLS = {
    "Elman": lambda k: ow.Elman(INPUTS, UNITS, key=k),
    "GRU normalised": lambda k: ow.GRU(
        INPUTS, UNITS, key=k, normalise_inputs=zoo.MOMENTS, normalise_features=zoo.MOMENTS
    ),
    "LSTM": lambda k: ow.LSTM(INPUTS, UNITS, key=k),
    "Hybrid": lambda k: ow.Hybrid(ow.LSTM(INPUTS, UNITS, key=k)),
    "Stack": lambda k: ow.Stack(ow.GRU(INPUTS, 3, key=k), ow.Hybrid(ow.Elman(3, UNITS, key=k))),
}


def shape_of_a_step(inverse, cell, rows=2, **options):
    """(shapes before, shapes after, loss) of a learner on a cell, without running it."""
    example = vt.batch(3, rows, 2)
    learner = ow.TPTT(inverse, optax.adam(0.1), **options)

    def run(key):
        made = cell(key)
        head = ow.MonteCarlo(ow.Categorical(made.feature_count, vt.CLASSES), 2)
        state = learner.init(ow.Model(made, head), example, key=key)
        after, info = learner.step(state, example)
        return eqx.filter((state, after, info), eqx.is_array)

    return eqx.filter_eval_shape(run, jax.random.key(0))


@pytest.mark.parametrize("cell", CELLS)
def test_every_inverse_fits_every_cell(cell):
    for name, inverse in zoo.INVERSES.items():
        if name.startswith(("FeedbackInverse", "MemoryInverse", "SteadyInverse")) and cell == "Stack":
            continue
        options = {"transitions": 2} if cell == "LSTM" else {}
        before, after, info = shape_of_a_step(inverse(), CELLS[cell], **options)
        assert jax.tree.structure(before) == jax.tree.structure(after), name
        assert jax.tree.leaves(before) == jax.tree.leaves(after), name
        assert info.loss.shape == ()
        assert info.prediction.shape == (2, 2, 2, vt.CLASSES)


@pytest.mark.parametrize("inverse", zoo.INVERSES)
def test_shifts_are_linear_near_zero(inverse, key):
    """A shift twice as small goes back twice as small, and zero goes back as zero; the loss is a finite number."""
    with jax.enable_x64(True):
        cell = vt.filled(lambda: CELLS["Hybrid"](jax.random.key(0)), scale=0.3)
        part, step = zoo.INVERSES[inverse](), transition(cell)
        weights = vt.filled(lambda: part.init(cell, key=jax.random.key(0)))

        @quick
        def back(d):
            seen = part.observe(cell, step)
            return part.shift(weights, cell, step, seen, d), part.loss(weights, cell, step, key=key)

        d = jax.tree.map(lambda a: 1e-7 * jnp.asarray(np.random.default_rng(2).normal(size=a.shape)), step.after)
        zero, half, whole = (back(jax.tree.map(lambda a, s=s: s * a, d)) for s in (0.0, 0.5, 1.0))
        for z, h, w in zip(zero[0], half[0], whole[0], strict=True):
            assert np.array_equal(z, 0 * z)
            np.testing.assert_allclose(2 * h, w, rtol=1e-5, atol=1e-13)
        # Of an LSTM's states its own memory is c, and nothing is carried to h.
        carried = whole[0][:-1] if inverse == "MemoryInverse" else whole[0]
        assert all(np.abs(w).max() > 0 for w in carried)
        assert np.isfinite(whole[1])


def test_without_the_correction_targets_are_reconstructions():
    with jax.enable_x64(True):
        cell = elman().cell
        step = transition(cell)
        with_it, without = ow.AffineInverse(), ow.AffineInverse(correction=False)
        weights = vt.filled(lambda: with_it.init(cell, key=jax.random.key(0)))
        d = (jnp.full(UNITS, 0.1),)
        reconstruction = np.tanh(step.x @ weights.inputs + (step.after[0] + 0.1) @ weights.hidden + weights.bias)
        (found,) = without.shift(weights, cell, step, (), d)
        np.testing.assert_allclose(found, reconstruction - step.before.hidden[0], rtol=1e-12)
        (corrected,) = with_it.shift(weights, cell, step, (), d)
        error = np.tanh(step.x @ weights.inputs + step.after[0] @ weights.hidden + weights.bias) - step.before.hidden[0]
        np.testing.assert_allclose(found - corrected, error, rtol=1e-9, atol=1e-12)


def test_noise_is_on_both_sides_of_the_corrupted_transition(key):
    """A perfect linear inverse near the origin reconstructs corrupted states too: h + noise, not h."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(4)
        square = jnp.asarray(np.linalg.qr(rng.normal(size=(UNITS, UNITS)))[0])
        cell = eqx.tree_at(lambda c: (c.recurrent, c.bias), elman().cell, (square[:, None], jnp.zeros((1, UNITS))))
        step, noisy = transition(cell, scale=1e-3), ow.AffineInverse(noise=0.01)
        weights = vt.filled(lambda: noisy.init(cell, key=key))
        weights = weights._replace(inputs=-cell.weight[:, 0] @ square.T, hidden=square.T, bias=jnp.zeros(UNITS))
        draws = quick(jax.vmap(lambda k: noisy.loss(weights, cell, step, key=k)))(jax.random.split(key, 20))
        assert np.unique(draws).size == 20
        assert draws.max() < 1e-3 * 0.5 * UNITS * 0.01**2


@pytest.mark.parametrize("inverse", [ow.FeedbackInverse(), ow.AffineInverse()], ids=lambda i: type(i).__name__)
def test_training_lowers_the_loss(inverse, key):
    """On the inverse problem, through one distractor, on rows that it was not trained on."""
    task = ow.OneToManyMixture(2, batch=30)
    model = vt.filled(lambda: ow.Model(ow.Elman(1, 8, key=key), ow.Mixture(8, 3)))
    learner = ow.TPTT(inverse, optax.adam(0.02), inverse_step_size=0.3)
    stream = task.init(key)
    state = quick(learner.init)(model, task.emit(stream)[1], key=key)

    @quick
    def train(stream, state):
        def body(loop, _):
            stream, example = task.emit(loop[0])
            state, info = learner.step(loop[1], example)
            return (stream, state), info.loss

        return lax.scan(body, (stream, state), length=100)

    test = task.held_out(500, seed=1)
    measure = quick(lambda model: sequence_loss(model, model.cell.init().stats, test)[0])
    (_, after), losses = train(stream, state)
    before, later = float(measure(model)), float(measure(after.model))
    assert np.isfinite(losses).all()
    assert later < before - 0.3
    assert all(np.abs(d).max() > 0 for d in moved(model, after.model))
    assert all(np.abs(d).max() > 0 for d in moved(state.inverse, after.inverse))


# Refusals.


def learner(**options):
    return ow.TPTT(ow.IdentityInverse(), SGD, **options)


@pytest.mark.parametrize("name", ["step_size", "inverse_step_size", "target_step_size"])
@pytest.mark.parametrize(
    "rate",
    [0, -1.0, float("nan"), float("inf"), np.float32(-1), jnp.asarray(jnp.nan), np.array(0.0), "fast", True],
    ids=str,
)
def test_rates_are_positive_and_finite(name, rate):
    with pytest.raises(ValueError, match=f"TPTT: {name} must be positive and finite, got"):
        learner(**{name: rate})


@pytest.mark.parametrize(("name", "least"), [("inverse_steps", 0), ("transitions", 1), ("block", 1)])
def test_counts_are_whole_numbers(name, least):
    for count in (least - 1, -3, 1.5, float("nan"), True):
        with pytest.raises(ValueError, match=f"TPTT: {name} must be a whole number of at least {least}, got {count}"):
            learner(**{name: count})


def test_inverses_refuse(key):
    for build, match in (
        (lambda: ow.AffineInverse("relu"), "AffineInverse: squash must be 'tanh' or 'sigmoid', got 'relu'"),
        (lambda: ow.AffineInverse(training="none"), "AffineInverse: training must be 'reconstruction' or 'difference'"),
        (lambda: ow.AffineInverse(noise=-0.1), "AffineInverse: noise must be at least 0 and finite, got -0.1"),
        (lambda: ow.AffineInverse(noise=float("nan")), "noise must be at least 0 and finite, got nan"),
        (lambda: ow.ResidualInverse(width=0), "ResidualInverse: width must be a whole number of at least 1, got 0"),
        (lambda: ow.ResidualInverse(noise=float("inf")), "ResidualInverse: noise must be at least 0 and finite"),
        (lambda: ow.FeedbackInverse(scale=-1.0), "FeedbackInverse: scale must be at least 0 and finite, got -1.0"),
    ):
        with pytest.raises(ValueError, match=match):
            build()
    with pytest.raises(
        TypeError, match=r"FeedbackInverse fits a dense layer .* or a Hybrid of one, got Stack; AffineInverse"
    ):
        shape_of_a_step(ow.FeedbackInverse(), CELLS["Stack"])


@pytest.mark.parametrize("make", [learner, lambda: ow.BPTT(SGD)], ids=["TPTT", "BPTT"])
def test_batches_that_do_not_fit_are_refused(make, key):
    xs, y, mask = vt.batch(4, 3)
    made, five = make(), lambda a: jnp.concatenate([a] * 5)
    wide = [(xs[:0], y, mask), (xs[:, :0], y[:, :0], mask[:, :0]), (xs[..., :1], y, mask), (xs[0], y, mask)]
    long = [(xs, five(y), five(mask)), (xs, y, mask[:0]), (xs, y, mask[:, :1]), (xs, y[:, :2], mask)]
    state = shapes_of_start(made, elman(), ow.Sequence(xs, y, mask), key)
    for examples, match in (
        (wide, r"PTT needs xs of shape \(time, batch, 2\), the task gives \("),
        (long, r"PTT needs y and mask of shape \(outputs, 3, ...\), for the last `outputs` of 4"),
    ):
        for example in examples:
            with pytest.raises(ValueError, match=match):
                made.init(elman(), ow.Sequence(*example), key=key)
    with pytest.raises(ValueError, match=match):
        eqx.filter_eval_shape(made.step, state, ow.Sequence(*long[0]))


def test_weights_of_another_inverse_do_not_fit(key):
    """Never silently: shapes differ, and the step is refused before it runs."""
    example, small = vt.batch(3, 2), elman()
    large = vt.small(lambda k: ow.Elman(INPUTS, UNITS + 1, key=k))
    for inverse in (ow.FeedbackInverse(), ow.AffineInverse(), ow.ResidualInverse()):
        made = ow.TPTT(inverse, optax.sgd(1.0))
        shapes = [shapes_of_start(made, model, example, key) for model in (small, large)]
        with pytest.raises(TypeError):
            eqx.filter_eval_shape(made.step, shapes[0]._replace(inverse=shapes[1].inverse), example)


log_prob = quick(lambda head, features, y: head.log_prob(head(features), y))


BAD_TARGETS = {
    "mixture": (lambda: ow.Mixture(3, 2), [np.nan, np.inf]),
    "bits": (lambda: ow.Bernoulli(3, 2), [[np.nan, 0], [2.0, 0.0], [-1.0, 0.0]]),
    "classes": (lambda: ow.Categorical(3, 3), [3, -1, 2**30, np.nan, 1.5]),
}


@pytest.mark.parametrize("head", BAD_TARGETS)
def test_targets_that_cannot_be_make_the_loss_so(head):
    """A run stops at a loss that is not finite; y is traced, so no message can name it earlier."""
    make, targets = BAD_TARGETS[head]
    assert not any(np.isfinite(log_prob(vt.filled(make), jnp.ones(3), jnp.asarray(y))) for y in targets)


def test_one_trajectory_learners_refuse_several(key):
    model = vt.small(lambda k: ow.Hybrid(ow.GRU(INPUTS, UNITS, key=k)), samples=2)
    example = ow.Step(jnp.ones(INPUTS), jnp.zeros((), int), jnp.ones(()), jnp.asarray(False), jnp.zeros(()))
    with pytest.raises(
        TypeError, match="Online follows one trajectory of the cell: take the head out of its MonteCarlo"
    ):
        ow.Online(ow.RTRL(), ow.Supervised(), optax.sgd(1.0)).init(model, example, key=key)


def test_a_prime_batch_is_swept_in_few_blocks(key):
    """13 rows in blocks of at most 6 are three of them, and not 13."""
    example, made = vt.batch(2, 13), learner(block=6)
    state = shapes_of_start(made, elman(), example, key)
    program = eqx.filter_make_jaxpr(lambda s, e: made.propagate(s, e, key=key))(state, example)[0]
    lengths = [equation.params["length"] for equation in program.eqns if equation.primitive.name == "scan"]
    assert lengths
    assert max(lengths) <= 3


@pytest.mark.parametrize(("rows", "samples", "features"), [(6, 2, 5), (6, 3, 6), (4, 4, 1)])
def test_features_of_the_trajectories_of_a_sequence_stand_together(rows, samples, features):
    """Neighbouring rows: trajectory m of sequence i is row i * samples + m."""
    whole = np.arange(rows * features, dtype=np.float32).reshape(rows, features)
    head = ow.MonteCarlo(ow.Categorical(features, 2), samples)
    found = gather_trajectories(head, jnp.asarray(whole))
    assert found.shape == (rows // samples, samples, features)
    for i in range(rows // samples):
        np.testing.assert_array_equal(found[i], whole[i * samples : (i + 1) * samples])
    np.testing.assert_array_equal(gather_trajectories(ow.Categorical(features, 2), whole), whole)
