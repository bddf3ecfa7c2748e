"""Programs that a stream may need next, compiled before it needs them."""

import contextlib
import gc
import sys
from collections.abc import Sequence
from functools import partial
from threading import Thread
from types import TracebackType
from typing import Self

from onward.rows.stream.learner import RowLearner
from onward.rows.stream.programs import as_usual

# Seconds for which a thread keeps Python to itself while another waits, 5 ms as Python has it: a row of a stream waits
# some ten times.
TURN = 2e-4


class Ahead:
    """Compiles what a learner of a stream needs once it has grown, in a thread beside the stream.

    A row that brings a column, a category or a class beyond the present room, or a new stage, changes the shapes of
    everything, and compiling takes seconds. Used as a context: the thread has ended after it.
    """

    def __init__(self) -> None:
        self._shapes: tuple[int, ...] = ()
        self._thread: Thread | None = None
        self._ended = False

    def follow(self, learner: RowLearner, what: str) -> None:
        """Compile what this learner may need after its next change, for its program `what`, unless that was done.

        The first time at once: the first answer waits for it. Later beside what goes on.
        """
        shapes = learner.capacity, learner.classes, learner.stage
        if shapes == self._shapes:
            return
        self.ready()
        first, self._shapes = not self._shapes, shapes
        work = partial(self._compile, learner, learner.next_shapes(), what)
        if first:
            work()
        else:
            self._thread = Thread(target=work)
            self._thread.start()

    def ready(self) -> None:
        """Wait until all is compiled that was begun."""
        if self._thread is not None:
            self._thread.join()

    def _compile(self, learner: RowLearner, after: Sequence[RowLearner], what: str) -> None:
        turn = sys.getswitchinterval()
        sys.setswitchinterval(TURN)
        gc.disable()
        try:
            for grown in after:
                # What goes wrong goes wrong again, and is told, if it is ever needed.
                with contextlib.suppress(Exception), as_usual():
                    if not self._ended:
                        learner.programs.change(grown.programs)
                    if not self._ended:
                        grown.compile(what)
        finally:
            # What JAX keeps of programs is many objects: rows would wait while the collector looks through them.
            gc.freeze()
            gc.enable()
            sys.setswitchinterval(turn)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self.ready()
