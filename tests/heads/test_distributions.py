"""Bernoulli and mixture heads against densities written out in float64, and against what they claim."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from onward.heads.bernoulli import Bernoulli
from onward.heads.mixture import Mixture

FEATURES = np.array([0.5, -1.2, 0.8])
# Not `filter_jit`: numpy's arrays are arguments.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
predict = quick(lambda head, features: head(features))


def each(method):
    """A head's method on one prediction and many y (or levels)."""
    return quick(lambda head, prediction, ys: jax.vmap(getattr(head, method), (None, 0))(prediction, ys))


log_probs, cdfs, quantiles = each("log_prob"), each("cdf"), each("quantile")
moments = quick(lambda head, prediction: (head.mean(prediction), head.variance(prediction)))


@quick
def draw(head, prediction, keys):
    return jax.vmap(lambda key: head.sample(prediction, key=key))(keys)


def stirred(head, scale=1.0, seed=3):
    """The head with random weights and moved biases."""
    rng = np.random.default_rng(seed)
    weight, bias = (np.asarray(a) + scale * rng.normal(size=a.shape) for a in (head.weight, head.bias))
    return eqx.tree_at(lambda h: (h.weight, h.bias), head, (jnp.asarray(weight), jnp.asarray(bias)))


def written_out(head, features):
    """pi, mu (k, d), sigma of a mixture head, in numpy from its weights."""
    rows = np.asarray(head.weight, np.float64) @ features + np.asarray(head.bias, np.float64)
    k = head.components
    low, high = head.bounds
    centre, half = (low + high) / 2, (high - low) / 2
    r = rows[-k:]
    pi = np.exp(rows[:k]) / np.exp(rows[:k]).sum()
    z = (r - centre) / half
    sigma = np.exp(centre + half * z / np.sqrt(1 + z**2))
    return pi, rows[k:-k].reshape(k, -1), sigma


def density(pi, mu, sigma, y):
    d = mu.shape[1]
    square = ((np.asarray(y).reshape(1, d) - mu) ** 2).sum(1)
    return (pi * (2 * np.pi) ** (-d / 2) * sigma**-d * np.exp(-square / (2 * sigma**2))).sum()


def loss(arrays, head, features, y):
    head = eqx.tree_at(lambda h: (h.weight, h.bias), head, arrays)
    return -head.log_prob(head(features), y)


loss_and_gradient = quick(jax.value_and_grad(loss, argnums=(0, 3)))
THREE = [0.2, 0.5, 0.3], [-1.0, 0.5, 2.0], [0.3, 1.0, 0.2]


def by_hand(pi, mu, sigma):
    """A scalar head's prediction from parts."""
    return jnp.asarray(np.concatenate([np.log(pi), mu, np.log(sigma)]))


@pytest.mark.parametrize(("components", "outputs"), [(1, None), (3, None), (4, 1), (4, 3)])
def test_mixture_log_prob_is_the_log_of_the_summed_densities(components, outputs):
    with jax.enable_x64(True):
        head = stirred(Mixture(3, components, outputs=outputs))
        pi, mu, sigma = written_out(head, FEATURES)
        prediction = predict(head, FEATURES)
        shape = () if outputs is None else (outputs,)
        ys = np.random.default_rng(0).normal(size=(20, *shape)) * 2
        found = log_probs(head, prediction, ys)
        assert found.shape == (20,)
        np.testing.assert_allclose(found, [np.log(density(pi, mu, sigma, y)) for y in ys], rtol=1e-10)
        mean = pi @ mu
        variance = (pi[:, None] * (sigma[:, None] ** 2 + (mu - mean) ** 2)).sum(0)
        for moment, claimed in zip((mean, variance), moments(head, prediction), strict=True):
            np.testing.assert_allclose(claimed, moment.reshape(shape), rtol=1e-10)


