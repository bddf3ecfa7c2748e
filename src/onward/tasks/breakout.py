"""An arcade game in partial sight."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from onward.cells.base import require_size
from onward.tasks.cards import one_hot
from onward.tasks.environment import AbstractEnvironment, Draw

STAY, LEFT, RIGHT = range(3)


class CourtWorld(NamedTuple):
    """The paddle's column, the ball's row and column, its direction (1: down, to the right; -1: not), the bricks."""

    paddle: Int[Array, ""]
    row: Int[Array, ""]
    column: Int[Array, ""]
    down: Int[Array, ""]
    right: Int[Array, ""]
    bricks: Bool[Array, " bricks"]


class Breakout(AbstractEnvironment[CourtWorld]):
    """Break a wall with a ball that is not always seen: a small Breakout, after MinAtar's (Young and Tian, 2019).

    The court has size x size cells; bricks fill rows 1 to `rows` of it, from the top; the paddle, one cell, moves in
    the last row: stay, left or right (0 to 2). The ball moves one cell diagonally, after the paddle. At a side or the
    top it turns and moves on. At a brick it breaks it, which gives 1, and turns up or down where it is. Above the last
    row the player has a choice: with the paddle below the cell that the ball was to enter it turns up and moves one
    cell sideways; with the paddle below the ball itself it turns up and sideways where it is. Else it is lost, and the
    episode ends; so it does with the last brick; after `limit` moves it is cut short. At the start the ball is under
    the wall in any column and falls to either side, the paddle is in the middle.

    x is the paddle's column, one-hot; the ball's cell, one-hot, of the rows down to the lowest `dark` ones above the
    paddle's, in which it is not seen; and the bricks. Where the ball goes is never shown. dark=0 shows all rows.
    ValueError for a court without room.

    >>> Breakout().inputs, Breakout().references()
    (90, {'best': 30.0})
    """

    size: int = eqx.field(default=10, static=True)
    rows: int = eqx.field(default=3, static=True)
    dark: int = eqx.field(default=4, static=True)
    limit: int = eqx.field(default=500, static=True)

    def __check_init__(self) -> None:
        require_size("Breakout", size=self.size, rows=self.rows, limit=self.limit)
        if self.size < self.rows + 4:
            raise ValueError(f"Breakout: {self.rows} rows of bricks need a size of {self.rows + 4}, got {self.size}")
        if isinstance(self.dark, bool) or not isinstance(self.dark, int) or not 0 <= self.dark < self.size - 1:
            raise ValueError(f"Breakout: dark must be a whole number from 0 to {self.size - 2}, got {self.dark!r}")

    @property
    def inputs(self) -> int:
        """Paddle, ball where it is seen, bricks."""
        return self.size * (1 + self.size - 1 - self.dark + self.rows)

    @property
    def actions(self) -> int:
        """Stay, left, right."""
        return 3

    def begin(self, draw: Draw) -> CourtWorld:
        """A whole wall, and a ball under it."""
        return CourtWorld(
            paddle=jnp.full((), self.size // 2, jnp.int32),
            row=jnp.full((), self.rows + 1, jnp.int32),
            column=draw.integer(0, self.size - 1, 0),
            down=jnp.ones((), jnp.int32),
            right=2 * draw.integer(0, 1, 1) - 1,
            bricks=jnp.ones(self.rows * self.size, bool),
        )

    def move(self, world: CourtWorld, action: Array, draw: Draw) -> tuple[CourtWorld, Array, Array]:
        """The paddle moves, then the ball."""
        last = self.size - 1
        paddle = jnp.clip(world.paddle + (action == RIGHT) - (action == LEFT), 0, last)
        ahead = world.column + world.right
        right = jnp.where((ahead < 0) | (ahead > last), -world.right, world.right)
        down = jnp.where(world.row + world.down < 0, 1, world.down)
        row, column = world.row + down, world.column + right
        here = jnp.arange(self.rows * self.size) == (row - 1) * self.size + column
        broken = jnp.any(here & world.bricks)
        bottom = row == last
        caught = bottom & ((paddle == column) | (paddle == world.column))
        aside = caught & (paddle != column)
        after = CourtWorld(
            paddle=paddle,
            row=jnp.where(broken | caught, world.row, row),
            column=jnp.where(broken | aside, world.column, column),
            down=jnp.where(broken | caught, -down, down),
            right=jnp.where(aside, -right, right),
            bricks=world.bricks & ~here,
        )
        return after, broken.astype(jnp.float32), (bottom & ~caught) | ~jnp.any(after.bricks)

    def observe(self, world: CourtWorld) -> Float[Array, " inputs"]:
        """The paddle, the ball where it is seen, the bricks."""
        seen = (self.size - 1 - self.dark) * self.size
        ball = jnp.arange(seen) == world.row * self.size + world.column
        return jnp.concatenate([one_hot(world.paddle, self.size), ball, world.bricks]).astype(jnp.float32)

    def references(self) -> dict[str, float]:
        """The return of the best policy: every brick.

        Of the default court that is reached from every start, with moves to spare; where the limit leaves no time for
        it, no policy exceeds it.
        """
        return {"best": float(self.rows * self.size)}
