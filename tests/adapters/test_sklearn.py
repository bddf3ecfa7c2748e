"""The scikit-learn regressors: scikit-learn's own checks, densities against known ones, and odd data."""
# ruff: noqa: N806

import importlib.util
import pickle
import re
import sys
import threading

import jax
import numpy as np
import pytest

from damage import DAMAGE

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import onward.adapters.sklearn as adapter
from onward.adapters.sklearn import MixtureDensityRegressor, SequenceMixtureRegressor
from onward.errors import NotFinite
from onward.saving import Unreadable

pytestmark = [pytest.mark.interfaces, pytest.mark.usefixtures("compile_fast")]

BOTH = pytest.mark.parametrize("kind", [MixtureDensityRegressor, SequenceMixtureRegressor])
QUICK = {"updates": 100, "step_size": 0.02, "random_state": 0}
# Skipped by scikit-learn's checks where pandas or an environment variable is missing, nothing else.
SKIPPED = {"check_array_api_input"}
if importlib.util.find_spec("pandas") is None:
    SKIPPED |= {"check_sample_weights_pandas_series", "check_regressor_data_not_an_array"}


@BOTH
def test_scikit_learn_checks_find_nothing(kind):
    results = check_estimator(kind(**QUICK), on_skip=None)
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert len(results) > 50
    assert skipped <= SKIPPED
    assert all(r["status"] == "passed" for r in results if r["check_name"] not in skipped)


def linear(rows=60, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 3))
    return X, 5 + 10 * X[:, 0] - 4 * X[:, 2] + rng.normal(size=rows)


@pytest.fixture(scope="module")
def fitted():
    return MixtureDensityRegressor(**QUICK).fit(*linear())


# The inverse problem: t uniform in (0, 1), x = t + 0.3 sin(2 pi t) + noise, and one x has up to three t.
NOISE, GRID = 0.1, np.linspace(0, 1, 2001)


def inverse_problem(rows, seed):
    rng = np.random.default_rng(seed)
    t = rng.uniform(size=rows)
    return (t + 0.3 * np.sin(2 * np.pi * t) + NOISE * rng.normal(size=rows))[:, None], t


def true_log_density(x, t):
    likelihood = lambda t: -0.5 * ((x - t - 0.3 * np.sin(2 * np.pi * t)) / NOISE) ** 2
    return likelihood(t[:, None])[:, 0] - np.log(np.trapezoid(np.exp(likelihood(GRID[None])), GRID, axis=1))


@pytest.fixture(scope="module")
def three_answers():
    return MixtureDensityRegressor(random_state=0).fit(*inverse_problem(2000, 0))


def test_the_density_approaches_the_true_one_and_beats_one_gaussian(three_answers):
    X, t = inverse_problem(4000, 1)
    true = true_log_density(X, t).mean()
    found = three_answers.log_prob(X, t).mean()
    one = MixtureDensityRegressor(components=1, random_state=0).fit(*inverse_problem(2000, 0)).log_prob(X, t).mean()
    assert true - 0.1 < found < true + 0.02
    assert found > one + 0.2


def test_intervals_cover_what_they_say(three_answers):
    X, t = inverse_problem(4000, 1)
    for level in (0.5, 0.9):
        low, high = three_answers.predict_interval(X, level).T
        assert np.mean((low < t) & (t < high)) == pytest.approx(level, abs=0.04)


def test_samples_quantiles_means_and_densities_are_of_one_distribution(three_answers):
    X = np.array([[0.2], [0.5], [0.9]])
    draws = three_answers.sample(X, 1000, random_state=0)
    levels = [0.05, 0.3, 0.5, 0.95]
    quantiles = three_answers.predict_quantile(X, levels)
    assert draws.shape == (3, 1000)
    assert quantiles.shape == (3, 4)
    assert np.allclose(np.mean(draws[:, :, None] < quantiles[:, None], 1), [levels], atol=0.05)
    assert np.allclose(three_answers.predict_interval(X), quantiles[:, [0, 3]], rtol=1e-9)
    assert np.allclose(three_answers.predict_quantile(X, 0.3), quantiles[:, 1], rtol=1e-9)
    assert np.allclose(draws.mean(1), three_answers.predict(X), atol=0.03)
    # The density, integrated in units of y.
    y = np.linspace(-1, 2, 1301)
    density = np.exp(three_answers.log_prob(np.repeat(X, len(y), 0), np.tile(y, 3))).reshape(3, -1)
    assert np.allclose(np.trapezoid(density, y, axis=1), 1, atol=1e-3)
    assert np.allclose(np.trapezoid(density * y, y, axis=1), three_answers.predict(X), atol=1e-3)
    below = np.cumsum(density, 1) * (y[1] - y[0])
    assert np.allclose([np.interp(q, y, b) for q, b in zip(quantiles, below, strict=True)], [levels], atol=0.02)


