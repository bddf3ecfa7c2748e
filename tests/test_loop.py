"""The public loop does what a loop over steps does, run by run, and goes on from a file to the bit."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward import saving
from onward.loop import compile_wide
from switches import SWITCHES

TASK = ow.AnBn()
RUNS = [(0.1, 0), (0.1, 1), (0.01, 0), (0.01, 1)]
LEARNER = ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(1.0))


def model(key):
    return ow.Model(ow.Cascade(ow.Columns(ow.GRUGates(), 3, 2, key=key, spread=0.3)), ow.Categorical(2, 3))


def measure(example, info):
    return info.loss, example.weight


def loop(learner=LEARNER, **options):
    options = {"seeds": (0, 1), "step_sizes": (0.1, 0.01)} | options
    return ow.Loop(TASK, model, learner, measure, **options)


@pytest.fixture(scope="module")
def learned():
    """60 steps, and the state after 40 of them in a file."""
    runs = loop(monitor={"right": lambda e, i: ((jnp.argmax(i.prediction) == e.y) * 1.0, jnp.ones(()))})
    runs.start()
    runs.advance(60)
    return runs, *runs.means()


def by_hand(size, seed, steps, *, grow_after=None):
    """The same run, one jitted step after another: mean loss, share that is right, and the learner's state."""
    model_key, task_key, learner_key = jax.random.split(jax.random.key(seed), 3)
    learner = ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(1.0), step_size=jnp.asarray(size, jnp.float32))
    task = TASK.init(task_key)
    state = learner.init(model(model_key), TASK.emit(task)[1], key=learner_key)

    @eqx.filter_jit
    def step(task, state):
        task, example = TASK.emit(task)
        state, info = learner.step(state, example)
        return task, state, info.loss, example.weight, jnp.argmax(info.prediction) == example.y

    seen = []
    for t in range(steps):
        if t == grow_after:
            state = learner.grow(state, TASK.emit(task)[1])
        task, state, *numbers = step(task, state)
        seen.append(numbers)
    losses, weights, right = np.asarray(seen, np.float64).T
    return losses.sum() / weights.sum(), right.mean(), state


def test_every_run_is_what_it_would_be_alone(learned):
    runs, loss, monitored = learned
    assert runs.runs == RUNS
    assert set(monitored) == {"right"}
    for i in (0, 3):
        alone, right, _ = by_hand(*RUNS[i], 60)
        assert loss[i] == pytest.approx(alone, rel=1e-5)
        assert monitored["right"][i] == pytest.approx(right)
    assert len(set(loss)) == 4


