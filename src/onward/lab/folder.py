"""A run folder: where its checkpoints lie, and who may write into it."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from onward.errors import OnwardError

KEPT = 2


def path_of(folder: Path, job: str, step: int) -> Path:
    """Where the checkpoint of a job at a step lies."""
    return folder / f"{job}-{step:012d}.npz"


def newest_first(folder: Path, job: str) -> list[Path]:
    """The job's checkpoints."""
    return sorted(folder.glob(f"{job}-????????????.npz"), reverse=True)


def prune(folder: Path, job: str) -> None:
    """Keep the newest few."""
    for path in newest_first(folder, job)[KEPT:]:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Refuse a folder that another process is writing into at this moment."""
    try:
        import fcntl
    except ImportError:  # no such lock on this system
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise OnwardError(f"{folder} is in use by another onward: wait for it, or stop it first") from None
        yield
    finally:
        os.close(handle)
