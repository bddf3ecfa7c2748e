"""What was accepted, before it is acknowledged: requests, a line each, on the disk."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from onward.saving import Unreadable, Unwritable

Row = dict[str, Any]


class Request(NamedTuple):
    """Rows that came together, and the key by which their sender would know them again; "": none."""

    key: str
    rows: list[Row]


class Place(NamedTuple):
    """Where the next request lies: in which file, and from which byte on."""

    part: int
    at: int


class Journal:
    """Files of requests in a folder, numbered from 1 on: the last is appended to, others wait for a checkpoint.

    What `append` has returned from outlives the process and a power cut. A line that was cut off was never
    acknowledged, and is taken away.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        parts = self._parts()
        self.part = parts[-1] if parts else 1
        path = self._path(self.part)
        if path.exists():
            data = path.read_bytes()
            if whole := data.rfind(b"\n") + 1 - len(data):
                os.truncate(path, len(data) + whole)
        self._file = self._opened()

    def _parts(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("????????.jsonl"))

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:08d}.jsonl"

    def _opened(self) -> Any:
        try:
            return open(self._path(self.part), "ab", buffering=0)
        except OSError as error:
            raise Unwritable(self._path(self.part), error) from error

    @property
    def place(self) -> Place:
        """Behind all that was appended."""
        return Place(self.part, self._file.tell())

    def append(self, requests: Sequence[Request]) -> None:
        """Requests, all of them or, where there is no room, none: `Unwritable`."""
        lines = (json.dumps([each.key, each.rows], ensure_ascii=False, separators=(",", ":")) for each in requests)
        data, before = "".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass"), self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self.cut(Place(self.part, before))
            raise Unwritable(self._path(self.part), error) from error

    def cut(self, place: Place) -> None:
        """As if nothing had been appended from a place on; it lies in the file that is appended to."""
        self._file.truncate(place.at)
        self._file.seek(place.at)

    def turn(self) -> None:
        """Begin a new file, so that the present one can be deleted in time."""
        if self._file.tell():
            self._file.close()
            self.part += 1
            self._file = self._opened()

    def forget(self, before: Place) -> None:
        """Delete the files that lie before a place altogether."""
        for part in self._parts():
            if part < min(before.part, self.part):
                self._path(part).unlink(missing_ok=True)

    def read(self, place: Place) -> Iterator[Request]:
        """The requests from a place on."""
        parts = self._parts()
        if place.part not in parts and place.part <= self.part and place.at:
            raise Unreadable(f"{self._path(place.part)} is missing: requests from there on were to be learned")
        for part in parts:
            if part < place.part:
                continue
            path = self._path(part)
            with open(path, "rb") as file:
                file.seek(place.at if part == place.part else 0)
                for i, line in enumerate(file, 1):
                    yield _request(line, f"{path}, line {i} of what is left")

    def close(self) -> None:
        """No more is appended."""
        self._file.close()


def _request(line: bytes, what: str) -> Request:
    try:
        key, rows = json.loads(line.decode("utf-8", "surrogatepass"))
        good = isinstance(key, str) and isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    except (ValueError, RecursionError, TypeError) as error:
        raise Unreadable(f"{what}: it is damaged ({error})") from error
    if not good:
        raise Unreadable(f"{what}: it is damaged (no request)")
    return Request(key, rows)
