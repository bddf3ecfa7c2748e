"""How far a whole is that is done in jobs, here and elsewhere."""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from onward import saving
from onward.lab.progress import Progress


class _At(TypedDict):
    step: int
    value: saving.Number | None


class ProgressFile(Progress):
    """What a job would show, kept as a file for whoever watches the folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(quiet=True)
        self._path, self._written = path, 0.0

    def show(self, job: str, step: int, steps: int | None, **more: Any) -> None:
        """Where the job is; about once a second."""
        if time.monotonic() - self._written > 1 or step == steps:
            self._written = time.monotonic()
            saving.write_json(self._path, {"step": step, "value": more["value"]})


class Watch(Progress):
    """One bar over all jobs, with an ETA for the whole.

    `steps` and `runs`: of each job by name. `left`: those that have not ended. `file` names the `ProgressFile` of a job
    that runs elsewhere. `workers`: how many work on them now. `look` is called whenever something is shown.
    """

    def __init__(
        self,
        progress: Progress,
        named: str,
        *,
        steps: Mapping[str, int],
        runs: Mapping[str, int],
        left: Collection[str],
        file: Callable[[str], Path],
        workers: Callable[[], int],
        metric: str,
        look: Callable[[], None],
    ) -> None:
        super().__init__(quiet=True)
        self._progress, self._named, self._metric = progress, named, metric
        self._file, self._workers, self._look = file, workers, look
        self._runs = runs
        self._lengths = {name: steps[name] * runs[name] for name in steps}
        self._at = {name: 0.0 if name in left else 1.0 for name in steps}
        self._values: dict[str, float] = {}
        self._began, self._read = time.monotonic(), 0.0
        self._before: float | None = None
        self.job = ""
        """The name of the job that runs here."""

    @property
    def share(self) -> float:
        """How much of the whole is done."""
        return self._done() / max(sum(self._lengths.values()), 1)

    def say(self, text: str) -> None:
        """A line of the job that runs here."""
        self._progress.say(text)

    def show(self, job: str, step: int, steps: int | None, **more: Any) -> None:
        """Of the job that runs here."""
        self._tell(self.job, step, more["value"])
        self._draw(f"  {job} {step / steps:.0%}" if steps else "")

    def ended(self, name: str) -> None:
        """A job has ended, one way or the other."""
        self._at[name] = 1.0
        self._draw()

    def poll(self) -> None:
        """Look at the files of jobs that run elsewhere, about once a second."""
        if time.monotonic() - self._read <= 1:
            return
        self._read = time.monotonic()
        for name in [name for name, at in self._at.items() if at < 1 and name != self.job]:
            with suppress(saving.Unreadable):
                at = saving.read_json(self._file(name))
                saving.check_meta(at, _At, str(self._file(name)))
                self._tell(name, at["step"], at["value"])
        self._draw()

    def _tell(self, name: str, step: int, value: float | None) -> None:
        self._at[name] = min(1.0, step * self._runs[name] / self._lengths[name])
        if value is not None:
            self._values[name] = value

    def _done(self) -> float:
        return sum(self._at[name] * length for name, length in self._lengths.items())

    def _draw(self, note: str = "") -> None:
        self._look()
        now = self._done()
        if self._before is None:
            self._before = now
        rate = (now - self._before) / max(time.monotonic() - self._began, 1e-3)
        done, workers = sum(at >= 1 for at in self._at.values()), self._workers()
        many = f", {workers} workers" if workers > 1 else ""
        value = float(np.mean(list(self._values.values()))) if self._values else None
        self._progress.show(
            *(self._named, round(now), sum(self._lengths.values())),
            rate=rate, metric=self._metric, value=value, note=f"  {done} of {len(self._at)} jobs{many}{note}",
            unit="run-steps",
        )  # fmt: skip
