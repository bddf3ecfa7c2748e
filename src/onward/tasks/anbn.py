"""Counting: as many b as there were a (Gers & Schmidhuber, 2001; Tallec & Ollivier, 2017)."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt32

from onward.cells.base import require_size
from onward.random import integer, seed_of
from onward.tasks.base import AbstractTask
from onward.types import Step

A, B, NEWLINE = range(3)


class AnBnState(NamedTuple):
    """The counter of the random numbers, n, and the place among the 2n + 2 characters."""

    seed: UInt32[Array, "2"]
    step: Int[Array, ""]
    n: Int[Array, ""]
    place: Int[Array, ""]


class AnBn(AbstractTask):
    r"""A text without end: n times `a`, a newline, n times `b`, a newline, with a new n each time.

    n is uniform on least..most. x is the one-hot of the current character (a, b, newline: 0, 1, 2),
    y = truth the index (int32) of the next one. Weight 1 always, `reset` never; the text starts at
    an `a` that begins an episode.

    At its defaults the text carries 5 bits in 35 characters on average, or 0.14 bits a character
    (the value that Tallec & Ollivier quote). Bits are nats / log 2:

    >>> levels = AnBn().references()
    >>> {k: round(v, 4) for k, v in levels.items()}
    {'predict-marginal': 0.8726, 'memoryless': 0.2552, 'counter-blind': 0.2156, 'bayes': 0.099}
    >>> {k: round(v / math.log(2), 4) for k, v in levels.items()}
    {'predict-marginal': 1.2589, 'memoryless': 0.3681, 'counter-blind': 0.311, 'bayes': 0.1429}
    """

    least: int = eqx.field(default=1, static=True)
    most: int = eqx.field(default=32, static=True)

    def __check_init__(self) -> None:
        require_size("AnBn", least=self.least, most=self.most)
        if self.most < self.least:
            raise ValueError(f"AnBn: most must be at least least = {self.least}, got {self.most}")

    @property
    def inputs(self) -> int:
        """Size of an observation: the one-hot of three characters."""
        return 3

    def init(self, key: PRNGKeyArray) -> AnBnState:
        """The state before the first character."""
        zero = jnp.zeros((), jnp.int32)
        return AnBnState(seed_of(key), zero, zero, zero)

    def emit(self, state: AnBnState) -> tuple[AnBnState, Step]:
        """One character, and the next as its target."""
        seed, count, place = state.seed, state.step + 1, state.place
        n = jnp.where(place == 0, integer(seed, count, 0, self.least, self.most), state.n)
        after = (place + 1) % (2 * n + 2)
        # Each half is n letters and a newline. The next character never needs the next n, since n >= 1.
        character = lambda at: jnp.where(at % (n + 1) == n, NEWLINE, at // (n + 1))
        x, y = (jnp.arange(3) == character(place)).astype(jnp.float32), character(after)
        return AnBnState(seed, count, n, after), Step(x, y, jnp.ones(()), jnp.asarray(False), y)

    def references(self) -> dict[str, float]:
        """Exact mean losses -log p(y) in nats per character.

        With N = most - least + 1 values of n, m = (least + most) / 2 its mean, 2m + 2 the mean length
        of an episode, and H the entropy of a distribution:

            predict-marginal   H(m, m, 2) of the characters, each over 2m + 2
            memoryless         (2m H(1/m, 1 - 1/m) + 2 log 2) / (2m + 2)
            counter-blind      2m H(1/m, 1 - 1/m) / (2m + 2)
            bayes              log N / (2m + 2)

        `memoryless` knows the current character: one letter in m is the last of its run, and one
        newline in two ends an episode. `counter-blind` also knows which newline it is at, but never
        how long a run has lasted. `bayes` knows all of the past: only the end of the run of a is in
        doubt, and finding it out reveals n.
        """
        values, mean = self.most - self.least + 1, (self.least + self.most) / 2
        length = 2 * mean + 2
        # What the 2m letters of an episode cost when one in m ends its run.
        runs = 2 * mean * _entropy(1 / mean, 1 - 1 / mean)
        return {
            "predict-marginal": _entropy(mean / length, mean / length, 2 / length),
            "memoryless": (runs + 2 * _entropy(0.5, 0.5)) / length,
            "counter-blind": runs / length,
            "bayes": math.log(values) / length,
        }


def _entropy(*probabilities: float) -> float:
    return -sum(p * math.log(p) for p in probabilities if p > 0)
