"""Breakout against a twin in plain Python, and its best return reached."""

import random

import jax
import numpy as np
import pytest

import onward as ow
from tasks.solver import roll


def twin(state, action, size, rows):
    """One move by the rules as the docstring says them: state, reward, whether it ends."""
    paddle, (row, column), (down, right), bricks = state
    paddle = min(max(paddle + {0: 0, 1: -1, 2: 1}[action], 0), size - 1)
    if not 0 <= column + right < size:
        right = -right
    if row + down < 0:
        down = -down
    cell = row + down, column + right
    if cell in bricks:
        bricks = bricks - {cell}
        return (paddle, (row, column), (-down, right), bricks), 1, not bricks
    if cell[0] < size - 1:
        return (paddle, cell, (down, right), bricks), 0, False
    if paddle == cell[1]:
        return (paddle, (row, cell[1]), (-1, right), bricks), 0, False
    if paddle == column:
        return (paddle, (row, column), (-1, -right), bricks), 0, False
    return (paddle, cell, (down, right), bricks), 0, True


def start(world, size, rows):
    bricks = frozenset((row, column) for row in range(1, rows + 1) for column in range(size))
    return int(world.paddle), (int(world.row), int(world.column)), (int(world.down), int(world.right)), bricks


def seen(state, task):
    paddle, (row, column), _, bricks = state
    ball = np.zeros((task.size, task.size))
    ball[row, column] = 1
    wall = [(row, column) in bricks for row in range(1, task.rows + 1) for column in range(task.size)]
    return np.concatenate([np.eye(task.size)[paddle], ball[: task.size - 1 - task.dark].reshape(-1), wall])


def landing(state, size, rows):
    """The columns at which the ball will be caught: below the cell it is to enter, and below itself."""
    while state[1][0] + state[2][0] < size - 1:
        state, _, _ = twin(state, 0, size, rows)
    column, right = state[1][1], state[2][1]
    return column + (right if 0 <= column + right < size else -right), column


def plan(state, size, rows, limit, chooser):
    """Actions of one who sees all, catches every ball and chooses one of the two ways at random; what they give."""
    actions, total, aim = [], 0, None
    while len(actions) < limit:
        if aim is None or (state[1][0] == size - 2 and state[2][0] == -1):  # a new flight
            aim = landing(state, size, rows)[chooser.randrange(2)]
        actions.append(0 if aim == state[0] else 1 + (aim > state[0]))
        state, reward, ended = twin(state, actions[-1], size, rows)
        total += reward
        if ended:
            break
    return actions, total


@pytest.mark.parametrize("task", [ow.Breakout(), ow.Breakout(6, 2, 0, 40), ow.Breakout(7, 1, 5)], ids=str)
def test_it_is_its_twin(task):
    chooser, ends = random.Random(1), set()
    for seed in range(12):
        begun = start(task.init(jax.random.key(seed)).world, task.size, task.rows)
        actions, _ = plan(begun, task.size, task.rows, task.limit, chooser)
        if seed % 2:  # a player who looks away
            actions = [chooser.randrange(3) if chooser.random() < 0.05 else action for action in actions]
        actions += [0] * (task.limit + 1 - len(actions))
        _, steps = roll(task, np.array(actions), seed)
        np.testing.assert_array_equal(steps.x[0], seen(begun, task))
        for t, action in enumerate(actions[:-1], 1):
            begun, reward, ended = twin(begun, action, task.size, task.rows)
            np.testing.assert_array_equal(steps.x[t], seen(begun, task))
            over = ended or t == task.limit
            assert (steps.y[t], steps.truth.over[t], steps.discount[t]) == (reward, over, 0.0 if ended else 1.0)
            if over:
                ends.add((ended, bool(begun[3])))
                break
    assert (True, True) in ends
    assert len(ends) > 1


def test_every_brick_can_be_broken_from_every_start():
    task, chooser, starts = ow.Breakout(), random.Random(0), {}
    for seed in range(400):
        world = task.init(jax.random.key(seed)).world
        starts.setdefault((int(world.column), int(world.right)), seed)
    assert len(starts) == 20
    for seed in starts.values():
        begun = start(task.init(jax.random.key(seed)).world, 10, 3)
        total = 0
        while total < 30:
            actions, total = plan(begun, 10, 3, 500, chooser)
        _, steps = roll(task, np.array(actions + [0] * (501 - len(actions))), seed)
        end = len(actions)
        assert (steps.truth.total[end], steps.discount[end]) == (task.references()["best"], 0.0)