def test_a_run_that_grows_is_what_it_would_be_alone():
    """Growth takes nothing from the task, and the learner goes on with what it had."""
    runs = loop(runs=RUNS[1:3])
    runs.start()
    for steps in (30, 20):
        runs.advance(steps)
        if steps == 30:
            runs.grow()
    means = runs.means()[0]
    for i, run in enumerate(RUNS[1:3]):
        alone, _, state = by_hand(*run, 50, grow_after=30)
        assert means[i] == pytest.approx(alone, rel=1e-5)
        found, wanted = (eqx.filter(s.model, eqx.is_array) for s in (runs.state[1], state))
        for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
            np.testing.assert_allclose(a[..., i], b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stages", [0, -1, 3, 10**9])
def test_a_file_of_no_stage_or_of_more_than_it_holds_is_refused(tmp_path, stages):
    runs = loop()
    runs.start()
    runs.save(tmp_path / "a.npz")
    meta, arrays = saving.load_arrays(tmp_path / "a.npz")
    kept = {name: meta[name] for name in meta if name not in ("format", "onward")}
    saving.save_arrays(tmp_path / "a.npz", arrays, kept | {"stages": stages})
    with pytest.raises(ow.Unreadable, match=r"a\.npz is damaged"):
        runs.load(tmp_path / "a.npz")
    assert runs.stages == 1


def test_a_loop_that_has_run_loads_a_file_of_more_and_of_fewer_stages(tmp_path):
    """What was compiled for the one number of stages is not used for the other."""
    first, later = tmp_path / "first.npz", tmp_path / "later.npz"
    runs = loop(keeps_best=True)
    runs.start()
    runs.advance(5)
    runs.save(first)
    runs.grow()
    runs.advance(5)
    runs.save(later)
    runs.advance(3)
    wanted = runs.state
    other = loop(keeps_best=True)
    other.start()
    other.advance(9)
    other.load(later)
    other.advance(3)
    assert eqx.tree_equal(other.state, wanted)
    other.load(first)
    assert other.stages == 1
    other.grow()
    other.advance(8)
    assert eqx.tree_equal(other.state, wanted)


@pytest.mark.parametrize("axis", [0, -1])
def test_runs_in_front_as_an_accelerator_has_them_give_the_same(learned, axis):
    runs = loop(axis=axis, runs=RUNS[1:3])
    runs.start()
    runs.advance(20)
    runs.advance(40)
    assert runs.means()[0] == pytest.approx(learned[1][1:3], rel=1e-4)
    assert runs.state[1].steps.shape == (2,)
    assert not runs.broken().any()
    assert np.isnan(runs.means()[0]).all(), "the sums began anew"


def test_a_function_or_a_learner_with_its_own_step_size(learned):
    function = loop(lambda model, size: ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(1.0), size))
    own = loop(ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(1.0), 0.1), step_sizes=None)
    assert own.runs == RUNS[:2]
    for runs in (function, own):
        runs.start()
        runs.advance(60)
        assert runs.means()[0] == pytest.approx(learned[1][: len(runs.runs)], rel=1e-5)


def test_saved_grown_and_loaded_it_goes_on_to_the_bit(tmp_path):
    path, whole = tmp_path / "loop.npz", loop(keeps_best=True)
    whole.start()
    whole.advance(30)
    whole.keep_best(np.ones(4))
    whole.grow()
    whole.advance(7)
    whole.keep_best(np.asarray([3.0, np.nan, 1.0, 2.0]))
    whole.save(path, note="a")
    half = loop(keeps_best=True)
    assert half.load(path) == {"note": "a"}
    assert half.stages == 2
    for runs in (whole, half):
        runs.advance(5)
        runs.keep_best(np.asarray([4.0, 1.0, 0.5, 3.0]))
    assert eqx.tree_equal((half.state, half.best), (whole.state, whole.best))
    assert whole.best[0].tolist() == [3, 1, 0.5, 2]
    assert whole.evaluate("at", lambda s: {"at": s.steps}, best=True)["at"].tolist() == [37, 42, 42, 37]
    np.testing.assert_equal(half.means(), whole.means())
    for other in (loop(keeps_best=True, seeds=(0, 2)), loop(keeps_best=True, step_sizes=(0.1, 0.02))):
        with pytest.raises(saving.Unreadable, match=r"loop.npz was saved from other runs: step sizes and seeds"):
            other.load(path)
    with pytest.raises(saving.Unreadable, match=r"holds 2.0, which is not a part"):
        loop().load(path)


def life(path, switch=contextlib.nullcontext):
    """All that a loop does: what it says, and what it is in the end."""
    runs, said = loop(keeps_best=True), []
    with switch():
        runs.start()
        runs.advance(9)
        runs.keep_best(np.asarray([1.0, 2.0, 3.0, 4.0]))
        said += [runs.means(), runs.record(3), runs.broken()]
        runs.grow()
        runs.advance(4)
        runs.keep_best(np.asarray([3.0, 1.0, 2.0, 1.0]))
        runs.save(path)
    said.append(runs.evaluate("steps", lambda state: {"bias": state.model.head.bias}))
    with switch():
        runs.advance(2)
        said.append(runs.evaluate("steps", lambda state: {"bias": state.model.head.bias}, best=True))
        other = loop(keeps_best=True) if switch is not SWITCHES["x64"] else runs
        other.load(path)
        other.advance(2)
    return said, (runs.state, runs.best, other.state)


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return life(tmp_path_factory.mktemp("usual") / "loop.npz")


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_of_jax_that_comes_later_changes_nothing(switch, usual, tmp_path):
    said, state = life(tmp_path / "loop.npz", SWITCHES[switch])
    np.testing.assert_equal(said, usual[0])
    assert eqx.tree_equal(state, usual[1])


