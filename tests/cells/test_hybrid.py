"""Stochastic units: what they say, how often, what flows back through them, and many trajectories of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.learners.bptt import sequence_loss
from onward.verify import targets as vt
from onward.verify.gradients import quick

read = quick(lambda cell, h, keys: jax.vmap(lambda k: cell.read(h, key=k))(keys))
DRAWS = 20_000
# A frequency may be this many standard errors off: one in a million of tests of a right one.
SIGMAS = 5.0
UNITS = 6
KINDS = {
    "sigmoid": (lambda k: ow.Elman(2, UNITS, key=k, activation="sigmoid"), 0.0, 1.0),
    "tanh": (lambda k: ow.Elman(2, UNITS, key=k), -1.0, 1.0),
    "GRU": (lambda k: ow.GRU(2, UNITS, key=k), -1.0, 1.0),
    "LSTM": (lambda k: ow.LSTM(2, UNITS, key=k), -1.0, 1.0),
}


def hybrid(kind="sigmoid", **options):
    return vt.filled(lambda: ow.Hybrid(KINDS[kind][0](jax.random.key(0)), **options))


@pytest.mark.parametrize("kind", KINDS)
def test_a_reading_has_two_values_and_mean_h(kind, key):
    _, low, high = KINDS[kind]
    cell, p = hybrid(kind, share=0.7), np.linspace(0.02, 0.98, UNITS)
    assert cell.stochastic == 4
    h = jnp.asarray(low + (high - low) * p, jnp.float32)
    seen = np.asarray(read(cell, h, jax.random.split(key, DRAWS)), np.float64)
    fires = seen[:, :4] == high
    assert (fires | (seen[:, :4] == low)).all()
    assert np.array_equal(seen[:, 4:], np.tile(np.asarray(h[4:], np.float64), (DRAWS, 1)))
    z = (fires.mean(0) - p[:4]) / np.sqrt(p[:4] * (1 - p[:4]) / DRAWS)
    assert np.abs(z).max() < SIGMAS
    # Units are drawn apart from one another.
    correlation = np.corrcoef(fires.T) - np.eye(4)
    assert np.abs(correlation).max() < SIGMAS / DRAWS**0.5


@pytest.mark.parametrize(("kind", "low", "high"), [("sigmoid", 0.0, 1.0), ("tanh", -1.0, 1.0)])
def test_certain_units_are_certain(kind, low, high, key):
    ends = jnp.asarray([low, high] * (UNITS // 2))
    seen = read(hybrid(kind, share=1.0), ends, jax.random.split(key, DRAWS))
    assert np.array_equal(seen, np.tile(ends, (DRAWS, 1)))


def test_the_share_says_how_many_and_the_first_ones_are_it(key):
    h = jnp.linspace(0.3, 0.7, UNITS)
    for share, count in ((0, 0), (0.5, 3), (1 / 6, 1), (1.0, 6)):
        cell = hybrid(share=share)
        assert cell.stochastic == count
        (seen,) = read(cell, h, key[None])
        assert np.array_equal(np.asarray(seen) != np.asarray(h), np.arange(UNITS) < count)


def test_the_derivative_of_a_reading(key):
    h = jnp.linspace(0.3, 0.7, UNITS)
    jacobian = quick(lambda cell: jax.jacobian(lambda h: cell.read(h, key=key))(h))
    assert np.array_equal(jacobian(hybrid(share=0.5)), np.eye(UNITS))
    assert np.array_equal(jacobian(hybrid(share=0.5, straight_through=False)), np.diag([0, 0, 0, 1, 1, 1]))
    values = [read(hybrid(share=0.5, straight_through=s), h, key[None]) for s in (True, False)]
    np.testing.assert_allclose(*values, rtol=1e-6)


def test_the_own_memory_of_a_unit_is_no_reading(key):
    """A GRU that keeps its state keeps its mean, whatever others see of it."""
    layer = vt.filled(lambda: ow.GRU(2, UNITS, key=key))
    keep = jnp.zeros((3, UNITS)).at[0].set(50.0)
    layer = eqx.tree_at(lambda c: (c.weight, c.recurrent, c.bias), layer, (layer.weight * 0, layer.recurrent * 0, keep))
    cell = ow.Hybrid(layer, share=1.0)
    before = ow.Carry((jnp.linspace(-0.9, 0.9, UNITS),), cell.init().stats)
    after = quick(cell.__call__)(before, jnp.ones(2), key=key)
    np.testing.assert_allclose(after.hidden[0], before.hidden[0], rtol=1e-6)


def test_a_key_is_needed_to_read_stochastic_units_only(key):
    cell = hybrid(share=0.5)
    for reading in (lambda: cell.features(cell.init()), lambda: cell(cell.init(), jnp.ones(2))):
        with pytest.raises(ValueError, match=r"Hybrid: its units are sampled when they are read; pass key=jax\.random"):
            reading()
    with pytest.raises(ValueError, match="Hybrid: its units are sampled"):
        sequence_loss(ow.Model(cell, ow.Linear(UNITS)), cell.init().stats, vt.batch(2, 1))
    plain = hybrid(share=0.0)
    assert np.array_equal(plain.features(plain.init()), plain.init().hidden[-1])


def test_the_head_sees_other_draws_than_the_network(key):
    """Two readings of an even chance, by the step that led here and by the head, agree half of the time."""
    cell = hybrid(share=1.0)
    model = ow.Model(cell, ow.Linear(UNITS))
    even = ow.Carry((jnp.full(UNITS, 0.5),), cell.init().stats)
    keys = jax.random.split(key, 4000)
    by_step, by_head = read(cell, even.hidden[0], keys), quick(jax.vmap(lambda k: model.features(even, key=k)))(keys)
    agree = np.asarray(by_step == by_head)
    assert abs(agree.mean() - 0.5) < SIGMAS * 0.5 / agree.size**0.5


def test_trajectories_are_drawn_apart(key):
    model = vt.small(lambda k: ow.Hybrid(ow.Elman(2, UNITS, key=k, activation="sigmoid")), samples=4)
    even = ow.Carry((jnp.full((4, UNITS), 0.5),), model.cell.init().stats)
    features = np.asarray(quick(jax.vmap(lambda k: model.features(even, key=k)))(jax.random.split(key, 2000)))
    assert features.shape == (2000, 4, UNITS)
    agree = features[:, 0, :3] == features[:, 1, :3]
    assert abs(agree.mean() - 0.5) < SIGMAS * 0.5 / agree.size**0.5


def test_rtrl_with_the_same_keys_is_straight_through_bptt(key):
    with jax.enable_x64(True):
        cell = vt.filled(lambda: ow.Hybrid(ow.GRU(2, 3, key=key), share=0.7))
        assert cell.stochastic == 2
        rng, rule = np.random.default_rng(1), ow.RTRL()
        xs, cotangents = jnp.asarray(rng.normal(size=(4, 2))), jnp.asarray(rng.normal(size=(4, 3)))
        keys = jax.random.split(key, (4, 2))
        parameters, rest = eqx.partition(cell, cell.trainable())

        @quick
        def forward(cell):
            def step(loop, instant):
                carry, state, total = loop
                x, c, (step_key, reading_key) = instant
                carry, state = rule.advance(cell, carry, x, state, key=step_key)
                read = lambda hidden: cell.features(ow.Carry(hidden, carry.stats), key=reading_key)
                gradient = rule.pull(cell, state, jax.vjp(read, carry.hidden)[1](c)[0])
                return (carry, state, jax.tree.map(jnp.add, total, gradient)), None

            zero = jax.tree.map(jnp.zeros_like, parameters)
            fresh = (cell.init(), rule.init(cell, xs[0]), zero)
            return jax.lax.scan(step, fresh, (xs, cotangents, keys))[0][2]

        @quick
        @jax.grad
        def backward(parameters):
            cell = eqx.combine(parameters, rest)

            def step(carry, instant):
                x, c, (step_key, reading_key) = instant
                carry = cell(carry, x, key=step_key)
                return carry, cell.features(carry, key=reading_key) @ c

            return jnp.sum(jax.lax.scan(step, cell.init(), (xs, cotangents, keys))[1])

        error, *_ = vt.compare(forward(cell), backward(parameters))
    assert error < 1e-9


# Many trajectories.


def test_trajectories_of_a_sequence_stay_with_it(key):
    """Without chance every trajectory is the network itself: the loss of each row must be its own."""
    with jax.enable_x64(True):
        plain = vt.small(lambda k: ow.Elman(2, UNITS, key=k))
        several = ow.Model(plain.cell, ow.MonteCarlo(plain.head, 3))
        example = vt.batch(3, 4, 2)
        example = example._replace(mask=jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (2, 4))))
        losses = quick(lambda m: sequence_loss(m, m.cell.init().stats, example, key=key))
        (one, (alone, _)), (many, (together, _)) = losses(plain), losses(several)
    np.testing.assert_allclose(one, many, rtol=1e-12)
    assert together.shape == (2, 4, 3, vt.CLASSES)
    np.testing.assert_allclose(together, np.repeat(alone[:, :, None], 3, 2), rtol=1e-12)


def test_measuring_takes_its_own_number_of_trajectories(key):
    cell = hybrid()
    model = ow.Model(cell, vt.filled(lambda: ow.MonteCarlo(ow.Categorical(UNITS, 3), samples=4, evaluation=9)))
    example, learner = vt.batch(3, 2), ow.TPTT(ow.IdentityInverse(), optax.sgd(0.1))
    for network, samples in ((model, 4), (model.evaluation(), 9), (model.evaluation().evaluation(), 9)):
        carry = network.init()
        assert carry.hidden[0].shape == (samples, UNITS)
        step = lambda k, network=network, carry=carry: network(carry, jnp.ones(2), key=k)
        assert eqx.filter_eval_shape(step, key)[1].shape == (samples, 3)
        loss = lambda k, network=network: sequence_loss(network, network.cell.init().stats, example, key=k)
        assert eqx.filter_eval_shape(loss, key)[1][0].shape == (1, 2, samples, 3)
        state = eqx.filter_eval_shape(lambda k, network=network: learner.init(network, example, key=k), key)
        assert eqx.filter_eval_shape(learner.step, state, example)[1].prediction.shape == (1, 2, samples, 3)
    assert ow.MonteCarlo(ow.Linear(3), samples=4).for_evaluation().trajectories == 4
    plain = ow.Model(cell, ow.Linear(UNITS))
    assert plain.evaluation().head.trajectories is None


def test_the_log_of_a_mean_is_biased_low_by_half_its_relative_variance(key):
    """E log(mean of M) - log E = -variance / (2 M mean^2) to first order: less bias with more trajectories."""
    p = np.random.default_rng(0).uniform(0.3, 0.9, (20_000, 20))
    head = ow.MonteCarlo(ow.Categorical(2, 2), samples=20)
    bias = {}
    for m in (1, 5, 20):
        log_p = jnp.log(jnp.asarray(np.stack([p[:, :m], 1 - p[:, :m]], -1), jnp.float32))
        bias[m] = float(quick(jax.vmap(lambda q: head.log_prob(q, jnp.asarray(0))))(log_p).mean()) - np.log(0.6)
    assert bias[1] < bias[5] < bias[20] < 0
    for m in (5, 20):
        assert abs(bias[m] / (-(0.6**2 / 12) / (2 * m * 0.6**2)) - 1) < 0.2


def test_a_draw_comes_from_one_trajectory(key):
    """Each trajectory is sure of a class of its own: draws take each as often, and the mean says so."""
    head = ow.MonteCarlo(ow.Categorical(2, 4), samples=3)
    prediction = jnp.asarray(np.log(np.eye(3, 4) + 1e-12), jnp.float32)
    draws = quick(jax.vmap(lambda k: head.sample(prediction, key=k)))(jax.random.split(key, 6000))
    share = np.bincount(draws, minlength=4) / 6000
    assert share[3] == 0
    assert np.abs(share[:3] - 1 / 3).max() < SIGMAS * np.sqrt(2 / 9 / 6000)
    np.testing.assert_allclose(quick(head.mean)(prediction), [1 / 3, 1 / 3, 1 / 3, 0], atol=1e-6)


# Refusals.


def test_refused_at_construction(key):
    layer, relu = (
        vt.filled(make) for make in (lambda: ow.GRU(2, 4, key=key), lambda: ow.Elman(2, 4, key=key, activation="relu"))
    )
    for share in (-0.1, 1.01, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"Hybrid: share must be in \[0, 1\], got {share}"):
            ow.Hybrid(layer, share)
    with pytest.raises(ValueError, match="Hybrid: ElmanGates does not say between which two values its h lies"):
        ow.Hybrid(relu)
    assert ow.Hybrid(relu, share=0.0).stochastic == 0
    for cell in (ow.Hybrid(layer), ow.Stack(layer)):
        with pytest.raises(TypeError, match=f"Hybrid: cell must be a dense layer .*, got {type(cell).__name__}"):
            ow.Hybrid(cell)
    for count in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match=f"MonteCarlo: samples must be a whole number of at least 1, got {count}"):
            ow.MonteCarlo(ow.Linear(3), samples=count)
        with pytest.raises(
            ValueError, match=f"MonteCarlo: evaluation must be a whole number of at least 1, got {count}"
        ):
            ow.MonteCarlo(ow.Linear(3), evaluation=count)
        with pytest.raises(ValueError, match=f"Mixture: components must be a whole number of at least 1, got {count}"):
            ow.Mixture(3, count)
    with pytest.raises(ValueError, match="MonteCarlo: its head runs several trajectories already"):
        ow.MonteCarlo(ow.MonteCarlo(ow.Linear(3)))


def test_a_stack_reads_other_draws_than_its_cells(key):
    """Below: an even chance at every step, hardly moved by the sample read. Above: says what it read."""
    lower = vt.filled(lambda: ow.Elman(1, UNITS, key=key, activation="sigmoid"))
    slight = jnp.eye(UNITS)[:, None] * 0.4
    arrays = lower.weight * 0, slight, lower.bias * 0 - 0.2
    lower = eqx.tree_at(lambda c: (c.weight, c.recurrent, c.bias), lower, arrays)
    upper = vt.filled(lambda: ow.Elman(UNITS, UNITS, key=key))
    arrays = jnp.eye(UNITS)[:, None], upper.recurrent * 0, upper.bias * 0
    upper = eqx.tree_at(lambda c: (c.weight, c.recurrent, c.bias), upper, arrays)
    cell = ow.Stack(ow.Hybrid(lower, share=1.0), upper)
    start = cell.init()
    even = ow.Carry(((jnp.full(UNITS, 0.5),), start.hidden[1]), start.stats)
    below, above = quick(jax.vmap(lambda k: cell(even, jnp.ones(1), key=k)))(jax.random.split(key, 1000)).hidden
    correlation = np.corrcoef((np.asarray(below[0]) > 0.5).ravel(), (np.asarray(above[0]) > 0.5).ravel())[0, 1]
    assert abs(correlation) < 0.3
