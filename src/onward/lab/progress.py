"""What a person sees while a run goes on."""

import sys
import time
from types import TracebackType
from typing import Any, Self

PLAIN_EVERY = 5.0


def _count(n: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.3g} "


def _clock(seconds: float) -> str:
    seconds = round(seconds)
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """A bar with ETA, speed and the running metric on a terminal; a plain line now and then elsewhere."""

    def __init__(self, *, quiet: bool = False):
        self._quiet = quiet
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._said = 0.0

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description:14}"),
                BarColumn(24),
                TaskProgressColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, value, trace)

    def say(self, text: str) -> None:
        """One line that stays."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def show(
        self,
        job: str,
        step: int,
        steps: int | None,
        *,
        rate: float,
        metric: str,
        value: float | None,
        note: str,
        unit: str = "steps",
    ) -> None:
        """Where `job` is; `rate` counts run-steps a second (0: not known yet), `steps` are those of each run (None:
        nobody knows).
        """
        if self._quiet:
            return
        eta = (steps - step) / rate if steps and rate > 0 else float("inf")
        shown = "" if value is None else f"  {metric} {value:.4g}"
        left = f"  ETA {_clock(eta)}" if 0 < eta < 1e7 else ""
        speed = f"{_count(rate)}{unit}/s" if rate > 0 else ""
        text = f"{speed}{shown}{left}{note}".strip()
        if self._bar is not None:
            if job not in self._tasks:
                self._tasks[job] = self._bar.add_task(job, total=steps, text="")
            self._bar.update(self._tasks[job], completed=step, total=steps, text=text)
        elif time.monotonic() - self._said > PLAIN_EVERY or step == steps:
            self._said = time.monotonic()
            whole = f" of {steps:,} {unit} ({step / steps:.0%})" if steps else f" {unit}"
            print(f"{job}: {step:,}{whole}  {text}", file=sys.stderr, flush=True)
