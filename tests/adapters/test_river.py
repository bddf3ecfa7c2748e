"""The River estimators: River's own checks, purity, odd rows, and what is learned."""

import copy
import datetime
import importlib
import io
import math
import pickle
import random
import re
import sys
from contextlib import nullcontext

import jax
import numpy as np
import pytest

pytest.importorskip("river")

from river import checks, datasets, linear_model, preprocessing

from damage import DAMAGE
from onward.adapters.river import OnlineClassifier, OnlineForecaster, OnlineRegressor
from onward.errors import NotFinite
from onward.rows import encoder
from onward.rows.stream import RowLearner
from onward.saving import Unreadable

pytestmark = [pytest.mark.interfaces, pytest.mark.usefixtures("compile_fast")]

KINDS = (OnlineRegressor, OnlineClassifier, OnlineForecaster)
ALL = pytest.mark.parametrize("kind", KINDS)
MIXED, SPREAD = {"experts": True}, {"intervals": True}
MIXING = [(OnlineRegressor, MIXED), (OnlineClassifier, MIXED), (OnlineRegressor, SPREAD)]
EVERY = pytest.mark.parametrize(("kind", "more"), [*((kind, {}) for kind in KINDS), *MIXING])


def river_checks():
    for kind, more in [*((kind, {}) for kind in KINDS), *MIXING]:
        for number, check in enumerate(checks.yield_checks(kind(units=4, **more))):
            name = getattr(check, "__name__", None) or check.func.__name__
            of = "".join(f"-{each}" for each in more)
            yield pytest.param(kind, more, number, id=f"{kind.__name__}{of}-{number}-{name}")


@pytest.mark.filterwarnings("ignore:.*one of the first values is far from all others")
@pytest.mark.parametrize(("kind", "more", "number"), list(river_checks()))
def test_river_checks(kind, more, number):
    """The features that a check drops are drawn; those of its data whose values are heavy-tailed are told of."""
    random.seed(number)
    model = kind(units=4, **more)
    assert not model._unit_test_skips()
    # The data that a check holds are read once: a fresh one.
    check = next(check for i, check in enumerate(checks.yield_checks(model)) if i == number)
    check(model.clone())


@pytest.mark.parametrize(("kind", "count"), list(zip(KINDS, (25, 53, 16), strict=True)))
def test_river_asks_as_much_as_expected(kind, count):
    assert len(list(checks.yield_checks(kind(units=4)))) >= count


# Rows


def rows_of(n=60, seed=0, labels=None):
    rng = np.random.default_rng(seed)
    rows = [
        {"a": float(rng.normal()), "b": int(rng.integers(9)), "c": "xyz"[rng.integers(3)], "d": bool(rng.integers(2))}
        for _ in range(n)
    ]
    y = [r["a"] + (r["c"] == "x") + 3.0 for r in rows]
    return rows, y if labels is None else [labels[int(v > 3) + int(v > 4)] for v in y]


def made(kind, rows=60, **parameters):
    """A model that has learned, and the data."""
    xs, ys = rows_of(rows, labels=("low", "middle", "high") if kind is OnlineClassifier else None)
    model = kind(**{"units": 4} | parameters)
    learn_all(model, xs, ys)
    return model, xs, ys


def ask(model, x):
    if isinstance(model, OnlineForecaster):
        return model.forecast(3, [x, x, {}])
    return model.predict_proba_one(x) if isinstance(model, OnlineClassifier) else model.predict_one(x)


def learn(model, x, y):
    model.learn_one(y, x) if isinstance(model, OnlineForecaster) else model.learn_one(x, y)


def learn_all(model, xs, ys):
    for x, y in zip(xs, ys, strict=True):
        learn(model, x, y)


