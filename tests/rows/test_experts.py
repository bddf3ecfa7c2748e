"""Experts beside the network: the mixture keeps its bound, nobody looks ahead, and every part does what it says."""

import itertools
import json
import math
import re
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onward.errors import OnwardError
from onward.rows.calendar import DAY, NONE, PARTS, SEASONS, SLOTS, SORTS, TURN, WIDTH, YEAR, Calendar
from onward.rows.holidays import Holidays
from onward.rows.stream import RowLearner, RowRecipe
from onward.rows.stream import experts as experts_module
from onward.rows.stream.experts import (
    AHEAD,
    ETA,
    FAR,
    MOST_LOSS,
    OWN,
    PRIOR,
    RATE_ERROR,
    SHARE,
    START,
    Delays,
    Experts,
    Profile,
    Recursive,
    mixed,
    shared,
)
from onward.rows.stream.mixture import Asked, Heard, Sizes
from onward.rows.stream.moments import Running
from onward.rows.stream.past import LAGS, RATE_CONSTANT, Past, moved
from regret import best_sequence

pytestmark = pytest.mark.usefixtures("compile_fast")

nan = np.nan
MANY = len(AHEAD)
CAPACITY = 8
PLAIN = np.zeros(CAPACITY, bool)


# The mixture.


@partial(jax.jit, static_argnums=2)
def distances(answers, truth, step):
    """Of the mixture, row by row."""

    def body(weights, row):
        said, y = row
        return step(weights, said, y, ETA, start), jnp.abs(mixed(weights, said, 0.0) - y)

    start = jnp.asarray(
        START if answers.shape[1] == MANY else np.full(answers.shape[1], 1 / answers.shape[1], np.float32)
    )
    return jax.lax.scan(body, start, (answers, truth))[1]


def mixture_of(answers, truth, step=shared):
    """The sum of the mixture's distances, and those of the experts (rows, experts)."""
    ours = distances(jnp.asarray(answers), jnp.asarray(truth), step)
    return float(jnp.sum(ours)), np.abs(answers - truth[:, None])


def bound(losses, changes):
    """What the mixture of these losses may have at most, against the best sequence with so many changes."""
    rows, many = losses.shape
    spread = losses.max(1) - losses.min(1)
    least = START.min() if many == MANY else 1 / many
    prior = (changes + 1) * math.log(1 / least) + changes * math.log(1 / SHARE)
    prior += (rows - 1 - changes) * math.log(1 / (1 - SHARE))
    return best_sequence(losses, changes) + prior / ETA + ETA * np.sum(spread**2) / 8


def adversary(kind, rows, rng):
    """Answers (rows, experts) and a truth that are hard for a mixture; all within `MOST_LOSS` of each other."""
    answers = rng.uniform(-1, 1, (rows, MANY))
    truth = rng.uniform(-1, 1, rows)
    if kind == "one is right, and then another":
        who = rng.integers(MANY, size=rows // 100 + 1).repeat(100)[:rows]
        answers[np.arange(rows), who] = truth
    elif kind == "two, in turns":
        answers[:, 0], answers[:, 1] = truth + np.arange(rows) % 2, truth + (np.arange(rows) + 1) % 2
    elif kind == "the best of late is wrong":
        wrong = np.zeros(MANY)
        for t in range(rows):
            lead = int(np.argmin(wrong))
            answers[t] = truth[t]
            answers[t, lead] = truth[t] + 1
            wrong[lead] += 1
    elif kind == "one is right":
        answers[:, 3] = truth
    elif kind == "far":
        answers *= MOST_LOSS / 2.001
    return answers.astype(np.float32), truth.astype(np.float32)


ADVERSARIES = (
    "noise",
    "one is right, and then another",
    "two, in turns",
    "the best of late is wrong",
    "far",
    "one is right",
)


@pytest.mark.parametrize("kind", ADVERSARIES)
@pytest.mark.parametrize("seed", range(3))
def test_the_mixture_keeps_its_bound(kind, seed):
    answers, truth = adversary(kind, 1000, np.random.default_rng(seed))
    ours, losses = mixture_of(answers, truth)
    for changes in (0, 1, 3, 10):
        assert ours <= bound(losses, changes) + 1e-2, changes


@given(
    st.lists(
        st.tuples(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), st.floats(-1, 1, width=32)),
        min_size=12,
        max_size=12,
    )
)
@settings(max_examples=100, deadline=None)
def test_the_bound_of_short_sequences(rows):
    answers, truth = np.array([r[0] for r in rows], np.float32), np.array([r[1] for r in rows], np.float32)
    ours, losses = mixture_of(answers, truth)
    assert all(ours <= bound(losses, changes) + 1e-4 for changes in range(4))


