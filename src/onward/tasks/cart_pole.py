"""A pole on a cart."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from onward.cells.base import require_size
from onward.tasks.environment import AbstractEnvironment, Draw

# Metres, kilograms, newtons, seconds, radians.
GRAVITY, CART, POLE, HALF, FORCE, TICK = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
FAR, TILTED = 2.4, 12 * math.pi / 180
TOTAL = CART + POLE


class CartWorld(NamedTuple):
    """Where the cart is and how fast, how far the pole leans and how fast."""

    x: Float[Array, ""]
    x_dot: Float[Array, ""]
    theta: Float[Array, ""]
    theta_dot: Float[Array, ""]


class CartPole(AbstractEnvironment[CartWorld]):
    """Keep a pole upright by pushing its cart left (0) or right (1) (Barto et al., 1983).

    Gymnasium's CartPole-v1: its constants, Euler's method, and a start uniform in -0.05..0.05 of each number. x is
    where the cart is (m) and how far the pole leans (rad), without their velocities, as POPGym's PositionOnlyCartPole;
    `hidden=False` shows all four: position, velocity, angle, angular velocity. Each move gives `reward`, that with
    which the pole falls (more than 12 degrees) or the cart leaves (more than 2.4 m) too, which ends the episode; it is
    cut short after `limit`. So a return counts moves, to 500. `CartPole.popgym()` has POPGym's scale.

    >>> CartPole().references()
    {'best': 500.0}
    """

    hidden: bool = eqx.field(default=True, static=True)
    limit: int = eqx.field(default=500, static=True)
    reward: float = eqx.field(default=1.0, static=True)

    @classmethod
    def popgym(cls, limit: int = 200) -> "CartPole":
        """POPGym's PositionOnlyCartPole: a return is at most 1. Easy is the default; Medium is 400, Hard 600."""
        require_size("CartPole", limit=limit)
        return cls(limit=limit, reward=1 / limit)

    def __check_init__(self) -> None:
        require_size("CartPole", limit=self.limit)
        if not 0 < self.reward < math.inf:
            raise ValueError(f"CartPole: reward must be above 0, got {self.reward}")

    @property
    def inputs(self) -> int:
        """Position and angle, or the velocities too."""
        return 2 if self.hidden else 4

    @property
    def actions(self) -> int:
        """Left and right."""
        return 2

    def begin(self, draw: Draw) -> CartWorld:
        """Nearly at rest, nearly upright."""
        return CartWorld(*(0.1 * draw.uniform(lane) - 0.05 for lane in range(4)))

    def move(self, world: CartWorld, action: Array, draw: Draw) -> tuple[CartWorld, float, Array]:
        """A push of 1/50 s."""
        x, x_dot, theta, theta_dot = world
        force = jnp.where(action == 1, FORCE, -FORCE)
        cosine, sine = jnp.cos(theta), jnp.sin(theta)
        pushed = (force + POLE * HALF * jnp.square(theta_dot) * sine) / TOTAL
        turned = (GRAVITY * sine - cosine * pushed) / (HALF * (4 / 3 - POLE * jnp.square(cosine) / TOTAL))
        driven = pushed - POLE * HALF * turned * cosine / TOTAL
        after = CartWorld(x + TICK * x_dot, x_dot + TICK * driven, theta + TICK * theta_dot, theta_dot + TICK * turned)
        return after, self.reward, (abs(after.x) > FAR) | (abs(after.theta) > TILTED)

    def observe(self, world: CartWorld) -> Float[Array, " inputs"]:
        """What is seen of it."""
        return jnp.stack([world.x, world.theta] if self.hidden else list(world))

    def references(self) -> dict[str, float]:
        """The exact return of the best policy: the pole stays up."""
        return {"best": self.limit * self.reward}