def test_mixture_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    with jax.enable_x64(True):
        head = stirred(Mixture(3, 3))
        prediction = predict(head, FEATURES)
        pi, mu, sigma = written_out(head, FEATURES)
        ys = np.linspace(-8, 8, 50)
        parts = stats.norm(mu[:, 0], sigma)
        pdf, cdf = (np.array([pi @ f(y) for y in ys]) for f in (parts.pdf, parts.cdf))
        np.testing.assert_allclose(np.exp(log_probs(head, prediction, ys)), pdf, rtol=1e-9)
        np.testing.assert_allclose(cdfs(head, prediction, ys), cdf, rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "y"),
    [
        (lambda: Mixture(3, 4), 0.7),
        (lambda: Mixture(3, 2, outputs=2), [0.7, -0.3]),
        (lambda: Bernoulli(3, 4), [0.0, 1.0, 1.0, 0.0]),
    ],
    ids=["scalar", "vector", "bernoulli"],
)
def test_gradient_is_that_of_finite_differences(make, y):
    with jax.enable_x64(True):
        head, y = stirred(make(), 0.5), np.asarray(y)
        flat, tree = ravel_pytree((head.weight, head.bias))
        _, (gradient, _) = loss_and_gradient((head.weight, head.bias), head, FEATURES, y)
        steps = 1e-5 * np.eye(flat.size)
        losses = quick(jax.vmap(lambda flat: loss(tree(flat), head, FEATURES, y)))
        differences = (losses(flat[None] + steps) - losses(flat[None] - steps)) / 2e-5
        np.testing.assert_allclose(ravel_pytree(gradient)[0], differences, rtol=1e-6, atol=1e-8)


def test_components_start_apart_and_learn_apart():
    head = Mixture(3, 4, spread=(-1.0, 3.0))
    log_pi, mu, log_sigma = head.parts(predict(head, FEATURES))
    np.testing.assert_allclose(np.exp(log_pi), 0.25, rtol=1e-6)
    np.testing.assert_allclose(mu, [-0.5, 0.5, 1.5, 2.5], rtol=1e-6)
    np.testing.assert_allclose(np.exp(log_sigma), 1, rtol=1e-5)
    vector = Mixture(3, 4, outputs=2)
    _, mu, _ = vector.parts(predict(vector, FEATURES))
    np.testing.assert_allclose(mu, np.repeat([[0.125], [0.375], [0.625], [0.875]], 2, axis=1))
    _, ((weight, _), _) = loss_and_gradient((head.weight, head.bias), head, FEATURES, 0.1)
    assert len(np.unique(np.asarray(weight)[:4, 0])) == 4
    # A sigma that the bounds would not allow starts inside them.
    narrow = Mixture(3, 2, bounds=(-7.0, -5.0))
    np.testing.assert_allclose(narrow.parts(predict(narrow, FEATURES))[2], -5.2, rtol=1e-5)


def test_log_sigma_keeps_to_its_bounds_and_keeps_a_gradient():
    head = Mixture(1, 1)

    def log_sigma(r):
        moved = eqx.tree_at(lambda h: h.bias, head, jnp.stack([jnp.zeros(()), jnp.zeros(()), r]))
        return head.parts(moved(jnp.ones(1)))[2][0]

    r = np.array([-1e3, -50.0, -2.0, 50.0, 1e3], np.float32)
    values, slopes = quick(jax.vmap(jax.value_and_grad(log_sigma)))(r)
    assert ((values >= -7) & (values <= 3)).all()
    assert (slopes > 0).all()
    assert slopes[2] == 1
    np.testing.assert_allclose(values[2], -2)


@pytest.mark.parametrize("outputs", [None, 2])
def test_mixture_far_out_is_finite_in_float32(outputs):
    head = Mixture(3, 3, outputs=outputs)
    d = outputs or 1
    # Logits that leave one component, and sigma at its least: y = 1 is a thousand sigmas away.
    bias = np.concatenate([[1e4, -1e4, 0], np.zeros(3 * d), [-1e3, -1e3, 0]]).astype(np.float32)
    for moved in (bias, -bias):
        for value in (0.5, 1.0, -1e3, 1e3, 1e5):
            y = np.full(() if outputs is None else (2,), value, np.float32)
            found = loss_and_gradient((head.weight, moved), head, FEATURES, y)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    if outputs is None:
        cdf = quick(jax.value_and_grad(head.cdf, argnums=(0, 1)))
        prediction = predict(eqx.tree_at(lambda h: h.bias, head, jnp.asarray(bias)), FEATURES)
        for y in (-1e3, 0.0, 1.0, 1e5):
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(cdf(prediction, y)))


def test_quantile_is_the_inverse_of_the_cdf():
    head = Mixture(3, 3)
    prediction = by_hand(*THREE)
    ys = np.linspace(-3, 3, 24, dtype=np.float32)
    found = quantiles(head, prediction, cdfs(head, prediction, ys))
    assert found.dtype == jnp.float32
    # A level is known to 6e-8, and so y to 6e-8 / p(y).
    np.testing.assert_allclose(found, ys, atol=2e-5)
    levels = np.array([1e-30, 1e-6, *np.linspace(0.01, 0.99, 21), 1 - 1e-6], np.float32)
    np.testing.assert_allclose(cdfs(head, prediction, quantiles(head, prediction, levels)), levels, rtol=2e-4)
    with jax.enable_x64(True):
        prediction = by_hand(*THREE)
        ys = np.linspace(-7, 4.5, 50)
        np.testing.assert_allclose(quantiles(head, prediction, cdfs(head, prediction, ys)), ys, atol=1e-10)


