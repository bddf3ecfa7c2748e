"""Gymnasium's environments as streams: every step by hand, episodes, stops and resumes, and what is refused."""

import json
import os
import signal
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.errors import NotFinite, OnwardError, Stopped
from onward.learners.base import AbstractLearner
from onward.saving import Unreadable
from onward.tasks.environment import AbstractEnvironment

pytest.importorskip("gymnasium")

import gymnasium
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from onward.adapters.gymnasium import TaskEnv, train

pytestmark = [pytest.mark.interfaces, pytest.mark.usefixtures("compile_fast")]

KEY = jax.random.key(1)


class Scripted(gymnasium.Env):
    """Episodes of 3 moves: the first ends, the second is cut short, and so on. Counts moves, keeps what was done."""

    def __init__(self, observation=None, action=None, show=None, reward=None, length=3):
        self.observation_space = observation or spaces.Box(-9, 9, (2,), np.float32)
        self.action_space = action or spaces.Discrete(3)
        self.show = show or (lambda episode, time: np.array([episode, time], np.float32))
        self.reward = reward or (lambda moves: float(moves))
        self.length, self.moves, self.episode, self.done, self.resets = length, 0, -1, [], []

    def reset(self, *, seed=None, options=None):
        self.episode, self.time = self.episode + 1, 0
        self.resets.append(seed)
        return self.show(self.episode, 0), {}

    def step(self, action):
        self.done.append(action)
        self.moves, self.time = self.moves + 1, self.time + 1
        over = self.time == self.length
        cut = bool(over and self.episode % 2)
        return self.show(self.episode, self.time), self.reward(self.moves), over and not cut, cut, {}


class Book(eqx.Module):
    model: ow.Model
    rows: jax.Array
    steps: jax.Array


class Recorder(AbstractLearner):
    """Writes down every step that it is given, and does 0, 1, 2, 0, ..."""

    streams: int | None = None
    choices: int = 3
    room: int = 32

    def init(self, model, example, *, key):
        return Book(model, jnp.zeros((self.room, *self._row(example).shape)), jnp.zeros((), int))

    def _row(self, example):
        more = jnp.stack([example.y, example.reset.astype(float), example.discount], -1)
        return jnp.concatenate([example.x, more], -1)

    def step(self, state, example):
        after = Book(state.model, state.rows.at[state.steps].set(self._row(example)), state.steps + 1)
        action = jnp.broadcast_to(state.steps % self.choices, jnp.shape(example.y))
        return after, ow.Info(jnp.zeros(jnp.shape(example.y)), jnp.zeros(jnp.shape(example.y)), action=action)

    def actions(self, model):
        return self.choices


def network(inputs=2, outputs=3, units=4, seed=0):
    return ow.Model(
        ow.Columns(ow.GRUGates(), inputs, units, key=jax.random.key(seed)),
        ow.Linear(units, outputs),
    )


def agent(step=0.01, **fields):
    return ow.Online(ow.Columnwise(), ow.QLambda(), optax.sgd(step), **fields)


def learned(env, steps=30, learner=None, model=None, **more):
    return train(env, learner or agent(), model or network(), steps, key=KEY, quiet=True, **more)


def arrays(state):
    return jax.tree.leaves(
        jax.tree.map(
            lambda a: jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a,
            eqx.filter(state, eqx.is_array),
        )
    )


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


# x = (episode, time), y, reset, discount: an end has a discount of 0 and its reward, a cut 1; then the next begins.
BY_HAND = [
    [0, 0, 0, 1, 1],
    [0, 1, 1, 0, 1],
    [0, 2, 2, 0, 1],
    [0, 3, 3, 0, 0],
    [1, 0, 0, 1, 1],
    [1, 1, 4, 0, 1],
    [1, 2, 5, 0, 1],
    [1, 3, 6, 0, 1],
    [2, 0, 0, 1, 1],
    [2, 1, 7, 0, 1],
]