def test_recording_looks_ahead_and_leaves_the_state(learned):
    runs, *_ = learned
    before = runs.state
    records = runs.record(5)
    assert records["prediction"].shape == (5, 3)
    assert runs.record(2)["prediction"].tolist() == records["prediction"][:2].tolist()
    assert eqx.tree_equal(runs.state, before)


def test_what_cannot_be_run_is_refused():
    with pytest.raises(ValueError, match="there are no runs"):
        loop(seeds=())
    with pytest.raises(TypeError, match="Frequencies has no field step_size"):
        loop(ow.Frequencies())
    with pytest.raises(ValueError, match="call start\\(\\) or load\\(path\\) first"):
        loop().advance(1)


def test_a_run_that_breaks_is_named():
    runs = loop(step_sizes=(0.1, 1e38))
    runs.start()
    runs.advance(60)
    assert runs.broken().tolist() == [False, False, True, True]
    assert runs.not_finite().startswith("model.")


@pytest.mark.parametrize("function", [jnp.arctan, jnp.tanh, jnp.exp, jnp.log1p, jnp.sin, jax.lax.erf, jax.nn.sigmoid])
def test_the_compiler_options_of_the_loop_change_no_function(function, as_users_compile):
    """XLA's arctangent is wrong in vectors of 512 bits: such programs are compiled without."""
    x = jnp.linspace(0.01, 3, 999)
    y = compile_wide(jax.jit(function, compiler_options=as_users_compile).lower(x))(x)
    with jax.enable_x64(True):
        true = function(jnp.asarray(np.asarray(x), jnp.float64))
    np.testing.assert_allclose(y, true, rtol=2e-5)


@pytest.mark.parametrize(
    ("cell", "head", "rule", "axis"),
    [
        (lambda k: ow.Columns(ow.GRUGates(), 3, 8, key=k), ow.Linear(8), ow.Columnwise(), -1),
        (lambda k: ow.Columns(ow.GRUGates(), 3, 64, key=k), ow.Linear(64), ow.Columnwise(), 0),
        (lambda k: ow.Skip(ow.Cascade(ow.Columns(ow.GRUGates(), 40, 8, key=k))), ow.Linear(48), ow.Columnwise(), -1),
        (lambda k: ow.GRU(3, 8, key=k), ow.Linear(8), ow.RTRL(), 0),
        (lambda k: ow.GRU(3, 8, key=k), ow.Linear(8), ow.SnAp(1), -1),
        (lambda k: ow.Columns(ow.GRUGates(), 3, 8, key=k), ow.Linear(8, 40), ow.Columnwise(), -1),
        (lambda k: ow.Columns(ow.GRUGates(), 40, 8, key=k), ow.MLP(ow.Linear(50, 40), 8, 50, key=jax.random.key(0)), ow.Columnwise(), 0),
    ],
    ids=["columns", "wide columns", "wide inputs", "RTRL", "dense", "wide output", "wide head"],
)  # fmt: skip
def test_where_runs_lie_follows_from_the_widest_layer(cell, head, rule, axis):
    model = lambda key: ow.Model(cell(key), head)
    learner = ow.Online(rule, ow.Supervised(), optax.adam(1e-3))
    found = ow.Loop(ow.Copy(), model, learner, lambda example, info: (info.loss, example.weight))
    assert found.axis == (axis if jax.default_backend() == "cpu" else 0)
    assert ow.Loop(ow.Copy(), model, learner, lambda example, info: (info.loss, 1.0), axis=-1).axis == -1


def test_runs_of_whole_sequences_lie_in_front():
    model = lambda key: ow.Model(ow.GRU(3, 4, key=key), ow.Linear(4))
    assert ow.Loop(ow.Copy(), model, ow.BPTT(optax.adam(1e-3)), lambda example, info: (info.loss, 1.0)).axis == 0