def test_quantile_of_one_gaussian_in_float32():
    stats = pytest.importorskip("scipy.stats")
    head = Mixture(3, 3)
    levels = np.array([1e-20, 1e-8, *np.linspace(0.001, 0.999, 22)], np.float32)
    for mu, sigma in ((0.3, 0.001), (0.0, 1.0), (5.0, 20.0)):
        prediction = by_hand([0.2, 0.5, 0.3], [mu] * 3, [sigma] * 3)
        exact = stats.norm(np.float64(np.float32(mu)), sigma).ppf(levels.astype(float))
        np.testing.assert_allclose(quantiles(head, prediction, levels), exact, rtol=1e-6, atol=1e-6 * max(1, sigma))


def test_quantile_differentiates_as_the_implicit_function():
    head = Mixture(3, 3)
    slopes = quick(jax.grad(head.quantile, argnums=(0, 1)))
    across = quick(jax.vmap(head.quantile, (0, None)))
    with jax.enable_x64(True):
        prediction = by_hand(*THREE)
        for level in (0.03, 0.97):
            by_prediction, by_level = slopes(prediction, level)
            y = quantiles(head, prediction, np.array([level]))
            np.testing.assert_allclose(by_level, np.exp(-log_probs(head, prediction, y)[0]), rtol=1e-8)
            ends = [across(prediction[None] + step, level) for step in (1e-5 * np.eye(9), -1e-5 * np.eye(9))]
            differences = (ends[0] - ends[1]) / 2e-5
            np.testing.assert_allclose(by_prediction, differences, rtol=1e-5, atol=1e-7)
    # Between components far apart the density is zero: a value all the same, and no nan.
    gap = by_hand([0.25, 0.25, 0.5], [-100.0, -100.0, 100.0], [0.01] * 3)
    assert np.isfinite(quantiles(head, gap, np.array([0.5], np.float32))).all()
    assert not any(np.isnan(slope).any() for slope in slopes(gap, 0.5))


def test_mixture_samples_have_its_moments(key):
    head = Mixture(3, 3)
    prediction = by_hand(*THREE)
    n = 20_000
    keys = jax.random.split(key, n)
    draws = np.asarray(draw(head, prediction, keys))
    mean, variance = moments(head, prediction)
    assert abs(draws.mean() - mean) < 4 * math.sqrt(variance / n)
    np.testing.assert_allclose(draws.var(), variance, rtol=0.04)
    levels = np.linspace(0.02, 0.98, 24, dtype=np.float32)
    shares = (draws <= np.asarray(quantiles(head, prediction, levels))[:, None]).mean(1)
    np.testing.assert_allclose(shares, levels, atol=4 * math.sqrt(0.25 / n))

    vector = stirred(Mixture(3, 2, outputs=2), 0.5)
    prediction = predict(vector, FEATURES)
    draws = np.asarray(draw(vector, prediction, keys))
    assert draws.shape == (n, 2)
    mean, variance = moments(vector, prediction)
    assert (abs(draws.mean(0) - mean) < 4 * np.sqrt(variance / n)).all()
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.05)


HEADS = {
    "mixture": lambda: stirred(Mixture(3, 3)),
    "mixture-2": lambda: stirred(Mixture(3, 4, outputs=2)),
    "bernoulli": lambda: stirred(Bernoulli(3, 4)),
}


@pytest.mark.parametrize("name", HEADS)
def test_vmap_changes_nothing(name, key):
    head = HEADS[name]()
    features = jax.random.normal(key, (3, 3))
    keys = jax.random.split(key, 3)

    def every(features, key):
        prediction = head(features)
        y = head.sample(prediction, key=key)
        out = [prediction, y, head.mean(prediction), head.log_prob(prediction, y)]
        if name == "mixture":
            out += [head.variance(prediction), head.cdf(prediction, y), head.quantile(prediction, 0.3)]
        return out

    together, alone = quick(jax.vmap(every))(features, keys), quick(every)
    for i in range(3):
        for a, b in zip(together, alone(features[i], keys[i]), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5)


