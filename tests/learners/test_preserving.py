"""BPTT that keeps the length of the gradient: against BPTT, numpy and a number of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.learners.preserving import lengthening
from onward.verify import targets as vt
from onward.verify.gradients import quick

INPUTS, UNITS = vt.INPUTS, vt.UNITS
step = quick(lambda learner, model, example, key: learner.step(learner.init(model, example, key=key), example))


def moved(before, after):
    return [np.asarray(b) - np.asarray(a) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)]


def elman(scale=1.0):
    model = vt.small(lambda k: ow.Elman(INPUTS, UNITS, key=k))
    return jax.tree.map(lambda a: scale * a, model)


@pytest.mark.parametrize("kind", [ow.Elman, ow.GRU, ow.LSTM], ids=lambda k: k.__name__)
def test_without_weight_it_is_bptt(kind, key):
    with jax.enable_x64(True):
        model, example = vt.small(lambda k: kind(INPUTS, UNITS, key=k)), vt.batch(5, 3, 2)
        found, info = step(ow.Preserving(optax.sgd(0.5), 0.0), model, example, key)
        truth, same = step(ow.BPTT(optax.sgd(0.5)), model, example, key)
    np.testing.assert_allclose(info.loss, same.loss, rtol=1e-12)
    for a, b in zip(moved(model, found.model), moved(model, truth.model), strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14)


def by_hand(model, example):
    """Omega of an Elman layer and its gradient by U, with the states, slopes and gradients of numpy's own pass."""
    cell, head = model.cell, model.head
    weight, u, bias = (np.asarray(a)[..., 0, :] for a in (cell.weight, cell.recurrent, cell.bias))
    xs, y = np.asarray(example.xs), np.asarray(example.y)[0]
    h, states = np.zeros((xs.shape[1], UNITS)), []
    for x in xs:
        h = np.tanh(x @ weight + h @ u + bias)
        states.append(h)
    out, offset = np.asarray(head.weight), np.asarray(head.bias)
    p = np.exp(h @ out.T + offset)
    g = (p / p.sum(1, keepdims=True) - np.eye(len(out))[y]) @ out
    omega, slope, count = 0.0, np.zeros_like(u), 0
    for h in reversed(states):
        drive = g * (1 - h**2)  # what the preactivations of this step get
        back = drive @ u.T
        size, length = np.linalg.norm(back, axis=1), np.linalg.norm(g, axis=1)
        omega += ((size / length - 1) ** 2).sum()
        for n in range(len(g)):
            slope += 2 * (size[n] / length[n] - 1) * np.outer(back[n], drive[n]) / (size[n] * length[n])
        count += len(g)
        g = back
    return omega / count, slope / count


def test_the_regulariser_is_that_of_numpy(key):
    with jax.enable_x64(True):
        model, example = elman(), vt.batch(5, 4)
        omega, slope = by_hand(model, example)
        plain, _ = step(ow.Preserving(optax.sgd(1.0), 0.0), model, example, key)
        with_it, _ = step(ow.Preserving(optax.sgd(1.0), 0.3), model, example, key)
        exact = ow.TPTT(ow.FeedbackInverse(), optax.sgd(1.0), inverse_steps=0)
        swept = vt.sweep(exact, model, example, key, model.cell.recurrent, keep=True)
        found = quick(lengthening)(model.cell.recurrent, model.cell, model.cell.init().stats, example.xs, swept)
    np.testing.assert_allclose(found, omega, rtol=1e-9)
    # Only the recurrent weights are moved by it, by the direct part alone.
    by_it = moved(plain.model, with_it.model)
    assert sum(np.abs(d).max() > 0 for d in by_it) == 1
    np.testing.assert_allclose(
        with_it.model.cell.recurrent[:, 0] - plain.model.cell.recurrent[:, 0], -0.3 * slope, rtol=1e-7
    )
    assert np.abs(slope).max() > 1e-3


def test_a_gradient_that_counts_a_step_twice_is_caught(key):
    """The planted fault: ratios of squares, as in the authors' code, are another number."""
    with jax.enable_x64(True):
        model, example = elman(), vt.batch(5, 4)
        omega, _ = by_hand(model, example)
        exact = ow.TPTT(ow.FeedbackInverse(), optax.sgd(1.0), inverse_steps=0)
        swept = vt.sweep(exact, model, example, key, model.cell.recurrent, keep=True)
        twice = quick(lengthening)(2 * model.cell.recurrent, model.cell, model.cell.init().stats, example.xs, swept)
    assert abs(float(twice) / omega - 1) > 1e-2


def test_it_brings_lengths_back(key):
    """Weights from which gradients vanish grow, and Omega falls, if it alone is followed."""
    model, example = elman(0.3), vt.batch(6, 8)
    learner = ow.Preserving(optax.sgd(1.0), 1.0, step_size=0.3)
    state = learner.init(model, example, key=key)

    @quick
    def many(state):
        return jax.lax.scan(lambda s, _: (learner.step(s, example)[0], None), state, length=60)[0]

    after = many(state).model
    norm = lambda m: np.linalg.norm(m.cell.recurrent[:, 0], 2)
    assert norm(after) > 1.5 * norm(model)
    assert np.isfinite(norm(after))


def test_rows_whose_gradient_is_gone_do_not_count(key):
    """A row that the mask leaves out has no gradient anywhere: Omega is that of the others, and finite."""
    with jax.enable_x64(True):
        model, example = elman(), vt.batch(4, 3)
        part = example._replace(mask=example.mask.at[:, 1].set(0.0))
        fewer = jax.tree.map(lambda a: a[:, jnp.array([0, 2])], example)
        ends = [step(ow.Preserving(optax.sgd(1.0), 0.5), model, e, key)[0].model for e in (part, fewer)]
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_what_it_refuses(key):
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="Preserving: weight must be at least 0 and finite, got"):
            ow.Preserving(optax.sgd(1.0), weight)
    for cell in (ow.Hybrid(ow.GRU(INPUTS, 4, key=key)), ow.Columns(ow.GRUGates(), INPUTS, 4, key=key)):
        model = ow.Model(cell, ow.Categorical(4, vt.CLASSES))
        with pytest.raises(TypeError, match=r"Preserving is for a dense layer .*, got .*; BPTT takes any cell"):
            ow.Preserving(optax.sgd(1.0), 1.0).init(model, vt.batch(3, 2), key=key)
    with pytest.raises(TypeError, match="Preserving needs the loss of each instant by itself"):
        ow.Preserving(optax.sgd(1.0), 1.0, objective=ow.TDLambda())
