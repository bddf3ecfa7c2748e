"""Pairs of cards, found by turning two over at a time."""

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from onward.tasks.cards import Cards, at, dealt, full_deck, require_deck
from onward.tasks.environment import AbstractEnvironment, Draw

# The best policy is computed for so many states of what is known, at most.
SOLVED = 20_000
# Of each kind: cards not seen yet, and cards seen that still lie face down.
Known = tuple[tuple[int, int], ...]


class TableWorld(NamedTuple):
    """The table: kinds of the cards that were turned (-1: not yet), those not yet on it, which lie face up for good,
    which are shown now, and the first of a pair (-1: none is turned).
    """

    kind: Int[Array, " cards"]
    left: Cards
    up: Bool[Array, " cards"]
    shown: Bool[Array, " cards"]
    first: Int[Array, ""]


class Concentration(AbstractEnvironment[TableWorld]):
    """Cards lie face down; turn two over, and keep them up if they are of one kind (POPGym; Morad et al., 2023).

    x is each card's kind, or that it lies face down, one-hot (kinds + 1 numbers a card); an action is a card. A pair
    of one kind stays up and gives 1 / (n / 2), of n = kinds copies cards; another pair is shown once, gives -2 / m
    and is turned back. A card that is up already ends the turn: -1 / m, or -2 / m as the second of a pair. An episode
    ends when all cards are up, and is cut short after m = ceil(2n - n / (2n - 1)) moves. POPGym's Easy (colours) is the
    default; Medium is copies=52; Hard (ranks) is kinds=13, copies=4. ValueError for an odd number of copies.

    >>> {name: round(level, 3) for name, level in Concentration(2, 4).references().items()}
    {'random': -0.261, 'best': 0.829}
    """

    kinds: int = eqx.field(default=2, static=True)
    copies: int = eqx.field(default=26, static=True)

    def __check_init__(self) -> None:
        require_deck("Concentration", self.kinds, self.copies)
        if self.copies % 2:
            raise ValueError(f"Concentration: copies must be even, so that all cards have pairs, got {self.copies}")

    @property
    def cards(self) -> int:
        """Cards on the table."""
        return self.kinds * self.copies

    @property
    def inputs(self) -> int:
        """Of each card its kinds, and face down."""
        return self.cards * (self.kinds + 1)

    @property
    def actions(self) -> int:
        """The cards."""
        return self.cards

    @property
    def limit(self) -> int:
        """Moves of an episode, at most."""
        return math.ceil(2 * self.cards - self.cards / (2 * self.cards - 1))

    def begin(self, draw: Draw) -> TableWorld:
        """All face down; a card's kind is drawn when it is first turned, as likely as if all had been before."""
        down = jnp.zeros(self.cards, bool)
        unseen, nothing = jnp.full(self.cards, -1, jnp.int32), jnp.full((), -1, jnp.int32)
        return TableWorld(unseen, full_deck(self.kinds, self.copies), down, down, nothing)

    def move(self, world: TableWorld, action: Array, draw: Draw) -> tuple[TableWorld, Array, Array]:
        """A card is turned."""
        place = jnp.arange(self.cards)
        here, first = place == action, place == world.first
        seen = at(world.kind, action)
        left, fresh = dealt(world.left, draw.uniform())
        now = jnp.where(seen < 0, fresh, seen)
        second, already = world.first >= 0, jnp.any(here & world.up)
        pair = second & ~already & (at(world.kind, world.first) == now) & (world.first != action)
        wrong = jnp.where(already | second, -jnp.where(second, 2.0, 1.0) / self.limit, 0.0)
        up = world.up | (pair & (here | first))
        after = TableWorld(
            kind=jnp.where(here, now, world.kind),
            left=jnp.where(seen < 0, left, world.left),
            up=up,
            shown=world.up | here | first,
            first=jnp.where(second | already, -1, action),
        )
        return after, jnp.where(pair, 2 / self.cards, wrong), jnp.all(up)

    def observe(self, world: TableWorld) -> Float[Array, " inputs"]:
        """What lies face up, and of the others that they do not."""
        seen = jnp.where(world.shown, world.kind, self.kinds)
        return (seen[:, None] == jnp.arange(self.kinds + 1)[None]).astype(jnp.float32).reshape(-1)

    def references(self) -> dict[str, float]:
        """Exact mean returns: random cards; the best policy, `best`, or where that is not computed `bound`.

        The best policy is found by dynamic programming over what is known, for two kinds or few cards. It reckons
        without the limit: `best` is said where its longest game is within it. `bound` is the return of one who knows
        all cards. What the best policy without memory gets is not known.
        """
        found = {"random": self._random(), "bound": 1.0}
        known = sum(total + 1 for total in range(0, self.copies + 1, 2))
        if math.comb(known + self.kinds - 1, self.kinds) <= SOLVED:
            best, longest = _best(2 / self.cards, 2 / self.limit)(((self.copies, 0),) * self.kinds)
            if longest <= self.limit:
                return {"random": found["random"], "best": best}
        return found

    def _random(self) -> float:
        """By the probabilities of how many of each kind are up, and of the kind of a first card."""
        states, total = {((0,) * self.kinds, -1): 1.0}, 0.0
        for _ in range(self.limit):
            after: dict[tuple[tuple[int, ...], int], float] = {}
            for (up, first), p in states.items():
                if sum(up) == self.cards:
                    continue
                for chance, reward, state in self._turned(up, first):
                    after[state] = after.get(state, 0.0) + p * chance
                    total += p * chance * reward
            states = after
        return total

    def _turned(self, up: tuple[int, ...], first: int) -> Iterator[tuple[float, float, tuple[tuple[int, ...], int]]]:
        """(probability, reward, state) after a random card."""
        down = [self.copies - each for each in up]
        if first < 0:
            yield sum(up) / self.cards, -1 / self.limit, (up, -1)
            yield from ((down[i] / self.cards, 0.0, (up, i)) for i in range(self.kinds) if down[i])
        else:
            pair = (down[first] - 1) / self.cards
            yield pair, 2 / self.cards, ((*up[:first], up[first] + 2, *up[first + 1 :]), -1)
            yield 1 - pair, -2 / self.limit, (up, -1)


