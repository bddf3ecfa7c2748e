"""A wild one among the first values spoils nothing: in a file, a stream, and behind River's interface."""

import copy
import json
import math
import pickle
import warnings
from functools import partial

import numpy as np
import pytest
from river import base

from onward.adapters.river import OnlineClassifier, OnlineForecaster, OnlineRegressor
from onward.rows.beginning import BELIEVED, CLOSED, ROWS, Beginning, wild
from onward.rows.options import Learn
from onward.rows.session import Session
from onward.rows.sources import Rows
from onward.rows.targets import Targets

pytestmark = pytest.mark.usefixtures("compile_fast")

N = 120
SIZES = [2e4, 1e5, 1e9, 1e12, 1e30]


def columns(n=N):
    """A target that an input drives; both of a size far from 0."""
    rng = np.random.default_rng(0)
    x = 15 + 5 * np.sin(np.arange(n) / 4) + 0.5 * rng.normal(size=n)
    return {"x": x.round(3).tolist(), "y": (2000 + 20 * x + rng.normal(size=n)).round(2).tolist()}


def options(**fields):
    return Learn(**{"target": ("y",), "units": 2, "interval": 0.0, **fields})


def session_of(**fields):
    return Session(options(**fields), "a stream", [].append, block=32)


def taken(session, cells, start=0, stop=N, size=32, first=1):
    for at in range(start, stop, size):
        part = {name: column[at : min(at + size, stop)] for name, column in cells.items()}
        session.take(Rows(at + first, range(at + first, min(at + size, stop) + first), part, {}))
    return session


def predictions(session):
    """(row, prediction, error) as they are written."""
    lines = [line.split(",") for line in "".join(session.lines).splitlines()]
    at = [session.header.index(name) for name in ("row", "prediction", "error")]
    return [tuple(line[i] for i in at) for line in lines]


def errors(session, start):
    return np.mean([abs(float(error)) for row, _, error in predictions(session) if error and int(row) > start])


# Which values are wild.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("at", [0, 1, 2, 5, 20, 49])
def test_a_wild_value_is_known_once_enough_follow(size, sign, at):
    """Of the order of 1,000 usual distances three values tell it; of thirty, ten."""
    values = np.array(columns()["y"])
    values[at] = sign * size
    known = max(10 if size < 1e5 else 3, at + 1)
    for n in range(1, N):
        assert wild(values[:n]) in ([[at]] if n >= known else [[], [at]]), n


def test_what_is_wild_by_hand():
    assert wild(np.array([7.0, 7.1])) == []
    assert wild(np.array([0.0, np.nan, 1.0, 1000.0])) == []  # 999 times as far from 1 as 0 is
    assert wild(np.array([0.0, np.nan, 1.0, 1002.0])) == [3]
    assert wild(np.array([5.0, 5.0, 5.0, 5006.0])) == [3]  # all others the same: 1,000 times that
    assert wild(np.array([5.0, 5.0, 5.0, 5004.0])) == []
    assert wild(np.array([0.0, 0.0, 0.0, 1e9])) == []
    assert wild(np.array([*[0.0, 1.0] * 5, 100.0])) == []  # 99 times as far from the median, 1, as 0 is
    assert wild(np.array([*[0.0, 1.0] * 5, 102.0])) == [10]
    assert wild(np.array([*[0.0, 1.0] * 4, 102.0])) == []  # of nine values that is not enough
    assert wild(np.array([*range(9), 1e6, 1e6])) == []  # of eleven one may be
    assert wild(np.array([*range(20), 1e6, 1e6])) == [20, 21]


