"""Parquet and Arrow (Feather): columns of a file with a schema; places are rows. Needs pyarrow.

What lies in a struct has its path as a name, as in JSON lines: payload.temp.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from onward.errors import OnwardError, needs
from onward.rows.sources.base import Rows, Source
from onward.rows.sources.cells import Cell, checked_names
from onward.rows.sources.complaints import Complaints, reading

BATCH = 2048  # rows unpacked at a time
TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
INDEX = "the index of a pandas table, which has no name; read as a column: say --time or --ignore"


class ParquetSource(Source):
    """Columns of a file with a schema; places are rows."""

    form = "parquet"
    head, tail = 64, 64

    def __init__(self, path: Path, complaints: Complaints) -> None:
        super().__init__(complaints)
        try:
            import pyarrow
            import pyarrow.compute
            import pyarrow.parquet
        except ImportError as error:
            raise OnwardError(needs(f"reading {path}", "parquet")) from error
        self._arrow, self._errors = pyarrow, (ValueError, pyarrow.ArrowException)
        with reading(self.name, *self._errors):
            with open(path, "rb") as file:
                self._arrow_file = file.read(6) == b"ARROW1"
            if self._arrow_file:
                self._held = pyarrow.memory_map(str(path))
                self._file = pyarrow.ipc.open_file(self._held)
                schema = self._file.schema
            else:
                self._file = self._held = pyarrow.parquet.ParquetFile(path)
                schema = self._file.schema_arrow
        try:
            self._structs = self._has_structs(schema)
            schema = self._flat(schema.empty_table()).schema if self._structs else schema
            self.names = checked_names(self.name, schema.names)
            for field in schema:
                if self._kept_as(field.type) is None:
                    text = f"{field.type} is not for a cell; counts as missing"
                    self.complaints.add("nested", text, column=field.name)
                if re.fullmatch(r"__index_level_\d+__", field.name):
                    self.complaints.add("index", INDEX, column=field.name, bad=False)
        except BaseException:
            self.close()
            raise
        self._garbled: set[str] = set()  # columns of bytes that are no text
        self._cells: dict[str, Sequence[Cell]] = {}
        self._at = self._used = self._size = 0
        self._batches = self._unpacked(0)

    def _has_structs(self, schema: Any) -> bool:
        return any(self._arrow.types.is_struct(field.type) for field in schema)

    def _flat(self, table: Any) -> Any:
        """A table of which no column is a struct; names within one another are joined by a dot."""
        while self._has_structs(table.schema):
            table = table.flatten()
        return table

    def _kept_as(self, kind: Any) -> Any:
        """The type that a column is cast to, to give cells; None if it cannot."""
        arrow, types = self._arrow, self._arrow.types
        if isinstance(kind, arrow.BaseExtensionType):
            return self._kept_as(kind.storage_type)
        if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
            return self._kept_as(kind.value_type)
        if types.is_floating(kind) or types.is_decimal(kind) or types.is_duration(kind):
            return arrow.float64()
        if types.is_date(kind) or types.is_time(kind) or types.is_timestamp(kind) or types.is_string_view(kind):
            return arrow.string()
        if types.is_binary_view(kind) or types.is_fixed_size_binary(kind):
            return arrow.binary()
        plain = (types.is_boolean, types.is_integer, types.is_string, types.is_large_string, types.is_null)
        return kind if any(holds(kind) for holds in (*plain, types.is_binary, types.is_large_binary)) else None

    @property
    def rows(self) -> int:
        """How many there are."""
        if not self._arrow_file:
            return int(self._file.metadata.num_rows)
        return sum(rows for rows, _ in self._groups())

    def _groups(self) -> Iterator[tuple[int, Iterable[Any]]]:
        """Groups of rows, from the first on: how many rows, and these in batches."""
        if not self._arrow_file:
            for group in range(self._file.num_row_groups):
                yield self._file.metadata.row_group(group).num_rows, self._file.iter_batches(BATCH, row_groups=[group])
            return
        for group in range(self._file.num_record_batches):
            with reading(self.name, *self._errors):
                whole = self._file.get_batch(group)
            yield whole.num_rows, (whole.slice(at, BATCH) for at in range(0, whole.num_rows, BATCH))

    def _unpacked(self, at: int) -> Iterator[tuple[int, dict[str, Sequence[Cell]]]]:
        """Batches of rows from one on: how many, and the cells."""
        first = 0
        for rows, group in self._groups():
            if first + rows <= at:
                first += rows
                continue
            batches = iter(group)
            while True:
                with reading(self.name, *self._errors):
                    batch = next(batches, None)
                    if batch is None:
                        break
                    first += batch.num_rows
                    batch = batch.slice(max(0, batch.num_rows - max(0, first - at)))
                    columns = batch.columns
                    if self._structs:
                        flat = self._flat(self._arrow.Table.from_batches([batch]))
                        columns = [column.combine_chunks() for column in flat.columns]
                    cells = {name: self._list(name, column) for name, column in zip(self.names, columns, strict=True)}
                if batch.num_rows:
                    yield batch.num_rows, cells

    def _list(self, name: str, column: Any) -> list[Cell]:
        kind, types = self._kept_as(column.type), self._arrow.types
        if kind is None:
            return [None] * len(column)
        if isinstance(column.type, self._arrow.BaseExtensionType):
            column = column.storage
        if types.is_run_end_encoded(column.type):
            column = self._arrow.compute.run_end_decode(column)
        if types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if types.is_duration(column.type):
            ticks = TICKS[column.type.unit]
            return [None if span is None else span / ticks for span in column.cast(self._arrow.int64()).to_pylist()]
        cells: list[Any] = column.cast(kind, safe=False).to_pylist()
        if types.is_binary(kind) or types.is_large_binary(kind):
            return [cell if cell is None else self._text(name, cell) for cell in cells]
        return cells

    def _text(self, name: str, cell: bytes) -> str | None:
        try:
            return cell.decode()
        except UnicodeDecodeError:
            if name not in self._garbled:
                self._garbled.add(name)
                self.complaints.add("not UTF-8", "bytes that are not UTF-8; they count as missing", column=name)
            return None

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
        """Go on from a position; the numbering of rows goes on with it."""
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
        """Close the file; standard input stays open."""
        self._held.close()
