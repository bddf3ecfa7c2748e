"""Lines of a file or of standard input, and tables whose rows are lines."""

import io
import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onward.errors import OnwardError
from onward.rows.sources.base import Rows, Source
from onward.rows.sources.cells import Cell
from onward.rows.sources.complaints import Bad, Complaints, reading
from onward.rows.sources.encodings import UTF8, Recoded, encoding_of
from onward.rows.sources.magic import ERRORS, HEAD, packed_as, refuse_foreign, unpacked

MAX_CELLS = 2**20  # of a block, where columns may grow in number
MAX_LINE = 2**24
PIECE = 2**17  # bytes read at a time; larger pieces leave the processor's cache and are slower


class Wait(Exception):
    """The next row has not come, and there are rows to hand over first."""


class Lines:
    """The lines of a file (a path) or of standard input, with their ends, whole and as soon as they come.

    They are unpacked, and UTF-8 whatever their `encoding` was ("" as given: by the first bytes). `at` and `line` are
    how many of these bytes and lines were taken; `held` are lines to take, from `next` on.
    """

    def __init__(self, name: str, path: Path | None, encoding: str = "") -> None:
        self.name, self.path, self.encoding = name, path, encoding
        self._errors: tuple[type[Exception], ...] = ()  # of unpacking
        self.packed = False  # whether places are other than those of the file itself
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
            if start.startswith(b"\xef\xbb\xbf"):
                self.held[0], self.at = start[3:], 3
        except BaseException:
            self.close()
            raise

    def _open(self) -> Any:
        """The source, where it begins; what is no text is refused."""
        file: Any = sys.stdin.buffer
        with reading(self.name, *ERRORS):
            if self.path is not None:
                file, self._errors, packed = unpacked(self.path)
                self.packed = packed is not None
        try:
            with reading(self.name, *self._errors):
                start = _start(file)
            if how := packed_as(start):
                raise OnwardError(
                    f"{self.name} brings data packed by {how}; it must be text: unpack it, or give a file"
                )
            refuse_foreign(self.name, start)
            self.encoding = encoding_of(self.name, self.encoding, start)
        except BaseException:
            if self.path is not None:
                file.close()
            raise
        if self.encoding == UTF8:
            return file
        self.packed = True
        return Recoded(file, self.encoding)

    def fill(self) -> bool:
        """Hold the next lines, at least one; wait for it on a stream. False at the end."""
        pieces, size = [self._part], len(self._part)
        while not self._over:
            with reading(self.name, *self._errors):
                piece = self._file.read(PIECE) if self.moves else self._file.read1(PIECE)
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
            raise Wait
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
        with reading(self.name, *self._errors):
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
        with reading(self.name, *self._errors):
            self._probe = self._probe or self._open()
            self._probe.seek(start)
            data: bytes = self._probe.read(stop - start)
        if len(data) < stop - start:
            raise OnwardError(f"{self.name} was cut short: it ends before byte {stop:,}, up to which it was read")
        if start == 0:
            self._first = data  # else what is packed would be unpacked from the beginning again and again
        return data

    def close(self) -> None:
        """Close the file, not standard input."""
        if self.path is not None:
            self._file.close()
        if self._probe:
            self._probe.close()


def _start(file: Any) -> bytes:
    """The first bytes, which stay to be read."""
    if not hasattr(file, "peek") or file.seekable():
        start: bytes = file.read(HEAD)
        file.seek(0)
        return start
    peeked: bytes = file.peek(HEAD)
    return peeked[:HEAD]


class TextSource(Source):
    """Rows in lines."""

    _careful = MAX_CELLS  # rows read one by one, where they cannot be read all at once, before that is tried again

    def __init__(self, lines: Lines, complaints: Complaints) -> None:
        super().__init__(complaints)
        self._lines, self.moves, self._row, self._reach = lines, lines.moves, 0, MAX_CELLS
        self.packed = lines.packed

    @abstractmethod
    def _record(self, hold: bool) -> Any:
        """The next row; None for a blank line. EOFError at the end, `Bad` and `Wait` as they say."""

    @abstractmethod
    def _columns(self, rows: list[Any]) -> dict[str, Sequence[Cell]]: ...

    def _foreign(self) -> Bad:
        """A line with bytes that the encoding has not."""
        kind = f"not {self._lines.encoding}"
        advice = "try --encoding cp1252 or latin-1" if self._lines.encoding == UTF8 else "is --encoding right?"
        return Bad(kind, f"{kind} ({advice})", cut=True)

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
            except Wait:
                lines.at, lines.line, lines.next = before
                break
            except EOFError:
                break
            except Bad as bad:
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
        if not self.moves:  # where it came in this stream says nothing of the next one
            return {"at": 0, "row": self._row}
        return {"at": self._lines.at, "row": self._row, "line": self._lines.line}

    def resume(self, position: dict[str, Any]) -> None:
        """Go on from a position; the numbering of rows goes on with it."""
        self._row = position["row"]
        if self.moves:
            self._lines.seek(position["at"], position["line"])

    def _sample(self, start: int, stop: int) -> bytes:
        return self._lines.sample(start, stop)

    def close(self) -> None:
        """Close the file; standard input stays open."""
        self._lines.close()