@EVERY
@pytest.mark.filterwarnings("ignore:feature")
def test_asking_changes_nothing_bit_for_bit(kind, more):
    asked, xs, ys = made(kind, **more)
    silent = copy.deepcopy(asked)
    before = pickle.dumps(asked)
    odd = {"new": 3.0, "a": math.inf, "c": "never seen", "when": datetime.datetime(2026, 1, 1)}
    for x in [*xs[:5], odd, {}]:
        ask(asked, x)
        if kind is OnlineRegressor:
            asked.predict_many([x, x])
        if kind is OnlineClassifier:
            asked.predict_one(x), asked.predict_many([x, x])
    assert pickle.dumps(asked) == before
    for x, y in zip(xs[:5], ys[:5], strict=True):
        ask(asked, odd)
        learn(asked, x, y)
        learn(silent, x, y)
    assert pickle.dumps(asked) == pickle.dumps(silent)


@EVERY
def test_a_pickle_and_a_copy_go_on_as_the_original(kind, more):
    model, xs, ys = made(kind, **more)
    others = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model), model.clone(include_attributes=True)]
    answer = ask(model, xs[0])
    for other in others:
        learn_all(other, xs[:5], ys[:5])
    assert ask(model, xs[0]) == answer
    learn_all(model, xs[:5], ys[:5])
    for other in others:
        assert ask(other, xs[7]) == ask(model, xs[7]) != answer


class Altered(pickle.Pickler):
    """Writes another state of what learns from rows, where there is one."""

    def __init__(self, file, change):
        super().__init__(file)
        self.change = change

    def reducer_override(self, part):
        if isinstance(part, RowLearner):
            again, saved = part.__reduce__()
            return again, self.change(*saved)
        return NotImplemented


@ALL
def test_a_pickle_that_was_changed_is_refused_by_name(kind):
    model, xs, _ = made(kind)
    answer, before = ask(model, xs[0]), pickle.dumps(model)
    name = "learned.model.cell.cell.bias"
    changes = {
        said.format(re.escape(name)): lambda arrays, meta, c=change: (c(arrays, name), meta)
        for change, said in DAMAGE.values()
    }
    changes["has format 9, this version of onward reads format"] = lambda arrays, meta: (arrays, meta | {"format": 9})
    changes["was written by onward 0.1"] = lambda arrays, meta: ({"floats": np.zeros(9)}, meta)
    for said, change in changes.items():
        file = io.BytesIO()
        Altered(file, change).dump(model)
        with pytest.raises(Unreadable, match="the pickle of a learner of rows:? " + said):
            pickle.loads(file.getvalue())
    assert ask(model, xs[0]) == answer
    assert pickle.dumps(model) == before


@ALL
def test_before_any_target_nothing_is_known(kind):
    model = kind(units=4)
    nothing = {OnlineRegressor: 0.0, OnlineClassifier: {}, OnlineForecaster: [0.0] * 3}[kind]
    assert ask(model, {"a": 1.0}) == nothing
    learn(model, {"a": 1.0}, None)
    assert ask(model, {"a": 1.0}) == nothing
    if kind is OnlineClassifier:
        assert model.predict_one({"a": 1.0}) is None
        assert model.predict_many([{"a": 1.0}]) == [None]
    if kind is OnlineRegressor:
        assert model.predict_many([{"a": 1.0}]).tolist() == [0.0]


class Frame:
    """As much of a data frame as is asked for."""

    def __init__(self, rows):
        self.rows = rows

    def to_dict(self, how):
        assert how == "records"
        return self.rows


@pytest.mark.parametrize(("kind", "more"), [(OnlineRegressor, {}), (OnlineClassifier, {}), *MIXING])
def test_many_rows_are_learned_and_answered_as_one_by_one(kind, more):
    one, xs, ys = made(kind, 300)
    xs[200] |= {"late": 1.0}  # one more feature
    ys[210] = None
    ys[250] = "a fourth class" if kind is OnlineClassifier else 3.0
    one, many, chunks = (kind(units=4, **more) for _ in range(3))
    learn_all(one, xs, ys)
    many.learn_many(Frame(xs), np.array(ys, object))
    for i in range(0, 300, 50):
        chunks.learn_many(xs[i : i + 50], iter(ys[i : i + 50]))
    asked = [ask(one, x) for x in xs[:5]]
    for other in (many, chunks):
        answers = other.predict_proba_many(xs[:5]) if kind is OnlineClassifier else other.predict_many(Frame(xs[:5]))
        for a, b in zip(answers, asked, strict=True):
            assert a == pytest.approx(b, rel=1e-3, abs=1e-3)
    if kind is OnlineClassifier:
        assert one.predict_many(xs[:5]) == [one.predict_one(x) for x in xs[:5]]
        assert set(asked[0]) == {"low", "middle", "high", "a fourth class"}
    many.learn_many([], [])
    assert len(many.predict_many([])) == 0
    with pytest.raises(ValueError, match="as many targets as rows are needed, got 1 and 2"):
        many.learn_many(xs[:2], ys[:1])


