"""Say at the end what was shown at the start."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from onward.cells.base import require_size
from onward.tasks.environment import AbstractEnvironment, Draw


class ChainWorld(NamedTuple):
    """The context of this episode, and the moves so far."""

    context: Int[Array, ""]
    time: Int[Array, ""]


class MemoryChain(AbstractEnvironment[ChainWorld]):
    """A bit is shown at the start, and asked for at the end (bsuite's memory length; Osband et al., 2020).

    x = [1 - t / length, query, context]: the context, -1 or 1, is shown at t = 0 only, and the query, 1, at
    t = length - 1. The action of that moment ends the episode: a reward of 1 if it is the context (action 1 for 1, 0
    for -1), else of -1; actions before it do nothing. So an answer needs what was shown length - 1 observations before.

    >>> MemoryChain(10).references()
    {'random': 0.0, 'memoryless': 0.0, 'best': 1.0}
    """

    length: int = eqx.field(default=16, static=True)

    def __check_init__(self) -> None:
        require_size("MemoryChain", length=self.length)

    @property
    def inputs(self) -> int:
        """Time left, query, context."""
        return 3

    @property
    def actions(self) -> int:
        """The two answers."""
        return 2

    def begin(self, draw: Draw) -> ChainWorld:
        """A context of -1 or 1, alike."""
        return ChainWorld(2 * draw.integer(0, 1) - 1, jnp.zeros((), jnp.int32))

    def move(self, world: ChainWorld, action: Array, draw: Draw) -> tuple[ChainWorld, Array, Array]:
        """Time goes on; the last action is judged."""
        last = world.time == self.length - 1
        right = (2 * action - 1) == world.context
        return world._replace(time=world.time + 1), jnp.where(last, jnp.where(right, 1.0, -1.0), 0.0), last

    def observe(self, world: ChainWorld) -> Float[Array, "3"]:
        """Time left, whether it is asked now, and at the start the context."""
        left = 1 - world.time / self.length
        return jnp.stack([left, world.time == self.length - 1, jnp.where(world.time == 0, world.context, 0)])

    def references(self) -> dict[str, float]:
        """Exact mean returns: of random actions, of the best policy without memory, of the best one."""
        memoryless = 1.0 if self.length == 1 else 0.0
        return {"random": 0.0, "memoryless": memoryless, "best": 1.0}
