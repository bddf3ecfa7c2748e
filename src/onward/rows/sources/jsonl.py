"""JSON lines: an object a line."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from onward.errors import OnwardError
from onward.rows.sources.cells import MAX_COLUMNS, Cell
from onward.rows.sources.complaints import Bad, Complaints
from onward.rows.sources.lines import Lines, TextSource

DEEP = 16  # objects within one another
TABLE = 10  # objects of a list in an only line that are taken for the rows of a table


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written."""


class JsonSource(TextSource):
    """An object a line; what lies in an object within it has its path as a name: payload.temp."""

    form = "jsonl"

    def __init__(self, lines: Lines, complaints: Complaints) -> None:
        super().__init__(lines, complaints)
        self._decode = json.JSONDecoder(object_pairs_hook=_Pairs).decode
        self._known: set[str] = set()
        start = lines.held[0].strip()
        if start.startswith(b"[") or start == b"{":
            how = "jq -c . makes them of objects" if start == b"{" else "jq -c '.[]' makes them of a list"
            raise OnwardError(f"{self.name} is not JSON lines, an object a line: {how}")
        with suppress(Bad):
            if len(lines.held) == 1 and lines.moves:
                self._refuse_whole_table(start)
            self._learn(self._object(start))

    def _refuse_whole_table(self, line: bytes) -> None:
        """Refuse an only line that holds a table, and not a row of one."""
        pairs = self._pairs(line)
        if not isinstance(pairs, _Pairs):
            return
        for key, value in pairs:
            if isinstance(value, list) and len(value) >= TABLE and all(isinstance(each, _Pairs) for each in value):
                raise OnwardError(f"{self.name} is not JSON lines, an object a line: jq -c '.{key}[]' makes them of it")
        sizes = {len(value) if isinstance(value, list) else 0 for _, value in pairs}
        split = {"columns", "data"} <= {key for key, _ in pairs}
        if split or (len(pairs) > 1 and len(sizes) == 1 and min(sizes) > 1):
            form = ", orient='split'" if split else ""
            raise OnwardError(
                f"{self.name} is one object that holds a whole table, and not JSON lines, an object a line: pandas "
                f"makes them by read_json(FILE{form}).to_json(OUT, orient='records', lines=True)"
            )

    def _learn(self, keys: Iterable[str]) -> None:
        new = [key for key in keys if key not in self._known]
        self.names += tuple(new)
        self._known.update(new)
        if len(self.names) > MAX_COLUMNS:
            raise OnwardError(f"{self.name}: more than {MAX_COLUMNS:,} different keys; are some of them data?")

    def _pairs(self, raw: bytes) -> Any:
        """What a line says; a comma after it, or a record separator before it, is no part of it."""
        bare = raw.strip()
        try:
            pairs = self._decode(bare.removeprefix(b"\x1e").removesuffix(b",").decode())
            if b"\\u" in raw:
                json.dumps(pairs, ensure_ascii=False).encode()  # half a character
        except UnicodeDecodeError:
            raise self._foreign() from None
        except (ValueError, RecursionError):
            raise Bad("not JSON", "not JSON", cut=True) from None
        return pairs

    def _object(self, raw: bytes) -> dict[str, Any]:
        pairs = self._pairs(raw)
        if not isinstance(pairs, _Pairs):
            raise Bad("not an object", "not a JSON object")
        if b"{" in raw[raw.index(b"{") + 1 :]:
            pairs = _flat(pairs)
        row = dict(pairs)
        if len(row) < len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise Bad("a key twice", f"the key {twice!r:.80} comes twice")
        return row

    def _record(self, hold: bool) -> dict[str, Cell] | None:
        if not self._lines.ready(hold):
            raise EOFError
        raw = self._lines.take()
        if not raw.strip():
            return None
        row = self._object(raw)
        if b"[" in raw or raw.count(b"{") > DEEP:
            for key in [key for key, value in row.items() if isinstance(value, list)]:
                text = "a list; counts as missing"
                if isinstance(row[key], _Pairs):
                    text = f"more than {DEEP} objects within one another; counts as missing"
                row[key] = None
                self.complaints.add("nested", text, row=self._row + 1, line=self._lines.line, column=key)
        self._learn(row)
        return row

    def _columns(self, rows: list[dict[str, Cell]]) -> dict[str, Sequence[Cell]]:
        return {name: [row.get(name) for row in rows] for name in self.names}

    def _position(self) -> dict[str, Any]:
        return super()._position() | {"names": list(self.names)}

    def resume(self, position: dict[str, Any]) -> None:
        """Go on from a position; the numbering of rows goes on with it."""
        super().resume(position)
        self.names, self._known = (), set()
        self._learn(position["names"])


_decode = json.JSONDecoder(object_pairs_hook=_Pairs).decode


def rows_of(body: bytes) -> list[dict[str, Cell]]:
    """The rows of a text that is whole: an object, a list of objects, or an object a line. ValueError in one line."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"the body is not UTF-8 (byte {error.start:,})") from None
    try:
        found = _decode(text)
    except RecursionError:
        raise ValueError("the body has too many lists or objects within one another") from None
    except ValueError:
        return [_row_of(line, f"line {i}") for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if isinstance(found, _Pairs):
        return [_plain(found, "the object")]
    if not isinstance(found, list):
        raise ValueError("the body is no JSON object, no list of them, and no object a line")
    return [_plain(each, f"row {i} of the list") for i, each in enumerate(found, 1)]


def _row_of(line: str, what: str) -> dict[str, Cell]:
    try:
        return _plain(_decode(line), what)
    except RecursionError:
        raise ValueError(f"{what} of the body has too many lists or objects within one another") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{what} of the body is not JSON ({error.msg}, character {error.pos + 1:,})") from None


def _plain(pairs: Any, what: str) -> dict[str, Cell]:
    """A row; a list, and what lies too deep, counts as missing."""
    if not isinstance(pairs, _Pairs):
        raise ValueError(f"{what} is not a JSON object")
    flat = _flat(pairs)
    row = {key: None if isinstance(value, list) else value for key, value in flat}
    if len(row) < len(flat):
        twice = next(key for key, count in Counter(key for key, _ in flat).items() if count > 1)
        raise ValueError(f"{what}: the key {twice!r:.80} comes twice")
    if len(row) > MAX_COLUMNS:
        raise ValueError(f"{what} has {len(row):,} keys, and {MAX_COLUMNS:,} is the most")
    return row


def _flat(pairs: Sequence[tuple[str, Any]], path: str = "", deep: int = 1) -> _Pairs:
    """Pairs of which no value is an object, but where it lies too deep; keys are joined by a dot."""
    flat = _Pairs()
    for key, value in pairs:
        if isinstance(value, _Pairs) and deep < DEEP:
            flat += _flat(value, f"{path}{key}.", deep + 1)
        else:
            flat.append((path + key, value))
    return flat