UNUSABLE = [math.nan, math.inf, -math.inf, 1e300, -1e300, 10**400, None, "word", 1j, [1.0], np.ones(2), {}]
UNKNOWN = (None, math.nan)


@pytest.mark.parametrize("value", UNUSABLE, ids=lambda value: repr(value)[:20])
def test_an_unusable_number_counts_as_missing(value):
    model, xs, ys = made(OnlineRegressor)
    other = copy.deepcopy(model)
    without = {k: v for k, v in xs[0].items() if k != "a"}
    with (
        nullcontext()
        if any(value is each for each in UNKNOWN)
        else pytest.warns(UserWarning, match="feature 'a'.* counts as missing")
    ):
        assert model.predict_one(without | {"a": value}) == model.predict_one(without)
    model.learn_one(without | {"a": value}, ys[0])  # told once
    other.learn_one(without, ys[0])
    if isinstance(value, str):  # it is counted: the feature may turn out to be one of words
        assert model._keeper.core.places.encoder.fits["a"][2] == 1
        assert [model.predict_one(x) for x in xs] == [other.predict_one(x) for x in xs]
    else:
        assert pickle.dumps(model) == pickle.dumps(other)


@ALL
@pytest.mark.filterwarnings("ignore:feature")
def test_rows_of_unusable_values_are_learned_from(kind):
    model = kind(units=4)
    target = 1.0
    for i, value in enumerate(UNUSABLE):
        learn(model, {"a": value, "b": i, 3: value, (1, "x"): 2.0}, target)
    assert (
        model._keeper.core.places.names.keys() >= {"a", "b", (1, "x")}
        if "a" in model._keeper.core.places.names
        else True
    )
    assert ask(model, {"b": 1, "a": 5.0})


@pytest.mark.parametrize("y", [None, math.nan, math.inf, 1e300])
def test_a_row_without_a_target_is_read_and_not_learned_from(y):
    for kind in KINDS:
        if kind is OnlineClassifier and y not in (None, math.nan):
            continue
        model, xs, _ = made(kind)
        answer, network = ask(model, xs[3]), lambda of: of.programs.packing.on_host(of.packed).learned.model
        before = network(model._keeper.core.learner)
        with pytest.warns(UserWarning, match="a target is infinite") if y in (math.inf, 1e300) else nullcontext():
            learn(model, xs[0], y)
        after = network(model._keeper.core.learner)
        assert all(map(np.array_equal, jax.tree.leaves(before)[:3], jax.tree.leaves(after)[:3]))
        assert ask(model, xs[3]) != answer


def test_what_is_no_number_is_no_target():
    for y in ("ten", "10", [1.0], 1j):
        for model in (OnlineRegressor(units=4), OnlineForecaster(units=4)):
            with pytest.raises(ValueError, match=re.escape(f"the target must be a number, got {y!r}")):
                learn(model, {"a": 1.0}, y)
    model, xs, _ = made(OnlineRegressor)
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match="the target must be a number, got 'ten'"):
        model.learn_many(xs[:2], [1.0, "ten"])
    assert pickle.dumps(model) == before


def test_labels_come_back_as_they_were_given():
    for labels in ((True, False), (np.bool_(True), np.bool_(False)), (3, 7, 11), ("a", "b"), ((1, 2), "x")):
        model = OnlineClassifier(units=4)
        for i in range(12):
            model.learn_one({"a": i % len(labels)}, labels[i % len(labels)])
        shares = model.predict_proba_one({"a": 0})
        assert list(shares) == list(labels)
        assert {type(label) for label in shares} == {type(label) for label in labels}
        assert sum(shares.values()) == pytest.approx(1)
        assert model.predict_one({"a": 0}) in labels


