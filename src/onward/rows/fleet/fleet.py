"""What goes on between the rows of a table of many entities and what learns them."""

import csv
import io
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from onward import saving
from onward.errors import NotFinite
from onward.lab import folder as run_folder
from onward.rows.checkpoint import MarksMeta, ReadingMeta, StrangeMeta, WhereMeta
from onward.rows.encoder import Encoder
from onward.rows.fleet.shard import Said, Told, said_of
from onward.rows.fleet.shards import FILES, Here, Shards, shards
from onward.rows.oddness import Marked, are_marks
from onward.rows.options import Learn
from onward.rows.predictions import Odds, Waiting
from onward.rows.remarks import Remark, Remarks
from onward.rows.session import JOB, Session
from onward.rows.sources import Cell, Rows, is_missing
from onward.rows.strange import Strange
from onward.rows.stream import RowLearner
from onward.rows.units import Unit

# Rows of a file that are taken at once: the more, the more entities are learned side by side.
BLOCK = 2**16
# Of a sample of at least so many rows, the share of entities that is told of.
MANY, MOSTLY = 100, 0.7
# Numbers and words that a checkpoint holds as they are.
AS_IT_IS = ("rows", "last_row", "constant", "first_target", "notes", "cpu", "unnamed", "full")


class _Kept(TypedDict):
    """The meta of a checkpoint."""

    rows: int
    last_row: int
    constant: list[bool]
    first_target: list[float | None]
    notes: list[str]
    cpu: float
    unnamed: int
    full: bool
    odd: MarksMeta | None
    strange: StrangeMeta
    remarks: dict[str, WhereMeta]
    reading: ReadingMeta
    capacity: int
    generation: int