def test_draws_repeat_with_their_seed_and_differ_without(fitted):
    X = linear()[0]
    assert fitted.sample(X).shape == (60, 1)
    assert not np.array_equal(fitted.sample(X), fitted.sample(X))
    assert np.array_equal(fitted.sample(X, random_state=3), fitted.sample(X, random_state=3))
    assert len(np.unique(fitted.sample(np.repeat(X[:1], 50, 0)))) == 50


def test_the_defaults_learn_a_linear_function():
    X, y = linear(1500)
    assert MixtureDensityRegressor(random_state=0).fit(X, y).score(*linear(500, seed=1)) > 0.95


def test_held_out_rows_stop_it_from_learning_the_noise():
    X, y = linear()
    X, y = np.column_stack([X, np.random.default_rng(1).normal(size=(60, 10))]), y / 10
    other, answers = linear(500, seed=1)
    other, answers = np.column_stack([other, np.random.default_rng(2).normal(size=(500, 10))]), answers / 10
    chosen, last = (
        MixtureDensityRegressor(**QUICK, validation=share).fit(X, y).log_prob(other, answers).mean()
        for share in (0.2, 0)
    )
    assert chosen > last + 0.5


@pytest.mark.parametrize("batch_size", [64, 16])
def test_a_weight_is_a_number_of_equal_rows_and_their_order_does_not_matter(batch_size):
    X, y = linear()
    weights = np.random.default_rng(0).integers(0, 4, 60)
    model = MixtureDensityRegressor(**QUICK, batch_size=batch_size)
    weighted = model.fit(X, y, sample_weight=weights).predict(X)
    repeated = np.random.default_rng(1).permutation(np.repeat(np.arange(60), weights))
    assert np.array_equal(model.fit(X[repeated], y[repeated]).predict(X), weighted)
    assert not np.allclose(model.fit(X, y).predict(X), weighted, rtol=1e-3)


@pytest.mark.parametrize("batch_size", [64, 16])
def test_rows_count_by_their_weight(batch_size):
    X = np.repeat([[0.0], [1.0]], 30, 0)
    sign = np.where(np.arange(60) % 2, 1, -1)
    y = sign + 0.3 * np.random.default_rng(0).normal(size=60)
    weights = np.where(X[:, 0] == 0, 5 + 4 * sign, 5 - 3 * sign)
    model = MixtureDensityRegressor(**QUICK, batch_size=batch_size, validation=0).fit(X, y, weights)
    expected = [np.average(y[X[:, 0] == x], weights=weights[X[:, 0] == x]) for x in (0, 1)]
    assert np.allclose(model.predict([[0], [1]]), expected, atol=0.15)


def test_scores_honour_weights(fitted):
    X, y = linear()
    keep = np.arange(60) < 30
    assert fitted.score(X, y, sample_weight=keep) == pytest.approx(fitted.score(X[keep], y[keep]))


def test_a_sequence_is_read_in_order():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 6, 2))
    y = np.where(X[:, 0, 0] > 0, 3.0, -3.0) + X[:, 4, 1]
    rows = X.reshape(500, -1)
    model = SequenceMixtureRegressor(features=2, random_state=0).fit(rows[:400], y[:400])
    assert model.score(rows[400:], y[400:]) > 0.8
    assert model.score(X[400:, ::-1].reshape(100, -1), y[400:]) < 0.5
    assert np.array_equal(model.input_scale_.unit, np.abs(X[:400]).max((0, 1)))


def test_scikit_learn_tools_take_it(fitted):
    X, y = linear()
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict(X), fitted.predict(X))
    assert np.array_equal(again.predict_interval(X), fitted.predict_interval(X))
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)
    pipeline = make_pipeline(StandardScaler(), MixtureDensityRegressor(**QUICK))
    search = GridSearchCV(pipeline, {"mixturedensityregressor__step_size": np.array([1e-5, 1e-2])}, cv=2).fit(X, y)
    assert search.best_params_ == {"mixturedensityregressor__step_size": 1e-2}
    assert search.best_estimator_.predict(X).shape == (60,)
    assert cross_val_score(pipeline, X, y, cv=2).shape == (2,)
    assert np.array_equal(
        MixtureDensityRegressor(**QUICK | {"updates": np.int64(100)}).fit(X, y).predict(X), fitted.predict(X)
    )


