"""The learner of rows: the same however rows come, through growth and restarts; and that it learns."""

import json
import pickle

import jax
import numpy as np
import pytest

from damage import DAMAGE
from onward.errors import OnwardError
from onward.rows.baselines import Baselines
from onward.rows.stream import RowLearner, RowRecipe
from onward.rows.stream.experts import AHEAD
from onward.rows.stream.linear import LINEAR_STEP
from onward.rows.stream.moments import LIMIT, PRIOR, REMEMBERED
from onward.rows.stream.programs import MOST_WAITING, Programs
from onward.rows.stream.row_experts import OF_CLASSES, OF_NUMBERS
from onward.saving import Unreadable

pytestmark = pytest.mark.usefixtures("compile_fast")

nan = np.nan
CAPACITY = 8
PLAIN = np.zeros(CAPACITY, bool)
LENGTH = (64,)


def recipe(kind="number", horizon=1, **options):
    lag = options.pop("lag", 4 if kind == "return" else horizon)
    options = {"network": "columnar", "units": 6} | options  # of columns four that forget and one that turns
    return RowRecipe(kind=kind, horizon=0 if kind == "return" else horizon, lag=lag, **options)


GROWING = {"network": "ccn", "stages": 2, "stage_rows": 60}
RECIPES = {
    "number": recipe(),
    "number, now": recipe(horizon=0),
    "number, far, grown": recipe(horizon=5, **GROWING),
    "two numbers, width": recipe(targets=2),
    "intervals": recipe(components=2, **GROWING),
    "class": recipe("class"),
    "class, now, grown": recipe("class", horizon=0, **GROWING),
    "class, far": recipe("class", horizon=5),
    "return": recipe("return"),
    "return, grown": recipe("return", **GROWING),
    "number, gru": recipe(network="gru"),
    "experts": recipe(experts=AHEAD, components=2),
    "two numbers, far, grown, experts": recipe(horizon=5, targets=2, experts=AHEAD, **GROWING),
    "number, now, experts": recipe(horizon=0, experts=OF_NUMBERS, components=2),
    "two numbers, now, grown, experts": recipe(horizon=0, targets=2, experts=OF_NUMBERS, **GROWING),
    "class, now, experts": recipe("class", horizon=0, experts=OF_CLASSES),
    "class, far, grown, experts": recipe("class", horizon=5, experts=OF_CLASSES, **GROWING),
}
FEW = ("number, far, grown", "number, now", "class", "return", "class, far, grown, experts")


def rows_of(made, rows=150, seed=0, *, used=3, capacity=CAPACITY):
    """(x, y, arrived): some cells are missing; unused places always."""
    rng = np.random.default_rng(seed)
    x = np.full((rows, capacity), nan)
    x[:, :used] = rng.normal(size=(rows, used)) * [1, 10, 0.1][:used] + [0, 3, 1][:used]
    x[rng.random(x.shape) < 0.1] = nan
    y = np.nan_to_num(x[:, :1]) + np.roll(np.nan_to_num(x[:, 1:2]), 2, 0) + rng.normal(size=(rows, made.targets))
    if made.kind == "class":
        y = (y > 3).astype(float)
    y[rng.random(y.shape) < 0.1] = nan
    arrived = y
    if made.kind == "return":
        arrived = np.full_like(y, nan)
        for t in range(made.lag, rows):
            arrived[t] = made.discount ** np.arange(made.lag) @ y[t - made.lag + 1 : t + 1]
    return x.astype(np.float32), y.astype(np.float32), arrived.astype(np.float32)


def make(made, *, lengths=LENGTH, capacity=CAPACITY):
    return RowLearner(made, capacity, 2 if made.kind == "class" else 0, lengths=lengths)


def learn(learner, rows, start=0, stop=None):
    """The learner after these rows, and what it said of them."""
    x, y, arrived = (part[start:stop] for part in rows)
    return learner.learn(x, PLAIN if x.shape[1] == CAPACITY else np.zeros(x.shape[1], bool), y, arrived)