def test_more_classes_leave_what_was_learned():
    model = OnlineClassifier(units=4)
    for i in range(400):
        model.learn_one({"a": float(i % 4)}, i % 4)
    before = [model.predict_proba_one({"a": float(i)}) for i in range(4)]
    assert model._keeper.core.learner.classes == 4
    wider = copy.deepcopy(model)
    wider._keeper.core = wider._keeper.core.with_classes(5)
    for i in range(4):
        assert wider.predict_proba_one({"a": float(i)}) == pytest.approx(before[i], rel=1e-4)
    model.learn_one({"a": 0.0}, 4)
    assert model._keeper.core.learner.classes == 8
    assert set(model.predict_proba_one({"a": 0.0})) == {0, 1, 2, 3, 4}


def test_text_is_a_category_and_a_date_has_seasons():
    model = OnlineRegressor(units=4, autoregressive=False)
    start = datetime.datetime(2020, 1, 1)
    for i in range(400):
        when = start + datetime.timedelta(days=i)
        model.learn_one({"zip": ["k12", "k7", "k100"][i % 3], "when": when}, [5.0, 1.0, -3.0][i % 3])
    assert set(model._keeper.core.places.encoder.vocabulary["zip"]) == {"k12", "k7", "k100"}
    assert {"when year sine", "when day cosine"} <= set(model._keeper.core.places.encoder.slots)
    for text, y in (("k12", 5.0), ("k7", 1.0), ("k100", -3.0)):
        assert model.predict_one({"zip": text, "when": np.datetime64("2021-02-04")}) == pytest.approx(y, abs=0.5)


def test_features_without_end_take_no_room_without_end(monkeypatch):
    monkeypatch.setattr(encoder, "MOST_SLOTS", 16)
    model = OnlineRegressor(units=4)
    rows = [{f"{i} {j}": 1.0 for j in range(5)} for i in range(30)]
    with pytest.warns(UserWarning, match="more than 16 numbers and categories: .* later ones are not read") as told:
        model.learn_many(rows, [1.0] * 30)
    assert len(told) == 1
    learn_all(model, rows, [1.0] * 30)
    assert model._keeper.core.places.encoder.full
    assert model._keeper.core.learner.capacity == 16
    assert len(model._keeper.core.places.names) <= 16
    assert math.isfinite(model.predict_one({"0 1": 1.0, "another": 2.0}))


@ALL
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        *[({name: 0}, f"{name} must be a whole number of at least 1, got 0") for name in ("units", "stages")],
        ({"units": 2.0}, "units must be a whole number of at least 1, got 2.0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"network": "rnn"}, "network must be one of columnar, ccn, gru, lstm, got 'rnn'"),
        ({"network": "gru", "rule": "bptt"}, "rule must be one of exact, snap-1, rflo, uoro, tbptt-10, got 'bptt'"),
        ({"rule": "uoro"}, "rule 'uoro': columns learn exactly; other rules need network gru or lstm"),
        ({"network": "ccn", "units": 5}, "stages must divide units, got 2 and 5"),
        *[({"step_size": bad}, "step_size must be a positive, finite number") for bad in (-1, 0, math.inf, "1")],
    ],
)
def test_a_bad_parameter_is_named_when_the_first_row_comes(kind, parameters, message):
    model = kind(**parameters)
    with pytest.raises(ValueError, match=re.escape(f"{kind.__name__}: {message}")):
        learn(model, {"a": 1.0}, 1.0)


@pytest.mark.parametrize("kind", [OnlineRegressor, OnlineClassifier])
def test_experts_are_a_yes_or_no(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__}: experts must be True or False, got 'trees'"):
        learn(kind(experts="trees"), {"a": 1.0}, 1.0)


def test_other_bad_arguments_are_named():
    model, xs, _ = made(OnlineForecaster)
    for horizon in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="horizon must be a whole number of at least 1, got"):
            model.forecast(horizon)
    with pytest.raises(ValueError, match="xs must hold the features of 3 rows, got 2"):
        model.forecast(3, xs[:2])
    assert len(model.forecast(40)) == 40


