"""What goes on between the rows of a table and a learner: every row is predicted, judged, learned and kept."""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from onward import saving
from onward.errors import NotFinite, OnwardError
from onward.lab import folder as run_folder
from onward.rows.baselines import Baselines
from onward.rows.calendar import Calendar
from onward.rows.checkpoint import AS_IT_IS, Kept, require_true
from onward.rows.encoder import Encoder
from onward.rows.holidays import Holidays
from onward.rows.oddness import Marked, Oddness, surprises, surprises_of_classes
from onward.rows.options import Learn
from onward.rows.predictions import Format, Odds, Waiting
from onward.rows.reading import Reading
from onward.rows.remarks import Notes, Remark, Remarks
from onward.rows.scores import CONTESTANTS, Scores, added, by_target, mean_errors
from onward.rows.sources import Cell, Rows
from onward.rows.strange import Strange
from onward.rows.stream import BLOCK, Ahead, Answers, RowLearner
from onward.rows.targets import Targets
from onward.rows.units import Unit

JOB = "learn"
# What is surprising in a sample is told in one line, which names so many columns.
NAMED = 3
# Rows of which the ends of intervals are found at once: a block of a file is rarely full, and so few stay in the cache.
ENDS = 512
LEARNER = "learner."  # what the names of the learner's arrays begin with in a checkpoint


