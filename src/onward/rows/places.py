"""Where the features of a row go: names and values of any kind as the numbers that a learner reads."""

import datetime
import enum
import math
import numbers
import sys
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from onward.rows.clock import CALENDAR, calendar
from onward.rows.encoder import OPEN, Encoder
from onward.rows.kinds import Column
from onward.rows.packed import Packed
from onward.rows.sources import is_missing, number_in
from onward.rows.stream import RowLearner
from onward.rows.units import REACH, Unit
from onward.text import seconds

# A number of this size or more is no number of single precision: it counts as missing.
HUGE = 1e38
# A plan says where a feature goes. Of these it says that it is a category, or a time.
_CATEGORY, _TIME = -1, -2
# What is told once of all features for which there is no room.
_FULL = object()


def single(value: Any) -> Any:
    """What an array of no dimension holds (of NumPy, JAX and others), or a scalar of Arrow; else the value itself."""
    if isinstance(value, np.ndarray) and value.shape == ():
        return value[()]
    if hasattr(value, "as_py"):
        return value.as_py()
    if getattr(value, "shape", None) == () and not isinstance(value, np.generic):
        return value.item()
    return value


def is_unknown(value: Any) -> bool:
    """Whether a value stands for nothing: None, NaN, NaT, pandas' NA, NumPy's masked.

    These are not equal to themselves, or it is not known whether they are.
    """
    if value is None:
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    try:
        other = value != value
    except Exception:
        return False
    if other.__class__ is bool or isinstance(other, np.bool_):
        return bool(other)
    return other is value


def value_of(value: Any) -> float | str | datetime.date | np.datetime64 | None:
    """What a value says: a number (NaN where it is missing), a text or a time; None if it is none of these.

    Numbers may be Python's, NumPy's, pandas', Arrow's, Decimal, Fraction, or an array of no dimension. A span of time
    counts in seconds; bytes are text, in UTF-8. Of an Enum, members that are numbers or text (IntEnum, StrEnum) are
    taken as these, others by their name. An integer too large for a float is infinite.
    """
    if value.__class__ is float:
        return value
    if isinstance(value, str):
        return value if value.__class__ is str else str.__str__(value)  # nobody else's class is kept
    if isinstance(value, datetime.date | np.datetime64):
        return value
    try:
        if isinstance(value, datetime.timedelta):
            return value.total_seconds()
        if isinstance(value, np.timedelta64):
            return math.nan if np.isnat(value) else float(value / np.timedelta64(1, "s"))
        if isinstance(value, numbers.Real | np.bool_ | Decimal):
            return float(value)
        if isinstance(value, bytes):
            return value.decode()
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return math.nan if is_unknown(value) else None
    if isinstance(value, enum.Enum):
        return value.name
    if is_unknown(value):
        return math.nan
    try:
        inner = single(value)
    except Exception:
        return None
    return None if inner is value or inner.__class__ is value.__class__ else value_of(inner)


def number_of(value: Any) -> float:
    """A number that single precision can hold, or NaN where it is none. Text is no number."""
    number = value if value.__class__ is float else value_of(value)
    return number if isinstance(number, float) and -HUGE < number < HUGE else math.nan


def _key(names: Mapping[Hashable, str], name: Hashable) -> str:
    """What the encoder calls a feature."""
    return names.get(name) or (name if isinstance(name, str) else repr((name,)))


def _kind(said: Any) -> str:
    return "a number" if isinstance(said, float) else "text" if isinstance(said, str) else "a time"


def _is_missing(said: Any) -> bool:
    """Whether what a value says, as `value_of` gives it, is nothing."""
    if isinstance(said, str):
        return is_missing(said)
    return math.isnan(said if isinstance(said, float) else seconds(said))


class Told:
    """What was said of features in a warning: once by name, to who called this package."""

    def __init__(self) -> None:
        self._names: set[Hashable] = set()

    def __call__(self, name: Hashable, text: str) -> None:
        """Warn, if nothing was said of this name before."""
        if name in self._names:
            return
        self._names.add(name)
        frame, level = sys._getframe(1), 2
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("onward."):
            frame, level = frame.f_back, level + 1
        warnings.warn(text, stacklevel=level)


