"""What learns is whole after every interrupt, beside every thread and under every switch of JAX."""

import contextlib
import copy
import math
import pickle
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import optax
import pytest

import onward as ow

pytest.importorskip("river", reason="needs: pip install 'onward[river]'")
pytest.importorskip("sklearn", reason="needs: pip install 'onward[sklearn]'")

from sklearn.exceptions import NotFittedError

from onward.adapters.river import OnlineClassifier, OnlineForecaster, OnlineRegressor
from onward.adapters.sklearn import MixtureDensityRegressor
from onward.rows.stream.programs import Programs
from switches import SWITCHES

pytestmark = pytest.mark.usefixtures("compile_fast")

ROWS = 24


def row(i):
    """Numbers, a category that is new now and then, and features that come later."""
    x = {"a": float(i % 5), "place": "abcdefgh"[i // 6 % 8]}
    return x | {f"late {j}": float(j) for j in range(i // 8)}


def regressor(model, i):
    model.learn_one(row(i), float(i % 5))


def classifier(model, i):
    model.learn_one(row(i), "pqrstuvw"[i // 5 % 8])


def forecaster(model, i):
    model.learn_one(float(i % 5), row(i))


def many(model, i):
    model.learn_many([row(k % ROWS) for k in range(i, i + 130)], [float(k % 5) for k in range(i, i + 130)])


def many_classes(model, i):
    model.learn_many([row(k % ROWS) for k in range(i, i + 130)], ["pqrstuvw"[k // 5 % 8] for k in range(i, i + 130)])


def fit(model, i):
    """Another number of columns, and other scales, at every call."""
    rows = np.arange(20.0).reshape(10, 2) * (i + 1)
    model.fit(rows[:, : 1 + i % 2], rows[:, 1] + i)


# Of each kind: the estimator, and how it learns for the i-th time. Stages are added within these rows.
CCN = {"network": "ccn", "units": 4, "stages": 3, "stage_rows": 7}
KINDS = {
    "regressor": (lambda: OnlineRegressor(units=4), regressor, ROWS),
    "classifier": (lambda: OnlineClassifier(units=4), classifier, ROWS),
    "forecaster": (lambda: OnlineForecaster(units=4), forecaster, ROWS),
    "growing": (lambda: OnlineRegressor(**(CCN | {"units": 6})), regressor, ROWS),
    "growing classifier": (lambda: OnlineClassifier(**(CCN | {"units": 3})), classifier, ROWS),
    "many": (lambda: OnlineRegressor(units=4), many, 4),
    "many classes": (lambda: OnlineClassifier(units=4), many_classes, 4),
    "fit": (lambda: MixtureDensityRegressor(units=2, components=2, updates=4, random_state=0), fit, 6),
}
KIND = pytest.mark.parametrize("kind", KINDS)


def ask(model):
    """Everything that it says, of rows it knows and rows it does not; and how many it has learned.

    A classifier of one class says the same before a row and after it.
    """
    if isinstance(model, MixtureDensityRegressor):
        try:
            said = model.predict_interval(np.ones((3, getattr(model, "n_features_in_", 1))))
        except NotFittedError:
            return tuple(sorted(vars(model)))
        kept = {name: value for name, value in vars(model).items() if name != "model_"}
        return repr(sorted(kept.items())), said.tobytes()
    core = model._keeper.core
    learned = core.learner.rows if core else 0
    if isinstance(model, OnlineForecaster):
        return (learned, *model.forecast(3, [row(i) for i in range(3)]))
    if isinstance(model, OnlineClassifier):
        return (learned, *(tuple(model.predict_proba_one(row(i)).items()) for i in (1, 9, 23)))
    return (learned, *(model.predict_one(row(i)) for i in (1, 9)), *model.predict_many([row(3), row(23)]))


def serial(kind):
    """What is said before the first call, and after each."""
    make, learn, calls = KINDS[kind]
    model, said = make(), []
    for i in range(calls):
        said.append(ask(model))
        learn(model, i)
    return [*said, ask(model)]


class Moment(BaseException):
    """Somebody interrupts."""


def interrupted(work, seconds):
    """Do it, until `Moment` is raised after so many seconds, wherever the program is then."""

    def come(*_):
        raise Moment

    before = signal.signal(signal.SIGALRM, come)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            work()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Moment:
        pass
    finally:
        signal.signal(signal.SIGALRM, before)


def survives(kind, moments, draw):
    """So many interrupts: after each it is what it was before the call, or after it, to the bit; and it goes on."""
    make, learn, calls = KINDS[kind]
    said = serial(kind)
    started = time.perf_counter()
    serial(kind)
    usual = time.perf_counter() - started
    struck = 0
    while struck < moments:
        model, i = make(), 0

        def go_on():
            nonlocal i
            while i < calls:
                learn(model, i)  # noqa: B023
                i += 1

        while i < calls:
            interrupted(go_on, draw.expovariate(3 / usual))
            if i == calls:
                break
            struck += 1
            if draw.random() < 0.2:
                model = pickle.loads(pickle.dumps(model))
            now = ask(model)
            assert now in said[i : i + 2], f"{kind}, row {i}"
            i += now != said[i]
        assert ask(model) == said[-1]
    return struck


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.interfaces
@KIND
def test_an_interrupt_leaves_the_state_of_before_or_of_after(kind):
    assert survives(kind, 12, random.Random(len(kind))) >= 12


# Python drops what is raised inside JAX's callback of its garbage collector, with a warning; such a moment is not counted.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@KIND
def test_a_thousand_interrupts(kind):
    assert survives(kind, 150, random.Random(1)) >= 150


def lose(monkeypatch, at):
    """The `at`-th time that a row is learned, the new state is lost on its way: the worst moment."""
    count, of = 0, Programs.of

    def with_loss(self, what, rows, **how):
        program = of(self, what, rows, **how)

        def losing(*arguments):
            nonlocal count
            after = program(*arguments)
            count += 1
            if count == at:
                raise Moment
            return after

        return losing if what == "row" else program

    monkeypatch.setattr(Programs, "of", with_loss)


@pytest.mark.parametrize(
    "kind",
    [
        "classifier",
        *(
            pytest.param(k, marks=pytest.mark.interfaces)
            for k in KINDS
            if k not in ("classifier", "fit") and "many" not in k
        ),
    ],
)
def test_a_row_whose_new_state_is_lost_was_not_learned(kind, monkeypatch):
    """At every single row, the first one and those that bring something new included."""
    make, learn, calls = KINDS[kind]
    said, lost = serial(kind), 0
    for at in range(1, calls, 2):
        with monkeypatch.context() as patch:
            lose(patch, at)
            model, i = make(), 0
            while i < calls:
                try:
                    learn(model, i)
                except Moment:
                    lost += 1
                    assert ask(model) == said[i]
                    continue
                i += 1
            assert ask(model) == said[-1]
    assert lost == calls // 2


ONE_BY_ONE = ("onward/adapters/sklearn.py", "sklearn/utils/validation.py", "sklearn/base.py")


@pytest.mark.interfaces
@pytest.mark.parametrize("fitted", [True, False])
def test_a_fit_that_is_interrupted_at_any_line_was_not_made(fitted):
    """Of its own lines and of those of scikit-learn that check arrays and set attributes."""
    make, learn, _ = KINDS["fit"]
    twin = make()
    learn(twin, 0)
    learn(twin, 1)
    after, at = ask(twin), 0
    while True:
        model, left, at = make(), at, at + 3
        if fitted:
            learn(model, 0)
        before = ask(model)

        def trace(frame, event, _):
            nonlocal left
            if event == "call" and not frame.f_code.co_filename.endswith(ONE_BY_ONE):
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    raise Moment
            return trace

        trap = sys.gettrace()
        sys.settrace(trace)
        try:
            learn(model, 1)
        except Moment:
            sys.settrace(trap)
            assert ask(model) in (before, after)
            continue
        finally:
            sys.settrace(trap)
        break
    assert at > 100
    assert ask(model) == after


def test_a_loop_that_is_interrupted_is_whole():
    model = lambda key: ow.Model(ow.Columns(ow.GRUGates(), 3, 4, key=key), ow.Categorical(4, 3))
    learner = ow.Online(ow.Columnwise(), ow.Supervised(), optax.adam(0.01))
    loop = ow.Loop(ow.AnBn(), model, learner, lambda example, info: (info.loss, example.weight), seeds=range(2))
    loop.start()
    loop.advance(100)
    draw, steps = random.Random(0), lambda: int(loop.state[1].steps[0])
    for _ in range(30):
        before = steps()
        interrupted(lambda: loop.advance(2000), draw.uniform(1e-4, 0.02))
        assert steps() in (before, before + 2000)
        assert np.isfinite(np.asarray(loop.state[1].model.cell.weight)).all()
    loop.advance(1)


# Threads.


def serve(seconds):
    """One thread learns and eight ask: what was said, and what a serial model says after each row."""
    model, twin = OnlineRegressor(units=4), OnlineRegressor(units=4)
    for each in (model, twin):  # compiled by now, which takes seconds
        each.learn_one({"a": 0.0}, 0.0)
    said, answers, errors = {twin.predict_one({"a": 1.0})}, set(), []
    done = threading.Event()

    def asks():
        try:
            while not done.is_set():
                answers.add(model.predict_one({"a": 1.0}))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=asks) for _ in range(8)]
    for thread in threads:
        thread.start()
    end, rows = time.monotonic() + seconds, 1
    while time.monotonic() < end and not errors:
        model.learn_one({"a": float(rows % 5)}, float(rows % 7))
        rows += 1
    done.set()
    for thread in threads:
        thread.join()
    for i in range(1, rows):
        twin.learn_one({"a": float(i % 5)}, float(i % 7))
        said.add(twin.predict_one({"a": 1.0}))
    return said, answers, errors, rows


def test_one_learns_while_eight_ask():
    said, answers, errors, rows = serve(3)
    assert not errors
    assert rows > 200
    assert len(answers) > 20
    assert answers <= said


@pytest.mark.slow
def test_a_service_of_a_minute():
    said, answers, errors, rows = serve(60)
    assert not errors
    assert answers <= said
    print(f"{rows:,} rows learned, {len(answers):,} different answers, each that of a serial model after some row")


def test_who_learns_waits_for_their_turn():
    """Four threads: as many rows are learned as were given, one after another."""
    model = OnlineRegressor(units=4)
    learn = lambda: [model.learn_one({"a": 1.0}, 1.0) for _ in range(100)]
    threads = [threading.Thread(target=learn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model._keeper.core.learner.rows == 400


def test_an_exception_leaves_the_state_of_before():
    class Odd(dict):
        def items(self):
            yield from super().items()
            raise Moment

    for kind, bad in ((OnlineRegressor, (Odd(new=1.0), 1.0)), (OnlineClassifier, (Odd(new=1.0), "new"))):
        model = kind(units=4)
        for i in range(5):
            model.learn_one({"a": float(i)}, i % 2)
        before = pickle.dumps(model)
        with pytest.raises(Moment):
            model.learn_one(*bad)
        with pytest.raises(Moment):
            model.learn_many([{"b": 2.0}, bad[0]], [1.0, bad[1]])
        assert pickle.dumps(model) == before


# Switches of JAX.


@pytest.mark.interfaces
@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("kind", ["regressor", "growing classifier", "forecaster", "many"])
def test_a_switch_of_jax_changes_nothing(kind, switch):
    """From the start, in between, and across a pickle."""
    make, learn, calls = KINDS[kind]
    said = serial(kind)
    for on in ({*range(calls)}, {*range(calls // 3, calls, 2)}):
        model = make()
        for i in range(calls):
            with SWITCHES[switch]() if i in on else contextlib.nullcontext():
                if i == calls // 2:
                    model = pickle.loads(pickle.dumps(model))
                learn(model, i)
                if i in (0, calls - 2):
                    assert ask(model) == said[i + 1]
        assert ask(copy.deepcopy(model)) == said[-1]


# Forks.

FORKED = """
import multiprocessing, sys
from onward.adapters.river import OnlineRegressor
def work(model, learn=True):
    if learn:
        model.learn_one({"a": 1.0}, 1.0)
    return model.predict_one({"a": 1.0})
if __name__ == "__main__":
    model = OnlineRegressor(units=2)
    if sys.argv[2] == "after":
        work(model)
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        try:
            print("said", pool.apply_async(work, (model, sys.argv[3] == "learn")).get(timeout=100))
        except Exception as error:
            print(type(error).__name__, error)
"""


@pytest.mark.interfaces
@pytest.mark.parametrize("what", ["learn", "ask"])
@pytest.mark.parametrize(("how", "when"), [("fork", "before"), ("fork", "after"), ("spawn", "after")])
def test_a_forked_process_computes_or_says_why_it_cannot(how, when, what, tmp_path):
    (tmp_path / "work.py").write_text(FORKED)
    command = [sys.executable, "-W", "ignore", "work.py", how, when, what]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    if (how, when) == ("fork", "after"):
        assert done.stdout.startswith("OnwardError this process was forked from one that had already computed")
    else:
        assert done.stdout.startswith("said "), done.stdout + done.stderr
        assert math.isfinite(float(done.stdout.split()[1]))
