"""How odd a row is, and how odd a target is, as River anomaly detectors."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from onward.adapters.river import _Network, _number, _Numbers, _tell_of_target
from onward.errors import needs
from onward.rows.features import FeatureLearner, Past
from onward.rows.oddness import surprise
from onward.rows.rarity import Rarity
from onward.rows.stream import MANY, moved, placed
from onward.rows.units import Unit

try:
    from river.base import AnomalyDetector, SupervisedAnomalyDetector
except ImportError as error:
    raise ImportError(needs(__name__, "river")) from error

# Rows that are waited for until it is settled which features are predicted.
FIRST = 10
# Who answers beside the network where rows follow one another and nobody tells when.
SEQUENCE = ("stack", "network", "lags", "last", "mean")


def _moved(spread: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Mixtures (numbers, 3 components), each moved so that its median is the prediction (numbers,)."""
    return moved(spread, placed(spread, point.astype(float), 0.5, len(spread))[1])


class Judged(NamedTuple):
    """A target's past, as of a regressor, and how odd its values have been."""

    target: Past
    rarity: Rarity

    @property
    def unit(self) -> Unit | None:
        """In which the target is told."""
        return self.target.unit

    @property
    def past(self) -> tuple[float, float]:
        """Its last value and change."""
        return self.target.past

    def after(self, y: float) -> tuple["Judged", float, float]:
        """What is known after one more value; the value and its change, in units."""
        target, u, change = self.target.after(y)
        return self._replace(target=target), u, change


@dataclass(eq=False, repr=False)
class OnlineTargetAnomalyDetector(_Numbers, SupervisedAnomalyDetector):
    """A recurrent network that says how odd a target is, given the features of its row and all rows before it.

    It predicts the target as `OnlineRegressor` does, with a distribution around it, and holds the value against that.
    The score is 1 - p, higher where odder, and p holds what it says: whatever the law of the errors, of calm rows a
    share p has a smaller one. So a threshold of .999 flags one calm row in a thousand. p is the chance of a value at
    least as unlikely, or of such a run of values too high, too low, too far off or all the same, whichever is rarer. Of
    the first rows nobody can say that one is very odd: p of row n is n^-1.5 at least.

    Features and parameters as in `OnlineRegressor`.

    >>> from onward.adapters.river_anomaly import OnlineTargetAnomalyDetector
    >>> model = OnlineTargetAnomalyDetector(units=4)
    >>> for t in range(300):
    ...     model.learn_one({"phase": t % 4}, 10.0 + t % 4 + 0.1 * (t % 7))
    >>> model.score_one({"phase": 0}, 10.3) < 0.9, model.score_one({"phase": 0}, 20.0) > 0.99
    (True, True)
    """

    autoregressive: bool = field(default=True, kw_only=True)
    experts: bool = field(default=False, kw_only=True)
    intervals: ClassVar[bool] = True

    def _nothing(self) -> Judged:
        return Judged(Past(), Rarity(1))

    def score_one(self, x: dict[Any, Any], y: Any) -> float:
        """How odd it would be if this row came next: 0 to 1. Nothing changes; 0 where y or any before it is unknown.

        ValueError: y is not a number. `onward.errors.NotFinite`: `step_size` is too large.
        """
        core, value = self._keeper.core, _number(self, y)
        if core is None or core.memory.unit is None or value != value:
            return 0.0
        return 1.0 - core.memory.rarity.score(*self._odd(core, x, value))

    def _odd(self, core: FeatureLearner, x: Mapping[Any, Any], value: float) -> tuple[np.ndarray, ...]:
        u = np.array([core.memory.after(value)[1]])
        odd, above = surprise(_moved(*self._distribution(core, x)), u)
        return np.where(np.isfinite(u), odd, np.nan), above, u

    def learn_one(self, x: dict[Any, Any], y: Any) -> None:
        """Read a row and learn from its target, and from how odd it was. Where y is missing the row is read only.

        ValueError: y is not a number, or (first row) a parameter is not allowed.
        """
        value = _number(self, y)
        with self._keeper.turn:
            core = self._made()
            if core.memory is not None and core.memory.unit is not None and value == value:
                rarity = core.memory.rarity.after(*self._odd(core, x, value))
                core = core._replace(memory=core.memory._replace(rarity=rarity))
            self._keeper.core = core = self._learned(core, x, value)
        _tell_of_target(core.places.told, y, value)


class Watch(NamedTuple):
    """What is remembered of rows whose features are predicted.

    `first`: the rows that are waited for. `features`: which are predicted, by the encoder's names. `spread`: the
    mixtures (features, 3 components) of the next row, in units, each around its prediction; None: nothing was said.
    """

    first: tuple[dict[Any, Any], ...] = ()
    features: tuple[str, ...] = ()
    spread: np.ndarray | None = None
    rarity: Rarity | None = None


