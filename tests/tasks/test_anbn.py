"""The text against its grammar, and its exact levels against tables fitted to it."""

import math

import jax
import numpy as np
import pytest

from onward.tasks.anbn import NEWLINE, AnBn


def roll(task, steps, seed=0):
    run = jax.jit(lambda s: jax.lax.scan(lambda s, _: task.emit(s), s, None, length=steps))
    return jax.tree.map(np.asarray, run(task.init(jax.random.key(seed)))[1])


@pytest.mark.parametrize("task", [AnBn(), AnBn(1, 1), AnBn(3, 5)], ids=["default", "one", "few"])
def test_the_text_follows_the_grammar(task):
    stream = roll(task, 100_000)
    assert stream.x.shape[-1] == task.inputs == 3
    assert (stream.x.dtype, stream.y.dtype) == (np.float32, np.int32)
    assert (stream.x.sum(1) == 1).all()
    character = stream.x.argmax(1)
    assert np.array_equal(stream.y[:-1], character[1:])
    assert np.array_equal(stream.truth, stream.y)
    assert (stream.weight == 1).all()
    assert not stream.reset.any()

    lines = "".join(np.array(["a", "b", "\n"])[character]).split("\n")[:-1]
    pairs = list(zip(lines[::2], lines[1::2], strict=False))
    assert all(a == "a" * len(a) and b == "b" * len(a) for a, b in pairs)
    values = task.most - task.least + 1
    counts = np.bincount([len(a) for a, _ in pairs], minlength=task.most + 1)
    assert not counts[: task.least].any()
    assert len(counts) == task.most + 1
    assert abs(counts[task.least :] - len(pairs) / values).max() < 5 * (len(pairs) / values) ** 0.5


def test_successive_n_are_independent():
    character = roll(AnBn(), 100_000).x.argmax(1)
    ends = np.flatnonzero(character == NEWLINE)[1::2]
    n = (np.diff(ends) - 2) // 2
    assert abs(np.corrcoef(n[:-1], n[1:])[0, 1]) < 5 / len(n) ** 0.5


def whole_episodes(task, steps):
    """Characters, next characters, and the number of the episode, for whole episodes but the first."""
    stream = roll(task, steps, seed=1)
    character = stream.x.argmax(1)
    ends = np.flatnonzero(character == NEWLINE)[1::2]
    episode = np.searchsorted(ends, np.arange(steps))
    return character, stream.y, episode, np.arange(ends[0] + 1, ends[-1] + 1)


def check(contexts, y, episode, exact):
    """The best table by context has the exact loss, within five standard errors and the bias of the fit."""
    _, where = np.unique(contexts, return_inverse=True)
    table = np.zeros((where.max() + 1, 3))
    np.add.at(table, (where, y), 1)
    loss = -np.log((table / table.sum(1, keepdims=True))[where, y])
    found, free = loss.mean(), (np.count_nonzero(table, axis=1) - 1).sum()
    # Episodes are independent: the error of a ratio of two sums over episodes.
    rest = np.bincount(episode - episode[0], loss - found)
    error = rest.std() * len(rest) ** 0.5 / len(y)
    assert abs(found - exact) < 5 * error + free / len(y) + 1e-12
    assert 5 * error + free / len(y) < 0.05 * max(exact, 0.02), "the check is sharp"


@pytest.mark.parametrize("task", [AnBn(), AnBn(4, 11), AnBn(1, 2), AnBn(3, 3)], ids=["default", "few", "two", "fixed"])
def test_exact_levels_agree_with_tables(task):
    character, y, episode, at = whole_episodes(task, 300_000)
    newlines = np.flatnonzero(character == NEWLINE)
    line = np.searchsorted(newlines, np.arange(len(character)))
    run = np.arange(len(character)) - np.r_[-1, newlines][line]
    lengths = np.diff(np.r_[-1, newlines, len(character)])
    second = line % 2
    last = np.where(second == 1, lengths[line - 1], 0)  # how long the line of a was, once it is over
    known = {
        "predict-marginal": 0 * character,
        "memoryless": character,
        "counter-blind": character + 3 * second,
        "bayes": character + 3 * run + 1000 * last,
    }
    levels = task.references()
    assert set(levels) == set(known)
    for name, contexts in known.items():
        check(contexts[at], y[at], episode[at], levels[name])


def test_a_window_as_long_as_an_episode_reaches_bayes():
    task = AnBn(1, 3)
    character, y, episode, at = whole_episodes(task, 300_000)
    at = at[episode[at] > 8]
    window = np.zeros(len(at), int)
    for k in range(2 * task.most + 2):
        window = window * 3 + character[at - k]
        if k == 0:
            check(window, y[at], episode[at], task.references()["memoryless"])
    check(window, y[at], episode[at], task.references()["bayes"])


def test_levels_of_a_text_without_surprise():
    levels = AnBn(1, 1).references()
    assert levels["counter-blind"] == levels["bayes"] == 0
    assert levels["memoryless"] == pytest.approx(math.log(2) / 2)
    assert levels["predict-marginal"] == pytest.approx(1.5 * math.log(2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"least": 0}, "least must be a whole number of at least 1, got 0"),
        ({"most": 2.5}, "most must be a whole number of at least 1, got 2.5"),
        ({"least": 5, "most": 4}, "most must be at least least = 5, got 4"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=f"AnBn: {message}"):
        AnBn(**fields)
