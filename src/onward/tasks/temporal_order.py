"""Which symbols were shown, and in which order."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from onward.tasks.lag import AbstractLag, drawn

# Where each symbol may stand, in tenths of the length: this one, up to the next.
WINDOWS = {2: (1, 4), 3: (1, 3, 6)}
DISTRACTORS = 4


class TemporalOrder(AbstractLag):
    """Two (`bits=3`: three) symbols X or Y among distractors a to d: name them in order, of 4 (8) classes.

        x_t    one-hot of X, Y, a, b, c, d
        2 bits: one of X, Y at t1 in [T/10, 2T/10) and one at t2 in [4T/10, 5T/10)
        3 bits: at [T/10, 2T/10), [3T/10, 4T/10) and [6T/10, 7T/10)

    Steps are counted from 0, a window is floor(T/10) steps from its start on, rounded down; what is drawn is uniform.
    Class: the symbols as a binary number, X = 0, Y = 1, the first the most significant: XX, XY, YX, YY.

    From Hochreiter & Schmidhuber (1997, tasks 6a and 6b); windows as Manchev & Spratling (2020) and Pascanu et al.
    (2013) print them. Not taken: the two symbols that frame a sequence and lengths drawn from 100 .. 110 of 1997; t2
    from [5T/10, 6T/10), which the code of both later papers draws.

    >>> task = TemporalOrder(10, batch=3)
    >>> _, (xs, y, mask) = task.emit(task.init(jax.random.key(0)))
    >>> xs.shape, y.shape, [int(xs[t, :, :2].sum()) for t in range(10)]
    ((10, 3, 6), (1, 3), [0, 3, 0, 0, 3, 0, 0, 0, 0, 0])
    >>> task.references()
    {'constant': 0.75, 'memoryless': 0.75, 'best': 0.0}
    """

    length: int = eqx.field(static=True)
    bits: int = eqx.field(default=2, static=True)
    batch: int = eqx.field(default=20, static=True)
    least: ClassVar[int] = 10
    needs: ClassVar[str] = "so that a tenth of it is a step"

    def __check_init__(self) -> None:
        if self.bits not in WINDOWS or isinstance(self.bits, bool):
            raise ValueError(f"TemporalOrder: bits must be 2 or 3, got {self.bits!r}")

    @property
    def inputs(self) -> int:
        """X, Y and the distractors."""
        return 2 + DISTRACTORS

    @property
    def answers(self) -> int:
        """4 or 8 classes."""
        return 2**self.bits

    def rows(self, seed: UInt32[Array, "2"], index: Int[Array, " rows"]) -> tuple[Float[Array, "time rows 6"], Array]:
        """The sequences of these rows of a stream, and their classes, int32."""
        starts = jnp.asarray([tenths * self.length // 10 for tenths in WINDOWS[self.bits]])
        at = starts[:, None] + drawn(seed, index, 0, self.length // 10, self.bits)
        shown = drawn(seed, index, self.bits, 2, self.bits)
        symbols = 2 + drawn(seed, index, 2 * self.bits, DISTRACTORS, self.length)
        steps = jnp.arange(self.length)[:, None]
        for k in range(self.bits):
            symbols = jnp.where(steps == at[k, None], shown[k, None], symbols)
        weights = 2 ** jnp.arange(self.bits)[::-1, None]
        return jax.nn.one_hot(symbols, self.inputs), jnp.sum(weights * shown, 0).astype(jnp.int32)

    def references(self) -> dict[str, float]:
        """Exact shares of wrong answers; the last input is a distractor and says nothing."""
        blind = 1 - 0.5**self.bits
        return {"constant": blind, "memoryless": blind, "best": 0.0}
