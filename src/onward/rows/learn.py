"""`onward learn`: predict, score, then learn, at every row of a file or a stream; and survive a restart."""

import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from onward import saving
from onward.errors import OnwardError, Stopped
from onward.lab import folder as run_folder
from onward.lab.progress import Progress
from onward.rows.options import Learn
from onward.rows.session import CONTESTANTS, DIGITS, JOB, Session, quoted
from onward.rows.sources import Source, open_rows
from onward.rows.stream import BLOCK, ONE

CONFIG, SUMMARY = "config.json", "summary.json"
PREDICTIONS, METRICS = "predictions.csv", "metrics.jsonl"
# Options that may change from one call to the next.
FREE = ("every", "checkpoint_seconds", "strict", "form", "delimiter")


class Files:
    """predictions.csv and metrics.jsonl of a run folder, appended to; cut back to a checkpoint on resume."""

    def __init__(self, folder: Path, header: Sequence[str], written: dict[str, int] | None):
        self.folder = folder
        if written is not None:
            for name, size in self.sizes().items():
                if size < written[name]:
                    raise OnwardError(
                        f"{folder / name} has {size:,} bytes and had {written[name]:,}: it was changed since. "
                        "Put it back, or start anew"
                    )
            for name in (PREDICTIONS, METRICS):
                if written[name]:
                    os.truncate(folder / name, written[name])
                else:
                    (folder / name).unlink(missing_ok=True)
        else:
            for name in (PREDICTIONS, METRICS):
                (folder / name).unlink(missing_ok=True)
            self.append(PREDICTIONS, ",".join(quoted(name) for name in header) + "\n")

    def append(self, name: str, text: str) -> None:
        """Add to a file."""
        if not text:
            return
        path = self.folder / name
        try:
            with open(path, "a", encoding="utf-8", newline="") as file:
                file.write(text)
        except OSError as error:
            raise OnwardError(
                f"cannot write {path}: {error.strerror or error}; what was learned up to the last checkpoint is kept. "
                "Make room, then go on with --resume"
            ) from error

    def secure(self) -> None:
        """Have the disk hold what was added, as it will the checkpoint that counts on it."""
        for name in (PREDICTIONS, METRICS):
            with suppress(OSError), open(self.folder / name, "rb") as file:
                os.fsync(file.fileno())

    def sizes(self) -> dict[str, int]:
        """Bytes of each."""
        paths = {name: self.folder / name for name in (PREDICTIONS, METRICS)}
        return {name: path.stat().st_size if path.exists() else 0 for name, path in paths.items()}


