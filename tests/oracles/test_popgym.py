"""POPGym's and Gymnasium's games beside ours: the same hidden state, the same actions, step by step.

Ours play first; then theirs get the cards, payouts, mines or starts that ours had, by a generator that returns them.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from tasks.solver import roll

REASON = "make test-oracles installs it"
gymnasium = pytest.importorskip("gymnasium", reason=REASON)
pytest.importorskip("popgym", reason=REASON)

from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv  # noqa: E402
from popgym.envs import (  # noqa: E402
    concentration,
    count_recall,
    higher_lower,
    minesweeper,
    multiarmed_bandit,
    position_only_cartpole,
    position_only_pendulum,
    repeat_first,
    repeat_previous,
)

rng = np.random.default_rng(0)


class Given:
    """A generator whose numbers are given, in the order in which they are asked for."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def shuffle(self, deck):
        deck[:] = self.numbers.pop(0)

    def _next(self, *_, **__):
        return self.numbers.pop(0)

    random = choice = uniform = _next


def episodes(task, actions, seed=0):
    """(states, steps, actions) of whole episodes."""
    states, steps = roll(task, actions, seed)
    starts = [*np.flatnonzero(steps.reset), len(actions)]
    for begin, end in itertools.pairwise(starts):
        if steps.truth.over[end - 1]:
            cut = lambda leaf, begin=begin, end=end: leaf[begin:end]
            yield jax.tree.map(cut, states), jax.tree.map(cut, steps), actions[begin:end]


def replay(env, given, steps, actions, seen, atol=1e-6):
    """The environment, with what is given for its random numbers, says what ours said."""
    env.np_random = given
    x, _ = env.reset()
    np.testing.assert_allclose(seen(x), steps.x[0], atol=atol)
    for t, action in enumerate(actions[:-1], 1):
        x, reward, terminated, truncated, _ = env.step(action)
        np.testing.assert_allclose(seen(x), steps.x[t], atol=atol)
        np.testing.assert_allclose(reward, steps.y[t], atol=atol)
        last = t == len(actions) - 1
        assert (terminated or truncated) == last == steps.truth.over[t]
        assert steps.discount[t] == (0.0 if terminated else 1.0)
    assert not given.numbers
    return len(actions) - 1


def decks(*kinds_of_hands):
    """For hands of kinds in the order dealt: an order of cards with those kinds, from the end of which is dealt."""
    for kind_of, dealt in kinds_of_hands:
        cards = [list(np.flatnonzero(kind_of == kind)) for kind in range(kind_of.max() + 1)]
        yield np.array([cards[kind].pop() for kind in dealt] + [*itertools.chain(*cards)])[::-1]


def one_hot(*sizes):
    return lambda x: np.concatenate([np.eye(n)[int(i)] for n, i in zip(sizes, np.atleast_1d(x), strict=True)])


CARDS = {
    "previous": (ow.RepeatPrevious(), repeat_previous.RepeatPreviousEasy),
    "previous, hard": (ow.RepeatPrevious(64, 4, 39), repeat_previous.RepeatPreviousHard),
    "first": (ow.RepeatFirst(), repeat_first.RepeatFirstEasy),
    "first, medium": (ow.RepeatFirst(4, 104), repeat_first.RepeatFirstMedium),
    "higher": (ow.HigherLower(), higher_lower.HigherLowerEasy),
    "higher, hard": (ow.HigherLower(13, 12), higher_lower.HigherLowerHard),
    "count": (ow.CountRecall(), count_recall.CountRecallEasy),
    "count, hard": (ow.CountRecall(13, 16), count_recall.CountRecallHard),
}


