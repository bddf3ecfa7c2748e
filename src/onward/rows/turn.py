"""Turns of those who learn, each of whom must see what the one before has left."""

import _thread
from typing import Any


class Turn(_thread.RLock):  # type: ignore[misc]
    """A lock that is left out of copies and pickles: each gets one of its own."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return Turn, ()
