"""The mean of the two numbers that were marked."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from onward.random import uniform
from onward.tasks.lag import AbstractLag, drawn

# An answer is wrong if its squared error is above this.
TOLERANCE = 0.04


class Adding(AbstractLag):
    """A number and a mark at each step: say the mean of the two marked numbers at the end.

        x_t = (u_t, marked_t),  u_t ~ U(0, 1)
        marks at t1 in [0, T/10) and t2 in [T/10, T/2),  y = (u_t1 + u_t2) / 2

    Steps are counted from 0; t1 is one of floor(T/10) steps and t2 of floor(4T/10). An answer is wrong if its squared
    error is above .04, that is off by more than .2.

    From Hochreiter & Schmidhuber (1997, task 4); as Pascanu et al. (2013) and Manchev & Spratling (2020) have it, all
    sequences of one length (Pascanu et al. draw it from T .. 1.1 T). Not taken, of 1997: numbers from -1 .. 1, their
    sum / 4 + 1/2 as the target, marks of -1 at both ends, t2 in [0, T/2), and an absolute error of .04 as wrong.
    Beware of means: the best constant answer, 1/2, has a mean squared error of 1/24 = .0417, so "below .04" is next to
    nothing if it is asked of the mean. The code of both later papers asks it of each sequence, as is done here.

    >>> task = Adding(10, batch=3)
    >>> _, (xs, y, mask) = task.emit(task.init(jax.random.key(0)))
    >>> xs.shape, bool((jnp.abs((xs[..., 0] * xs[..., 1]).sum(0) / 2 - y[0]) < 1e-6).all()), xs[0, :, 1].tolist()
    ((10, 3, 2), True, [1.0, 1.0, 1.0])
    >>> {name: round(level, 4) for name, level in task.references().items()}
    {'constant': 0.36, 'memoryless': 0.36, 'best': 0.0}
    """

    length: int = eqx.field(static=True)
    batch: int = eqx.field(default=20, static=True)
    least: ClassVar[int] = 10
    needs: ClassVar[str] = "so that a tenth of it is a step"

    @property
    def inputs(self) -> int:
        """The number and the mark."""
        return 2

    @property
    def answers(self) -> None:
        """None: an answer is a number."""

    def rows(self, seed: UInt32[Array, "2"], index: Int[Array, " rows"]) -> tuple[Float[Array, "time rows 2"], Array]:
        """The sequences of these rows of a stream, and the means of their marked numbers."""
        first = drawn(seed, index, 0, self.length // 10, 1)
        second = self.length // 10 + drawn(seed, index, 1, 4 * self.length // 10, 1)
        lanes = 2 + jnp.arange(self.length, dtype=jnp.uint32)
        numbers = jax.vmap(lambda i: uniform(seed, i, lanes), out_axes=1)(index)
        steps = jnp.arange(self.length)[:, None]
        marked = (steps == first) | (steps == second)
        return jnp.stack([numbers, marked.astype(numbers.dtype)], -1), jnp.sum(numbers * marked, 0) / 2

    def wrong(self, means: Array, y: Array) -> Bool[Array, "*rows"]:
        """Which answers have a squared error above .04."""
        return jnp.square(means - y) > TOLERANCE

    def references(self) -> dict[str, float]:
        """Exact shares of wrong answers; the last number is never marked and says nothing.

        The sum of two numbers is below s <= 1 with probability s^2 / 2, so their mean is further than .2 from 1/2 with
        probability (2 (.5 - .2))^2.
        """
        blind = (1 - 2 * TOLERANCE**0.5) ** 2
        return {"constant": blind, "memoryless": blind, "best": 0.0}
