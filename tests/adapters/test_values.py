"""Every value that a stream can hold is read by River's estimators, or told of once by name."""

import copy
import datetime
import enum
import math
import pickle
import types
import warnings
from decimal import Decimal
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("river")

from onward.adapters.river import OnlineClassifier, OnlineForecaster, OnlineRegressor
from onward.rows.places import is_unknown, value_of

pytestmark = [pytest.mark.interfaces, pytest.mark.usefixtures("compile_fast")]


class Plain(enum.Enum):
    RED = 1
    BLUE = (2, 3)


class Whole(enum.IntEnum):
    TWO = 2


class Text(enum.StrEnum):
    HI = "hi"


MOMENT = datetime.datetime(2024, 5, 6, 7, 8, 9)
SPAN = datetime.timedelta(minutes=1, seconds=30)


def arrow(value, kind=None):
    return lambda: pytest.importorskip("pyarrow").scalar(value, kind)


def pandas(make):
    return lambda: make(pytest.importorskip("pandas"))


def torchlike(value):
    """As tensors of other libraries are."""
    return types.SimpleNamespace(shape=(), item=lambda: value)


NUMBERS = [
    *[(kind(2), 2.0) for kind in (int, float, Decimal, Fraction, np.float16, np.float32, np.longdouble)],
    *[
        (kind(2), 2.0)
        for kind in (np.int8, np.int64, np.uint8, np.uint64, np.array, np.float64, jnp.int32, jnp.float32)
    ],
    *[(kind(1), 1.0) for kind in (bool, np.bool_)],
    (np.array(2.5, np.float32), 2.5),
    (np.array(Decimal("2.5"), object), 2.5),
    (np.ma.array(2.5, mask=False), 2.5),
    (jnp.asarray(2.5), 2.5),
    (jnp.asarray(2.5, jnp.bfloat16), 2.5),
    (jnp.asarray(True), 1.0),
    (torchlike(2.5), 2.5),
    (Whole.TWO, 2.0),
    (SPAN, 90.0),
    (np.timedelta64(90, "s"), 90.0),
    (np.timedelta64(90_000_000_000, "ns"), 90.0),
    (np.array(90, "m8[s]"), 90.0),
    (arrow(2.5), 2.5),
    (arrow(2), 2.0),
    (arrow(SPAN), 90.0),
    (pandas(lambda pd: pd.Timedelta(seconds=90)), 90.0),
]
TEXTS = [
    ("x", "x"),
    (np.str_("x"), "x"),
    (np.array("x"), "x"),
    (b"x", "x"),
    (np.bytes_(b"x"), "x"),
    ("é".encode(), "é"),
    (Text.HI, "hi"),
    (Plain.RED, "RED"),
    (Plain.BLUE, "BLUE"),
    (arrow("x"), "x"),
]
TIMES = [
    (MOMENT, MOMENT),
    (MOMENT.date(), MOMENT.date()),
    (np.datetime64(MOMENT), np.datetime64(MOMENT)),
    (np.array(MOMENT, "M8[ns]"), np.datetime64(MOMENT)),
    (arrow(MOMENT), MOMENT),
    (pandas(lambda pd: pd.Timestamp(MOMENT)), MOMENT),
]
UNKNOWN = [
    *[None, math.nan, np.float32("nan"), np.array(math.nan), jnp.asarray(math.nan), Decimal("NaN"), Decimal("sNaN")],
    *[np.datetime64("NaT"), np.timedelta64("NaT"), np.ma.masked, np.ma.array(1.0, mask=True), np.array(None)],
    *[arrow(None), pandas(lambda pd: pd.NA), pandas(lambda pd: pd.NaT), torchlike(math.nan)],
]
UNREAD = [
    *[
        [1.0],
        (1, 2),
        {"a": 1},
        {1},
        np.ones(2),
        np.ones((1, 1)),
        jnp.ones(1),
        1j,
        np.complex64(1j),
        np.array(1j),
        object(),
    ],
    *[
        b"\xff",
        datetime.time(1),
        range(3),
        print,
        jnp.asarray(1j),
        np.array((1, 2), "i,i"),
        np.ma.array([1.0], mask=[True]),
    ],
    *[
        arrow([1.0]),
        pandas(lambda pd: pd.Series([1.0])),
        pandas(lambda pd: pd.Period("2024")),
        pandas(lambda pd: pd.DataFrame()),
    ],
]


def given(value):
    return value() if isinstance(value, types.FunctionType) else value


def named(value):
    """Without addresses: every worker collects the same."""
    return type(value).__name__ if " at 0x" in repr(value) else " ".join(repr(value).split())[:40]


@pytest.mark.parametrize(("value", "wanted"), [*NUMBERS, *TEXTS, *TIMES], ids=named)
def test_what_a_value_says(value, wanted):
    said = value_of(given(value))
    assert said == wanted
    assert isinstance(said, type(wanted))
    assert not is_unknown(given(value)) or isinstance(value, np.ndarray)