def test_each_reset_and_each_move_is_a_step():
    env = Scripted()
    trained = learned(env, 10, Recorder())
    np.testing.assert_array_equal(trained.state.rows[:10], BY_HAND)
    assert trained.state.steps == 10
    # The action at an end is not heard, and the one of the last step has nothing to learn from it.
    assert env.done == [0, 1, 2, 1, 2, 0, 2]
    assert (trained.returns.tolist(), trained.lengths.tolist(), trained.ends.tolist()) == ([6, 15], [3, 3], [4, 8])
    assert trained.summary == "Scripted: 10 steps, 2 episodes, mean return of the last 2: 10.5"


def test_an_environment_that_ends_and_is_cut_at_once_has_ended():
    env = Scripted()
    step = env.step
    env.step = lambda action: (*step(action)[:2], True, True, {})
    assert learned(env, 2, Recorder()).state.rows[1].tolist() == [0, 1, 1, 0, 0]


def test_parallel_environments_are_each_like_one_alone():
    envs = [Scripted(), Scripted(length=2), Scripted(length=5)]
    trained = learned(SyncVectorEnv([lambda e=e: e for e in envs]), 10, Recorder(streams=3))
    for i, length in enumerate((3, 2, 5)):
        alone = Scripted(length=length)
        rows = learned(alone, 10, Recorder()).state.rows
        np.testing.assert_array_equal(trained.state.rows[:, i], rows)
        assert envs[i].done[: len(alone.done)] == alone.done
    assert trained.ends.tolist() == [3, 4, 6, 6, 8, 9]
    assert trained.lengths.tolist() == [2, 3, 2, 5, 3, 2]


def test_it_learns_what_a_loop_in_python_learns():
    """The learner's own steps, one by one, on the observations that come of the same actions."""
    env, learner, model = Scripted(), agent(), network()
    trained = learned(env, 25, learner, model)
    learner_key, _ = jax.random.split(KEY)
    other = Scripted()
    seen, reward, reset, discount = other.reset()[0], 0.0, True, 1.0
    step_of = lambda: ow.Step(
        jnp.asarray(seen), jnp.asarray(reward), 1.0, jnp.asarray(reset), None, jnp.asarray(discount)
    )
    state = learner.init(model, step_of(), key=learner_key)
    over = False
    for _ in range(25):
        state, info = learner.step(state, step_of())
        if over:
            seen, reward, reset, discount, over = other.reset()[0], 0.0, True, 1.0, False
            continue
        seen, reward, ended, cut, _ = other.step(int(info.action))
        reset, discount, over = False, 1.0 - ended, ended or cut
    assert env.done == other.done[: len(env.done)]
    for ours, theirs in zip(arrays(trained.state), arrays(state), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-6)  # two programs, compiled apart
    assert not np.array_equal(trained.state.model.head.weight, model.head.weight)


def test_in_double_precision_too():
    with jax.enable_x64(True):
        trained = learned(Scripted(), 12, model=network())
    assert trained.state.model.head.weight.dtype == np.float64
    assert trained.ends.tolist() == [4, 8, 12]


OBSERVATIONS = {
    "a choice, from 5": (spaces.Discrete(3, start=5), lambda e, t: 5 + t % 3, lambda e, t: np.eye(3)[t % 3]),
    "choices": (
        spaces.MultiDiscrete([2, 3]),
        lambda e, t: np.array([e % 2, t % 3]),
        lambda e, t: [*np.eye(2)[e % 2], *np.eye(3)[t % 3]],
    ),
    "bits": (spaces.MultiBinary(2), lambda e, t: np.array([e % 2, t % 2], np.int8), lambda e, t: [e % 2, t % 2]),
    "a tuple": (
        spaces.Tuple([spaces.Box(-9, 9, (1,), np.float32), spaces.Discrete(4, start=-1)]),
        lambda e, t: (np.array([e], np.float32), t - 1),
        lambda e, t: [e, *np.eye(4)[t]],
    ),
    "a dictionary": (
        spaces.Dict({"b": spaces.Box(-9, 9, (), np.float32), "a": spaces.Discrete(4)}),
        lambda e, t: {"a": t, "b": np.float32(e)},
        lambda e, t: [*np.eye(4)[t], e],
    ),
}


