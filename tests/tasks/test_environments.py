"""Games by hand, what they refuse, and what wraps them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from tasks.solver import roll


def test_k_memory_chain_asks_for_the_bit_of_k_steps_ago():
    rng = np.random.default_rng(0)
    for k in (0, 1, 5, 40):
        actions = rng.integers(0, 2, 300)
        _, steps = roll(ow.KMemoryChain(k), actions)
        bits = steps.x[:, 0]
        assert set(bits) == {-1.0, 1.0}
        asked = np.concatenate([np.zeros(k), bits])[:-1][: len(bits) - 1]
        expected = np.where(2 * actions[:-1] - 1 == asked, 1.0, -1.0) * (asked != 0)
        np.testing.assert_array_equal(steps.y[1:], expected)
        np.testing.assert_array_equal(steps.reset, np.arange(300) == 0)
        assert not steps.truth.over.any()
        assert abs(bits.mean()) < 5 / math.sqrt(300)
        assert abs((bits[1:] * bits[:-1]).mean()) < 5 / math.sqrt(300)


def test_a_walk_through_the_t_maze():
    north, east, _, west = range(4)
    walk = [west, north, east, west, east, east, east, east]
    for seed in range(8):
        states, steps = roll(ow.TMaze(3), np.array([*walk, north, east]), seed)
        sign = [0, 1, 1] if states.world.north[0] else [1, 1, 0]
        shown = [sign, sign, sign, [1, 0, 1], sign, [1, 0, 1], [1, 0, 1], [0, 1, 0], [0, 1, 0], [0, 1, 0]]
        np.testing.assert_array_equal(steps.x, shown)
        last = 4 if states.world.north[0] else -0.1
        np.testing.assert_allclose(steps.y, [0, -0.1, -0.1, 0, 0, 0, 0, 0, -0.1, last], rtol=1e-6)
        np.testing.assert_array_equal(steps.discount, [1] * 9 + [0])


def test_cart_pole_is_balanced_by_one_who_sees_all():
    """Its best return is reached; random pushes last some 22 moves."""
    task = ow.CartPole(hidden=False)

    def step(state, _):
        state, example = task.emit(state)
        push = (example.x @ jnp.array([0.1, 0.3, 1.0, 0.5]) > 0).astype(jnp.int32)
        return task.act(state, push), example.truth

    end = jax.jit(jax.vmap(lambda key: jax.lax.scan(step, task.init(key), None, length=501)[1]))
    truth = end(jax.random.split(jax.random.key(0), 20))
    assert (truth.total[:, -1] == task.references()["best"]).all()
    assert truth.over[:, -1].all()
    _, steps = roll(ow.CartPole.popgym(), np.random.default_rng(0).integers(0, 2, 8000))
    lengths = np.asarray(steps.truth.length)[steps.truth.over]
    assert 19 < lengths.mean() < 26
    np.testing.assert_allclose(np.asarray(steps.truth.total)[steps.truth.over], lengths / 200, rtol=1e-4)


def test_pendulum_shows_its_velocity_only_when_asked():
    torques = np.full((201, 1), 5.0, np.float32)
    (_, seen), (_, hidden) = roll(ow.Pendulum(hidden=False), torques), roll(ow.Pendulum(), torques)
    np.testing.assert_array_equal(seen.x[:, :2], hidden.x)
    assert np.abs(seen.x[:, 2]).max() > 1.5
    assert -1 < seen.truth.total[-1] < 1
    assert (seen.truth.over[-1], seen.discount[-1]) == (True, 1.0)


@pytest.mark.parametrize("task", [ow.MultiarmedBandit(3, 5), ow.Pendulum(limit=5)], ids=["choice", "numbers"])
def test_what_was_done_is_seen(task):
    rng = np.random.default_rng(0)
    numbers = task.actions if isinstance(task.actions, int) else 1
    actions = rng.integers(0, 3, 40) if numbers == 3 else rng.normal(size=(40, 1)).astype(np.float32)
    wrapped = ow.WithLastAction(task)
    (_, alone), (_, steps) = roll(task, actions), roll(wrapped, actions)
    assert wrapped.inputs == steps.x.shape[1] == task.inputs + numbers + 1
    done = np.concatenate([np.zeros((1, numbers)), np.eye(3)[actions] if numbers == 3 else actions])[:-1]
    said = np.where(steps.reset[:, None], 0, np.concatenate([done, alone.y[:, None]], 1))
    np.testing.assert_array_equal(steps.x, np.concatenate([alone.x, said], 1).astype(np.float32))
    assert steps.reset.sum() == 7
    for name in ("y", "reset", "discount"):
        np.testing.assert_array_equal(getattr(steps, name), getattr(alone, name))
    _, without = roll(ow.WithLastAction(task, reward=False), actions)
    np.testing.assert_array_equal(without.x, steps.x[:, :-1])


def test_wrappers_compose():
    inner = ow.WithLastAction(ow.MultiarmedBandit(3, 5))
    many = ow.Streams(ow.Normalised(inner, rewards=ow.ReturnScale(0.9)), 4)
    _, steps = roll(many, np.random.default_rng(0).integers(0, 3, (60, 4)))
    assert steps.x.shape == (60, 4, inner.inputs)
    _, plain = roll(ow.Streams(inner, 4), np.random.default_rng(0).integers(0, 3, (60, 4)))
    for mine, other in zip(steps.truth, plain.truth, strict=True):  # episodes are told in the game's own units
        np.testing.assert_array_equal(mine, other)
    assert not np.allclose(steps.y, plain.y)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: ow.KMemoryChain(-1), "k must be a whole number of at least 0, got -1"),
        (lambda: ow.TMaze(0), "length must be a whole number of at least 1, got 0"),
        (lambda: ow.TMaze(5, limit=5), "the goal is 6 moves away, a limit of 5 never gets there; say limit=6"),
        (lambda: ow.RepeatPrevious(52), "k must be less than the 52 cards, got 52"),
        (lambda: ow.RepeatFirst(1), "RepeatFirst: kinds must be at least 2, got 1"),
        (lambda: ow.CountRecall(copies=0), "copies must be a whole number of at least 1, got 0"),
        (lambda: ow.HigherLower(copies=1.5), "copies must be a whole number of at least 1, got 1.5"),
        (lambda: ow.Concentration(2, 3), "copies must be even, so that all cards have pairs, got 3"),
        (lambda: ow.MultiarmedBandit(1), "arms must be at least 2, got 1"),
        (lambda: ow.MineSweeper(2, 2), "2 mines leave 2 of 4 tiles free, at least 3 are needed"),
        (lambda: ow.CartPole(limit=0), "limit must be a whole number of at least 1, got 0"),
        (lambda: ow.CartPole(reward=0.0), "reward must be above 0, got 0.0"),
        (lambda: ow.CartPole.popgym(0), "limit must be a whole number of at least 1, got 0"),
        (lambda: ow.Pendulum(limit=True), "limit must be a whole number of at least 1, got True"),
        (lambda: ow.Breakout(6, 3), "3 rows of bricks need a size of 7, got 6"),
        (lambda: ow.Breakout(dark=9), "dark must be a whole number from 0 to 8, got 9"),
    ],
)
def test_bad_arguments(build, match):
    with pytest.raises(ValueError, match=match) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_what_cannot_be_wrapped():
    with pytest.raises(TypeError, match="takes a task that hears actions, AnBn does not"):
        ow.WithLastAction(ow.AnBn())
    task = ow.WithLastAction(ow.Streams(ow.MemoryChain(3), 2))
    with pytest.raises(TypeError, match=r"several streams are made of it: Streams\(WithLastAction\(task\), count\)"):
        task.emit(task.init(jax.random.key(0)))
