"""Games of cards that ask for what was dealt, as POPGym defines them (Morad et al., 2023)."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from onward.cells.base import require_size
from onward.tasks.environment import AbstractEnvironment, Draw

Cards = Int[Array, " kinds"]


def one_hot(index: Int[Array, ""], size: int) -> Int[Array, " size"]:
    """1 at the index, 0 elsewhere; all 0 for an index outside."""
    return (jnp.arange(size) == index).astype(jnp.int32)


def at(values: Array, index: Int[Array, ""]) -> Array:
    """One of the values: a sum, which XLA fuses where it would gather."""
    return jnp.sum(jnp.where(jnp.arange(len(values)) == index, values, 0))


def full_deck(kinds: int, copies: int) -> Cards:
    """So many cards of each kind."""
    return jnp.full(kinds, copies, jnp.int32)


def dealt(left: Cards, uniform: Float[Array, ""]) -> tuple[Cards, Int[Array, ""]]:
    """Deal a card from a shuffled deck with so many of each kind left: the deck without it, and its kind.

    It is drawn when it is dealt, with the probabilities of a deck that was shuffled before, so that nothing is sorted.
    """
    total = jnp.sum(left)
    place = jnp.minimum((uniform * total).astype(jnp.int32), total - 1)
    kind = jnp.sum(jnp.cumsum(left) <= place).astype(jnp.int32)
    return left - one_hot(kind, len(left)), kind


class PreviousWorld(NamedTuple):
    """What is left of the deck, the last k kinds (the newest first), and how many were dealt."""

    left: Cards
    last: Int[Array, " k"]
    seen: Int[Array, ""]


class RepeatPrevious(AbstractEnvironment[PreviousWorld]):
    """Cards are dealt; name the kind of the k-th last (POPGym's RepeatPrevious; Morad et al., 2023).

    x is the card's kind, one-hot; an action is a kind. A deck has `copies` cards of each kind: n = kinds copies, and an
    episode n - 1 moves. Once k cards were seen an action is judged: 1 / (n - k) if right, else less as much; so that a
    return lies in -1..1. POPGym's Easy is the default; Medium is k=32, copies=26; Hard is k=64, copies=39.
    k = 1 asks for the card that is seen. ValueError for a k that the deck does not have.

    >>> {name: round(level, 3) for name, level in RepeatPrevious().references().items()}
    {'random': -0.5, 'memoryless': -0.49, 'best': 1.0}
    """

    k: int = eqx.field(default=4, static=True)
    kinds: int = eqx.field(default=4, static=True)
    copies: int = eqx.field(default=13, static=True)

    def __check_init__(self) -> None:
        require_deck("RepeatPrevious", self.kinds, self.copies, k=self.k)
        if self.k >= self.kinds * self.copies:
            raise ValueError(f"RepeatPrevious: k must be less than the {self.kinds * self.copies} cards, got {self.k}")

    @property
    def inputs(self) -> int:
        """The kinds."""
        return self.kinds

    @property
    def actions(self) -> int:
        """The kinds."""
        return self.kinds

    def begin(self, draw: Draw) -> PreviousWorld:
        """A shuffled deck, and its first card."""
        left, kind = dealt(full_deck(self.kinds, self.copies), draw.uniform())
        return PreviousWorld(left, jnp.where(jnp.arange(self.k) == 0, kind, -1), jnp.ones((), jnp.int32))

    def move(self, world: PreviousWorld, action: Array, draw: Draw) -> tuple[PreviousWorld, Array, Array]:
        """The answer is judged, and the next card dealt."""
        reward = signed(action == world.last[-1], 1 / (self.kinds * self.copies - self.k))
        left, kind = dealt(world.left, draw.uniform())
        last = jnp.concatenate([kind[None], world.last[:-1]])
        asked = world.seen >= self.k
        return PreviousWorld(left, last, world.seen + 1), jnp.where(asked, reward, 0.0), jnp.sum(left) == 0

    def observe(self, world: PreviousWorld) -> Float[Array, " kinds"]:
        """The last card."""
        return one_hot(world.last[0], self.kinds).astype(jnp.float32)

    def references(self) -> dict[str, float]:
        """Exact mean returns: random actions, the best policy without memory, the best.

        Without memory another kind than the one that is seen is likelier, as that one has a card less.
        """
        right = 1.0 if self.k == 1 else self.copies / (self.kinds * self.copies - 1)
        return {"random": 2 / self.kinds - 1, "memoryless": 2 * right - 1, "best": 1.0}


class FirstWorld(NamedTuple):
    """What is left of the deck, the first kind and the last."""

    left: Cards
    first: Int[Array, ""]
    last: Int[Array, ""]


class RepeatFirst(AbstractEnvironment[FirstWorld]):
    """Cards are dealt; name the kind of the first, always (POPGym's RepeatFirst; Morad et al., 2023).

    x is the card's kind, one-hot; an action is a kind. A deck has `copies` cards of each kind: n = kinds copies, and an
    episode n - 1 moves, each judged: 1 / (n - 1) if right, else less as much; so that a return lies in -1..1. Nothing
    in x says which card is the first; `reset` of a step does. POPGym's Easy is the default; Medium is copies=104, Hard
    copies=208.

    >>> {name: round(level, 3) for name, level in RepeatFirst().references().items()}
    {'random': -0.5, 'memoryless': -0.499, 'best': 1.0}
    """

    kinds: int = eqx.field(default=4, static=True)
    copies: int = eqx.field(default=13, static=True)

    def __check_init__(self) -> None:
        require_deck("RepeatFirst", self.kinds, self.copies)

    @property
    def inputs(self) -> int:
        """The kinds."""
        return self.kinds

    @property
    def actions(self) -> int:
        """The kinds."""
        return self.kinds

    def begin(self, draw: Draw) -> FirstWorld:
        """A shuffled deck, and its first card."""
        left, kind = dealt(full_deck(self.kinds, self.copies), draw.uniform())
        return FirstWorld(left, kind, kind)

    def move(self, world: FirstWorld, action: Array, draw: Draw) -> tuple[FirstWorld, Array, Array]:
        """The answer is judged, and the next card dealt."""
        left, kind = dealt(world.left, draw.uniform())
        reward = signed(action == world.first, 1 / (self.kinds * self.copies - 1))
        return FirstWorld(left, world.first, kind), reward, jnp.sum(left) == 0

    def observe(self, world: FirstWorld) -> Float[Array, " kinds"]:
        """The last card."""
        return one_hot(world.last, self.kinds).astype(jnp.float32)

    def references(self) -> dict[str, float]:
        """Exact mean returns: random actions, the best policy without memory, the best.

        Without memory: name what is seen, which is right on the first move, or another kind, which is likelier after.
        """
        moves = self.kinds * self.copies - 1
        same = 1 + (moves - 1) * (self.copies - 1) / moves
        other = (moves - 1) * self.copies / moves
        return {"random": 2 / self.kinds - 1, "memoryless": 2 * max(same, other) / moves - 1, "best": 1.0}


class RecallWorld(NamedTuple):
    """What is left of both decks, the card dealt last, and the kind that is asked for."""

    left: Cards
    left_to_ask: Cards
    value: Int[Array, ""]
    query: Int[Array, ""]


class CountRecall(AbstractEnvironment[RecallWorld]):
    """Cards are dealt; say how many of a kind were dealt so far (POPGym's CountRecall; Morad et al., 2023).

    x is the kind of the card dealt and the kind that is asked for, each one-hot: two shuffled decks with `copies` cards
    of each kind. An action is a count, 0..copies. With n = kinds copies an episode has n - 1 moves, each judged:
    1 / (n - 1) if right, else less as much; so that a return lies in -1..1. POPGym's Easy is the default; Medium is
    kinds=4; Hard is kinds=13, copies=16.

    >>> {name: round(level, 3) for name, level in CountRecall().references().items()}
    {'random': -0.926, 'memoryless': -0.923, 'best': 1.0}
    """

    kinds: int = eqx.field(default=2, static=True)
    copies: int = eqx.field(default=26, static=True)

    def __check_init__(self) -> None:
        require_deck("CountRecall", self.kinds, self.copies)

    @property
    def inputs(self) -> int:
        """The kinds, twice."""
        return 2 * self.kinds

    @property
    def actions(self) -> int:
        """The counts, with 0."""
        return self.copies + 1

    def begin(self, draw: Draw) -> RecallWorld:
        """Two shuffled decks, and their first cards."""
        full = full_deck(self.kinds, self.copies)
        (left, value), (left_to_ask, query) = dealt(full, draw.uniform(0)), dealt(full, draw.uniform(1))
        return RecallWorld(left, left_to_ask, value, query)

    def move(self, world: RecallWorld, action: Array, draw: Draw) -> tuple[RecallWorld, Array, Array]:
        """The answer is judged, and the next cards dealt."""
        count = self.copies - at(world.left, world.query)
        reward = signed(action == count, 1 / (self.kinds * self.copies - 1))
        left, value = dealt(world.left, draw.uniform(0))
        left_to_ask, query = dealt(world.left_to_ask, draw.uniform(1))
        return RecallWorld(left, left_to_ask, value, query), reward, jnp.sum(left) == 0

    def observe(self, world: RecallWorld) -> Float[Array, " inputs"]:
        """The card, and what is asked for."""
        both = [one_hot(world.value, self.kinds), one_hot(world.query, self.kinds)]
        return jnp.concatenate(both).astype(jnp.float32)

    def references(self) -> dict[str, float]:
        """Exact mean returns: random actions, the best policy without memory, the best.

        Without memory two counts are said: one where the card dealt is of the kind that is asked for, one where not;
        each is the likeliest over an episode. The kind asked for is independent of the card.
        """
        others = self.kinds * self.copies - 1
        same, other = [0.0] * (self.copies + 1), [0.0] * (self.copies + 1)
        for seen in range(others):
            for count in range(min(seen, self.copies) + 1):
                if count < self.copies:
                    same[count + 1] += chance(others, self.copies - 1, seen, count)
                other[count] += chance(others, self.copies, seen, count)
        right = (max(same) + (self.kinds - 1) * max(other)) / self.kinds / others
        return {"random": 2 / (self.copies + 1) - 1, "memoryless": 2 * right - 1, "best": 1.0}


class HigherWorld(NamedTuple):
    """What is left of the deck, and the last card."""

    left: Cards
    last: Int[Array, ""]


class HigherLower(AbstractEnvironment[HigherWorld]):
    """Cards are dealt; say if the next will be higher or lower (POPGym's HigherLower; Morad et al., 2023).

    x is the card's kind (its rank), one-hot; action 0 says higher, 1 lower. With n = kinds copies an episode has n - 1
    moves, each judged: 1 / n if right, less as much if wrong, 0 if the next is of the same kind. POPGym's Easy is the
    default; Medium is copies=8, Hard copies=12.

    >>> {name: round(level, 3) for name, level in HigherLower().references().items()}
    {'random': 0.0, 'memoryless': 0.497, 'best': 0.528}
    """

    kinds: int = eqx.field(default=13, static=True)
    copies: int = eqx.field(default=4, static=True)

    def __check_init__(self) -> None:
        require_deck("HigherLower", self.kinds, self.copies)

    @property
    def inputs(self) -> int:
        """The kinds."""
        return self.kinds

    @property
    def actions(self) -> int:
        """Higher and lower."""
        return 2

    def begin(self, draw: Draw) -> HigherWorld:
        """A shuffled deck, and its first card."""
        return HigherWorld(*dealt(full_deck(self.kinds, self.copies), draw.uniform()))

    def move(self, world: HigherWorld, action: Array, draw: Draw) -> tuple[HigherWorld, Array, Array]:
        """The next card is dealt, and the guess judged by it."""
        left, kind = dealt(world.left, draw.uniform())
        reward = signed((kind > world.last) == (action == 0), 1 / (self.kinds * self.copies))
        return HigherWorld(left, kind), jnp.where(kind == world.last, 0.0, reward), jnp.sum(left) == 0

    def observe(self, world: HigherWorld) -> Float[Array, " kinds"]:
        """The last card."""
        return one_hot(world.last, self.kinds).astype(jnp.float32)

    def references(self) -> dict[str, float]:
        """Exact mean returns: random guesses, the best policy without memory, the best (which counts all cards).

        The best gains |higher - lower| of those left at each move: its mean over all decks, by the multivariate
        hypergeometric probability of what is left.
        """
        others, size = self.kinds * self.copies - 1, self.kinds * self.copies
        blind = best = 0.0
        for last in range(self.kinds):
            lower, higher = self.copies * last, self.copies * (self.kinds - 1 - last)
            blind += abs(higher - lower)
            for left in range(1, others + 1):
                gain = 0.0
                for same in range(min(self.copies - 1, left) + 1):
                    of_same = chance(others, self.copies - 1, left, same)
                    for below in range(max(0, left - same - higher), min(lower, left - same) + 1):
                        above = left - same - below
                        gain += of_same * chance(lower + higher, lower, left - same, below) * abs(above - below)
                best += gain / left
        return {"random": 0.0, "memoryless": blind / self.kinds / size, "best": best / self.kinds / size}


def signed(right: Array, scale: float) -> Array:
    """`scale` where right, less as much where wrong."""
    return jnp.where(right, scale, -scale)


def chance(size: int, marked: int, drawn: int, found: int) -> float:
    """Of `size` cards some are marked: the probability of `found` of those among the drawn."""
    return math.comb(marked, found) * math.comb(size - marked, drawn - found) / math.comb(size, drawn)


def require_deck(owner: str, kinds: int, copies: int, **sizes: int) -> None:
    """Refuse a deck of fewer than two kinds, or sizes that are none."""
    require_size(owner, kinds=kinds, copies=copies, **sizes)
    if kinds < 2:
        raise ValueError(f"{owner}: kinds must be at least 2, got {kinds}")
