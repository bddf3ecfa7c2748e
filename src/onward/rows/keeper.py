"""The last whole state of what learns: kept through interrupts, errors and other threads."""

from threading import RLock
from typing import Any

from onward.devices import must_compute
from onward.rows.features import FeatureLearner


class Keeper:
    """Keeps the `core` of an estimator whole, however a call ends, and lets several threads use it.

    A core never changes: what learns makes the next one, and puts it in place by one assignment. So who asks takes the
    core there is and waits for nobody. Who learns holds the `turn`, so that one learns after another. Copies and
    pickles hold the core alone. `core` is None before the first row.
    """

    def __init__(self, core: FeatureLearner | None = None):
        self._core = core
        self._turn = RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Keeper, (self.core,)

    @property
    def core(self) -> FeatureLearner | None:
        """The last whole one. OnwardError in a process that can compute no more: it unpickled none."""
        must_compute()
        return self._core

    @core.setter
    def core(self, core: FeatureLearner) -> None:
        self._core = core

    @property
    def turn(self) -> RLock:
        """Held by who learns. OnwardError in a process that can compute no more: here, for a lock may be left over."""
        must_compute()
        return self._turn