class Places:
    """Where every feature goes, and the programs for rows of that shape. It never changes: `with_new` gives another.

    `row` learns from one row [inputs, targets] and `ask` answers one, as `Programs.of` says.
    """

    def __init__(self, encoder: Encoder, names: Mapping[Hashable, str], learner: RowLearner, told: Told | None = None):
        self.encoder, self.names = encoder, names
        self.told = told or Told()  # shared by those that come after
        self.plan: dict[Hashable, tuple[int, float, float, Any]] = {}
        for name, key in names.items():
            if key in encoder.slots:
                unit = encoder.units[key]
                self.plan[name] = (encoder.slots[key], unit.origin, unit.length, key)
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
        try:
            cells = x.items()
        except AttributeError:
            raise TypeError(
                f"a row is a dict of the names and values of its features, got {type(x).__name__}; learn_many and "
                "predict_many take arrays and data frames"
            ) from None
        for name, value in cells:
            place = self.plan.get(name)
            if place is None:
                if not self._passed_over(name, value):
                    return None
                continue
            slot, origin, length, key = place
            if slot >= 0:
                number = value if value.__class__ is float else self._number(name, key, value)
                if number is None:
                    return None
                u = (number - origin) / length
                if -REACH < u < REACH:
                    row[slot] = u
                elif number == number:
                    self.told(name, f"feature {name!r:.80}: {number:g} is too large there; it counts as missing")
            elif slot == _TIME:
                for part, wave in self._moment(name, key, value):
                    row[self.encoder.slots[part]] = wave - self.encoder.units[part].origin
            else:
                said = self._said(name, value)
                if isinstance(said, str):
                    category = self.encoder.slot_of(key, said)
                    if category is not None:
                        row[category] = 1.0
                    elif not self._passed_over(name, said):
                        return None
                elif said is not None:
                    if isinstance(said, float) and key in self.encoder.fits:
                        return None
                    self._contradicts(name, said, "categories")
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
        if slot == _TIME or (slot >= 0 and value.__class__ is float):
            return True
        said = value_of(value)
        if self._is_against(slot, key, said):
            self._contradicts(name, said, self.encoder.columns[key].words)
            return False
        return slot >= 0 or not isinstance(said, str) or self.encoder.slot_of(key, said) is not None

    def _said(self, name: Hashable, value: Any) -> float | str | datetime.date | np.datetime64 | None:
        """What a value says; None if it is missing, or, which is told, nothing that is read."""
        said = value_of(value)
        if said is None:
            what = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
            self.told(
                name, f"feature {name!r:.80} holds a {what}, which is no number, text or time; it counts as missing"
            )
            return None
        return None if _is_missing(said) else said

    def _number(self, name: Hashable, key: str, value: Any) -> float | None:
        """The number of a feature that held numbers before; NaN where it is missing or, which is told, none.

        None: it is none, and the feature may turn out to be another thing.
        """
        if value.__class__ is int and -HUGE < value < HUGE:
            return float(value)
        said = self._said(name, value)
        if said is None or isinstance(said, float):
            return math.nan if said is None else said
        if isinstance(said, str):
            if (number := number_in(said, self.encoder.numerals(key))) is not None:
                return number
            if key in self.encoder.fits:
                return None
        self._contradicts(name, said, "numbers")
        return math.nan

    def _contradicts(self, name: Hashable, said: Any, before: str) -> None:
        self.told(name, f"feature {name!r:.80} held {before} before and holds {_kind(said)} now; it counts as missing")

    def _passed_over(self, name: Hashable, value: Any) -> bool:
        """Whether a feature, or a category, that has no place yet is to get none."""
        said = self._said(name, value)
        if said is None:
            return True
        column = self.encoder.columns.get(_key(self.names, name))
        if column and column.kind == "time" and isinstance(said, str) and column.fit(said) != "against":
            self.told(
                name,
                f"feature {name!r:.80} holds times as text, such as {said!r:.40}, which are not read: give it as a "
                "datetime, as datetime.fromisoformat or datetime.strptime make one",
            )
            return True
        if self.encoder.full:
            room = self.encoder.capacity
            self.told(_FULL, f"more than {room} numbers and categories: {name!r:.80} and all later ones are not read")
            return True
        if isinstance(said, float) and not -HUGE < said < HUGE:
            self.told(name, f"feature {name!r:.80}: {said:g} is too large; it counts as missing")
            return True
        return False

    def _moment(self, name: Hashable, key: str, value: Any) -> Iterator[tuple[str, float]]:
        """A time as where in the day, the week and the year it lies."""
        said = self._said(name, value)
        if isinstance(said, datetime.date | np.datetime64):
            for part, wave in calendar(np.array([seconds(said)])).items():
                if f"{key} {part}" in self.encoder.slots:
                    yield f"{key} {part}", float(wave[0])
        elif said is not None:
            self._contradicts(name, said, "times")

    def with_new(self, x: Mapping[Any, Any], learner: RowLearner) -> tuple["Places", RowLearner]:
        """Places for all that is new in a row too, and the learner with room for them."""
        cells: dict[str, list[Any]] = {}
        encoder, names = Encoder.from_dict(self.encoder.as_dict()), dict(self.names)
        for name, value in x.items():
            said = value_of(value)
            key = _key(names, name)
            place = self.plan.get(name)
            if place is not None:
                if self._is_against(place[0], key, said):
                    self._revise(name, key, said, encoder, learner.rows)
                    if encoder.columns[key] == self.encoder.columns[key]:
                        continue
                elif place[0] != _CATEGORY or not isinstance(said, str):
                    continue
            elif self._passed_over(name, value):
                continue
            elif key in encoder.fits and isinstance(said, float | str):  # times as text, so far
                self._revise(name, key, said, encoder, learner.rows)
                if encoder.columns[key] == self.encoder.columns[key]:
                    continue
            if isinstance(said, datetime.date | np.datetime64):
                # Waves are numbers of size 1, from zero.
                waves = {f"{key} {part}": [0.0] for part in CALENDAR}
                cells |= waves
                encoder.columns |= dict.fromkeys(waves, Column("number", sure=True))
            else:
                if key not in encoder.columns:
                    encoder.born[key] = learner.rows
                cells[key] = [said]
            names[name] = key
        encoder.settle({key: column for key, column in cells.items() if key not in encoder.columns}, 0, 1)
        encoder.give_slots(cells, 0, 1)
        has_slot = lambda key: (
            key in encoder.slots or key in encoder.vocabulary or f"{key} {CALENDAR[0]}" in encoder.slots
        )
        names = {name: key for name, key in names.items() if has_slot(key)}
        if encoder.capacity > learner.capacity:
            learner = learner.widen(encoder.capacity)
        return Places(encoder, names, learner, self.told), learner

    def numbers(self, x: Mapping[Any, Any]) -> dict[str, float]:
        """The numbers of a row, of features that have a place; NaN for one that is missing."""
        found = {}
        for name, value in x.items():
            slot, *_, key = self.plan.get(name, (_TIME, 0.0, 1.0, ""))
            if slot >= 0:
                number = self._number(name, key, value)
                found[key] = math.nan if number is None else number
        return found

    def in_units(self, units: Mapping[str, Unit], learner: RowLearner) -> "Places":
        """The same places, with features in other units."""
        encoder = Encoder.from_dict(self.encoder.as_dict())
        encoder.units |= units
        return Places(encoder, self.names, learner, self.told)

    def _is_against(self, slot: int, key: str, said: Any) -> bool:
        """Whether a value contradicts what its feature was read as, which may be revised."""
        if key not in self.encoder.fits or not isinstance(said, float | str):
            return False
        if slot == _CATEGORY:
            return self.encoder.columns[key].fit(said) == "against"
        return isinstance(said, str) and number_in(said, self.encoder.numerals(key)) is None

    def _revise(self, name: Hashable, key: str, said: Any, encoder: Encoder, rows: int) -> None:
        """Count a value that contradicts what its feature is read as; read it as something else if most do."""
        fits, before = encoder.fits[key], encoder.columns[key]
        # Of a value that fits nobody takes notice: it was one of all rows since.
        fits[0] = max(0, rows - encoder.born[key] - sum(fits[1:]))
        if sum(fits) >= OPEN:
            del encoder.fits[key]
        else:
            encoder.settle({key: [said]}, 0, 1)
        after = encoder.columns[key]
        if after == before:
            self._contradicts(name, said, before.words)
        else:
            self.told(
                (name, after.kind),
                f"feature {name!r:.80} was read as {before.words}, by its first values, and what follows is "
                f"{after.words}: it is read as that from here on",
            )
