"""The embedded digits and the two ways of reading them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from onward.tasks.digits import load_digits


def test_the_embedded_set():
    train, labels, test, test_labels = load_digits()
    assert train.shape == (1438, 8, 8)
    assert test.shape == (359, 8, 8)
    assert np.bincount(np.r_[labels, test_labels]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert train.min() == 0
    assert train.max() == 1
    seen = {image.tobytes() for image in train}
    assert not any(image.tobytes() in seen for image in test)


def test_rows_come_in_order_and_the_label_at_the_end(key):
    task = ow.SequentialDigits()
    train, labels, *_ = load_digits()

    def step(state, _):
        return task.emit(state)

    _, stream = jax.lax.scan(step, task.init(key), None, length=80)
    assert np.flatnonzero(stream.reset).tolist() == list(range(0, 80, 8))
    assert np.flatnonzero(stream.weight).tolist() == list(range(7, 80, 8))
    for i in range(10):
        image = np.asarray(stream.x[8 * i : 8 * i + 8])
        where = [j for j in range(len(train)) if np.array_equal(train[j], image)]
        assert labels[where[0]] == stream.y[8 * i + 7]


def test_all_training_images_are_drawn(key):
    task = ow.SequentialDigits(batch=64)
    _, batches = jax.lax.scan(lambda s, _: task.emit(s), task.init(key), None, length=300)
    seen = {np.asarray(image).tobytes() for image in jnp.swapaxes(batches.xs, 1, 2).reshape(-1, 8, 8)}
    assert len(seen) == 1438
    assert float(batches.mask[:, :-1].max()) == 0


def test_a_batch_below_one_is_refused():
    with pytest.raises(ValueError, match="batch must be a whole number"):
        ow.SequentialDigits(batch=0)
