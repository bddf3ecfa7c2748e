"""What learns the rows of many entities: numbers in, answers out; and where its records are kept."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from onward.rows.baselines import NAMES
from onward.rows.encoder import CAPACITY
from onward.rows.fleet import scored
from onward.rows.fleet.entities import Entities
from onward.rows.fleet.panel import Groups
from onward.rows.fleet.programs import AMONG, LANES, ROUNDS, ROWS, FleetPrograms, Share, fleet_programs
from onward.rows.oddness import surprise
from onward.rows.packed import Packed
from onward.rows.scores import CONTESTANTS
from onward.rows.stream import Answers, RowLearner, RowRecipe, moved, placed
from onward.rows.units import SMALL, in_units
from onward.saving import from_named_arrays

# What is asked of every entity in the end.
STANDING = ("rows", "scored", "sums", "marks", "waiting", "alarms", "shifts")
# Scored rows of an entity after which what came before them is no longer of late: between this and twice as many are.
LATE = 128
# Rows of which the ends of intervals are found at once.
ENDS = 512


class Said(NamedTuple):
    """What is said of rows, in the targets' own units, NaN where nothing is.

    said, linear: (rows, targets). extra: (rows, 2 targets), the ends of intervals, or nothing. experts: (rows, targets,
    2, experts), spread: (rows, targets, numbers), as in `Waiting`.
    """

    said: np.ndarray
    linear: np.ndarray
    extra: np.ndarray
    experts: np.ndarray
    spread: np.ndarray


class Told(NamedTuple):
    """Of rows: what was said of each before it came, and what is now said of the one `lag` rows later.

    `others`: (baselines, rows, targets) of the rows themselves. `strange`, `doubted`: as in `Answers`. `earlier`:
    whether a row's time lies before one that its entity had already. `scores` (rows, targets), `shift`: how odd the
    rows themselves are, where that is asked for.
    """

    judged: Said
    asked: Said
    others: np.ndarray
    strange: np.ndarray
    doubted: np.ndarray
    earlier: np.ndarray
    scores: np.ndarray
    shift: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["Told"]) -> "Told":
        """One after the other."""
        both = lambda name: Said(*map(np.concatenate, zip(*(getattr(part, name) for part in parts), strict=True)))
        rest = {name: np.concatenate([getattr(part, name) for part in parts]) for name in cls._fields[3:]}
        return cls(both("judged"), both("asked"), np.concatenate([part.others for part in parts], 1), **rest)


class Shard:
    """Entities and their learning. Nothing here knows of cells, of columns by name or of predictions on a disk.

    `period`: rows of a season, of the seasonal baseline. `coverage`: share of an interval, 0: none. `alarm`: the score
    below which a row is an alarm; None: rows have no scores. `size`: bytes that records may take in memory.
    """

    def __init__(
        self,
        recipe: RowRecipe,
        share: Share,
        *,
        period: int | None = None,
        coverage: float = 0.0,
        alarm: float | None = None,
        size: int = 2**32,
    ):
        self.recipe, self.share, self.capacity, self.coverage = recipe, share, CAPACITY, coverage
        self.ahead = max(recipe.lag, 1)
        # Rows back from the present one to that which lies whole seasons before the one to come.
        self.back = period * -(-self.ahead // period) - self.ahead if period else 0
        self.extras = 2 if recipe.components and coverage else 0
        self.alarm, self.spread = alarm, 3 * recipe.components if alarm else 0
        self.shared = self.programs.start().shared
        self.known = 0  # entities that had a row
        start = self._start()
        self.entities = Entities(start, max(AMONG, size // start.dtype.itemsize))

    @property
    def programs(self) -> FleetPrograms:
        """Of the present shapes."""
        return fleet_programs(self.recipe, self.capacity, self.share)

    # Records.

    def _start(self) -> np.ndarray:
        """The record of an entity before its first row."""
        k, start = self.recipe.targets, self.programs.start()
        nothing = {"rows": np.int64(0), "scored": np.zeros(k), "sums": np.zeros((len(CONTESTANTS), k))}
        nothing |= {name: np.zeros(k) for name in ("total", "count")} | {"marks": np.zeros((2, 2, k))}
        none = {"origin": (self.capacity + k,), "clock": (), "last": (k,), "season": (self.back, k)}
        none |= {"waiting": (self.recipe.lag, self._width), "baselines": (self.ahead, len(NAMES), k)}
        fields: dict[str, Any] = {"floats": start.floats, "whole": start.whole} | nothing
        fields |= {name: np.full(shape, np.nan) for name, shape in none.items()}
        if self.alarm:
            fields |= scored.fields(k)
        record = np.zeros(1, [(name, np.asarray(part).dtype, np.shape(part)) for name, part in fields.items()])
        for name, part in fields.items():
            record[name] = part
        return record

    @property
    def _width(self) -> int:
        """Numbers of what is said of a row."""
        k = self.recipe.targets
        return k * (2 + self.extras + 2 * len(self.recipe.answering) + self.spread)

    def _flat(self, said: Said) -> np.ndarray:
        return np.concatenate([part.reshape(len(part), -1) for part in said], 1)

    # Rows.

    def take(
        self,
        names: Sequence[str],
        moments: np.ndarray,
        x: np.ndarray,
        plain: np.ndarray,
        y: np.ndarray,
        *,
        learn: bool = True,
    ) -> Told:
        """Learn rows in the order they come, each of the entity that is named.

        x: (rows, capacity) numbers as they stand, NaN where missing; those that are not `plain` are read in units of
        their entity's first. y: (rows, targets). moments: (rows,) times, NaN where unknown. How rows come in blocks
        makes no difference; nor does, where nothing is shared, what comes between those of an entity.
        """
        parts, most = [], self.entities.most
        start, there = 0, dict[str, int]()
        cuts = [0]
        for i, name in enumerate(names):
            if name not in there and len(there) == most:
                cuts.append(i)
                there = {}
            there[name] = i
        for start, stop in itertools.pairwise([*cuts, len(names)]):
            rows = slice(start, stop)
            parts.append(self._take(names[rows], moments[rows], x[rows], plain, y[rows], learn))
        return parts[0] if len(parts) == 1 else Told.joined(parts)

    def _take(
        self, names: Sequence[str], moments: np.ndarray, x: np.ndarray, plain: np.ndarray, y: np.ndarray, learn: bool
    ) -> Told:
        if x.shape[1] > self.capacity:
            self.widen(x.shape[1])
        distinct = {name: i for i, name in enumerate(dict.fromkeys(names))}
        places = self.entities.places([*distinct])
        rows = Groups.of(np.fromiter((distinct[name] for name in names), np.int64, len(names)))
        at, k = places[rows.entity], self.recipe.targets
        records = self.entities.records
        values = np.concatenate([x, y], 1)[rows.order]
        u, origin, length = self._in_units(rows, at, values, np.concatenate([plain, np.zeros(k, bool)]))
        y = np.where(np.isnan(u[:, -k:]), np.nan, values[:, -k:])
        learned = self._line if self.share != "none" else self._lanes
        inputs, targets = u[:, :-k].astype(np.float32), u[:, -k:].astype(np.float32)
        answers = RowLearner(self.recipe, self.capacity).split(learned(rows, at, inputs, plain, targets, learn))
        asked = self._answered(answers, origin[:, -k:], length[:, -k:])
        seen = records["rows"][at]
        judged = said_of(
            self.recipe, self.extras, self._ring("waiting", rows, at, self._flat(asked), seen), self.spread
        )
        baselines = self._ring("baselines", rows, at, self._baselines(rows, at, y, seen), seen)
        told = np.concatenate([judged.said[:, None], judged.linear[:, None], baselines], 1)
        self._score(rows, at, np.abs(told - y[:, None]))
        scores, shift = self._odd(rows, at, judged, u[:, -k:], y)
        when = rows.filled(moments[rows.order][:, None], records["clock"][at][:, None])
        before = np.where(rows.rank > 0, np.roll(when[:, 0], 1), records["clock"][at][rows.group])
        records["clock"][at] = rows.last(when)[:, 0]
        records["rows"][at] = seen + rows.counts
        back = rows.back
        return Told(
            Said(*map(back, judged)),
            Said(*map(back, asked)),
            back(baselines).swapaxes(0, 1),
            back(answers.strange),
            back(answers.doubted),
            back(moments[rows.order] < before),
            back(scores),
            back(shift),
        )

    def _in_units(
        self, rows: Groups, at: np.ndarray, values: np.ndarray, plain: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sorted values, in units of the first of their entity; and the units, (rows, columns)."""
        origins = self.entities.records["origin"][at]
        known = np.isfinite(values) & ~plain
        for column in np.flatnonzero((np.isnan(origins) & ~plain).any(0) & known.any(0)).tolist():
            new = np.flatnonzero(known[:, column] & np.isnan(origins[rows.group, column]))
            groups, first = np.unique(rows.group[new], return_index=True)
            origins[groups, column] = values[new[first], column]
        self.entities.records["origin"][at] = origins
        lengths = np.where(np.abs(origins) > SMALL, np.abs(origins), 1.0)
        origin, length = origins[rows.group], lengths[rows.group]
        return np.where(plain, values, in_units(values, origin, length)), origin, length

    def _answered(self, answers: Answers, origin: np.ndarray, length: np.ndarray) -> Said:
        """Answers in the targets' own units."""
        real = lambda u: origin + length * u
        outputs = answers.outputs.astype(float)
        extra = np.zeros((len(outputs), 0))
        if self.extras:
            spread = answers.spread.reshape(outputs.size, answers.spread.shape[2])
            ends, by = placed(spread, outputs.ravel(), self.coverage, ENDS)
            ends = ends.reshape(*outputs.shape, 2)
            extra = np.stack([real(ends[..., 0]), real(ends[..., 1])], 2).reshape(len(outputs), -1)
        each = np.stack([answers.experts.astype(float), answers.weights.astype(float)], 2)
        each[:, :, 0] = origin[..., None] + length[..., None] * each[:, :, 0]
        around = moved(spread, by).reshape(*outputs.shape, -1) if self.spread else np.zeros((*outputs.shape, 0))
        return Said(real(outputs), real(answers.linear.astype(float)), extra, each, around)

    def _odd(
        self, rows: Groups, at: np.ndarray, judged: Said, u: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and shifts of sorted rows, whose targets are u in units of their entities and y as they stand."""
        if not self.alarm:
            return np.zeros((len(y), 0)), np.zeros(len(y), bool)
        odd, above = np.full(y.shape, np.nan), np.zeros(y.shape, bool)
        known = np.isfinite(y) & np.isfinite(judged.said) & np.isfinite(judged.spread).all(2)
        odd[known], above[known] = surprise(judged.spread[known], u[known])
        return scored.see(self.entities.records, at, rows, self.alarm, odd, above, y)

    def _ring(self, name: str, rows: Groups, at: np.ndarray, values: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """What was said of each row, of what is said at each; the records keep what still waits."""
        ring = self.entities.records[name][at]
        out = rows.before(values, ring, seen)
        self.entities.records[name][at] = ring
        return out

    def _baselines(self, rows: Groups, at: np.ndarray, y: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """(rows, baselines, targets) what the baselines say at each row of the one to come."""
        records, known = self.entities.records, ~np.isnan(y)
        last = rows.filled(y, records["last"][at])
        records["last"][at] = rows.last(last)
        season = self._ring("season", rows, at, last, seen) if self.back else last
        total = rows.sums(np.where(known, y, 0), records["total"][at])
        count = rows.sums(known.astype(float), records["count"][at])
        records["total"][at], records["count"][at] = rows.last(total), rows.last(count)
        mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        return np.stack([last, np.where(np.isnan(season), last, season), mean], 1)

    def _score(self, rows: Groups, at: np.ndarray, errors: np.ndarray) -> None:
        """Sums of errors (rows, contestants, targets) of each entity; `marks`: what they were, at the last two times
        that `LATE` more had been scored, of rows and of the first contestant.
        """
        records = self.entities.records
        known = np.isfinite(errors).all(1)
        clean = np.where(known[:, None], errors, 0)
        scored = rows.sums(known.astype(float), records["scored"][at])
        flat = rows.sums(clean.reshape(len(clean), -1), records["sums"][at].reshape(len(at), -1))
        sums, marks = flat.reshape(clean.shape), records["marks"][at]
        for row, target in np.argwhere(known & (scored % LATE == 0)).tolist():
            group = rows.group[row]
            marks[group, 0, :, target] = marks[group, 1, :, target]
            marks[group, 1, :, target] = scored[row, target], sums[row, 0, target]
        records["marks"][at] = marks
        records["scored"][at], records["sums"][at] = rows.last(scored), rows.last(sums)

    # Learning.

    def _lanes(
        self, rows: Groups, at: np.ndarray, x: np.ndarray, plain: np.ndarray, y: np.ndarray, learn: bool
    ) -> np.ndarray:
        """Answers to sorted rows, entities side by side."""
        records, programs, parts = self.entities.records, self.programs, programs_of(learn, "lanes")
        start = programs.start()
        out: np.ndarray | None = None
        for groups in rows.abreast(LANES):
            square, there = rows.square(groups)
            lanes = len(groups)
            own: Any = (
                _filled(records["floats"][at[groups]], start.floats),
                _filled(records["whole"][at[groups]], start.whole),
            )
            for first in range(0, len(square), ROUNDS):
                some, known = square[first : first + ROUNDS], there[first : first + ROUNDS]
                place = lambda a, some=some, lanes=lanes: _placed(a[some], (ROUNDS, LANES))
                counts = np.zeros(LANES, np.int32)
                counts[:lanes] = known.sum(0)
                *own, answers = programs.run(parts, *own, place(x), plain, place(y), counts)
                answers = np.asarray(answers)
                out = np.zeros((len(x), answers.shape[2]), np.float32) if out is None else out
                out[some[known]] = answers[: len(some), :lanes][known]
            records["floats"][at[groups]], records["whole"][at[groups]] = (np.asarray(part)[:lanes] for part in own)
        assert out is not None
        return out

    def _line(
        self, rows: Groups, at: np.ndarray, x: np.ndarray, plain: np.ndarray, y: np.ndarray, learn: bool
    ) -> np.ndarray:
        """Answers to sorted rows, which are learned in the order they came."""
        records, programs, what = self.entities.records, self.programs, programs_of(learn, "line")
        start, place = programs.start(), at[rows.back(rows.group)]
        came, parts = (rows.back(x), rows.back(y)), []
        # All entities move the network's shared weights: each by less, the more there are. By the root of their number,
        # between a step a row (too fast for readouts to follow, of 148 entities) and one of all together.
        new = rows.back((rows.rank == 0) & (records["rows"][at] == 0)[rows.group])
        pace = (1 / np.sqrt(self.known + np.cumsum(new))).astype(np.float32)
        self.known += int(new.sum())
        for first, stop in _stretches(place):
            some = place[first:stop]
            entities, who = np.unique(some, return_inverse=True)
            begins = np.flatnonzero(np.diff(who, prepend=-1))
            cuts = np.full(ROWS + 1, stop - first, np.int32)
            cuts[: len(begins)] = begins
            own = (
                _filled(records["floats"][entities], start.floats, AMONG),
                _filled(records["whole"][entities], start.whole, AMONG),
            )
            numbers = [_placed(part[first:stop], (ROWS,)) for part in came]
            each = _placed(who[begins].astype(np.int32), (ROWS,))
            slow = _placed(pace[first:stop], (ROWS,))
            shared, floats, whole, answers = programs.run(
                what, self.shared, *own, numbers[0], plain, numbers[1], each, cuts, np.int32(len(begins)), slow
            )
            self.shared = shared
            records["floats"][entities] = np.asarray(floats)[: len(entities)]
            records["whole"][entities] = np.asarray(whole)[: len(entities)]
            parts.append(np.asarray(answers)[: stop - first])
        return np.concatenate(parts)[rows.order]

    def widen(self, capacity: int) -> None:
        """Room for rows of more numbers."""
        if not self.entities.count:
            self.capacity = capacity
            self.shared = self.programs.start().shared
            self.entities.begin(self._start())
            return
        before, old, k = self.programs, self.capacity, self.recipe.targets
        shared, self.capacity = self.shared, capacity
        start = self._start()

        def wider(records: np.ndarray) -> np.ndarray:
            out = np.repeat(start, len(records))
            for name in {*(start.dtype.names or ())} - {"floats", "whole", "origin"}:
                out[name] = records[name]
            out["origin"][:, :old], out["origin"][:, -k:] = records["origin"][:, :old], records["origin"][:, -k:]
            parts = before.widen(self.programs, shared, records["floats"], records["whole"])
            out["floats"], out["whole"] = parts.floats, parts.whole
            return out

        self.shared = before.widen(self.programs, shared, *(part[None] for part in before.start()[1:])).shared
        self.entities.change(start, wider)

    # What survives.

    def standing(self) -> Iterator[tuple[str, Any]]:
        """Every entity, by name, with what a ranking and the last predictions are made of."""
        dtype = self.entities.start.dtype
        few = np.dtype([(name, dtype[name]) for name in STANDING if name in (dtype.names or ())])
        for name, record in self.entities.all():
            some = np.zeros((), few)
            for field in few.names or ():
                some[field] = record[field]
            yield name, some[()]

    def forget_waiting(self) -> None:
        """As if nothing had been said, and no time was."""
        for name in ("waiting", "baselines", "clock"):
            self.entities.records[name] = np.nan

    def open(self, path: Path) -> None:
        """Keep records in a file."""
        self.entities.open(path)

    def save(self, generation: int) -> dict[str, np.ndarray]:
        """Commit the records, and give what all entities share."""
        self.entities.commit(generation)
        floats, whole, _ = jax.device_get(self.shared)
        return {"floats": floats, "whole": whole}

    def load(
        self, generation: int, capacity: int, arrays: dict[str, np.ndarray], what: str, read: Sequence[Path] = ()
    ) -> None:
        """Go on as it was then; `what` says in errors where the arrays are from. `read`: files of records that are to
        stay as they are; else the records are those of the file that is open.
        """
        like = fleet_programs(self.recipe, capacity, self.share).start().shared
        named: dict[str, Any] = from_named_arrays(arrays, {"floats": like.floats, "whole": like.whole}, what)
        self.capacity, self.shared = capacity, Packed(named["floats"], named["whole"], ())
        self.entities.begin(self._start())
        if read:
            self.entities.read(read, generation)
        else:
            self.entities.restore(generation)
        self.known = self.entities.count


def said_of(recipe: RowRecipe, extras: int, flat: np.ndarray, spread: int = 0) -> Said:
    """What rows of `waiting` hold; `spread`: of each target so many numbers of its distribution."""
    k, n = recipe.targets, len(flat)
    experts = k * 2 * len(recipe.answering)
    said, linear, extra, each, around = np.split(flat, np.cumsum([k, k, extras * k, experts]), 1)
    return Said(said, linear, extra, each.reshape(n, k, 2, -1), around.reshape(n, k, spread))


def programs_of(learn: bool, what: str) -> str:
    """The name of a program."""
    return what if learn else f"{what}-read"


def _filled(some: np.ndarray, start: np.ndarray, length: int = LANES) -> np.ndarray:
    """As many as a program takes."""
    return np.concatenate([some, np.repeat(start[None], length - len(some), 0)])


def _placed(some: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """In the corner of an array of zeros that a program takes."""
    out = np.zeros((*shape, *some.shape[len(shape) :]), some.dtype)
    out[tuple(slice(n) for n in some.shape[: len(shape)])] = some
    return out


def _stretches(who: np.ndarray) -> Iterator[tuple[int, int]]:
    """Stretches of at most `ROWS` rows of at most `AMONG` entities."""
    start = 0
    while start < len(who):
        some = who[start : start + ROWS]
        _, first = np.unique(some, return_index=True)
        stop = len(some) if len(first) <= AMONG else int(np.sort(first)[AMONG])
        yield start, start + stop
        start += stop