def same(a, b, **tolerance):
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


def exactly(a, b):
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


def state_of(learner):
    return learner.programs.packing.unpack(learner.packed)


# The linear baseline. It reads what the network reads: of missing cells what stands in their place.


def filled(scaled, held):
    """A row's numbers by name, with the share of the last one that is usually left where one is missing."""
    for name, (last, product, square) in held.items():
        z = scaled.get(name)
        if z is None:
            held[name] = (last * min(max(product / square, 0), 1), product, square)
        else:
            kept = 1 - 1 / REMEMBERED
            held[name] = (z, kept * product + z * last, kept * square + last**2)
    return {name: last for name, (last, _, _) in held.items()}


def test_the_linear_baseline_is_river_s():
    """Fewer rows than after which moments forget (1000 of the inputs, 333 of changes), all within the limit."""
    pytest.importorskip("river")
    from river.linear_model import LinearRegression
    from river.preprocessing import StandardScaler, TargetStandardScaler

    made, rows = recipe(), 300
    x, y, _ = rows_of(made, rows)
    _, answers = learn(make(made), (x, y, y))
    scaler, model = StandardScaler(), TargetStandardScaler(LinearRegression())
    held = {str(i): (0.0, 0.0, PRIOR) for i in range(x.shape[1])}
    wanted, asked, base, squares = [], None, nan, []
    for t in range(rows):
        if asked is not None and np.isfinite(y[t, 0]):
            model.learn_one(asked, float(y[t, 0]))
        row = {str(i): float(v) for i, v in enumerate(x[t]) if np.isfinite(v)}
        scaler.learn_one(row)
        asked = filled(scaler.transform_one(row), held)
        move = float(y[t, 0] - base)
        if np.isfinite(move):
            squares.append(move**2)
            asked["move"] = move / np.sqrt(np.mean(squares))
        assert max(map(abs, asked.values()), default=0) < LIMIT
        base = y[t, 0] if np.isfinite(y[t, 0]) else base
        wanted.append(model.predict_one(asked))
    np.testing.assert_allclose(answers.linear[:, 0], wanted, rtol=2e-4, atol=2e-4)
    assert np.std(wanted[-100:]) > 0.3


def test_the_linear_baseline_of_classes_is_river_s_with_a_bias():
    """River makes the weights of a class when it comes first, and has no bias: all are made at the start here."""
    pytest.importorskip("river")
    from river.linear_model import SoftmaxRegression
    from river.preprocessing import StandardScaler

    made, rows = recipe("class"), 300
    x, y, _ = rows_of(made, rows)
    learner, answers = learn(make(made), (x, y, y))
    scaler, model = StandardScaler(), SoftmaxRegression()
    for label in (0, 1):
        model.weights[label]["bias"] = 0.0
    asked, said, held = None, [], dict.fromkeys(range(x.shape[1]), (0.0, 0.0, PRIOR))
    for t in range(rows):
        if asked is not None and np.isfinite(y[t, 0]):
            model.learn_one(asked, int(y[t, 0]))
        row = {i: float(v) for i, v in enumerate(x[t]) if np.isfinite(v)}
        scaler.learn_one(row)
        asked = {"bias": 1.0, **filled(scaler.transform_one(row), held)}
        said.append(model.predict_proba_one(asked)[1])
    linear = state_of(learner).linear
    np.testing.assert_allclose(linear.bias, [model.weights[k]["bias"] for k in (0, 1)], rtol=1e-3, atol=1e-5)
    for i in range(3):
        np.testing.assert_allclose(linear.weight[:, i], [model.weights[k][i] for k in (0, 1)], rtol=1e-3, atol=1e-5)
    sure = np.abs(np.array(said) - 0.5) > 1e-4
    np.testing.assert_array_equal(answers.linear[sure, 0], np.array(said)[sure] > 0.5)
    assert 0 < answers.linear.sum() < rows
    assert model.optimizer.learning_rate == LINEAR_STEP


