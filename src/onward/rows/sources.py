"""Rows of a table from a file or a stream: CSV, JSON lines (each plain or gzip), Parquet and standard input.

Reading goes forward in blocks, keeps a bounded part of the table in memory, and knows after every block where the next
row begins, so that a stopped reading goes on exactly there. A row that cannot be used is left out and reported.
"""

import csv
import difflib
import gzip
import hashlib
import io
import json
import math
import os
import re
import sys
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from onward.errors import OnwardError

Cell = str | float | int | bool | None
MISSING = frozenset(("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-", "?"))
FORMS = {"csv": (".csv", ".tsv", ".txt"), "jsonl": (".jsonl", ".ndjson", ".json"), "parquet": (".parquet", ".pq")}
DELIMITERS = ",;\t|"
SHOWN = 5  # complaints of a kind
MAX_COLUMNS = 10_000
MAX_CELLS = 2**20  # of a block, where columns may grow in number
MAX_LINE = 2**24
MAX_RECORD = 2**20  # a record of several lines
_READ = 2**17  # larger blocks leave the processor's cache and are slower
_BATCH = 2048  # rows of Parquet unpacked at a time
_WORDS: dict[Any, float] = {None: math.nan} | dict.fromkeys(MISSING, math.nan)
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), 1.0) | dict.fromkeys(("false", "False", "FALSE"), 0.0)


class Rows(NamedTuple):
    """A block of rows. Data rows count from 1, those left out too; `position` is where the next row begins."""

    first: int
    numbers: Sequence[int]
    cells: dict[str, Sequence[Cell]]
    position: dict[str, Any]


# Cells


def is_missing(cell: Cell) -> bool:
    """Whether a cell stands for nothing: None, NaN, or empty or spelt as in `MISSING`."""
    return cell.strip() in MISSING if isinstance(cell, str) else cell is None or cell != cell


def numbers(cells: Sequence[Cell]) -> tuple[np.ndarray, list[int]]:
    """The cells as float64, NaN where one is missing; and where a cell is neither missing nor a finite number.

    >>> numbers(["1.5", "NA", "ten", "true", "inf"])
    (array([1.5, nan, nan, 1. , nan]), [2, 4])
    """
    values = None
    try:
        plain = "_" not in "".join(cells)  # type: ignore[arg-type]
    except TypeError:
        plain = str not in set(map(type, cells))
    if plain:
        values = _floats(cells)
        if values is None:
            values = _floats([_WORDS.get(cell, cell) for cell in cells])
    if values is None:
        found = [_number(cell) for cell in cells]
        values = np.array([math.nan if value is None else value for value in found], np.float64)
    bad = [i for i in np.flatnonzero(~np.isfinite(values)).tolist() if _number(cells[i]) is None]
    values[bad] = math.nan
    return values, bad


def _floats(cells: Sequence[Any]) -> np.ndarray | None:
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except (ValueError, TypeError, OverflowError):
        return None


def _number(cell: Cell) -> float | None:
    if is_missing(cell):
        return math.nan
    try:
        text = cell.strip().lower() if isinstance(cell, str) else ""
        value = _WORDS[text] if text in ("true", "false") else float(cell)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        return None
    return value if math.isfinite(value) and "_" not in text else None


# Complaints


class Complaints:
    """What is wrong with a source, told a line each: the first few of a kind, and a count at the end."""

    def __init__(self, name: str, tell: Callable[[str], None], strict: bool = False) -> None:
        self.name, self.strict = name, strict
        self.counts: Counter[str] = Counter()
        self._tell = tell

    def add(self, kind: str, text: str, *, row: int = 0, line: int = 0, column: str = "", bad: bool = True) -> None:
        """Tell of one more of a kind; an error where complaints are strict and this is `bad`, not just a note."""
        message = self.name + (f", row {row:,}" if row else "") + (f" (line {line:,})" if line else "")
        message += (f", column {column!r:.80}" if column else "") + f": {text}"
        if bad and self.strict:
            raise OnwardError(message)
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self._tell(message)

    def summary(self) -> None:
        """Count the kinds of which not all were told."""
        for kind, count in self.counts.items():
            if count > SHOWN:
                self._tell(f"{self.name}: {count:,} in all: {kind}")


