"""One symbol, kept through many others."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from onward.cells.base import require_size
from onward.tasks.lag import AbstractLag, drawn


class RandomPermutation(AbstractLag):
    """The first symbol, 0 or 1, is to be said at the end; between stand length - 1 others, drawn at random.

        x_0 one-hot of s in {0, 1},    x_t one-hot of a symbol in 2 .. symbols - 1,    y = s, one of `symbols` classes

    The sequence of the publications is one longer: its last symbol, s again, is the target here.

    After Hochreiter & Schmidhuber (1997, task 2b) and Martens & Sutskever (2011), as Pascanu et al. (2013) and Manchev
    & Spratling (2020) have it: 100 symbols in all, and a loss at the last step only, as in their code. Not taken: the
    next symbol predicted at every step, which cannot be done but for the last.

    >>> task = RandomPermutation(5, symbols=4, batch=3)
    >>> _, (xs, y, mask) = task.emit(task.init(jax.random.key(0)))
    >>> xs.shape, bool((xs[0].argmax(-1) == y[0]).all()), int(xs[1:, :, :2].sum())
    ((5, 3, 4), True, 0)
    >>> task.references()
    {'constant': 0.5, 'memoryless': 0.5, 'best': 0.0}
    """

    length: int = eqx.field(static=True)
    symbols: int = eqx.field(default=100, static=True)
    batch: int = eqx.field(default=20, static=True)
    least: ClassVar[int] = 2
    needs: ClassVar[str] = "so that something stands between the symbol and the answer"

    def __check_init__(self) -> None:
        require_size("RandomPermutation", symbols=self.symbols)
        if self.symbols < 3:
            raise ValueError(f"RandomPermutation: symbols must be at least 3, two and others, got {self.symbols}")

    @property
    def inputs(self) -> int:
        """One of each symbol."""
        return self.symbols

    @property
    def answers(self) -> int:
        """Every symbol is a class, though only two are ever right."""
        return self.symbols

    def rows(self, seed: UInt32[Array, "2"], index: Int[Array, " rows"]) -> tuple[Float[Array, "time rows n"], Array]:
        """The sequences of these rows of a stream, and their first symbols, int32."""
        first = drawn(seed, index, 0, 2, 1)
        others = 2 + drawn(seed, index, 1, self.symbols - 2, self.length - 1)
        return jax.nn.one_hot(jnp.concatenate([first, others]), self.symbols), first[0].astype(jnp.int32)

    def references(self) -> dict[str, float]:
        """Exact shares of wrong answers; the last input is one of the others and says nothing."""
        return {"constant": 0.5, "memoryless": 0.5, "best": 0.0}
