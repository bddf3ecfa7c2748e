"""The copy stream against its definition, and its exact levels against tables fitted to it."""

import math

import jax
import numpy as np
import pytest

from onward.tasks.copy import Copy


def roll(task, steps, seed=0):
    run = jax.jit(lambda s: jax.lax.scan(lambda s, _: task.emit(s), s, None, length=steps))
    return jax.tree.map(np.asarray, run(task.init(jax.random.key(seed)))[1])


@pytest.mark.parametrize(
    "task",
    [Copy(), Copy(length=3, delay=0, symbols=4), Copy(length=1, delay=5, resets=True), Copy(1, 0, 3, True)],
    ids=["default", "no-delay", "one", "least"],
)
def test_the_structure_of_every_episode(task):
    episodes, n, s = 200, task.length, task.symbols
    assert task.lag == n + task.delay
    assert task.period == 2 * n + task.delay
    stream = roll(task, episodes * task.period)
    x, y, weight, reset, truth = (a.reshape(episodes, task.period, *a.shape[1:]) for a in stream[:5])
    assert x.shape[-1] == task.inputs == s + 1
    assert (x.dtype, y.dtype, weight.dtype, reset.dtype) == (np.float32, np.int32, np.float32, bool)
    shown = x[:, :n, :s]
    assert (shown.sum(-1) == 1).all()
    assert not x[:, n:, :s].any(), "blank after the symbols"
    assert x[:, task.lag, s].all(), "the cue comes at the first recall"
    assert x[..., s].sum() == episodes, "and nowhere else"
    assert np.array_equal(y[:, task.lag :], shown.argmax(-1))
    assert not y[:, : task.lag].any()
    assert (weight[:, task.lag :] == 1).all()
    assert not weight[:, : task.lag].any()
    assert (reset[:, 0] == task.resets).all()
    assert not reset[:, 1:].any()
    assert np.array_equal(truth, y)


def test_symbols_are_uniform_and_independent():
    task = Copy(length=3, delay=0, symbols=3)
    y = roll(task, 20_000 * task.period).y.reshape(-1, task.period)[:, task.lag :]
    assert len(y) == 20_000
    words = np.r_[y @ [9, 3, 1], y[:-1, 2] * 9 + y[1:, 0] * 3 + y[1:, 1]]  # within episodes, and across them
    for part in (words[: len(y)], words[len(y) :]):
        counts = np.bincount(part, minlength=27)
        assert abs(counts - len(part) / 27).max() < 5 * (len(part) / 27) ** 0.5


def fitted(contexts, y, classes):
    """Mean loss of the best table by context on the data it was fitted to, and its free parameters."""
    _, where = np.unique(contexts, return_inverse=True)
    table = np.zeros((where.max() + 1, classes))
    np.add.at(table, (where, y), 1)
    share = table / table.sum(1, keepdims=True)
    return -np.log(share[where, y]).mean(), len(table) * (classes - 1)


@pytest.mark.parametrize("task", [Copy(2, 1, 3), Copy(3, 0, 2), Copy(1, 3, 2)], ids=["3-symbols", "no-delay", "one"])
def test_exact_levels_agree_with_tables_of_windows(task):
    stream = roll(task, 20_000 * task.period, seed=1)
    code = (stream.x @ np.arange(1, task.inputs + 1)).astype(int)  # 0: blank
    at = np.flatnonzero(stream.weight)
    at = at[at >= 2 * task.period]
    y, window = stream.y[at], np.zeros(len(at), int)
    for k in range(1, task.period + 2):
        window = window * (task.inputs + 1) + code[at - k + 1]
        loss, free = fitted(window, y, task.symbols)
        exact = task.truncated(k)
        if k > task.lag:
            assert exact == loss == 0
        else:
            # Were y uniform given the window, 2N (log S - loss) would be chi-squared with `free` degrees.
            assert exact == math.log(task.symbols)
            assert abs(2 * len(at) * (exact - loss) - free) < 5 * (2 * free) ** 0.5 + 5, k


def test_the_levels():
    task = Copy(symbols=5)
    assert task.references() == {"memoryless": math.log(5), "bayes": 0.0}
    assert task.truncated(1) == task.truncated(16) == math.log(5)
    assert task.truncated(17) == task.truncated(1000) == 0
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got 0"):
        task.truncated(0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 0}, "length must be a whole number of at least 1, got 0"),
        ({"length": 2.0}, "length must be a whole number of at least 1, got 2.0"),
        ({"delay": -1}, "delay must be a whole number of at least 0, got -1"),
        ({"delay": True}, "delay must be a whole number of at least 0, got True"),
        ({"symbols": 1}, "symbols must be a whole number of at least 2, got 1"),
        ({"resets": 1}, "resets must be True or False, got 1"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=f"Copy: {message}"):
        Copy(**fields)