@pytest.mark.parametrize("name", CARDS)
def test_cards(name):
    task, make = CARDS[name]
    env, played, right = make(), 0, 0
    hands = 2 if name.startswith("count") else 1
    for _, steps, actions in episodes(task, rng.integers(0, task.actions, 900)):
        deck = env.value_deck if hands == 2 else env.deck
        kind_of = env.deck_idx_type if hands == 2 else deck.ranks_idx if "higher" in name else deck.suits_idx
        kinds = steps.x.reshape(len(steps.x), hands, -1).argmax(-1)
        orders = decks(*((kind_of, kinds[:, i]) for i in range(hands)))
        played += replay(env, Given(*orders), steps, actions, one_hot(*[task.kinds] * hands))
        right += (steps.y > 0).sum()
    assert played > 400
    assert right > 10
    assert (env.action_space.n, len(one_hot(*[task.kinds] * hands)([0] * hands))) == (task.actions, task.inputs)


@pytest.mark.parametrize(
    ("task", "make"),
    [
        (ow.Concentration(), concentration.ConcentrationEasy),
        (ow.Concentration(2, 52), concentration.ConcentrationMedium),
        (ow.Concentration(13, 4), concentration.ConcentrationHard),
    ],
    ids=["easy", "medium", "hard"],
)
def test_concentration(task, make):
    env, played, pairs = make(), 0, 0
    # Pairs of nearby places, so that cards are met again and some that are up already.
    actions = (rng.integers(0, task.cards, 1200) + np.repeat(rng.integers(0, 2, 600), 2)) % task.cards
    for states, steps, done in episodes(task, actions):
        kinds, left = states.world.kind[-1].copy(), list(states.world.left[-1])
        for place in np.flatnonzero(kinds < 0):  # never turned: any that are left
            kinds[place] = np.flatnonzero(left)[0]
            left[kinds[place]] -= 1
        (order,) = decks((env.deck_idx_type, kinds))
        played += replay(env, Given(order[::-1]), steps, done, one_hot(*[task.kinds + 1] * task.cards))
        pairs += (steps.y > 0).sum()
    assert played > 800
    assert pairs > 10


def test_concentration_is_won():
    """All cards up: by one who knows them, once they were seen."""
    task, env = ow.Concentration(), concentration.ConcentrationEasy()
    act, emit = jax.jit(task.act), jax.jit(task.emit)
    state, steps, actions = task.init(jax.random.key(4)), [], []
    while True:
        state, step = emit(state)
        steps.append(jax.tree.map(np.asarray, step))
        if step.truth.over:
            break
        kind, up, first = map(np.asarray, (state.world.kind, state.world.up, state.world.first))
        free = ~up & (np.arange(task.cards) != first)
        known = free & (kind == kind[first]) if first >= 0 else np.zeros(task.cards, bool)
        fresh = free & (kind < 0)
        actions.append(np.flatnonzero(known if known.any() else fresh if fresh.any() else free)[0])
        state = act(state, actions[-1])
    assert float(step.truth.total) > 0.7
    assert step.discount == 0
    (order,) = decks((env.deck_idx_type, np.asarray(state.world.kind)))
    together = jax.tree.map(lambda *leaves: np.stack(leaves), *steps)
    replay(env, Given(order[::-1]), together, [*actions, 0], one_hot(*[task.kinds + 1] * task.cards))


def test_multiarmed_bandit():
    task, env = ow.MultiarmedBandit(), multiarmed_bandit.MultiarmedBanditEasy()
    for states, steps, actions in episodes(task, rng.integers(0, 10, 1000)):
        pulls = [float(ow.Draw(states.seed[t], states.step[t] + 1).uniform()) for t in range(len(actions) - 1)]
        assert replay(env, Given(states.world.payouts[0], *pulls), steps, actions, one_hot(2)) == 200


@pytest.mark.parametrize(
    ("task", "make"),
    [
        (ow.MineSweeper(), minesweeper.MineSweeperEasy),
        (ow.MineSweeper(6, 6), minesweeper.MineSweeperMedium),
        (ow.MineSweeper(8, 10), minesweeper.MineSweeperHard),
    ],
    ids=["easy", "medium", "hard"],
)
def test_mine_sweeper(task, make):
    env, ends = make(), set()
    env.step = lambda tile, step=env.step: step(np.unravel_index(tile, env.dims))
    # Random tiles hit a mine soon; tiles in order that are free, and one in a while is not.
    for seed in range(12):
        mines = np.asarray(task.init(jax.random.key(seed)).world.mines)
        actions = np.resize(np.flatnonzero(~mines), task.limit + 1)
        if seed % 3 == 1:
            actions[3] = np.flatnonzero(mines)[0]
        elif seed % 3 == 2:
            actions[4] = actions[3]
        states, steps, done = next(episodes(task, actions, seed))
        replay(env, Given(np.flatnonzero(states.world.mines[0])), steps, done, one_hot(task.inputs))
        ends.add((len(done) == task.limit + 1, float(steps.discount[-1])))
    assert ends == {(True, 0.0), (False, 0.0), (True, 1.0)}