class _Bad(Exception):
    """A row that cannot be used: its kind, what is wrong, and whether a lost end could explain it."""

    def __init__(self, kind: str, text: str, cut: bool = False) -> None:
        self.kind, self.text, self.cut = kind, text, cut


class _Wait(Exception):
    """The next row has not come, and there are rows to hand over first."""


# Sources


class Source(ABC):
    """A table that is read forward. `names` are the columns known so far; JSON lines may bring more."""

    form: str
    names: tuple[str, ...] = ()
    moves = True  # can go back to a position: a file, not a stream
    _head, _tail = 2**16, 2**12  # how much of the beginning, and before a position, a fingerprint covers

    def __init__(self, complaints: Complaints) -> None:
        self.complaints, self.name = complaints, complaints.name

    def blocks(self, limit: int) -> Iterator[Rows]:
        """The rows from here on, 1 to `limit` in a block; fewer where a piece of the file or stream ends.

        Of a stream, a block comes as soon as a row has.
        """
        if limit < 1:
            raise ValueError(f"a block of {limit} rows")
        while (rows := self._block(limit)) is not None:
            yield rows

    def fingerprint(self, position: dict[str, Any]) -> dict[str, Any]:
        """What `check` needs to know the source again at a position. Of a stream, only the columns."""
        found: dict[str, Any] = {"form": self.form, "names": list(self.names)}
        if self.moves:
            at = position["at"]
            spans = {"head": (0, min(self._head, at)), "tail": (max(0, at - self._tail), at)}
            found |= {part: hashlib.sha256(self._sample(*span)).hexdigest() for part, span in spans.items()}
        return found

    def check(self, fingerprint: dict[str, Any], position: dict[str, Any]) -> None:
        """An error unless this is the source of the fingerprint up to the position. It may have grown since."""
        before = fingerprint["names"]
        if self.form != "jsonl" and before != list(self.names):
            lost, new = [n for n in before if n not in self.names], [n for n in self.names if n not in before]
            parts = [
                f"{verb} {', '.join(map(repr, some[:5]))}" for verb, some in (("lacks", lost), ("adds", new)) if some
            ]
            said = " and ".join(parts) or "has them in another order"
            raise OnwardError(f"{self.name} has other columns than before: it {said}")
        if fingerprint["form"] != self.form:
            raise OnwardError(f"{self.name} is {self.form}, and what was read before was {fingerprint['form']}")
        if not self.moves:
            return
        if "head" not in fingerprint:
            raise OnwardError(f"a stream was read before, and its place cannot be found in {self.name}: start anew")
        now = self.fingerprint(position)
        if now["head"] != fingerprint["head"]:
            raise OnwardError(f"{self.name} is another file than the one read before, or was changed at its beginning")
        if now["tail"] != fingerprint["tail"]:
            raise OnwardError(f"{self.name} was changed before row {position['row'] + 1:,}, up to where it was read")

    @abstractmethod
    def resume(self, position: dict[str, Any]) -> None:
        """Go on from a position that a block gave. A stream goes on as it comes, with the numbering of before."""

    @abstractmethod
    def close(self) -> None:
        """Close the files; standard input stays open."""

    @abstractmethod
    def _block(self, limit: int) -> Rows | None: ...

    @abstractmethod
    def _sample(self, start: int, stop: int) -> bytes:
        """What lies between two places, in the unit of `position["at"]`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _reading(name: str, *more: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, *more) as error:
        advice = "it is damaged or cut short; get it again"
        if isinstance(error, PermissionError):
            advice = "you need permission to read it"
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise OnwardError(f"cannot read {name} ({reason}): {advice}") from error


class _Lines:
    """The lines of a file (a path) or of standard input, with their ends, whole and as soon as they come.

    `at` and `line` are how many bytes and lines were taken; `held` are lines to take, from `next` on.
    """

    def __init__(self, name: str, path: Path | None) -> None:
        self.name, self.path = name, path
        self.at = self.line = self.next = 0
        self.held: list[bytes] = []
        self.ends = True  # whether the line last taken had its end
        self._part, self._over, self._first = b"", False, b""
        self._probe: Any = None
        self._file = self._open()
        self.moves = path is not None and self._file.seekable()
        try:
            if not self.fill():
                raise OnwardError(f"{name} is empty")
            start = self.held[0]
            if self.path is None and start.startswith((b"\x1f\x8b", b"PAR1")):
                raise OnwardError(f"{name} brings packed data; it must be text: unpack it, or give a file")
            if start.startswith(b"\xef\xbb\xbf"):
                self.held[0], self.at = start[3:], 3
        except BaseException:
            self.close()
            raise

    def _open(self) -> Any:
        if self.path is None:
            return sys.stdin.buffer
        with _reading(self.name):
            if not self.path.is_file():  # a pipe
                return open(self.path, "rb")
            with open(self.path, "rb") as file:
                packed = file.read(2) == b"\x1f\x8b"
            if self.path.suffix == ".gz" and not packed:
                raise OnwardError(f"{self.name} is not gzip data; get it again, or rename it if it is not packed")
            return gzip.open(self.path) if packed else open(self.path, "rb")

    def fill(self) -> bool:
        """Hold the next lines, at least one; wait for it on a stream. False at the end."""
        pieces, size = [self._part], len(self._part)
        while not self._over:
            with _reading(self.name):
                piece = self._file.read(_READ) if self.moves else self._file.read1(_READ)
            pieces.append(piece)
            self._over = not piece
            if b"\n" in piece:
                break
            size += len(piece)
            if size > MAX_LINE:
                raise OnwardError(
                    f"{self.name}, line {self.line + 1:,}: no line end in {MAX_LINE // 2**20} MiB; is it a table?"
                )
        data = b"".join(pieces)
        cut = len(data) if self._over else data.rindex(b"\n") + 1
        self.held, self._part, self.next = io.BytesIO(data[:cut]).readlines(), data[cut:], 0
        return bool(self.held)

    def ready(self, hold: bool) -> bool:
        """Whether there is a line to take. To wait for one is refused where rows are held back meanwhile."""
        if self.next < len(self.held):
            return True
        if hold:
            raise _Wait
        return self.fill()

    def take(self) -> bytes:
        """The next line."""
        line = self.held[self.next]
        self.next += 1
        self.line += 1
        self.at += len(line)
        self.ends = line.endswith(b"\n")
        return line

    def skip(self, lines: Sequence[bytes]) -> None:
        """Leave the next lines behind, which are these."""
        self.next += len(lines)
        self.line += len(lines)
        self.at += sum(map(len, lines))

    def seek(self, at: int, line: int) -> None:
        """Go on from a byte. If the line before had no end when it was taken, it must still be as it was."""
        with _reading(self.name):
            self._file.seek(at)
        self.held, self.next, self._part, self._over = [], 0, b"", False
        self.at, self.line = at, line
        if at and self.sample(at - 1, at) != b"\n" and self.fill():
            if self.held[0].strip(b"\r\n"):
                raise OnwardError(
                    f"{self.name}, line {line:,}, was read while it was the last and without a line end, "
                    "and was written on since: start anew"
                )
            self.next, self.at = 1, at + len(self.held[0])

    def sample(self, start: int, stop: int) -> bytes:
        """The bytes between two places; the reading is not disturbed."""
        if start == 0 and len(self._first) >= stop:
            return self._first[:stop]
        with _reading(self.name):
            self._probe = self._probe or self._open()
            self._probe.seek(start)
            data: bytes = self._probe.read(stop - start)
        if len(data) < stop - start:
            raise OnwardError(f"{self.name} was cut short: it ends before byte {stop:,}, up to which it was read")
        if start == 0:
            self._first = data  # else gzip would unpack from the beginning again and again
        return data

    def close(self) -> None:
        """Close the file, not standard input."""
        if self.path is not None:
            self._file.close()
        if self._probe:
            self._probe.close()


class _Text(Source):
    """Rows in lines."""

    _careful = MAX_CELLS  # rows read one by one, where they cannot be read all at once, before that is tried again

    def __init__(self, lines: _Lines, complaints: Complaints) -> None:
        super().__init__(complaints)
        self._lines, self.moves, self._row, self._reach = lines, lines.moves, 0, MAX_CELLS

    @abstractmethod
    def _record(self, hold: bool) -> Any:
        """The next row; None for a blank line. EOFError at the end, `_Bad` and `_Wait` as they say."""

    @abstractmethod
    def _columns(self, rows: list[Any]) -> dict[str, Sequence[Cell]]: ...

    def _fast(self, lines: list[bytes]) -> dict[str, Sequence[Cell]] | None:
        """The cells of lines in each of which there is a row, all good; else None."""
        return None

    def _block(self, limit: int) -> Rows | None:
        lines, first = self._lines, self._row + 1
        if not lines.ready(False):
            return None
        ahead = lines.held[lines.next : lines.next + min(limit, self._reach)]
        cells = self._fast(ahead)
        if cells is not None:
            lines.skip(ahead)
            self._row += len(ahead)
            self._reach = min(2 * self._reach, MAX_CELLS)
            return Rows(first, range(first, self._row + 1), cells, self._position())
        self._reach = self._careful
        rows: list[Any] = []
        kept: list[int] = []
        while len(rows) < min(limit, self._careful) and len(rows) * len(self.names) < MAX_CELLS:
            before = lines.at, lines.line, lines.next
            number, line = self._row + 1, lines.line + 1
            try:
                row = self._record(bool(rows))
            except _Wait:
                lines.at, lines.line, lines.next = before
                break
            except EOFError:
                break
            except _Bad as bad:
                if bad.cut and not lines.ends:  # it may be whole when the file is read again: stay before it
                    lines.at, lines.line, _ = before
                    self.complaints.add("cut off", "cut off, without a line end; left out", row=number, line=line)
                else:
                    self._row = number
                    self.complaints.add(bad.kind, f"{bad.text}; left out", row=number, line=line)
                continue
            if row is None:
                continue
            self._row = number
            rows.append(row)
            kept.append(number)
            if not lines.ends:
                text = "the last line has no line end; taken as it is"
                self.complaints.add("no line end", text, row=number, line=line, bad=False)
        return Rows(first, kept, self._columns(rows), self._position()) if rows else None

    def _position(self) -> dict[str, Any]:
        return {"at": self._lines.at, "row": self._row, "line": self._lines.line}

    def resume(self, position: dict[str, Any]) -> None:
        self._row = position["row"]
        if self.moves:
            self._lines.seek(position["at"], position["line"])

    def _sample(self, start: int, stop: int) -> bytes:
        return self._lines.sample(start, stop)

    def close(self) -> None:
        self._lines.close()


class _Csv(_Text):
    """A header and rows of cells, some of them in quotes."""

    form = "csv"
    _careful = 64

    def __init__(
        self, lines: _Lines, complaints: Complaints, delimiter: str | None, names: Sequence[str] | None
    ) -> None:
        super().__init__(lines, complaints)
        csv.field_size_limit(max(csv.field_size_limit(), 2 * MAX_LINE))  # lines are bounded here
        while not lines.held[lines.next].strip():
            lines.take()
            if not lines.ready(False):
                raise OnwardError(f"{self.name} holds nothing but blank lines")
        delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter or "", delimiter)
        if delimiter and (len(delimiter) > 1 or delimiter in '"\r\n\0'):
            raise OnwardError(f"a delimiter is one character, not {delimiter!r}")
        self._delimiter = delimiter or self._sniff(len(names or ()) - 1)
        try:
            self.names = _checked(self.name, [name.strip() for name in names or self._cells(False)], names is None)
        except _Bad as bad:
            raise OnwardError(f"{self.name}: its header is {bad.text}; is it a CSV file, saved as UTF-8?") from None

    def _sniff(self, wanted: int) -> str:
        """Of , ; tab and | the commonest outside quotes in the first line, or one that occurs as often as wanted."""
        start = ""
        for line in self._lines.held[self._lines.next :]:
            start += line.decode(errors="replace")
            if start.count('"') % 2 == 0 or len(start) > MAX_RECORD:
                break
        seen = Counter(re.sub('"[^"]*("|$)', "", start))
        return max(DELIMITERS, key=lambda mark: (seen[mark] == wanted, seen[mark]))

    def _texts(self, hold: bool) -> Iterator[str]:
        """The lines that `csv.reader` asks for to complete one row."""
        size, line = 0, self._lines.line + 1
        while self._lines.ready(hold):
            raw = self._lines.take()
            size += len(raw)
            try:
                yield raw.decode()
            except UnicodeDecodeError:
                self._garbled = True
                yield raw.decode(errors="replace")
            if size > MAX_RECORD:
                break
        if size:
            where = "by the end" if size <= MAX_RECORD else f"within {MAX_RECORD // 2**20} MiB"
            raise OnwardError(
                f"{self.name}, {f'row {self._row + 1:,}' if self.names else 'header'} (line {line:,}): a quote opens "
                f"and does not close {where}; close it, or write a quote within quotes as two"
            )

    def _cells(self, hold: bool) -> list[str]:
        self._garbled = False
        try:
            cells = next(csv.reader(self._texts(hold), delimiter=self._delimiter, strict=True))
        except StopIteration:
            raise EOFError from None
        except csv.Error:
            raise _Bad("not CSV", "not CSV: a quote or a carriage return within a cell") from None
        if self._garbled:
            raise _Bad("not UTF-8", "not UTF-8", cut=True)
        return cells

    def _record(self, hold: bool) -> list[str] | None:
        cells, width = self._cells(hold), len(self.names)
        if len(cells) < 2 and not "".join(cells).strip():
            return None if width > 1 else cells or [""]
        if len(cells) != width:
            text = f"{len(cells):,} cell{'s' * (len(cells) != 1)} where the header has {width:,}"
            raise _Bad("too few or too many cells", text, cut=len(cells) < width)
        return cells

    def _fast(self, lines: list[bytes]) -> dict[str, Sequence[Cell]] | None:
        data, width = b"".join(lines), len(self.names)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return None
        if not text.endswith("\n"):
            return None
        if '"' in text:
            try:
                rows = list(csv.reader(text[:-1].split("\n"), delimiter=self._delimiter, strict=True))
            except csv.Error:
                return None
            return self._columns(rows) if len(rows) == len(lines) and set(map(len, rows)) == {width} else None
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        mark = self._delimiter.encode()
        if "\r" in text or {line.count(mark) for line in lines} != {width - 1}:
            return None
        cells = text.replace("\n", self._delimiter).split(self._delimiter)
        return {name: cells[i:-1:width] for i, name in enumerate(self.names)}

    def _columns(self, rows: list[list[str]]) -> dict[str, Sequence[Cell]]:
        return dict(zip(self.names, zip(*rows, strict=True), strict=True))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written."""


