"""The last whole state of what learns: kept through interrupts, errors and other threads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, RLock
from typing import Any, TypeVar

import numpy as np

from onward.devices import must_compute
from onward.rows.features import FeatureLearner
from onward.rows.stream import as_usual

# Rows after which a copy of the state is kept: as many at most are learned anew after an interrupt.
JOURNAL = 64
T = TypeVar("T")


class Keeper:
    """Keeps the `core` of an estimator whole, however a call ends, and lets several threads use it.

    One row is learned in place, which uses the state up: without that it costs 1.05 to 1.5 times as much. If the call
    then ends before the new state has been put in its place (by a Ctrl-C, say), what is left is a copy, at most
    `JOURNAL` rows old, and the rows since: they are learned anew, to the same bits, when somebody asks next. Everything
    else gives a new core, which is put in place by one assignment.

    Who learns holds the `turn`, so that one learns after another. Who asks waits for one row at most: `ask` for short
    questions, `apart` for long ones. Copies and pickles hold the core alone.
    """

    def __init__(self, core: FeatureLearner | None = None):
        self._turn = RLock()
        self._core = core
        self._step = RLock()
        self._free = Event()  # nobody who learns waits for the step: locks are not fair, and many who ask would keep it
        self._free.set()
        self._base: FeatureLearner | None = None
        self._rows: list[tuple[np.ndarray, Any]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Keeper, (self.apart(),)

    @property
    def turn(self) -> RLock:
        """Held by who learns. OnwardError in a process that can compute no more: here, for a lock may be left over."""
        must_compute()
        return self._turn

    @property
    def core(self) -> FeatureLearner | None:
        """The last whole one; None before the first row. It may be used up as soon as another thread learns."""
        with self._step:
            core = self._core
            return self._again(core) if core is not None and core.used_up else core

    @core.setter
    def core(self, core: FeatureLearner) -> None:
        self._base, self._rows = None, []  # they do not lead to this one
        self._core = core

    def apart(self) -> FeatureLearner | None:
        """A copy that stays whole whatever others learn."""
        must_compute()
        self._free.wait()
        with self._step:
            core = self.core
            return core if core is None or core.learner.state is None else core.copied()

    def ask(self, question: Callable[[FeatureLearner | None], T]) -> T:
        """The answer of the last whole core."""
        must_compute()
        self._free.wait()
        with self._step:
            return question(self.core)

    def learn(self, core: FeatureLearner, row: list[float], memory: Any) -> None:
        """Learn a row, and remember `memory` then. `core` is this one's or made of it. Only for who holds the turn."""
        base, rows, array = self._base, self._rows, np.array(row, np.float32)
        since = -1 if base is None or base.places is not core.places else core.learner.rows - base.learner.rows
        if not 0 <= since <= len(rows) < JOURNAL:
            if base is None or base.places is not core.places:
                core.copied().learn(array, memory)  # compiled here, where nobody waits for it
            base, rows, since = core, [], 0
            core = core.copied()
        with self._before_others():
            self._base, self._rows = base, rows
            rows[since:] = [(array, memory)]
            try:
                self._core = core.learn(array, memory)
            except FloatingPointError:  # NaN is trapped
                with as_usual():
                    self._core = self._learned(since).learn(array, memory)

    @contextmanager
    def _before_others(self) -> Iterator[None]:
        """Hold the step: next, if somebody has it."""
        if not self._step.acquire(blocking=False):
            self._free.clear()
            try:
                self._step.acquire()
            finally:
                self._free.set()
        try:
            yield
        finally:
            self._step.release()

    def _learned(self, rows: int) -> FeatureLearner:
        """The base after so many rows of the journal."""
        assert self._base is not None
        core = self._base.copied()
        for row, memory in self._rows[:rows]:
            core = core.learn(row, memory)
        return core

    def _again(self, core: FeatureLearner) -> FeatureLearner:
        """What was used up, learned anew."""
        assert self._base is not None
        with as_usual():
            self._core = again = self._learned(core.learner.rows - self._base.learner.rows)
        return again