class Session(Notes):
    """One learning: all that changes from row to row, the files it writes, and its checkpoints."""

    least = 1  # rows of a file that are taken at once, where there are as many

    def __init__(
        self, options: Learn, name: str, say: Callable[[str], None], *, block: int = BLOCK, live: bool = False
    ):
        super().__init__(name, say, live=live)
        self.options = options
        self.learner: RowLearner | None = None
        self.block, self.ahead = block, Ahead()
        self.rows = 0
        k = len(options.outputs)
        classes = options.task == "classification"
        self.experts = options.recipe.answering
        self.scores = Scores(k, len(self.experts))
        self.baselines = Baselines(
            len(options.target), max(options.lag, 1), period=options.period, classes=classes, path=options.path
        )
        ahead = options.horizon > 0 and options.task == "regression" and not options.by
        self.seasonal = tuple(f"{name} one season before" for name in options.target) if ahead else ()
        self.reading = Reading(options, self.complain, self.seasonal)
        holidays = Holidays(options.holidays) if options.holidays else None
        self.calendar = Calendar(max(options.lag, 1), holidays, path=options.path)
        self.targets = Targets(options, self.reading)
        self.extras = self.targets.extras
        self.oddness: Marked | None = Oddness(options.alarm, k) if options.alarm else None
        odds = self.oddness is not None
        self.format = Format(options.outputs, self.extras, classes=classes, odds=odds, by=options.by)
        self.waiting = self._nothing_waits()
        self.before = np.zeros((0, len(options.target)))  # targets of the rows before, of returns and of paths
        self.constant = [True] * k
        self.first_target: list[float | None] = [None] * k
        self.cpu = 0.0
        self.strange = Strange()
        self.lines: list[str] = []
        self.metrics: list[str] = []
        self.answered = self.waiting
        self.odds: Odds | None = None  # of the rows that are answered
        self.whose: list[list[str]] = [[] for _ in options.by]  # and their entities, a list a column

    def judge(self, sample: Rows, *, whole: bool) -> None:
        """Say what the columns of a table are by its first rows (`whole`: all of them), before the first is read."""
        with self._named():
            found = self.reading.judge(sample, whole=whole)
        if found:
            self.tell()
            more = f"; and {len(found) - NAMED} more, in the report" if len(found) > NAMED else ""
            self.notes += [f"{self.name}: {text}" for text in found]
            self.say(f"{self.name}: {'; '.join(found[:NAMED])}{more}")

    def look(self, names: Sequence[str]) -> None:
        """Tell which of the columns that were learned from are not there; an error if none of them is."""
        encoder = self.reading.encoder
        read = self.reading.inputs(sorted({*encoder.slots, *encoder.vocabulary} - {*self.seasonal}))
        lost = [name for name in read if name not in names]
        if lost and len(lost) == len(read):
            shown = ", ".join(map(repr, read[:20]))
            raise OnwardError(f"{self.name} has none of the columns that were learned from: {shown}")
        for name in lost:
            self.say(f"{self.name} has no column {name!r}; it counts as missing")
        for name in self.reading.time_columns(names):
            if name not in names:
                self.say(f"{self.name} has no column {name!r}; its times are unknown")

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of rows name the source."""
        try:
            yield
        except OnwardError as error:
            raise OnwardError(f"{self.name}, {error}") from None

    # Rows.

    def take(self, block: Rows, *, learn: bool = True) -> None:
        """Predict, score and learn a block of rows; the lines of predictions.csv are added to `lines`."""
        work = time.process_time()
        self.answered, self.odds = self.answered.pick(slice(0)), None
        before, self.holds = self.holds, True
        try:
            for known in self.reading.parts(block):
                self._begin_anew()
                for start, stop in itertools.pairwise(self.targets.cuts(known.cells, len(known.numbers))):
                    cells = {name: column[start:stop] for name, column in known.cells.items()}
                    self._take(known._replace(numbers=known.numbers[start:stop], cells=cells), learn)
        finally:
            self.tell()
            self.holds = before
        self.cpu += time.process_time() - work

    def _take(self, block: Rows, learn: bool) -> None:
        numbers = block.numbers
        n = len(numbers)
        reading, encoder = self.reading, self.reading.encoder
        moments, times = reading.times(block)
        with self._named():
            y = self.targets.read(block.cells, numbers)
        arrived = self._arrived(y)
        others = self.baselines.score(y if self.options.path else arrived)
        cells = {name: block.cells[name] for name in reading.inputs(list(block.cells))} | self._season()
        waves = reading.waves(moments)
        at = self.calendar.at(moments, self.baselines.periods, dated=reading.dated)
        if self.options.holidays and not reading.dated and not self.rows:
            told = (
                f"--holidays {self.options.holidays}: column {self.options.time!r} holds no dates: no holiday is known"
            )
            self.complain(Remark(told, numbers[0], "rows without a date, of which no holiday is known"))
        start, parts, marks = 0, [], []
        columns = [name for name in self.options.target for _ in range(self.options.spans)]
        while start < n:
            stop = encoder.give_slots(cells, start, n)
            learner = self._room()
            if learn and learner.grows_within(stop - start):
                self.ahead.ready()
            if stop > start:
                x = encoder.encode(cells, start, stop, numbers, waves)
                u, a = self.targets.to_units(y[start:stop]), self.targets.arrived_to_units(arrived[start:stop])
                u = np.repeat(u, self.options.spans, 1)
                plain = encoder.plain
                self.learner, said = (
                    learner.learn(x, plain, u, a, at[start:stop])
                    if learn
                    else learner.read(x, plain, u, at[start:stop])
                )
                parts.append(said)
                marks += self.strange.names(said.strange, encoder, columns, self.seasonal)
            start = stop
        answers = Answers(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        broken = ~np.isfinite(answers.outputs).all(1)
        if broken.any():
            raise NotFinite(
                f"{self.name}: the prediction became NaN or infinite at row {numbers[int(np.argmax(broken))]}; "
                "the last checkpoint is good. Try a smaller --step-size"
            )
        self._silent(answers, numbers)
        self.strange.see(marks, numbers, block.cells, self.complain)
        asked = self.targets.answered(answers, y, numbers, times, block=min(self.block, ENDS))
        self._score(asked, numbers, times, arrived, others, marks, answers.doubted)
        if self.live and self.learner is not None:
            self.ahead.follow(self.learner, "step" if learn else "read")
        self.rows += n
        self.last_row = numbers[-1]

    def _silent(self, answers: Answers, numbers: Sequence[int]) -> None:
        """Tell where the network has no finite answer any more, and the other experts go on without it."""
        if "network" not in self.options.recipe.experts:
            return
        for row in itertools.compress(numbers, np.isnan(answers.experts[..., self.experts.index("network")]).any(1)):
            text = f"row {row}: the network's answer is not finite any more; the other experts go on without it"
            self.complain(Remark(f"{text}. Try a smaller --step-size", row, "rows without an answer of the network"))

    def _begin_anew(self) -> None:
        """Forget what was learned where a value is not believed any more that it was learned from."""
        anew, units = self.reading.anew, (self.reading.encoder.units, self.targets.units)
        for name, value in anew.items():
            for known in units:
                known |= {name: Unit(value)} if name in known else {}
        spans = self.options.spans
        for i in [i for i, name in enumerate(self.options.target) if name in anew]:
            self.baselines.forget(i)
            for output in range(spans * i, spans * (i + 1)):
                self.first_target[output], self.constant[output] = None, True
        if anew and self.learner is not None:
            self.scores.believed[:] = 0
            self.learner = self.learner._replace(state=None)
        self.reading.anew = {}

    def _season(self) -> dict[str, Sequence[Cell]]:
        """One more input a target, where a season is known: the value one season before what is to be predicted."""
        ahead, slots = self.baselines.ahead, self.reading.encoder.slots
        met = [i for i, name in enumerate(self.seasonal) if name in slots or np.isfinite(ahead[:, i]).any()]
        return {self.seasonal[i]: ahead[:, i].tolist() for i in met}

    def _arrived(self, y: np.ndarray) -> np.ndarray:
        """What each row makes known: its target, or the return or the path of `lag` rows before."""
        lag, discount, path = self.options.lag, self.options.discount, self.options.path
        if self.options.task != "return" and not path:
            return y
        before, known = len(self.before), np.concatenate([self.before, y])
        self.before = known[-(lag - 1) :] if lag > 1 else known[:0]
        if path:
            filled = np.concatenate([np.full((lag - 1 - before, y.shape[1]), np.nan), known])
            # (rows, targets, lag): the rows up to this one, oldest first.
            return np.lib.stride_tricks.sliding_window_view(filled, lag, 0).reshape(len(y), -1)
        out = np.full(y.shape, np.nan)
        weights = discount ** np.arange(lag)
        for i in range(max(0, lag - 1 - before), len(y)):
            # The rewards of the last `lag` rows, oldest first: the return as of the row before them.
            out[i] = weights @ known[before + i - lag + 1 : before + i + 1]
        return out

    def _room(self) -> RowLearner:
        """The learner, made if there is none yet, with room for all columns and classes seen."""
        needed = 2
        while needed < len(self.targets.classes):
            needed *= 2
        classes = needed if self.options.task == "classification" else 0
        learner = self.learner
        if learner is None:
            learner = RowLearner(
                self.options.recipe, self.reading.encoder.capacity, classes, lengths=(self.block,), in_place=True
            )
        if self.reading.encoder.capacity > learner.capacity or classes > learner.classes:
            self.ahead.ready()
        if self.reading.encoder.capacity > learner.capacity:
            learner = learner.widen(self.reading.encoder.capacity)
        if classes > learner.classes:
            learner = learner.add_classes(classes)
        self.learner = learner
        return learner

    def _score(
        self,
        asked: Waiting,
        numbers: Sequence[int],
        times: Sequence[str],
        arrived: np.ndarray,
        others: np.ndarray,
        marks: Sequence[str],
        doubted: np.ndarray,
    ) -> None:
        """Judge what the rows make known, window by window, and write it down."""
        every_one, n = self.waiting.then(asked), len(numbers)
        judged, self.waiting = every_one.pick(slice(n)), every_one.pick(slice(n, None))
        self._judge(judged, numbers, times, arrived, others, marks, doubted)
        self.answered = self.answered.then(asked)

    def _judge(
        self,
        judged: Waiting,
        numbers: Sequence[int],
        times: Sequence[str],
        arrived: np.ndarray,
        others: np.ndarray,
        marks: Sequence[str],
        doubted: np.ndarray,
        whose: Sequence[Sequence[str]] = (),
    ) -> None:
        """Judge what was said of rows by what they are; `whose`: the entity of each, as in `Format.lines`."""
        said = np.concatenate([judged.said[None], judged.linear[None], others])
        classes = self.options.task == "classification"
        wrong = said != arrived[None] if classes else said - arrived[None]
        errors = np.where(np.isfinite(said) & np.isfinite(arrived[None]), wrong, np.nan)
        every, start = self.options.every, 0
        while start < len(numbers):
            stop = min(len(numbers), start + every - (self.rows + start) % every)
            self.scores.add(errors[:, start:stop], doubted[start:stop])
            self.scores.add_experts(judged.experts[start:stop], arrived[start:stop], classes=classes)
            if (self.rows + stop) % every == 0:
                self._window(self.rows + stop, numbers[stop - 1], times[stop - 1])
            start = stop
        if self.extras:
            part = judged.extra[:, : self.extras * arrived.shape[1]].reshape(*arrived.shape, self.extras)
            known = np.isfinite(part).all(2) & np.isfinite(arrived)
            inside, size = (
                ((part[..., 0] <= arrived) & (arrived <= part[..., 1]), part[..., 1] - part[..., 0])
                if self.extras == 2
                else (judged.said == arrived, part[..., 0])
            )
            each = np.where(known[..., None], np.stack([known, inside, size], -1), 0)
            self.scores.extra = added(self.scores.extra[None], each[None])[0]
        if classes:
            self.scores.add_classes(judged.said[:, 0], arrived[:, 0], judged.extra[:, 1:])
        for i, column in enumerate(arrived.T):
            told = column[np.isfinite(column)].tolist()
            if told:
                first = told[0] if (was := self.first_target[i]) is None else was
                self.first_target[i], self.constant[i] = first, self.constant[i] and {*told} == {first}
        odds = self._odds(judged, arrived, numbers, times)
        if self.of_origin:
            made = [i for i, row in enumerate(judged.rows) if row]  # nothing was said before the first row
            judged, arrived, errors = judged.pick(made), arrived[made], errors[:, made]
            numbers, times, marks = judged.rows, judged.times, [""] * len(made)
        self.lines.append(self._lines(judged, numbers, times, arrived, errors[0], marks, odds, whose))

    def _odds(self, judged: Waiting, arrived: np.ndarray, numbers: Sequence[int], times: Sequence[str]) -> Odds | None:
        """How odd the rows are by what was said of them before."""
        if not isinstance(self.oddness, Oddness):
            return None
        known = np.isfinite(arrived) & np.isfinite(judged.said)
        if self.options.task == "classification":
            odd, above = surprises_of_classes(judged, arrived, known)
        else:
            odd, above = surprises(judged, self.targets.arrived_to_units(arrived), known)
        odds = self.oddness.see(odd, above, arrived, numbers, times)
        self.odds = odds if self.odds is None else self.odds.then(odds)
        return odds

    def _nothing_waits(self) -> Waiting:
        """As many predictions as wait, never made."""
        k = len(self.options.outputs)
        spread = 3 * self.options.recipe.components if self.oddness and self.extras == 2 else 0
        return Waiting.empty(self.options.lag, k, k * self.extras, len(self.experts), spread)

    def _window(self, done: int, row: int, when: str) -> None:
        means, counts = mean_errors(self.scores.take_window())
        if any(counts):
            names = self.options.outputs
            line = {"rows": done, "row": row, "time": when, "count": by_target(names, counts)}
            errors = {name: by_target(names, each) for name, each in zip(CONTESTANTS, means, strict=True)}
            weights = self._weights(self.scores.take_weights())
            self.metrics.append(json.dumps(line | errors | weights))

    def _weights(self, weights: np.ndarray) -> dict[str, Any]:
        """Of each target the weight of each expert that had any."""
        if not self.experts:
            return {}
        named = [dict(zip(self.experts, each, strict=True)) for each in np.nan_to_num(weights).round(5).tolist()]
        return {"weights": by_target(self.options.outputs, [{n: w for n, w in each.items() if w} for each in named])}

    @property
    def of_origin(self) -> bool:
        """Whether a prediction stands at the row it was made at: what it is of are several rows."""
        return self.options.task == "return" or self.options.path

    @property
    def of_rows(self) -> bool:
        """Whether an answer is told with the row it was made at: that of an entity comes nobody knows when."""
        return self.of_origin or bool(self.options.by)

    # What is written.

    @property
    def header(self) -> list[str]:
        """Of predictions.csv."""
        return self.format.header

    def _lines(
        self,
        judged: Waiting,
        numbers: Sequence[int],
        times: Sequence[str],
        arrived: np.ndarray,
        error: np.ndarray,
        marks: Sequence[str],
        odds: Odds | None = None,
        whose: Sequence[Sequence[str]] = (),
    ) -> str:
        labels = list(self.targets.classes)
        return self.format.lines(judged, numbers, times, arrived, error, labels, marks, odds, whose)

    def future(self) -> str:
        """Lines for the predictions whose targets are still to come."""
        waiting, k = self.waiting, len(self.options.outputs)
        came = np.full((len(waiting.rows), k), np.nan)
        if self.options.path:  # the first steps of most paths have come
            lag, known = self.options.lag, len(self.before)
            each = came.reshape(len(came), -1, lag)
            for i in range(max(0, lag - 1 - known), lag - 1):
                each[i, :, : lag - 1 - i] = self.before[known - (lag - 1 - i) :].T
        rows, times = waiting.rows, waiting.times
        if not self.of_origin:
            ahead = self.options.lag
            rows, times = [row + ahead if row else 0 for row in rows], [""] * len(rows)
        made = [i for i, row in enumerate(waiting.rows) if row]
        kept, came = waiting.pick(made), came[made]
        wrong = kept.said - came
        return self._lines(kept, [rows[i] for i in made], [times[i] for i in made], came, wrong, [""] * len(made))

    def more(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What else summary.json holds, and other files that are written once in the end, by name."""
        return {}, {}

    def forget_waiting(self) -> None:
        """Start a new count of rows: no prediction waits."""
        self.waiting = self._nothing_waits()
        self.before = self.before[:0]
        self.reading.clock = -np.inf

    # What survives.

    def save(self, folder: Path, **more: Any) -> None:
        """A checkpoint: all that the next row needs, and `more`: what else `load` is to give back, as JSON."""
        assert self.learner is not None, "nothing was learned yet"
        arrays, learner = self.learner.save()
        kept = self._own_arrays() | {f"{LEARNER}{name}": array for name, array in arrays.items()}
        meta = {
            **{name: getattr(self, name) for name in AS_IT_IS},
            **more,
            "strange": self.strange.as_dict(),
            "odd": self.oddness.as_dict() if self.oddness else None,
            "remarks": self.remarks.as_dict(),
            "learner": learner,
            "reading": self.reading.as_dict(),
            "calendar": self.calendar.as_dict(),
            "none": self.targets.none,
            "units": {name: unit.origin for name, unit in self.targets.units.items()},
            "classes": list(self.targets.classes),
            "waiting": {"rows": self.waiting.rows, "times": self.waiting.times},
        }
        saving.save_arrays(run_folder.path_of(folder, JOB, self.rows), kept, meta)
        run_folder.prune(folder, JOB)

    def connect(self, held: ExitStack) -> None:
        """Start what learns beside this process, for as long as `held` is open."""

    def reconnect(self) -> None:
        """Start it anew, where some of it was lost."""

    def settle(self) -> None:
        """Wait for what is still learned elsewhere."""

    def opened(self, folder: Path) -> None:
        """Checkpoints are going to be kept in this folder."""

    def close(self) -> None:
        """No checkpoints are kept there any more."""

    def load(self, path: Path, check: Callable[[dict[str, Any]], None] = lambda meta: None) -> dict[str, Any]:
        """Go on from a checkpoint; returns its meta. `check` is told of it before, and may refuse it.

        Raises `onward.saving.Unreadable` for one that is damaged, or of another learning; nothing has changed then.
        """
        what = f"checkpoint {path}"
        meta, kept = saving.load_arrays(path)
        with saving.reading(what):
            saving.check_meta(meta, Kept, what)
            check(meta)  # first: other options are no damage
            encoder = Encoder.from_dict(
                meta["reading"]["encoder"], judge=self.options.judge, complain=self.complain, what=what
            )
            require_true(meta, self.options, encoder, self.waiting, what)
            arrays = {name.removeprefix(LEARNER): a for name, a in kept.items() if name.startswith(LEARNER)}
            learner = RowLearner.load(arrays, {**meta["learner"], "lengths": [self.block]}, what)
            mine: dict[str, Any] = self._fitting(
                {name: a for name, a in kept.items() if not name.startswith(LEARNER)}, meta, what
            )
            part = lambda of: {name.removeprefix(of): a for name, a in mine.items() if name.startswith(of)}
            waiting = Waiting(**part("waiting."), **meta["waiting"])
        # Nothing was changed until all was found good.
        self.learner = learner._replace(in_place=True)
        self.reading.restore(meta["reading"], encoder)
        self.calendar.restore(meta["calendar"])
        self.targets.none = meta["none"]
        self.targets.units = {name: Unit(origin) for name, origin in meta["units"].items()}
        self.targets.classes = {name: i for i, name in enumerate(meta["classes"])}
        self.targets.met = len(self.targets.classes)
        self.baselines.restore(part("baselines."))
        self.waiting = waiting
        self.before = mine["rewards"]
        vars(self.scores).update(part("scores."))
        vars(self).update({name: meta[name] for name in AS_IT_IS})
        self.strange, self.remarks = Strange(**meta["strange"]), Remarks(meta["remarks"])
        if self.oddness:
            self.oddness.restore(meta["odd"])
        return meta

    def _own_arrays(self) -> dict[str, np.ndarray]:
        """Every array of the session but the learner's, by name."""
        kept = self.waiting.widened(self._width(len(self.targets.classes)))
        waiting = {f"waiting.{name}": array for name, array in kept.arrays.items()}
        baselines = {f"baselines.{name}": array for name, array in self.baselines.arrays().items()}
        scores = {f"scores.{name}": array for name, array in vars(self.scores).items()}
        return waiting | baselines | scores | {"rewards": self.before}

    def _width(self, classes: int) -> int:
        """Of what waits, numbers in `extra`."""
        if self.options.task == "classification":
            return 1 + max(1, classes)
        return self.extras * len(self.options.outputs)

    def _fitting(self, kept: dict[str, np.ndarray], meta: dict[str, Any], what: str) -> dict[str, np.ndarray]:
        """Arrays of a checkpoint, if they have the shapes that the meta asks for."""
        lengths = {"rewards": min(meta["rows"], max(self.options.lag - 1, 0)) * self.of_origin}
        lengths["baselines.counts"] = len(meta["classes"])
        like = {
            name: np.empty((lengths.get(name, len(array)), *array.shape[1:]), array.dtype)
            for name, array in self._own_arrays().items()
        }
        like["waiting.extra"] = np.empty((len(like["waiting.extra"]), self._width(len(meta["classes"]))))
        arrays: dict[str, np.ndarray] = saving.from_named_arrays(kept, like, what)
        rows, period = arrays["baselines.scalars"].tolist()
        if rows != meta["rows"] or period == 1 or not 0 <= period <= self.baselines.memory:
            raise saving.Unreadable(f"{what}: baselines.scalars is {rows}, {period} after {meta['rows']} rows")
        return arrays