@dataclass(eq=False, repr=False)
class OnlineAnomalyDetector(_Network, AnomalyDetector):
    """A recurrent network that says how odd a row is, given all rows before it.

    It predicts every number of the next row, with a distribution around it, and holds the row against that. The score
    is 1 - p, higher where odder, and p holds what it says: whatever the law of the errors, and however features hang
    together, of calm rows a share p has a smaller one. So a threshold of .999 flags one calm row in a thousand. What is
    odd in one feature counts (Bonferroni), and so does what is a little odd in many (Fisher); so does a run of values
    too high, too low, too far off or all the same. Of the first rows nobody can say that one is very odd: p of row n is
    n^-1.5 at least.

    Rows are taken to be a time series: in shuffled ones only the law of each feature is to be learned. Features as in
    `OnlineRegressor`; those that are numbers in the first ten rows are predicted, and rows before the eleventh have no
    score. Others, and those that come later, are read and not judged. Parameters as in `OnlineRegressor`, but for
    `experts`: whether least squares over the last 48 changes, the last value, the mean and a stack of all answer beside
    the network; it is what finds seasons.

    >>> from onward.adapters.river_anomaly import OnlineAnomalyDetector
    >>> model = OnlineAnomalyDetector(units=4)
    >>> for t in range(300):
    ...     model.learn_one({"load": 10.0 + t % 4 + 0.1 * (t % 7)})
    >>> model.score_one({"load": 10.6}) < 0.9, model.score_one({"load": 20.0}) > 0.99
    (True, True)
    """

    experts: bool = field(default=True, kw_only=True)
    intervals: ClassVar[bool] = True

    def _new_core(self) -> FeatureLearner:
        return self._start(())

    def _start(self, features: tuple[str, ...]) -> FeatureLearner:
        """Before the first row, of which these are predicted."""
        count = max(1, len(features))
        recipe = dataclasses.replace(
            self._recipe("number"), targets=count, horizon=1, lag=1, experts=SEQUENCE if self.experts else ()
        )
        core = FeatureLearner.start(recipe, memory=Watch((), features, rarity=Rarity(count)))
        return core._replace(learner=core.learner._replace(lengths=(1, MANY)))

    def score_one(self, x: dict[Any, Any]) -> float:
        """How odd it would be if this row came next: 0 to 1. Nothing changes; 0 where nothing was said of it."""
        core = self._keeper.core
        odd = None if core is None else self._odd(core, x)
        return 0.0 if core is None or odd is None else 1.0 - core.memory.rarity.score(*odd)

    def _odd(self, core: FeatureLearner, x: Mapping[Any, Any]) -> tuple[np.ndarray, ...] | None:
        """Surprises of the features of a row, whether they lie above the middle, and their values, in units."""
        watch, encoder = core.memory, core.places.encoder
        if watch.spread is None:
            return None
        numbers = core.places.numbers(x)
        units, nan = encoder.units, math.nan
        u = np.array([float(units[n].to(numbers.get(n, nan))) if n in units else nan for n in watch.features])
        odd, above = np.full(len(u), np.nan), np.zeros(len(u), bool)
        known = np.isfinite(u)
        odd[known], above[known] = surprise(self._finite(watch.spread)[known], u[known])
        return odd, above, u

    def learn_one(self, x: dict[Any, Any]) -> None:
        """Read a row and learn from it, and from how odd it was.

        ValueError: (first row) a parameter is not allowed. `onward.errors.NotFinite`: `step_size` is too large.
        """
        with self._keeper.turn:
            core = self._made()
            if not x.keys() <= core.places.names.keys():  # new ones find their places whatever their order in the row
                x = {name: x[name] for name in sorted(x, key=str)}
            if core.memory.features:
                self._keeper.core = self._learned(core, x)
                return
            first = (*core.memory.first, dict(x))
            core, _ = core.placed(x)
            core = core._replace(memory=Watch(first[-FIRST:]))
            names = tuple(name for name in core.places.names.values() if name in core.places.encoder.slots)
            if len(first) >= FIRST and names:
                core = self._start(names)
                for each in first:
                    core = self._learned(core, each)
            self._keeper.core = core

    def _learned(self, core: FeatureLearner, x: Mapping[Any, Any]) -> FeatureLearner:
        odd, watch = self._odd(core, x), core.memory
        rarity = watch.rarity if odd is None else watch.rarity.after(*odd)
        core, row = core.placed(x)
        core, _ = core.watched(x, row)
        slots, count = core.places.encoder.slots, len(watch.features)
        row[-count:] = [row[slots[name]] if name in slots else math.nan for name in watch.features]
        block, at = np.array([row], np.float32), core.learner.capacity
        learner, said = core.learner.learn(block[:, :at], core.places.plain, block[:, at:])  # type: ignore[arg-type]
        spread = _moved(said.spread[0], said.outputs[0])
        return core._of(learner)._replace(memory=watch._replace(spread=spread, rarity=rarity))
