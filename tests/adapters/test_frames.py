"""Data frames of any library: the same rows give the same models to the bit, and answers come back as they came."""
# ruff: noqa: N806

import datetime
import itertools
import math

import jax
import numpy as np
import pytest

pytest.importorskip("river")

from onward.adapters.river import OnlineClassifier, OnlineForecaster, OnlineRegressor

pytestmark = [pytest.mark.interfaces, pytest.mark.usefixtures("compile_fast")]

ROWS = 40
RNG = np.random.default_rng(0)
START = datetime.datetime(2024, 1, 1)
# In the order of their names, in which new ones get their places.
COLUMNS = {
    "a": [None if i % 7 == 3 else round(v, 3) for i, v in enumerate(RNG.normal(size=ROWS).tolist())],
    "b": RNG.integers(9, size=ROWS).tolist(),
    "c": ["ab c"[i % 4] if i % 5 else None for i in range(ROWS)],
    "d": [i % 3 == 0 for i in range(ROWS)],
    "e": [START + datetime.timedelta(hours=i) for i in range(ROWS)],
}
TARGET = [None if i % 11 == 5 else float(i % 4) for i in range(ROWS)]
LABELS = [None if i % 11 == 5 else ("low", "high")[i % 2] for i in range(ROWS)]


def dicts(columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def of_pandas(columns):
    pd = pytest.importorskip("pandas")
    return pd.DataFrame(columns, index=[f"row {i}" for i in range(len(next(iter(columns.values()))))])


def of_polars(columns):
    return pytest.importorskip("polars").DataFrame(columns)


def of_arrow(columns):
    return pytest.importorskip("pyarrow").table(columns)


FRAMES = {
    "dicts": dicts,
    "pandas": of_pandas,
    "pandas nullable": lambda columns: of_pandas(columns).convert_dtypes(),
    "pandas arrow": lambda columns: of_pandas(columns).convert_dtypes(dtype_backend="pyarrow"),
    "polars": of_polars,
    "pyarrow": of_arrow,
    "batch": lambda columns: of_arrow(columns).to_batches()[0],
    "array": lambda columns: np.array(list(zip(*columns.values(), strict=True)), object),
    "records": lambda columns: np.array(
        list(zip(*columns.values(), strict=True)), [(name, object) for name in columns]
    ),
}
LIBRARIES = ["pandas", "pandas nullable", "pandas arrow", "polars", "pyarrow"]


def column(kind, values):
    """One column as the library of a frame has it."""
    frame = FRAMES[kind]({"y": values})
    if kind in ("dicts", "array", "records"):
        return values if kind == "dicts" else np.array(values, object)
    return frame.column(0) if kind in ("pyarrow", "batch") else frame["y"]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(FRAMES, 2)))
def test_frames_of_the_same_rows_give_the_same_model(one, other):
    said = {}
    for kind, ys in ((OnlineRegressor, TARGET), (OnlineClassifier, LABELS)):
        for frame in (one, other):
            model = kind(units=4)
            rows = FRAMES[frame](COLUMNS)
            model.learn_many(rows, column(frame, ys))
            answers = model.predict_proba_many(dicts(COLUMNS)) if kind is OnlineClassifier else model.predict_many(rows)
            if frame == "array" and kind is OnlineClassifier:
                answers = model.predict_proba_many(rows)
            said[kind, frame] = [list(a.values()) if isinstance(a, dict) else float(a) for a in as_list(answers)]
            if "array" not in (one, other):
                said[kind, frame, "state"] = state(model)
    for key, answers in said.items():
        assert answers == said[(key[0], other, *key[2:])]


def state(model):
    core = model._keeper.core
    arrays = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(core.learner.packed)]
    memory = core.memory if isinstance(core.memory, dict) else (core.memory.unit.origin, core.memory.past)
    return repr(core.places.encoder.as_dict()), repr(memory), arrays


def as_list(answers):
    return answers.to_pylist() if hasattr(answers, "to_pylist") else list(answers)


def test_numbers_alone_too():
    """Where an array is one of numbers."""
    columns = {"a": RNG.normal(size=ROWS).tolist(), "b": [math.nan, *RNG.normal(size=ROWS - 1).tolist()]}
    said = set()
    for rows in [make(columns) for make in FRAMES.values()] + [np.array(list(columns.values())).T]:
        model = OnlineRegressor(units=4)
        model.learn_many(rows, np.arange(ROWS))
        said.add(tuple(as_list(model.predict_many(rows))))
    assert len(said) == 1


