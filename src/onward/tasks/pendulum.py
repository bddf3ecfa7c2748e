"""A pendulum that a weak motor swings up."""

import math
from functools import cache
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from onward.cells.base import require_size
from onward.tasks.environment import AbstractEnvironment, Draw

# Metres, kilograms, seconds, newton metres, radians a second.
GRAVITY, TICK, STRONGEST, FASTEST = 10.0, 0.05, 2.0, 8.0
# The largest cost of a move by POPGym, which is that of 8 rad/s, hanging down, at full torque.
DEAREST = 16.2736044
# Levels are solved on a grid of angles and speeds, for some torques: the levels change by .001 with twice as many.
ANGLES, SPEEDS, TORQUES = 200, 129, 9


class PendulumWorld(NamedTuple):
    """Its angle from upright, and how fast it turns."""

    angle: Float[Array, ""]
    speed: Float[Array, ""]


class Pendulum(AbstractEnvironment[PendulumWorld]):
    """Swing a pendulum up and hold it: Gymnasium's Pendulum-v1, without its velocity (POPGym; Morad et al., 2023).

    An action is a torque, an array (1,) of one real number in N m, cut to -2..2; the start is uniform, angle in
    -pi..pi, velocity in -1..1 rad/s. x is the cosine and the sine of the angle from upright; `hidden=False` shows the
    angular velocity too. A move costs c = angle^2 + 0.1 velocity^2 + 0.001 torque^2 of before it; its reward is
    (1 - c / 8.1368) / limit, as POPGym scales it, so that a return lies in -1..1; `scaled=False` gives -c. An episode
    has no end and is cut short after `limit` moves. POPGym's Easy is the default; Medium is limit=150, Hard limit=100.

    >>> {name: round(level, 2) for name, level in Pendulum().references().items()}
    {'random': 0.25, 'bound': 0.91}
    """

    hidden: bool = eqx.field(default=True, static=True)
    limit: int = eqx.field(default=200, static=True)
    scaled: bool = eqx.field(default=True, static=True)

    def __check_init__(self) -> None:
        require_size("Pendulum", limit=self.limit)

    @property
    def inputs(self) -> int:
        """Cosine and sine, or the velocity too."""
        return 2 if self.hidden else 3

    @property
    def actions(self) -> tuple[int, ...]:
        """A torque."""
        return (1,)

    def begin(self, draw: Draw) -> PendulumWorld:
        """Anywhere, nearly at rest."""
        return PendulumWorld((2 * draw.uniform(0) - 1) * math.pi, 2 * draw.uniform(1) - 1)

    def move(self, world: PendulumWorld, action: Array, draw: Draw) -> tuple[PendulumWorld, Array, bool]:
        """A push of 1/20 s."""
        angle, speed = world
        torque = jnp.clip(action[0], -STRONGEST, STRONGEST)
        tilt = (angle + math.pi) % (2 * math.pi) - math.pi
        cost = jnp.square(tilt) + 0.1 * jnp.square(speed) + 0.001 * jnp.square(torque)
        speed = jnp.clip(speed + (1.5 * GRAVITY * jnp.sin(angle) + 3 * torque) * TICK, -FASTEST, FASTEST)
        # Kept within a turn, so that single precision does not lose the angle of one that spins.
        turned = (angle + speed * TICK + math.pi) % (2 * math.pi) - math.pi
        reward = (1 - cost / (DEAREST / 2)) / self.limit if self.scaled else -cost
        return PendulumWorld(turned, speed), reward, False

    def observe(self, world: PendulumWorld) -> Float[Array, " inputs"]:
        """What is seen of it."""
        seen = [jnp.cos(world.angle), jnp.sin(world.angle)]
        return jnp.stack(seen if self.hidden else [*seen, world.speed])

    def references(self) -> dict[str, float]:
        """Torques drawn evenly, `random`; the best policy of one who sees the velocity, `bound`: both to some .002.

        By dynamic programming over a grid, a second or so. What the best policy gets that has to feel the velocity is
        not known; it loses little but the first move.
        """
        levels = dict(zip(("random", "bound"), _levels(self.limit), strict=True))
        return levels if self.scaled else {k: (v - 1) * self.limit * DEAREST / 2 for k, v in levels.items()}


@cache
def _levels(limit: int) -> tuple[float, float]:
    """The scaled returns of random torques and of the best ones; values between nodes by bilinear interpolation."""
    angles = np.linspace(-math.pi, math.pi, ANGLES, endpoint=False)
    speeds = np.linspace(-FASTEST, FASTEST, SPEEDS)
    angle, speed = (each.ravel() for each in np.meshgrid(angles, speeds, indexing="ij"))
    moves = []
    for torque in np.linspace(-STRONGEST, STRONGEST, TORQUES):
        faster = np.clip(speed + (1.5 * GRAVITY * np.sin(angle) + 3 * torque) * TICK, -FASTEST, FASTEST)
        left, across = np.divmod((angle + faster * TICK + math.pi) / (2 * math.pi) * ANGLES, 1)
        low, above = np.divmod((faster + FASTEST) / (2 * FASTEST) * (SPEEDS - 1), 1)
        nodes = [(left + i) % ANGLES * SPEEDS + np.minimum(low + j, SPEEDS - 1) for i in (0, 1) for j in (0, 1)]
        shares = [(across if i else 1 - across) * (above if j else 1 - above) for i in (0, 1) for j in (0, 1)]
        cost = np.square(angle) + 0.1 * np.square(speed) + 0.001 * torque**2
        moves.append(((1 - cost / (DEAREST / 2)) / limit, np.stack(nodes).astype(int), np.stack(shares)))
    even = np.full(TORQUES, 1 / (TORQUES - 1))
    even[[0, -1]] /= 2
    drawn, best = np.zeros(angle.size), np.zeros(angle.size)
    for _ in range(limit):
        drawn = sum(p * (r + (shares * drawn[nodes]).sum(0)) for p, (r, nodes, shares) in zip(even, moves, strict=True))
        best = np.max([r + (shares * best[nodes]).sum(0) for r, nodes, shares in moves], 0)
    slow = np.interp(np.abs(speeds), [1 - 1e-9, 1, 1 + 1e-9], [1, 0.5, 0])  # the trapezoidal rule over -1..1
    weights = np.tile(slow / slow.sum() / ANGLES, ANGLES)
    return float(weights @ drawn), float(weights @ best)
