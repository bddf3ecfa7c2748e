"""The records of entities: so many in memory, all in a file, as they were at the last two checkpoints."""

import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from onward.errors import OnwardError
from onward.saving import Unreadable, Unwritable

# Records of a file that are converted at once.
CHUNK = 1024
_TABLE = """
CREATE TABLE IF NOT EXISTS states (
  name TEXT NOT NULL, generation INTEGER NOT NULL, record BLOB NOT NULL, crc INTEGER NOT NULL,
  PRIMARY KEY (name, generation)
)"""
_NAMES = "SELECT DISTINCT name FROM states"
_AS_OF = "SELECT record, crc FROM states WHERE name = ? AND generation <= ? ORDER BY generation DESC LIMIT 1"
_NEWEST = "SELECT record, crc FROM states WHERE name = ? ORDER BY generation DESC LIMIT 1"
_PUT = "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?)"
# Of what is no longer the newest, the newest is kept: what the checkpoint before is made of.
_DROP = """
DELETE FROM states WHERE name = ?1 AND generation < (
  SELECT max(generation) FROM states WHERE name = ?1 AND generation < ?2
)"""


class Entities:
    """Records by name. `records[i]`, for the places that `places` gives, are those in memory; write to them freely.

    Of more entities than `most` those that were not needed for longest are in the file alone. A `commit` is the only
    moment at which the file changes for good: whoever is killed finds it as of the last one, and `restore` can go back
    to the one before that.
    """

    def __init__(self, start: np.ndarray, most: int):
        self.most = most
        self.generation = 0
        self.begin(start)
        self._places: OrderedDict[str, int] = OrderedDict()
        self._unfiled: dict[str, None] = {}  # entities that the file has not
        self._dirty = np.zeros(0, bool)
        self._file: sqlite3.Connection | None = None
        self._path: Path | None = None
        self._filed = 0  # entities of the file

    def begin(self, start: np.ndarray) -> None:
        """Nothing is in memory; records of this kind are to come."""
        self.start = start.reshape(())
        self.records = np.zeros(0, start.dtype)

    @property
    def count(self) -> int:
        """All there are."""
        return self._filed + self._new

    @property
    def _new(self) -> int:
        return len(self._unfiled)

    # The file.

    @property
    def is_open(self) -> bool:
        """Whether there is a file."""
        return self._file is not None

    def open(self, path: Path) -> None:
        """From now on with a file: that of before, or a new one."""
        self.close()
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._filing():
            self._file = sqlite3.connect(self._path, isolation_level=None)
            self._file.execute("PRAGMA trusted_schema = OFF")
            self._file.execute(_TABLE)
            self._file.execute("BEGIN IMMEDIATE")
        self.forget()

    def read(self, paths: Sequence[Path], generation: int) -> None:
        """All records of some files as they were at this generation, into memory; the files stay as they are."""
        self.close()
        self.most, self.generation = 2**62, generation
        for self._path in paths:
            with self._filing(), closing(sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True)) as file:
                names = [row[0] for row in file.execute(_NAMES + " WHERE generation <= ?", (generation,))]
                self.places(names)
                for name in names:
                    found = file.execute(_AS_OF, (name, generation)).fetchone()
                    self.records[self._places[name]] = self._record(name, *found)

    def forget(self) -> None:
        """Nothing is in memory, and nothing was done since the last commit."""
        self._places.clear()
        self.records, self._dirty = self.records[:0], self._dirty[:0]
        self._unfiled.clear()
        self._filed = 0
        if self._file is not None:
            with self._filing():
                self._filed = self._file.execute("SELECT count(DISTINCT name) FROM states").fetchone()[0]

    def close(self) -> None:
        """What was not committed is gone."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def commit(self, generation: int) -> None:
        """Put all that changed into the file, as of this generation: a number above all before."""
        assert self._file is not None, "no file is open"
        names = [(name, place) for name, place in self._places.items() if self._dirty[place]]
        with self._filing():
            for name, place in names:
                self._put(name, self.records[place], generation)
            self._file.execute("COMMIT")
            self._file.execute("BEGIN IMMEDIATE")
        self._dirty[:] = False
        self.generation = generation

    def restore(self, generation: int) -> None:
        """As it was at this generation: the last that was committed, or the one before."""
        assert self._file is not None, "no file is open"
        with self._filing():
            self._file.execute("ROLLBACK")
            self._file.execute("BEGIN IMMEDIATE")
            self._file.execute("DELETE FROM states WHERE generation > ?", (generation,))
            self._file.execute("COMMIT")
            self._file.execute("BEGIN IMMEDIATE")
        self.generation = generation
        self.forget()

    def _put(self, name: str, record: np.ndarray, generation: int) -> None:
        assert self._file is not None
        data = record.tobytes()
        self._file.execute(_PUT, (name, generation, data, zlib.crc32(data)))
        self._file.execute(_DROP, (name, generation))
        if name in self._unfiled:
            del self._unfiled[name]
            self._filed += 1

    def _fetch(self, name: str) -> np.ndarray | None:
        """Of the file; None where it has no such entity."""
        if self._file is None or not self._filed:
            return None
        with self._filing():
            found = self._file.execute(_NEWEST, (name,)).fetchone()
        return None if found is None else self._record(name, found[0], found[1])

    def _record(self, name: str, data: Any, crc: Any) -> np.ndarray:
        dtype = self.records.dtype
        if not isinstance(data, bytes) or len(data) != dtype.itemsize or zlib.crc32(data) != crc:
            raise Unreadable(f"{self._path} is damaged: the record of {name!r:.80} is not what was written")
        record: np.ndarray = np.frombuffer(data, dtype)[0]
        return record

    @contextmanager
    def _filing(self) -> Iterator[None]:
        """What goes wrong with the file, in one line."""
        try:
            yield
        except sqlite3.OperationalError as error:
            assert self._path is not None
            raise Unwritable(self._path, OSError(0, str(error))) from error
        except sqlite3.DatabaseError as error:
            raise Unreadable(f"{self._path} is damaged: {error}") from error

    # Memory.

    def places(self, names: Sequence[str]) -> np.ndarray:
        """Where in `records` these different entities are, at most `most`; all are taken for changed from now on."""
        if len(names) > self.most:
            raise ValueError(f"{len(names)} entities at once, and {self.most} is the most")
        known = self._places
        missing = [name for name in names if name not in known]
        for name in names:
            if name in known:
                known.move_to_end(name)
        if missing:
            self._take_in(missing)
        out = np.fromiter((known[name] for name in names), np.int64, len(names))
        self._dirty[out] = True
        return out

    def as_it_is(self, name: str) -> np.ndarray:
        """The record of an entity, the start where there is none; nothing changes."""
        place = self._places.get(name)
        if place is not None:
            return self.records[place]
        found = self._fetch(name)
        return self.start if found is None else found

    def _take_in(self, names: Sequence[str]) -> None:
        new = []
        for name, place in zip(names, self._free(len(names)), strict=True):
            record = self._fetch(name)
            if record is None:
                self._unfiled[name] = None
                new.append(place)
            else:
                self.records[place] = record
            self._places[name] = place
        # As bytes: record by record, field by field, takes ten times as long.
        plain = self.records.view(np.uint8).reshape(len(self.records), -1)
        plain[new] = np.frombuffer(self.start.tobytes(), np.uint8)

    def _free(self, count: int) -> list[int]:
        """So many places: new ones, then those of the entities that were not needed for longest."""
        used, size = len(self._places), len(self.records)
        needed = used + count
        if needed > size and size < self.most:
            room = min(self.most, max(needed, 2 * size))
            records, dirty = np.empty(room, self.records.dtype), np.zeros(room, bool)
            records[:size], dirty[:size] = self.records, self._dirty
            self.records, self._dirty = records, dirty
        free = list(range(used, min(needed, len(self.records))))  # those in use are the first
        while len(free) < count:
            name, place = self._places.popitem(last=False)
            if self._dirty[place]:
                if self._file is None:
                    raise OnwardError("more entities than memory has room for, and no folder to keep them in")
                with self._filing():
                    self._put(name, self.records[place], self.generation + 1)
                self._dirty[place] = False
            free.append(place)
        return free

    def all(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every entity by name, in the order of their names, and its record; those of the file one by one."""
        mine = sorted(self._places)
        if self._file is None or self._filed + self._new == len(mine):
            yield from ((name, self.records[self._places[name]]) for name in mine)
            return
        with self._filing():
            names = [row[0] for row in self._file.execute(_NAMES)]
        for name in sorted({*names, *mine}):
            place = self._places.get(name)
            record = self._fetch(name) if place is None else self.records[place]
            assert record is not None
            yield name, record

    def change(self, start: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]) -> None:
        """Records of another type, those of the file too: `convert` makes some of the old kind some of the new."""
        held, old = self._places, self.records
        places = list(held.values())
        names = [name for name in self._names_filed() if name not in held]
        parts = [convert(old[places[i : i + CHUNK]]) for i in range(0, len(places), CHUNK)]
        for i in range(0, len(names), CHUNK):
            some = names[i : i + CHUNK]
            records = np.stack([record for name in some if (record := self._fetch(name)) is not None])
            for name, record in zip(some, convert(records), strict=True):
                with self._filing():
                    self._put(name, record, self.generation + 1)
        self.begin(start)
        self.records = np.repeat(self.start[None], len(old))
        for at, part in zip(range(0, len(places), CHUNK), parts, strict=True):
            self.records[places[at : at + CHUNK]] = part
        self._dirty[places] = True

    def _names_filed(self) -> list[str]:
        if self._file is None or not self._filed:
            return []
        with self._filing():
            return [row[0] for row in self._file.execute(_NAMES + " ORDER BY name")]