# Rows and blocks.


@pytest.mark.parametrize(
    ("name", "lengths"),
    [("number", (1, *LENGTH)), *(pytest.param(name, (1, 7, 4096), marks=pytest.mark.slow) for name in RECIPES)],
)
def test_blocks_give_what_rows_give(name, lengths):
    made = RECIPES[name]
    rows = rows_of(made)
    learners, said = zip(*(learn(make(made, lengths=(n,)), rows) for n in lengths), strict=True)
    kept = [learner.save() for learner in learners]
    for other, (arrays, meta) in zip(said[1:], kept[1:], strict=True):
        same(said[0], other, rtol=1e-5, atol=1e-5)
        for key, array in arrays.items():
            if array.dtype.kind != "U":
                np.testing.assert_allclose(array, kept[0][0][key], rtol=1e-4, atol=1e-5)
        assert meta | {"lengths": 0} == kept[0][1] | {"lengths": 0}
    assert learners[0].stage == (2 if made.network == "ccn" else 1)
    assert learners[0].rows == 150
    for part in said[0]._replace(experts=np.zeros(0)):  # not every expert has an answer
        assert np.isfinite(part).all()
    assert np.ptp(said[0].outputs[-50:], 0).max() > 1e-3


def test_calls_of_other_sizes_make_no_difference():
    """Bit by bit, with one program."""
    made = RECIPES["number, far, grown"]
    rows = rows_of(made)
    _, whole = learn(make(made), rows)
    for sizes in ([3, 57, 60, 30], [59, 1, 1, 89], [100, 50]):
        learner, start, parts = make(made), 0, []
        for size in sizes:
            learner, said = learn(learner, rows, start, start + size)
            parts.append(said)
            start += size
        exactly(whole, map(np.concatenate, zip(*parts, strict=True)))


@pytest.mark.parametrize("name", ["number, now", "number", "class", "return", "class, now, experts"])
def test_asking_changes_nothing(name):
    made = RECIPES[name]
    x, y, arrived = rows_of(made)
    learner, _ = learn(make(made), (x, y, arrived), 0, 100)
    before = learner.save()[0]
    target = np.full_like(y[100], nan) if made.lag == 0 else y[100]
    said = learner.peek(x[100], PLAIN, target)
    after = learner.save()[0]
    exactly(before.values(), after.values())
    exactly(said, learner.peek(x[100], PLAIN, target))
    _, learned = learn(learner, (x, y, arrived), 100, 101)
    if made.lag == 0:
        same(said, learned, rtol=1e-5, atol=1e-6)
    else:  # the row's own target is learned from before the row is answered
        assert np.abs(said.linear - learned.linear).max() + np.abs(said.outputs - learned.outputs).max() > 1e-5


@pytest.mark.parametrize("name", ["number, now", "number", "class"])
def test_reading_goes_on_but_learns_nothing(name):
    made = RECIPES[name]
    x, y, arrived = rows_of(made)
    learner, _ = learn(make(made), (x, y, arrived), 0, 80)
    before, first = state_of(learner), learner.peek(x[80], PLAIN, y[80])
    before = jax.tree.map(np.asarray, (before.learned.model, before.linear, before.inputs, before.targets, before.rows))
    learner, said = learner.read(x[80:], PLAIN, y[80:])
    after = state_of(learner)
    kept = (after.learned.model, after.linear, after.inputs, after.targets, after.rows)
    exactly(jax.tree.leaves(before), jax.tree.leaves(jax.tree.map(np.asarray, kept)))
    same(first, (part[:1] for part in said), rtol=1e-6)
    # The network's memory moves: the last row asked from the start is another question.
    fresh = pickle.loads(pickle.dumps(learner))
    assert np.abs(fresh.peek(x[-1], PLAIN, y[-1]).outputs - said.outputs[-1]).max() > 1e-7
    assert len(said.outputs) == 70