@pytest.mark.parametrize("kind", LIBRARIES)
def test_answers_come_back_in_the_library_of_the_rows(kind):
    rows = FRAMES[kind](COLUMNS)
    regressor, classifier = OnlineRegressor(units=4), OnlineClassifier(units=4)
    for learned in (False, True):
        if learned:
            regressor.learn_many(rows, column(kind, TARGET))
            classifier.learn_many(rows, column(kind, LABELS))
        numbers, labels, shares = (
            regressor.predict_many(rows),
            classifier.predict_many(rows),
            classifier.predict_proba_many(rows),
        )
        assert type(numbers) is type(labels) is type(column(kind, TARGET))
        assert type(shares) is type(rows)
        assert len(numbers) == len(labels) == ROWS
        if kind.startswith("pandas"):
            assert numbers.index.equals(rows.index)
            assert labels.index.equals(rows.index)
            assert shares.index.equals(rows.index)
    assert as_list(numbers) == regressor.predict_many(dicts(COLUMNS)).tolist()
    assert as_list(labels) == classifier.predict_many(dicts(COLUMNS))
    wanted = classifier.predict_proba_many(dicts(COLUMNS))
    for label in ("low", "high"):
        assert as_list(shares[label]) == [each[label] for each in wanted]


@pytest.mark.parametrize("kind", FRAMES)
def test_rows_are_counted_right(kind):
    model = OnlineRegressor(units=4)
    with pytest.raises(ValueError, match=f"as many targets as rows are needed, got {ROWS - 1} and {ROWS}"):
        model.learn_many(FRAMES[kind](COLUMNS), TARGET[:-1])
    width = len(COLUMNS)
    with pytest.raises(ValueError, match=f"got {width} and {ROWS}"):
        model.learn_many(FRAMES[kind](COLUMNS), column(kind, TARGET[:width]))


def test_forecasts_take_frames():
    model = OnlineForecaster(units=4)
    for y, x in zip(TARGET, dicts(COLUMNS), strict=True):
        model.learn_one(y, x)
    wanted = model.forecast(ROWS, dicts(COLUMNS))
    for kind in FRAMES:
        if kind != "array":
            assert model.forecast(ROWS, FRAMES[kind](COLUMNS)) == wanted


def test_what_is_no_table_of_rows_is_refused():
    model, pd, pl = OnlineRegressor(units=4), pytest.importorskip("pandas"), pytest.importorskip("polars")
    for rows in ({"a": [1.0]}, "abc", 3, [1.0], [[1.0]], np.ones(3), pl.LazyFrame({"a": [1.0]}), pd.Series([1.0])):
        for call in (lambda rows=rows: model.learn_many(rows, [1.0]), lambda rows=rows: model.predict_many(rows)):
            with pytest.raises(ValueError, match="OnlineRegressor: rows must be dicts, a data frame or an array"):
                call()
    for ys in (pd.DataFrame({"y": [1.0]}), pl.DataFrame({"y": [1.0]})):
        with pytest.raises(ValueError, match="the targets must be one column, got a DataFrame"):
            model.learn_many([{"a": 1.0}], ys)
    twice = pd.DataFrame([[1.0, 2.0]], columns=["a", "a"])
    with pytest.raises(ValueError, match=r"'a'"):
        model.learn_many(twice, [1.0])


@pytest.mark.parametrize("kind", ["pandas", "pandas nullable", "pandas arrow", "polars", "pyarrow", "list"])
def test_scikit_learn_reads_them_too(kind):
    from onward.adapters.sklearn import MixtureDensityRegressor

    columns = {"a": RNG.normal(size=ROWS).tolist(), "b": RNG.integers(9, size=ROWS).astype(float).tolist()}
    X, y = np.array(list(columns.values())).T, np.arange(ROWS) % 5.0
    quick = {"units": 4, "updates": 5, "random_state": 0}
    wanted = MixtureDensityRegressor(**quick).fit(X, y)
    frame = X.tolist() if kind == "list" else FRAMES[kind](columns)
    ys = y.tolist() if kind == "list" else column(kind, y.tolist())
    model = MixtureDensityRegressor(**quick).fit(frame, ys)
    said = model.predict(frame)
    assert type(said) is np.ndarray
    assert np.array_equal(said, wanted.predict(X))
    assert np.array_equal(model.log_prob(frame, ys), wanted.log_prob(X, y))
    if kind != "list":
        assert list(model.feature_names_in_) == ["a", "b"]
