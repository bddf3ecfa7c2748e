"""Where jobs run: one after another in this process, or on the workers of a Dask cluster."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onward.errors import OnwardError, Stopped
from onward.lab.cluster import connected, pin

POLL_SECONDS = 0.2
LOST_SECONDS = 30.0
PATIENCE_SECONDS = 30.0


@dataclass
class Task:
    """A call, `function(argument, settings, **extra)`, and what came of it: a value or an error."""

    function: Callable[..., dict[str, Any]]
    argument: dict[str, Any]
    name: str
    value: dict[str, Any] | None = None
    error: str = ""


class Here:
    """In this process, one after another."""

    workers = 1

    def run(
        self, tasks: Sequence[Task], settings: dict[str, Any], watch: Any, stop: Callable[[], bool], **extra: Any
    ) -> Iterator[Task]:
        """Every task as it ends; those not begun when a stop is asked for are left."""
        for task in tasks:
            if stop():
                return
            try:
                task.value = task.function(task.argument, settings, **watch(task, stop), **extra)
            except Stopped:
                return
            except OnwardError as error:
                task.error = str(error)
            yield task


class Cluster:
    """On the workers of a Dask scheduler. Each works on one task at a time, on its share of its machine's cores.

    `refill` starts new workers, where that is up to us: Dask gives a worker up that could not be started again in time.
    """

    def __init__(self, client: Any, say: Callable[[str], None], refill: Callable[[], None] | None = None) -> None:
        self._client, self._say, self._refill = client, say, refill
        self._waiting = time.monotonic()
        client.register_plugin(pin())

    @property
    def workers(self) -> int:
        """How many there are now."""
        return max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))

    def run(
        self, tasks: Sequence[Task], settings: dict[str, Any], watch: Any, stop: Callable[[], bool], **extra: Any
    ) -> Iterator[Task]:
        """Every task as it ends. A task whose worker dies runs again elsewhere, from its last checkpoint."""
        stopped = Path(settings["folder"]) / "stop"
        stopped.unlink(missing_ok=True)
        submit = lambda t: self._client.submit(
            t.function, t.argument, settings, **extra, pure=False, key=f"{t.name}-{time.time_ns()}"
        )
        waiting, left = list(tasks), dict[Any, Task]()
        asked = 0.0
        while left or waiting:
            # No more than there are workers: Dask blames every task that a dying worker was given.
            while waiting and len(left) < self.workers:
                task = waiting.pop(0)
                left[submit(task)] = task
            ended = [future for future in left if future.status not in ("pending", "lost")]
            for future in ended:
                if future.status == "cancelled":
                    raise self._lost()
                task = left.pop(future)
                kind = self._take(future, task)
                if kind != "stopped":
                    yield task
            if stop() and not asked:
                asked = time.monotonic()
                stopped.touch()  # every job looks for it, saves and ends
                waiting = []
            if asked and time.monotonic() - asked > PATIENCE_SECONDS:
                return
            watch(None, stop)
            self._check_alive()
            if left and not ended:
                time.sleep(POLL_SECONDS)

    def _take(self, future: Any, task: Task) -> str:
        try:
            task.value = future.result(timeout=10)
        except Stopped:
            return "stopped"
        except OnwardError as error:
            task.error = str(error)
        except Exception as error:
            if type(error).__name__ == "KilledWorker":
                task.error = (
                    "its worker died again and again; most often memory: fewer --workers, a smaller --tile, or more "
                    "memory a worker"
                )
            else:
                task.error = f"{type(error).__name__}: {error}"
        return "ended"

    def _check_alive(self) -> None:
        now = time.monotonic()
        if self._client.status == "closed":
            raise self._lost()
        if self._client.status != "running":
            if now - self._waiting > LOST_SECONDS:
                raise self._lost()
            return
        if self._client.scheduler_info(n_workers=-1)["workers"]:
            self._waiting = now
        elif now - self._waiting > LOST_SECONDS:
            self._waiting = now
            if self._refill is None:
                self._say("waiting for workers: none has joined the scheduler")
            else:
                self._say("all workers are gone: starting new ones")
                self._refill()

    def _lost(self) -> OnwardError:
        return OnwardError(
            "the scheduler is gone. What ended is kept: the same command goes on with the rest, once there is a "
            "scheduler (or with --workers)"
        )


@contextmanager
def place(workers: int, scheduler: str, say: Callable[[str], None]) -> Iterator[Here | Cluster]:
    """Where to run: here, on a local cluster of `workers` processes, or on that of `scheduler`."""
    if not workers and not scheduler:
        yield Here()
        return
    with connected(workers, scheduler) as (client, refill):
        yield Cluster(client, say, refill)
