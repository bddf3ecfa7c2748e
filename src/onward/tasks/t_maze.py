"""A corridor with a sign at its start that says which way to turn at its end."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from onward.cells.base import require_size
from onward.tasks.environment import AbstractEnvironment, Draw

# Actions, and where the goal can be.
NORTH, EAST, SOUTH, WEST = range(4)
GOAL, WRONG = 4.0, -0.1


class MazeWorld(NamedTuple):
    """Whether the goal is in the north, and how far down the corridor one stands."""

    north: Int[Array, ""]
    place: Int[Array, ""]


class TMaze(AbstractEnvironment[MazeWorld]):
    """A sign at the start of a corridor says which way to turn at its end (Bakker, 2002).

    x is (0, 1, 1) at the start if the goal is in the north, (1, 1, 0) if it is in the south; (1, 0, 1) in the corridor;
    (0, 1, 0) at the junction, `length` moves from the start. Actions are north, east, south, west (0 to 3); the
    corridor leads east, and one may go back west, to the sign too. At the junction north and south end the episode,
    with 4 if the goal is there, else -0.1. A move into a wall changes nothing and costs 0.1. `limit` moves cut an
    episode short (None, as published: never; random actions take some 2 length^2).

    >>> {name: round(level, 3) for name, level in TMaze(10).references().items()}
    {'random': -11.15, 'memoryless': 1.95, 'best': 4.0}
    """

    length: int = eqx.field(default=10, static=True)
    limit: int | None = eqx.field(default=None, static=True)

    def __check_init__(self) -> None:
        require_size("TMaze", length=self.length, **({} if self.limit is None else {"limit": self.limit}))
        if self.limit is not None and self.limit <= self.length:
            raise ValueError(
                f"TMaze: the goal is {self.length + 1} moves away, a limit of {self.limit} never gets there; "
                f"say limit={self.length + 1} or more"
            )

    @property
    def inputs(self) -> int:
        """Three bits."""
        return 3

    @property
    def actions(self) -> int:
        """North, east, south, west."""
        return 4

    def begin(self, draw: Draw) -> MazeWorld:
        """At the sign."""
        return MazeWorld(draw.integer(0, 1), jnp.zeros((), jnp.int32))

    def move(self, world: MazeWorld, action: Array, draw: Draw) -> tuple[MazeWorld, Array, Array]:
        """One move."""
        turn = (action == NORTH) | (action == SOUTH)
        place = jnp.clip(world.place + (action == EAST) - (action == WEST), 0, self.length)
        ended = turn & (world.place == self.length)
        right = (action == NORTH) == (world.north == 1)
        reward = jnp.where(ended & right, GOAL, jnp.where(place == world.place, WRONG, 0.0))
        return world._replace(place=place), reward, ended

    def observe(self, world: MazeWorld) -> Float[Array, "3"]:
        """The sign, the corridor or the junction."""
        start, junction = world.place == 0, world.place == self.length
        corridor = ~start & ~junction
        sign = start & (world.north == 0), start & (world.north == 1)
        return jnp.stack([corridor | sign[0], ~corridor, corridor | sign[1]]).astype(jnp.float32)

    def references(self) -> dict[str, float]:
        """Exact mean returns without a limit: random actions, the best policy without memory, the best."""
        size = self.length + 1
        # The value of each place under random actions solves v = r + P v.
        passes, reward = np.zeros((size, size)), np.zeros(size)
        for place in range(size):
            for action in (NORTH, EAST, SOUTH, WEST):
                after = min(max(place + (action == EAST) - (action == WEST), 0), self.length)
                if place == self.length and action in (NORTH, SOUTH):
                    reward[place] += (GOAL + WRONG) / 8
                else:
                    passes[place, after] += 1 / 4
                    reward[place] += WRONG / 4 * (after == place)
        random = np.linalg.solve(np.eye(size) - passes, reward)[0]
        return {"random": float(random), "memoryless": (GOAL + WRONG) / 2, "best": GOAL}
