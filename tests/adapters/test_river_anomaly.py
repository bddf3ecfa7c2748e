"""Anomaly detectors, intervals and quantiles with River's interface: its checks, what they say of calm rows, purity."""

import copy
import math
import pickle
import random

import numpy as np
import pytest

pytest.importorskip("river")

from river import checks, datasets

from onward.adapters.river import OnlineRegressor
from onward.adapters.river_anomaly import OnlineAnomalyDetector, OnlineTargetAnomalyDetector
from onward.rows.rarity import Rarity, together
from onward.saving import Unreadable

pytestmark = [pytest.mark.interfaces, pytest.mark.usefixtures("compile_fast")]

KINDS = (OnlineAnomalyDetector, OnlineTargetAnomalyDetector)
ALL = pytest.mark.parametrize("kind", KINDS)
SMALL = {"units": 4, "experts": False}


class Cards(datasets.CreditCard):
    """Columns as those of River's data set of card payments, which would be downloaded; one payment in fifty is odd."""

    is_downloaded = True

    def _iter(self):
        rng = np.random.default_rng(0)
        for i in range(3000):
            odd = rng.random() < 0.02
            x = {f"V{j}": float(rng.normal() * (4 if odd and j < 5 else 1)) for j in range(1, 29)}
            yield {"Time": float(i // 2)} | x | {"Amount": float(np.exp(3 + rng.normal()))}, int(odd)


@pytest.fixture(autouse=True)
def cards(monkeypatch):
    monkeypatch.setattr(datasets, "CreditCard", Cards)


def river_checks():
    for kind in KINDS:
        for number, check in enumerate(checks.yield_checks(kind(**SMALL))):
            name = getattr(check, "__name__", None) or check.func.__name__
            yield pytest.param(kind, number, id=f"{kind.__name__}-{number}-{name}")


@pytest.mark.filterwarnings("ignore:.*one of the first values is far from all others")
@pytest.mark.parametrize(("kind", "number"), list(river_checks()))
def test_river_checks(kind, number):
    random.seed(number)
    model = kind(**SMALL)
    assert not model._unit_test_skips()
    check = next(check for i, check in enumerate(checks.yield_checks(model)) if i == number)
    check(model.clone())


@pytest.mark.parametrize(("kind", "count"), list(zip(KINDS, (14, 14), strict=True)))
def test_river_asks_as_much_as_expected(kind, count):
    assert len(list(checks.yield_checks(kind(**SMALL)))) >= count


def rows_of(n, seed=0):
    """A wave with noise, another number that follows it, and one that is noise."""
    rng = np.random.default_rng(seed)
    wave = 10 + 3 * np.sin(np.arange(n) / 4)
    a, b, c = wave + 0.2 * rng.normal(size=n), 100 - 5 * wave + rng.normal(size=n), rng.standard_t(3, n)
    return [{"a": float(a[i]), "b": float(b[i]), "c": float(c[i]), "kind": "xy"[i % 2]} for i in range(n)]


def score(model, x):
    return model.score_one(x) if isinstance(model, OnlineAnomalyDetector) else model.score_one(x, x["a"])


def learn(model, x):
    model.learn_one(x) if isinstance(model, OnlineAnomalyDetector) else model.learn_one(x, x["a"])


def scores(model, rows):
    found = []
    for x in rows:
        found.append(score(model, x))
        learn(model, x)
    return np.array(found)


@pytest.mark.parametrize(("kind", "more"), [(kind, {"experts": said}) for kind in KINDS for said in (False, True)])
def test_of_calm_rows_a_share_p_is_as_odd(kind, more):
    """And a row that is far off in one number is among the oddest, whichever number it is."""
    rows = rows_of(4000)
    model = kind(units=4, **more)
    found = scores(model, rows)
    late = found[2000:]
    assert ((found >= 0) & (found < 1)).all()
    assert np.mean(late > 0.9) == pytest.approx(0.1, abs=0.06)
    assert np.mean(late > 0.99) < 0.02
    assert np.mean(late > 0.999) < 0.007
    for name, off in (("a", 4.0), ("b", 20.0), ("c", 300.0))[: 3 if kind is OnlineAnomalyDetector else 1]:
        assert score(model, rows_of(4001)[-1] | {name: rows[-1][name] + off}) > 0.995


@ALL
@pytest.mark.filterwarnings("ignore:feature")
def test_asking_changes_nothing_and_copies_go_on_as_the_original(kind):
    rows = rows_of(60)
    model = kind(**SMALL)
    for x in rows[:40]:
        learn(model, x)
    before = pickle.dumps(model)
    others = [pickle.loads(before), copy.deepcopy(model), model.clone(include_attributes=True)]
    for x in (*rows[40:], rows[3] | {"a": 1e9}, rows[3] | {"kind": "new", "more": 3.0}):
        score(model, x)
    assert pickle.dumps(model) == before
    found = scores(model, rows[40:])
    for other in others:
        assert scores(other, rows[40:]).tolist() == found.tolist()
    assert pickle.dumps(model) != before


@ALL
def test_nothing_is_said_where_nothing_is_known(kind):
    model = kind(**SMALL)
    rows = rows_of(40)
    assert score(model, rows[0]) == 0
    learn(model, rows[0])
    if kind is OnlineAnomalyDetector:
        assert [score(model, x) for x in rows[1:9]] == [0.0] * 8
    for x in rows[1:]:
        learn(model, x)
    assert score(model, {"a": math.nan, "b": None, "c": math.nan, "kind": "x"}) == 0
    learn(model, {"a": math.nan, "kind": "x"})
    assert 0 <= score(model, rows[0]) < 1


@pytest.mark.filterwarnings("ignore:feature")
def test_rows_without_numbers_are_read_and_not_judged():
    model = OnlineAnomalyDetector(**SMALL)
    for i in range(30):
        model.learn_one({"kind": "ab"[i % 2]})
    assert model.score_one({"kind": "c"}) == 0
    for i in range(30):
        model.learn_one({"kind": "ab"[i % 2], "late": float(i)})
    assert 0 <= model.score_one({"kind": "a", "late": 1e6}) <= 1


def test_what_is_no_number_is_no_target():
    model = OnlineTargetAnomalyDetector(**SMALL)
    for ask in (model.learn_one, model.score_one):
        with pytest.raises(ValueError, match="the target must be a number, got 'ten'"):
            ask({"a": 1.0}, "ten")


@ALL
def test_a_pickle_of_scores_that_cannot_be_is_refused(kind):
    again, (calibrations, shifts) = Rarity(2).__reduce__()
    assert isinstance(again(calibrations, shifts), Rarity)
    for wrong in (
        (calibrations[:1], shifts),
        ([each | {"seen": -1} for each in calibrations], shifts),
        (calibrations, [each | {"evidence": [math.nan] * 3} for each in shifts]),
    ):
        with pytest.raises(Unreadable, match="scores of rows"):
            again(*wrong)


def test_several_scores_make_one_that_holds_what_it_says():
    """Of independent ones: the smaller of two chances, so at most twice as often as it says, and not half as rarely."""
    p = np.random.default_rng(0).random((20_000, 5))
    found = np.exp(-np.array([together(each) for each in p.tolist()]))
    for level in (0.1, 0.01, 0.001):
        assert level / 2 < np.mean(found < level) < 2 * level
    assert together([0.3]) == pytest.approx(-math.log(0.3))


# Intervals and quantiles of the regressor.


@pytest.fixture(scope="module")
def regressor():
    """Learned from noise whose width the row says; how often each interval held, and each quantile was above."""
    rng, model = np.random.default_rng(1), OnlineRegressor(units=8, intervals=True)
    levels, below = (0.5, 0.9), (0.1, 0.75)
    held, under = [], []
    for i in range(4000):
        wide = i % 40 >= 20
        x = {"wide": float(wide), "a": float(rng.normal())}
        y = 5 + x["a"] + (2.0 if wide else 0.4) * float(rng.normal())
        if i >= 2000:
            intervals = [model.predict_interval_one(x, level) for level in levels]
            held.append([y in each for each in intervals])
            under.append([y < model.predict_quantile_one(x, q) for q in below])
        model.learn_one(x, y)
    return model, dict(zip(levels, np.mean(held, 0), strict=True)), dict(zip(below, np.mean(under, 0), strict=True))


def test_an_interval_holds_what_it_says(regressor):
    model, held, under = regressor
    for level, share in held.items():
        assert share == pytest.approx(level, abs=0.06)
    for q, share in under.items():
        assert share == pytest.approx(q, abs=0.06)
    wide, narrow = (model.predict_interval_one({"wide": w, "a": 0.0}) for w in (1.0, 0.0))
    assert (wide.upper - wide.lower) > 2 * (narrow.upper - narrow.lower)


def test_quantiles_rise_and_meet_the_prediction_and_the_ends(regressor):
    model, x = regressor[0], {"wide": 1.0, "a": 0.3}
    before = pickle.dumps(model)
    found = [model.predict_quantile_one(x, q) for q in (1e-6, 0.01, 0.05, 0.3, 0.5, 0.7, 0.95, 0.99, 1 - 1e-6)]
    assert (np.diff(found) > 0).all()
    assert found[4] == pytest.approx(model.predict_one(x), rel=1e-6)
    ends = model.predict_interval_one(x, 0.9)
    assert (ends.lower, ends.upper) == pytest.approx((found[2], found[6]), rel=1e-6)
    assert pickle.dumps(model) == before


def test_intervals_are_asked_for_and_of_shares_that_can_be(regressor):
    model = OnlineRegressor(units=4, intervals=True)
    assert (model.predict_interval_one({"a": 1.0}).upper, model.predict_quantile_one({"a": 1.0}, 0.1)) == (0.0, 0.0)
    for level in (0, 1, -0.1, math.nan, "many", None, True):
        with pytest.raises(ValueError, match="level must be a number between 0 and 1"):
            regressor[0].predict_interval_one({"a": 1.0}, level)
        with pytest.raises(ValueError, match="q must be a number between 0 and 1"):
            regressor[0].predict_quantile_one({"a": 1.0}, level)
    with pytest.raises(ValueError, match="need intervals=True, got False"):
        OnlineRegressor(units=4).predict_interval_one({"a": 1.0})
    with pytest.raises(ValueError, match="intervals must be True or False, got 'yes'"):
        OnlineRegressor(units=4, intervals="yes").learn_one({"a": 1.0}, 1.0)


def test_a_score_is_that_of_the_distribution(regressor):
    """A target at the prediction is not odd at all, and one further off is odder."""
    model, rows = OnlineTargetAnomalyDetector(units=4), rows_of(600)
    for x in rows:
        model.learn_one({"b": x["b"]}, x["a"])
    _, point = model._distribution(model._keeper.core, {"b": 50.0})
    middle = model._keeper.core.memory.unit.back(float(point[0]))
    found = [model.score_one({"b": 50.0}, middle + off) for off in (0.0, 1.0, 2.0, 4.0, 50.0)]
    assert found[0] < 0.3
    assert found == sorted(found)
    assert found[-1] > 0.999
