"""Temporal order, adding and random permutation: against numpy twins, and their levels by enumeration."""

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from onward.tasks.lag import AbstractLag

MANY = 6_000


def roll(task, calls=1, seed=0):
    """xs (time, rows, inputs) and y (rows,) of several batches."""
    run = jax.jit(lambda key: jax.lax.scan(lambda s, _: task.emit(s), task.init(key), None, length=calls)[1])
    xs, y, mask = jax.tree.map(np.asarray, run(jax.random.key(seed)))
    assert (mask == 1).all()
    assert mask.shape == y.shape == (calls, 1, task.batch)
    return np.moveaxis(xs, 0, 1).reshape(xs.shape[1], -1, xs.shape[3]), y.ravel()


# Twins, each row by row from the printed definition, with numpy's own numbers.


def order_twin(rng, length, windows):
    """Symbols of one sequence and its class; windows are (first, last) steps, counted from 0."""
    symbols = ["abcd"[i] for i in rng.integers(0, 4, length)]
    word = ""
    for first, last in windows:
        word += (symbol := "XY"[rng.integers(0, 2)])
        symbols[rng.integers(first, last + 1)] = symbol
    names = ["".join(w) for w in itertools.product("XY", repeat=len(windows))]
    return symbols, names.index(word)


def adding_twin(rng, length):
    """Numbers, marks and the target of one sequence."""
    numbers, marks = rng.random(length), np.zeros(length)
    one, two = rng.integers(0, length // 10), rng.integers(length // 10, length // 10 + 4 * length // 10)
    marks[[one, two]] = 1
    return numbers, marks, (numbers[one] + numbers[two]) / 2


def permutation_twin(rng, length, symbols):
    """A sequence of length + 1, of which the last is the target."""
    s = rng.integers(0, 2)
    return [s, *rng.integers(2, symbols, length - 1), s]


def alike(counts, twin, total):
    """Two histograms of as many draws of one law, within 5 standard errors of their difference."""
    for outcome in {*counts, *twin}:
        a, b = counts[outcome], twin[outcome]
        assert abs(a - b) <= 5 * np.sqrt(max(a + b, 1) * (1 - (a + b) / (2 * total))) + 5, outcome


WINDOWS = {
    (10, 2): [(1, 1), (4, 4)],
    (25, 2): [(2, 3), (10, 11)],
    (30, 3): [(3, 5), (9, 11), (18, 20)],
    (47, 3): [(4, 7), (14, 17), (28, 31)],
}


@pytest.mark.parametrize(("length", "bits"), WINDOWS)
def test_temporal_order_agrees_with_its_twin(length, bits):
    xs, y = roll(ow.TemporalOrder(length, bits, batch=MANY // 4), 4)
    assert set(np.unique(xs)) == {0, 1}
    assert (xs.sum(-1) == 1).all()
    windows, rng = WINDOWS[length, bits], np.random.default_rng(0)
    letters = np.array(list("XYabcd"))[xs.argmax(-1)].T
    rows = [(list(row), int(c)) for row, c in zip(letters, y, strict=True)]
    twin = [order_twin(rng, length, windows) for _ in range(MANY)]
    for view in (
        lambda s, c: (c, tuple(t for t, symbol in enumerate(s) if symbol in "XY")),
        lambda s, c: (c, "".join(symbol for symbol in s if symbol in "XY")),
        lambda s, c: (s[0], s[-1]),
        lambda s, c: (s[length // 2], c),
        lambda s, c: tuple(s[-3:]),
    ):
        alike(Counter(view(*row) for row in rows), Counter(view(*row) for row in twin), MANY)


def test_adding_agrees_with_its_twin():
    length, rng = 23, np.random.default_rng(0)
    xs, y = roll(ow.Adding(length, batch=MANY // 4), 4)
    numbers, marks = xs[..., 0].T, xs[..., 1].T
    assert set(np.unique(marks)) == {0, 1}
    np.testing.assert_allclose((numbers * marks).sum(1) / 2, y, atol=1e-6)
    twin = [adding_twin(rng, length) for _ in range(MANY)]
    at = lambda marks: Counter(tuple(np.flatnonzero(m)) for m in marks)
    alike(at(marks), at(m for _, m, _ in twin), MANY)
    assert max(t for pair in at(marks) for t in pair) < length / 2
    assert all(one < 2 <= two for one, two in at(marks))
    for ours, theirs in ((y, [t for _, _, t in twin]), (numbers[:, 7], [n[7] for n, _, _ in twin])):
        bins = lambda values: Counter(np.floor(np.asarray(values) * 10).astype(int).tolist())
        alike(bins(ours), bins(theirs), MANY)


def test_random_permutation_agrees_with_its_twin():
    length, symbols, rng = 6, 7, np.random.default_rng(0)
    xs, y = roll(ow.RandomPermutation(length, symbols, batch=MANY // 4), 4)
    assert (xs.sum(-1) == 1).all()
    rows = np.concatenate([xs.argmax(-1).T, y[:, None]], 1)
    twin = np.array([permutation_twin(rng, length, symbols) for _ in range(MANY)])
    for view in (lambda r: (r[0], r[-1]), lambda r: (r[1], r[-1]), lambda r: (r[0], r[-2]), lambda r: tuple(r[2:4])):
        alike(Counter(view(r) for r in rows.tolist()), Counter(view(r) for r in twin.tolist()), MANY)
    assert ow.RandomPermutation(9).inputs == 100


def test_a_twin_catches_other_windows():
    """The planted fault: the second window of the published code, a tenth later than the papers print it."""
    xs, _ = roll(ow.TemporalOrder(30, batch=MANY // 4), 4)
    rng = np.random.default_rng(0)
    at = lambda rows: Counter(tuple(t for t, symbol in enumerate(s) if symbol in "XY") for s in rows)
    ours = at(np.array(list("XYabcd"))[xs.argmax(-1)].T)
    alike(ours, at(order_twin(rng, 30, [(3, 5), (12, 14)])[0] for _ in range(MANY)), MANY)
    with pytest.raises(AssertionError):
        alike(ours, at(order_twin(rng, 30, [(3, 5), (15, 17)])[0] for _ in range(MANY)), MANY)


# Levels: every sequence there is, with what is known of it.


def blind(pairs):
    """The least share of wrong answers of one who knows `seen`, from all equally likely (seen, class)."""
    table = {}
    for seen, answer in pairs:
        table.setdefault(seen, Counter())[answer] += 1
    return 1 - sum(max(c.values()) for c in table.values()) / sum(c.total() for c in table.values())


@pytest.mark.parametrize("bits", [2, 3])
def test_levels_of_temporal_order_by_enumeration(bits):
    """Length 10: each symbol has one place; all distractors, shown fewer to keep the product small."""
    places = {2: (1, 4), 3: (1, 3, 6)}[bits]
    free = [t for t in range(10) if t not in places][-3:]  # the last ones; those before say as little
    sequences = []
    for shown in itertools.product("XY", repeat=bits):
        for others in itertools.product("abcd", repeat=len(free)):
            row = dict(zip(places, shown, strict=True)) | dict(zip(free, others, strict=True))
            sequences.append((tuple(sorted(row.items())), shown, row[9]))
    found = {
        "constant": blind((None, c) for _, c, _ in sequences),
        "memoryless": blind((last, c) for _, c, last in sequences),
        "best": blind((row, c) for row, c, _ in sequences),
    }
    assert ow.TemporalOrder(10, bits).references() == pytest.approx(found)


def test_levels_of_random_permutation_by_enumeration():
    sequences = [(s, *o) for s in (0, 1) for o in itertools.product((2, 3, 4), repeat=3)]
    found = {
        "constant": blind((None, r[0]) for r in sequences),
        "memoryless": blind((r[-1], r[0]) for r in sequences),
        "best": blind((r, r[0]) for r in sequences),
    }
    assert ow.RandomPermutation(4, 5).references() == pytest.approx(found)


def test_levels_of_adding_by_enumeration():
    """All pairs of numbers on a grid; the constant answer that is wrong least often, among many."""
    u = (np.arange(1000) + 0.5) / 1000
    means = (u[:, None] + u).ravel() / 2
    shares = [((means - c) ** 2 > 0.04).mean() for c in np.linspace(0.3, 0.7, 41)]
    levels = ow.Adding(20).references()
    assert levels["constant"] == pytest.approx(min(shares), abs=2e-3)
    assert int(np.argmin(shares)) == 20
    assert levels["memoryless"] == levels["constant"]
    assert ((means - 0.5) ** 2).mean() == pytest.approx(1 / 24, abs=1e-4)
    assert levels["best"] == 0
    # The last step is never marked, so its number is in no target.
    xs, y = roll(ow.Adding(10, batch=MANY))
    assert not xs[5:, :, 1].any()
    assert abs(np.corrcoef(xs[-1, :, 0], y)[0, 1]) < 5 / MANY**0.5


ALL = [ow.TemporalOrder(20, batch=3), ow.TemporalOrder(20, 3, 3), ow.Adding(20, 3), ow.RandomPermutation(9, 6, 3)]


@pytest.mark.parametrize("task", ALL, ids=lambda t: type(t).__name__)
def test_streams_are_new_at_every_call_and_held_out_rows_are_others(task):
    xs, same = roll(task, 60)[0], roll(task, 60)[0]
    assert np.array_equal(xs, same)
    seen = {row.tobytes() for row in np.moveaxis(xs, 1, 0)}
    assert len(seen) > 170
    held = jax.tree.map(np.asarray, task.held_out(50, seed=1))
    assert sum(row.tobytes() in seen for row in np.moveaxis(held.xs, 1, 0)) < 5
    later = task.held_out(20, seed=1, first=30)
    assert np.array_equal(later.xs, held.xs[:, 30:])
    assert np.array_equal(later.y, held.y[:, 30:])


def test_wrong_answers_and_success():
    order, adding = ow.TemporalOrder(20), ow.Adding(20)
    assert order.wrong(jnp.array([[0.1, 0.6, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]]), jnp.array([1, 1])).tolist() == [
        False,
        True,
    ]
    assert adding.wrong(jnp.array([0.5, 0.5, 0.5]), jnp.array([0.69, 0.71, 0.29])).tolist() == [False, True, True]
    for task in ALL:
        assert isinstance(task, AbstractLag)
        # 99 and 100 of 10,000.
        assert ow.solved(task, 0.0099)
        assert not ow.solved(task, 0.01)
    with pytest.raises(TypeError, match="solved: OneToManyMixture has no published rule of success; TemporalOrder"):
        ow.solved(ow.OneToManyMixture(3, 2), 0.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: ow.TemporalOrder(9),
            "TemporalOrder: length must be a whole number of at least 10, so that a tenth of it",
        ),
        (
            lambda: ow.Adding(9),
            "Adding: length must be a whole number of at least 10, so that a tenth of it is a step, got 9",
        ),
        (lambda: ow.RandomPermutation(1), "RandomPermutation: length must be a whole number of at least 2, .*got 1"),
        (lambda: ow.Adding(20.0), "Adding: length must be a whole number"),
        (lambda: ow.TemporalOrder(20, 4), "TemporalOrder: bits must be 2 or 3, got 4"),
        (lambda: ow.TemporalOrder(20, 1), "TemporalOrder: bits must be 2 or 3, got 1"),
        (lambda: ow.TemporalOrder(20, batch=0), "TemporalOrder: batch must be a whole number of at least 1, got 0"),
        (lambda: ow.RandomPermutation(9, 2), "RandomPermutation: symbols must be at least 3, two and others, got 2"),
        (lambda: ow.Adding(20).held_out(0, 1), r"Adding\.held_out: count must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_fields_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
