"""Arms whose payouts are found by trying."""

import math
from functools import cache
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from onward.cells.base import require_size
from onward.tasks.environment import AbstractEnvironment, Draw

# The best policy is computed for so many states of what is known, at most.
SOLVED = 200_000


class BanditWorld(NamedTuple):
    """Each arm's probability to pay, and whether the last one did."""

    payouts: Float[Array, " arms"]
    paid: Bool[Array, ""]


class MultiarmedBandit(AbstractEnvironment[BanditWorld]):
    """Arms that pay with probabilities of this episode (POPGym's MultiarmedBandit; Morad et al., 2023).

    The probabilities are uniform in 0..1, drawn at the start of an episode of `limit` pulls, after which it is cut
    short. An action is an arm; a pull gives 1 / limit if it pays, else less as much. x is whether the last pull did not
    or did pay, one-hot, and (1, 0) at the start: it does not say which arm that was, so wrap the task in
    `WithLastAction`. POPGym's Easy is the default; Medium is arms=20, limit=400, Hard arms=30, limit=600.

    >>> {name: round(level, 3) for name, level in MultiarmedBandit().references().items()}
    {'random': 0.0, 'bound': 0.818}
    """

    arms: int = eqx.field(default=10, static=True)
    limit: int = eqx.field(default=200, static=True)

    def __check_init__(self) -> None:
        require_size("MultiarmedBandit", arms=self.arms, limit=self.limit)
        if self.arms < 2:
            raise ValueError(f"MultiarmedBandit: arms must be at least 2, got {self.arms}")

    @property
    def inputs(self) -> int:
        """Did not pay, paid."""
        return 2

    @property
    def actions(self) -> int:
        """The arms."""
        return self.arms

    def begin(self, draw: Draw) -> BanditWorld:
        """Fresh probabilities."""
        return BanditWorld(draw.uniform(1 + jnp.arange(self.arms, dtype=jnp.uint32)), jnp.zeros((), bool))

    def move(self, world: BanditWorld, action: Array, draw: Draw) -> tuple[BanditWorld, Array, bool]:
        """A pull."""
        paid = draw.uniform() < jnp.sum(jnp.where(jnp.arange(self.arms) == action, world.payouts, 0))
        return world._replace(paid=paid), jnp.where(paid, 1.0, -1.0) / self.limit, False

    def observe(self, world: BanditWorld) -> Float[Array, "2"]:
        """Whether the last pull paid."""
        return jnp.stack([~world.paid, world.paid]).astype(jnp.float32)

    def references(self) -> dict[str, float]:
        """Exact mean returns: random arms; the best policy, `best`, or where it cannot be computed `bound`.

        The best policy is found by dynamic programming over what was seen of each arm (times it paid, times it did
        not), for few arms and short episodes. `bound` is the return of one who is told the probabilities.
        """
        if math.comb(self.limit + 2 * self.arms, 2 * self.arms) > SOLVED:
            return {"random": 0.0, "bound": (self.arms - 1) / (self.arms + 1)}

        @cache
        def value(seen: tuple[tuple[int, int], ...], left: int) -> float:
            if not left:
                return 0.0
            found = []
            for i, (paid, failed) in enumerate(seen):
                if seen[i] in seen[:i]:
                    continue
                p = (paid + 1) / (paid + failed + 2)
                after = lambda *arm, i=i: tuple(sorted([*seen[:i], arm, *seen[i + 1 :]]))
                found.append(
                    p * (1 + value(after(paid + 1, failed), left - 1))
                    + (1 - p) * (value(after(paid, failed + 1), left - 1) - 1)
                )
            return max(found)

        return {"random": 0.0, "best": value(((0, 0),) * self.arms, self.limit) / self.limit}
