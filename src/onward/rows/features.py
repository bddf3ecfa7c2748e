"""Rows as mappings of features, one at a time: places, a learner, and the shortest way between them."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from onward.rows.beginning import Beginning
from onward.rows.encoder import Encoder
from onward.rows.packed import Packed
from onward.rows.places import Places
from onward.rows.stream import MANY, Answers, RowLearner, RowRecipe
from onward.rows.stream.programs import held, programs_of
from onward.rows.units import REACH, Unit
from onward.types import PyTree


class Past(NamedTuple):
    """A number to predict, in units of its first value: its last value and change that are known, in the same."""

    unit: Unit | None = None
    past: tuple[float, float] = (math.nan, math.nan)

    def after(self, y: float) -> tuple["Past", float, float]:
        """What is known after one more value, NaN where it is missing; the value and its change, in units."""
        unit, u = self.unit, math.nan
        if y == y:
            unit = unit or Unit(y)
            u = (y - unit.origin) / unit.length
            u = u if -REACH < u < REACH else math.nan
        change = u - self.past[0]
        return Past(unit, (u, change) if u == u else self.past), u, change


class FeatureLearner(NamedTuple):
    """Rows of features in, numbers of a learner out, at one moment: what learns gives the next one.

    `memory`: what else the owner remembers of the rows so far. `first`: their first values.
    """

    places: Places
    learner: RowLearner
    memory: Any = None
    first: Beginning = Beginning()

    @classmethod
    def start(
        cls, recipe: RowRecipe, reserved: Sequence[str] = (), classes: int = 0, memory: Any = None
    ) -> "FeatureLearner":
        """Before the first row; `reserved` names inputs that are computed, which come first."""
        learner = RowLearner(recipe, Encoder().capacity, classes, lengths=(MANY,))
        places = Places.start(learner, reserved)
        return cls(places, learner._replace(capacity=places.encoder.capacity), memory)

    def __reduce__(self) -> tuple[Any, ...]:
        kept = self.places.encoder.as_dict(), self.learner, dict(self.places.names), self.memory
        return _unpickled, (*kept, self.first)

    def placed(self, x: Mapping[Any, Any]) -> tuple["FeatureLearner", list[float]]:
        """The row [inputs, targets], of which only the features are filled in; all that is new in it has a place."""
        row = self.places.encode(x)
        if row is not None:
            return self, row
        places, learner = self.places.with_new(x, self.learner)
        return self._replace(places=places, learner=learner), places.known(x)

    def watched(
        self, x: Mapping[Any, Any], row: list[float], target: float = math.nan
    ) -> tuple["FeatureLearner", float]:
        """What is to learn from a row of x, and its target: wild ones of the first values are taken out of both.

        Where a value that was learned from turns out to be one, nothing is learned yet; if it is a target's, nothing is
        remembered either.
        """
        if not self.first.open:
            return self, target
        places, slots = self.places, self.places.encoder.slots
        numbers: dict[Any, float] = {**places.numbers(x), None: target}
        first = self.first.see(numbers)
        after = self._replace(first=first)
        for key in first.strange:
            if key is None:
                target = math.nan
            else:
                row[slots[key]] = math.nan
        if first.anew:
            units = {key: Unit(value) for key, value in first.anew.items() if key is not None}
            places = places.in_units(units, self.learner)
            for key, unit in units.items():
                row[slots[key]] = math.nan if key in first.strange else float(unit.to(numbers[key]))
            memory = None if None in first.anew else self.memory
            after = after._replace(places=places, learner=self.learner._replace(state=None), memory=memory)
        for key in dict.fromkeys((*first.strange, *first.anew)):
            what = "a target" if key is None else f"feature {key!r:.80}"
            self.places.told(
                (FeatureLearner, key), f"{what}: one of the first values is far from all others; not believed"
            )
        return after, target

    def with_classes(self, classes: int) -> "FeatureLearner":
        """With room for so many classes; doubled where it is full."""
        if classes <= self.learner.classes:
            return self
        return self._of(self.learner.add_classes(max(classes, 2 * self.learner.classes)))

    def _of(self, learner: RowLearner) -> "FeatureLearner":
        """With a learner of perhaps another shape."""
        same = learner.stage == self.learner.stage and learner.classes == self.learner.classes
        places = self.places if same else Places(self.places.encoder, self.places.names, learner, self.places.told)
        return self._replace(places=places, learner=learner)

    def learn(self, row: list[float], memory: Any) -> "FeatureLearner":
        """After one row [inputs, targets]; this one is still whole."""
        places, learner = self.places, self.learner
        after = learner.learned(places.row(learner.packed, np.array(row, np.float32), places.plain))
        if after.stage != learner.stage:
            places = Places(places.encoder, places.names, after, places.told)
        return FeatureLearner(places, after, memory, self.first)

    def learn_all(self, rows: list[list[float]]) -> "FeatureLearner":
        """After rows of equal length, in compiled calls of up to `MANY`."""
        if len(rows) < 2:
            return self.learn(rows[0], self.memory) if rows else self
        block, at = np.array(rows, np.float32), self.learner.capacity
        after, _ = self.learner.learn(block[:, :at], self.places.plain, block[:, at:])  # type: ignore[arg-type]
        return self._of(after)

    def ask(self, row: list[float]) -> np.ndarray:
        """The outputs for a row; nothing changes."""
        return np.asarray(self.places.ask(self.learner.packed, np.array(row, np.float32), self.places.plain))

    def peek(self, row: list[float]) -> Answers:
        """All that is said of a row; nothing changes."""
        values, at = np.array(row, np.float32), self.learner.capacity
        return self.learner.peek(values[:at], self.places.plain, values[at:])  # type: ignore[arg-type]

    def ask_all(self, rows: list[list[float]]) -> np.ndarray:
        """The outputs for each of many rows as if it came next, in compiled calls of `MANY`."""
        learner, places = self.learner, self.places
        block = np.zeros((-(-len(rows) // MANY), MANY, len(places.blank)), np.float32)
        block.reshape(-1, len(places.blank))[: len(rows)] = rows
        asks = learner.programs.of("asks", MANY)
        return np.concatenate([asks(learner.packed, part, places.plain) for part in block])[: len(rows)]

    def take(self, rows: Sequence[Mapping[Any, Any]], fill: Callable[[Any, int, list[float]], Any]) -> "FeatureLearner":
        """After rows in order. `fill(memory, i, row)` puts the targets of row i into the row: the next memory."""
        after, waiting, memory = self, list[list[float]](), self.memory
        for i, x in enumerate(rows):
            row = after.places.encode(x)
            if row is None or len(waiting) == MANY:
                after, waiting = after.learn_all(waiting), []
                after, row = after.placed(x)
            memory = fill(memory, i, row)
            waiting.append(row)
        return after.learn_all(waiting)._replace(memory=memory)


def _unpickled(
    encoder: dict[str, Any], learner: RowLearner | None, names: dict[Any, str], memory: Any, first: Beginning
) -> FeatureLearner | None:
    if learner is None:  # in a process that cannot compute
        return None
    return FeatureLearner(Places(Encoder.from_dict(encoder), names, learner), learner, memory, first)


@lru_cache(maxsize=64)
def ahead(recipe: RowRecipe, capacity: int, classes: int, stage: int) -> Callable[..., Array]:
    """The program that forecasts: (packed state, rows, plain, last value and change, count) to what the last value is
    gone by, and the changes after it, in units.

    The first two inputs of every row are the last value and change: those that were predicted the row before.
    """
    programs = programs_of(recipe, capacity, classes, stage)

    def run(packed: Packed, rows: Array, plain: Array, start: Array, count: Array) -> Array:
        state = programs.packing.unpack(packed)
        start = programs.stream.believed(state, rows[0, :capacity].at[: len(start)].set(start), plain)[: len(start)]
        dynamic, static = eqx.partition(state, eqx.is_array)

        def body(i: Array, loop: tuple[PyTree, Array, Array]) -> tuple[PyTree, Array, Array]:
            dynamic, past, changes = loop
            x, y = rows[i, :capacity].at[: len(past)].set(past), rows[i, capacity:]
            after, answer = programs.stream.read(eqx.combine(dynamic, static), x, plain, y, y, programs.stream.nowhere)
            change = answer[0]
            past = jnp.stack([past[0] + change, change])
            return eqx.filter(after, eqx.is_array), past, changes.at[i].set(change)

        changes = lax.fori_loop(0, count, body, (dynamic, start, jnp.zeros(len(rows))))[2]
        return jnp.concatenate([start[:1], changes])

    return held(run)