def test_answers_do_not_depend_on_blocks_or_on_precision(fitted, monkeypatch):
    X, y = linear()
    whole = fitted.predict_interval(X)
    monkeypatch.setattr(adapter, "BLOCK", 25)
    assert np.allclose(fitted.predict_interval(X), whole, rtol=1e-9)
    with jax.enable_x64(True):
        assert np.array_equal(MixtureDensityRegressor(**QUICK).fit(X, y).predict(X), fitted.predict(X))


@BOTH
@pytest.mark.parametrize(
    ("parameter", "value", "allowed"),
    [
        *[(name, bad, "a whole number of at least 1") for name in ("units", "components") for bad in (0, 2.0, True)],
        *[(name, None, "a whole number of at least 1") for name in ("updates", "batch_size")],
        *[("step_size", bad, "a positive, finite number") for bad in (0, -1.0, np.inf, np.nan, "0.1", True)],
        *[("validation", bad, "a number of at least 0 and below 1") for bad in (-0.1, 1, np.nan, None)],
    ],
)
def test_a_bad_parameter_is_named_with_what_is_allowed(kind, parameter, value, allowed):
    message = f"{kind.__name__}: {parameter} must be {allowed}, got {value!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**{parameter: value}).fit(*linear())


def test_other_bad_arguments_are_named(fitted):
    X, y = linear()
    for level in (0, 1, 90, "0.9", None):
        with pytest.raises(ValueError, match="level must be a number between 0 and 1, got"):
            fitted.predict_interval(X, level)
    for q in (0, [0.5, 1], [], [[0.5]]):
        with pytest.raises(ValueError, match="q must be one number or several between 0 and 1, got"):
            fitted.predict_quantile(X, q)
    with pytest.raises(ValueError, match="n_samples must be a whole number of at least 1, got 0"):
        fitted.sample(X, 0)
    with pytest.raises(ValueError, match=r"features must be a whole number of at least 1, got 1\.5"):
        SequenceMixtureRegressor(features=1.5).fit(X, y)
    with pytest.raises(ValueError, match="features must divide the columns of X, 3, got 2"):
        SequenceMixtureRegressor(features=2).fit(X, y)
    with pytest.raises(ValueError, match="cannot be used to seed"):
        MixtureDensityRegressor(random_state="a").fit(X, y)
    with pytest.raises(NotFinite, match=r"diverged with step_size=1e\+30; lower it"):
        MixtureDensityRegressor(**QUICK | {"step_size": 1e30}).fit(X, y)


@BOTH
@pytest.mark.parametrize(
    "spoil",
    [
        lambda model, x, y: model.set_params(step_size=1e30).fit(x, y),
        lambda model, x, y: model.fit(x, y, np.zeros(60)),
        lambda model, x, y: model.fit(x[:, :2], np.full(60, np.nan)),
        lambda model, x, y: model.set_params(random_state="a").fit(x[:, :2], y),
    ],
    ids=["diverged", "weights", "target", "seed"],
)
def test_a_fit_that_fails_changes_nothing(kind, spoil):
    (X, y), model = linear(), kind(**QUICK)
    with pytest.raises((ValueError, NotFinite)):
        spoil(model, X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)
    model.set_params(**QUICK).fit(X, y)
    model.feature_names_in_ = np.asarray(["a", "b", "c"], object)
    before, said = dict(vars(model)), kind(**QUICK).fit(X, y).predict(X)
    with pytest.raises((ValueError, NotFinite)):
        spoil(model, X + 1, y)
    model.set_params(**QUICK)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items() if name.endswith("_"))
    del model.feature_names_in_
    assert np.array_equal(model.predict(X), said)


def test_who_asks_while_another_thread_fits_is_answered_by_one_of_the_two():
    (X, y), model = linear(), MixtureDensityRegressor(**QUICK)
    fits = [lambda: model.fit(X, y), lambda: model.fit(3 * X, y[::-1])]
    allowed = {fit().predict(X).tobytes() for fit in fits}
    done, said = threading.Event(), set()

    def ask():
        while not done.is_set():
            said.add(model.predict(X).tobytes())

    asking = threading.Thread(target=ask)
    asking.start()
    for fit in 5 * fits:
        fit()
    done.set()
    asking.join()
    assert said == allowed