# Changes of shape.


NOW = ("number, now, experts", "class, now, experts")
MORE = ("number", "number, far, grown", "number, gru", "class, now, grown", "intervals", "return, grown")


@pytest.mark.parametrize(
    ("name", "twice"),
    [
        *((name, False) for name in ("number, far, grown", *NOW)),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in MORE),
    ],
)
def test_more_inputs_change_no_answer_while_they_are_missing(name, twice):
    """(A network that grows later grows another stage.)"""
    made = RECIPES[name]
    rows = rows_of(made)
    wide = lambda n: (np.pad(rows[0], ((0, 0), (0, n)), constant_values=nan), *rows[1:])
    plain, want = make(made), []
    for a, b in ((0, 70), (70, 110), (110, 150)):
        plain, said = learn(plain, rows, a, b)
        want.append(said)
    learner, said = learn(make(made), rows, 0, 70)
    same(said, want[0], rtol=1e-6)
    learner, said = learn(learner.widen(16), wide(8), 70, 110)
    same(said, want[1], rtol=1e-4, atol=1e-4)
    if twice:
        learner = learner.widen(32)
    learner, said = learn(learner, wide(24 if twice else 8), 110, 150)
    same(said, want[2], rtol=1e-4, atol=1e-4)
    assert learner.capacity == (32 if twice else 16)


@pytest.mark.slow
def test_new_inputs_are_learned_from():
    """What they say is used: the target is one of them, a row before."""
    made = recipe(units=2)
    rng = np.random.default_rng(0)
    x = np.full((2500, 16), nan, np.float32)
    x[:, 0] = rng.normal(size=2500)
    x[500:, 12] = rng.normal(size=2000)
    y = np.concatenate([[0], np.nan_to_num(x[:-1, 12])])[:, None] + 0.1 * rng.normal(size=(2500, 1))
    learner, _ = make(made).learn(x[:500, :8], PLAIN, y[:500])
    said = learner.widen(16).learn(x[500:], np.zeros(16, bool), y[500:])[1].outputs[:, 0]
    assert np.abs(said[-501:-1] - y[-500:, 0]).mean() < 0.3


@pytest.mark.parametrize("name", ["class", "class, now, experts"])
def test_more_classes_keep_the_odds_of_the_old_ones(name):
    made = RECIPES[name]
    x, y, arrived = rows_of(made)
    learner, _ = learn(make(made), (x, y, arrived), 0, 100)
    before = learner.peek(x[100], PLAIN, y[100])
    learner = learner.add_classes(4)
    after = learner.peek(x[100], PLAIN, y[100])
    old, new = before.outputs[0], after.outputs[0]
    assert new.shape == (4,)
    np.testing.assert_allclose(new[1] / new[0], old[1] / old[0], rtol=1e-5)
    np.testing.assert_allclose(new.sum(), 1, rtol=1e-5)
    y = y.copy()
    y[100::2] = 3
    learner, said = learn(learner, (x, y, y), 100)
    assert said.outputs[-1, 3] > said.outputs[0, 3]
    assert said.outputs[-1, 2] < said.outputs[0, 2] or made.experts  # of experts a class that was never seen has none
    assert learner.classes == 4


@pytest.mark.parametrize(
    "name",
    ["number, far, grown", *(pytest.param(name, marks=pytest.mark.slow) for name in ("intervals", "return, grown"))],
)
def test_growth_changes_no_prediction(name):
    """The next answer is that of the same network which does not grow (it thinks that it is younger)."""
    made = RECIPES[name]
    rows = rows_of(made)
    a, b = make(made), make(made)._replace(rows=-1000)
    (a, ours), (b, theirs) = learn(a, rows, 0, 60), learn(b, rows, 0, 60)
    same(ours, theirs, rtol=1e-6, atol=1e-6)
    assert (a.stage, b.stage) == (2, 1)
    same(a.peek(rows[0][60], PLAIN, rows[1][60]), b.peek(rows[0][60], PLAIN, rows[1][60]), rtol=1e-5, atol=1e-5)
    later = learn(a, rows, 60)[1], learn(b, rows, 60)[1]
    np.testing.assert_allclose(later[0].linear, later[1].linear, rtol=1e-5)
    assert np.abs(later[0].outputs - later[1].outputs).max() > 1e-4


