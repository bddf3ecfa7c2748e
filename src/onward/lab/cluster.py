"""A Dask cluster: on this machine, or one that somebody has started."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from onward.errors import OnwardError, needs

CONNECT_SECONDS = 15.0


class Lost(OnwardError):
    """A worker is gone, and what it did since its last checkpoint with it."""


def pin() -> Any:
    """A plugin that gives every worker its share of the cores that its machine's workers may use."""
    from distributed import WorkerPlugin

    class Pin(WorkerPlugin):
        name = "onward-cores"

        def setup(self, worker: Any) -> None:
            _settle_in(worker)

    return Pin()


def _settle_in(worker: Any) -> None:
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started us: it asks us to save first
    if not hasattr(os, "sched_setaffinity") or not str(worker.name).isdecimal():
        return
    # Workers of a local cluster are called 0, 1, 2 ...; others are pinned by what started them (Slurm, systemd).
    cores = sorted(os.sched_getaffinity(0))
    many = int(os.environ.get("ONWARD_WORKERS", "0"))
    if many and len(cores) > 1:
        share = max(1, len(cores) // many)
        first = int(worker.name) * share % len(cores)
        os.sched_setaffinity(0, cores[first : first + share] or cores[-1:])


def require_place(workers: int, scheduler: str) -> None:
    """Refuse what `place` could not be asked for, before anything is started."""
    if not workers and not scheduler:
        return
    if find_spec("distributed") is None:
        option = "--workers" if workers else "--scheduler"
        raise OnwardError(needs(option, "dask"))
    if scheduler and "://" not in scheduler and not os.path.isfile(scheduler):
        raise OnwardError(f"--scheduler {scheduler}: neither an address (tcp://HOST:PORT) nor a scheduler file")


@contextmanager
def connected(workers: int, scheduler: str) -> Iterator[tuple[Any, Callable[[], None] | None]]:
    """A client of a local cluster of `workers` processes, or of that of `scheduler`.

    With it comes what starts new workers, where that is up to us.
    """
    require_place(workers, scheduler)
    from distributed import Client, LocalCluster

    for name in ("distributed", "tornado", "asyncio", *logging.root.manager.loggerDict):
        if name.split(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is said by us
    if scheduler:
        given: dict[str, Any] = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
        try:
            client = Client(**given, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise OnwardError(
                f"--scheduler {scheduler}: there is no Dask scheduler to be reached ({why}); start one with: "
                "dask scheduler"
            ) from None
        with client:
            yield client, None
        return
    os.environ["ONWARD_WORKERS"] = str(workers)
    local = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",  # any free port; None takes 8787, and warns where that is taken
        silence_logs=logging.CRITICAL,
    )

    def refill() -> None:
        local.scale(0)
        local.scale(workers)

    with local, Client(local, set_as_default=False) as client:
        yield client, refill