def test_unusable_data_are_refused():
    X, y = linear()
    model = MixtureDensityRegressor(**QUICK)
    hole = X.copy()
    hole[3, 1] = np.nan
    for bad_x, bad_y, weights, message in [
        (hole, y, None, "Input X contains NaN"),
        (X, hole[:, 1], None, "Input y contains NaN"),
        (X.astype(object), np.full(60, "a"), None, "could not convert string"),
        (X, np.column_stack([y, y]), None, "y should be a 1d array"),
        (X[:1], y[:1], None, "1 sample"),
        (X, y, np.arange(60) == 3, "at least two rows whose sample_weight is not zero, got 1"),
        (X, y, np.full(60, -1.0), "[Nn]egative"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.fit(bad_x, bad_y, sample_weight=weights)


def test_integers_objects_and_columns_are_numbers(fitted):
    X, y = linear()
    whole = np.round(y).astype(int)
    expected = MixtureDensityRegressor(**QUICK).fit(X, whole.astype(float)).predict(X)
    assert np.array_equal(MixtureDensityRegressor(**QUICK).fit(X, whole).predict(X), expected)
    objects = MixtureDensityRegressor(**QUICK).fit(X.astype(object), y.astype(object))
    assert np.array_equal(objects.predict(X), fitted.predict(X))
    with pytest.warns(DataConversionWarning, match="column-vector"):
        column = MixtureDensityRegressor(**QUICK).fit(X, y[:, None])
    assert np.array_equal(column.predict(X), fitted.predict(X))


def test_a_constant_target_is_a_point():
    X = linear()[0]
    model = MixtureDensityRegressor(**QUICK).fit(X, np.full(60, 0.1))
    assert np.array_equal(model.predict(X), np.full(60, 0.1))
    assert np.array_equal(model.predict_interval(X), np.full((60, 2), 0.1))
    assert np.array_equal(model.sample(X), np.full((60, 1), 0.1))
    assert model.log_prob(X[:2], [0.1, 0.2]).tolist() == [np.inf, -np.inf]


def test_a_constant_feature_is_ignored():
    X, y = linear()
    X[:, 1] = 0.1
    model = MixtureDensityRegressor(**QUICK).fit(X, y)
    moved = X.copy()
    moved[:, 1] = 1e300
    assert np.array_equal(model.predict(moved), model.predict(X))
    assert model.score(X, y) > 0.9


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_units_do_not_matter_not_even_huge_ones(fitted, size):
    X, y = linear()
    model = MixtureDensityRegressor(**QUICK).fit(X * size, y * size)
    assert np.allclose(model.predict(X * size) / size, fitted.predict(X), rtol=1e-3, atol=1e-3)
    assert np.allclose(model.log_prob(X * size, y * size) + np.log(size), fitted.log_prob(X, y), atol=1e-2)


def test_far_from_the_data_answers_stay_finite(fitted):
    far = np.array([[1e300, -1e300, 1e300], [-1e308, 0, 1]])
    assert np.isfinite(fitted.predict(far)).all()
    assert np.isfinite(fitted.predict_interval(far)).all()
    assert np.isfinite(fitted.log_prob(far, [1e300, -1e308])).all()


def test_fewer_rows_than_components():
    X, y = linear(2)
    model = MixtureDensityRegressor(**QUICK).fit(X, y)
    assert np.allclose(model.predict(X), y, atol=0.2 * np.ptp(y))
    assert np.isfinite(model.predict_interval(linear(5, seed=1)[0])).all()


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "onward.adapters.sklearn")
    with pytest.raises(
        ImportError, match=re.escape('onward.adapters.sklearn needs scikit-learn: pip install "onward[sklearn]"')
    ):
        importlib.import_module("onward.adapters.sklearn")


def test_a_pickle_that_was_changed_is_refused_by_name():
    regressor = MixtureDensityRegressor(units=2, updates=1, random_state=0).fit(np.eye(4), np.arange(4.0))
    state, before = regressor.__getstate__(), regressor.predict(np.eye(4))
    network = state["network"]
    for change, said in DAMAGE.values():
        with pytest.raises(Unreadable, match="MixtureDensityRegressor:? " + said.format(r"cell\.bias")):
            regressor.__setstate__(state | {"network": network | {"arrays": change(network["arrays"], "cell.bias")}})
    with pytest.raises(Unreadable, match="format 9"):
        regressor.__setstate__(state | {"network": network | {"format": 9}})
    with pytest.raises(Unreadable, match=r"written by onward 0\.1"):
        regressor.__setstate__({"model_": None})
    for same in (regressor, pickle.loads(pickle.dumps(regressor))):
        np.testing.assert_array_equal(same.predict(np.eye(4)), before)