@pytest.mark.parametrize("kind", OBSERVATIONS)
@pytest.mark.parametrize("many", [False, True], ids=["one", "vector"])
def test_observations_are_flattened(kind, many):
    space, show, flat = OBSERVATIONS[kind]
    width = spaces.flatdim(space)
    env = Scripted(space, show=show)
    world = SyncVectorEnv([lambda: env, lambda: Scripted(space, show=show)]) if many else env
    rows = learned(world, 10, Recorder(streams=2 if many else None), network(width)).state.rows[:10]
    rows = rows[:, 0] if many else rows
    np.testing.assert_array_equal(rows[:, :-3], [flat(int(e), int(t)) for e, t, *_ in BY_HAND])
    np.testing.assert_array_equal(rows[:, -3:], np.array(BY_HAND)[:, 2:])


ACTIONS = {
    "from 0": (spaces.Discrete(3), 3, [0, 1, 2, 1]),
    "from 7": (spaces.Discrete(3, start=7), 3, [7, 8, 9, 8]),
    "several": (spaces.MultiDiscrete([2, 3]), 6, [[0, 0], [0, 1], [0, 2], [1, 1]]),
    "several, from 1": (spaces.MultiDiscrete([2, 3], start=[1, 1]), 6, [[1, 1], [1, 2], [1, 3], [2, 2]]),
    "bits": (spaces.MultiBinary(2), 4, [[0, 0], [0, 1], [1, 0], [0, 0]]),
}


@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("many", [False, True], ids=["one", "vector"])
def test_actions_are_those_of_the_environment(kind, many):
    space, choices, wanted = ACTIONS[kind]
    env = Scripted(action=space)
    world = SyncVectorEnv([lambda: env]) if many else env
    learned(world, 6, Recorder(choices=choices, streams=1 if many else None), network(outputs=choices))
    assert [np.asarray(each).tolist() for each in env.done] == wanted
    assert all(space.contains(each) for each in env.done)
    assert many or not isinstance(space, spaces.Discrete) or type(env.done[0]) is int


class Gaussian(Recorder):
    """Does real numbers: the step's number, less 1, in each place."""

    def step(self, state, example):
        after, info = super().step(state, example)
        return after, info._replace(action=jnp.full((*jnp.shape(example.y), 2), state.steps - 1.0))

    def actions(self, model):
        return (2,)


def test_real_numbers_are_clipped_to_the_bounds():
    space = spaces.Box(np.array([-1, -0.5]), np.array([1, 5.0]), dtype=np.float64)
    env = Scripted(action=space)
    learned(env, 6, Gaussian())
    assert np.array(env.done).tolist() == [[-1, -0.5], [0, 0], [1, 1], [1, 3]]
    assert all(space.contains(each) for each in env.done)


# Going on


def test_state_goes_on_and_an_environment_begins_anew():
    env = Scripted()
    first = learned(env, 6)
    more = learned(env, 6, state=first.state, model=None)
    assert int(more.state.steps) == 12
    assert more.steps == 6
    assert len(env.resets) == 4
    assert env.resets[1] is env.resets[3] is None


def test_a_folder_has_returns_and_a_report_and_goes_on(tmp_path):
    env, out = Scripted(), tmp_path / "run"
    first = learned(env, 10, out=out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 4, "stream": 0, "return": 6.0, "length": 3},
        {"step": 8, "stream": 0, "return": 15.0, "length": 3},
    ]
    assert "2 episodes, mean return of the last 2: 10.5" in (out / "report.html").read_text()
    assert (out / "figures" / "returns.png").exists()
    assert not (out / "figures" / "frames.png").exists()
    again = learned(env, 10, out=out)  # nothing is left to do
    assert same(first.state, again.state)
    assert again.ends.tolist() == [4, 8]
    more = learned(env, 20, out=out)
    assert int(more.state.steps) == more.steps == 20
    # The third episode was cut off: it is learned to no end.
    assert more.ends.tolist() == [4, 8, 14, 18]
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 4
    assert env.resets[0] is not None
    assert env.resets[0] != [seed for seed in env.resets if seed is not None][1]
    with pytest.raises(OnwardError, match="leave state out"):
        learned(env, 20, out=out, state=more.state)