def _shifted(known: Known, kind: int, unseen: int, seen: int) -> Known:
    """With so many more of a kind unseen, and seen."""
    one = known[kind][0] + unseen, known[kind][1] + seen
    return (*known[:kind], one, *known[kind + 1 :])


def _best(success: float, failure: float) -> Callable[[Known], tuple[float, int]]:
    """By what is known: the best mean of the rewards to come, and the most moves until all are up."""

    def second(known: Known, first: int, unseen: int) -> tuple[float, int]:
        """The best way on from a first card of this kind, seen just now and not among the known."""
        options = [pair(known, first, 1)] if known[first][1] else []
        back = _shifted(known, first, 0, 1)
        if unseen:
            gain, moves = 0.0, 0
            for kind, (count, _) in enumerate(known):
                if count:
                    match = kind == first
                    after = _shifted(known, kind, -1, 0) if match else _shifted(back, kind, -1, 1)
                    ahead, more = value(tuple(sorted(after)))
                    gain += count / unseen * (ahead + (success if match else -failure))
                    moves = max(moves, more)
            options.append((gain, moves + 2))
        ahead, moves = value(tuple(sorted(back)))  # not to look at another
        options.append((ahead - failure, moves + 2))
        return max(options, key=rank)

    def pair(known: Known, kind: int, seen: int) -> tuple[float, int]:
        """A pair of which so many cards are among the known."""
        ahead, moves = value(tuple(sorted(_shifted(known, kind, 0, -seen))))
        return ahead + success, moves + 2

    def rank(option: tuple[float, int]) -> tuple[float, int]:
        """Of options as good as one another, the shortest."""
        return round(option[0], 12), -option[1]

    @cache
    def value(known: Known) -> tuple[float, int]:
        # To start with a card that is known and has no partner is no better than with one that is not: whatever that
        # is, one may turn the known one next.
        options = [pair(known, kind, 2) for kind, cards in enumerate(known) if cards[1] > 1]
        unseen = sum(cards[0] for cards in known)
        if unseen:
            gain, moves = 0.0, 0
            for kind, (count, _) in enumerate(known):
                if count:
                    ahead, more = second(_shifted(known, kind, -1, 0), kind, unseen - 1)
                    gain, moves = gain + count / unseen * ahead, max(moves, more)
            options.append((gain, moves))
        return max(options, key=rank) if options else (0.0, 0)

    return value
