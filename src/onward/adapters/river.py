"""Networks that learn from one row at a time, as River estimators."""

import abc
import datetime
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from onward.adapters.frames import frame_like, records, series_like, values
from onward.adapters.parameters import require_real, require_whole
from onward.errors import NotFinite, needs
from onward.rows.features import FeatureLearner, Past, ahead
from onward.rows.keeper import Keeper
from onward.rows.places import Told, is_unknown, number_of, single, value_of
from onward.rows.stream import NETWORKS, RULES, RowRecipe, experts_of, interval
from onward.rows.stream.recipe import Kind

try:
    from river import base
    from river.conf.interval import Interval
    from river.time_series.base import Forecaster
except ImportError as error:
    raise ImportError(needs(__name__, "river")) from error

# Room for classes at the start; doubled whenever it is full.
CLASSES = 2
# Forecasts are made in stretches of powers of two, of at least so many rows.
AHEAD = 16
SHARE = "a number between 0 and 1"
# Gaussians of the distribution of a number.
COMPONENTS = 3
# What a forecaster reads besides the features: the target's last value, and its last change.
LAST = ("last value", "last change")


@dataclass(eq=False, repr=False)
class _Network(abc.ABC):
    """What the estimators share: their parameters, and the keeper of a core, made when the first row comes."""

    network: str = "columnar"
    units: int = 32
    stages: int = 2
    stage_rows: int = 20_000
    rule: str = "exact"
    step_size: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self._keeper = Keeper()

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        yield {"units": 4}

    def _recipe(self, kind: Kind) -> RowRecipe:
        """What learns, or a ValueError that names the parameter which is not allowed."""
        name = type(self).__name__
        require_whole(self, units=self.units, stages=self.stages, stage_rows=self.stage_rows)
        require_whole(self, 0, seed=self.seed)
        for parameter, known in (("network", NETWORKS), ("rule", tuple(RULES))):
            if (value := getattr(self, parameter)) not in known:
                raise ValueError(f"{name}: {parameter} must be one of {', '.join(known)}, got {value!r}")
        step = self.step_size
        if step is not None:
            allowed = "a positive, finite number, or None for the usual"
            require_real(self, allowed, lambda size: 0 < size < math.inf, step_size=step)
        if self.network in ("columnar", "ccn") and self.rule != "exact":
            raise ValueError(f"{name}: rule {self.rule!r}: columns learn exactly; other rules need network gru or lstm")
        if self.network == "ccn" and self.units % self.stages:
            raise ValueError(f"{name}: stages must divide units, got {self.stages!r} and {self.units!r}")
        grows: Any = {"stages": int(self.stages), "stage_rows": int(self.stage_rows)} if self.network == "ccn" else {}
        for parameter in ("experts", "intervals"):
            if not isinstance(said := getattr(self, parameter, False), bool):
                raise ValueError(f"{name}: {parameter} must be True or False, got {said!r}")
        mixed, spread = getattr(self, "experts", False), getattr(self, "intervals", False)
        return RowRecipe(
            kind=kind,
            network=self.network,  # type: ignore[arg-type]
            rule=self.rule,
            units=int(self.units),
            horizon=0,
            lag=0,
            step_size=None if step is None else float(step),
            components=COMPONENTS if spread else 0,
            experts=experts_of(kind, 0) if mixed else (),
            seed=int(self.seed),
            **grows,
        )

    @abc.abstractmethod
    def _new_core(self) -> FeatureLearner: ...

    def _made(self) -> FeatureLearner:
        return self._keeper.core or self._new_core()

    def _finite(self, values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            raise NotFinite(f"{type(self).__name__}: learning diverged with step_size={self.step_size}; lower it")
        return values


def _number(owner: object, y: Any) -> float:
    """A target; NaN where it is missing or unusable. ValueError: it is not a number."""
    if y.__class__ is float:
        return number_of(y)
    if is_unknown(y):
        return math.nan
    said = value_of(y)
    if isinstance(said, float) and not isinstance(y, datetime.timedelta | np.timedelta64):
        return number_of(said)
    raise ValueError(f"{type(owner).__name__}: the target must be a number, got {y!r:.200}")


def _tell_of_target(told: Told, y: Any, number: float) -> None:
    if number != number and not is_unknown(y) and not math.isnan(value_of(y)):  # type: ignore[arg-type]
        told(_tell_of_target, "a target is infinite, or 1e38 or more: it counts as missing")


def _pairs(owner: object, rows: Any, ys: Any) -> tuple[list[Mapping[Any, Any]], list[Any]]:
    read, targets = records(owner, rows), values(owner, ys)
    if len(read) != len(targets):
        counts = f"{len(targets)} and {len(read)}"
        raise ValueError(f"{type(owner).__name__}: as many targets as rows are needed, got {counts}")
    return read, targets


class _Numbers(_Network):
    """What predicts numbers: from the target's last value and change, too, where it is `autoregressive`."""

    autoregressive: bool = True
    _predicts_change: ClassVar[bool] = False

    def _new_core(self) -> FeatureLearner:
        reserved = LAST if self.autoregressive else ()
        return FeatureLearner.start(self._recipe("number"), reserved, memory=self._nothing())

    def _learn(self, x: Mapping[Any, Any], y: Any) -> None:
        value = _number(self, y)
        keeper = self._keeper
        with keeper.turn:
            keeper.core = core = self._learned(self._made(), x, value)
        _tell_of_target(core.places.told, y, value)

    def _learned(self, core: FeatureLearner, x: Mapping[Any, Any], value: float) -> FeatureLearner:
        core, row = core.placed(x)
        core, value = core.watched(x, row, value)
        return core.learn(row, self._fill(core.memory or self._nothing(), row, value))

    def _nothing(self) -> Any:
        """What is remembered before the first target."""
        return Past()

    def _distribution(self, core: FeatureLearner, x: Mapping[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Of a row that would come next: the mixture (1, 3 components), and the prediction (1,), in units."""
        said = core.peek(self._with_past(core.memory, core.places.known(x)))
        return self._finite(said.spread[:, 0]), said.outputs[:, 0]

    def _with_past(self, target: Past, row: list[float]) -> list[float]:
        if self.autoregressive:
            row[: len(LAST)] = target.past
        return row

    def _fill(self, target: Past, row: list[float], value: float) -> Past:
        """What the row's target has to do with it; what is known after it."""
        self._with_past(target, row)
        target, u, change = target.after(value)
        row[-1] = change if self._predicts_change else u
        return target


@dataclass(eq=False, repr=False)
class OnlineRegressor(_Numbers, base.Regressor):
    """A recurrent network that predicts a number from a row of features and all rows before it.

    It learns at every row, in constant memory, with an exact or approximate online gradient and no replay: a network
    reads the rows one after another, and its readout, over the row and the network's features, learns by recursive
    least squares. So rows are taken to be a time series: shuffled, nothing is there to be remembered.

    Features may be numbers (of Python, NumPy, JAX, pandas or Arrow, Decimal, Fraction, booleans, spans of time in
    seconds), text or bytes (a category each; so is the name of an Enum's member, but for IntEnum and StrEnum, taken by
    value), or dates and times (read as where in the day, week and year they lie). None, NaN, NaT, pandas' NA and masked
    values are missing, as is a feature that is not given. What else is not usable (a list, a complex number, infinity,
    1e38 and more, text where there were numbers) counts as missing too, and is said in a warning, once a feature. New
    ones may appear at any row, up to 1024 numbers and categories in all. Numbers are normalised, so neither features
    nor targets need to be scaled.

    `network`: "columnar" (columns, which do not read one another: exact online and cheap), "ccn" (columns in `stages`
    equal stages, the next added after `stage_rows` rows), "gru" or "lstm" (dense layers: slower, and better where
    units must work together). `units`: in all; of columns the features that they have together. `rule`: credit of a
    dense layer: "exact" (RTRL, units^4 multiply-adds a row), "snap-1", "rflo", "uoro" or "tbptt-10". `step_size`: of
    the recurrent weights (of a classifier: of all); None: what did well on many streams. `seed`: of the weights at the
    start. `autoregressive`: whether the last target that is known and its change are two more inputs; say False where
    targets come late, so that the network would rely on what is old by then. `experts`: whether boosted trees over the
    last 4,096 rows, a linear model, the mean and a stack of all answer beside the network, mixed by how well each did:
    for rows that mostly stand alone. `intervals`: whether a distribution around the prediction is learned as well, for
    `predict_interval_one` and `predict_quantile_one`, at a cost a row.

    Cost of a row, of 32 columns and a dozen features on one core: tens of microseconds (`benchmarks/rivers.py`).
    Programs are compiled, in seconds, when the first row comes and whenever the room for features doubles.

    >>> from onward.adapters.river import OnlineRegressor
    >>> model = OnlineRegressor(units=4)
    >>> for t in range(200):
    ...     model.learn_one({"phase": t % 4}, 10.0 + t % 4)
    >>> round(model.predict_one({"phase": 3}))
    13
    """

    autoregressive: bool = field(default=True, kw_only=True)
    experts: bool = field(default=False, kw_only=True)
    intervals: bool = field(default=False, kw_only=True)

    def learn_one(self, x: dict[Any, Any], y: Any) -> None:
        """Read a row and learn from its target. Where y is missing (None, NaN, NA) the row is read only.

        ValueError: y is not a number, or (first row) a parameter is not allowed.
        """
        self._learn(x, y)

    def learn_many(self, rows: Any, ys: Any) -> None:
        """Learn from rows in order, as `learn_one` would, at a fifth of the cost: one compiled call a 128 rows.

        `rows`: dicts, a data frame (pandas, polars, pyarrow, ...) or an array; `ys`: as many numbers. ValueError: as in
        `learn_one`; nothing is learned then.
        """
        read, targets = _pairs(self, rows, ys)
        numbers = [_number(self, y) for y in targets]
        with self._keeper.turn:
            core, at = self._made(), 0
            while at < len(read) and core.first.open:
                core, at = self._learned(core, read[at], numbers[at]), at + 1
            core = core.take(read[at:], lambda target, i, row: self._fill(target, row, numbers[at + i]))
            self._keeper.core = core
        for y, number in zip(targets, numbers, strict=True):
            _tell_of_target(core.places.told, y, number)

    def predict_one(self, x: dict[Any, Any]) -> float:
        """The target of a row that would come next; nothing changes. 0 before any target is known.

        `onward.errors.NotFinite`: `step_size` is too large.
        """
        return self._predicted(self._keeper.core, x)

    def _predicted(self, core: FeatureLearner | None, x: Mapping[Any, Any]) -> float:
        if core is None or core.memory.unit is None:
            return 0.0
        unit, row = core.memory.unit, self._with_past(core.memory, core.places.known(x))
        u = core.ask(row)[0].item()
        if not math.isfinite(u):
            self._finite(np.array(u))
        return unit.origin + unit.length * u

    def predict_interval_one(self, x: dict[Any, Any], level: float = 0.9) -> Interval:
        """The interval in which the target of a row that would come next lies with probability `level`, 0 < level < 1.

        As much lies below it as above. River's `conf.interval.Interval`: its ends are `lower` and `upper`, and `y in
        interval` says whether y lies within. Nothing changes. 0 to 0 before any target is known. ValueError: `level` is
        not allowed, or the model was made without `intervals`.
        """
        require_real(self, SHARE, lambda share: 0 < share < 1, level=level)
        return Interval(*self._ends(x, level)[:2])

    def predict_quantile_one(self, x: dict[Any, Any], q: float) -> float:
        """The value below which the target of a row that would come next lies with probability q, 0 < q < 1.

        The median is the prediction. All else as in `predict_interval_one`.
        """
        require_real(self, SHARE, lambda share: 0 < share < 1, q=q)
        low, high, middle = self._ends(x, abs(2 * q - 1))
        return middle if q == 0.5 else low if q < 0.5 else high

    def _ends(self, x: Mapping[Any, Any], level: float) -> tuple[float, float, float]:
        """The ends of an interval, and the prediction."""
        if self.intervals is not True:
            raise ValueError(
                f"{type(self).__name__}: intervals and quantiles need intervals=True, got {self.intervals!r}"
            )
        core = self._keeper.core
        if core is None or core.memory.unit is None:
            return 0.0, 0.0, 0.0
        spread, point = self._distribution(core, x)
        low, high = interval(spread, point.astype(float), level, 1)[0].tolist()
        back = core.memory.unit.back
        return back(low), back(high), back(point.item())

    def predict_many(self, rows: Any) -> Any:
        """The predictions (rows,) for each row as if it came next; nothing changes.

        An array; of a data frame, a series of its library.
        """
        read, core = records(self, rows), self._keeper.core
        said = np.zeros(len(read))
        if core is not None and core.memory.unit is not None and read:
            answers = core.ask_all([self._with_past(core.memory, core.places.known(x)) for x in read])[:, 0]
            said = core.memory.unit.back(self._finite(answers).astype(float))
        series = series_like(rows, said)
        return said if series is None else series


@dataclass(eq=False, repr=False)
class OnlineClassifier(_Network, base.Classifier):
    """A recurrent network that predicts the class of a row of features, from it and all rows before it.

    Classes may be anything hashable, and are given back as they came; their number is not fixed. All else, features
    and parameters too, as in `OnlineRegressor`; `experts` are, beside trees and a linear model, the share of each class
    and what followed the class before.

    >>> from onward.adapters.river import OnlineClassifier
    >>> model = OnlineClassifier(units=4)
    >>> for t in range(200):
    ...     model.learn_one({"phase": t % 4}, "high" if t % 4 > 1 else "low")
    >>> model.predict_one({"phase": 3})
    'high'
    """

    experts: bool = field(default=False, kw_only=True)

    @property
    def _multiclass(self) -> bool:
        return True

    def _new_core(self) -> FeatureLearner:
        return FeatureLearner.start(self._recipe("class"), classes=CLASSES, memory={})

    def learn_one(self, x: dict[Any, Any], y: Any) -> None:
        """Read a row and learn from its class. Where y is missing (None, NaN, NA) the row is read only.

        TypeError: y is not hashable. ValueError: (first row) a parameter is not allowed.
        """
        with self._keeper.turn:
            self._keeper.core = self._learned(self._made(), x, y)

    def _learned(self, core: FeatureLearner, x: Mapping[Any, Any], y: Any) -> FeatureLearner:
        labels, label = _labelled(core.memory, y)
        core, row = core.with_classes(len(labels)).placed(x)
        core, row[-1] = core.watched(x, row)[0], label
        return core.learn(row, labels)

    def learn_many(self, rows: Any, ys: Any) -> None:
        """Learn from rows in order, as `learn_one` would; `rows` and `ys` as of `OnlineRegressor`, but for classes."""
        read, targets = _pairs(self, rows, ys)
        with self._keeper.turn:
            core, start = self._made(), 0
            while start < len(read) and core.first.open:
                core, start = self._learned(core, read[start], targets[start]), start + 1
            labels = core.memory
            while start < len(read):
                # Up to the row that brings more classes than there is room for.
                numbers, stop = [], start
                while stop < len(read):
                    more, label = _labelled(labels, targets[stop])
                    if len(more) > core.learner.classes and stop > start:
                        break
                    labels, core = more, core.with_classes(len(more))
                    numbers.append(label)
                    stop += 1

                def fill(memory: Any, i: int, row: list[float], numbers: list[float] = numbers) -> Any:
                    row[-1] = numbers[i]
                    return memory

                core = core.take(read[start:stop], fill)
                start = stop
            self._keeper.core = core._replace(memory=labels)

    def predict_proba_one(self, x: dict[Any, Any], **kwargs: Any) -> dict[Any, float]:
        """The probability of every class seen so far, for a row that would come next; nothing changes.

        `onward.errors.NotFinite`: `step_size` is too large.
        """
        core = self._keeper.core
        return self._shares(core.memory, core.ask(core.places.known(x))) if core and core.memory else {}

    def predict_proba_many(self, rows: Any) -> Any:
        """The same of each row, as if it came next: a list; of a data frame, one of its library, a column a class."""
        said, core = self._said(rows), self._keeper.core
        columns = {label: [shares[label] for shares in said] for label in (core.memory if core and said else ())}
        frame = frame_like(rows, columns)
        return said if frame is None else frame

    def _said(self, rows: Any) -> list[dict[Any, float]]:
        read, core = records(self, rows), self._keeper.core
        if core is None or not core.memory or not read:
            return [{} for _ in read]
        answers = core.ask_all([core.places.known(x) for x in read])
        return [self._shares(core.memory, answer) for answer in answers]

    def predict_many(self, rows: Any) -> Any:
        """The most probable class of each row, as if it came next; None before any class is known.

        A list; of a data frame, a series of its library.
        """
        said = [max(shares, key=shares.__getitem__) if shares else None for shares in self._said(rows)]
        series = series_like(rows, said)
        return said if series is None else series

    def _shares(self, labels: dict[Hashable, int], answer: np.ndarray) -> dict[Any, float]:
        seen = answer[: len(labels)].tolist()
        total = math.fsum(seen)
        if not 0 < total < math.inf:
            self._finite(answer)
            return dict.fromkeys(labels, 1 / len(seen))
        return {label: p / total for label, p in zip(labels, seen, strict=True)}


def _labelled(labels: dict[Hashable, int], y: Any) -> tuple[dict[Hashable, int], float]:
    """Known classes after one more, and its number; NaN where it is missing."""
    y = single(y)
    if is_unknown(y):
        return labels, math.nan
    if y not in labels:
        labels = {**labels, y: len(labels)}
    return labels, labels[y]


class OnlineForecaster(_Numbers, Forecaster):
    """A recurrent network that forecasts a series, from its past and from features that are known ahead.

    At every row it predicts the target's next change from its last value, its last change, the features of the row
    and all rows before it. A forecast lets it run on by itself: each prediction is taken for the value to come.

    Features and parameters as in `OnlineRegressor`. A date as a feature gives it the seasons.

    >>> from onward.adapters.river import OnlineForecaster
    >>> model = OnlineForecaster(units=4)
    >>> for t in range(300):
    ...     model.learn_one(float(t % 2))
    >>> [round(y) for y in model.forecast(3)]
    [0, 1, 0]
    """

    _predicts_change: ClassVar[bool] = True

    def learn_one(self, y: Any, x: dict[Any, Any] | None = None) -> None:
        """Read the features of a row and learn from its target. Where y is missing the row is read only.

        ValueError: y is not a number, or (first row) a parameter is not allowed.
        """
        self._learn(x or {}, y)

    def forecast(self, horizon: int, xs: Sequence[dict[Any, Any]] | None = None) -> list[float]:
        """The next `horizon` values; `xs`: the features of those rows, where there are any. Nothing changes.

        Zeros before any target is known. Costs a row's prediction each, in one compiled call. ValueError: `horizon`
        is not a whole number of at least 1, or `xs` has another length. `onward.errors.NotFinite`: `step_size` is too
        large.
        """
        require_whole(self, horizon=horizon)
        rows = [{}] * int(horizon) if xs is None else records(self, xs)
        if len(rows) != horizon:
            raise ValueError(f"{type(self).__name__}: xs must hold the features of {horizon} rows, got {len(rows)}")
        core = self._keeper.core
        if core is None or core.memory.unit is None:
            return [0.0] * int(horizon)
        places, (unit, past) = core.places, core.memory
        block = np.zeros((max(AHEAD, 1 << (len(rows) - 1).bit_length()), len(places.blank)), np.float32)
        block[: len(rows)] = [places.known(x) for x in rows]
        learner = core.learner
        run = ahead(learner.recipe, learner.capacity, learner.classes, learner.stage)
        start = np.array(past, np.float32)
        last, *changes = np.asarray(run(learner.packed, block, places.plain, start, np.int32(len(rows))))
        begin = past[0] if last == start[0] else float(last)  # where the last value is not believed
        # Summed in double precision: a long forecast does not drift.
        said = self._finite(np.array(changes[: len(rows)]))
        return unit.back(begin + np.cumsum(said, dtype=float)).tolist()
