"""Rows in, answers out, one thread that learns: what a service is, without HTTP."""

import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from onward.errors import OnwardError
from onward.lab.folder import CONFIG, RunFolder, newest_good
from onward.lab.folder import newest_first as checkpoints_of
from onward.rows.answers import as_data
from onward.rows.checkpoint import require_same
from onward.rows.learn import METRICS, PREDICTIONS, WRITTEN, session_of
from onward.rows.options import Learn
from onward.rows.predictions import csv_line
from onward.rows.scores import mean_errors
from onward.rows.serve.aside import aside, silent
from onward.rows.serve.journal import Journal, Place, Request, Row
from onward.rows.session import JOB, Session
from onward.rows.sources import Cell, Rows
from onward.rows.stream import as_usual
from onward.saving import Unreadable, Unwritable

# Requests whose keys are remembered, rows that the page draws, and requests that may wait.
KEYS, RECENT, WAITING = 10_000, 300, 1024
FORM = "service"


class Full(OnwardError):
    """More requests wait than are taken."""


@dataclass
class Asked:
    """A request, what is to be done with it, and who waits for what comes of it."""

    request: Request
    learn: bool
    future: "Future[list[dict[str, Any]]]"


class Service:
    """The learner of a run folder, and its journal. Its methods may be called by any thread, but `start` and `stop`.

    A row is acknowledged once it is in the journal and learned. What a checkpoint does not hold yet is learned again
    from the journal when the service starts.
    """

    def __init__(self, options: Learn, fields: dict[str, Any], folder: RunFolder, say: Callable[[str], None]):
        self.options, self.fields, self.folder, self.say = options, fields, folder, say
        self.session: Session
        self.row = 0  # the number of the last row that came
        self.notes: deque[str] = deque(maxlen=20)
        self.recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self.waiting: list[dict[str, Any]] = []
        self.keys: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self.names: dict[str, None] = {}
        self.broken = ""
        self.counts = {"rows": 0, "asks": 0, "alarms": 0, "shifts": 0, "again": 0}
        self._queue: queue.Queue[Asked | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name="learner")
        self.journal: Journal
        self._saved = time.monotonic()
        self._place = self._kept = Place(1, 0)

    def _told(self, text: str) -> None:
        self.notes.append(text)
        self.say(text)

    # Its life.

    def start(self) -> None:
        """Go on where the folder's checkpoint and its journal end; whoever calls has locked the folder."""
        with as_usual():
            self.journal = Journal(self.folder / "journal")
            try:
                behind = self._catch_up()
                if behind:
                    self.say(f"{behind:,} rows that no checkpoint held were learned again, from the journal")
                self._warm()
                self._keep()
            except BaseException:
                self.journal.close()
                raise
        self._thread.start()

    def _catch_up(self) -> int:
        """The session of the last checkpoint, after what the journal has beyond it: so many rows."""
        self.session = session_of(self.options, "-", self._told)
        self.session.name = FORM
        self.session.opened(self.folder.checkpoints)
        place, behind = self._restore(), 0
        for request in self.journal.read(place):
            behind += len(request.rows)
            self._learn([request])
        return behind

    def _restore(self) -> Place:
        def check(meta: dict[str, Any]) -> None:
            require_same(self.folder / CONFIG, self.fields, meta, WRITTEN)
            if any(len(rows) != 2 or min(rows) < 0 for rows in meta.get("keys", {}).values()):
                raise Unreadable(f"the keys of a checkpoint beside {self.folder / CONFIG} are damaged")

        meta = newest_good(self.folder.checkpoints, JOB, partial(self.session.load, check=check), self.say)
        if meta is None:
            if checkpoints_of(self.folder.checkpoints, JOB):
                raise OnwardError(
                    f"no checkpoint in {self.folder.checkpoints} can be read: put back a copy of one, or serve another "
                    "folder"
                )
            self.folder.cut(dict.fromkeys(WRITTEN, 0))
            self.folder.append(PREDICTIONS, csv_line(self.session.header))
            self.row, self.names, self.keys = 0, {}, OrderedDict()
            return Place(1, 0)
        self.folder.cut(meta["written"])
        self.row = meta["position"]["row"]
        self.names = dict.fromkeys(meta["position"].get("names", []))
        self.keys = OrderedDict((key, (first, count)) for key, (first, count) in meta.get("keys", {}).items())
        if meta["fingerprint"]["form"] != FORM:
            self.say(
                f"goes on after row {meta['last_row']:,}, to which it was learned from {meta['fingerprint']['form']}"
            )
            return self.journal.place
        return Place(meta["position"].get("line", 1), meta["position"]["at"])

    def _warm(self) -> None:
        """Compile what the first answers need, before anybody waits for it: of a new folder, what any row needs."""
        session = self.session
        if session.learner is None:
            session, options = session_of(self.options, "-", silent), self.options
            row: Row = dict.fromkeys(options.target, "a" if options.task == "classification" else 1.0)
            row |= dict.fromkeys(options.by, "a") | ({options.time: "2026-01-01T00:00"} if options.time else {})
            session.take(block_of([row], 1, {}))
            session.ahead.ready()
        else:
            session.ahead.follow(session.learner, "step")
        aside(session, []).take(block_of([{}], 1, self.names), learn=False)

    def stop(self) -> None:
        """Answer what waits, keep what was learned, and end."""
        self._queue.put(None)
        self._thread.join()
        self.session.ahead.ready()
        with as_usual():
            self._keep()
        self.journal.close()
        self.session.close()

    # What others call.

    def ask(self, request: Request, *, learn: bool) -> "Future[list[dict[str, Any]]]":
        """What comes of rows, in time; `Full` where too many wait."""
        if self.broken:
            raise OnwardError(self.broken)
        asked = Asked(request, learn, Future())
        try:
            self._queue.put_nowait(asked)
        except queue.Full:
            raise Full(f"{WAITING:,} requests wait already: try again in a moment") from None
        return asked.future

    def state(self) -> dict[str, Any]:
        """What a page shows."""
        session = self.session
        means, counts = mean_errors(session.scores.total)
        names = list(session.options.outputs)
        errors = {name: {"onward": means[0][i], "rows": counts[i]} for i, name in enumerate(names) if counts[i]}
        for i, name in enumerate(names):
            if counts[i]:
                others = zip(("linear", "last value", "seasonal", "mean"), means[1:], strict=True)
                errors[name] |= {other: each[i] for other, each in others}
        return {
            "targets": names,
            "rows": session.rows,
            "last_row": session.last_row,
            "errors": errors,
            "interval": session.options.coverage,
            "recent": list(self.recent),
            "waiting": self.waiting,
            "notes": list(self.notes),
            "counts": dict(self.counts),
            "watches": self.options.alarm is not None,
            "broken": self.broken,
        }

    # The thread.

    def _work(self) -> None:
        with as_usual():
            while True:
                batch = [self._queue.get()]
                while not self._queue.empty():
                    batch.append(self._queue.get())
                for learn, group in _runs([each for each in batch if each is not None]):
                    if learn:
                        self._take(group)
                    else:
                        for asked in group:
                            self._settle(asked, partial(self._answer, asked.request.rows))
                if None in batch:
                    return
                if time.monotonic() - self._saved >= self.options.checkpoint_seconds:
                    self._try(self._keep)

    def _try(self, work: Callable[[], Any]) -> None:
        """What goes wrong with a checkpoint is told, and tried again later."""
        try:
            work()
        except OnwardError as error:
            self._saved = time.monotonic()
            self._told(str(error))

    @staticmethod
    def _settle(asked: Asked, work: Callable[[], list[dict[str, Any]]]) -> None:
        try:
            asked.future.set_result(work())
        except Exception as error:  # whoever asked is told
            asked.future.set_exception(error)

    def _take(self, group: Sequence[Asked]) -> None:
        """Keep, learn and answer requests, together."""
        new: list[Asked] = []
        coming: set[str] = set()
        for asked in group:
            key = asked.request.key
            if self.broken:
                asked.future.set_exception(OnwardError(self.broken))
            elif key and (key in self.keys or key in coming):
                new += [asked] if key in coming else []
                if key in self.keys:
                    self._settle(asked, partial(self._again, key))
            else:
                new.append(asked)
                coming.add(key) if key else None
        first = [
            asked for i, asked in enumerate(new) if asked.request.key not in {a.request.key for a in new[:i]} - {""}
        ]
        again = [asked for asked in new if asked not in first]
        if not first:
            return
        before = self.journal.place
        try:
            self.journal.append([asked.request for asked in first])
        except Unwritable as error:
            for asked in new:
                asked.future.set_exception(error)
            return
        try:
            answers = self._learn([asked.request for asked in first])
        except Exception as error:
            self._go_back(before, first, again, error)
            return
        for asked, answer in zip(first, answers, strict=True):
            asked.future.set_result(answer)
        for asked in again:
            self._settle(asked, partial(self._again, asked.request.key))

    def _go_back(self, before: Place, first: list[Asked], again: list[Asked], error: Exception) -> None:
        """Requests of which one cannot be learned: as if they had not come; then each alone, and it is refused."""
        try:
            self.journal.cut(before)
            self.session.close()
            self._catch_up()
        except Exception as worse:
            self.broken = f"learning ended: {error}. What was learned before is kept; start the service again ({worse})"
            self._told(self.broken)
            for asked in (*first, *again):
                asked.future.set_exception(OnwardError(self.broken))
            return
        if len(first) + len(again) == 1:
            first[0].future.set_exception(OnwardError(f"{error}. Nothing of this request was learned"))
            return
        for asked in (*first, *again):
            self._take([asked])

    def _again(self, key: str) -> list[dict[str, Any]]:
        """The answer to a request that was learned already: which rows these were."""
        self.counts["again"] += 1
        first, count = self.keys[key]
        return [{"row": first + i, "again": True} for i in range(count)]

    def _learn(self, requests: Sequence[Request]) -> list[list[dict[str, Any]]]:
        rows = [row for request in requests for row in request.rows]
        before, session = self.row, self.session
        answers: list[dict[str, Any]] = []
        for start in range(0, len(rows), session.block):
            part = rows[start : start + session.block]
            first = self.row + 1
            session.take(self._rows(part, first))
            answers += told(session, part, first)
            self.folder.append(PREDICTIONS, "".join(session.lines))
            self.folder.append(METRICS, "".join(line + "\n" for line in session.metrics))
            session.lines, session.metrics = [], []
            self.row += len(part)
        self._place = self.journal.place
        self.counts["rows"] += len(rows)
        for answer in answers:
            self.counts["alarms"] += bool(answer.get("alarm"))
            self.counts["shifts"] += bool(answer.get("shift"))
        self.recent.extend(answers)
        self.waiting = answers[-1:]
        out, at = [], 0
        for request in requests:
            out.append(answers[at : at + len(request.rows)])
            if request.key:
                self.keys[request.key] = (before + at + 1, len(request.rows))
                while len(self.keys) > KEYS:
                    self.keys.popitem(last=False)
            at += len(request.rows)
        return out

    def _rows(self, rows: Sequence[Row], first: int) -> Rows:
        self.names |= dict.fromkeys(name for row in rows for name in row)
        return block_of(rows, first, self.names)

    def _answer(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """What would be said after rows; of none, what is said now."""
        self.counts["asks"] += 1
        if not rows:
            return self.waiting
        return self._aside(rows)

    def _aside(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Rows, read by a copy that learns nothing and is thrown away."""
        if self.session.learner is None:
            raise OnwardError("nothing was learned yet: send rows first")
        names, apart = dict(self.names), aside(self.session, rows)
        answers: list[dict[str, Any]] = []
        first = self.row + 1
        try:
            for start in range(0, len(rows), apart.block):
                part = rows[start : start + apart.block]
                apart.take(self._rows(part, first + start), learn=False)
                answers += told(apart, part, first + start)
        finally:
            self.names = names
            apart.ahead.ready()
        return answers

    def _keep(self) -> None:
        """A checkpoint of all that was learned, and a new file of the journal."""
        session = self.session
        if session.learner is None:
            return
        place = self._place
        session.save(
            self.folder.checkpoints,
            options=self.fields,
            position={"at": place.at, "row": self.row, "line": place.part, "names": list(self.names)},
            fingerprint={"form": FORM, "names": list(self.names)},
            written=self.folder.sizes(*WRITTEN),
            keys={key: [first, count] for key, (first, count) in self.keys.items()},
        )
        self.folder.settle()
        self.journal.turn()
        self.journal.forget(self._kept)
        self._kept, self._saved = place, time.monotonic()


def block_of(rows: Sequence[Row], first: int, names: Iterable[str]) -> Rows:
    """Rows from a number on, as JSON lines give them that have had keys of these `names`."""
    known = dict.fromkeys(names) | dict.fromkeys(name for row in rows for name in row)
    cells: dict[str, Sequence[Cell]] = {name: [row.get(name) for row in rows] for name in known}
    return Rows(first, list(range(first, first + len(rows))), cells, {})


def _runs(batch: Iterable[Asked]) -> list[tuple[bool, list[Asked]]]:
    """Requests in the order they came: those that are learned one after the other together."""
    runs: list[tuple[bool, list[Asked]]] = []
    for asked in batch:
        if runs and runs[-1][0] == asked.learn:
            runs[-1][1].append(asked)
        else:
            runs.append((asked.learn, [asked]))
    return runs


def told(session: Session, rows: Sequence[Row], first: int) -> list[dict[str, Any]]:
    """Answers as JSON holds them: for each row what came, what is said of the row `horizon` rows later, and how odd.

    The rows count from `first`; of one that was passed over it says no more.
    """
    found: list[dict[str, Any]] = [{"row": first + i, "passed over": True} for i in range(len(rows))]
    for each in as_data(session):
        row = rows[each["row"] - first]
        for name, answer in each["targets"].items():
            came = row.get(name)
            answer["came"] = came if isinstance(came, int | float | str) else None
        found[each["row"] - first] = each
    return found
