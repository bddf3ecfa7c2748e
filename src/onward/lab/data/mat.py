"""Cell arrays of numbers from MATLAB files, version 5. In Python, for scipy's reader can crash on a damaged file.

A file is a header of 128 bytes and elements: a type, a size and that many bytes, padded to 8. An array is an element of
elements: its class, its shape, its name, and its numbers or, in a cell array, more arrays.
"""

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_ARRAY, _COMPRESSED = 14, 15
_CELL, _NUMERIC = 1, range(6, 16)
_MOST = 2**31


def read_cells(data: bytes) -> dict[str, list[np.ndarray | None]]:
    """The cell arrays of a file by name, each a list of matrices, with None for what is none (text, say).

    Raises ValueError or zlib.error if the file is damaged.
    """
    mark = data[126:128]
    if mark not in (b"IM", b"MI"):
        raise ValueError("it is no .mat file of version 5 to 7")
    order = "<" if mark == b"IM" else ">"
    cells = {}
    for kind, body in _elements(data[128:], order):
        if kind == _COMPRESSED:
            unpack = zlib.decompressobj()
            inner = unpack.decompress(body, _MOST)
            if not unpack.eof:
                raise ValueError("a compressed array is cut short")
            kind, body = next(_elements(inner, order), (0, b""))
        if kind == _ARRAY:
            name, value = _array(body, order)
            if isinstance(value, list):
                cells[name] = value
    return cells


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    whole = "little" if order == "<" else "big"
    place = 0
    while place + 8 <= len(data):
        kind, size = (int.from_bytes(data[place + i : place + i + 4], whole) for i in (0, 4))  # type: ignore[arg-type]
        start, end = place + 8, place + 8 + size
        place = end if kind == _COMPRESSED else end + -size % 8
        if kind >> 16:  # a short element, with its bytes where the size would be
            kind, size, start = kind & 0xFFFF, kind >> 16, start - 4
            end, place = start + size, start + 4
        if end > len(data) or end > place:
            raise ValueError("an element reaches beyond the end: it is cut short")
        yield kind, data[start:end]


def _array(body: bytes, order: str, depth: int = 0) -> tuple[str, Any]:
    """The name, and a matrix, a list of matrices, or None for what is neither."""
    parts = _elements(body, order)
    flags, shape, name = (next(parts, (0, b"")) for _ in range(3))
    if len(flags[1]) != 8 or len(shape[1]) % 4:
        raise ValueError("an array has no class or no shape")
    kind = int(np.frombuffer(flags[1], order + "u4")[0]) & 0xFF
    sizes = [int(n) for n in np.frombuffer(shape[1], order + "i4")]
    if kind == _CELL and depth == 0:
        inner = [_array(part, order, 1)[1] if part else np.zeros(0) for _, part in parts]
        if len(inner) != math.prod(sizes):
            raise ValueError(f"a cell array of {sizes} has {len(inner)} matrices")
        return name[1].decode("latin1"), inner
    if kind not in _NUMERIC:
        return name[1].decode("latin1"), None
    stored, numbers = next(parts, (0, b""))
    if stored not in _NUMBERS:
        raise ValueError(f"numbers of unknown type {stored}")
    values = np.frombuffer(numbers, order + _NUMBERS[stored])
    if min(sizes, default=-1) < 0 or len(values) != math.prod(sizes):
        raise ValueError(f"a matrix of {sizes} has {len(values)} numbers")
    return name[1].decode("latin1"), values.reshape(sizes, order="F")
