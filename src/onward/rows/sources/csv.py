"""CSV: a header, and rows of cells of which some are in quotes."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from onward.errors import OnwardError
from onward.rows.sources.cells import Cell, checked_names
from onward.rows.sources.complaints import Bad, Complaints
from onward.rows.sources.lines import MAX_LINE, Lines, TextSource
from onward.text import number

DELIMITERS = ",;\t|"
MAX_RECORD = 2**20  # bytes of a record of several lines
# Lines by which is judged where a table begins, and of those the most that may stand before it.
SNIFFED, MOST_PREAMBLE = 200, 60


class CsvSource(TextSource):
    """A header and rows of cells, some of them in quotes."""

    form = "csv"
    _careful = 64
    _passed = 0

    def __init__(
        self,
        lines: Lines,
        complaints: Complaints,
        delimiter: str | None,
        names: Sequence[str] | None,
        *,
        skip: int = 0,
        comment: str = "",
    ) -> None:
        super().__init__(lines, complaints)
        csv.field_size_limit(max(csv.field_size_limit(), 2 * MAX_LINE))  # lines are bounded here
        delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter or "", delimiter)
        if delimiter and (len(delimiter) > 1 or delimiter in '"\r\n\0'):
            raise OnwardError(f"a delimiter is one character, not {delimiter!r}")
        self._comment, self._spaced, self._header, self._header_line = comment.encode(), False, [""], b""
        for _ in range(skip):
            self._pass("there are fewer lines than are to be skipped")
        said = self._before_header(comment)
        self._delimiter = delimiter or said or self._sniff(len(names or ()) - 1)
        if names is None and not skip:
            self._pass_preamble(bool(delimiter or said))
        if names is None:
            self._header_line = self._lines.held[self._lines.next].strip()
            self._spaced = re.search(f'{re.escape(self._delimiter)} +"'.encode(), self._header_line) is not None
        try:
            header = [name.strip() for name in names or self._cells(False)]
        except Bad as bad:
            if b"\r" in self._header_line and len(self._lines.held) == 1:
                raise OnwardError(
                    f"{self.name}: its lines end with carriage returns alone; tr '\\r' '\\n' <FILE makes others"
                ) from None
            raise OnwardError(f"{self.name}: its header is {bad.text}; is it a CSV file?") from None
        if names is None:
            self._header = list(header)
            header = self._widened(header)
            header[0] = header[0].removeprefix("#").lstrip() if self._hash_header else header[0]
        self._width = len(header)
        self._named = {i: name for i, name in enumerate(header) if name}
        for i in sorted({*range(self._width)} - {*self._named}):
            complaints.add(
                "a column without a name",
                f"column {i + 1} of {self._width} has no name and is not read; name it in the header if it counts",
                bad=False,
            )
        self.names = checked_names(self.name, list(self._named.values()), names is None)

    def _pass(self, why: str) -> None:
        """Leave a line out."""
        if self._lines.ready(False):
            self._lines.take()
        if not self._lines.ready(False):
            raise OnwardError(f"{self.name}: {why}")

    def _before_header(self, comment: str) -> str:
        """Pass over blank lines, comments and a line that names the delimiter; that delimiter, or an empty text."""
        said, self._hash_header = "", False
        while True:
            line = self._lines.held[self._lines.next].strip()
            names = re.fullmatch(rb"sep=(.)", line, re.IGNORECASE)
            mark = self._comment or b"#"
            if names and not said:
                said = names[1].decode()
            elif re.match(rb'"?TOA5"?,', line):
                self._passed += 1
                text = "its first line describes a logger (TOA5) and is left out"
                self.complaints.add("a preamble", text, bad=False)
            elif line.startswith(mark) and not (not comment and self._is_header(said)):
                self._passed += 1
            elif line:
                return said
            self._pass("it holds nothing but blank lines" if not self._passed else "it holds nothing but comments")

    def _is_header(self, delimiter: str) -> bool:
        """Whether a line that begins with # names the columns of the line after it."""
        ahead = self._lines.held[self._lines.next : self._lines.next + 2]
        if len(ahead) < 2 or ahead[1].startswith(b"#"):
            return False
        mark = delimiter or self._sniff(-1)
        first, second = (line.decode(errors="replace").strip().split(mark) for line in ahead)
        numbers = [sum(number(cell) is not None for cell in cells) for cells in (first, second)]
        self._hash_header = len(first) == len(second) > 1 and numbers[0] == 0 < numbers[1]
        return self._hash_header

    def _widths(self, mark: str) -> list[int]:
        """How many cells the next lines have, by their delimiters outside quotes."""
        ahead = self._lines.held[self._lines.next : self._lines.next + SNIFFED]
        texts = (re.sub('"[^"]*("|$)', "", line.decode(errors="replace")) for line in ahead if line.strip())
        return [text.count(mark) + 1 for text in texts]

    def _pass_preamble(self, said: bool) -> None:
        """Pass over lines before the header that are no part of the table, where the lines after it say so."""
        marks = self._delimiter if said else DELIMITERS
        best: tuple[int, int, str] = (0, 0, "")
        for mark in marks:
            widths = self._widths(mark)
            (width, count), *_ = Counter(widths).most_common(1)
            if width > 1 and count >= 0.9 * (len(widths) - widths.index(width)) and count > 2:
                best = max(best, (count, widths.index(width), mark))
        count, at, mark = best
        # Only where the first line is narrower than the table: a header that lacks a name is `_widened`.
        if not mark or at == 0 or at > MOST_PREAMBLE or self._widths(mark)[0] >= self._widths(mark)[at] - 1:
            return
        first = self._lines.line + 1
        passed = 0
        while passed < at:
            passed += bool(self._lines.held[self._lines.next].strip())
            self._pass("it holds no table")
        while not self._lines.held[self._lines.next].strip():
            self._pass("it holds no table")
        self._delimiter = mark
        last = self._lines.line
        lines = f"line {first:,} is" if first == last else f"lines {first:,} to {last:,} are"
        self.complaints.add(
            "a preamble",
            f"{lines} narrower than the table and left out; its header is line {last + 1:,} (else: --skip)",
            bad=False,
        )

    def _widened(self, header: list[str]) -> list[str]:
        """The header, with an empty name where all rows have one cell more: an index before, or nothing at the end."""
        widths = self._widths(self._delimiter)
        if len(widths) < 2 or {*widths} != {len(header) + 1}:
            return header
        ahead = self._lines.held[self._lines.next : self._lines.next + SNIFFED]
        ends = all(line.rstrip(b"\r\n").endswith(self._delimiter.encode()) for line in ahead if line.strip())
        return [*header, ""] if ends else ["", *header]

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

    def _reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """The rows of lines; spaces before a quote are passed over where the header has some."""
        return csv.reader(lines, delimiter=self._delimiter, strict=True, skipinitialspace=self._spaced)

    def _cells(self, hold: bool) -> list[str]:
        self._garbled = False
        try:
            cells = _bare(next(self._reader(self._texts(hold))))
        except StopIteration:
            raise EOFError from None
        except csv.Error:
            raise Bad("not CSV", "not CSV: a quote or a carriage return within a cell") from None
        if self._garbled:
            raise self._foreign()
        return cells

    def _record(self, hold: bool) -> list[str] | None:
        if self._comment and self._lines.ready(hold) and self._lines.held[self._lines.next].startswith(self._comment):
            self._lines.take()
            return None
        cells, width = self._cells(hold), self._width
        if len(cells) < 2 and not "".join(cells).strip():
            return None if width > 1 else cells or [""]
        if len(cells) != width:
            text = f"{len(cells):,} cell{'s' * (len(cells) != 1)} where the header has {width:,}"
            raise Bad("too few or too many cells", text, cut=len(cells) < width)
        if cells[0].strip() == self._header[0] and [cell.strip() for cell in cells] == self._header:
            raise Bad("the header again", "the header again")
        return cells

    def _fast(self, lines: list[bytes]) -> dict[str, Sequence[Cell]] | None:
        data, width = b"".join(lines), self._width
        if self._header_line and self._header_line in data:
            return None
        if self._comment and (data.startswith(self._comment) or b"\n" + self._comment in data):
            return None
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return None
        if not text.endswith("\n"):
            return None
        if '"' in text or self._spaced:
            try:
                rows = list(self._reader(text[:-1].split("\n")))
                rows = list(map(_bare, rows)) if '="' in text else rows
            except csv.Error:
                return None
            return self._columns(rows) if len(rows) == len(lines) and set(map(len, rows)) == {width} else None
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        mark = self._delimiter.encode()
        if "\r" in text or {line.count(mark) for line in lines} != {width - 1}:
            return None
        cells = text.replace("\n", self._delimiter).split(self._delimiter)
        return {name: cells[i:-1:width] for i, name in self._named.items()}

    def _columns(self, rows: list[list[str]]) -> dict[str, Sequence[Cell]]:
        columns = list(zip(*rows, strict=True))
        return {name: columns[i] for i, name in self._named.items()}


def _bare(cells: list[str]) -> list[str]:
    """Cells without what keeps a spreadsheet from reading them as numbers: ="007"."""
    return [cell[2:-1] if cell.startswith('="') and cell.endswith('"') and len(cell) > 2 else cell for cell in cells]