def backwards(weights, moves, change, eta, start):
    """A planted fault: who is wrong gains."""
    loss = jnp.abs(moves - change)
    new = weights * jnp.exp(ETA * (loss - jnp.max(loss)))
    return (1 - SHARE) * new / jnp.sum(new) + SHARE / len(weights)


def unshared(weights, moves, change, eta, start):
    """A planted fault: nothing is dealt out anew."""
    loss = jnp.abs(moves - change)
    new = weights * jnp.exp(-ETA * (loss - jnp.min(loss)))
    return new / jnp.sum(new)


@pytest.mark.parametrize(
    ("fault", "kind", "changes"), [(backwards, "one is right", 0), (unshared, "one is right, and then another", 10)]
)
def test_the_bound_notices_faults(fault, kind, changes):
    answers, truth = adversary(kind, 1000, np.random.default_rng(0))
    ours, losses = mixture_of(answers, truth, fault)
    assert ours > bound(losses, changes)


def test_weights_are_those_of_numpy_and_who_has_no_answer_has_none():
    rng = np.random.default_rng(0)
    weights = START.astype(float)
    ours = jnp.asarray(START)
    for t in range(200):
        moves, change = rng.normal(size=MANY) * 3, rng.normal() * 3
        moves[rng.random(MANY) < 0.3] = nan
        change = nan if rng.random() < 0.1 else change
        ours = shared(ours, jnp.asarray(moves, jnp.float32), jnp.float32(change))
        there = np.isfinite(moves)
        if np.isfinite(change) and there.any():
            loss = np.abs(moves - change)
            loss = np.minimum(loss - loss[there].min(), MOST_LOSS)
            weights = np.where(there, weights * np.exp(-ETA * np.where(there, loss, 0)), 0)
            weights = (1 - SHARE) * weights / weights.sum() + SHARE * START
        np.testing.assert_allclose(ours, weights, rtol=1e-4, atol=1e-7, err_msg=str(t))
        said = rng.normal(size=MANY)
        said[~there] = nan
        expected = (weights[there] @ said[there] / weights[there].sum()) if there.any() else 5.0
        assert float(mixed(ours, jnp.asarray(said, jnp.float32), jnp.float32(5))) == pytest.approx(expected, abs=1e-5)


def test_nobody_has_an_answer():
    none = jnp.full(MANY, jnp.nan)
    weights = jnp.full(MANY, 1 / MANY)
    assert float(mixed(weights, none, jnp.float32(7))) == 7
    np.testing.assert_array_equal(shared(weights, none, jnp.float32(1)), weights)


# Least squares.


