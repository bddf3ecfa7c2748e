"""What is wrong with a source, and how it is told."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from onward.errors import OnwardError
from onward.rows.remarks import Remark


class Complaints:
    """What is wrong with a source, told a line each, which knows its row and of which kind it is."""

    def __init__(self, name: str, tell: Callable[[str], None], strict: bool = False) -> None:
        self.name, self.strict = name, strict
        self._tell = tell

    def of(self, name: str) -> "Complaints":
        """Of another source, told to the same."""
        return Complaints(name, self._tell, self.strict)

    def add(self, kind: str, text: str, *, row: int = 0, line: int = 0, column: str = "", bad: bool = True) -> None:
        """Tell of one more of a kind; an error where complaints are strict and this is `bad`, not just a note."""
        where = f", column {column!r:.80}" if column else ""
        message = self.name + (f", row {row:,}" if row else "") + (f" (line {line:,})" if line else "")
        message += f"{where}: {text}"
        if bad and self.strict:
            raise OnwardError(message)
        self._tell(Remark(message, row, kind + where))


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