class _Json(_Text):
    """An object a line."""

    form = "jsonl"

    def __init__(self, lines: _Lines, complaints: Complaints) -> None:
        super().__init__(lines, complaints)
        self._decode = json.JSONDecoder(object_pairs_hook=_Pairs).decode
        self._known: set[str] = set()
        start = lines.held[0].strip()
        if start.startswith(b"[") or start == b"{":
            raise OnwardError(f"{self.name} is not JSON lines, an object a line: jq -c '.[]' makes them of a list")
        with suppress(_Bad):
            self._learn(self._object(start))

    def _learn(self, keys: Iterable[str]) -> None:
        new = [key for key in keys if key not in self._known]
        self.names += tuple(new)
        self._known.update(new)
        if len(self.names) > MAX_COLUMNS:
            raise OnwardError(f"{self.name}: more than {MAX_COLUMNS:,} different keys; are some of them data?")

    def _object(self, raw: bytes) -> dict[str, Any]:
        try:
            pairs = self._decode(raw.decode())
            if b"\\u" in raw:
                json.dumps(pairs, ensure_ascii=False).encode()  # half a character
        except UnicodeDecodeError:
            raise _Bad("not UTF-8", "not UTF-8", cut=True) from None
        except (ValueError, RecursionError):
            raise _Bad("not JSON", "not JSON", cut=True) from None
        if not isinstance(pairs, _Pairs):
            raise _Bad("not an object", "not a JSON object")
        row = dict(pairs)
        if len(row) < len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise _Bad("a key twice", f"the key {twice!r:.80} comes twice")
        return row

    def _record(self, hold: bool) -> dict[str, Cell] | None:
        if not self._lines.ready(hold):
            raise EOFError
        raw = self._lines.take()
        if not raw.strip():
            return None
        row = self._object(raw)
        if b"[" in raw or raw.count(b"{") > 1:
            for key in [key for key, value in row.items() if isinstance(value, list)]:
                row[key] = None
                text = "a list or an object; counts as missing"
                self.complaints.add("nested", text, row=self._row + 1, line=self._lines.line, column=key)
        self._learn(row)
        return row

    def _columns(self, rows: list[dict[str, Cell]]) -> dict[str, Sequence[Cell]]:
        return {name: [row.get(name) for row in rows] for name in self.names}

    def _position(self) -> dict[str, Any]:
        return super()._position() | {"names": list(self.names)}

    def resume(self, position: dict[str, Any]) -> None:
        super().resume(position)
        self.names, self._known = (), set()
        self._learn(position["names"])


