"""One bad reading is not followed, a real shift is, and a prediction lies within its own interval.

Each stream has a twin without the outlier or the shift. Sizes are in usual changes of the column from row to row.
"""

import csv
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onward.rows.learn import learn
from onward.rows.options import Learn
from onward.rows.stream import RowLearner, RowRecipe, interval
from onward.rows.stream.guard import FAR_SAID, WARM, Guard

pytestmark = [pytest.mark.usefixtures("compile_fast"), pytest.mark.interfaces]

SIZES = (10.0, 30.0, 100.0, 1e3, 1e6)
ROWS, CAPACITY = 420, 8
PLAIN = np.zeros(CAPACITY, bool)


def stream(kind, seed):
    """(target, input): a season with noise, a walk, or a target that is driven by the input of the row before."""
    rng = np.random.default_rng(seed)
    noise, other = rng.normal(size=(2, ROWS))
    if kind == "season":
        return 100 + 10 * np.sin(2 * np.pi * (np.arange(ROWS) + 7 * seed) / 50) + noise, other
    if kind == "walk":
        return np.cumsum(noise), np.cumsum(other)
    return 5 + 2 * np.roll(other, 1) + 0.5 * noise, other


def changed(kind, seed, where, place, size, last):
    """The stream with `size` usual changes more in `last` rows from `place` on."""
    y, x = stream(kind, seed)
    part = y if where == "target" else x
    part[place : place + last] += size * np.std(np.diff(part))
    return y, x


LEARNERS = {}


def said(y, x, horizon=1):
    """What was said of each row before it, in an array of rows; and all answers."""
    recipe = RowRecipe(units=4, horizon=horizon, lag=horizon, components=3)
    learner = LEARNERS.setdefault(recipe, RowLearner(recipe, CAPACITY, lengths=(ROWS,)))
    cells = np.full((ROWS, CAPACITY), np.nan, np.float32)
    cells[:, 0] = x
    if horizon:
        cells[:, 1] = y
    _, answers = learner.learn(cells, PLAIN, np.asarray(y, np.float32)[:, None])
    outputs = answers.outputs[:, 0]
    return np.concatenate([np.full(horizon, np.nan), outputs[: ROWS - horizon]]), answers


def error(y, x, start, stop, **options):
    return np.abs(said(y, x, **options)[0] - y)[start:stop].mean()


def worst(kinds, seeds, wheres, places, sizes, last=1, gap=1, rows=100, **options):
    """The largest error of some rows after a change by that of the twin, over all of them, and which it is."""
    found = {}
    for kind in kinds:
        for seed in seeds:
            twin = stream(kind, seed)
            for place in places:
                start, stop = place + gap, place + gap + rows
                usual = error(*twin, start, stop, **options)
                for where in wheres:
                    for size in (s * sign for s in sizes for sign in (1, -1)):
                        each = changed(kind, seed, where, place, size, last)
                        found[kind, seed, where, place, size] = error(*each, start, stop, **options) / usual
    which = max(found, key=found.__getitem__)
    return found[which], which


# The law of an outlier.


def test_after_an_outlier_the_next_hundred_errors_are_as_ever():
    ratio, which = worst(["season"], range(2), ["target", "input"], [150, 300], SIZES)
    assert ratio < 1.2, which


@pytest.mark.slow
@pytest.mark.parametrize("where", ["target", "input"])
@pytest.mark.parametrize("kind", ["season", "walk", "driven"])
def test_after_an_outlier_of_any_size_sign_and_place(kind, where):
    ratio, which = worst([kind], range(10), [where], [100, 187, 311], SIZES[1:])
    assert ratio < 1.2, which


# Ten usual changes are about where a value begins to be strange: one of sixty such inputs gave 1.2196.
NEARLY = pytest.param("driven", "input", marks=pytest.mark.xfail(reason="1.2196 once in sixty", strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "where"),
    [*((kind, "target") for kind in ("season", "walk", "driven")), ("season", "input"), ("walk", "input"), NEARLY],
)
def test_after_an_outlier_that_is_hardly_strange(kind, where):
    ratio, which = worst([kind], range(10), [where], [100, 187, 311], SIZES[:1])
    assert ratio < 1.2, which


@pytest.mark.slow
@pytest.mark.parametrize("horizon", [0, 5])
def test_the_same_of_the_same_row_and_further_ahead(horizon):
    ratio, which = worst(["season", "driven"], range(4), ["target", "input"], [150, 300], SIZES, horizon=horizon)
    assert ratio < 1.2, which


def test_the_prediction_right_after_does_not_chase_it():
    for size in (100.0, -1e3, 1e6):
        y, x = changed("season", 0, "target", 300, size, 1)
        ahead = said(y, x)[0]
        assert abs(ahead[301] - y[301]) < 10
        assert abs(ahead[300] - y[300]) > 100


# The law of a shift.


def test_after_a_shift_errors_are_back_within_fifty_rows():
    ratio, which = worst(["season"], range(2), ["target", "input"], [150], (30.0, 1e3, 1e6), last=ROWS, gap=51)
    assert ratio < 1.5, which


@pytest.mark.slow
@pytest.mark.parametrize("where", ["target", "input"])
@pytest.mark.parametrize("kind", ["season", "walk", "driven"])
def test_after_a_shift_of_any_size_sign_and_place(kind, where):
    """The median of ten streams; without a guard it is 3.9 to 22 where the input drives the target.

    A shift of 10^6 of a column that matters to its last digit is beyond single precision, and left out there.
    """
    for size in SIZES[:4] if kind == "driven" else SIZES:
        found = [worst([kind], [seed], [where], [110, 250], [size], last=ROWS, gap=51)[0] for seed in range(10)]
        assert np.median(found) < 1.5, size