# Restarts.


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
@pytest.mark.parametrize("cut", [0, 37, 100])
def test_a_restart_changes_nothing(name, cut):
    """Bit by bit, by arrays and JSON, and by pickle; before the first row, before growth and after."""
    made = RECIPES[name]
    rows = rows_of(made)
    learner = make(made)
    if cut:
        learner, _ = learn(learner, rows, 0, cut)
    kept = pickle.dumps(learner)
    others = [pickle.loads(kept)]
    if cut:
        arrays, meta = learner.save()
        others.append(RowLearner.load({k: v.copy() for k, v in arrays.items()}, json.loads(json.dumps(meta))))
    learner, want = learn(learner, rows, cut)
    for other in others:
        after, said = learn(other, rows, cut)
        exactly(said, want)
        exactly(after.save()[0].values(), learner.save()[0].values())
    exactly(learn(pickle.loads(kept), rows, cut)[1], want)


@pytest.mark.parametrize("name", FEW)
def test_no_look_ahead(name):
    """What is said of row t does not change with any row after it; with horizon 0 not with its own target either."""
    made = RECIPES[name]
    rows = rows_of(made)
    _, said = learn(make(made), rows)
    other = [part.copy() for part in rows]
    for part in other:
        part[90:] = 1 if made.kind == "class" else 7
    _, changed = learn(make(made), other)
    exactly((part[:90] for part in said), (part[:90] for part in changed))
    assert not np.array_equal(said.outputs[90:], changed.outputs[90:])
    if made.lag == 0:
        other = (rows[0], np.concatenate([rows[1][:90], rows[1][90:] + 5]), rows[2])
        _, changed = learn(make(made), other)
        exactly((part[:91] for part in said), (part[:91] for part in changed))
        assert not np.array_equal(said.outputs[91:], changed.outputs[91:])


@pytest.fixture(scope="module")
def saved():
    learner, _ = learn(make(RECIPES["number"], lengths=(1,)), rows_of(RECIPES["number"], rows=3))
    return learner.save()


@pytest.mark.parametrize("how", DAMAGE)
def test_a_saved_learner_that_was_changed_is_refused_by_name(saved, how):
    (arrays, meta), (change, said) = saved, DAMAGE[how]
    with pytest.raises(Unreadable, match="it:? " + said.format(r"linear\.bias")):
        RowLearner.load(change(arrays, "linear.bias"), meta, "it")


def test_a_learner_of_another_format_is_refused(saved):
    arrays, meta = saved
    with pytest.raises(Unreadable, match="format 9"):
        RowLearner.load(arrays, meta | {"format": 9})
    with pytest.raises(Unreadable, match=r"guard\.\w+ is float32\[8\], float32\[16\]"):
        RowLearner.load(arrays, meta | {"capacity": 16})
    with pytest.raises(Unreadable, match=r"written by onward 0\.1"):
        RowLearner.load({"floats": np.zeros(9), "whole": np.zeros(2)}, meta)


def test_a_learner_of_another_network_is_whole_and_refused_by_name(saved):
    """As one that a version with another network of the same name wrote: not `Unreadable`, which is damage."""
    arrays, meta = saved
    renamed = {name.replace(".model.cell.", ".model.cell.other."): array for name, array in arrays.items()}
    assert renamed.keys() != arrays.keys()
    with pytest.raises(
        OnwardError, match=r"^it \(onward \S+\) is of another network than 'columnar'.* learn anew$"
    ) as e:
        RowLearner.load(renamed, meta, "it")
    assert not isinstance(e.value, Unreadable)


