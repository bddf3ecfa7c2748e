"""`onward learn`: predict, score, then learn, at every row of a file or a stream; and survive a restart."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from onward import saving
from onward.errors import OnwardError, Stopped
from onward.lab.cluster import Lost
from onward.lab.folder import CONFIG, RunFolder, newest_first, newest_good, read_config, same_fields
from onward.lab.progress import Progress
from onward.lab.signals import Stop, stopping
from onward.rows.again import Again, require_offsets
from onward.rows.alarms import Alarmed, OnAlarm
from onward.rows.answers import as_data, as_lines
from onward.rows.beginning import CLOSED
from onward.rows.checkpoint import require_same
from onward.rows.options import Learn
from onward.rows.predictions import csv_line
from onward.rows.remarks import Remarks
from onward.rows.scores import CONTESTANTS, mean_errors
from onward.rows.session import JOB, Session
from onward.rows.sources import Rows, Source, gathered, open_rows, require_source
from onward.rows.stream import BLOCK, STREAM, as_usual
from onward.rows.summary import SUMMARY, summary
from onward.text import counted

PREDICTIONS, METRICS = WRITTEN = "predictions.csv", "metrics.jsonl"
# Options that may change from one call to the next.
FREE = (
    *("every", "checkpoint_seconds", "strict", "form", "delimiter", "encoding"),
    *("answers", "on_alarm", "stop_on_alarm"),
)
# Rows of a file by which is judged what its columns are.
SAMPLE = 4096


class _Run:
    """One call of `onward learn`: rows in, files out."""

    def __init__(
        self,
        source: str,
        folder: RunFolder,
        fields: dict[str, Any],
        session: Session,
        rows: Source,
        progress: Progress,
        stop: Stop,
        from_row: int | None = None,
    ) -> None:
        self.source, self.folder, self.fields, self.session, self.rows = source, folder, fields, session, rows
        self.progress, self.stop = progress, stop
        self.options, self.stream = session.options, source == "-"
        self.position: Any = None
        self.again = Again(self.options.offset, session.complain)
        self.told: OnAlarm | None = None
        self.saved = self.started = time.monotonic()
        self.first = 0
        self.from_row = from_row
        self.whole = True  # whether the session stands between two blocks, all written

    def restore(self) -> None:
        """Go on from the newest good checkpoint, with files as they were at it; from the first row if there is none.

        OnwardError where all are damaged and the rows cannot be read again: what the folder holds stays as it is.
        """

        def check(meta: dict[str, Any]) -> None:
            require_same(self.folder / CONFIG, self.fields, meta, WRITTEN)
            self.rows.check(meta["fingerprint"], meta["position"])

        self.session.opened(self.folder.checkpoints)
        read = partial(self.session.load, check=check)
        meta = newest_good(self.folder.checkpoints, JOB, read, self.progress.say)
        if meta is None:
            damaged = newest_first(self.folder.checkpoints, JOB)
            if damaged and self.stream:
                raise OnwardError(
                    f"no checkpoint in {self.folder.checkpoints} can be read, and the rows of a stream cannot be read "
                    "again: put back a copy of one, or start anew in another folder"
                )
            none = "no checkpoint that can be read" if damaged else "no checkpoint yet"
            self.progress.say(f"{self.folder} has {none}: starting with the first row")
            judge(self.session, self.source)
            self.begin()
            return
        self.rows.resume(meta["position"])
        if "again" in meta:  # of what was served there is none
            self.again.restore(meta["again"])
        if self.from_row is not None:
            self.again.from_row(self.from_row, meta["position"]["row"] - self.again.passed)
        self.position, self.first = meta["position"], self.session.rows
        self.progress.say(f"{self.rows.name}: going on after row {meta['last_row']:,}")
        self.folder.cut(meta["written"])

    def begin(self) -> None:
        """Files as they are before the first row."""
        self.session.opened(self.folder.checkpoints)
        self.folder.cut(dict.fromkeys(WRITTEN, 0))
        self.folder.append(PREDICTIONS, csv_line(self.session.header))

    def go(self) -> None:
        """Learn to the end of the source, or until somebody stops it; what was learned is kept either way."""
        try:
            self.told = OnAlarm(self.options.on_alarm, self.progress.say) if self.options.on_alarm else None
            if self.stream and not self.as_json:
                self._tell(self.session.format.stream_header(ahead=not self.session.of_rows))
            ended = False
            while not ended:
                blocks = gathered(self.rows.blocks(self.session.block), 1 if self.stream else self.session.least)
                blocks = self.again.new(blocks) if self.stream else blocks
                try:
                    while (block := next_block(self.rows, blocks, self.stop)) is not None:
                        self.whole = False
                        self.session.take(block)
                        self.position = block.position
                        self._write()
                        self.whole = True
                        self._look_around()
                    self.session.settle()
                    self._write()
                    ended = True
                except Lost as lost:
                    self._recover(lost)
        except (KeyboardInterrupt, BrokenPipeError) as end:
            self._keep()
            why = "stopped"
            if isinstance(end, BrokenPipeError):
                why = "nobody reads the predictions any more"
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
            raise Stopped(f"{why}{self._how_to_go_on()}") from None
        except OnwardError:
            self._keep()
            raise
        finally:
            if self.told:
                self.told.close()
        self._end()

    def _recover(self, lost: Lost) -> None:
        """Go back to the last checkpoint, with the workers that there are now."""
        self.whole = False
        if self.stream or not newest_first(self.folder.checkpoints, JOB):
            raise lost
        self.progress.say(f"{lost}; going on from the last checkpoint")
        self.session.reconnect()
        self.restore()
        self.whole = True

    def _write(self) -> None:
        """The lines of a block."""
        session = self.session
        self.folder.append(PREDICTIONS, "".join(session.lines))
        self.folder.append(METRICS, "".join(line + "\n" for line in session.metrics))
        session.lines, session.metrics = [], []

    def _look_around(self) -> None:
        """Between two blocks: answer, stop if asked to, and now and then keep and show."""
        if self.stream:
            session = self.session
            ahead = 0 if session.of_rows else self.options.lag
            labels = list(session.targets.classes)
            self._tell(
                as_lines(as_data(session))
                if self.as_json
                else session.format.answers(session.answered, ahead, labels, session.odds, session.whose)
            )
        if self.session.odds is not None and self.session.odds.alarm.any():
            self._alarmed()
        if self.stop():
            raise KeyboardInterrupt
        if time.monotonic() - self.saved >= self.options.checkpoint_seconds:
            self._keep()
        self._show()

    @property
    def as_json(self) -> bool:
        """Whether rows of a stream are answered by JSON lines."""
        return self.options.answers == "jsonl" or (self.options.answers == "auto" and self.rows.form == "jsonl")

    def _alarmed(self) -> None:
        """Some of the last rows are alarms."""
        answers = as_data(self.session)
        if self.told:
            self.told.tell(answers)
        if self.options.stop_on_alarm:
            self._keep()
            first = next(each for each in answers if each["alarm"])
            when = f" ({first['time']})" if first["time"] else ""
            raise Alarmed(f"row {first['row']:,}{when} is an alarm{self._how_to_go_on()}")

    def _how_to_go_on(self) -> str:
        kept = newest_first(self.folder.checkpoints, JOB)
        if not kept:
            return " before anything was learned"
        meta = saving.read_meta(kept[0])
        again = f"onward learn {self.source} --resume {self.folder}"
        upto = f"row {meta['last_row']:,}"
        if self.options.offset:
            upto += f", {self.options.offset} {meta['again']['last']},"
        return f"; what was learned up to {upto} is kept, go on with: {again}"

    def _show(self) -> None:
        session, total = self.session, rows_expected(self.source, self.rows, self.position, self.session.rows)
        rate = (session.rows - self.first) / max(time.monotonic() - self.started, 1e-9)
        means, counts = mean_errors(session.scores.total)
        at, names = (
            int(np.argmax(np.array(counts) > 0)),
            session.options.outputs,
        )  # the first that was scored stands for all
        ours, *others = (errors[at] if counts[at] else 0.0 for errors in means)
        best = int(np.argmin(others))
        metric, note = (
            ("error" if len(names) == 1 else f"error of {names[at]}"),
            f"  {CONTESTANTS[best + 1]} {others[best]:.4g}",
        )
        self.progress.show(JOB, session.rows, total, rate=rate, metric=metric, value=ours, note=note, unit="rows")

    def _keep(self) -> None:
        """A checkpoint; none in the middle of a block."""
        if self.whole:
            self.session.settle()
            self._write()
        if self.whole and self.session.learner is not None and self.position is not None:
            self.session.save(
                self.folder.checkpoints,
                options=self.fields,
                position=self.position,
                fingerprint=self.rows.fingerprint(self.position),
                written=self.folder.sizes(*WRITTEN),
                again=self.again.as_dict(),
            )
            self.folder.settle()
        self.saved = time.monotonic()

    def _tell(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _end(self) -> None:
        """The source has ended: the last checkpoint, then what is written once."""
        if self.session.learner is None:
            raise OnwardError(f"{self.rows.name} has a header and no rows: there is nothing to learn")
        if not self.session.scores.total[..., 0].any():
            if self.stream:
                self._keep()
            raise OnwardError(f"{self.rows.name}{self._why_nothing_was_scored()}")
        self._keep()
        self.folder.append(PREDICTIONS, self.session.future())
        scored = mean_errors(self.session.scores.total)[1][:: self.options.spans]
        for name, rows in zip(self.options.target, scored, strict=True):
            if not rows:
                self.session.complain(f"no row of the target {name!r} could be scored: its values are missing")
        self.session.tell_rest()
        more, files = self.session.more()
        for name, text in files.items():
            saving.write_bytes(self.folder / name, text.encode())
        saving.write_json(self.folder / SUMMARY, summary(self.session) | more)

    def _why_nothing_was_scored(self) -> str:
        session, options = self.session, self.options
        columns = ", ".join(map(repr, options.target))
        if session.rows <= options.lag:
            return (
                f" has {counted(session.rows, 'row')}: no target is known {counted(options.lag, 'row')} ahead. "
                "Choose a smaller --horizon (or --discount), or bring more rows"
            )
        if options.task == "return":
            return (
                f": no {options.lag:,} rows on end have all values of column {columns}: no return is "
                "known. Choose a smaller --discount, or fill the gaps"
            )
        name, rows = "columns" if len(options.target) > 1 else "column", counted(session.rows, "row")
        if any(first is not None for first in session.first_target):
            return f": of {rows} too few have values of {name} {columns}: no prediction could be scored"
        are = "are" if len(options.target) > 1 else "is"
        return f": {name} {columns} {are} missing in all of {rows}: no prediction could be scored"


def next_block(rows: Source, blocks: Iterator[Rows], stop: Stop) -> Rows | None:
    """The next block; while a stream is waited for, a stop comes at once."""
    stop.waiting = not rows.moves
    block = next(blocks, None)
    stop.waiting = False
    return block


def rows_expected(source: str, rows: Source, position: Any, done: int) -> int | None:
    """About how many rows there are; None where nobody can know."""
    if rows.form == "parquet" or not rows.moves or rows.packed:
        return None
    return max(done, round(done * Path(source).stat().st_size / max(position["at"], 1)))


def session_of(options: Learn, source: str, say: Callable[[str], None]) -> Session:
    """A session for a source: of standard input, rows are taken as they come, and no row waits for a compiler."""
    live = source == "-"
    if options.by:
        from onward.rows.fleet.fleet import Fleet

        return Fleet(options, "", say, live=live)
    return Session(options, "", say, block=STREAM if live else BLOCK, live=live)


def open_source(options: Learn, source: str, say: Callable[[str], None]) -> Source:
    """The rows of a source, as the options say."""
    form = None if options.form == "auto" else options.form
    return open_rows(
        source,
        form=form,
        delimiter=options.delimiter,
        encoding=options.encoding,
        skip=options.skip,
        comment=options.comment,
        complain=say,
        strict=options.strict,
    )


def judge(session: Session, source: str) -> None:
    """Let a session see the first rows of a file, which say what its columns are; of a stream it sees none ahead."""
    if source == "-" or not Path(source).is_file():
        return
    with open_source(dataclasses.replace(session.options, strict=False), source, lambda text: None) as rows:
        if sample := next(gathered(rows.blocks(SAMPLE), SAMPLE), None):
            session.judge(sample._replace(first=1), whole=len(sample.numbers) < SAMPLE)


def learn(
    options: Learn,
    source: str,
    path: Path,
    *,
    resume: bool = False,
    replace: bool = False,
    from_row: int | None = None,
    report: Callable[[Path], Path] | None = None,
) -> Path | None:
    """Learn from a source into the run folder `path`; what `report` makes of it in the end is returned.

    Rows of standard input (`-`) are taken as they come and answered on standard output at once. `resume` goes on where
    the folder's newest checkpoint was made, `replace` deletes an older run once there is a first checkpoint. Of a
    stream that goes on, `from_row` is the row that comes first; those that were learned from are passed over. Raises
    OnwardError where source, options or folder do not allow it, and Stopped after Ctrl-C, with what was learned kept.
    """
    options.check()
    require_offsets(options.offset, from_row, stream=source == "-", resume=resume)
    if not resume:
        options.check_served()
    progress = Progress()
    session, fields = session_of(options, source, progress.say), as_json(options)
    with ExitStack() as held:
        rows = None if source == "-" else held.enter_context(_chosen(session, source))
        if replace and rows and path.resolve() in Path(source).resolve().parents:
            raise OnwardError(f"--replace would delete {source}, which is in {path}: move it, or choose another --out")
        folder = held.enter_context(RunFolder(path, "learn"))
        session.connect(held)
        held.callback(session.close)
        if resume:
            before = folder.resume()["fields"]
            same_fields(path, before, fields, FREE)
            fields = before
        else:
            folder.vacant(replace=replace)
        rows = rows or held.enter_context(_chosen(session, source))  # nobody types a row for a folder that is refused
        with as_usual(), progress, stopping() as stop, session.ahead:
            run = _Run(source, folder, fields, session, rows, progress, stop, from_row)
            try:
                if resume:
                    run.restore()
                else:
                    judge(session, source)
                    folder.begin(fields, replace=replace, source=source)
                    run.begin()
                with session.in_order():
                    run.go()
            except saving.Unwritable as error:
                if resume or newest_first(folder.checkpoints, JOB):
                    raise
                raise error.at_start() from error
        return report(path) if report else None


@contextmanager
def _chosen(session: Session, source: str) -> Iterator[Source]:
    """A source, opened, which has the columns that the session asks for."""
    with open_source(session.options, source, session.complain) as rows:
        session.name = rows.name
        session.reading.choose(rows.names, rows.name, whole=rows.form != "jsonl")
        yield rows


def load_options(path: Path) -> tuple[Learn, dict[str, Any]]:
    """The options of a run folder, and its fields; OnwardError where they are not those of `onward learn`."""
    options = Learn(**read_config(path, "learn", kind=Learn)["fields"])
    try:
        options.check()
    except OnwardError as error:
        raise OnwardError(f"{path / CONFIG}: {error}") from error
    return options, as_json(options)


def as_json(options: Learn) -> dict[str, Any]:
    """The options as config.json has them."""
    fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(options)))
    return fields


def predict(path: Path, source: str, out: str | None, say: Callable[[str], None]) -> None:
    """Predict the rows of a source with what the run folder `path` has learned, and learn nothing.

    The recurrent state goes on from where learning ended, as if the rows came next. Lines as in predictions.csv, to
    `out` or to standard output. The folder is locked while the checkpoint is read, and left as it is.
    """
    if out:
        _require_free(out, source, path)
    if os.path.isfile(path) and os.path.isdir(source):
        raise OnwardError(f"{source} is a folder; name a file, after the run folder: onward predict FOLDER SOURCE")
    require_source(source)
    options, fields = load_options(path)
    session = session_of(options, source, say)
    read = partial(session.load, check=lambda meta: require_same(path / CONFIG, fields, meta, WRITTEN))
    # Predictions disturb each other for a moment only: they take turns.
    with RunFolder(path, "predict", wait=lambda holder: holder["command"] == "predict") as folder:
        if newest_good(folder.checkpoints, JOB, read, say) is None:
            if newest_first(folder.checkpoints, JOB):
                raise OnwardError(
                    f"no checkpoint in {folder.checkpoints} can be read: put back a copy of one, or learn anew"
                )
            raise OnwardError(f"{path} has no checkpoint: nothing was learned there yet")
    session.notes, session.remarks, session.reading.beginning = [], Remarks(), CLOSED
    with (
        open_source(options, source, session.complain) as rows,
        as_usual(),
        stopping() as stop,
        session.ahead,
        session.in_order(),
    ):
        session.name = rows.name
        if rows.form != "jsonl":
            session.look(rows.names)
        session.forget_waiting()
        with _written(out) if out else nullcontext(sys.stdout) as file:
            file.write(csv_line(session.header))
            blocks = rows.blocks(session.block)
            while (block := next_block(rows, blocks, stop)) is not None:
                session.take(block, learn=False)
                file.write("".join(session.lines))
                session.lines = []
                file.flush()
                if stop():
                    raise Stopped(f"stopped after row {session.last_row:,}; nothing was changed in {path}")
            file.write(session.future())
        session.tell_rest()


def _require_free(out: str, source: str, folder: Path) -> None:
    """Refuse to write where there can be no file, over the one that is read, and into the run folder."""
    path = Path(out)
    if os.path.isdir(path) or not os.path.isdir(path.parent):
        raise OnwardError(
            f"--out {out}: " + ("it is a folder" if path.is_dir() else f"there is no folder {path.parent}")
        )
    if source != "-" and os.path.exists(path) and os.path.exists(source) and path.samefile(source):
        raise OnwardError(f"--out {out} is the source itself: name another file")
    if folder.resolve() in path.resolve().parents:
        raise OnwardError(f"--out {out} is in {folder}, which predictions leave as it is: name a file elsewhere")


def _written(out: str) -> TextIO:
    """A new file."""
    path = Path(out)
    try:
        return open(path, "w", encoding="utf-8", newline="")
    except OSError as error:
        raise OnwardError(f"cannot write {out}: {error.strerror or error}") from error
