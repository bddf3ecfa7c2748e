"""The animal-learning streams against their definitions, and the exact levels against brute force."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

import onward as ow


def roll(task, steps, seed=0):
    def step(state, _):
        state, example = task.emit(state)
        return state, (example.x, example.y, example.truth)

    start = task.init(jax.random.key(seed))
    _, seen = jax.jit(lambda s: jax.lax.scan(step, s, None, length=steps))(start)
    return start, *(np.asarray(a) for a in seen)


STEPS = 400_000


@pytest.fixture(scope="module")
def patterning():
    return roll(ow.TracePatterning(), STEPS)


def onsets(x, cs=6):
    on = x[:, :cs].any(1)
    return np.flatnonzero(on & ~np.r_[False, on[:-1]])


def test_trials_last_isi_plus_iti_plus_one(patterning):
    _, x, _, _ = patterning
    starts = onsets(x)
    lengths = np.diff(starts)
    assert starts[0] == 0
    assert lengths.min() == 24 + 80 + 1
    assert lengths.max() == 36 + 120 + 1
    assert abs(lengths.mean() - 131) < 5 * lengths.std() / len(lengths) ** 0.5


def test_a_pattern_is_three_of_six_bits_for_one_step(patterning):
    _, x, _, _ = patterning
    starts = onsets(x)
    assert (x[starts, :6].sum(1) == 3).all()
    assert x[:, :6].any(1).sum() == len(starts)
    codes, counts = np.unique(x[starts, :6] @ 2 ** np.arange(6), return_counts=True)
    assert len(codes) == 20
    expected = len(starts) / 20
    assert abs(counts - expected).max() < 5 * expected**0.5


def test_ten_patterns_are_valid_and_always_followed_after_the_interval(patterning):
    start, x, y, _ = patterning
    starts = onsets(x)[:-1]
    codes = x[starts, :6] @ 2 ** np.arange(6)
    waits = np.asarray([np.flatnonzero(y[s : s + 60])[:1].sum() for s in starts])
    followed = waits > 0
    valid = set(codes[followed])
    assert len(valid) == 10
    assert not valid & set(codes[~followed])
    assert set(waits[followed]) == set(range(24, 37))
    counts = np.bincount(waits[followed])[24:]
    assert abs(counts - counts.mean()).max() < 5 * counts.mean() ** 0.5
    assert bin(int(start.valid)).count("1") == 10


def test_valid_patterns_differ_between_seeds():
    seeds = [int(ow.TracePatterning().init(jax.random.key(s)).valid) for s in range(8)]
    assert len(set(seeds)) == 8


def test_the_us_is_an_input_and_the_cumulant(patterning):
    _, x, y, _ = patterning
    assert np.array_equal(x[:, 6], y)


def test_distractor_rates(patterning):
    _, x, _, _ = patterning
    for k in range(1, 6):
        p = 1 / (10 * k)
        assert abs(x[:, 6 + k].mean() - p) < 5 * (p * (1 - p) / STEPS) ** 0.5
    assert abs(np.corrcoef(x[:, 7:].T) - np.eye(5)).max() < 5 / STEPS**0.5


@pytest.mark.parametrize(
    "task",
    [
        *(ow.TracePatterning(), ow.TracePatterning.rafiee(10)),
        ow.TraceConditioning.rafiee(20),
        ow.NoisyPatterning.rafiee(0.2),
    ],
    ids=["javed", "rafiee", "conditioning", "noisy"],
)
def test_the_target_is_the_discounted_sum_of_this_trials_us(task):
    _, x, y, truth = roll(task, 20_000, seed=1)
    starts = onsets(x, task.cs_inputs)
    for a, b in itertools.pairwise(starts):
        rest = y[a:b]
        expected, total = np.zeros(b - a), 0.0
        for t in reversed(range(b - a)):
            expected[t] = total
            total = rest[t] + task.discount * total
        np.testing.assert_allclose(truth[a:b], expected, atol=1e-5)
    assert truth.max() > 0.5


@pytest.mark.parametrize(
    "task",
    [
        ow.TracePatterning(returns="all"),
        ow.TraceConditioning(isi=(3, 9), iti=(2, 5), discount=0.9, us_length=2, returns="all"),
        ow.NoisyPatterning(iti=(0, 3), discount=0.5, returns="all"),
        ow.TraceConditioning(returns="all", discount=0.0, isi=(1, 1), iti=(0, 0)),
    ],
    ids=["javed", "short trials", "noisy", "no discount"],
)
def test_the_target_of_all_is_the_discounted_sum_of_every_us_to_come(task):
    _, _, y, truth = roll(task, 6_000, seed=1)
    expected, total = np.zeros(len(y)), 0.0
    for t in reversed(range(len(y))):
        expected[t] = total
        total = y[t] + task.discount * total
    np.testing.assert_allclose(truth[:-2000], expected[:-2000], atol=2e-6)
    assert expected.max() > 0.5
    _, _, _, both = roll(dataclasses.replace(task, returns="both"), 100, seed=1)
    _, _, _, trial = roll(dataclasses.replace(task, returns="trial"), 100, seed=1)
    np.testing.assert_array_equal(both, np.stack([truth[:100], trial], 1))


@pytest.mark.parametrize("returns", ["trial", "all"])
def test_levels_of_what_is_known_agree_with_brute_force(returns):
    """Of the return of this trial, and of all: tables by what is known, from a long stream."""
    task = ow.TraceConditioning(
        isi=(3, 7), iti=(4, 9), cs_length=2, us_length=2, discount=0.9, distractor_rates=(), returns=returns
    )
    _, x, y, truth = roll(task, 4 * STEPS, seed=3)
    truth, x, y = truth[:-300], x[:-300], y[:-300]
    # A CS of two steps: its onset is the first of them.
    starts = np.flatnonzero((x[:, 0] > 0) & (np.append(0, x[:-1, 0]) == 0))
    trial = np.searchsorted(starts, np.arange(len(x)), "right") - 1
    since = np.arange(len(x)) - starts[trial]
    first = np.full(len(starts), len(x))
    us = np.flatnonzero(y)
    hit, at = np.unique(trial[us], return_index=True)
    first[hit] = us[at]
    age = np.arange(len(x)) - first[trial]
    gap = np.where(age >= 0, first[trial] - starts[trial], 0)
    keys = {
        "predict-zero": None,
        "memoryless": 2 * x[:, 0] + y,
        "us-blind": since,
        "bayes": 1000 * since + gap,
    }
    for name, key in keys.items():
        if key is None:
            found = (truth**2).mean()
        else:
            _, where = np.unique(key, return_inverse=True)
            found = ((truth - (np.bincount(where, truth) / np.bincount(where))[where]) ** 2).mean()
        assert task.level(name) == pytest.approx(found, rel=0.02), name


def brute_force(task, steps):
    """Errors of predict-zero and of the best table by (what the observer can know), from the stream itself."""
    _, x, y, truth = roll(task, steps, seed=2)
    starts = onsets(x, task.cs_inputs)
    trial = np.searchsorted(starts, np.arange(steps), "right") - 1
    since = np.arange(steps) - starts[trial]
    us = np.flatnonzero(y)
    hit, at = np.unique(trial[us], return_index=True)
    first = np.full(len(starts), steps)
    first[hit] = us[at]
    seen = np.maximum(np.arange(steps) - first[trial] + 1, 0)  # steps since the first US of this trial, or 0
    codes = (x[starts, : task.cs_inputs] @ 2 ** np.arange(task.cs_inputs)).astype(int)[trial]
    followed = first[trial] < steps
    share = np.bincount(codes, followed) / np.maximum(np.bincount(codes), 1)
    kind = (share[codes] > 0.5).astype(int)
    errors = {"predict-zero": (truth**2).mean()}
    for name, extra in (("pattern-blind", 0 * kind), ("bayes", kind)):
        keys = np.where(seen > 0, -seen, since + 1000 * (extra + 1))
        _, where = np.unique(keys, return_inverse=True)
        count = np.bincount(where)
        mean = np.bincount(where, truth) / count
        # A table fitted to n numbers underestimates their variance by (n - 1)/n.
        inflate = np.where(count > 1, count / np.maximum(count - 1, 1), 1)
        errors[name] = (inflate[where] * (truth - mean[where]) ** 2).mean()
    return errors


@pytest.mark.parametrize(
    "task",
    [
        ow.TracePatterning(),
        ow.TracePatterning(isi=(3, 9), iti=(5, 12), discount=0.7),
        ow.TracePatterning.rafiee(10),
        ow.TraceConditioning(),
        ow.NoisyPatterning(noise=0.2),
        ow.NoisyPatterning.rafiee(0.1),
    ],
    ids=["javed", "short", "rafiee", "conditioning", "noisy", "noisy-rafiee"],
)
def test_exact_levels_agree_with_brute_force(task):
    found = brute_force(task, 4 * STEPS)
    for name, exact in task.references().items():
        # 12,000 trials of which half matter: a standard error of about 1.3 %.
        assert found[name] == pytest.approx(exact, rel=0.05), name


def test_exact_levels_of_a_shorter_gap_are_those_known():
    found = ow.TracePatterning(isi=(14, 26)).references()
    assert [round(v, 5) for v in found.values()] == [0.02132, 0.01347, 0.00177]


def test_levels_are_ordered_and_bayes_vanishes_without_surprise():
    found = ow.TracePatterning(isi=(10, 10)).references()
    assert found["predict-zero"] > found["pattern-blind"] > found["bayes"]
    assert found["bayes"] < 1e-30


def test_originals():
    task = ow.TracePatterning.rafiee(30)
    assert (task.isi, task.iti, task.cs_length, task.us_length) == ((20, 40), (80, 120), 4, 2)
    assert task.discount == 1 - 1 / 30
    _, x, y, _ = roll(task, 50_000)
    starts = onsets(x)
    assert (x[starts[:-1] + 3, :6] == x[starts[:-1], :6]).all()
    assert not x[starts[:-1] + 4, :6].any()
    on = x[:, 7:].any(1)
    assert not on[~x[:, :6].any(1)].any(), "distractors coincide with the CS only"
    assert abs(x[starts, 7:].mean() - 0.5) < 0.05
    runs = np.diff(np.flatnonzero(np.diff(np.r_[0, y, 0])))[::2]
    assert set(runs) == {2}