class _Parquet(Source):
    """Columns of a file with a schema; places are rows."""

    form = "parquet"
    _head, _tail = 64, 64

    def __init__(self, path: Path, complaints: Complaints) -> None:
        super().__init__(complaints)
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise OnwardError(f'reading {path} needs pyarrow: pip install "onward[parquet]"') from error
        self._arrow, self._errors = pyarrow, (ValueError, pyarrow.ArrowException)
        with _reading(self.name, *self._errors):
            self._file = pyarrow.parquet.ParquetFile(path)
            schema = self._file.schema_arrow
        try:
            self.names = _checked(self.name, schema.names)
            for field in schema:
                if self._kept_as(field.type) is None:
                    text = f"{field.type} is not for a cell; counts as missing"
                    self.complaints.add("nested", text, column=field.name)
        except BaseException:
            self.close()
            raise
        self._cells: dict[str, Sequence[Cell]] = {}
        self._at = self._used = self._size = 0
        self._batches = self._unpacked(0)

    def _kept_as(self, kind: Any) -> Any:
        """The type that a column is cast to, to give cells; None if it cannot."""
        types = self._arrow.types
        if types.is_dictionary(kind):
            return self._kept_as(kind.value_type)
        if types.is_floating(kind) or types.is_decimal(kind):
            return self._arrow.float64()
        if types.is_date(kind) or types.is_time(kind) or types.is_timestamp(kind):
            return self._arrow.string()
        plain = (types.is_boolean, types.is_integer, types.is_string, types.is_large_string, types.is_null)
        return kind if any(one(kind) for one in plain) else None

    def _unpacked(self, at: int) -> Iterator[tuple[int, dict[str, Sequence[Cell]]]]:
        """Batches of rows from one on: how many, and the cells."""
        first = 0
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if first + rows <= at:
                first += rows
                continue
            batches = self._file.iter_batches(_BATCH, row_groups=[group])
            while True:
                with _reading(self.name, *self._errors):
                    batch = next(batches, None)
                    if batch is None:
                        break
                    first += batch.num_rows
                    batch = batch.slice(max(0, batch.num_rows - max(0, first - at)))
                    cells = {name: self._list(column) for name, column in zip(self.names, batch.columns, strict=True)}
                if batch.num_rows:
                    yield batch.num_rows, cells

    def _list(self, column: Any) -> list[Cell]:
        kind = self._kept_as(column.type)
        cells: list[Cell] = [None] * len(column) if kind is None else column.cast(kind, safe=False).to_pylist()
        return cells

    def _block(self, limit: int) -> Rows | None:
        if self._used == self._size:
            self._used, (self._size, self._cells) = 0, next(self._batches, (0, {}))
        first = self._at + 1
        start, stop = self._used, min(self._used + limit, self._size)
        if start == stop:
            return None
        self._used, self._at = stop, self._at + stop - start
        cells = {name: cells[start:stop] for name, cells in self._cells.items()}
        return Rows(first, range(first, self._at + 1), cells, {"at": self._at, "row": self._at})

    def resume(self, position: dict[str, Any]) -> None:
        self._at = position["at"]
        self._used = self._size = 0
        self._batches = self._unpacked(self._at)

    def _sample(self, start: int, stop: int) -> bytes:
        rows: list[Any] = []
        for _, cells in self._unpacked(start) if start < stop else ():
            rows += zip(*cells.values(), strict=True)
            if len(rows) >= stop - start:
                break
        if len(rows) < stop - start:
            raise OnwardError(f"{self.name} was cut short: it ends before row {stop:,}, up to which it was read")
        return repr(rows[: stop - start]).encode()

    def close(self) -> None:
        self._file.close()


