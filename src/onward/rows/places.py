"""Where the features of a row go: names and values of any kind as the numbers that a learner reads."""

import datetime
import math
import numbers
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from onward.rows.clock import CALENDAR, calendar
from onward.rows.encoder import REACH, Encoder
from onward.rows.kinds import Column
from onward.rows.packed import Packed
from onward.rows.sources import is_missing
from onward.rows.stream import RowLearner
from onward.text import seconds

# A number of this size or more is no number of single precision: it counts as missing.
HUGE = 1e38
# A plan says where a feature goes. Of these it says that it is a category, or a time.
_CATEGORY, _TIME = -1, -2


def number_of(value: Any) -> float:
    """A number that single precision can hold, or NaN where it is none. Text is no number."""
    if value.__class__ is float:
        return value if -HUGE < value < HUGE else math.nan
    if isinstance(value, numbers.Number | np.bool_ | Decimal):
        try:
            read = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            return math.nan
        return read if -HUGE < read < HUGE else math.nan
    return math.nan


class Places:
    """Where every feature goes, and the programs for rows of that shape. It never changes: `with_new` gives another.

    `row` learns from one row [inputs, targets] and `ask` answers one, as `Programs.of` says.
    """

    def __init__(self, encoder: Encoder, names: Mapping[Hashable, str], learner: RowLearner):
        self.encoder, self.names = encoder, names
        self.plan: dict[Hashable, tuple[int, float, float, Any]] = {}
        for name, key in names.items():
            if key in encoder.slots:
                unit = encoder.units[key]
                self.plan[name] = (encoder.slots[key], unit.origin, unit.length, None)
            else:
                self.plan[name] = (_CATEGORY if key in encoder.vocabulary else _TIME, 0.0, 1.0, key)
        # Of a category every slot is 0 but one; a number is missing unless it is given.
        self.blank = [0.0 if p else math.nan for p in encoder.plain.tolist()] + [math.nan] * learner.recipe.targets
        self.plain = jnp.asarray(encoder.plain.copy())
        # Functions, that River's count of an estimator's memory passes over: programs are shared.
        self.row: Callable[..., Packed] = learner.programs.of("row", 1)
        self.ask: Callable[..., Array] = learner.programs.of("ask", 1)

    @classmethod
    def start(cls, learner: RowLearner, reserved: Sequence[str]) -> "Places":
        """None yet, but for the `reserved` inputs, which are computed and come first."""
        encoder = Encoder(plain=reserved)
        encoder.plain[: len(reserved)] = False
        return cls(encoder, {}, learner)

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

    def with_new(self, x: Mapping[Any, Any], learner: RowLearner) -> tuple["Places", RowLearner]:
        """Places for all that is new in a row too, and the learner with room for them."""
        cells: dict[str, list[Any]] = {}
        words, names = set[str](), dict(self.names)
        for name, value in x.items():
            of_category = name in self.plan and self.plan[name][0] == _CATEGORY and isinstance(value, str)
            if self._passed_over(value) or (name in self.plan and not of_category):
                continue
            key = names.get(name) or (name if isinstance(name, str) else repr((name,)))
            if isinstance(value, str):
                cells[key] = [value]
                words.add(key)
            elif isinstance(value, datetime.date | np.datetime64):
                # Waves are numbers of size 1, from zero.
                cells |= {f"{key} {part}": [0.0] for part in CALENDAR}
            else:
                cells[key] = [number_of(value)]
            names[name] = key
        encoder = Encoder.from_dict(self.encoder.as_dict())
        encoder.columns |= {key: Column("category", sure=True) for key in words}
        encoder.columns |= {key: Column("number", sure=True) for key in cells if key not in encoder.columns}
        encoder.give_slots(cells, 0, 1)
        has_slot = lambda key: (
            key in encoder.slots or key in encoder.vocabulary or f"{key} {CALENDAR[0]}" in encoder.slots
        )
        names = {name: key for name, key in names.items() if has_slot(key)}
        if encoder.capacity > learner.capacity:
            learner = learner.widen(encoder.capacity)
        return Places(encoder, names, learner), learner
