"""A table that is read forward, whatever its form."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

from onward.errors import OnwardError
from onward.rows.sources.cells import Cell
from onward.rows.sources.complaints import Complaints


class Rows(NamedTuple):
    """A block of rows. Data rows count from 1, those left out too; `position` is where the next row begins."""

    first: int
    numbers: Sequence[int]
    cells: dict[str, Sequence[Cell]]
    position: dict[str, Any]


class Source(ABC):
    """A table that is read forward. `names` are the columns known so far; JSON lines may bring more."""

    form: str
    names: tuple[str, ...] = ()
    moves = True  # can go back to a position: a file, not a stream
    packed = False  # whether places are other than those of the file: it is unpacked, or of another encoding
    head, tail = 2**16, 2**12  # how much of the beginning, and before a position, a fingerprint covers

    def __init__(self, complaints: Complaints) -> None:
        self.complaints, self.name = complaints, complaints.name

    def blocks(self, limit: int) -> Iterator[Rows]:
        """The rows from here on, 1 to `limit` in a block; fewer where a piece of the file or stream ends.

        From a stream, each block is returned as soon as one row is available.
        """
        if limit < 1:
            raise ValueError(f"a block of {limit} rows")
        while (rows := self._block(limit)) is not None:
            yield rows

    def fingerprint(self, position: dict[str, Any]) -> dict[str, Any]:
        """What `check` needs to know the source again at a position. Of a stream, only the columns."""
        known: dict[str, Any] = {"form": self.form, "names": list(self.names)}
        if self.moves:
            at = position["at"]
            spans = {"head": (0, min(self.head, at)), "tail": (max(0, at - self.tail), at)}
            known |= {part: hashlib.sha256(self._sample(*span)).hexdigest() for part, span in spans.items()}
        return known

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


def gathered(blocks: Iterator[Rows], least: int) -> Iterator[Rows]:
    """Blocks, joined until they have at least so many rows."""
    held: list[Rows] = []
    for block in blocks:
        held.append(block)
        if sum(len(each.numbers) for each in held) >= least:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(blocks: list[Rows]) -> Rows:
    if len(blocks) == 1:
        return blocks[0]
    cells: dict[str, list[Cell]] = {}
    numbers: list[int] = []
    for block in blocks:
        for name in {**cells, **block.cells}:
            more = block.cells.get(name) or [None] * len(block.numbers)
            cells.setdefault(name, [None] * len(numbers)).extend(more)
        numbers += block.numbers
    return Rows(blocks[0].first, numbers, dict(cells), blocks[-1].position)