@ALL
def test_a_network_that_diverged_says_so(kind):
    model, xs, _ = made(kind)
    learner = model._keeper.core.learner
    broken = learner.packed._replace(floats=learner.packed.floats * math.nan)
    model._keeper.core = model._keeper.core._replace(learner=learner._replace(state=broken))
    with pytest.raises(NotFinite, match=f"{kind.__name__}: learning diverged with step_size=None; lower it"):
        ask(model, xs[0])


def test_every_network_and_stage_learns():
    xs, ys = rows_of(30)
    staged = OnlineRegressor(units=4, network="ccn", stage_rows=20)
    other = OnlineRegressor(units=3, network="lstm", rule="rflo")
    for model in (staged, other):
        learn_all(model, xs, ys)
        assert model.predict_one(xs[0]) == pytest.approx(np.mean(ys), abs=2)
    assert staged._keeper.core.learner.stage == 2


@ALL
def test_equal_models_learn_the_same(kind):
    """A new category comes while the row before may still be computed."""
    answers = set()
    for _ in range(12):
        model, xs, _ = made(kind, 40)
        again = pickle.loads(pickle.dumps(model))
        for each in (model, again):
            learn(each, xs[0], "low" if kind is OnlineClassifier else 1.0)
            answers.add(repr(ask(each, xs[1])))
    assert len(answers) == 1


# What is learned


def progressive(model, data):
    """Predictions, each made before its row is learned."""
    said = []
    for x, y in data:
        said.append(model.predict_one(x))
        model.learn_one(x, y)
    return said


def linear():
    return preprocessing.StandardScaler() | linear_model.LinearRegression()


def errors(model, data):
    return np.abs(np.array(progressive(model, data)) - [y for _, y in data])


def from_three_rows_ago(rows, smooth, seed=0):
    """y(t) = 2 x(t - 3) + noise, of a series whose neighbours are alike, or nothing to each other."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    for t in range(1, rows):
        x[t] = smooth * x[t - 1] + math.sqrt(1 - smooth**2) * x[t]
    y = 2 * np.roll(x, 3) + 0.05 * rng.normal(size=rows)
    return [({"x": a}, float(b)) for a, b in zip(x, y, strict=True)]


def test_it_remembers_what_a_linear_model_cannot_see():
    smooth, white = from_three_rows_ago(2000, 0.8), from_three_rows_ago(2000, 0.0)
    plain = {"autoregressive": False}
    assert errors(OnlineRegressor(**plain), smooth)[-1000:].mean() < 0.7 * errors(linear(), smooth)[-1000:].mean()
    gru = OnlineRegressor(network="gru", units=12, **plain)
    assert errors(gru, white)[-1000:].mean() < 0.6 * errors(linear(), white)[-1000:].mean()


def test_it_beats_linear_regression_on_trump_approval():
    data = list(datasets.TrumpApproval())
    assert errors(OnlineRegressor(), data).mean() < 0.3 * errors(linear(), data).mean()


def test_it_classifies_phishing_sites():
    data = list(datasets.Phishing())
    for more, least in (({}, 0.88), (MIXED, 0.905)):
        said = progressive(OnlineClassifier(**more), data)
        assert np.mean([a == y for a, (_, y) in zip(said, data, strict=True)]) > least


def test_it_forecasts_a_year_of_passengers_better_than_the_last_value():
    data, model = list(datasets.AirlinePassengers()), OnlineForecaster()
    own, last = [], []
    for i, (x, y) in enumerate(data):
        ahead = data[i : i + 12]
        if i >= 24 and len(ahead) == 12:
            truth = np.array([value for _, value in ahead])
            own.append(np.abs(model.forecast(12, [features for features, _ in ahead]) - truth).mean())
            last.append(np.abs(data[i - 1][1] - truth).mean())
        model.learn_one(y, x)
    assert np.mean(own) < 0.7 * np.mean(last)


def test_without_river_it_says_what_to_install(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "river"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "onward.adapters.river")
    with pytest.raises(ImportError, match=re.escape('onward.adapters.river needs river: pip install "onward[river]"')):
        importlib.import_module("onward.adapters.river")