def test_bernoulli_against_numpy(key):
    with jax.enable_x64(True):
        head = stirred(Bernoulli(3, 4))
        p = 1 / (1 + np.exp(-(np.asarray(head.weight) @ FEATURES + np.asarray(head.bias))))
        prediction = head(jnp.asarray(FEATURES))
        np.testing.assert_allclose(head.mean(prediction), p, rtol=1e-12)
        ys = np.array(list(np.ndindex(2, 2, 2, 2)))
        probabilities = np.where(ys, p, 1 - p).prod(1)
        np.testing.assert_allclose(probabilities.sum(), 1)
        for dtype in (int, float, bool):
            found = log_probs(head, prediction, ys.astype(dtype))
            np.testing.assert_allclose(found, np.log(probabilities), rtol=1e-10)
    n = 20_000
    draws = np.asarray(draw(head, prediction.astype(jnp.float32), jax.random.split(key, n)))
    assert set(np.unique(draws)) == {0, 1}
    assert (abs(draws.mean(0) - p) < 4 * np.sqrt(p * (1 - p) / n)).all()


def test_bernoulli_starts_even_and_stays_finite():
    head = Bernoulli(3, 2)
    np.testing.assert_array_equal(head.mean(head(jnp.ones(3))), 0.5)
    logits = jnp.array([1e4, -1e4])
    assert float(head.log_prob(logits, jnp.array([1, 0]))) == 0
    assert float(head.log_prob(logits, jnp.array([0, 1]))) == -2e4
    gradient = quick(jax.grad(head.log_prob))
    for y in np.array([[1, 0], [0, 1]]):
        np.testing.assert_allclose(gradient(logits, y), y - np.array([1, 0]))
    # Small probabilities keep their digits.
    np.testing.assert_allclose(head.log_prob(jnp.array([30.0, 30.0]), jnp.ones(2)), -2 * math.exp(-30), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Mixture(0, 2), "features must be a whole number of at least 1, got 0"),
        (lambda: Mixture(3, 0), "components must be a whole number of at least 1, got 0"),
        (lambda: Mixture(3, 2, outputs=0), "outputs must be a whole number of at least 1, got 0"),
        (lambda: Mixture(3, 2, bounds=(1.0, 1.0)), r"bounds must be two finite numbers.*got \(1.0, 1.0\)"),
        (lambda: Mixture(3, 2, bounds=(-7.0, math.inf)), "bounds must be two finite numbers"),
        (lambda: Mixture(3, 2, bounds=(-7.0, math.nan)), "bounds must be two finite numbers"),
        (lambda: Mixture(3, 2, bounds=(1.0, 2.0, 3.0)), "bounds must be two finite numbers"),
        (lambda: Mixture(3, 2, spread=(1.0, 0.0)), r"spread must be two finite numbers.*got \(1.0, 0.0\)"),
        (lambda: Bernoulli(0, 2), "features must be a whole number of at least 1, got 0"),
        (lambda: Bernoulli(3, 0), "outputs must be a whole number of at least 1, got 0"),
        (lambda: Bernoulli(3, 2).log_prob(jnp.zeros(2), jnp.array(1)), r"y must have shape \(2,\), got \(\)"),
    ],
)
def test_errors(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_errors_of_use():
    head, vector = Mixture(3, 2), Mixture(3, 2, outputs=2)
    prediction = head(jnp.ones(3))
    for level in (0.0, 1.0, -0.1, 1.5, math.nan, 1 - 1e-9):
        with pytest.raises(ValueError, match="level must be between 0 and 1, both excluded, as float32, got"):
            head.quantile(prediction, level)
        with pytest.raises(ValueError, match="level must be between 0 and 1"):
            jax.jit(lambda p, level=level: head.quantile(p, level))(prediction)
    traced = jax.vmap(head.quantile, (None, 0))(prediction, jnp.array([-1.0, 0.0, 0.5, 1.0]))
    assert np.isnan(traced).tolist() == [True, True, False, True]
    with pytest.raises(ValueError, match=r"level must be one number, got shape \(2,\); use jax.vmap"):
        head.quantile(prediction, jnp.array([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"y must have shape \(\) \(outputs=None\), got \(2,\)"):
        head.log_prob(prediction, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"y must have shape \(2,\)"):
        vector.log_prob(vector(jnp.ones(3)), jnp.zeros(()))
    with pytest.raises(TypeError, match=r"cdf is of scalar targets \(outputs=None\), this head has outputs=2"):
        vector.cdf(vector(jnp.ones(3)), jnp.zeros(()))
    with pytest.raises(TypeError, match=r"quantile is of scalar targets"):
        vector.quantile(vector(jnp.ones(3)), 0.5)