def test_least_squares_are_those_of_numpy():
    rng = np.random.default_rng(1)
    size, prior, leak, rate, floor = 5, 0.05, 3e-5, 3e-3, 1e-3
    ours, profile = Recursive.start(jnp.zeros(size)), Profile.start(size)
    weight, p, error, steps = np.zeros(size), prior * np.eye(size), 1.0, 0
    other, other_error = np.zeros(size), 1.0
    held, count = np.zeros((SORTS, 10)), np.zeros((SORTS, 10))
    learn = jax.jit(lambda one, phi, e: one.learn(phi, e, 1.0))
    follow = jax.jit(lambda one, phi, classes, y, gain, pace: one.learn(phi, classes, y, gain, pace))
    for t in range(300):
        phi, classes = rng.normal(size=size), np.array([t % 7, (t // 7) % 3 if t % 5 else -1])
        y = phi @ np.arange(size) + classes[0] - 3 + rng.normal() * (20 if t % 50 == 49 else 0.1)
        y = nan if t % 11 == 10 else y
        e = weight @ phi - y
        ours, k = learn(ours, jnp.asarray(phi, jnp.float32), jnp.float32(e))
        pace = max(1 / (ours.steps + 9), rate)
        profile = follow(profile, jnp.asarray(phi, jnp.float32), jnp.asarray(classes), jnp.float32(y), k, pace)
        if not np.isfinite(y):
            continue
        steps += 1
        pace, before = max(1 / (steps + 9), rate), error
        error = max(error + pace * (min(abs(e), 10 * error) - error), floor)
        gain = p @ phi / ((1.25 * error) ** 2 + phi @ p @ phi)
        weight = weight - gain * e * min(1, before / max(abs(e), floor))
        p = (1 - leak) * (p - np.outer(gain, p @ phi)) + leak * prior * np.eye(size)
        there = classes >= 0
        f = other @ phi + held[np.arange(SORTS), classes][there].sum() / SORTS - y
        cut = f * min(1, other_error / max(abs(f), floor))
        other_error = max(other_error + pace * (min(abs(f), 10 * other_error) - other_error), floor)
        other = other - gain * cut
        for sort in np.flatnonzero(there):
            place = sort, classes[sort]
            held[place] -= max(1 / (count[place] + 6), RATE_CONSTANT) * cut
            count[place] += 1
    np.testing.assert_allclose(ours.weight, weight, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(profile.weight, other, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(profile.constants[:, :10, 0], held, rtol=1e-3, atol=2e-3)
    np.testing.assert_array_equal(profile.constants[:, :10, 1], count)


def test_delays_are_those_of_numpy():
    """Least squares over the newest numbers of the columns there are, autostep over the older; one error for all."""
    rng = np.random.default_rng(2)
    size, columns, floor, leak, meta, tau = 3, 8, 1e-3, 3e-5, 0.01, 1e4
    ours = Delays.start(size, columns)
    assert ours.history.shape == (64, columns)
    weight, error, used = np.zeros(size), 1.0, 0
    near, covariance, usual, steps = np.zeros(FAR), PRIOR * np.eye(FAR), 1.0, 0
    history = np.zeros((64, columns))
    far, step, h, v = np.zeros(history.shape), np.full(history.shape, 1e-3), 0.0, 0.0
    see = jax.jit(lambda one, x: one.see(x))
    learn = jax.jit(lambda one, *given: one.learn(*given))
    for t in range(250):
        x, phi, gain = rng.normal(size=columns), rng.normal(size=size), rng.normal(size=size) * 0.05
        x[3 if t < 60 else 4 :] = 0
        x[2] *= t % 7 > 0
        history = np.vstack([x, history[:-1]])
        ours = see(ours, jnp.asarray(x, jnp.float32))
        if used != (used := max(used, *(np.flatnonzero(x) + 1))):
            near, covariance, usual, steps = np.zeros(FAR), PRIOR * np.eye(FAR), 1.0, 0
        flat = history[:, :used].ravel()
        read = flat[:FAR]
        older = np.pad(np.where(np.arange(flat.size) >= FAR, flat, 0).reshape(64, used), [(0, 0), (0, columns - used)])
        np.testing.assert_allclose(ours.read[0], read, rtol=1e-6)
        np.testing.assert_allclose(ours.read[1], older, rtol=1e-6)
        said = weight @ phi + near @ read + np.sum(far * older)
        assert float(ours.say(jnp.asarray(phi, jnp.float32))) == pytest.approx(said, abs=5e-3)
        y, pace = 0.3 * history[5, 2] + rng.normal() * (20 if t % 40 == 39 else 0.1), 0.02
        ours = learn(ours, *(jnp.asarray(each, jnp.float32) for each in (phi, y, gain, pace)))
        e = said - y
        cut = e * min(1, error / max(abs(e), floor))
        weight = weight - gain * cut
        error = max(error + pace * (min(abs(e), 10 * error) - error), floor)
        forgotten = leak * min(1, (1.25 * usual) ** 2)
        steps, before = steps + 1, usual
        usual = max(usual + max(1 / (steps + 9), RATE_ERROR) * (min(abs(e), 10 * usual) - usual), floor)
        k = covariance @ read
        own = k / ((1.25 * usual) ** 2 + read @ k)
        near = near - own * e * min(1, before / max(abs(e), floor))
        covariance = (1 - forgotten) * (covariance - np.outer(own, k)) + forgotten * PRIOR * np.eye(FAR)
        move = -cut * older * h
        v = np.maximum(np.abs(move), v + step * older**2 * (np.abs(move) - v) / tau)
        step = step * np.exp(meta * np.divide(move, v, out=np.zeros_like(older), where=v > 0))
        step = step / max(1, np.sum(step * older**2))
        moved_by = -step * cut * older
        far, h = far + moved_by, h * (1 - step * older**2) + moved_by
    assert used == 4
    assert np.argmax(np.abs(near)) == 5 * used + 2
    np.testing.assert_allclose(ours.near.weight, near, rtol=2e-2, atol=2e-3)
    np.testing.assert_allclose(ours.far, far, rtol=2e-2, atol=2e-4)
    np.testing.assert_allclose(ours.weight, weight, rtol=1e-3, atol=1e-3)
    before = ours
    ours = learn(ours, jnp.ones(size), jnp.float32(nan), jnp.ones(size), jnp.float32(0.1))
    for now, then in zip(
        (ours.near.weight, ours.far, ours.weight), (before.near.weight, before.far, before.weight), strict=True
    ):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("targets", "lag", "capacity"), [(2, 5, CAPACITY), (2, 1, 1024), (1, 5, CAPACITY), (1, 1, 1024)]
)
def test_where_no_column_is_remembered_all_else_is_learned(targets, lag, capacity):
    """Further than one row ahead, and of too many columns."""
    one = Experts.start(Sizes(capacity, 0, targets, 0, lag, 0))
    assert not one.delays.history.size
    zeros, at = jnp.zeros(targets), jnp.full(WIDTH, NONE, jnp.int32)
    columns, awake = jnp.ones(capacity), jnp.ones(len(AHEAD), bool)
    asked = Asked(zeros, zeros, columns, columns, jnp.zeros(0), zeros, zeros + 1, at, Running.start(targets), awake)
    learn = jax.jit(lambda one, rows, y: one.learn(Heard(rows, y, y, zeros, at, Running.start(targets)), zeros)[0])
    answer = jax.jit(lambda one: one.answer(asked))
    for row in range(lag + 12):
        one = answer(learn(one, jnp.int32(row), zeros + row % 2))
    assert np.isfinite(one.asked.mixed).all()
    assert (np.asarray(one.squares.weight) != 0).any()
    assert (np.asarray(one.delays.weight) != 0).any()


def test_more_columns_leave_what_is_remembered():
    """Of the rows that still have room; of too many columns nothing is read."""
    rng = np.random.default_rng(0)
    one = Delays.start(2, 16)
    for _ in range(40):
        one = one.see(jnp.asarray(rng.normal(size=16), jnp.float32))
    stacked = jax.tree.map(lambda a: a[None], one)
    wide = stacked.enlarge(jax.tree.map(lambda a: a[None], Delays.start(2, 32)))
    assert wide.history.shape == (1, 16, 32)
    np.testing.assert_array_equal(wide.history[0, :, :16], one.history[:16])
    assert not np.asarray(wide.history[0, :, 16:]).any()
    np.testing.assert_array_equal(wide.near.weight[0], one.near.weight)
    none = wide.enlarge(jax.tree.map(lambda a: a[None], Delays.start(2, 1024)))
    assert none.history.shape == (1, 0, 1024)
    assert none.near.weight.shape == (1, 0)


@pytest.mark.parametrize("power", [0, 1, 2])
def test_what_is_predicted_well_is_forgotten_more_slowly(power):
    """With power 2 the variance of weights is a share of that of the error, whatever its size; with 0 it is not."""
    rng = np.random.default_rng(0)

    def step(one, row):
        x, y = row
        return one.learn(x, one.weight @ x - y, noise=1.0, power=power)[0], jnp.sum(one.weight**2)

    excess = []
    for noise in (0.5, 0.05):
        x, y = rng.normal(size=(6000, 20)), noise * rng.normal(size=6000)
        rows = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
        _, errors = jax.lax.scan(step, Recursive.start(jnp.zeros(20)), rows)
        excess.append(np.mean(errors[3000:]) / noise**2)
    ratio = excess[1] / excess[0]
    assert {0: ratio > 5, 1: 1.7 < ratio < 6, 2: 0.6 < ratio < 1.6}[power], ratio


@pytest.mark.parametrize("delay", [20, 60])
def test_a_cause_of_many_rows_ago_is_found(delay):
    """Pulses: the others miss them, and the mixture does not."""
    rng = np.random.default_rng(0)
    pulse = (rng.random(4000) < 0.05).astype(np.float32)
    x = np.full((4000, CAPACITY), nan, np.float32)
    x[:, 0] = pulse
    y = np.concatenate([np.zeros(delay), pulse[:-delay]]) + 0.1 * rng.normal(size=4000)
    said = learner().learn(x, PLAIN, y[:, None].astype(np.float32))[1]
    error = np.abs(said.outputs[2000:-1, 0] - y[2001:]).mean()
    alone = np.abs(said.experts[2000:-1, 0, AHEAD.index("lags")] - y[2001:]).mean()
    assert error < 0.1 < 0.12 < alone


def test_a_constant_of_no_class_does_not_move():
    held = jnp.ones((SORTS, 3, 2))
    np.testing.assert_array_equal(moved(held, jnp.array([-1, 1]), jnp.float32(2), jnp.array(True))[0], held[0])
    np.testing.assert_array_equal(moved(held, jnp.array([0, 1]), jnp.float32(2), jnp.array(False)), held)


# What is remembered.

CLOCKS = {
    "hours": lambda rng, n: 3600.0 * np.arange(n),
    "half hours, some missing": lambda rng, n: 1800.0 * np.sort(rng.choice(2 * n, n, replace=False)),
    "shaken": lambda rng, n: 1800.0 * np.arange(n) + rng.uniform(-600, 600, n),
    "twice": lambda rng, n: 3600.0 * (np.arange(n) // 2),
    "backwards now and then": lambda rng, n: (
        3600.0 * np.where(np.arange(n) % 50 == 49, np.arange(n) - 30, np.arange(n))
    ),
    "some unknown": lambda rng, n: np.where(rng.random(n) < 0.2, nan, 3600.0 * np.arange(n)),
    "days": lambda rng, n: DAY * np.arange(n),
    "nights closed": lambda rng, n: 1800.0 * (np.arange(n) % 18) + DAY * (np.arange(n) // 18),
    "minutes, longer than the memory": lambda rng, n: 60.0 * np.arange(n),
}
EPOCH = 1.7e9


def looked_up(at, y, lag):
    """What `Past.seasons` should be after each row: slots in a dict, each with its time, its value, and what came later."""
    out = np.full((len(y), 3, len(SEASONS) + 1), nan)
    times, values, later = {}, {}, {}
    for t, row in enumerate(at.tolist()):
        place = lambda slot: slot % SLOTS
        if t >= lag and at[t - lag, 0] != NONE:
            later[place(int(at[t - lag, 0]) // PARTS)] = y[t]
        for s, wanted in enumerate(row[1 : 2 + len(SEASONS)]):
            if wanted == NONE:
                continue
            near = range(wanted // PARTS - 2, wanted // PARTS + 3)
            there = [times.get(place(slot), NONE) // PARTS == slot for slot in near]
            far = [abs(times[place(slot)] - wanted) if ok else 10**9 for slot, ok in zip(near, there, strict=True)]
            nearest = int(np.argmin(far))
            if far[nearest] <= 3 * PARTS // 2:
                after = min(nearest + 1, 4)
                out[t, 0, s] = values[place(near[nearest])]
                out[t, 1, s] = later.get(place(near[nearest]), nan)
                out[t, 2, s] = later.get(place(near[after]), nan) if there[after] else nan
        if row[0] != NONE:
            slot = place(row[0] // PARTS)
            times[slot], values[slot], later[slot] = row[0], y[t], nan
    return out


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("lag", [1, 24, 30])
def test_seasons_are_found_as_in_the_rows_themselves(clock, lag):
    rng = np.random.default_rng(3)
    n = 1500 if "minutes" in clock else 700
    moments = EPOCH + CLOCKS[clock](rng, n)
    at = Calendar(lag).at(moments, np.where(np.arange(n) > 300, 10, 0), dated=True)
    y = rng.normal(size=n)

    def body(past, row):
        past = past.see(row[0], jnp.float32(0), row[1])
        return past, past.seasons

    start = Past.start(lag)
    found = jax.jit(lambda y, at: jax.lax.scan(body, start, (y, at))[1])(jnp.asarray(y, jnp.float32), jnp.asarray(at))
    expected = looked_up(at, y, lag)
    assert np.isfinite(expected[:, :2]).any()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_calendar_is_the_same_however_rows_come(clock):
    rng = np.random.default_rng(5)
    moments, periods = EPOCH + CLOCKS[clock](rng, 600), rng.integers(0, 2, 600).cumsum()
    whole = Calendar(3).at(moments, periods, dated=True)
    for seed in range(5):
        cuts = np.sort(np.random.default_rng(seed).integers(0, 601, 12))
        calendar, parts = Calendar(3), []
        for a, b in itertools.pairwise([0, *cuts, 600]):
            parts.append(calendar.at(moments[a:b], periods[a:b], dated=True))
            kept = json.loads(json.dumps(calendar.as_dict()))
            calendar = Calendar(3)
            calendar.restore(kept)
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_what_a_calendar_says():
    moments = EPOCH + 3600.0 * np.arange(400)
    at = Calendar(2).at(moments, np.zeros(400, int), dated=True)
    known = at[10:]
    assert known.shape[1] == WIDTH
    np.testing.assert_array_equal(np.diff(known[:, 0]), PARTS)
    np.testing.assert_array_equal(known[:, 0] - known[:, 1], 24 * PARTS)
    np.testing.assert_array_equal(known[:, 0] - known[:, 2], 168 * PARTS)
    np.testing.assert_array_equal(known[:, 0] - known[:, 3], round(YEAR / 3600) * PARTS)
    assert (known[:, 4] == NONE).all()  # no season was found in the data
    expected = moments[10:] + 2 * 3600
    np.testing.assert_allclose(known[:, 5] / TURN, np.mod(expected, DAY) / DAY, atol=1e-6)
    when = expected.astype("datetime64[s]").tolist()
    kinds = [max(w.weekday() - 4, 0) for w in when]
    np.testing.assert_array_equal(known[:, -2], [w.hour * 3 + k for w, k in zip(when, kinds, strict=True)])
    np.testing.assert_array_equal(known[:, -1], [w.hour * 7 + w.weekday() for w in when])


@pytest.mark.parametrize(
    ("step", "lag", "back"), [(3600, 1, 24), (3600, 24, 24), (3600, 25, 48), (DAY, 1, 7), (DAY, 8, 14)]
)
def test_a_season_is_long_enough_that_what_followed_is_known(step, lag, back):
    moments = EPOCH + step * np.arange(100.0)
    at = Calendar(lag).at(moments, np.zeros(100, int), dated=True)[50:]
    column = 1 if step < DAY else 2
    np.testing.assert_array_equal(at[:, 0] - at[:, column], back * PARTS)


def test_the_calendar_of_days_and_months():
    days = Calendar(1).at(EPOCH + DAY * np.arange(40.0), np.zeros(40, int), dated=True)[20:]
    when = (EPOCH + DAY * np.arange(21.0, 41.0)).astype("datetime64[s]").tolist()
    np.testing.assert_array_equal(days[:, -2], [w.weekday() for w in when])
    np.testing.assert_array_equal(days[:, -1], [w.month - 1 for w in when])
    firsts = np.arange("1990-01", "2010-01", dtype="datetime64[M]").astype("datetime64[s]").astype(float)
    months = Calendar(1).at(firsts, np.zeros(len(firsts), int), dated=True)
    assert (months[20:, -2] == -1).all()  # a month has no day of the week
    assert len({*(months[20:, 0] // PARTS).tolist()}) == len(firsts) - 20  # no two months in one slot


def test_without_dates_a_row_is_a_step():
    at = Calendar(2).at(np.full(30, nan), np.where(np.arange(30) < 10, 0, 7), dated=False)
    np.testing.assert_array_equal(at[:, 0], PARTS * np.arange(30))
    assert (at[:10, 1:5] == NONE).all()
    assert (at[:, 1:4] == NONE).all()
    assert (at[:, 5:] == -1).all()
    np.testing.assert_array_equal(at[10:, 0] - at[10:, 4], 7 * PARTS)


def test_a_holiday_is_a_sunday():
    """Of the row that is predicted: a day ahead, the class of a Sunday stands a day before."""
    pytest.importorskip("holidays")
    christmas = np.datetime64("2024-12-25T00", "s").astype(float)  # a Wednesday in Germany, and the day after too
    moments = christmas - 10 * DAY + 3600.0 * np.arange(24 * 14)
    of = lambda *more: Calendar(24, *more).at(moments, np.zeros(len(moments)), dated=True)[:, -SORTS:]
    plain, told = of(), of(Holidays("DE"))
    ahead = (moments + DAY).astype("datetime64[s]").astype("datetime64[D]")
    there = np.isin(ahead, np.array(["2024-12-25", "2024-12-26"], "datetime64[D]"))
    assert there.sum() == 48
    np.testing.assert_array_equal(plain[~there], told[~there])
    sunday = (ahead == np.datetime64("2024-12-22")).nonzero()[0]
    np.testing.assert_array_equal(told[there], np.tile(plain[sunday], (2, 1)))
    assert (plain[there] != told[there]).all()


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ("XX", "--holidays XX: no holidays are known of a country 'XX'"),
        ("de", "--holidays de: no holidays are known of a country 'de'. Is it DE?"),
        ("DE-ZZ", "--holidays DE-ZZ: DE has no part 'ZZ'; its parts are: BB, BE"),
    ],
)
def test_a_country_without_holidays(of, words):
    pytest.importorskip("holidays")
    with pytest.raises(OnwardError, match=re.escape(words)):
        Holidays(of)


@pytest.mark.parametrize("steps", [[1, 1000], [1, 1, 1000, 1000], [1, 1e12], [1e-3, 1, 1e3, 1e6]])
def test_a_clock_of_which_no_step_is_usual(steps):
    """No warning, and no slot that nobody could name."""
    moments = EPOCH + np.cumsum(np.resize(steps, 300))
    calendar = Calendar(1)
    at = calendar.at(moments, np.zeros(300), dated=True)
    assert np.isfinite([calendar.step, calendar.width]).all()
    assert at.shape == (300, WIDTH)


def test_a_new_step_of_the_clock_forgets_the_old_slots():
    moments = EPOCH + np.concatenate([60.0 * np.arange(64), 60.0 * 64 + 3600.0 * np.arange(300)])
    at = Calendar(1).at(moments, np.zeros(364, int), dated=True)
    assert at[300:, 0].min() - PARTS * SLOTS > at[:64, 0].max()


# All together.


def rows_of(n, seed=0):
    rng = np.random.default_rng(seed)
    x = np.full((n, CAPACITY), nan, np.float32)
    x[:, :2] = rng.normal(size=(n, 2))
    hour = np.arange(n) % 24
    y = 10 * np.sin(2 * np.pi * hour / 24) + rng.normal(size=n).cumsum() * 0.1 + np.roll(np.nan_to_num(x[:, 0]), 3)
    at = Calendar(1).at(EPOCH + 3600.0 * np.arange(n), np.where(np.arange(n) < 100, 0, 24), dated=True)
    return x, y[:, None].astype(np.float32), at


def learner(lag=1, **options):
    recipe = RowRecipe(units=4, horizon=lag, lag=lag, experts=AHEAD, components=2, **options)
    return RowLearner(recipe, CAPACITY, 0, lengths=(64,))


@pytest.mark.parametrize("lag", [1, 5])
def test_no_expert_looks_ahead(lag):
    """What was said up to a row is the same to the bit, whatever comes after it."""
    x, y, at = rows_of(300)
    first = learner(lag).learn(x, PLAIN, y, None, at)[1]
    rng = np.random.default_rng(9)
    for cut in (37, 150, 233):
        order = cut + rng.permutation(300 - cut)
        other = [np.concatenate([part[:cut], part[order] + (0 if part is at else 1)]) for part in (x, y, at)]
        again = learner(lag).learn(other[0], PLAIN, other[1], None, other[2])[1]
        for name in ("outputs", "experts", "weights", "spread", "linear"):
            np.testing.assert_array_equal(getattr(first, name)[:cut], getattr(again, name)[:cut], err_msg=name)
        assert not np.array_equal(first.outputs[cut:], again.outputs[cut:])


def test_answers_are_those_that_their_names_say():
    x, y, at = rows_of(300)
    said = learner().learn(x, PLAIN, y, None, at)[1]
    of = lambda name: said.experts[:, 0, AHEAD.index(name)]
    np.testing.assert_allclose(of("last"), y[:, 0], rtol=1e-6)
    np.testing.assert_allclose(of("mean"), np.cumsum(y[:, 0]) / np.arange(1, 301), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(of("day")[30:], y[30 - 23 : 300 - 23, 0], rtol=1e-6)
    np.testing.assert_allclose(of("season")[130:], y[130 - 23 : 300 - 23, 0], rtol=1e-6)
    assert np.isnan(of("year")).all()
    np.testing.assert_allclose(of("week")[172:], y[172 - 167 : 300 - 167, 0], rtol=1e-6)
    share = np.where(np.isfinite(said.experts), said.weights, 0)
    np.testing.assert_allclose(share.sum(2), 1, rtol=1e-5)
    together = np.sum(share * np.nan_to_num(said.experts), 2)
    np.testing.assert_allclose(said.outputs, together, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("lag", [1, 5])
def test_seasons_go_on_where_nothing_is_learned(lag):
    """A day and more of rows that are only answered: what came a day before them is theirs."""
    x, y, at = rows_of(300)
    one, learned = learner(lag).learn(x[:200], PLAIN, y[:200], None, at[:200])
    _, said = one.read(x[200:], PLAIN, y[200:], at[200:])
    for name, back in (("day", 24), ("season", 24)):
        answers = np.concatenate([learned.experts, said.experts])[:, 0, AHEAD.index(name)]
        np.testing.assert_allclose(answers[180 : 300 - lag], y[180 + lag - back : 300 - back, 0], rtol=1e-6)


def test_who_is_not_chosen_says_nothing():
    x, y, at = rows_of(120)
    recipe = RowRecipe(units=4, experts=("last", "lags"))
    said = RowLearner(recipe, CAPACITY, 0, lengths=(64,)).learn(x, PLAIN, y, None, at)[1]
    there = np.isfinite(said.experts[:, 0])
    np.testing.assert_array_equal(there.any(0), [name in recipe.experts for name in AHEAD])
    np.testing.assert_allclose(said.weights[50:, 0][:, there.all(0)].sum(1), 1, rtol=1e-5)


def test_a_network_that_is_broken_is_gone_on_without():
    x, y, at = rows_of(200)
    one, _ = learner().learn(x[:100], PLAIN, y[:100], None, at[:100])
    packing = one.programs.packing
    state = packing.on_host(one.packed)
    readout = lambda s: s.learned.online.model.head.weight
    broken = eqx.tree_at(readout, state, np.full_like(readout(state), nan))
    one = one._replace(state=packing.from_host(broken))
    said = one.learn(x[100:], PLAIN, y[100:], None, at[100:])[1]
    network = AHEAD.index("network")
    assert np.isnan(said.experts[:, 0, network]).all()
    assert (said.weights[:, 0, network] == 0).all()
    assert np.isfinite(said.outputs).all()
    assert np.abs(said.outputs[:-1] - y[101:]).mean() < 2.5


def test_wider_rows_are_what_they_were():
    x, y, at = rows_of(260)
    one, _ = learner().learn(x[:130], PLAIN, y[:130], None, at[:130])
    wide = np.full((130, 16), nan, np.float32)
    wide[:, :CAPACITY] = x[130:]
    narrow = one.learn(x[130:], PLAIN, y[130:], None, at[130:])[1]
    said = one.widen(16).learn(wide, np.zeros(16, bool), y[130:], None, at[130:])[1]
    # But for the columns of many rows before, which are remembered anew, and who listens to that.
    others = [i for i, name in enumerate(AHEAD) if name not in ("delays", "stack")]
    np.testing.assert_allclose(said.experts[..., others], narrow.experts[..., others], rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(said.outputs[:2], narrow.outputs[:2], rtol=0.05, atol=0.2)


def test_too_many_columns_for_least_squares_are_left_to_the_network():
    x, y, at = rows_of(130)
    one, _ = learner().learn(x[:70], PLAIN, y[:70], None, at[:70])
    wide = one
    while wide.capacity <= experts_module.MOST_READ:
        wide = wide.widen(2 * wide.capacity)
    more = np.full((60, wide.capacity), nan, np.float32)
    more[:, :CAPACITY] = x[70:]
    said = wide.learn(more, np.zeros(wide.capacity, bool), y[70:], None, at[70:])[1]
    assert np.isfinite(said.outputs).all()
    assert wide.programs.packing.on_host(wide.packed).experts.asked.read.shape == (1, OWN)


def test_a_level_that_moves_is_no_change():
    past, nowhere = Past.start(1), jnp.full(WIDTH, NONE, jnp.int32)
    for y in range(LAGS + 2):
        past = past.see(jnp.float32(y), jnp.float32(0), nowhere)
    past = past.see(jnp.float32(1000), jnp.float32(900), nowhere)
    steps = -np.diff(past.lags)
    np.testing.assert_array_equal(steps[1:], 1)
    assert steps[0] == 1000 - (LAGS + 1) - 900


def test_the_state_holds_what_it_says():
    one = jax.tree.map(lambda a: a[0], Experts.start(Sizes(CAPACITY, 0, 1, 3, 2, 0)))
    assert one.asked.read.shape == (OWN + 3,)
    assert one.waiting.shape == (2, one.asked.flat.size)
    for part, again in zip(one.asked, one.asked.of(one.asked.flat), strict=True):
        np.testing.assert_array_equal(part, again)
