"""Text of another encoding, read as the bytes of UTF-8."""

import codecs
from typing import Any

from onward.errors import OnwardError

UTF8 = "UTF-8"
PIECE = 2**16  # bytes decoded at a time
_MARKS = {
    codecs.BOM_UTF8: UTF8,
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_ODD = "onward-odd"


def _odd(error: UnicodeError) -> tuple[str | bytes, int]:
    """In place of what does not fit: a byte that UTF-8 does not have, so that the line is left out and told of."""
    assert isinstance(error, UnicodeDecodeError | UnicodeEncodeError)
    return "\udcff" if isinstance(error, UnicodeDecodeError) else b"\xff", error.end


codecs.register_error(_ODD, _odd)


def encoding_of(name: str, given: str, start: bytes) -> str:
    """The encoding of a source that begins so: the one `given`, or by its mark, or by where its zeros are, or UTF-8.

    OnwardError: no encoding of text has that name, or the mark says another.
    """
    marked = next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), "")
    if given:
        known = _known(given)
        if marked and not known.startswith(marked.lower()):
            raise OnwardError(f"{name} begins with the mark of {marked}, not of {given}: leave --encoding out")
        return UTF8 if known in ("utf-8", "utf-8-sig") else given
    if marked:
        return marked
    # UTF-16 without a mark: half of all characters, or more, are ASCII, which no text of bytes looks like.
    even, odd = start[: len(start) // 2 * 2 : 2], start[1 : len(start) // 2 * 2 : 2]
    for zeros, others, encoding in ((odd, even, "UTF-16-LE"), (even, odd, "UTF-16-BE")):
        if len(zeros) > 3 and 2 * zeros.count(0) >= len(zeros) and not others.count(0):
            return encoding
    return UTF8


def _known(given: str) -> str:
    try:
        if "a,1\n".encode(given).decode(given) != "a,1\n":
            raise LookupError
        codecs.getincrementaldecoder(given)
        return codecs.lookup(given).name
    except (LookupError, ValueError):
        text = "no encoding of text has that name; such as utf-8, utf-16, latin-1, cp1252, shift-jis"
        raise OnwardError(f"--encoding {given!r}: {text}") from None


class Recoded:
    """A file of another encoding, read forward as the bytes of UTF-8; places are of those bytes.

    What does not fit becomes the byte 0xff, which is no UTF-8.
    """

    def __init__(self, file: Any, encoding: str) -> None:
        self._file = file
        self._new = lambda: codecs.getincrementaldecoder(encoding)(_ODD)
        self._decoder, self._held, self._over, self._at = self._new(), b"", False, 0

    def seekable(self) -> bool:
        """Whether it can go back."""
        return bool(self._file.seekable())

    def read1(self, size: int) -> bytes:
        """Some bytes, at least one, as soon as they come; none at the end."""
        while not self._held and not self._over:
            piece = self._file.read1(PIECE)
            self._over = not piece
            self._held = self._decoder.decode(piece, self._over).encode("utf-8", _ODD)
        data, self._held = self._held[:size], self._held[size:]
        self._at += len(data)
        return data

    def read(self, size: int) -> bytes:
        """So many bytes; fewer only at the end."""
        parts: list[bytes] = []
        while size > 0 and (data := self.read1(size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def seek(self, at: int) -> None:
        """Go on from a place: forward, or from the beginning again."""
        if at < self._at:
            self._file.seek(0)
            self._decoder, self._held, self._over, self._at = self._new(), b"", False, 0
        while self._at < at and self.read1(at - self._at):
            pass

    def close(self) -> None:
        """Close the file."""
        self._file.close()
