"""Rows of a stream that come again after a restart: passed over, so that none is learned twice."""

from collections.abc import Callable, Iterator
from typing import Any

from onward.errors import OnwardError
from onward.rows.remarks import Remark
from onward.rows.sources import Cell, Rows, is_missing

# Of how many steps of one there must be for each longer one, for rows to be missed between.
MOSTLY = 9


class Again:
    """Which rows of a stream are new, and what their numbers are.

    With a `column` of offsets, whole numbers that rise from row to row, those up to the last one that was learned from
    are not; without, the first `ahead` rows are not. Rows that are passed over have no number. Where offsets mostly
    rise by one (times, as some brokers number rows, do not), rows that did not come are told of.
    """

    def __init__(self, column: str, complain: Callable[[str], None]):
        self.column, self.complain = column, complain
        self.last: int | None = None
        self.passed = self.ahead = 0
        self.steps = [0, 0]  # of offsets: of one, and longer ones

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"last": self.last, "passed": self.passed, "steps": self.steps}

    def restore(self, kept: dict[str, Any]) -> None:
        """As it was then."""
        self.last, self.passed, self.steps = kept["last"], kept["passed"], [*kept["steps"]]

    def from_row(self, first: int, kept: int) -> None:
        """The next row that comes is row `first` of the stream, of which `kept` rows were read."""
        self.ahead = kept - first + 1
        if self.ahead < 0:
            lost = f"rows {kept + 1:,} to {first - 1:,}" if first - kept > 2 else f"row {first - 1:,}"
            self.complain(f"{lost} did not come: what was learned ends with row {kept:,}, and --from-row is {first:,}")
            self.passed -= -self.ahead  # the numbers go on as the stream has them
            self.ahead = 0

    def new(self, blocks: Iterator[Rows]) -> Iterator[Rows]:
        """The blocks, without the rows that were there already."""
        for block in blocks:
            found = self._new(block)
            if found.numbers:
                yield found

    def _new(self, block: Rows) -> Rows:
        numbers: list[int] = []
        kept: list[int] = []
        column = block.cells.get(self.column) or [None] * len(block.numbers)
        for i, number in enumerate(block.numbers):
            if self.ahead:
                self.ahead -= 1
                self.passed += 1
            elif self.column and not self._follows(column[i], number - self.passed):
                self.passed += 1
            else:
                kept.append(i)
                numbers.append(number - self.passed)
        if len(kept) == len(block.numbers):
            return block._replace(numbers=numbers)
        cells: dict[str, Any] = {name: [part[i] for i in kept] for name, part in block.cells.items()}
        return block._replace(numbers=numbers, cells=cells)

    def _follows(self, cell: Cell, row: int) -> bool:
        """Whether a row with this offset is a new one; it is the last then."""
        offset = _whole(cell)
        if offset is None:
            what = "has none" if is_missing(cell) else f"has {cell!r:.60}"
            text = f"row {row}, column {self.column!r}: an offset is a whole number, and the row {what}; passed over"
            self.complain(Remark(text, row, f"rows without an offset in column {self.column!r}, passed over"))
            return False
        if self.last is not None and offset <= self.last:
            text = f"row {row}, column {self.column!r}: offset {offset} was there already ({self.last}); passed over"
            self.complain(Remark(text, row, f"rows whose offset in column {self.column!r} was there already"))
            return False
        lost = 0 if self.last is None else offset - self.last - 1
        if self.last is not None:
            self.steps[lost > 0] += 1
        if lost and self.steps[0] >= MOSTLY * self.steps[1]:
            text = f"row {row}, column {self.column!r}: {lost:,} offsets before {offset} did not come"
            self.complain(Remark(text, row, f"rows before which offsets in column {self.column!r} did not come"))
        self.last = offset
        return True


def _whole(cell: Any) -> int | None:
    if isinstance(cell, bool) or cell is None:
        return None
    if isinstance(cell, int):
        return cell
    try:
        if isinstance(cell, float):
            return int(cell) if cell.is_integer() else None
        return int(str(cell).strip())
    except (ValueError, OverflowError):
        return None


def require_offsets(column: str, first: int | None, *, stream: bool, resume: bool) -> None:
    """Refuse what cannot be said of where a stream goes on."""
    if column and first is not None:
        raise OnwardError("--offset says already where the stream goes on: leave --from-row out")
    for name, said in (("offset", bool(column)), ("from-row", first is not None)):
        if said and not stream:
            raise OnwardError(f"--{name} is of standard input (-): a file goes on by itself")
    if first is not None:
        if not resume:
            raise OnwardError("--from-row says which row of a stream comes first after a restart: use it with --resume")
        if first < 1:
            raise OnwardError(f"--from-row must be at least 1, got {first}")
