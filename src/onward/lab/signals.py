"""Ctrl-C and SIGTERM: what they do before, while and after something is learned."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Inside, Ctrl-C ends the process with status 130 and one line: for a process of our own that has begun nothing.

    An exception could cross code that is no Python while JAX is imported, and is lost where it falls into a callback
    (JAX has one at every collection of garbage). Whoever has a handler of their own keeps it.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        os.write(2, b"onward: stopped; nothing was begun\n")
        os._exit(130)

    mine = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with contextlib.suppress(ValueError):  # not in the main thread: no signal comes here
        if mine:
            signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def end_with_parent() -> None:
    """In a process that another one started: end when that one has, however it ended."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class Stop:
    """Whether somebody asked for an end; `waiting` says that nothing is in hand, so that it may come at once."""

    def __init__(self) -> None:
        self.asked = self.waiting = False

    def __call__(self) -> bool:
        """Whether an end was asked for."""
        return self.asked


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Inside, Ctrl-C and SIGTERM ask for a stop; the second one, or one while `waiting`, raises KeyboardInterrupt."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked or stop.waiting:
            raise KeyboardInterrupt
        stop.asked = True

    before: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    except ValueError:  # not in the main thread: somebody else handles signals
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
