"""Exact levels of games against enumeration, over each game's own program, of all that can happen in small ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from tasks.solver import Game, check, shuffles

DECKS = [
    (ow.RepeatPrevious(1, 2, 2), 4, 1),
    (ow.RepeatPrevious(2, 2, 2), 4, 1),
    (ow.RepeatPrevious(2, 3, 2), 6, 1),
    (ow.RepeatFirst(2, 2), 4, 1),
    (ow.RepeatFirst(3, 2), 6, 1),
    (ow.CountRecall(2, 2), 4, 2),
    (ow.HigherLower(2, 3), 6, 1),
    (ow.HigherLower(3, 2), 6, 1),
]


@pytest.mark.parametrize(("task", "cards", "decks"), DECKS, ids=[str(row[0]) for row in DECKS])
def test_cards(task, cards, decks):
    check(Game(task, shuffles(cards, decks), shuffles(cards, decks)))


def in_order(world):
    """The same table with its cards moved about: nothing depends on where they lie."""
    first = np.arange(len(world.kind)) == world.first
    order = np.lexsort([world.kind, world.up, world.shown, first])
    place = np.int32(np.argmax(first[order]) if first.any() else -1)
    return world._replace(kind=world.kind[order], up=world.up[order], shown=world.shown[order], first=place)


@pytest.mark.parametrize("task", [ow.Concentration(2, 2), ow.Concentration(3, 2)], ids=str)
def test_concentration(task):
    check(Game(task, [(1.0, [0.0])], shuffles(task.cards), in_order))


def test_a_bandit_with_probabilities_on_the_nodes_of_a_quadrature():
    """Exact for polynomials of the degree that an episode has."""
    task = ow.MultiarmedBandit(2, 4)
    nodes, weights = np.polynomial.legendre.leggauss(4)
    nodes, weights = (nodes + 1) / 2, weights / 2
    world = task.begin(ow.Draw(np.zeros(2, np.uint32), np.int32(0)))
    starts = [
        (weights[i] * weights[j], world._replace(payouts=np.array([nodes[i], nodes[j]], np.float32)))
        for i in range(4)
        for j in range(4)
    ]
    pays = lambda world, arm: [(float(world.payouts[arm]), [0.0]), (1 - float(world.payouts[arm]), [1.0])]
    check(Game(task, starts, pays))
    assert ow.MultiarmedBandit(2, 40).references()["best"] < 1 / 3  # the bound, for one who is told


@pytest.mark.parametrize("task", [ow.MineSweeper(2, 1), ow.MineSweeper(3, 1)], ids=str)
def test_mine_sweeper(task):
    tiles = task.size**2
    check(Game(task, [(1 / tiles, [(i + 0.5) / tiles]) for i in range(tiles)], [(1.0, [0.0])]))


def test_t_maze():
    """Without a limit random actions take long; the others are as good with one that is enough."""
    task, limited = ow.TMaze(3), Game(ow.TMaze(3, limit=6), SIGNS, [(1.0, [0.0])])
    random = Game(task, SIGNS, [(1.0, [0.0])]).random()
    check(limited, random=random)


SIGNS = [(0.5, [0.25]), (0.5, [0.75])]


@pytest.mark.parametrize("length", [1, 3])
def test_memory_chain(length):
    check(Game(ow.MemoryChain(length), SIGNS, [(1.0, [0.0])]))


def swung_up(world):
    """A torque that adds energy while the pendulum hangs, and holds it where it is nearly up."""
    angle, speed = world
    energy = 0.5 * jnp.square(speed) + 15 * (jnp.cos(angle) - 1)
    pumped = jnp.where(energy < 0, 2 * jnp.sign(speed), -2 * jnp.sign(speed))
    return jnp.where((abs(angle) < 0.6) & (abs(speed) < 4), -10 * angle - 3 * speed, pumped)


def test_pendulum_by_playing_it():
    """Drawn torques get what is said of them; a policy made by hand comes near the best, and none exceeds it."""
    task, episodes = ow.Pendulum(), 20_000

    def played(policy):
        def episode(key):
            start, *moves = jax.random.split(key, task.limit + 1)
            begin = jax.random.uniform(start, (2,), minval=-1) * jnp.array([np.pi, 1.0])

            def move(world, key):
                after, reward, _ = task.move(world, policy(world, key)[None], None)
                return after, reward

            return jax.lax.scan(move, type(world)(*begin), jnp.stack(moves))[1].sum()

        world = task.begin(ow.Draw(np.zeros(2, np.uint32), np.int32(0)))
        returns = np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), episodes)))
        return returns.mean(), returns.std() / episodes**0.5

    levels = task.references()
    mean, error = played(lambda world, key: jax.random.uniform(key, minval=-2, maxval=2))
    assert abs(mean - levels["random"]) < 4 * error + 0.002, (mean, error, levels)
    mean, error = played(lambda world, key: swung_up(world))
    assert levels["bound"] - 0.05 < mean < levels["bound"] + 4 * error, (mean, error, levels)
    plain = ow.Pendulum(scaled=False).references()
    assert plain["bound"] == pytest.approx((levels["bound"] - 1) * 200 * 16.2736044 / 2)
