"""What is remembered of a target: its last values, what came a season before, and what is usual at which time."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from onward.rows.calendar import CLASSES, NONE, PARTS, SEASONS, SLOTS, SORTS

# Differences of the target from row to row that are kept.
LAGS = 48
# Changes and levels of a class are running means, at first plain averages.
RATE_CHANGE, RATE_LEVEL, RATE_CONSTANT = 0.02, 0.05, 0.05
# Further than any time in a slot.
FAR = 2**24


class Past(NamedTuple):
    """What is remembered of one target.

    `lags`: its last values, newest first. `mean`: that of all, and how many there were. `seasons`: the values one
    season before the last row, `lag` rows after those, and one step later still. `values`, `later`, `times`: by slot of
    time the last value, that of `lag` rows later, and when it was. `places`: those of the last `lag` rows in these
    tables, newest first. `change`, `level`: means, and counts, by class. `span`: of a target of a path, how many rows
    ahead it is, in place of `lag`; else nothing.
    """

    lags: Float[Array, " lags+1"]
    mean: Float[Array, "2"]
    seasons: Float[Array, "3 seasons"]
    values: Float[Array, " slots"]
    later: Float[Array, " slots"]
    times: Int[Array, " slots"]
    places: Int[Array, " lag"]
    change: Float[Array, "sorts classes 2"]
    level: Float[Array, "sorts classes 2"]
    span: Int[Array, ""] | tuple[()] = ()

    @classmethod
    def start(cls, lag: int, span: Int[Array, ""] | tuple[()] = ()) -> "Past":
        """Nothing seen."""
        none = jnp.zeros((SORTS, CLASSES, 2))
        return cls(
            jnp.full(LAGS + 1, jnp.nan),
            jnp.zeros(2),
            jnp.full((3, len(SEASONS) + 1), jnp.nan),
            jnp.zeros(SLOTS + 1),
            jnp.full(SLOTS + 1, jnp.nan),
            jnp.full(SLOTS + 1, NONE, jnp.int32),
            jnp.full(lag, SLOTS, jnp.int32),
            none,
            none,
            span,
        )

    @property
    def _before(self) -> Array:
        """The place of the row so many rows before the next one."""
        return self.places[-1] if isinstance(self.span, tuple) else self.places[self.span - 1]

    def see(self, y: Array, step: Array, at: Int[Array, " width"]) -> "Past":
        """Take in a row: its target y (NaN: none, and the last stands in), and by how much its level has moved."""
        lags, (mean, count), before = self.lags + step, self.mean, self._before
        y = jnp.where(jnp.isfinite(y), y, lags[0])
        known = jnp.isfinite(y)
        # What is not known goes to a place beyond the end: so tables are written in place.
        place = jnp.where(known & (at[0] != NONE), at[0] // PARTS % SLOTS, SLOTS)
        seasons, never = self._seasons(at, before, y)
        write = lambda table, value, place: lax.dynamic_update_index_in_dim(table, value, place + never, 0)
        return Past(
            jnp.concatenate([jnp.where(known, y, lags[0])[None], lags[:-1]]),
            jnp.where(known, jnp.stack([mean + (y - mean) / (count + 1), count + 1]), self.mean),
            seasons,
            write(self.values, y, place),
            write(write(self.later, y, before), jnp.nan, place),
            write(self.times, at[0], place),
            jnp.concatenate([place[None], self.places[:-1]]),
            self.change,
            self.level,
            self.span,
        )

    def learn(self, classes: Int[Array, " sorts"], change: Array, y: Array) -> "Past":
        """With what a target and its change have been that was predicted for a row of these classes; NaN: not known."""
        change = _counted(self.change, classes, change, RATE_CHANGE)
        return self._replace(change=change, level=_counted(self.level, classes, y, RATE_LEVEL))

    def _seasons(self, at: Int[Array, " width"], before: Array, y: Array) -> tuple[Array, Array]:
        """As `Past.seasons` has them, of the rows nearest to a season before this; NaN: none within a step and a half.

        The tables are read as they were before this row, whose value y belongs to the row at place `before`. The second
        result is 0: added to where they are written, it makes XLA read them first. Else it copies them at every row.
        """
        wanted = at[1 : 2 + len(SEASONS)]
        slots = wanted[:, None] // PARTS + jnp.arange(-2, 3)[None]
        places = slots % SLOTS
        times, values, later = self.times[places], self.values[places], self.later[places]
        never = jnp.any(times == NONE + 1) & jnp.any(values == jnp.inf) & jnp.any(later == jnp.inf)
        later = jnp.where(places == before, y, later)
        there = (times // PARTS == slots) & (times != NONE) & (wanted != NONE)[:, None]
        off = jnp.where(there, jnp.abs(times - wanted[:, None]), FAR)
        nearest = jnp.argmin(off, 1)
        found = jnp.min(off, 1) <= 3 * PARTS // 2
        each, after = jnp.arange(len(wanted)), jnp.minimum(nearest + 1, 4)
        beyond = jnp.where(there, later, jnp.nan)[each, after]
        three = jnp.stack([values[each, nearest], later[each, nearest], beyond])
        return jnp.where(found, three, jnp.nan), never.astype(jnp.int32)

    def classes(self, at: Int[Array, " width"]) -> tuple[Array, Array]:
        """The mean change and the mean level of the classes of the row that is predicted; NaN where none was seen."""
        which, sorts = at[-SORTS:], jnp.arange(SORTS)
        held = jnp.stack([self.change[sorts, which], self.level[sorts, which]])
        change, level = jnp.where((held[..., 1] > 0) & (which >= 0)[None], held[..., 0], jnp.nan)
        return change, level


def moved(held: Array, classes: Array, by: Array, known: Array) -> Array:
    """Constants of classes, with their counts, of which one of each sort moves by its share of something."""
    return _each(held, classes, known, lambda _, count: jnp.maximum(1 / (count + 6), RATE_CONSTANT) * by)


def _counted(held: Array, classes: Array, value: Array, rate: float) -> Array:
    """Running means of classes, with their counts, after one value of one class of each sort."""
    move = lambda mean, count: jnp.maximum(1 / (count + 1), rate) * (value - mean)
    return _each(held, classes, jnp.isfinite(value), move)


def _each(held: Array, classes: Array, known: Array, move: Callable[[Array, Array], Array]) -> Array:
    """Of each sort the number of one class moves, by its value and count, and is counted."""
    for sort in range(SORTS):
        place = jnp.maximum(classes[sort], 0)
        was = held[sort, place]
        by = move(was[0], was[1])
        new = was + jnp.where(known & (classes[sort] >= 0), jnp.stack([by, jnp.ones_like(by)]), 0)
        held = lax.dynamic_update_slice(held, new[None, None], (sort, place, 0))
    return held