# Learning.


@pytest.mark.parametrize(("network", "units"), [("lstm", 2000), ("gru", 1_000_000)])
def test_a_network_that_does_not_fit_is_refused(network, units):
    with pytest.raises(OnwardError, match=f"a network of {units} units .{network}, rule exact. .* does not fit: "):
        Programs(recipe(network=network, units=units), 8, 0, 1)


@pytest.mark.parametrize(("network", "rule"), [("columnar", "exact"), ("gru", "exact"), ("lstm", "snap-1")])
def test_memory_is_that_of_what_waits_and_too_much_is_refused(network, rule):
    """A row that waits takes the same, however many there are; what it takes and how many fit are said, and true."""
    nbytes = lambda lag: sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(Programs(recipe(horizon=lag, network=network, rule=rule), 8, 0, 1).packing.shapes)
    )
    some, more = nbytes(10), nbytes(20)
    each = (more - some) // 10
    assert nbytes(1000) == some + 990 * each
    fit = MOST_WAITING // each
    nbytes(fit)
    with pytest.raises(OnwardError) as refused:
        nbytes(fit + 1)
    assert f"a target that comes {fit + 1:,} rows later" in str(refused.value)
    assert f"a horizon of at most {fit:,} rows" in str(refused.value)
    assert f"({each / 1e3:,.0f} kB a row with room for 8 inputs and" in str(refused.value)


def errors(made, series, others=(), *, skip=0.5, lengths=(4096,)):
    """Mean |error| of the network and of every baseline on the rows after `skip`; a series reads itself."""
    y = np.asarray(series, float)[:, None]
    start = y[np.isfinite(y)][0]
    unit = abs(start) if abs(start) > 1e-9 else 1.0
    u = (y - start) / unit
    x = np.full((len(y), CAPACITY), nan, np.float32)
    for i, column in enumerate((u[:, 0], *others)):
        x[:, i] = column
    _, answers = make(made, lengths=lengths).learn(x, PLAIN, u)
    assert all(np.isfinite(part).all() for part in answers), "an answer is not finite"
    h = made.horizon
    late = lambda a: np.concatenate([np.full((h, 1), nan), a[:-h]])
    said = [late(answers.outputs), late(answers.linear), *Baselines(1, h).score(u)]
    wrong = np.abs(np.stack(said) - u)
    known = np.isfinite(wrong).all(0)[:, 0] & (np.arange(len(y)) >= skip * len(y))
    return dict(zip(("network", "linear", "last", "seasonal", "mean"), wrong[:, known, 0].mean(1), strict=True))


def best(found):
    return min(error for name, error in found.items() if name != "network")


LEARNER = recipe(units=8)


def test_what_lies_five_rows_back_is_learned(compile_well):
    """y_{t+1} = x_{t-5} and noise: a linear model of the row knows nothing of it."""
    rng = np.random.default_rng(0)
    n = 12_000
    x = rng.choice([-1.0, 1.0], n)
    y = np.concatenate([np.zeros(6), x[:-6]]) + 0.1 * rng.normal(size=n)
    found = errors(LEARNER, y, [x], skip=0.8)
    assert found["network"] < 0.85 * best(found), found


def test_a_wave_in_noise(compile_well):
    rng = np.random.default_rng(0)
    found = errors(LEARNER, np.sin(2 * np.pi * np.arange(8000) / 20) + 0.2 * rng.normal(size=8000))
    assert found["network"] < 0.9 * best(found), found


def _walk(rng, n):
    return np.cumsum(rng.normal(size=n))


def _with_holes(rng, n):
    y = np.sin(np.arange(n) / 3) + 0.2 * rng.normal(size=n)
    return np.where(rng.random(n) < 0.3, nan, y)