def test_what_was_written_after_the_checkpoint_is_taken_away(tmp_path):
    learned(Scripted(), 10, out=tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 12, "str')
    assert learned(Scripted(), 14, out=tmp_path).ends.tolist() == [4, 8, 14]


@pytest.mark.parametrize("folder", [False, True], ids=["alone", "folder"])
def test_ctrl_c_loses_nothing_learned(folder, tmp_path):
    env = Scripted(reward=lambda moves: os.kill(os.getpid(), signal.SIGINT) or 1.0 if moves == 5 else 1.0)
    out = {"out": tmp_path} if folder else {}
    with pytest.raises(Stopped, match="stopped at step 7 of 100; go on with") as stopped:
        learned(env, 100, **out)
    trained = stopped.value.trained
    assert int(trained.state.steps) == trained.steps == 7
    assert trained.ends.tolist() == [4]
    clean = Scripted(reward=lambda moves: 1.0)
    assert same(trained.state, learned(clean, 7).state)
    if folder:
        assert learned(clean, 20, out=tmp_path).ends.tolist() == [4, 11, 15, 19]


def test_an_error_of_the_environment_loses_nothing_learned(tmp_path):
    def reward(moves):
        if moves == 5:
            raise ZeroDivisionError("theirs")
        return float(moves)

    with pytest.raises(ZeroDivisionError) as error:
        learned(Scripted(reward=reward), 100, out=tmp_path)
    assert same(error.value.trained.state, learned(Scripted(), 6).state)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["train-000000000006.npz"]


class Drawn(Scripted):
    render_mode = "rgb_array"

    def render(self):
        return np.full((300, 400, 3), 5 * self.time, np.uint8)


def test_a_strip_of_frames_where_it_renders(tmp_path):
    with_frames = learned(Drawn(length=50), 30, out=tmp_path / "a")
    assert (tmp_path / "a" / "figures" / "frames.png").exists()
    # The episode of the strip is not learned from.
    assert same(with_frames.state, learned(Scripted(length=50), 30).state)


def test_a_strip_of_frames_of_several_environments_is_that_of_the_first(tmp_path):
    many = lambda kind: SyncVectorEnv(
        [lambda: kind(length=50), lambda: kind(length=7)], autoreset_mode=AutoresetMode.NEXT_STEP
    )
    env = many(Drawn)
    with_frames = train(env, agent(streams=2), network(), 30, key=KEY, out=tmp_path)
    assert (tmp_path / "figures" / "frames.png").exists()
    # It was played to the end of the first environment's episode, over the ends of the second's.
    assert env.envs[0].time == 50
    assert same(with_frames.state, train(many(Scripted), agent(streams=2), network(), 30, key=KEY).state)


def test_a_picture_that_fails_loses_no_report(tmp_path, capsys):
    class Broken(Drawn):
        def render(self):
            raise ImportError("no pygame\nhere")

    train(Broken(), agent(), network(), 10, key=KEY, out=tmp_path)
    assert "no strip of frames: ImportError: no pygame here" in capsys.readouterr().err
    assert (tmp_path / "report.html").exists()


def test_an_environment_that_never_ends_is_said_not_refused(tmp_path, capsys):
    trained = train(Scripted(length=10**9), agent(), network(), 12, key=KEY, out=tmp_path)
    assert trained.summary == "Scripted: 12 steps, no episode ended (so far one of 11 moves, with rewards of 66 in all)"
    assert trained.returns.shape == (0,)
    assert "no episode ended" in (tmp_path / "report.html").read_text()
    assert "no episode ended" in capsys.readouterr().err


# What is refused


def refused(error, *arguments, **more):
    """The one line."""
    with pytest.raises(error) as caught:
        learned(*arguments, **more)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(("train: ", "Online: ", "QLambda "))
    return said, caught.value


def test_images_are_refused_with_what_to_wrap_them_in():
    image = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    said, _ = refused(OnwardError, Scripted(spaces.Dict({"score": spaces.Discrete(2), "screen": image})))
    assert "observation['screen'] is an image or a table of shape (8, 8, 3)" in said
    assert "gymnasium.wrappers.FlattenObservation" in said
    env = gymnasium.wrappers.FlattenObservation(Scripted(image, show=lambda e, t: np.full((8, 8, 3), t, np.uint8)))
    assert learned(env, 6, model=network(192)).steps == 6


def test_what_has_no_fixed_number_of_values_is_refused():
    said, _ = refused(OnwardError, Scripted(spaces.Tuple([spaces.Sequence(spaces.Discrete(2))])))
    assert "observation[0] is a Sequence, which has no fixed number of values" in said


def test_other_actions_are_refused():
    said, _ = refused(OnwardError, Scripted(action=spaces.Dict({"a": spaces.Discrete(2)})))
    assert "takes actions of Dict" in said


def test_real_numbers_are_not_for_q():
    said, _ = refused(ValueError, Scripted(action=spaces.Box(-1, 1, (2,))))
    assert "takes real numbers of shape (2,), and the learner chooses from 3 actions" in said
    assert "ActorCritic" in said


def test_a_network_of_another_shape_is_refused():
    assert "is 2 numbers, the network reads 5" in refused(ValueError, Scripted(), model=network(5))[0]
    assert (
        "takes 3 actions, and the learner chooses from 4 actions"
        in refused(ValueError, Scripted(), model=network(outputs=4))[0]
    )
    assert "QLambda needs a value for each" in refused(ValueError, Scripted(), model=network(outputs=None))[0]
    supervised = ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(0.1))
    assert "its objective does not act" in refused(TypeError, Scripted(), learner=supervised)[0]


