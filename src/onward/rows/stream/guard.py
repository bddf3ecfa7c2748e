"""Whether a reading is believed: one far from all that its column did before is not, until another agrees with it."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from onward.rows.stream.moments import RATE_CHANGES

# Values of a column before any of them is strange.
WARM = 50
# A value is strange this many usual distances from where it was expected, and further than `SLACK` times any before it.
FAR_LAST, FAR_SAID, SLACK = 8.0, 12.0, 2.0
# What one strange value adds to what is no longer strange: no more than this factor. What fades of it with each value.
GROW, FADE = 3.0, 3e-4


class Examined(NamedTuple):
    """Of each column: the value to go by, whether the reading was `strange`, and whether it confirmed a new level.

    `step`: where the level has `moved`, by how much; 0 elsewhere. `other`: the strange value before it.
    """

    value: Float[Array, " n"]
    strange: Bool[Array, " n"]
    moved: Bool[Array, " n"]
    step: Float[Array, " n"]
    other: Float[Array, " n"]


class Guard(NamedTuple):
    """What is believed of each column of a row.

    d = |value - expected|, the last value that was believed where nothing else is expected. A value is strange where d
    is above r = max(often usual, SLACK largest): `usual` is the running mean of d, `largest` the largest d of late,
    fading. One value moves neither far. In place of a strange value stands one at r^2 / d from what was expected: the
    further it is, the less it is followed, without a step at r. It is kept as the `other` level. Where the next value
    x lies nearer to that than to what was expected, the level has moved by what the strange value was off, and the
    other is x less that: a level that comes back undoes it.
    """

    seen: Float[Array, " n"]
    last: Float[Array, " n"]
    usual: Float[Array, " n"]
    largest: Float[Array, " n"]
    other: Float[Array, " n"]

    @classmethod
    def start(cls, n: int) -> "Guard":
        """Nothing seen."""
        none = jnp.full(n, jnp.nan)
        return cls(jnp.zeros(n), none, jnp.zeros(n), jnp.zeros(n), none)

    def see(
        self,
        x: Float[Array, " n"],
        expected: Float[Array, " n"],
        often: float,
        *,
        followed: bool = True,
    ) -> tuple["Guard", Examined]:
        """Take in one value of each column; NaN: none. `expected`: NaN where nothing is but the last value.

        `often`: how many usual distances make a value strange, `FAR_LAST` or `FAR_SAID`. `followed`: whether strange
        values are, by a little; if not, what was expected stands in their place.
        """
        seen, last, usual, largest, other = self
        expected = jnp.where(jnp.isfinite(expected), expected, last)
        known, distance = jnp.isfinite(x), jnp.abs(x - expected)
        judged = known & jnp.isfinite(distance)
        reach = jnp.maximum(often * usual, SLACK * largest)
        far = judged & (distance > reach)
        back = jnp.abs(x - other)  # NaN where there is no other level
        moved = judged & ((back < distance / 2) | (far & (back < distance)))
        strange = far & (seen >= WARM) & ~moved
        held = jnp.where(strange, expected, x)
        share = jnp.minimum(reach / jnp.where(far, distance, 1), 1)
        some = share * reach * jnp.sign(x - expected) if followed else 0
        value = jnp.where(strange, expected + some, x)
        step = jnp.where(moved, other - last, 0)
        pace = jnp.where(judged, jnp.maximum(1 / jnp.maximum(seen, 1), RATE_CHANGES), 0)
        distance = jnp.where(judged, distance, 0)
        counted = jnp.where(reach > 0, jnp.minimum(distance, reach), distance)
        grown = jnp.where(reach > 0, jnp.minimum(distance, GROW / SLACK * reach), distance)
        after = Guard(
            seen + known,
            jnp.where(known, held, last),
            usual + pace * (counted - usual),
            jnp.where(judged, jnp.maximum((1 - FADE) * largest, grown), largest),
            jnp.where(strange, x, jnp.where(moved, x - step, jnp.where(known, jnp.nan, other))),
        )
        return after, Examined(value, strange, moved, step, other)