HARD = {
    "constant": lambda rng, n: np.full(n, 3.0),
    "zero": lambda rng, n: np.zeros(n),
    "a step of 1000 deviations": lambda rng, n: rng.normal(size=n) + 1000 * (np.arange(n) > n / 4),
    "spikes": lambda rng, n: rng.normal(size=n) + 1e6 * (np.arange(n) % 1000 == 500),
    "a third is missing": _with_holes,
    "random walk": _walk,
    "white noise": lambda rng, n: rng.normal(size=n),
    "starts quiet": lambda rng, n: rng.normal(size=n) * np.where(np.arange(n) < n / 4, 1e-6, 1),
}
# Chance: of what has no structure the network learns a little.
ALLOWED = 1.1


LONG = pytest.param(recipe(units=8, **GROWING | {"stage_rows": 20_000}), 100_000, marks=pytest.mark.slow, id="long")


@pytest.mark.parametrize(("made", "rows"), [pytest.param(LEARNER, 6000, id="short"), LONG])
@pytest.mark.parametrize("name", HARD)
def test_hard_series(name, made, rows, compile_well):
    """Never NaN, and not much worse than the best baseline on the second half, whatever else is constant."""
    long = rows > 6000
    constant = [np.full(rows, 2.0), np.zeros(rows)] if long else []
    found = errors(made, HARD[name](np.random.default_rng(1 + long), rows), constant)
    assert found["network"] <= ALLOWED * best(found) + 1e-6, found


def test_a_horizon_of_half_a_period():
    """The answer is learned for t + h: there the wave is the other way up."""
    made = RECIPES["number, far, grown"]
    y = np.sin(2 * np.pi * np.arange(2000) / (2 * made.horizon)) + 0.05 * np.random.default_rng(0).normal(size=2000)
    found = errors(made, y, lengths=LENGTH)
    assert found["network"] < 0.2 * found["last"], found
    assert found["network"] < 1.1 * best(found), found


@pytest.mark.slow
def test_classes_that_need_memory(compile_well):
    """The class of row t+1 is what was drawn two rows before t."""
    rng = np.random.default_rng(0)
    n = 12_000
    drawn = rng.integers(0, 2, n)
    y = np.concatenate([[0, 0, 0], drawn[:-3]]).astype(float)[:, None]
    x = np.full((n, CAPACITY), nan, np.float32)
    x[:, 0] = drawn
    answers = make(recipe("class", units=8, step_size=3e-3), lengths=(4096,)).learn(x, PLAIN, y)[1]
    said = answers.outputs.argmax(1)[:-1]
    hits = (said == y[1:, 0])[-2000:].mean()
    others = [(answers.linear[:-1, 0] == y[1:, 0])[-2000:].mean()]
    others += (Baselines(1, 1, classes=True).score(y)[:, -2000:, 0] == y[-2000:, 0]).mean(1).tolist()
    assert hits > max(others) + 0.2, (hits, others)
    np.testing.assert_allclose(answers.outputs.sum(1), 1, rtol=1e-4)


@pytest.mark.slow
def test_the_return_of_a_cycle(compile_well):
    """Reward 1 every fifth row: the prediction converges to the true discounted sum of what is to come."""
    n, p, discount = 12_000, 5, 0.8
    y = (np.arange(n) % p == 0).astype(float)
    lag = 30
    made = recipe("return", discount=discount, lag=lag, units=8)
    x = np.full((n, CAPACITY), nan, np.float32)
    x[:, 0] = y
    arrived = np.full((n, 1), nan)
    weights = discount ** np.arange(lag)
    for t in range(lag, n):
        arrived[t] = weights @ y[t - lag + 1 : t + 1]
    said = make(made, lengths=(4096,)).learn(x, PLAIN, y[:, None], arrived)[1].outputs[:, 0]
    # As of row t: y_{t+1} + discount y_{t+2} + ...
    true = np.array([discount ** ((-t - 1) % p) / (1 - discount**p) for t in range(n)])
    wrong = np.abs(said - true)[-1000:].mean()
    assert wrong < 0.15 * np.abs(true - true.mean()).mean(), wrong