def test_two_rows_after_a_shift_the_level_is_known():
    y, x = changed("season", 0, "target", 300, 1e3, ROWS)
    ahead = said(y, x)[0]
    assert np.abs(ahead - y)[302:310].max() < 15
    assert np.abs(ahead - y)[300:302].min() > 1000


# Marks and intervals.


def test_a_strange_row_is_marked_and_its_interval_holds_both_levels():
    y, x = changed("season", 0, "target", 300, 1e3, 1)
    answers = said(y, x)[1]
    ends = interval(answers.spread[:, 0], answers.outputs[:, 0], 0.9, 512)
    assert np.flatnonzero(answers.strange).tolist() == [300]
    assert ends[300, 0] < y[301] < y[300] < ends[300, 1]
    width = np.diff(ends)[:, 0]
    assert width[302:340].max() < 20 < width[300]
    y, x = changed("season", 0, "input", 300, 1e3, 1)
    answers, twin = said(y, x)[1], said(*stream("season", 0))[1]
    wide, usual = (np.diff(interval(a.spread[:, 0], a.outputs[:, 0], 0.9, 512))[300, 0] for a in (answers, twin))
    assert answers.strange[300] == 1
    assert 2 < wide / usual < 5


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    "horizon", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(5, marks=pytest.mark.slow)]
)
def test_a_prediction_lies_within_its_own_interval(horizon, share):
    for seed, size, last in ((0, 1e3, 1), (1, -100.0, ROWS), (2, 1e6, ROWS), (3, 30.0, 5)):
        y, x = changed("season", seed, "target", 200, size, last)
        answers = said(y, x, horizon)[1]
        low, high = interval(answers.spread[:, 0], answers.outputs[:, 0].astype(float), share, 512).T
        assert ((low <= answers.outputs[:, 0]) & (answers.outputs[:, 0] <= high)).all()


def table(rows, path="data.csv"):
    y, x = changed("season", 0, "target", 300, 1e3, 1)
    x[200] = 5e4
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["y", "x"], *zip(y[:rows].round(3), x[:rows].round(3), strict=True)])


def test_strange_rows_stand_in_the_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(ROWS)
    learn(Learn(target=("y",), units=4), "data.csv", Path("out"))
    with open("out/predictions.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {int(line["row"]): line["strange"] for line in lines if line["strange"]} == {201: "x", 301: "y"}
    assert all(float(r["low"]) <= float(r["prediction"]) <= float(r["high"]) for r in lines if r["prediction"])
    found = json.loads(Path("out/summary.json").read_text())
    assert found["strange"]["rows"] == 2
    assert [each["row"] for each in found["strange"]["first"]] == [201, 301]
    assert sum("is far from all before it" in note for note in found["notes"]) == 2
    assert any("row 201, column 'x': 50000.0" in note for note in found["notes"])


# The guard by itself.


def watched(values, expected=np.nan):
    """What the guard makes of a column, value by value."""
    step = jax.jit(lambda guard, v: guard.see(v[None], jnp.full(1, expected), FAR_SAID))
    guard, out = Guard.start(1), []
    for value in values:
        guard, row = step(guard, jnp.float32(value))
        out.append((float(row.value[0]), bool(row.strange[0]), bool(row.moved[0]), float(row.step[0])))
    return guard, out


def test_what_is_as_ever_is_handed_on_to_the_bit():
    values = np.random.default_rng(0).normal(size=400).astype(np.float32)
    values[::7] = np.nan
    _, out = watched(values)
    np.testing.assert_array_equal([row[0] for row in out], values)
    assert not any(row[1] or row[2] for row in out)


def test_a_strange_value_is_held_and_the_next_one_decides():
    noise = np.random.default_rng(0).normal(size=200)
    _, back = watched([*noise, 500, 0.3, 0.1])
    assert [row[1:3] for row in back[200:]] == [(True, False), (False, False), (False, False)]
    assert abs(back[200][0]) < 2  # r^2 / d
    _, gone = watched([*noise, 500, np.nan, 501, 500.2])
    assert [row[1:3] for row in gone[200:]] == [(True, False), (False, False), (False, True), (False, False)]
    assert gone[202][3] == pytest.approx(501 - noise[-1], abs=1e-3)
    # Back from a burst of two at once.
    _, burst = watched([*noise, 500, 501, 0.2, 0.1])
    assert [row[1:3] for row in burst[200:]] == [(True, False), (False, True), (False, True), (False, False)]


def test_peaks_that_come_again_are_believed_in_the_end():
    values = np.random.default_rng(0).normal(size=1200)
    values[100::50] += 100
    strange = np.flatnonzero([row[1] for row in watched(values)[1]])
    assert 1 <= len(strange) <= 6
    assert strange.max() < 500


def test_nothing_is_strange_before_there_is_anything_to_go_by():
    _, out = watched([0.0] * 20 + [1e6] + [0.0] * (WARM - 22) + [1e6])
    assert not any(row[1] for row in out[:WARM])
    noise = np.random.default_rng(0).normal(size=WARM)
    assert watched([*noise, 1e6])[1][-1][1]


@pytest.mark.parametrize("value", [7.0, 0.0])
def test_a_constant_is_no_reason_to_follow_a_spike(value):
    _, out = watched([value] * 60 + [value + 9] + [value])
    assert out[60][:2] == (value, True)
    assert out[61][:2] == (value, False)
