"""What is wrong with a source, and how it is told."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from onward.errors import OnwardError

SHOWN = 5  # complaints of a kind


class Complaints:
    """What is wrong with a source, told a line each: the first few of a kind, and a count at the end."""

    def __init__(self, name: str, tell: Callable[[str], None], strict: bool = False) -> None:
        self.name, self.strict = name, strict
        self.counts: Counter[str] = Counter()
        self._tell = tell

    def add(self, kind: str, text: str, *, row: int = 0, line: int = 0, column: str = "", bad: bool = True) -> None:
        """Tell of one more of a kind; an error where complaints are strict and this is `bad`, not just a note."""
        message = self.name + (f", row {row:,}" if row else "") + (f" (line {line:,})" if line else "")
        message += (f", column {column!r:.80}" if column else "") + f": {text}"
        if bad and self.strict:
            raise OnwardError(message)
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self._tell(message)

    def summary(self) -> None:
        """Count the kinds of which not all were told."""
        for kind, count in self.counts.items():
            if count > SHOWN:
                self._tell(f"{self.name}: {count:,} in all: {kind}")


class Bad(Exception):
    """A row that cannot be used: its kind, what is wrong, and whether a lost end could explain it."""

    def __init__(self, kind: str, text: str, cut: bool = False) -> None:
        self.kind, self.text, self.cut = kind, text, cut


@contextmanager
def reading(name: str, *more: type[Exception]) -> Iterator[None]:
    """Errors of reading, and of the kinds `more`, become one line that names the source and says what to do."""
    try:
        yield
    except (OSError, EOFError, zlib.error, *more) as error:
        advice = "it is damaged or cut short; get it again"
        if isinstance(error, PermissionError):
            advice = "you need permission to read it"
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise OnwardError(f"cannot read {name} ({reason}): {advice}") from error
