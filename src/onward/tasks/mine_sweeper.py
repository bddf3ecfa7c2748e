"""Mines under a grid, found by counting."""

import math
from functools import cache
from itertools import combinations
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from onward.cells.base import require_size
from onward.tasks.environment import AbstractEnvironment, Draw

# The best policy is computed for so many places of the mines, at most.
SOLVED = 150


class FieldWorld(NamedTuple):
    """Where the mines are, which tiles were viewed, and how many mines lie at the last one."""

    mines: Bool[Array, " tiles"]
    viewed: Bool[Array, " tiles"]
    near: Int[Array, ""]


class MineSweeper(AbstractEnvironment[FieldWorld]):
    """View all tiles of a square that hide no mine (POPGym's MineSweeper; Morad et al., 2023).

    An action is a tile, row by row from 0 (POPGym's row and column, flattened). x is the number of mines on the tile
    and the eight around it, one-hot, of min(mines + 1, 10) numbers; at the start that of 0. It does not say which tile
    that was, so wrap the task in `WithLastAction`. With n tiles free of mines a new one gives 1 / n, one viewed before
    -0.5 / (n - 2), and a mine -0.5 - 1 / n and ends the episode. So does the last free tile; after n moves it is cut
    short. POPGym's Easy is the default; Medium is size=6, mines=6, Hard size=8, mines=10.
    ValueError for fewer than three free tiles.

    >>> {name: round(level, 3) for name, level in MineSweeper(3, 1).references().items()}
    {'random': -0.067, 'best': 0.819}
    """

    size: int = eqx.field(default=4, static=True)
    mines: int = eqx.field(default=2, static=True)

    def __check_init__(self) -> None:
        require_size("MineSweeper", size=self.size, mines=self.mines)
        if self.limit < 3:
            raise ValueError(
                f"MineSweeper: {self.mines} mines leave {max(self.limit, 0)} of {self.tiles} tiles free, "
                "at least 3 are needed; take fewer mines or a larger size"
            )

    @property
    def tiles(self) -> int:
        """Tiles of the square."""
        return self.size**2

    @property
    def limit(self) -> int:
        """Tiles that are free of mines: moves of an episode, at most."""
        return self.tiles - self.mines

    @property
    def inputs(self) -> int:
        """The counts, with 0."""
        return min(self.mines + 1, 10)

    @property
    def actions(self) -> int:
        """The tiles."""
        return self.tiles

    def begin(self, draw: Draw) -> FieldWorld:
        """Mines anywhere (Floyd's way to draw a set: nothing is sorted)."""
        place, mines = jnp.arange(self.tiles), jnp.zeros(self.tiles, bool)
        for i, most in enumerate(range(self.tiles - self.mines, self.tiles)):
            drawn = draw.integer(0, most, i)
            mines |= place == jnp.where(jnp.any(mines & (place == drawn)), most, drawn)
        return FieldWorld(mines, jnp.zeros(self.tiles, bool), jnp.zeros((), jnp.int32))

    def move(self, world: FieldWorld, action: Array, draw: Draw) -> tuple[FieldWorld, Array, Array]:
        """A tile is viewed."""
        place = jnp.arange(self.tiles)
        here = place == action
        near = (abs(place // self.size - action // self.size) <= 1) & (abs(place % self.size - action % self.size) <= 1)
        mine, again = jnp.any(here & world.mines), jnp.any(here & world.viewed)
        viewed = world.viewed | (here & ~world.mines)
        free, old, lost = self._rewards()
        reward = jnp.where(mine, lost, jnp.where(again, old, free))
        after = FieldWorld(world.mines, viewed, jnp.sum(near & world.mines).astype(jnp.int32))
        return after, reward, mine | jnp.all(viewed | world.mines)

    def observe(self, world: FieldWorld) -> Float[Array, " counts"]:
        """The last count."""
        return (jnp.arange(self.inputs) == world.near).astype(jnp.float32)

    def references(self) -> dict[str, float]:
        """Exact mean returns: random tiles; the best policy, `best`, or where it cannot be computed `bound`.

        The best policy is found over all sets of places where the mines can still be. `bound` is the return of one who
        knows them. What the best policy without memory gets is not known.
        """
        free, old, lost = self._rewards()
        random, alive = 0.0, {0: 1.0}
        for _ in range(self.limit):
            after: dict[int, float] = {}
            for viewed, p in alive.items():
                fresh, again = (self.limit - viewed) / self.tiles, viewed / self.tiles
                random += p * (fresh * free + again * old + (1 - fresh - again) * lost)
                after[viewed] = after.get(viewed, 0.0) + p * again
                if viewed + 1 < self.limit:
                    after[viewed + 1] = after.get(viewed + 1, 0.0) + p * fresh
            alive = after
        if math.comb(self.tiles, self.mines) > SOLVED:
            return {"random": random, "bound": 1.0}
        return {"random": random, "best": self._best()}

    def _rewards(self) -> tuple[float, float, float]:
        """Of a free tile, of one that was viewed before, of a mine."""
        return 1 / self.limit, -0.5 / (self.limit - 2), -0.5 - 1 / self.limit

    def _best(self) -> float:
        free, old, lost = self._rewards()
        row, column = np.divmod(np.arange(self.tiles), self.size)
        near = (abs(row[:, None] - row) <= 1) & (abs(column[:, None] - column) <= 1)
        sets = [sum(1 << tile for tile in mines) for mines in combinations(range(self.tiles), self.mines)]
        around = [sum(1 << int(tile) for tile in np.flatnonzero(line)) for line in near]

        @cache
        def value(possible: tuple[int, ...], viewed: int) -> float:
            left = self.limit - viewed.bit_count()
            if len(possible) == 1 or not left:
                return left * free
            hidden = [tile for tile in range(self.tiles) if not viewed >> tile & 1]
            safe = [tile for tile in hidden if not any(mines >> tile & 1 for mines in possible)]
            # Where a tile is surely free, it comes first: no other gives more, and nothing is lost by knowing it.
            # To view old ones gives nothing but time that passes: worth it only up to the end.
            options = [] if safe else [left * old]
            for tile in safe[:1] or hidden:
                clear: dict[int, list[int]] = {}
                for mines in possible:
                    if not mines >> tile & 1:
                        clear.setdefault((mines & around[tile]).bit_count(), []).append(mines)
                total = (len(possible) - sum(map(len, clear.values()))) * lost
                for those in clear.values():
                    total += len(those) * (free + value(tuple(those), viewed | 1 << tile))
                options.append(total / len(possible))
            return max(options)

        return value(tuple(sets), 0)