def test_an_agent_that_learned_elsewhere_is_refused(tmp_path):
    other = spaces.Box(-9, 9, (5,), np.float32)
    elsewhere = learned(Scripted(other, show=lambda e, t: np.zeros(5, np.float32)), 5, model=network(5))
    assert "the network reads 5" in refused(ValueError, Scripted(), state=elsewhere.state)[0]
    first = learned(Scripted(), 5, out=tmp_path)
    kept = (tmp_path / "metrics.jsonl").read_bytes()
    adam = ow.Online(ow.Columnwise(), ow.QLambda(), optax.adam(0.1))
    assert "optimiser" in refused(ValueError, Scripted(), learner=adam, state=first.state)[0]
    with pytest.raises(OnwardError, match="was learned in another environment: its inputs was 2, this one's is 5"):
        learned(Scripted(other, show=lambda e, t: np.zeros(5, np.float32)), 9, model=network(5), out=tmp_path)
    # Another network for the same environment: refused, and nothing of the old is lost.
    with pytest.raises(Unreadable, match=r"weight is float32\[2, 3, 4\], float32\[2, 3, 6\] is needed"):
        learned(Scripted(), 9, model=network(units=6), out=tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == kept
    assert same(learned(Scripted(), 5, out=tmp_path).state, first.state)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("-inf")])
def test_a_reward_that_is_no_number_is_named_and_not_learned(value):
    said, error = refused(NotFinite, Scripted(reward=lambda moves: value if moves == 5 else float(moves)))
    assert f"Scripted, move 5: the reward is {value}" in said
    assert same(error.trained.state, learned(Scripted(), 6).state)
    assert error.trained.ends.tolist() == [4]


def test_a_reward_of_another_type_is_named():
    said, _ = refused(OnwardError, Scripted(reward=lambda moves: None if moves == 2 else 1.0))
    assert "move 2: its reward is None, not a number" in said


