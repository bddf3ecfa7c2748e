"""A folder of Parquet files, as engines write them: read file by file, by path; what a path says are columns, too."""

import itertools
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from onward.errors import OnwardError
from onward.rows.sources.base import Rows, Source
from onward.rows.sources.cells import Cell, checked_names
from onward.rows.sources.complaints import Complaints
from onward.rows.sources.parquet import ParquetSource

# How Hive writes a missing value into a path.
NONE = "__HIVE_DEFAULT_PARTITION__"


def parts_of(folder: Path) -> list[Path]:
    """Its Parquet files, by path; what begins with a dot or an underscore is none, as with the engines."""
    ends = (".parquet", ".pq")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in ends and path.is_file())
    shown = lambda path: not any(part[0] in "._" for part in path.relative_to(folder).parts)
    return sorted(path for path in found if shown(path))


class ParquetFolder(Source):
    """The files of a folder one after the other, by path, one open at a time; places are rows of all.

    A folder within it that is named `name=value` gives its rows a column (Hive's partitions). Files may have other
    columns than the first: what one lacks is missing in its rows.
    """

    form = "parquet"
    head, tail = ParquetSource.head, ParquetSource.tail

    def __init__(self, path: Path, complaints: Complaints) -> None:
        super().__init__(complaints)
        self._paths, self._complaints_of = parts_of(path), complaints
        self._keys = [_keys(each.relative_to(path)) for each in self._paths]
        self._rows: list[int] = []
        names: dict[str, None] = {}
        for part in range(len(self._paths)):
            source = self._opened(part)
            self._rows.append(source.rows)
            names |= dict.fromkeys((*source.names, *self._keys[part]))
            if both := {*source.names} & {*self._keys[part]}:
                source.close()
                raise OnwardError(
                    f"{self._paths[part]}: {min(both)!r} is a column of the file, and a folder above it names it too; "
                    "rename one of them"
                )
            source.close()
        self.names = checked_names(self.name, list(names))
        self._part, self._at = 0, 0
        self._open: ParquetSource | None = None

    def _opened(self, part: int) -> ParquetSource:
        complaints = self._complaints_of
        return ParquetSource(self._paths[part], complaints.of(str(self._paths[part])))

    def _block(self, limit: int) -> Rows | None:
        while self._part < len(self._paths):
            if self._open is None:
                self._open = self._opened(self._part)
            rows = next(self._open.blocks(limit), None)
            if rows is not None:
                return self._whole(rows, self._part)
            self._open.close()
            self._part, self._open = self._part + 1, None
        return None

    def _whole(self, rows: Rows, part: int) -> Rows:
        """Rows of a part as rows of all."""
        n = len(rows.numbers)
        first, self._at = self._at + 1, self._at + n
        keys: dict[str, Cell] = self._keys[part]
        none = [None] * n
        cells = {name: [keys[name]] * n if name in keys else rows.cells.get(name, none) for name in self.names}
        return Rows(first, range(first, self._at + 1), cells, {"at": self._at, "row": self._at})

    def _place(self, at: int) -> tuple[int, int]:
        """The part in which a row lies, and where."""
        before = 0
        for part, rows in enumerate(self._rows):
            if at < before + rows:
                return part, at - before
            before += rows
        return len(self._rows), at - before

    def resume(self, position: dict[str, Any]) -> None:
        """Go on from a position; the numbering of rows goes on with it."""
        self.close()
        self._at = position["at"]
        self._part, within = self._place(self._at)
        if self._part < len(self._paths):
            self._open = self._opened(self._part)
            self._open.resume({"at": within, "row": within})

    def _sample(self, start: int, stop: int) -> bytes:
        if start >= stop:
            return b"[]"
        if stop > sum(self._rows):
            raise OnwardError(f"{self.name} was cut short: it ends before row {stop:,}, up to which it was read")
        again = ParquetFolder.__new__(ParquetFolder)
        again.__dict__ = self.__dict__ | {"_open": None}
        again.resume({"at": start})
        rows: list[Any] = []
        for block in again.blocks(stop - start):
            rows += zip(*block.cells.values(), strict=True)
            if len(rows) >= stop - start:
                break
        again.close()
        return repr(list(itertools.islice(rows, stop - start))).encode()

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open.close()
            self._open = None


def _keys(path: Path) -> dict[str, Cell]:
    """What the folders above a file say."""
    said = (part.partition("=") for part in path.parts[:-1])
    return {unquote(name): None if value == NONE else unquote(value) for name, sign, value in said if sign and name}
