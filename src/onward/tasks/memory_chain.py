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


class BitsWorld(NamedTuple):
    """The bit of now, and how many there were."""

    bit: Int[Array, ""]
    seen: Int[Array, ""]


class KMemoryChain(AbstractEnvironment[BitsWorld]):
    """A fresh bit at every step, and always the same question: which was it k steps ago.

    x is the bit, -1 or 1. An action (1 for 1, 0 for -1) is rewarded by 1 if it names the bit of k steps before the one
    that is seen, else by -1; by 0 where there was none yet. It has no end: `references` are of one step, not of a
    return. k = 0 asks for the bit that is seen. No cost in k: the old bit is drawn once more, from its counter.

    >>> KMemoryChain(8).references()
    {'random': 0.0, 'memoryless': 0.0, 'best': 1.0}
    """

    k: int = eqx.field(default=4, static=True)

    def __check_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 0:
            raise ValueError(f"KMemoryChain: k must be a whole number of at least 0, got {self.k!r}")

    @property
    def inputs(self) -> int:
        """The bit."""
        return 1

    @property
    def actions(self) -> int:
        """The two bits."""
        return 2

    def begin(self, draw: Draw) -> BitsWorld:
        """The first bit."""
        return BitsWorld(draw.integer(0, 1), jnp.ones((), jnp.int32))

    def move(self, world: BitsWorld, action: Array, draw: Draw) -> tuple[BitsWorld, Array, bool]:
        """The answer is judged; another bit."""
        asked = draw._replace(step=draw.step - 1 - self.k).integer(0, 1)
        reward = jnp.where(world.seen > self.k, jnp.where(action == asked, 1.0, -1.0), 0.0)
        # Which bit it is does not matter once k were seen: no counter that overflows.
        return BitsWorld(draw.integer(0, 1), jnp.minimum(world.seen + 1, self.k + 1)), reward, False

    def observe(self, world: BitsWorld) -> Float[Array, "1"]:
        """The bit."""
        return 2.0 * world.bit[None] - 1

    def references(self) -> dict[str, float]:
        """Exact mean rewards of a step that is judged: random actions, the best policy without memory, the best."""
        return {"random": 0.0, "memoryless": 1.0 if self.k == 0 else 0.0, "best": 1.0}