def test_observations_that_break_their_promise_are_named():
    nan = lambda e, t: np.array([0, np.nan if (e, t) == (1, 2) else 0], np.float32)
    said, error = refused(NotFinite, Scripted(show=nan))
    assert "move 5: number 1 of the observation is nan" in said
    assert error.trained.steps == 6
    at_first = refused(NotFinite, Scripted(show=lambda e, t: np.full(2, np.nan, np.float32)))
    assert "at its first observation: number 0 of the observation is nan" in at_first[0]
    assert at_first[1].trained.steps == 0
    assert "has the shape (1,), its space says (2,)" in refused(OnwardError, Scripted(show=lambda e, t: np.zeros(1)))[0]
    odd = Scripted(spaces.Discrete(2, start=3), show=lambda e, t: 3 - (t == 2))
    assert "2 is not in Discrete(2, start=3)" in refused(OnwardError, odd)[0]
    missing = Scripted(spaces.Dict({"a": spaces.Discrete(2)}), show=lambda e, t: {"b": 1})
    assert "move" not in refused(OnwardError, missing)[0]


def test_in_one_of_several_it_says_in_which():
    envs = [Scripted, lambda: Scripted(reward=lambda moves: np.nan if moves == 2 else 1.0)]
    said, error = refused(NotFinite, SyncVectorEnv(envs), learner=agent(streams=2))
    assert "move 2: the reward of environment 1 is nan" in said
    assert error.trained.steps == 2


def test_learning_that_diverges_keeps_the_last_good_state(tmp_path):
    with pytest.raises(NotFinite, match="learning diverged at step") as error:
        learned(Scripted(reward=lambda moves: 1e10), 200, agent(1e30), out=tmp_path)
    assert all(
        np.isfinite(leaf).all() for leaf in arrays(eqx.filter(error.value.trained.state.model, eqx.is_inexact_array))
    )
    assert not list(tmp_path.glob("checkpoints/*"))


def test_streams_and_environments_are_as_many():
    both = SyncVectorEnv([Scripted, Scripted])
    assert "is 2 environments and the learner has one stream" in refused(ValueError, both)[0]
    assert "give Online(..., streams=2)" in refused(ValueError, both, learner=agent(streams=3))[0]
    assert "is one environment" in refused(ValueError, Scripted(), learner=agent(streams=3))[0]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED, None])
def test_resets_that_hide_an_end_are_refused(mode):
    env = SyncVectorEnv([Scripted], autoreset_mode=mode or AutoresetMode.NEXT_STEP)
    if mode is None:
        del env.metadata["autoreset_mode"]
    said, _ = refused(OnwardError, env, learner=agent(streams=1))
    assert "AutoresetMode.NEXT_STEP" in said


def test_what_is_no_environment_is_refused():
    said, _ = refused(TypeError, ow.MemoryChain(3))
    assert "TaskEnv(task)" in said


class Astray(Recorder):
    """Chooses what there is not."""

    def step(self, state, example):
        after, info = super().step(state, example)
        return after, info._replace(action=info.action + 2)


def test_an_action_that_there_is_not_is_refused():
    said = refused(OnwardError, Scripted(), learner=Astray())[0]
    assert "the objective chose action 3, there are 0 to 2" in said


# The other way


