"""Downloads, checked: a file is had from one of several addresses, or it is said how to get it by hand."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onward.errors import OnwardError
from onward.lab.data.known import KNOWN, Download


def download(name: str, wanted: Download, place: Path, say: Callable[[str], object]) -> None:
    """Bring one file of the set `name` into the folder `place`, from the first of its addresses that gives it unharmed.

    `say` is told of each attempt. Raises OnwardError, with what was tried and how to go on by hand, if all fail.
    """
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # the lines here say it
    tried = []
    for address in wanted.addresses:
        say(f"{name}: fetching {address}")
        try:
            with _bar(wanted.file) as bar:
                get = pooch.HTTPDownloader(
                    progressbar=bar or False, timeout=20, chunk_size=2**16, headers={"Accept-Encoding": "identity"}
                )
                pooch.retrieve(address, wanted.checksum, wanted.file, place, downloader=get)
            return
        except (OSError, ValueError) as error:
            tried.append(f"{address}: {_reason(error)}")
            say(f"{name}: {_reason(error)}")
    files = KNOWN[name].downloads
    what, goal = ("these files into a folder", "FOLDER") if len(files) > 1 else ("this file", files[0].file)
    raise OnwardError(
        "\n  ".join([f"cannot fetch {name}; tried:", *tried])
        + "\n  ".join([f"\nBy hand, get {what} where there is a network:", *(file.addresses[0] for file in files)])
        + f"\nand then: onward data import {name} {goal}"
    )


class _Bar:
    """The progress bar that pooch asks for, drawn by rich."""

    def __init__(self, bar: Any, file: str):
        self._bar, self._task = bar, bar.add_task(file, total=None)

    @property
    def total(self) -> int:
        return int(self._bar.tasks[self._task].total or 0)

    @total.setter
    def total(self, size: int) -> None:
        self._bar.update(self._task, total=size or None)

    def update(self, size: int) -> None:
        self._bar.advance(self._task, size)

    def reset(self) -> None:
        self._bar.update(self._task, completed=0)

    def close(self) -> None:
        pass


@contextlib.contextmanager
def _bar(file: str) -> Iterator[_Bar | None]:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(24), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar, file)


def _reason(error: Exception) -> str:
    from requests import exceptions as web

    if isinstance(error, web.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code}"
    for kind, reason in (
        (web.Timeout, "no answer in time"),
        (web.SSLError, "its certificate is refused"),
        (web.ChunkedEncodingError, "the download was cut short; not used"),
        (web.ConnectionError, "no connection"),
    ):
        if isinstance(error, kind):
            return reason
    if isinstance(error, ValueError) and "hash" in str(error):
        return "wrong checksum: damaged, cut short or another file; not used"
    return f"{type(error).__name__}: {error}"
