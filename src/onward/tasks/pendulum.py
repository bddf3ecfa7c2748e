"""A pendulum that a weak motor swings up."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from onward.cells.base import require_size
from onward.tasks.environment import AbstractEnvironment, Draw

# Metres, kilograms, seconds, newton metres, radians a second.
GRAVITY, TICK, STRONGEST, FASTEST = 10.0, 0.05, 2.0, 8.0
# The largest cost of a move by POPGym, which is that of 8 rad/s, hanging down, at full torque.
DEAREST = 16.2736044


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

    >>> Pendulum().references()
    {'bound': 1.0}
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
        """What no policy exceeds: upright from the start, at rest. What the best one gets is not known exactly."""
        return {"bound": 1.0 if self.scaled else 0.0}