@pytest.mark.parametrize("value", UNKNOWN, ids=named)
def test_what_is_unknown_is_missing_everywhere(value):
    """Silently, as a feature of any kind and as a target, in first rows and later."""
    value = given(value)
    for first in (value, 1.0, "x", MOMENT):
        one, other = OnlineRegressor(units=4), OnlineRegressor(units=4)
        for model, x in ((one, {"a": value}), (other, {})):
            model.learn_one({"a": first, "b": 1.0}, 1.0)
            model.learn_one(x | {"b": 2.0}, 2.0)
        assert one.predict_one({"a": value, "b": 1.0}) == other.predict_one({"b": 1.0})
        assert pickle.dumps(one) == pickle.dumps(other)
    for kind in (OnlineRegressor, OnlineClassifier, OnlineForecaster):
        for targets in ((value, 1.0, value, 2.0), (1.0, value)):
            one, other = kind(units=4), kind(units=4)
            for y in targets:
                for model, target in ((one, y), (other, None if y is value else y)):
                    model.learn_one(target, {"a": 1.0}) if kind is OnlineForecaster else model.learn_one(
                        {"a": 1.0}, target
                    )
            assert pickle.dumps(one) == pickle.dumps(other)


def learned(values, target=1.0):
    model = OnlineRegressor(units=4)
    for i, value in enumerate(values):
        model.learn_one({"a": value, "b": float(i)}, target)
    return pickle.dumps(model)


def test_kinds_of_one_number_are_one_number():
    wanted = {number: learned([number, 1.0, number]) for number in (1.0, 2.0, 2.5, 90.0)}
    for value, number in NUMBERS:
        assert learned([given(value), 1.0, given(value)]) == wanted[number]
        assert learned([number, 1.0, given(value)]) == wanted[number]


def test_kinds_of_one_text_are_one_category():
    wanted = {text: learned([text, "other", text]) for _, text in TEXTS}
    for value, text in TEXTS:
        assert learned([given(value), "other", given(value)]) == wanted[text]


def test_kinds_of_one_time_are_one_time():
    wanted = {repr(time): learned([time, MOMENT, time]) for _, time in TIMES}
    for value, time in TIMES:
        assert learned([given(value), MOMENT, given(value)]) == wanted[repr(time)]


