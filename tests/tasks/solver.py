"""What policies get in a small game, by enumeration over the game's own program: every random number, every action."""

import functools
from collections import defaultdict
from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


class Script(eqx.Module):
    """Random numbers that are given: those of `Draw`, one a lane."""

    values: jax.Array

    def uniform(self, lane=0):
        return self.values[lane]

    def integer(self, low, high, lane=0):
        return low + (self.values[lane] * (high - low + 1)).astype(jnp.int32)


def shuffles(cards, decks=1):
    """Every (probability, numbers) by which a deck of so many cards, or fewer, is dealt from: all alike."""
    count = int(np.lcm.reduce(np.arange(1, cards + 1)))
    middles = (np.arange(count) + 0.5) / count
    return [(count**-decks, values) for values in product(middles, repeat=decks)]


class Game:
    """A task as a graph of worlds. `starts` and `outcomes` are lists of (probability, numbers); or `outcomes(world,
    action)` gives one, and `starts` are (probability, world). `same(world)` is one world of those that are alike.
    """

    def __init__(self, task, starts, outcomes, same=lambda world: world):
        self.task, self.outcomes, self.same = task, outcomes, same
        self.limit = task.limit or 10_000
        self.known, self.after, self.seen = {}, {}, {}

        @jax.jit
        @jax.vmap
        def move(world, action, values):
            after, reward, ended = task.move(world, action, Script(values))
            return after, jnp.asarray(reward, float), jnp.asarray(ended), task.observe(after)

        self._move = move
        if starts and not hasattr(starts[0][1], "_fields"):
            begun = [task.begin(Script(jnp.asarray(values, jnp.float32))) for _, values in starts]
            starts = [(p, world) for (p, _), world in zip(starts, begun, strict=True)]
        self.starts = defaultdict(float)
        for p, world in starts:
            self.starts[self._key(world, task.observe(world))] += p

    def _key(self, world, seen):
        world = self.same(jax.tree.map(np.asarray, world))
        key = b"|".join(leaf.tobytes() for leaf in jax.tree.leaves(world))
        self.known.setdefault(key, world)
        self.seen[key] = np.asarray(seen).tobytes()
        return key

    def moves(self, key):
        """(probability, reward, whether it ends, world) of each action."""
        if key not in self.after:
            world, rows = self.known[key], []
            for action in range(self.task.actions):
                given = self.outcomes(world, action) if callable(self.outcomes) else self.outcomes
                rows += [(action, p, values) for p, values in given]
            spread = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(rows), *leaf.shape)), world)
            values = np.array([row[2] for row in rows], np.float32)
            out = self._move(spread, np.array([row[0] for row in rows], np.int32), values)
            after, rewards, ended, seen = jax.tree.map(np.asarray, out)
            found = [defaultdict(float) for _ in range(self.task.actions)]
            for i, (action, p, _) in enumerate(rows):
                other = self._key(jax.tree.map(lambda leaf, i=i: leaf[i], after), seen[i])
                found[action][float(rewards[i]), bool(ended[i]), other] += p
            self.after[key] = [[(p, *what) for what, p in one.items()] for one in found]
        return self.after[key]

    def follow(self, policy):
        """The mean return, and all that is observed, of a policy: observation -> probabilities of actions."""
        alive, total, met = dict(self.starts), 0.0, set()
        for _ in range(self.limit):
            met |= {self.seen[key] for key in alive}
            after = defaultdict(float)
            for key, p in alive.items():
                for share, outcomes in zip(policy(self.seen[key]), self.moves(key), strict=True):
                    for q, reward, ended, other in outcomes if share else ():
                        total += p * share * q * reward
                        if not ended:
                            after[other] += p * share * q
            alive = after
            if sum(alive.values()) < 1e-13:
                break
        return total, met

    def random(self):
        return self.follow(lambda seen: [1 / self.task.actions] * self.task.actions)[0]

    def memoryless(self):
        """The best of all policies that choose by what is seen."""
        met, found = sorted(self.follow(lambda seen: [1 / self.task.actions] * self.task.actions)[1]), []
        for chosen in product(np.eye(self.task.actions), repeat=len(met)):
            table = dict(zip(met, chosen, strict=True))
            found.append(self.follow(table.__getitem__)[0])
        return max(found)

    def best(self):
        """The best policy that remembers all that was seen and done: beliefs are distributions over worlds."""
        solved = {}

        def split(belief):
            groups = defaultdict(dict)
            for key, p in belief.items():
                groups[self.seen[key]][key] = p
            return groups.values()

        def value(belief, left):
            mass = sum(belief.values())
            if not left or mass < 1e-14:
                return 0.0
            name = left, frozenset((key, round(p / mass, 10)) for key, p in belief.items())
            if name not in solved:
                found = []
                for action in range(self.task.actions):
                    total, after = 0.0, defaultdict(float)
                    for key, p in belief.items():
                        for q, reward, ended, other in self.moves(key)[action]:
                            total += p * q * reward
                            if not ended:
                                after[other] += p * q
                    found.append(total + sum(value(group, left - 1) for group in split(after)))
                solved[name] = max(found) / mass
            return solved[name] * mass

        return sum(value(group, self.limit) for group in split(self.starts))


def check(game, **more):
    """The task's `references` are what enumeration finds; `more`: those that are not by the names here."""
    said = game.task.references()
    found = {name: more[name] if name in more else getattr(game, name)() for name in said}
    assert found.keys() == said.keys()
    for name, level in said.items():
        np.testing.assert_allclose(found[name], level, atol=1e-6, err_msg=name)


@functools.cache
def _player(task):
    def step(state, action):
        after, example = task.emit(state)
        return task.act(after, action), (state, example)

    return jax.jit(lambda state, actions: jax.lax.scan(step, state, actions)[1])


def roll(task, actions, seed=0):
    """States before each emission, and the steps, of a task that is told these actions."""
    out = _player(task)(task.init(jax.random.key(seed)), jnp.asarray(actions))
    return jax.tree.map(np.asarray, out)