# Opening


def _checked(source: str, names: Sequence[str], header: bool = False) -> tuple[str, ...]:
    """The names of columns, if they can be told apart."""
    values, bad = numbers(names)
    if header and not bad and np.isfinite(values).all():
        raise OnwardError(
            f"{source}: its first line holds only numbers ({', '.join(names[:3])} ...); a header is needed that names "
            "the columns: write one, or give the names"
        )
    for i, name in enumerate(names):
        if not name:
            raise OnwardError(f"{source}: column {i + 1} of {len(names)} has no name; name it in the header")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise OnwardError(f"{source}: several columns are named {', '.join(map(repr, twice[:5]))}; rename them")
    if not 0 < len(names) <= MAX_COLUMNS:
        raise OnwardError(f"{source} has {len(names):,} columns; 1 to {MAX_COLUMNS:,} are allowed")
    return tuple(names)


def _look(path: Path) -> None:
    """An error that helps unless this can be opened."""
    with _reading(str(path)):
        if path.is_dir():
            raise OnwardError(f"{path} is a folder; name a file, such as one of {', '.join(FORMS)}")
        if path.exists():
            return
        if not path.parent.is_dir():
            raise OnwardError(f"there is no {path}, nor a folder {path.parent}")
        close = difflib.get_close_matches(path.name, os.listdir(path.parent), 3)
    raise OnwardError(f"there is no {path}" + (f"; did you mean {' or '.join(close)}?" if close else ""))


