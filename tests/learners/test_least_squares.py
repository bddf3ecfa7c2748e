"""The readout by recursive least squares: against the textbook, in numpy and float64."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward import least_squares
from onward.verify import in_float64

pytestmark = pytest.mark.usefixtures("compile_fast")

PRIOR = 0.05
FEATURES = 4


class Parts(eqx.Module):
    """Only what an optimiser sees of a model."""

    cell: jax.Array
    head: ow.Linear


def _parts(outputs=None, features=FEATURES):
    return Parts(jnp.ones(2), ow.Linear(features, outputs))


def _learn(optimiser, parts, features, targets):
    """Learn rows one after another: the heads and the states after every one, and the errors before."""

    def step(loop, row):
        parts, state = loop
        phi, y = row
        error = parts.head(phi) - y
        weight = jnp.outer(error, phi) if parts.head.outputs else error * phi
        head = eqx.tree_at(lambda h: (h.weight, h.bias), parts.head, (weight, error))
        gradient = Parts(jnp.ones(2) * jnp.sum(error), head)
        updates, state = optimiser.update(gradient, state, parts)
        parts = eqx.apply_updates(parts, updates)
        return (parts, state), (parts, state, error)

    rows = (jnp.asarray(features), jnp.asarray(targets))
    return jax.jit(lambda p: jax.lax.scan(step, (p, optimiser.init(p)), rows))(parts)[1]


def _rows(n, outputs=None, features=FEATURES, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, features)) @ rng.normal(size=(features, features))
    true = rng.normal(size=(features, outputs or 1))
    y = x @ true + 0.7 + 0.3 * rng.normal(size=(n, outputs or 1))
    return x, y if outputs else y[:, 0]


class Textbook:
    """Recursive least squares with a known noise R: k = P phi / (R + phi' P phi), and so on."""

    def __init__(self, outputs, prior, features=FEATURES):
        self.w, self.p = np.zeros((outputs, features + 1)), prior * np.eye(features + 1)
        self.prior = prior

    def step(self, x, y, noise, leak=0.0):
        phi = np.append(x, 1)
        k = self.p @ phi / (noise + phi @ self.p @ phi)
        self.w -= np.outer(self.w @ phi - y, k)
        self.p = (1 - leak) * (self.p - np.outer(k, phi @ self.p)) + leak * self.prior * np.eye(len(phi))


@pytest.mark.parametrize(("outputs", "leak"), [(None, 0.0), (3, 0.01)])
def test_equals_the_textbook_step_by_step(outputs, leak):
    """R = noise (1.25 mean |e|)^2, of the mean that the state says; |e| of several outputs is their root mean square."""
    with jax.enable_x64(True):
        x, y = _rows(120, outputs)
        rule = least_squares(optax.sgd(0.0), prior=PRIOR, leak=leak, clip=1e9, noise=0.7, rate=0.05)
        parts, states, _ = _learn(rule, in_float64(_parts(outputs)), x, y)
        book = Textbook(outputs or 1, PRIOR)
        for t in range(len(x)):
            book.step(x[t], y[t], 0.7 * (1.25 * float(states.error[t])) ** 2, leak)
            found = np.concatenate([np.atleast_2d(parts.head.weight[t]), np.reshape(parts.head.bias[t], (-1, 1))], 1)
            np.testing.assert_allclose(found, book.w, rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(states.covariance[t], book.p, rtol=1e-7, atol=1e-12)
    assert np.abs(book.w).max() > 0.3


def test_a_forgotten_factor_is_caught():
    """The same comparison, with R too large by a fifth: it must differ by far more than the tolerance."""
    with jax.enable_x64(True):
        x, y = _rows(40)
        rule = least_squares(optax.sgd(0.0), prior=PRIOR, leak=0.0, clip=1e9)
        parts, states, _ = _learn(rule, in_float64(_parts()), x, y)
        book = Textbook(1, PRIOR)
        for t in range(len(x)):
            book.step(x[t], y[t], 1.2 * (1.25 * float(states.error[t])) ** 2)
    assert np.abs(np.asarray(parts.head.weight)[-1] - book.w[0, :-1]).max() > 1e-4


def test_the_mean_error_is_an_average():
    """That of |e| from 1 as if seen ten times, then at `rate`; none counts for more than ten of it."""
    x, y = _rows(400)
    y[300] += 1000
    _, states, errors = _learn(least_squares(optax.sgd(0.0), rate=0.02), _parts(), x.astype("f"), y.astype("f"))
    mean = 1.0
    for t, error in enumerate(np.abs(np.asarray(errors, float))):
        mean += max(1 / (t + 10), 0.02) * (min(error, 10 * mean) - mean)
        np.testing.assert_allclose(states.error[t], mean, rtol=1e-4)
    assert float(states.error[300] / states.error[299]) < 1.2


def test_equals_batch_weighted_ridge():
    """All rows at once: sum phi phi' / R_t + I / prior."""
    with jax.enable_x64(True):
        x, y = _rows(500)
        rule = least_squares(optax.sgd(0.0), prior=PRIOR, leak=0.0, clip=1e9)
        parts, states, _ = _learn(rule, in_float64(_parts()), x, y)
        noise = (1.25 * np.asarray(states.error)) ** 2
        phi = np.concatenate([x, np.ones((len(x), 1))], 1)
        batch = np.linalg.solve(phi.T @ (phi / noise[:, None]) + np.eye(FEATURES + 1) / PRIOR, phi.T @ (y / noise))
        np.testing.assert_allclose(parts.head.weight[-1], batch[:-1], rtol=1e-7)
        np.testing.assert_allclose(parts.head.bias[-1], batch[-1], rtol=1e-7)


def test_the_cell_s_gradient_is_free_of_the_unit_of_y():
    """e / mean |e|, cut at `clip`; what the cell's optimiser makes of it is passed on."""
    x, y = _rows(60)
    rule = least_squares(optax.sgd(0.25), clip=2.0)
    parts, states, errors = _learn(rule, _parts(), x.astype("f"), y.astype("f"))
    before = np.concatenate([[1.0], np.asarray(states.error)[:-1]])
    steps = np.diff(np.concatenate([[[1.0, 1.0]], np.asarray(parts.cell)]), axis=0)
    scaled = np.clip(np.asarray(errors) / before, -2, 2)
    np.testing.assert_allclose(steps, -0.25 * np.stack([scaled] * 2, 1), rtol=1e-3, atol=1e-5)
    assert 0 < (np.abs(scaled) > 1.99).sum() < 30


def test_without_an_error_no_weight_moves():
    rule = least_squares(optax.sgd(0.1))
    parts = eqx.tree_at(lambda p: p.head.weight, _parts(), jnp.ones(FEATURES))
    nothing = jax.tree.map(jnp.zeros_like, parts)
    state = rule.init(parts)
    updates, after = jax.jit(rule.update)(nothing, state, parts)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
    np.testing.assert_allclose(after.covariance, state.covariance, rtol=1e-6)
    assert np.isfinite(after.error)


def test_an_outlier_moves_the_weights_no_more_than_an_error_at_the_cut():
    """A target of a million, or 1e25, or of a few times the usual error: the same step. In parallel runs."""
    x, y = _rows(200)
    outliers = np.array([1e6, -1e6, 50.0, 1e25])
    ys = np.concatenate([np.tile(y[:-1], (4, 1)), outliers[:, None]], 1).astype("f")
    learn = lambda y: _learn(least_squares(optax.sgd(0.1)), _parts(), x.astype("f"), y)
    parts, _, errors = jax.vmap(learn)(jnp.asarray(ys))
    ends = np.asarray(parts.head.weight[:, -1] - parts.head.weight[:, -2])
    assert np.abs(errors[2, -1]) > 10
    np.testing.assert_allclose(ends[0], ends[2], rtol=0.02, atol=1e-7)
    np.testing.assert_allclose(ends[0], -ends[1], rtol=0.02, atol=1e-7)
    np.testing.assert_allclose(ends[0], ends[3], rtol=0.02, atol=1e-7)
    assert 0 < np.abs(ends[0]).max() < 0.1


def test_the_covariance_stays_bounded_where_nothing_is_seen(compile_well):
    """1e5 rows of a constant feature, one that is always 0, one that sleeps most of the time, and their noise."""
    n = 100_000
    rng = np.random.default_rng(0)
    x = np.stack(
        [np.full(n, 2.0), np.zeros(n), rng.normal(size=n) * (np.arange(n) % 20_000 < 100), rng.normal(size=n)], 1
    )
    y = x @ [0.5, 1, 1, -1] + 0.1 * rng.normal(size=n)
    rule = least_squares(optax.sgd(0.0), prior=PRIOR)
    parts, states, errors = _learn(rule, _parts(), x.astype("f"), y.astype("f"))
    eigen = np.linalg.eigvalsh(np.asarray(states.covariance[::500], float))
    assert eigen.max() < 1.01 * PRIOR
    assert eigen.min() > -1e-3 * PRIOR
    np.testing.assert_allclose(states.covariance[-1, 1, 1], PRIOR, rtol=1e-3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((parts.head, states)))
    assert not np.any(parts.head.weight[:, 1])
    assert np.abs(errors[-1000:]).mean() < 0.1
    asymmetry = states.covariance - np.swapaxes(states.covariance, 1, 2)
    assert np.abs(asymmetry).max() < 1e-4 * PRIOR


@pytest.mark.parametrize("outputs", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_it_learns_with_a_cell_and_after_growth(outputs, key):
    """The usual place: a cascade and its readout; the head is that of more features after growth."""
    moments = ow.Moments(0.9)
    cell = ow.Cascade(ow.Columns(ow.GRUGates(), 3, 4, key=key, spread=0.5, normalise_features=moments))
    learner = ow.Online(ow.Columnwise(), ow.Supervised(), least_squares(optax.adam(1e-2), prior=1.0))
    xs = 2 * jax.random.normal(key, (150, 3))
    ys = xs.sum(1) if outputs is None else xs[:, :2]
    shape = jnp.zeros(150)
    stream = ow.Step(xs, ys, shape + 1, shape > 0, shape)
    one = jax.tree.map(lambda a: a[0], stream)
    state = learner.init(ow.Model(cell, ow.Linear(4, outputs)), one, key=key)
    run = lambda s: jax.jit(lambda s: jax.lax.scan(learner.step, s, stream))(s)
    state, info = run(state)
    assert info.loss[-50:].mean() < 0.9 * info.loss[:50].mean()
    grown = learner.grow(state, one)
    assert grown.optimiser.covariance.shape == (9, 9)
    np.testing.assert_allclose(grown.optimiser.covariance, np.eye(9))
    after, later = run(grown)
    assert later.loss[-50:].mean() < info.loss[-50:].mean()
    assert np.all(after.model.head.weight[..., 4:] != 0)


@pytest.mark.parametrize(
    "bad",
    [
        {"prior": 0.0}, {"leak": 1.0}, {"leak": -0.1}, {"clip": 0.0}, {"rate": 0.0}, {"rate": 1.5}, {"noise": 0.0},
        {"floor": 0.0}, {"prior": float("nan")}, {"noise": float("nan")}, {"floor": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_refused(bad):
    with pytest.raises(ValueError, match="least_squares needs prior, clip, noise and floor > 0, leak in"):
        least_squares(optax.sgd(0.1), **bad)
