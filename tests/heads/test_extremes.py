"""The mixture at the ends of single precision: finite, right where the truth can be written down, and unchanged elsewhere."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onward.heads.mixture import STEEP, Mixture

MOST = float(np.finfo(np.float32).max)
SIZES = (0.0, 1e-30, 1e-19, 1.0, 300.0, 1e6, 1e18, 1e19, 1e20, 1e30, 3e38)
EXTREMES = np.asarray([*SIZES, *(-size for size in SIZES[1:])], np.float32)
BETWEEN = [pytest.param(bounds, marks=pytest.mark.interfaces) for bounds in ((-40.0, 40.0), (-80.0, 10.0))]
BOUNDS = [(-7.0, 3.0), (-300.0, 300.0), *BETWEEN]
WITHIN = pytest.mark.parametrize("bounds", BOUNDS, ids=str)
ROUND = {"rtol": 1e-5, "atol": 1e-5}
D = pytest.mark.parametrize("outputs", [None, 2])


def loss(arrays, head, features, y):
    head = eqx.tree_at(lambda h: (h.weight, h.bias), head, arrays)
    return -head.log_prob(head(features), y)


@jax.jit
def of_rows(head, biases, features, ys):
    """Loss and gradient for each bias and y, with weights that are zero."""
    each = jax.value_and_grad(loss, argnums=(0, 2, 3))
    return jax.vmap(lambda bias, y: each((head.weight, bias), head, features, y))(biases, ys)


@jax.jit
def of_predictions(head, predictions, ys):
    """Loss and gradient for each prediction and y."""
    return jax.vmap(jax.value_and_grad(lambda p, y: -head.log_prob(p, y), argnums=(0, 1)))(predictions, ys)


def drawn(rng, shape, values=EXTREMES):
    return rng.choice(np.asarray(values, np.float32), shape)


def true(log_pi, mu, log_sigma, y):
    """Loss, gradients and responsibilities, (rows, components, outputs), in 80 bits: up to 1e4932."""
    log_pi, mu, log_sigma, y = (np.asarray(a, np.longdouble) for a in (log_pi, mu, log_sigma, y))
    d = mu.shape[-1]
    z = (y[:, None] - mu) * np.exp(-log_sigma)[..., None]
    each = log_pi - 0.5 * np.square(z).sum(-1) - d * (log_sigma + 0.5 * np.log(2 * np.longdouble(np.pi)))
    top = each.max(1, keepdims=True)
    value = top[:, 0] + np.log(np.exp(each - top).sum(1))
    w = np.exp(each - value[:, None])
    by_mu = -w[..., None] * z * np.exp(-log_sigma)[..., None]
    gradient = np.concatenate([-w, by_mu.reshape(len(w), -1), w * (d - np.square(z).sum(-1))], 1)
    # Who of two is nearer cannot be told where rounding alone, 1e-6 of each, decides it.
    order = np.sort(each, 1)
    told = np.ones(len(w), bool) if w.shape[1] == 1 else order[:, -1] - order[:, -2] > 100 + 1e-5 * np.abs(order[:, -1])
    return -value, gradient, -by_mu.sum(1), told


@WITHIN
@D
def test_a_mixture_is_finite_for_all_finite_weights_and_targets(bounds, outputs):
    rng = np.random.default_rng(0)
    head = Mixture(2, 3, outputs=outputs, bounds=bounds)
    n, y_shape = 20_000, () if outputs is None else (outputs,)
    for features in ([1.0, -1.0], [0.0, 1e-38]):
        found = of_rows(
            head, drawn(rng, (n, *head.bias.shape)), np.asarray(features, np.float32), drawn(rng, (n, *y_shape))
        )
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@WITHIN
@D
@pytest.mark.parametrize("components", [1, 3])
def test_a_mixture_far_out_is_what_80_bits_say(bounds, outputs, components):
    """Wherever the loss can be written down in single precision, and the gradient is below `STEEP`."""
    rng = np.random.default_rng(1)
    n, d, k = 20_000, outputs or 1, components
    low, high = bounds
    head = Mixture(2, k, outputs=outputs, bounds=bounds)
    near = EXTREMES[np.abs(EXTREMES) < 1e19]
    log_pi = rng.choice(np.float32([-1e-6, -1.0, -300.0, -1e19, -3e38]), (n, k))
    log_pi[:, 0] = 0
    mu, y = drawn(rng, (n, k, d)), drawn(rng, (n, d))
    mu[: n // 2], y[: n // 4] = drawn(rng, (n // 2, k, d), near), drawn(rng, (n // 4, d), near)
    mu[::5] = y[::5, None] * np.float32(1 + 1e-6)
    log_sigma = rng.uniform(low, high, (n, k)).astype(np.float32)
    log_sigma[::3], log_sigma[1::7] = low, high
    predictions = np.concatenate([log_pi, mu.reshape(n, -1), log_sigma], 1)
    value, (by_prediction, by_y) = of_predictions(head, predictions, y if outputs else y[:, 0])
    assert all(np.isfinite(leaf).all() for leaf in (value, by_prediction, by_y))
    true_value, true_by_prediction, true_by_y, told = true(log_pi, mu, log_sigma, y)
    good = (np.abs(true_value) < MOST / 10) & (np.abs(true_by_prediction).max(1) < STEEP / 2) & told
    assert good.mean() > 0.1
    # exp(-log sigma) is known to 300 units in the last place of log sigma: 2e-5, and its square to twice that.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    close(np.asarray(value)[good], true_value[good].astype(float))
    scale = 1 + np.abs(true_by_prediction[good]).astype(float)
    close(np.asarray(by_prediction)[good] / scale, true_by_prediction[good].astype(float) / scale)
    close(np.asarray(by_y).reshape(n, d)[good] / (1 + np.abs(true_by_y[good]).astype(float)),
          true_by_y[good].astype(float) / (1 + np.abs(true_by_y[good]).astype(float)))  # fmt: skip


@WITHIN
@pytest.mark.parametrize("sign", [1, -1])
def test_an_outlier_beyond_all_numbers_still_pulls(bounds, sign):
    """What cannot be written down keeps its sign: towards y, and to a wider Gaussian."""
    head = Mixture(2, 1, bounds=bounds)
    _, (by_prediction, by_y) = of_predictions(head, np.float32([[0, 0, bounds[0]]]), np.float32([sign * 3e38]))
    _, by_mu, by_log_sigma = np.asarray(by_prediction)[0]
    assert -sign * by_mu > 1e7
    assert by_log_sigma < -1e17
    assert sign * by_y[0] > 1e7


class Before(Mixture):
    """As it was written before it was made finite."""

    def __call__(self, features):
        rows, k = self.weight @ features + self.bias, self.components
        centre, half = self._centre_half()
        z = (rows[-k:] - centre) / half
        log_sigma = centre + half * z * jax.lax.rsqrt(1 + z * z)
        return jnp.concatenate([jax.nn.log_softmax(rows[:k]), rows[k:-k], log_sigma])

    def log_prob(self, prediction, y):
        log_pi, mu, log_sigma = self.parts(prediction)
        d = self.outputs or 1
        z = (jnp.reshape(y, (1, d)) - mu.reshape(-1, d)) * jnp.exp(-log_sigma)[:, None]
        log_density = -0.5 * jnp.sum(jnp.square(z), axis=1) - d * (log_sigma + 0.5 * math.log(2 * math.pi))
        return jax.nn.logsumexp(log_pi + log_density)


@WITHIN
@D
@pytest.mark.parametrize("level", [None, 0, 2], ids=["as written", "compiled fast", "compiled well"])
def test_usual_numbers_keep_every_bit(bounds, outputs, level):
    """As written, operation by operation; what a compiler fuses into one it rounds once, each program its own way."""
    rng = np.random.default_rng(2)
    n, shape = 20_000, () if outputs is None else (outputs,)
    after, before = (kind(8, 4, outputs=outputs, bounds=bounds) for kind in (Mixture, Before))
    size = 10 ** rng.uniform(-6, 6, (n, *(1,) * len(shape)))
    ys = (size * rng.uniform(-1, 1, (n, *shape))).astype(np.float32)
    features = rng.normal(size=(n, 8)).astype(np.float32)
    weight = (0.3 * rng.normal(size=after.weight.shape)).astype(np.float32)
    bias = (np.asarray(after.bias) + rng.normal(size=after.bias.shape)).astype(np.float32)
    found = []
    for head in (after, before):
        each = jax.value_and_grad(lambda arrays, x, y, head=head: loss(arrays, head, x, y), argnums=(0, 1, 2))
        program = jax.vmap(each, (None, 0, 0))
        if level is not None:
            program = jax.jit(program, compiler_options={"xla_backend_optimization_level": level})
        with jax.disable_jit(level is None):
            found.append(jax.tree.leaves(program((weight, bias), features, ys)))
    for a, b in zip(*found, strict=True):
        finite = np.isfinite(b)
        assert finite.mean() > 0.5
        close = (
            np.testing.assert_array_equal if level is None else functools.partial(np.testing.assert_allclose, **ROUND)
        )
        close(np.asarray(a)[finite], np.asarray(b)[finite])
