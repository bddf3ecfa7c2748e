"""Digits, and the ways of reading them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.lab import metrics
from onward.lab.data.datasets import load_digits


def test_the_embedded_set():
    digits = load_digits("digits")
    assert digits.train_images.shape == (1438, 8, 8)
    assert digits.test_images.shape == (359, 8, 8)
    labels = np.r_[digits.train_labels, digits.test_labels]
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (digits.train_images.min(), digits.train_images.max(), digits.top) == (0, 16, 16)
    seen = {image.tobytes() for image in digits.train_images}
    assert not any(image.tobytes() in seen for image in digits.test_images)


def scanned(batch=None, **fields):
    """The embedded digits as a task."""
    digits = load_digits("digits")
    return ow.SequentialDigits(digits.train_images, digits.train_labels, batch, top=digits.top, **fields)


def stream_of(task, key, steps):
    return jax.lax.scan(lambda state, _: task.emit(state), task.init(key), None, length=steps)[1]


def test_rows_come_in_order_and_the_label_at_the_end(key):
    digits = load_digits("digits")
    stream = stream_of(scanned(), key, 80)
    assert np.flatnonzero(stream.reset).tolist() == list(range(0, 80, 8))
    assert np.flatnonzero(stream.weight).tolist() == list(range(7, 80, 8))
    for i in range(10):
        image = np.asarray(stream.x[8 * i : 8 * i + 8]) * 16
        where = [j for j in range(1438) if np.array_equal(digits.train_images[j], image)]
        assert digits.train_labels[where[0]] == stream.y[8 * i + 7]


IMAGES = np.arange(24).reshape(4, 2, 3)


def test_pixels_come_in_reading_order_and_labels_at_every_step_if_asked(key):
    task = ow.SequentialDigits(IMAGES, [5, 6, 7, 8], by="pixels", every=True, top=23)
    assert (task.inputs, task.length) == (1, 6)
    stream = stream_of(task, key, 60)
    assert stream.weight.min() == 1
    assert np.flatnonzero(stream.reset).tolist() == list(range(0, 60, 6))
    for i in range(0, 60, 6):
        pixels = np.rint(np.asarray(stream.x[i : i + 6, 0]) * 23).astype(int)
        assert np.array_equal(pixels, IMAGES[stream.y[i] - 5].ravel())


@pytest.mark.parametrize("every", [False, True])
def test_a_batch_holds_whole_images(key, every):
    task = ow.SequentialDigits(IMAGES, [0, 1, 2, 3], 64, every=every)
    _, batch = task.emit(task.init(key))
    outputs = 2 if every else 1
    assert batch.xs.shape == (2, 64, 3)
    assert batch.y.shape == batch.mask.shape == (outputs, 64)
    assert batch.mask.min() == 1
    for i in range(64):
        assert np.allclose(np.asarray(batch.xs[:, i]) * 23, IMAGES[batch.y[0, i]], atol=1e-5)
    assert set(np.unique(batch.y)) == {0, 1, 2, 3}


def test_all_training_images_are_drawn(key):
    task = scanned(batch=64)

    def step(state, _):
        state, batch = task.emit(state)
        return state, jnp.sum(batch.xs, (0, 2))

    _, sums = jax.lax.scan(step, task.init(key), None, length=400)
    known = {round(float(s), 4) for s in load_digits("digits").train_images.sum((1, 2)) / 16}
    assert {round(float(s), 4) for s in np.unique(sums)} == known


@pytest.mark.parametrize(
    ("images", "labels", "fields", "words"),
    [
        (IMAGES, [1], {}, "4 images need as many labels"),
        (IMAGES, [1.0, 2.0, 3.0, 4.5], {}, "whole numbers, got float64"),
        (IMAGES, [1, 2, 3, 4], {"by": "columns"}, "by must be 'rows' or 'pixels'"),
        (IMAGES[0], [1, 2], {}, r"must be \(count, height, width\)"),
        (0 * IMAGES, [1, 2, 3, 4], {}, "every pixel is 0"),
    ],
)
def test_wrong_images_are_refused(images, labels, fields, words):
    with pytest.raises(ValueError, match=words):
        ow.SequentialDigits(images, labels, **fields)


def test_reading_held_out_images():
    cell = ow.GRU(3, 5, key=jax.random.key(1))
    head = jax.tree.map(lambda w: w + jax.random.normal(jax.random.key(2), w.shape), ow.Categorical(5, 4))
    task = ow.SequentialDigits(IMAGES, [0, 1, 2, 3], 2, top=23)
    state = ow.BPTT(optax.sgd(0.1)).init(
        ow.Model(cell, head), task.emit(task.init(jax.random.key(0)))[1], key=jax.random.key(0)
    )
    found = metrics.ReadDigits(jnp.asarray(IMAGES), jnp.arange(4), 23.0, shown=3, block=2)(state)
    answers = []
    for image in IMAGES:
        carry = state.model.init()
        for row in image:
            carry, prediction = state.model(carry, jnp.asarray(row / 23, jnp.float32))
        answers.append(int(jnp.argmax(prediction)))
    assert found["answers"].tolist() == answers
    assert float(found["test_accuracy"]) == np.mean(np.asarray(answers) == np.arange(4))
    assert found["probabilities"].shape == (2, 3, 4)
    assert np.allclose(found["probabilities"].sum(-1), 1, atol=1e-6)


def gradient_of(learner, model, batch):
    """What SGD of step size 1 takes away."""
    state = learner.init(model, batch, key=jax.random.key(0))
    after, _ = jax.jit(learner.step)(state, batch)
    return jax.tree.map(lambda a, b: np.asarray(a - b), jax.tree.leaves(model), jax.tree.leaves(after.model))


def digits_model():
    head = jax.tree.map(lambda w: w + jax.random.normal(jax.random.key(2), w.shape), ow.Categorical(5, 10))
    return ow.Model(ow.LSTM(8, 5, key=jax.random.key(1)), head)


@pytest.mark.slow
def test_a_window_of_bptt_is_bptt_from_the_state_before_it():
    task = scanned(3)
    _, batch = task.emit(task.init(jax.random.key(4)))
    model = digits_model()
    whole = gradient_of(ow.BPTT(optax.sgd(1.0)), model, batch)
    for length in (8, 9):
        wide = gradient_of(ow.BPTT(optax.sgd(1.0), window=length), model, batch)
        assert all(np.array_equal(a, b) for a, b in zip(wide, whole, strict=True))
    for k in (1, 3, 7):

        def loss(model, k=k):
            total = 0.0
            for i in range(3):
                carry = model.init()
                for t, x in enumerate(batch.xs[:, i]):
                    carry = jax.lax.stop_gradient(carry) if t == 8 - k else carry
                    carry, prediction = model(carry, x)
                total -= model.head.log_prob(prediction, batch.y[0, i]) / 3
            return total

        short = gradient_of(ow.BPTT(optax.sgd(1.0), window=k), model, batch)
        by_hand = jax.tree.leaves(jax.grad(loss)(model))
        for a, b, _c in zip(short, by_hand, whole, strict=True):
            assert np.allclose(a, b, atol=2e-6)
        assert any(np.abs(a - c).max() > 1e-3 for a, c in zip(short, whole, strict=True))


def test_a_window_needs_targets_at_the_last_step_only():
    task = scanned(2, every=True)
    _, batch = task.emit(task.init(jax.random.key(0)))
    with pytest.raises(ValueError, match="targets at the last step only"):
        ow.BPTT(optax.sgd(1.0), window=3).init(digits_model(), batch, key=jax.random.key(0))
    with pytest.raises(ValueError, match="window must be a whole number"):
        ow.BPTT(optax.sgd(1.0), window=0)


@pytest.mark.parametrize("streams", [None, pytest.param(3, marks=pytest.mark.slow)])
def test_dense_rtrl_with_one_update_an_image_is_bptt(streams):
    """The gradient that moves the weights at the last row, in float64."""
    with jax.enable_x64(True):
        check_rtrl_against_bptt(streams)


def check_rtrl_against_bptt(streams):
    task = scanned()
    task = task if streams is None else ow.Streams(task, streams)
    double = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, tree)
    model, learner = double(digits_model()), ow.Online(ow.RTRL(), ow.Supervised(), optax.sgd(1.0), streams=streams)
    place = task.init(jax.random.key(5))
    place, example = task.emit(place)
    state = learner.init(model, double(example), key=jax.random.key(0))
    rows, step = [], jax.jit(learner.step)
    for t in range(8):
        if t:
            place, example = task.emit(place)
        rows.append(double(example))
        state, _ = step(state, rows[-1])
    many = streams or 1
    xs = jnp.stack([r.x.reshape(many, 8) for r in rows])
    batch = ow.Sequence(xs, jnp.reshape(rows[-1].y, (1, many)), jnp.ones((1, many)))
    exact = gradient_of(ow.BPTT(optax.sgd(1.0)), model, batch)
    online = jax.tree.map(lambda a, b: np.asarray(a - b), jax.tree.leaves(model), jax.tree.leaves(state.model))
    assert max(np.abs(e).max() for e in exact) > 1e-2
    assert max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(online, exact, strict=True)) < 1e-9
