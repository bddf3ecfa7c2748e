"""What is remarked of rows: the first few of each kind are told at once; of all it is known where they stand."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# Remarks of a kind that are told at once.
TOLD = 3
# Stretches of rows that are kept of a kind, and that a line names.
MOST, NAMED = 1000, 12
# Lines that are kept.
MOST_NOTES = 200


class Remark(str):
    """A line for a person that knows its row (0: none), and of which kind it is ("": like no other).

    An empty line is counted and not told: the sample of its column has said it.
    """

    row: int
    kind: str

    def __new__(cls, text: str, row: int = 0, kind: str = "") -> "Remark":
        """The line itself is `text`."""
        self = super().__new__(cls, text)
        self.row, self.kind = row, kind
        return self


class Stretches:
    """Rows, in order, as the stretches that they make; of more than `MOST` the last are only counted."""

    def __init__(self, count: int = 0, ends: list[list[int]] | None = None, told: int = 0):
        self.count, self.ends, self.told = count, ends or [], told  # told: how many by a line of their own

    def add(self, row: int) -> None:
        """One more; the last once more is none."""
        if self.ends and self.ends[-1][1] == row > 0:
            return
        self.count += 1
        if row and self.ends and row == self.ends[-1][1] + 1:
            self.ends[-1][1] = row
        elif row and len(self.ends) < MOST:
            self.ends.append([row, row])

    def words(self, most: int = NAMED) -> str:
        """Where they stand: the first `most` stretches of them.

        >>> stretches = Stretches()
        >>> for row in (3, 5, 6, 7, 7, 1200):
        ...     stretches.add(row)
        >>> stretches.words(), stretches.words(2)
        ('3, 5 to 7, 1,200', '3, 5 to 7 and 1 more')
        """
        shown = [f"{a:,}" if a == b else f"{a:,} to {b:,}" for a, b in self.ends[:most]]
        more = self.count - sum(b - a + 1 for a, b in self.ends[:most])
        return ", ".join(shown) + (f" and {more:,} more" if more and shown else "")


class Remarks:
    """How many remarks of each kind there were, and in which rows."""

    def __init__(self, kept: Mapping[str, Any] | None = None):
        self.kinds = {kind: Stretches(each["rows"], each["at"], each["told"]) for kind, each in (kept or {}).items()}

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint and for summary.json: of each kind how many rows, and the first and last of each stretch."""
        return {kind: {"rows": each.count, "at": each.ends, "told": each.told} for kind, each in self.kinds.items()}

    def is_told(self, remark: Remark) -> bool:
        """Count a remark; whether it is one of the first of its kind, and says something."""
        if not remark.kind:
            return True
        each = self.kinds.setdefault(remark.kind, Stretches())
        each.add(remark.row)
        tell = bool(remark) and each.told < TOLD
        each.told += tell
        return tell

    def rest(self) -> list[str]:
        """A line of each kind of which not all were told: how many there are, and where they stand."""
        found = {kind: each for kind, each in self.kinds.items() if each.count > each.told}
        return [
            f"{each.count:,} in all: {kind}" + (f", in rows {each.words()}" if each.ends else "")
            for kind, each in found.items()
        ]


class Notes:
    """The lines that a person is told while rows are taken; the first of them are kept.

    `name`: of the source, before each line. `last_row`: up to which rows were taken.
    """

    def __init__(self, name: str, say: Callable[[str], None], *, live: bool):
        self.name, self.say, self.live, self.last_row = name, say, live, 0
        self.notes: list[str] = []
        self.remarks, self.holds, self._held = Remarks(), False, list[tuple[int, str]]()

    def complain(self, text: str) -> None:
        """A line for the person, and for the report; what is said of the rows of a block is told in their order."""
        row = text.row if isinstance(text, Remark) else 0
        self._held.append((row or self.last_row, text))
        if not self.holds:
            self.tell()

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """What a file complains of is held back, and told with the rows of its block; a stream tells it at once."""
        self.holds = not self.live
        try:
            yield
        finally:
            self.holds = False
            self.tell()

    def tell(self) -> None:
        """Tell what was held back."""
        held, self._held = self._held, []
        for _, text in sorted(held, key=lambda each: each[0]):
            line = text if text.startswith(self.name) else f"{self.name}: {text}"
            if line in self.notes:  # a target that is an input too is read twice
                continue
            if isinstance(text, Remark) and not self.remarks.is_told(text):
                continue
            if len(self.notes) < MOST_NOTES:
                self.notes.append(line)
            self.say(line)

    def tell_rest(self) -> None:
        """Tell of each kind of remark how many more there are than were told, and where."""
        self.tell()
        for text in self.remarks.rest():
            self.complain(text)
        self.tell()
