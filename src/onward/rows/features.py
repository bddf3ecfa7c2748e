"""Rows as mappings of features, one at a time: an encoder, a learner, and the shortest way between them."""

import datetime
import math
import numbers
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from onward.rows.encoder import CALENDAR, REACH, Encoder, calendar
from onward.rows.packed import Packed
from onward.rows.sources import is_missing
from onward.rows.stream import MANY, RowLearner, RowRecipe
from onward.rows.stream.programs import programs_of
from onward.text import seconds
from onward.types import PyTree

# A number of this size or more is no number of single precision: it counts as missing.
HUGE = 1e38
# A plan says where a feature goes. Of these it says that it is a category, or a time.
_CATEGORY, _TIME = -1, -2


def number_of(value: Any) -> float:
    """A number that single precision can hold, or NaN where it is none. Text is no number."""
    if isinstance(value, numbers.Number | np.bool_ | Decimal):
        try:
            read = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            return math.nan
        return read if -HUGE < read < HUGE else math.nan
    return math.nan


class FeatureLearner:
    """Rows of features in, numbers of a learner out: an encoder, a learner, and the shortest way between them.

    `reserved` names inputs that are computed; they come first.
    """

    def __init__(self, recipe: RowRecipe, reserved: Sequence[str] = (), classes: int = 0):
        self.encoder = Encoder(plain=reserved)
        self.encoder.plain[: len(reserved)] = False
        self.learner = RowLearner(recipe, self.encoder.capacity, classes, lengths=(MANY,))
        self.names: dict[Hashable, str] = {}
        self._ready()

    def _ready(self) -> None:
        """What follows from the rest: where every feature goes, and the compiled programs."""
        encoder, learner = self.encoder, self.learner
        self.plan: dict[Hashable, tuple[int, float, float, Any]] = {}
        for name, key in self.names.items():
            if key in encoder.slots:
                unit = encoder.units[key]
                self.plan[name] = (encoder.slots[key], unit.origin, unit.length, None)
            else:
                self.plan[name] = (_CATEGORY if key in encoder.vocabulary else _TIME, 0.0, 1.0, key)
        plain = encoder.plain.tolist()
        # Of a category every slot is 0 but one; a number is missing unless it is given.
        self.blank = [0.0 if p else math.nan for p in plain] + [math.nan] * learner.recipe.targets
        # A copy: the encoder writes into its own while a row that was sent off may still be read.
        self.plain = jnp.asarray(encoder.plain.copy())
        row, ask = (learner.programs.of(what, 1) for what in ("row", "ask"))
        # Functions, that River's count of an estimator's memory passes over: programs are shared.
        self._row: Callable[..., Packed] = lambda packed, x, plain: row(packed, x, plain)
        self._ask: Callable[..., Array] = lambda packed, x, plain: ask(packed, x, plain)

    def __getstate__(self) -> dict[str, Any]:
        return {"encoder": self.encoder.as_dict(), "learner": self.learner, "names": self.names}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.encoder, self.learner = Encoder.from_dict(kept["encoder"]), kept["learner"]
        self.names = kept["names"]
        self._ready()

    # Rows.

    def encode(self, x: Mapping[Any, Any]) -> list[float] | None:
        """The row [inputs, targets], of which only the features are filled in; None: something in it is new."""
        row = self.blank.copy()
        for name, value in x.items():
            place = self.plan.get(name)
            if place is None:
                if not self._passed_over(value):
                    return None
                continue
            slot, origin, length, key = place
            if slot >= 0:
                if value.__class__ is not float:
                    value = number_of(value)
                u = (value - origin) / length
                if -REACH < u < REACH:
                    row[slot] = u
            elif slot == _TIME:
                for part, number in self._moment(key, value):
                    row[self.encoder.slots[part]] = number - self.encoder.units[part].origin
            elif isinstance(value, str):
                category = self.encoder.slot_of(key, value)
                if category is not None:
                    row[category] = 1.0
                elif not self._passed_over(value):
                    return None
        return row

    def known(self, x: Mapping[Any, Any]) -> list[float]:
        """The row, without what is new in it."""
        row = self.encode(x)
        if row is None:
            row = self.encode({name: value for name, value in x.items() if self._has_place(name, value)})
        assert row is not None
        return row

    def _has_place(self, name: Hashable, value: Any) -> bool:
        if name not in self.plan:
            return False
        slot, *_, key = self.plan[name]
        return slot != _CATEGORY or not isinstance(value, str) or self.encoder.slot_of(key, value) is not None

    def placed(self, x: Mapping[Any, Any]) -> list[float]:
        """The row; all that is new in it is given a place first."""
        row = self.encode(x)
        if row is None:
            self.make_places(x)
            row = self.known(x)
        return row

    def _passed_over(self, value: Any) -> bool:
        """Whether a feature, or a category, that has no place yet is to get none."""
        if self.encoder.full:
            return True
        if isinstance(value, str):
            return is_missing(value)
        if isinstance(value, datetime.date | np.datetime64):
            return math.isnan(seconds(value))
        return math.isnan(number_of(value))

    def _moment(self, key: str, value: Any) -> Iterator[tuple[str, float]]:
        """A time as where in the day, the week and the year it lies."""
        moment = seconds(value) if isinstance(value, datetime.date | np.datetime64) else math.nan
        if not math.isnan(moment):
            for part, wave in calendar(np.array([moment])).items():
                if f"{key} {part}" in self.encoder.slots:
                    yield f"{key} {part}", float(wave[0])

    def make_places(self, x: Mapping[Any, Any]) -> None:
        """Give a place to all that is new in a row, and room where there is none left."""
        cells: dict[str, list[Any]] = {}
        encoder, words = self.encoder, set[str]()
        for name, value in x.items():
            of_category = name in self.plan and self.plan[name][0] == _CATEGORY and isinstance(value, str)
            if self._passed_over(value) or (name in self.plan and not of_category):
                continue
            key = self.names.get(name) or (name if isinstance(name, str) else repr((name,)))
            if isinstance(value, str):
                cells[key] = [value]
                words.add(key)
            elif isinstance(value, datetime.date | np.datetime64):
                # Waves are numbers of size 1, from zero.
                cells |= {f"{key} {part}": [0.0] for part in CALENDAR}
            else:
                cells[key] = [number_of(value)]
            self.names[name] = key
        encoder.categories |= words
        encoder.give_slots(cells, 0, 1)
        self.names = {
            name: key
            for name, key in self.names.items()
            if key in encoder.slots or key in encoder.vocabulary or f"{key} {CALENDAR[0]}" in encoder.slots
        }
        if encoder.capacity > self.learner.capacity:
            self.learner.widen(encoder.capacity)
        self._ready()

    def make_room(self, classes: int) -> None:
        """Room for so many classes; doubled where it is full."""
        if classes > self.learner.classes:
            self.learner.add_classes(max(classes, 2 * self.learner.classes))
            self._ready()

    # Learning and asking.

    def learn(self, row: list[float]) -> None:
        """One row [inputs, targets]."""
        learner = self.learner
        if learner.learn_row(self._row(learner.packed, np.array(row, np.float32), self.plain)):
            self._ready()

    def learn_all(self, rows: list[list[float]]) -> None:
        """Rows of equal length, in compiled calls of up to `MANY`."""
        if len(rows) == 1:
            self.learn(rows[0])
        elif rows:
            block, at, stage = np.array(rows, np.float32), self.learner.capacity, self.learner.stage
            self.learner.learn(block[:, :at], self.plain, block[:, at:])  # type: ignore[arg-type]
            if self.learner.stage != stage:
                self._ready()

    def ask(self, row: list[float]) -> np.ndarray:
        """The outputs for a row; nothing changes."""
        return np.asarray(self._ask(self.learner.packed, np.array(row, np.float32), self.plain))

    def ask_all(self, rows: list[list[float]]) -> np.ndarray:
        """The outputs for each of many rows as if it came next, in compiled calls of `MANY`."""
        learner = self.learner
        block = np.zeros((-(-len(rows) // MANY), MANY, len(self.blank)), np.float32)
        block.reshape(-1, len(self.blank))[: len(rows)] = rows
        asks = learner.programs.of("asks", MANY)
        return np.concatenate([asks(learner.packed, part, self.plain) for part in block])[: len(rows)]

    def take(self, rows: Iterable[Mapping[Any, Any]], fill: Callable[[int, list[float]], None]) -> None:
        """Learn from rows in order. `fill` puts the targets of row i into its last places."""
        waiting: list[list[float]] = []
        for i, x in enumerate(rows):
            row = self.encode(x)
            if row is None or len(waiting) == MANY:
                self.learn_all(waiting)
                waiting = []
                row = self.placed(x)
            fill(i, row)
            waiting.append(row)
        self.learn_all(waiting)


@lru_cache(maxsize=64)
def ahead(recipe: RowRecipe, capacity: int, classes: int, stage: int) -> Callable[..., Array]:
    """The program that forecasts: (packed state, rows, plain, last value and change, count) to the changes, in units.

    The first two inputs of every row are the last value and change: those that were predicted the row before.
    """
    programs = programs_of(recipe, capacity, classes, stage)

    def run(packed: Packed, rows: Array, plain: Array, start: Array, count: Array) -> Array:
        dynamic, static = eqx.partition(programs.packing.unpack(packed), eqx.is_array)

        def body(i: Array, loop: tuple[PyTree, Array, Array]) -> tuple[PyTree, Array, Array]:
            dynamic, past, changes = loop
            x, y = rows[i, :capacity].at[: len(past)].set(past), rows[i, capacity:]
            after, answer = programs.stream.read(eqx.combine(dynamic, static), x, plain, y)
            change = answer[0]
            past = jnp.stack([past[0] + change, change])
            return eqx.filter(after, eqx.is_array), past, changes.at[i].set(change)

        return lax.fori_loop(0, count, body, (dynamic, start, jnp.zeros(len(rows))))[2]

    return jax.jit(run)