@pytest.mark.parametrize("task", [ow.CartPole.popgym(), ow.CartPole.popgym(600)], ids=["easy", "hard"])
def test_cart_pole(task):
    env = position_only_cartpole.PositionOnlyCartPole(max_episode_length=task.limit)
    for states, steps, actions in episodes(task, rng.integers(0, 2, 400)):
        start = np.array([leaf[0] for leaf in states.world], float)
        replay(env, Given(start), steps, actions, lambda x: x, atol=1e-5)


def test_pendulum():
    task, env = ow.Pendulum(), position_only_pendulum.PositionOnlyPendulumEasy()
    actions = rng.uniform(-3, 3, (900, 1)).astype(np.float32)
    for states, steps, done in episodes(task, actions):
        start = np.array([leaf[0] for leaf in states.world], float)
        # In single precision: angles that spin for 10 s.
        assert replay(env, Given(start), steps, done, lambda x: x, atol=3e-3) == 200


def held(task, env, start, actions):
    """Our move in double precision beside theirs, over a whole trajectory."""
    with jax.enable_x64(True):
        world = type(task.begin(ow.Draw(jnp.zeros(2, jnp.uint32), 0)))(*map(jnp.asarray, start))
        env.reset()
        env.state = np.array(start)
        move = jax.jit(lambda world, action: task.move(world, action, None))
        for action in actions:
            world, reward, ended = move(world, action)
            _, theirs, terminated, _, _ = env.step(action)
            yield world, env.state, (reward, theirs), (ended, terminated)
            if terminated:
                return


def test_cart_pole_in_double_precision():
    seen = 0
    for _ in range(30):
        start = rng.uniform(-0.05, 0.05, 4)
        for mine, theirs, rewards, ends in held(ow.CartPole(), CartPoleEnv(), start, rng.integers(0, 2, 200)):
            np.testing.assert_allclose(np.array(mine), theirs, rtol=1e-12, atol=1e-13)
            assert rewards[0] == rewards[1]
            assert bool(ends[0]) == ends[1]
            seen += 1
    assert seen > 400


def test_pendulum_in_double_precision():
    start, torques = np.array([3.0, 0.5]), rng.uniform(-3, 3, (200, 1))
    task = ow.Pendulum(hidden=False, scaled=False)
    for mine, theirs, rewards, ends in held(task, PendulumEnv(), start, torques):
        angle, speed = map(float, mine)
        other = np.cos(theirs[0]), np.sin(theirs[0]), theirs[1]
        np.testing.assert_allclose([np.cos(angle), np.sin(angle), speed], other, atol=1e-9)
        np.testing.assert_allclose(*rewards, atol=1e-9)
        assert not ends[0]


def test_cart_pole_with_all_shown_is_gymnasiums():
    task = ow.CartPole(hidden=False)
    env = gymnasium.make("CartPole-v1")
    assert (task.limit, task.inputs, task.actions) == (env.spec.max_episode_steps, 4, env.action_space.n)
    for states, steps, actions in episodes(task, rng.integers(0, 2, 100)):
        env.unwrapped.np_random = Given(np.array([leaf[0] for leaf in states.world], float))
        x, _ = env.reset()
        np.testing.assert_allclose(x, steps.x[0], atol=1e-6)
        for t, action in enumerate(actions[:-1], 1):
            x, reward, terminated, _, _ = env.step(action)
            np.testing.assert_allclose(x, steps.x[t], atol=1e-5)
            assert (reward, terminated) == (steps.y[t], steps.discount[t] == 0)