@contextmanager
def _stopping(waiting: list[bool]) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask for a stop after the block; at once while `waiting` for a line of a stream."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked or waiting[0]:
            raise KeyboardInterrupt
        asked = True

    before: dict[Any, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    except ValueError:  # not in the main thread: somebody else handles signals
        pass
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Run:
    """One call of `onward learn`: rows in, files out."""

    def __init__(self, options: Learn, source: str, folder: Path, *, resume: bool, replace: bool):
        self.options, self.source, self.folder, self.resume, self.replace = options, source, folder, resume, replace
        self.stream = source == "-"
        self.progress = Progress()
        self.position: Any = None
        self.saved = time.monotonic()
        self.waiting = [False]
        self.whole = True  # whether the session stands between two blocks, all written

    def say(self, text: str) -> None:
        """To the person; standard output is for predictions."""
        self.progress.say(text)

    def go(self) -> None:
        """Learn to the end of the source, or until somebody stops it."""
        self.session = Session(self.options, "", self.say, block=ONE if self.stream else BLOCK)
        with (
            open_source(self.options, self.source, self._complain) as rows,
            self.progress,
            _stopping(self.waiting) as stop,
        ):
            self.rows, self.session.name = rows, rows.name
            self.session.choose(rows.names, whole=rows.form != "jsonl")
            prepare(self.options, self.source, self.folder, resume=self.resume, replace=self.replace)
            with run_folder.alone(self.folder):
                try:
                    self._go(stop)
                except OnwardError:
                    if not run_folder.newest_first(self.folder / "checkpoints", JOB) and not self.resume:
                        for name in (CONFIG, PREDICTIONS, METRICS):  # nothing was learned: the folder is free again
                            (self.folder / name).unlink(missing_ok=True)
                    raise

    def _go(self, stop: Callable[[], bool]) -> None:
        meta = self._restore() if self.resume else None
        self.files = Files(self.folder, self.session.header, None if meta is None else meta["written"])
        try:
            if self.stream:
                self._tell(",".join(map(quoted, self._stream_header())) + "\n")
            self._rows(stop)
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
        self._end()

    def _complain(self, text: str) -> None:
        self.session.complain(text)

    def _how_to_go_on(self) -> str:
        kept = run_folder.newest_first(self.folder / "checkpoints", JOB)
        if not kept:
            return " before anything was learned"
        row = saving.read_meta(kept[0])["last_row"]
        again = f"onward learn {self.source} --resume {self.folder}"
        return f"; what was learned up to row {row:,} is kept, go on with: {again}"

    def _restore(self) -> dict[str, Any] | None:
        for path in run_folder.newest_first(self.folder / "checkpoints", JOB):
            try:
                meta = self.session.load(path)
            except saving.Unreadable as error:
                self.say(f"{error}; trying the one before")
                continue
            self.rows.check(meta["fingerprint"], meta["position"])
            self.rows.resume(meta["position"])
            self.position = meta["position"]
            self.say(f"{self.rows.name}: going on after row {meta['last_row']:,}")
            return meta
        self.say(f"{self.folder} has no checkpoint yet: starting with the first row")
        return None

    def _rows(self, stop: Callable[[], bool]) -> None:
        session, started, first = self.session, time.monotonic(), self.session.rows
        blocks = self.rows.blocks(session.block)
        while True:
            self.waiting[0] = not self.rows.moves
            block = next(blocks, None)
            self.waiting[0] = False
            if block is None:
                return
            self.whole = False
            session.take(block)
            self.position = block.position
            self.files.append(PREDICTIONS, "".join(session.lines))
            self.files.append(METRICS, "".join(line + "\n" for line in session.metrics))
            session.lines, session.metrics = [], []
            self.whole = True
            if self.stream:
                self._tell(self._answer())
            if stop():
                raise KeyboardInterrupt
            if time.monotonic() - self.saved >= self.options.checkpoint_seconds:
                self._keep()
            rate = (session.rows - first) / max(time.monotonic() - started, 1e-9)
            self._show(rate)

    def _show(self, rate: float) -> None:
        session, total = self.session, rows_expected(self.source, self.rows, self.position, self.session.rows)
        shares = session.scores.total[..., 1].sum(1) / np.maximum(session.scores.total[..., 0].sum(1), 1)
        best = int(np.argmin(shares[1:])) + 1
        note = f"  {CONTESTANTS[best]} {shares[best]:.4g}"
        self.progress.show(
            JOB, session.rows, total, rate=rate, metric="error", value=float(shares[0]), note=note, unit="rows"
        )

    def _keep(self) -> None:
        """A checkpoint; none in the middle of a block."""
        if self.whole and self.session.learner is not None and self.position is not None:
            self.files.secure()
            self.session.save(
                self.folder / "checkpoints", self.position, self.rows.fingerprint(self.position), self.files.sizes()
            )
        self.saved = time.monotonic()

    def _tell(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _stream_header(self) -> list[str]:
        ahead = "of_row" if self.options.task != "return" else "from_row"
        extra = {0: [], 1: ["probability"], 2: ["low", "high"]}[self.session.extras]
        if len(self.options.target) == 1:
            return [ahead, "prediction", *extra]
        return [ahead, *(f"{name} prediction" for name in self.options.target)]

    def _answer(self) -> str:
        """What was said of the newest rows, one line each."""
        said, session = self.session.answered, self.session
        ahead = 0 if self.options.task == "return" else self.options.lag
        names = list(session.targets.classes)
        lines = []
        for i, row in enumerate(said.rows):
            if self.options.task == "classification":
                cells = [quoted(names[int(said.said[i, 0])]) if names else ""]
            else:
                cells = [DIGITS % v for v in said.said[i].tolist()]
            cells += [DIGITS % v for v in said.extra[i].tolist()]
            lines.append(",".join([str(row + ahead), *cells]) + "\n")
        return "".join(lines)

    def _end(self) -> None:
        """The source has ended: the last checkpoint, then what is written once."""
        session, options = self.session, self.options
        self.rows.complaints.summary()
        if session.learner is None:
            raise OnwardError(f"{self.rows.name} has a header and no rows: there is nothing to learn")
        if not session.scores.total[..., 0].any():
            if self.stream:
                self._keep()
            if session.rows <= options.lag:
                raise OnwardError(
                    f"{self.rows.name} has {session.rows:,} rows: no target is known {options.lag:,} rows ahead. "
                    "Choose a smaller --horizon (or --discount), or bring more rows"
                )
            if options.task == "return":
                raise OnwardError(
                    f"{self.rows.name}: no {options.lag:,} rows on end have all values of column "
                    f"{options.target[0]!r}: no return is known. Choose a smaller --discount, or fill the gaps"
                )
            known = "all" if session.first_target is None else "nearly all"
            raise OnwardError(
                f"{self.rows.name}: column {options.target[0]!r} is missing in {known} of {session.rows:,} rows: "
                "no prediction could be scored"
            )
        self._keep()
        self.files.append(PREDICTIONS, session.future())
        saving.write_json(self.folder / SUMMARY, summary(session))


def rows_expected(source: str, rows: Source, position: Any, done: int) -> int:
    """About how many rows there are; 0 where nobody can know."""
    if rows.form == "parquet" or not rows.moves or source.endswith(".gz"):
        return 0
    return max(done, round(done * Path(source).stat().st_size / max(position["at"], 1)))


def open_source(options: Learn, source: str, say: Callable[[str], None]) -> Source:
    """The rows of a source, as the options say."""
    form = None if options.form == "auto" else options.form
    delimiter = {"tab": "\t", "\\t": "\t"}.get(options.delimiter, options.delimiter) or None
    return open_rows(source, form=form, delimiter=delimiter, complain=say, strict=options.strict)


def summary(session: Session) -> dict[str, Any]:
    """Everything that a report says, but for its figures."""
    scores, options = session.scores, session.options
    counts = np.maximum(scores.total[..., 0], 1)
    found: dict[str, Any] = {
        "source": session.name,
        "task": options.task,
        "rows": session.rows,
        "scored": int(scores.total[0, :, 0].sum()),
        "targets": list(options.target),
        "contestants": list(CONTESTANTS),
        "mean absolute error": (scores.total[..., 1] / counts).tolist(),
        "root mean square error": np.sqrt(scores.total[..., 2] / counts).tolist(),
        "period": session.baselines.period,
        "columns read": len({*session.encoder.slots, *session.encoder.vocabulary} - {*session.seasonal}),
        "inputs": session.encoder.used,
        "constant": session.constant,
        "cpu_seconds": session.cpu,
        "notes": session.notes,
    }
    if session.extras:
        rows, inside, size = scores.extra
        found["interval"] = {"rows": rows, "inside": inside / max(rows, 1), "size": size / max(rows, 1)}
    return found


def learn(options: Learn, source: str, folder: Path, *, resume: bool = False, replace: bool = False) -> None:
    """Learn from a source into a run folder; `onward.rows.report.write_report` then draws it.

    Standard input (`-`) is taken row by row, and each row is answered on standard output at once.
    """
    options.check()
    if not resume:
        vacant(folder, replace=replace)
    _Run(options, source, folder, resume=resume, replace=replace).go()


def as_lines(folder: Path) -> list[str]:
    """The scores of a run folder for a terminal, best first."""
    found = json.loads((folder / SUMMARY).read_text())
    errors = np.mean(found["mean absolute error"], 1)
    what = "error rate" if "class" in found.get("task", "") else "mean absolute error"
    order = np.argsort(errors, kind="stable")
    return [f"{found['contestants'][j]:12} {what} {errors[j]:.5g}" for j in order]


def same_options(folder: Path, asked: Learn) -> Learn:
    """What was asked for in place of the options of a run folder, if going on with it is possible."""
    before, _ = load_options(folder)
    for field in dataclasses.fields(Learn):
        old, new = getattr(before, field.name), getattr(asked, field.name)
        if new != old and field.name not in FREE:
            told = [" ".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in (old, new)]
            raise OnwardError(
                f"{folder} was learned with --{field.name.replace('_', '-')} {told[0] or 'unset'}, not {told[1]}: "
                "leave the option out, or start a new run"
            )
    return asked


def vacant(folder: Path, *, replace: bool) -> None:
    """Refuse a folder that holds something which is not to be replaced."""
    if folder.exists() and not folder.is_dir():
        raise OnwardError(f"{folder} is a file; --out names a folder")
    if not folder.exists() or not any(path.name != "checkpoints" or any(path.iterdir()) for path in folder.iterdir()):
        return
    if not replace:
        raise OnwardError(
            f"{folder} holds a run already: go on with --resume {folder}, delete it with --replace, "
            "or choose another --out"
        )
    if not (folder / CONFIG).exists():
        raise OnwardError(f"{folder} does not look like a run of onward; it is not deleted. Choose another --out")


def prepare(options: Learn, source: str, folder: Path, *, resume: bool, replace: bool) -> None:
    """The run folder, with its configuration."""
    if resume:
        return
    vacant(folder, replace=replace)
    if replace and folder.exists():
        with run_folder.alone(folder):
            shutil.rmtree(folder)
    config = {"command": "learn", "source": source, "options": dataclasses.asdict(options)}
    saving.write_json(folder / CONFIG, config)


def load_options(folder: Path) -> tuple[Learn, str]:
    """The options and the source of a run folder."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
        fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in config["options"].items()}
        return Learn(**fields), config["source"]
    except FileNotFoundError:
        raise OnwardError(f"{folder} is not a folder that onward learn wrote: it has no {CONFIG}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OnwardError(
            f"{path} is not the configuration of onward learn, or of another version ({error})"
        ) from error


def predict(folder: Path, source: str, out: str | None, say: Callable[[str], None]) -> None:
    """Predict the rows of a source with what a run folder has learned, and learn nothing.

    The recurrent state goes on from where learning ended, as if the rows came next. Lines as in predictions.csv, to
    `out` or to standard output.
    """
    options, _ = load_options(folder)
    stream = source == "-"
    with open_source(options, source, say) as rows:
        session = Session(options, rows.name, say, block=ONE if stream else BLOCK)
        for path in run_folder.newest_first(folder / "checkpoints", JOB):
            try:
                session.load(path)
                break
            except saving.Unreadable as error:
                say(f"{error}; trying the one before")
        else:
            raise OnwardError(f"{folder} has no checkpoint: nothing was learned there yet")
        session.name, session.notes = rows.name, []
        if rows.form != "jsonl":
            session.look(rows.names)
        session.forget_waiting()
        with _written(out, source) if out else _stdout() as file:
            file.write(",".join(map(quoted, session.header)) + "\n")
            for block in rows.blocks(session.block):
                session.take(block, learn=False)
                file.write("".join(session.lines))
                session.lines = []
                file.flush()
            file.write(session.future())
        rows.complaints.summary()


@contextmanager
def _written(out: str, source: str) -> Iterator[Any]:
    """A new file; not the one that is read."""
    path = Path(out)
    if source != "-" and path.exists() and path.samefile(source):
        raise OnwardError(f"--out {out} is the source itself: name another file")
    try:
        file = open(path, "w", encoding="utf-8", newline="")  # noqa: SIM115
    except OSError as error:
        raise OnwardError(f"cannot write {out}: {error.strerror or error}") from error
    with file:
        yield file


@contextmanager
def _stdout() -> Iterator[Any]:
    yield sys.stdout
