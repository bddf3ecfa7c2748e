"""Parquet: columns of a file with a schema; places are rows. Needs pyarrow."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from onward.errors import OnwardError
from onward.rows.sources.base import Rows, Source
from onward.rows.sources.cells import Cell, checked_names
from onward.rows.sources.complaints import Complaints, reading

BATCH = 2048  # rows unpacked at a time


class ParquetSource(Source):
    """Columns of a file with a schema; places are rows."""

    form = "parquet"
    head, tail = 64, 64

    def __init__(self, path: Path, complaints: Complaints) -> None:
        super().__init__(complaints)
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise OnwardError(f'reading {path} needs pyarrow: pip install "onward[parquet]"') from error
        self._arrow, self._errors = pyarrow, (ValueError, pyarrow.ArrowException)
        with reading(self.name, *self._errors):
            self._file = pyarrow.parquet.ParquetFile(path)
            schema = self._file.schema_arrow
        try:
            self.names = checked_names(self.name, schema.names)
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
        return kind if any(holds(kind) for holds in plain) else None

    def _unpacked(self, at: int) -> Iterator[tuple[int, dict[str, Sequence[Cell]]]]:
        """Batches of rows from one on: how many, and the cells."""
        first = 0
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if first + rows <= at:
                first += rows
                continue
            batches = self._file.iter_batches(BATCH, row_groups=[group])
            while True:
                with reading(self.name, *self._errors):
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
        self._file.close()