@pytest.fixture
def silent():
    """Gymnasium's checker recommends bounds, and a spec."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*(is probably too|recommend using a symmetric|not having a spec)")
        yield


def test_a_task_is_an_environment_that_passes_the_checker(silent):
    check_env(TaskEnv(ow.MemoryChain(4)))


def play(env, seed, actions):
    seen = [env.reset(seed=seed)[0]]
    for action in actions:
        seen.append(env.step(action))
    return seen


def test_a_task_as_an_environment_is_the_task():
    task, actions = ow.MemoryChain(4), [0, 1, 1, 1]
    seen = play(TaskEnv(task), 3, actions)
    # The world that was drawn, by hand.
    states = (task.init(jax.random.key(i)) for i in range(99))
    state, step = task.emit(next(state for state in states if state.world.context == seen[0][2]))
    np.testing.assert_array_equal(seen[0], step.x)
    for action, (x, reward, ended, cut, _) in zip(actions, seen[1:], strict=True):
        state, step = task.emit(task.act(state, jnp.asarray(action)))
        np.testing.assert_array_equal(x, step.x)
        assert (reward, ended, cut) == (float(step.y), float(step.discount) == 0, False)
    assert seen[-1][2]
    assert seen[-1][1] == seen[0][2]


class Walk(AbstractEnvironment):
    """Adds up what is done, two numbers; over where one passes 3, cut short after 4 moves."""

    inputs, actions, limit = 2, (2,), 4

    def begin(self, draw):
        return jnp.zeros(2)

    def move(self, world, action, draw):
        world = world + action
        return world, world.sum(), (world > 3).any()

    def observe(self, world):
        return world


def test_a_task_of_real_numbers_that_is_cut_short(silent):
    env = TaskEnv(Walk())
    check_env(env)
    numbers = lambda *pairs: play(env, 0, [np.array(pair, np.float32) for pair in pairs])[-1]
    x, reward, ended, cut, _ = numbers((1, 0), (1, 0), (0, 1), (0, 1))
    assert (x.tolist(), reward, ended, cut) == ([2, 2], 4, False, True)
    x, reward, ended, cut, _ = numbers((1, 0), (1, 0), (0, 1), (2, 0))
    assert (x.tolist(), reward, ended, cut) == ([4, 1], 5, True, False)
    env.reset()
    for bad in (np.ones(3), [np.nan, 0], 1):
        with pytest.raises(ValueError, match=r"an action is numbers of shape \(2,\)"):
            env.step(bad)


def test_it_is_drawn_from_its_seed():
    env, other = TaskEnv(ow.MemoryChain(3)), TaskEnv(ow.MemoryChain(3))
    contexts = lambda env, seed: [env.reset(seed=seed)[0][2], *(env.reset()[0][2] for _ in range(30))]
    drawn = contexts(env, 5)
    assert contexts(other, 5) == drawn
    assert contexts(other, 6) != drawn
    assert {*drawn} == {-1, 1}


def test_what_a_task_does_not_take_is_refused():
    env = TaskEnv(ow.MemoryChain(2))
    with pytest.raises(RuntimeError, match=r"there is no episode yet; call reset\(\) first"):
        env.step(0)
    env.reset(seed=0)
    for action in (2, -1, 0.5, np.array([0]), None):
        with pytest.raises(ValueError, match="an action is 0 to 1, got"):
            env.step(action)
    play(env, 0, [0, np.int64(1)])
    with pytest.raises(RuntimeError, match="the episode is over"):
        env.step(0)
    with pytest.raises(TypeError, match="TaskEnv needs a task that hears actions, AnBn has none"):
        TaskEnv(ow.AnBn())


def test_a_task_through_gymnasium_is_learned():
    """There and back: the memory chain of 2, where the answer is in sight one step before."""
    task, model = ow.MemoryChain(2), network(3, 2, units=8)
    learner = ow.Online(ow.Columnwise(), ow.QLambda(exploration=0.1), optax.adam(0.01))
    trained = train(TaskEnv(task), learner, model, 3000, key=KEY, quiet=True)
    assert (trained.lengths == 2).all()
    assert len(trained.returns) == 1000
    assert task.references()["memoryless"] == 0
    assert trained.returns[-200:].mean() > 0.8


POPGYM = ("RepeatFirstEasy", "MultiarmedBanditEasy", "MineSweeperEasy", "PositionOnlyCartPoleEasy", "HigherLowerEasy")


@pytest.mark.parametrize("name", POPGYM)
def test_environments_of_popgym_run(name):
    popgym = pytest.importorskip("popgym", reason="popgym is not installed")
    env = getattr(popgym.envs, name)() if hasattr(popgym.envs, name) else gymnasium.make(f"popgym-{name}-v0")
    shown = spaces.flatdim(env.observation_space)
    choices = int(np.prod(env.action_space.nvec)) if hasattr(env.action_space, "nvec") else int(env.action_space.n)
    trained = learned(env, 300, model=network(shown, choices))
    assert trained.steps == 300
    assert len(trained.returns) > 0