LEGITIMATE = {
    "usual": lambda rng: rng.normal(5, 2, ROWS),
    "a walk": lambda rng: np.cumsum(rng.normal(size=ROWS)),
    "a trend": lambda rng: np.arange(float(ROWS)),
    "a counter": lambda rng: np.cumsum(rng.integers(0, 3, ROWS)).astype(float),
    "few peaks": lambda rng: np.where(rng.random(ROWS) < 0.1, 40.0, 0.0),
    "logarithmic": lambda rng: rng.lognormal(0, 1, ROWS),
    "a switch": lambda rng: (np.arange(ROWS) // 20 % 2).astype(float),
    "grows a millionfold": lambda rng: np.exp(np.linspace(0, 14, ROWS)),
}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_nothing_is_taken_out_of_what_streams_begin_with(name):
    for seed in range(20):
        beginning = Beginning()
        for value in LEGITIMATE[name](np.random.default_rng(seed)):
            beginning = beginning.see({"x": float(value)})
            assert not beginning.strange, seed
            assert not beginning.anew, seed


def test_first_values_are_judged_for_a_hundred_rows_and_fifty_values():
    beginning = Beginning()
    for i in range(BELIEVED):
        beginning = beginning.see({"x": float(i % 3), "late": math.nan})
    assert beginning.see({"x": 1e9}).strange == ()  # the guard's work
    assert beginning.see({"late": 1e9}).strange == ()
    for i in range(3):
        beginning = beginning.see({"late": float(i)})
    assert beginning.see({"late": 1e9}).strange == ("late",)
    kept = json.loads(json.dumps(beginning.as_dict()))
    assert Beginning.from_dict(kept) == beginning._replace(strange=(), anew={})
    for _ in range(ROWS - BELIEVED - 3):
        assert beginning.open
        beginning = beginning.see({})
    assert beginning == CLOSED


# A stream.


@pytest.mark.parametrize("horizon", [0, 1])
@pytest.mark.parametrize("column", ["x", "y"])
@pytest.mark.parametrize("value", [s * size for size in (1e5, 1e9, 1e30) for s in (1, -1)])
def test_after_a_wild_first_value_learning_is_that_which_begins_with_the_third_row(horizon, column, value):
    """To the last digit: what the wild one has touched is gone, units and moments too."""
    cells = columns()
    other = "x" if column == "y" else "y"
    cells[other][0] = cells[other][2]  # its unit is the same then
    cells[column][0] = value
    whole = taken(session_of(horizon=horizon), cells)
    part = taken(session_of(horizon=horizon), cells, start=2)
    assert predictions(whole)[3:] == predictions(part)[1:]
    assert len(predictions(part)) == N - 2
    notes = [note for note in whole.notes if "learning begins anew" in note]
    assert len(notes) == 1
    assert f"row 3, column {column!r}: {value:g} before it" in notes[0]
    assert part.notes == []


@pytest.mark.parametrize("horizon", [0, 1])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("at", [0, 1, 2, 8, 30])
def test_errors_after_a_wild_first_value_are_those_of_the_clean_stream(horizon, size, sign, at):
    clean = errors(taken(session_of(horizon=horizon), columns()), 60)
    for column in ("x", "y"):
        cells = columns()
        cells[column][at] = sign * size
        assert errors(taken(session_of(horizon=horizon), cells), 60) < 1.15 * clean, column


def test_how_rows_come_and_restarts_make_no_difference(tmp_path):
    cells = columns()
    cells["y"][0], cells["x"][4] = 1e9, -1e12
    found = [taken(session_of(), cells, size=size) for size in (1, 3, 32)]
    assert len({"".join(each.lines) for each in found}) == 1
    assert found[0].notes == found[1].notes == found[2].notes
    session = session_of()
    for row in range(12):
        taken(session, cells, row, row + 1)
        session.save(tmp_path)
        lines, session = session.lines, session_of()
        session.load(tmp_path / f"learn-{row + 1:012d}.npz")
        session.lines = lines
    assert "".join(taken(session, cells, 12).lines) == "".join(found[0].lines)
    assert session.notes == found[0].notes


def test_scores_of_what_is_believed_begin_where_learning_does():
    cells = columns()
    cells["y"][0] = 1e9
    whole, part = taken(session_of(), cells), taken(session_of(), cells, start=2)
    np.testing.assert_allclose(whole.scores.believed, part.scores.total, rtol=1e-5)
    assert whole.scores.believed[0, 0, 1] < 1e4 < whole.scores.total[0, 0, 1]
    assert not whole.constant[0]


def test_a_value_that_was_wild_and_is_confirmed_is_believed():
    cells = columns()
    cells["y"][12:] = [2e4 + value for value in cells["y"][12:]]
    session = taken(session_of(), cells)
    assert errors(session, 60) < 3 * errors(taken(session_of(), columns()), 60)
    assert sum("taken as missing" in note for note in session.notes) == 1


def test_classes_and_rewards_are_all_believed():
    cells = columns()
    cells["y"][0] = 1e9
    for task in ("return", "classification"):
        session = session_of(task=task, interval=None)
        taken(session, {**cells, "y": [str(round(value, -2)) for value in cells["y"]]}, stop=20)
        assert session.notes == []


# River.

MODELS = {
    "regressor": partial(OnlineRegressor, autoregressive=False),
    "forecaster": OnlineForecaster,
    "classifier": OnlineClassifier,
}


def learn(model, x, y):
    if isinstance(model, OnlineForecaster):
        model.learn_one(y, {"x": x})
    else:
        model.learn_one({"x": x}, y if isinstance(model, OnlineRegressor) else y > 2300)


def said(model, x):
    if isinstance(model, OnlineForecaster):
        return model.forecast(2, [{"x": x}] * 2)
    return model.predict_one({"x": x}) if isinstance(model, base.Regressor) else model.predict_proba_one({"x": x})


@pytest.mark.filterwarnings("ignore:.*one of the first values")
@pytest.mark.parametrize(
    ("kind", "column"), [("regressor", "y"), ("regressor", "x"), ("forecaster", "y"), ("classifier", "x")]
)
@pytest.mark.parametrize("value", [1e5, -1e9, 1e30])
def test_river_learns_anew_where_a_first_value_was_wild(kind, value, column):
    """To the last digit as if the third row was the first, but that it knows the last target and the classes."""
    cells = columns()
    other = "x" if column == "y" else "y"
    cells[other][:3] = [cells[other][2]] * 3
    cells[column][0] = value
    whole, part = MODELS[kind](units=2), MODELS[kind](units=2)
    for i, (x, y) in enumerate(zip(cells["x"], cells["y"], strict=True)):
        learn(whole, x, y)
        if i >= 2:
            learn(part, x, y)
            answers = said(whole, 15.0), said(part, 15.0)
            assert answers[0] == answers[1] or kind == "classifier", i
    assert answers[0] == pytest.approx(answers[1], rel=1e-3)


@pytest.mark.filterwarnings("ignore:.*one of the first values")
def test_many_rows_copies_and_pickles_of_river_begin_anew_alike():
    cells = columns(200)
    cells["y"][0], cells["x"][1], cells["x"][30] = -1e12, 1e9, 1e9
    one, many = OnlineRegressor(units=2), OnlineRegressor(units=2)
    rows = [{"x": x} for x in cells["x"]]
    for i, (row, y) in enumerate(zip(rows, cells["y"], strict=True)):
        one.learn_one(row, y)
        one = pickle.loads(pickle.dumps(one)) if i < 4 else copy.deepcopy(one) if i < 6 else one
    many.learn_many(rows[:2], cells["y"][:2])
    many.learn_many(rows[2:], cells["y"][2:])
    # Two compiled programs: to the digits of single precision, not to the last bit on every processor.
    answer = one.predict_one({"x": 15.0})
    assert many.predict_one({"x": 15.0}) == pytest.approx(answer, rel=1e-6)
    assert answer == pytest.approx(2300, abs=10)


def test_river_says_once_by_name_what_it_does_not_believe():
    model, cells = OnlineRegressor(units=2), columns()
    cells["x"][0] = 1e9
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for x, y in zip(cells["x"][:8], cells["y"], strict=False):
            model.learn_one({"x": x}, y)
    assert [str(each.message) for each in found] == [
        "feature 'x': one of the first values is far from all others; not believed"
    ]
    assert found[0].filename == __file__


def test_a_unit_of_a_stream_is_a_value_that_is_believed():
    cells = columns()
    cells["y"][0] = 1e12
    session = taken(session_of(), cells, stop=10)
    assert isinstance(session.targets, Targets)
    assert session.targets.units["y"].origin == session.reading.encoder.units["y"].origin == cells["y"][2]