def open_rows(
    source: str,
    *,
    form: str | None = None,
    delimiter: str | None = None,
    names: Sequence[str] | None = None,
    complain: Callable[[str], None],
    strict: bool = False,
) -> Source:
    """Open a file, or `-` for standard input, of which at least the first line is then read.

    The form, csv, jsonl or parquet, is known by the end of the name; otherwise, what begins with `{` is JSON lines and
    all else CSV. A CSV needs a header, unless `names` stand for one. Its delimiter, if not given, is that of comma,
    semicolon, tab and bar which occurs most often in the header outside quotes. Whatever is wrong with rows is told
    to `complain`, a line each; where `strict`, it is an error.
    """
    path = None if source == "-" else Path(source)
    complaints = Complaints(source if path else "standard input", complain, strict)
    if path:
        _look(path)
        end = Path(path.stem if path.suffix == ".gz" else path.name).suffix.lower()
        form = form or next((form for form, ends in FORMS.items() if end in ends), None)
    if form not in (None, *FORMS):
        raise OnwardError(f"there is no form {form!r}; there are {', '.join(FORMS)}")
    if form == "parquet":
        if not path or names:
            raise OnwardError("Parquet is read from a file, not from standard input, and names its columns")
        return _Parquet(path, complaints)
    lines = _Lines(complaints.name, path)
    try:
        if (form or ("jsonl" if lines.held[0].lstrip().startswith(b"{") else "csv")) == "csv":
            return _Csv(lines, complaints, delimiter, names or None)
        if names:
            raise OnwardError(f"{lines.name} is JSON lines, which name their columns; names are for a CSV without")
        return _Json(lines, complaints)
    except BaseException:
        lines.close()
        raise
