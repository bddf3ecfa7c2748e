"""CSV: a header, and rows of cells of which some are in quotes."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from onward.errors import OnwardError
from onward.rows.sources.cells import Cell, checked_names
from onward.rows.sources.complaints import Bad, Complaints
from onward.rows.sources.lines import MAX_LINE, Lines, TextSource

DELIMITERS = ",;\t|"
MAX_RECORD = 2**20  # bytes of a record of several lines


class CsvSource(TextSource):
    """A header and rows of cells, some of them in quotes."""

    form = "csv"
    _careful = 64

    def __init__(
        self, lines: Lines, complaints: Complaints, delimiter: str | None, names: Sequence[str] | None
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
            self.names = checked_names(self.name, [name.strip() for name in names or self._cells(False)], names is None)
        except Bad as bad:
            raise OnwardError(f"{self.name}: its header is {bad.text}; is it a CSV file?") from None

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
            raise Bad("not CSV", "not CSV: a quote or a carriage return within a cell") from None
        if self._garbled:
            raise self._foreign()
        return cells

    def _record(self, hold: bool) -> list[str] | None:
        cells, width = self._cells(hold), len(self.names)
        if len(cells) < 2 and not "".join(cells).strip():
            return None if width > 1 else cells or [""]
        if len(cells) != width:
            text = f"{len(cells):,} cell{'s' * (len(cells) != 1)} where the header has {width:,}"
            raise Bad("too few or too many cells", text, cut=len(cells) < width)
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