@pytest.mark.parametrize("value", UNREAD, ids=named)
@pytest.mark.parametrize("first", [None, 1.0, "x", MOMENT], ids=repr)
def test_what_is_not_read_is_told_once_by_name(value, first):
    value, model, silent = given(value), OnlineRegressor(units=4), OnlineRegressor(units=4)
    for each in (model, silent):
        each.learn_one({"some feature": first, "b": 0.0}, 1.0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.predict_one({"some feature": value, "b": 1.0})
        for i in range(3):
            model.learn_one({"some feature": value, "b": float(i)}, 1.0)
            silent.learn_one({"b": float(i)}, 1.0)
        model.predict_many([{"some feature": value}])
        model.learn_many([{"some feature": value, "b": 3.0}], [1.0])
        silent.learn_many([{"b": 3.0}], [1.0])
    assert len(told) == 1
    assert str(told[0].message).startswith("feature 'some feature' holds a ")
    assert str(told[0].message).endswith(", which is no number, text or time; it counts as missing")
    assert told[0].filename == __file__
    assert pickle.dumps(model) == pickle.dumps(silent)


@pytest.mark.parametrize("first", [1.0, "x", MOMENT], ids=repr)
@pytest.mark.parametrize("value", [2.0, 3, "y", MOMENT, SPAN], ids=repr)
def test_what_contradicts_its_kind_is_told_once(first, value):
    model = OnlineRegressor(units=4)
    model.learn_one({"a": first}, 1.0)
    same = isinstance(value_of(value), type(first))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            model.learn_one({"a": value}, 1.0)
    assert len(told) == (not same)
    if not same:
        assert "feature 'a' held " in str(told[0].message)
        assert told[0].filename == __file__


def test_every_feature_is_told_of_for_itself_and_of_every_model():
    model = OnlineForecaster(units=4)
    other = copy.deepcopy(model)
    for each in (model, other):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            each.learn_one(1.0, {"a": [1], "b": [1], 3: [1]})
            each.forecast(2, [{"a": [1]}, {"c": [1]}])
            each.learn_one(1.0, {"a": [1], "c": [1]})
        said = [str(warning.message).split(" holds")[0] for warning in told]
        assert sorted(said) == ["feature 'a'", "feature 'b'", "feature 'c'", "feature 3"]


@pytest.mark.parametrize(
    "value", [2, np.array(2.0), jnp.asarray(2.0), Decimal(2), Fraction(2), Whole.TWO, arrow(2)], ids=named
)
def test_targets_of_any_kind_of_number(value):
    value = given(value)
    for kind in (OnlineRegressor, OnlineForecaster):
        one, other = kind(units=4), kind(units=4)
        for model, y in ((one, value), (other, 2.0)):
            for target in (1.0, y, 1.0):
                model.learn_one(target, {"a": 1.0}) if kind is OnlineForecaster else model.learn_one({"a": 1.0}, target)
        assert pickle.dumps(one) == pickle.dumps(other)
    classifier = OnlineClassifier(units=4)
    classifier.learn_one({"a": 1.0}, value)
    assert classifier.predict_one({"a": 1.0}) == 2


def test_what_is_no_target_is_refused():
    for y in (SPAN, MOMENT, b"1", [1.0], 1j, np.ones(2), Plain.RED):
        for model in (OnlineRegressor(units=4), OnlineForecaster(units=4)):
            with pytest.raises(ValueError, match="the target must be a number, got"):
                model.learn_one(*(({"a": 1.0}, y) if isinstance(model, OnlineRegressor) else (y, {"a": 1.0})))


def learn_all(model, rows):
    for x, y in rows:
        model.learn_one(x, y)


FIRST = ["unavailable", "n/a", "ERR", "N/A", "Sensor offline", None, "red"]


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("as_text", [False, True])
def test_a_first_value_that_is_no_number_spoils_no_column_of_numbers(first, as_text):
    """What was learned before it turned out is little: then it is the stream without that value."""
    rng, errors = np.random.default_rng(0), {}
    values = rng.normal(size=200).tolist()
    for start in (values[0], first):
        model, errors[start] = OnlineRegressor(units=2, autoregressive=False), []
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for i, a in enumerate(values):
                x = {"a": start if i == 0 else str(a) if as_text else a, "b": "left" if i % 2 else "right"}
                y = 10 + 3 * a
                errors[start].append(abs(model.predict_one(x) - y))
                model.learn_one(x, y)
        if start in ("Sensor offline", "red"):
            assert [str(w.message) for w in told] == [
                f"feature 'a' held categories before and holds {'text' if as_text else 'a number'} now; it counts as missing",
                "feature 'a' was read as categories, by its first values, and what follows is numbers: it is read as "
                "that from here on",
            ]
        else:
            assert not told
    # Who says the mean is 2.4 away.
    assert max(np.mean(each[100:]) for each in errors.values()) < 0.1


def test_a_feature_of_numbers_that_becomes_one_of_words_is_one():
    model = OnlineRegressor(units=2, autoregressive=False)
    rows = [({"code": 7 if i == 0 else f"k{i % 2}"}, float(i % 2)) for i in range(40)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        learn_all(model, rows)
    assert "held numbers before and holds text now" in str(told[0].message)
    assert "was read as numbers, by its first values, and what follows is categories" in str(told[1].message)
    again = pickle.loads(pickle.dumps(model))
    for one in (model, again):
        assert abs(one.predict_one({"code": "k1"}) - one.predict_one({"code": "k0"})) > 0.3


@pytest.mark.parametrize("write", ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%d.%m.%Y %H:%M", "%m/%d/%Y"])
def test_times_as_text_are_told_once_by_name(write):
    model, silent = (OnlineRegressor(units=2) for _ in range(2))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for i in range(5):
            text = datetime.datetime(2025, 3, 13 + i, 10).strftime(write)
            for x in ({"a": float(i), "when": text}, {"when": text}):
                assert model.predict_one(x) == silent.predict_one({k: v for k, v in x.items() if k == "a"})
            model.learn_one({"a": float(i), "when": text}, 1.0 * i)
            silent.learn_one({"a": float(i)}, 1.0 * i)
    first = datetime.datetime(2025, 3, 13, 10).strftime(write)
    assert [str(w.message) for w in told] == [
        f"feature 'when' holds times as text, such as {first!r}, which are not read: give it as a datetime, as "
        "datetime.fromisoformat or datetime.strptime make one"
    ]
    assert told[0].filename == __file__


@pytest.mark.parametrize(
    ("later", "kind"), [(lambda i: ("on", "off")[i % 2], "category"), (lambda i: f"{i % 2}.5", "number")]
)
def test_times_as_text_that_were_none_are_read_anew(later, kind):
    model = OnlineRegressor(units=2, autoregressive=False)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        learn_all(model, [({"a": "2025-03-01" if i < 2 else later(i)}, float(i % 2)) for i in range(60)])
    assert "was read as times, by its first values, and what follows is" in str(told[-1].message)
    assert model._keeper.core.places.encoder.columns["a"].kind == kind
    assert abs(model.predict_one({"a": later(1)}) - model.predict_one({"a": later(0)})) > 0.3


def test_odd_values_now_and_then_revise_nothing():
    model = OnlineRegressor(units=2, autoregressive=False)
    with pytest.warns(UserWarning, match="held numbers before and holds text now"):
        learn_all(model, [({"a": "oops" if i % 5 == 3 else i % 7}, float(i % 7)) for i in range(1100)])
    places = model._keeper.core.places
    assert (places.encoder.columns["a"].kind, list(places.encoder.fits)) == ("number", [])
