"""What tasks share whose answer, asked for at the last step, is a matter of what stood many steps before it."""

import abc
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from onward.cells.base import require_size
from onward.random import bits, integer, seed_of
from onward.tasks.base import AbstractTask
from onward.types import Sequence

# A task counts as solved if fewer than this share of sequences are answered wrongly (of 10,000 new ones, as published).
SOLVED = 0.01


class LagState(NamedTuple):
    """The counter of the random numbers."""

    seed: UInt32[Array, "2"]
    step: Int[Array, ""]


class AbstractLag(AbstractTask):
    """Sequences of `length` steps, `batch` new ones at every call, with one answer at the last step."""

    length: eqx.AbstractVar[int]
    batch: eqx.AbstractVar[int]
    least: ClassVar[int]
    """The shortest sequence that has room for what is to be remembered."""
    needs: ClassVar[str]
    """What that is, for the message that refuses a shorter one."""

    def __check_init__(self) -> None:
        owner = type(self).__name__
        require_size(owner, batch=self.batch)
        if isinstance(self.length, bool) or not isinstance(self.length, int) or self.length < self.least:
            raise ValueError(
                f"{owner}: length must be a whole number of at least {self.least}, {self.needs}, got {self.length!r}"
            )

    @property
    @abc.abstractmethod
    def answers(self) -> int | None:
        """How many classes an answer is one of; None: it is a number."""

    @abc.abstractmethod
    def rows(self, seed: UInt32[Array, "2"], index: Int[Array, " rows"]) -> tuple[Float[Array, "time rows n"], Array]:
        """The sequences of these rows of a stream, and their answers (rows,)."""

    @abc.abstractmethod
    def references(self) -> dict[str, float]:
        """Exact shares of wrong answers.

        `constant`: the best answer that is always the same. `memoryless`: the best one from the last input. `best`:
        from the whole sequence.
        """

    def wrong(self, means: Array, y: Array) -> Bool[Array, "*rows"]:
        """Which answers are wrong by the published rule, from the means that a head predicts: (*rows, classes)."""
        return jnp.argmax(means, -1) != y

    def init(self, key: PRNGKeyArray) -> LagState:
        """The state before the first batch."""
        return LagState(seed_of(key), jnp.zeros((), jnp.int32))

    def emit(self, state: LagState) -> tuple[LagState, Sequence]:
        """The next batch."""
        count = state.step + 1
        now = bits(state.seed, count, jnp.arange(2, dtype=jnp.uint32))
        return state._replace(step=count), self._sequence(now, jnp.arange(self.batch, dtype=jnp.int32))

    def held_out(self, count: int, seed: int, first: int | Int[Array, ""] = 0) -> Sequence:
        """Rows first .. first + count - 1 of a stream that no key given to `init` leads to."""
        require_size(f"{type(self).__name__}.held_out", count=count)
        apart = seed_of(jax.random.fold_in(jax.random.key(seed), 0x5EED))
        return self._sequence(apart, first + jnp.arange(count, dtype=jnp.int32))

    def _sequence(self, seed: UInt32[Array, "2"], index: Int[Array, " rows"]) -> Sequence:
        xs, y = self.rows(seed, index)
        return Sequence(xs, y[None], jnp.ones((1, len(index))))


def drawn(seed: UInt32[Array, "2"], index: Int[Array, " rows"], lane: int, many: int, count: int) -> Array:
    """`count` numbers for each row, (count, rows), uniform on 0 .. many - 1; draws `lane` and on of the row."""
    lanes = lane + jnp.arange(count, dtype=jnp.uint32)
    return jax.vmap(lambda i: integer(seed, i, lanes, 0, many - 1), out_axes=1)(index)


def solved(task: AbstractTask, wrong: float) -> bool:
    """Whether this share of wrong answers to new sequences counts as success, as published: less than 1 %.

    TypeError for a task without a published rule.

    >>> from onward import Adding
    >>> solved(Adding(20), 0.0099), solved(Adding(20), 0.01)
    (True, False)
    """
    if not isinstance(task, AbstractLag):
        raise TypeError(
            f"solved: {type(task).__name__} has no published rule of success; TemporalOrder, Adding and "
            "RandomPermutation have one"
        )
    return wrong < SOLVED