class Fleet(Session):
    """The learning of many entities: as a `Session`, with a prediction, a unit and a score for each of them.

    What columns are is one thing for all entities; a number is in units of its entity's first.
    """

    least = BLOCK

    def __init__(
        self, options: Learn, name: str, say: Callable[[str], None], *, block: int = BLOCK, live: bool = False
    ):
        super().__init__(options, name, say, block=block, live=live)
        # Targets as they stand: units are the shard's.
        self.targets.units = {name: Unit(0.0) for name in options.target}
        self._shards: Shards | None = None
        self._made: Callable[[], Shards] = lambda: Here(options)
        # Of rows that were sent to workers: what waits for them, and what is then to be done.
        self._pending: tuple[Callable[[], Told], Callable[[Told], None]] | None = None
        self.generation = self._capacity = 0
        self._opened = False
        self._spread = 3 * options.recipe.components if options.alarm else 0
        self.oddness = Marked(options.alarm) if options.alarm else None
        self._told: Told | None = None  # of the rows that are judged
        self._names: Sequence[str] = ()
        self.unnamed = 0  # rows without an entity
        self.full = False  # whether there are more entities than memory holds

    def judge(self, sample: Rows, *, whole: bool) -> None:
        """Say what the columns of a table are by its first rows, before the first is read."""
        super().judge(sample, whole=whole)
        n = len(sample.numbers)
        names = {*zip(*(sample.cells.get(name) or [None] * n for name in self.options.by), strict=True)}
        if n >= MANY and len(names) > MOSTLY * n:
            by = " and ".join(map(repr, self.options.by))
            self.complain(
                f"{by} names {len(names):,} entities in the first {n:,} rows: of one with a row or two nothing can be "
                "learned. Is it the right column?"
            )

    # Where it is learned.

    @property
    def shards(self) -> Shards:
        """Of this process, unless `connect` has said otherwise."""
        if self._shards is None:
            self._shards = self._made()
        return self._shards

    def connect(self, held: ExitStack) -> None:
        """Where options say so, on workers; for as long as `held` is open."""
        self._made = held.enter_context(shards(self.options))
        self._shards = self._made()

    def reconnect(self) -> None:
        """On the workers that there are now; what had been sent to others is gone."""
        self.shards.close()
        self._shards, self._pending = self._made(), None
        self.lines, self.metrics = [], []

    # Rows.

    def take(self, block: Rows, *, learn: bool = True) -> None:
        """Predict, score and learn a block of rows; the lines of predictions.csv are added to `lines`."""
        self.whose = [[] for _ in self.options.by]
        super().take(block, learn=learn)

    def _take(self, block: Rows, learn: bool) -> None:
        block = self._named_rows(block)
        reading, encoder, numbers = self.reading, self.reading.encoder, block.numbers
        if not numbers:
            return
        moments, times = reading.times(block)
        with self._named():
            y = self.targets.read(block.cells, numbers)
        cells = {name: block.cells[name] for name in reading.inputs(list(block.cells))}
        whose = [list(map(str, block.cells[name])) for name in self.options.by]
        names = whose[0] if len(whose) == 1 else list(map(self.name_of, zip(*whose, strict=True)))
        waves, start = reading.waves(moments), 0
        while start < len(numbers):
            stop = encoder.give_slots(cells, start, len(numbers))
            if stop > start:
                x = encoder.encode(cells, start, stop, numbers, waves, raw=True)
                rows = slice(start, stop)
                self._learned(
                    names[rows],
                    [each[rows] for each in whose],
                    numbers[rows],
                    times[rows],
                    moments[rows],
                    x,
                    y[rows],
                    {name: column[rows] for name, column in block.cells.items()},
                    learn,
                )
            start = stop

    def _named_rows(self, block: Rows) -> Rows:
        """The rows that name an entity; of the others it is told."""
        n = len(block.numbers)
        columns = [block.cells.get(name) or [None] * n for name in self.options.by]
        there = [not any(map(is_missing, each)) for each in zip(*columns, strict=True)]
        if all(there):
            return block
        for i in (i for i, known in enumerate(there) if not known):
            self.unnamed += 1
            name = next(name for name, column in zip(self.options.by, columns, strict=True) if is_missing(column[i]))
            text = f"row {block.numbers[i]}, column {name!r}: it names no entity; the row is passed over"
            self.complain(Remark(text, block.numbers[i], f"rows without an entity in column {name!r}, passed over"))
        kept = [i for i, known in enumerate(there) if known]
        if not kept:
            self.last_row = block.numbers[-1]
        cells: dict[str, Sequence[Cell]] = {name: [column[i] for i in kept] for name, column in block.cells.items()}
        return block._replace(numbers=[block.numbers[i] for i in kept], cells=cells)

    def _learned(
        self,
        names: Sequence[str],
        whose: Sequence[Sequence[str]],
        numbers: Sequence[int],
        times: Sequence[str],
        moments: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        cells: dict[str, Sequence[Cell]],
        learn: bool,
    ) -> None:
        encoder = self.reading.encoder
        if self.learner is None:
            self.learner = RowLearner(self.options.recipe, encoder.capacity)
        if encoder.capacity != self._capacity:
            self.settle()
            self._capacity = encoder.capacity
        # What was sent before must have come back: else a worker may take the later rows first.
        before, self._pending = self._pending, None
        told = None if before is None else before[0]()
        wait = self.shards.take(names, moments, x, encoder.plain, y, learn=learn)
        self._pending = wait, partial(self._came, names, whose, numbers, times, y, cells)
        if before is not None and told is not None:
            before[1](told)
        if self.live or not self.shards.waits:
            self.settle()

    def settle(self) -> None:
        """Wait for what workers still learn."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending[1](pending[0]())

    def _came(
        self,
        names: Sequence[str],
        whose: Sequence[Sequence[str]],
        numbers: Sequence[int],
        times: Sequence[str],
        y: np.ndarray,
        cells: dict[str, Sequence[Cell]],
        told: Told,
    ) -> None:
        """What came of rows: judged and written."""
        encoder = self.reading.encoder
        facts = self.shards.facts
        if not self.full and facts.known > facts.most:
            self.full = True
            self.complain(
                f"there are more entities than --memory {self.options.memory:g} GB holds ({facts.most:,}, at "
                f"{facts.each / 1e3:.0f} kB each): those not needed for longest wait on disk"
            )
        broken = ~np.isfinite(told.asked.said).all(1) & np.isfinite(y).all(1)
        if broken.any():
            at = int(np.argmax(broken))
            raise NotFinite(
                f"{self.name}: the prediction of {names[at]!r:.80} became NaN or infinite at row {numbers[at]}; the "
                "last checkpoint is good. Try a smaller --step-size"
            )
        self.reading.backwards(np.flatnonzero(told.earlier).tolist(), numbers, times, names)
        marks = self.strange.names(told.strange, encoder, self.options.target, ())
        self.strange.see(marks, numbers, cells, self.complain)
        judged, self._told, self._names = _waiting(told.judged, numbers, times), told, names
        self._judge(judged, numbers, times, y, told.others, marks, told.doubted, whose)
        self.answered = self.answered.then(_waiting(told.asked, numbers, times))
        for kept, more in zip(self.whose, whose, strict=True):
            kept += more
        self.rows += len(numbers)
        self.last_row = numbers[-1]

    def _odds(self, judged: Waiting, arrived: np.ndarray, numbers: Sequence[int], times: Sequence[str]) -> Odds | None:
        if self.oddness is None or self._told is None:
            return None
        odds = self.oddness.mark(self._told.scores, self._told.shift, numbers, times, self._names)
        self.odds = odds if self.odds is None else self.odds.then(odds)
        return odds

    # What is written.

    def future(self) -> str:
        """Lines for the predictions whose targets are still to come, by entity; of which rows, nobody knows yet."""
        lag, k = self.options.lag, len(self.options.target)
        lines = []
        for name, record in self.shards.standing() if lag else ():
            place = (int(record["rows"]) + np.arange(lag)) % lag
            said = said_of(self.options.recipe, self.extras, record["waiting"][place], self._spread)
            made = np.flatnonzero(np.isfinite(said.said).any(1))
            waiting = _waiting(Said(*(part[made] for part in said)), [0] * len(made), [""] * len(made))
            none = np.full((len(made), k), np.nan)
            whose = [[each] * len(made) for each in self.columns_of(name)]
            lines.append(self._lines(waiting, waiting.rows, waiting.times, none, none, [""] * len(made), None, whose))
        return "".join(lines)

    def name_of(self, cells: Sequence[str]) -> str:
        """The name of the entity that the columns of `by` hold."""
        return cells[0] if len(self.options.by) == 1 else _as_line(cells)

    def columns_of(self, name: str) -> list[str]:
        """What the columns of `by` hold of an entity."""
        return [name] if len(self.options.by) == 1 else next(csv.reader([name]))

    def more(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The ranking of entities for summary.json, and the file that has them all."""
        from onward.rows.fleet.ranking import FILE, ranked

        ranking, text = ranked(self)
        return {"entities": ranking}, {FILE: text}

    def forget_waiting(self) -> None:
        """No prediction waits, and no time was."""
        self.shards.forget_waiting()

    # What survives.

    def opened(self, folder: Path) -> None:
        """Records are going to be kept in this folder."""
        self._opened = True
        self.shards.open(folder)

    def close(self) -> None:
        """What was not saved is gone."""
        if self._opened:
            self.shards.close()

    def save(self, folder: Path, **more: Any) -> None:
        """A checkpoint: records by the shard, then all else in a file, which says of which records it is."""
        generation = self.generation + 1
        shared = {f"shared.{name}": part for name, part in self.shards.save(generation).items()}
        scores = {f"scores.{name}": part for name, part in vars(self.scores).items()}
        meta = {
            **{name: getattr(self, name) for name in AS_IT_IS},
            **more,
            "odd": self.oddness.as_dict() if self.oddness else None,
            "strange": self.strange.as_dict(),
            "remarks": self.remarks.as_dict(),
            "reading": self.reading.as_dict(),
            "capacity": self.reading.encoder.capacity,
            "generation": generation,
        }
        saving.save_arrays(run_folder.path_of(folder, JOB, self.rows), shared | scores, meta)
        self.generation = generation
        run_folder.prune(folder, JOB)

    def load(self, path: Path, check: Callable[[dict[str, Any]], None] = lambda meta: None) -> dict[str, Any]:
        """Go on from a checkpoint; returns its meta. `check` is told of it before, and may refuse it.

        Raises `onward.saving.Unreadable` for one that is damaged, or of another learning; nothing has changed then.
        """
        what = f"checkpoint {path}"
        meta, kept = saving.load_arrays(path)
        with saving.reading(what):
            saving.check_meta(meta, _Kept, what)
            check(meta)
            encoder = Encoder.from_dict(
                meta["reading"]["encoder"], judge=self.options.judge, complain=self.complain, what=what
            )
            self._require_true(meta, encoder, what)
            shared = {name: a for name, a in kept.items() if name.startswith("shared.")}
            scores = {f"scores.{name}": part for name, part in vars(self.scores).items()}
            mine: dict[str, Any] = saving.from_named_arrays(
                {name: a for name, a in kept.items() if name not in shared}, scores, what
            )
            arrays = {name.removeprefix("shared."): a for name, a in shared.items()}
            read = [] if self._opened else sorted(path.parent.glob(FILES))
            self.shards.load(meta["generation"], meta["capacity"], arrays, what, read)
        vars(self.scores).update({name.removeprefix("scores."): a for name, a in mine.items()})
        self.reading.restore(meta["reading"], encoder)
        vars(self).update({name: meta[name] for name in AS_IT_IS})
        self.strange, self.remarks = Strange(**meta["strange"]), Remarks(meta["remarks"])
        if self.oddness:
            self.oddness.restore(meta["odd"])
        self.generation, self._capacity = meta["generation"], meta["capacity"]
        self.learner = RowLearner(self.options.recipe, meta["capacity"])
        return meta

    def _require_true(self, meta: dict[str, Any], encoder: Encoder, what: str) -> None:
        """Refuse a meta whose values cannot be those of a learning with these options."""
        targets = len(self.options.target)
        allowed = {
            "rows": 0 < meta["rows"] <= meta["last_row"],
            "constant": len(meta["constant"]) == targets,
            "first_target": len(meta["first_target"]) == targets,
            "unnamed": meta["unnamed"] >= 0,
            "capacity": meta["capacity"] == encoder.capacity,
            "generation": meta["generation"] > 0,
            "odd": are_marks(meta["odd"], self.options.alarm, meta["rows"]),
        }
        if wrong := [name for name, good in allowed.items() if not good]:
            value = str(meta[wrong[0]])[:60]
            raise saving.Unreadable(f"{what} says that {wrong[0]} is {value}, which cannot be: it is damaged")


def _waiting(said: Said, numbers: Sequence[int], times: Sequence[str]) -> Waiting:
    return Waiting(*said, rows=list(numbers), times=list(times))


def _as_line(cells: Sequence[str]) -> str:
    """Several cells as one name: a line of a CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="").writerow(cells)
    return file.getvalue()
