"""Streams of one task, side by side."""

import jax
import numpy as np
import pytest

import onward as ow

IMAGES = np.arange(24).reshape(4, 2, 3)
TASKS = {
    "copy": ow.Copy(length=2, delay=1, symbols=3, resets=True),
    "anbn": ow.AnBn(1, 2),
    "patterning": ow.TracePatterning(isi=(2, 4), iti=(3, 5)),
    "digits": ow.SequentialDigits(IMAGES, [5, 6, 7, 8]),
    "classes": ow.OneToManyClasses(3, 2),
}


@pytest.mark.parametrize("name", TASKS)
def test_streams_are_independent_and_each_as_alone(name, key):
    task, many = TASKS[name], ow.Streams(TASKS[name], 3)
    stream = lambda task, key: jax.lax.scan(lambda s, _: task.emit(s), task.init(key), None, length=40)[1]
    together = jax.tree.leaves(stream(many, key))
    alone = [jax.tree.leaves(stream(task, k)) for k in jax.random.split(key, 3)]
    for i, leaves in enumerate(alone):
        assert all(np.array_equal(a[:, i], b) for a, b in zip(together, leaves, strict=True))
    assert not all(map(np.array_equal, alone[0], alone[1]))
