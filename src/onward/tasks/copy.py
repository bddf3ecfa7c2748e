"""Remember a few symbols, wait, and say them again."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt32

from onward.cells.base import require_size
from onward.random import integer, seed_of
from onward.tasks.base import AbstractTask
from onward.types import Step


class CopyState(NamedTuple):
    """The counter of the random numbers and the place in the episode."""

    seed: UInt32[Array, "2"]
    step: Int[Array, ""]
    phase: Int[Array, ""]


class Copy(AbstractTask):
    """Episodes without end: `length` random symbols, `delay` blank steps, then the symbols in the same order.

    With L = length, D = delay, S = symbols, and s_0 ... s_{L-1} independent and uniform on 0..S-1:

        phase p           x (S + 1 numbers)                 y              weight
        0 .. L-1          one-hot of s_p                    0              0
        L .. L+D-1        zeros                             0              0
        L+D .. 2L+D-1     the last input, the cue, is 1     s_{p-(L+D)}    1
                          at p = L+D; zeros after it

    The cue comes together with the first recall: every symbol is due exactly L + D steps after it was
    shown, and the recalls after the first must be timed from memory. `resets`: whether an episode
    starts with `reset`. The state is three small arrays, whatever the length.

    >>> task = Copy(length=2, delay=1)
    >>> task.period, task.lag, task.inputs
    (5, 3, 3)
    >>> {k: round(v, 4) for k, v in task.references().items()}
    {'memoryless': 0.6931, 'bayes': 0.0}
    >>> [round(task.truncated(k), 4) for k in (1, 3, 4)]
    [0.6931, 0.6931, 0.0]
    """

    length: int = eqx.field(default=8, static=True)
    delay: int = eqx.field(default=8, static=True)
    symbols: int = eqx.field(default=2, static=True)
    resets: bool = eqx.field(default=False, static=True)

    def __check_init__(self) -> None:
        require_size("Copy", length=self.length)
        for name, least in (("delay", 0), ("symbols", 2)):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < least:
                raise ValueError(f"Copy: {name} must be a whole number of at least {least}, got {given!r}")
        if not isinstance(self.resets, bool):
            raise ValueError(f"Copy: resets must be True or False, got {self.resets!r}")

    @property
    def inputs(self) -> int:
        """The symbols and the cue."""
        return self.symbols + 1

    @property
    def lag(self) -> int:
        """Steps from a symbol to its recall: length + delay."""
        return self.length + self.delay

    @property
    def period(self) -> int:
        """Steps of an episode: 2 length + delay."""
        return self.length + self.lag

    def init(self, key: PRNGKeyArray) -> CopyState:
        """The state before the first episode."""
        zero = jnp.zeros((), jnp.int32)
        return CopyState(seed_of(key), zero, zero)

    def emit(self, state: CopyState) -> tuple[CopyState, Step]:
        """One instant: x = [symbol, cue], y = truth = the class to recall now."""
        seed, count, phase = state.seed, state.step + 1, state.phase
        shown, recall = phase < self.length, phase >= self.lag
        # A symbol is a function of the step at which it was shown: nothing need be stored to recall it.
        symbol = integer(seed, count, 0, 0, self.symbols - 1)
        due = integer(seed, count - self.lag, 0, 0, self.symbols - 1)
        x = jnp.append((jnp.arange(self.symbols) == symbol) & shown, phase == self.lag).astype(jnp.float32)
        y = jnp.where(recall, due, 0)
        reset = (phase == 0) & self.resets
        # The phase is kept, not computed from the counter, which wraps in the end.
        after = CopyState(seed, count, (phase + 1) % self.period)
        return after, Step(x, y, recall.astype(jnp.float32), reset, y)

    def references(self) -> dict[str, float]:
        """Exact mean losses -log p(y) in nats over the steps of weight 1.

        `memoryless`: the best prediction from the current input, log S. `bayes`: from all inputs, 0.
        """
        return {"memoryless": self.truncated(1), "bayes": 0.0}

    def truncated(self, k: int) -> float:
        """The least expected loss in nats, over the steps of weight 1, from the last `k` inputs only.

            log S  if k <= L + D,  else  0

        The symbol due at t was shown at t - (L + D), once. A window that ends before it holds other
        symbols, which are independent of it, and the clock: y is uniform given the window. A window
        that reaches it determines y. The current input counts as one of the `k`.

        This bounds memory, not credit: gradients cut after `k` steps can still train on what the
        state happens to carry from earlier, and so do better.
        """
        require_size("Copy.truncated", k=k)
        return math.log(self.symbols) if k <= self.lag else 0.0
