"""A run folder, of any command: made, refused, replaced, locked, resumed, appended to, cut back and read in one place.

It holds `config.json` (format, version, command, fields), `environment.json`, `checkpoints/`, and what the command
writes. While somebody works in it, `lock` is held and says who; a process that dies leaves no lock that blocks.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import socket
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from onward import saving
from onward.errors import OnwardError
from onward.lab.aside import Aside
from onward.lab.fields import from_json

FORMAT = 2
KEPT = 2
LOCK, CONFIG, ENVIRONMENT = "lock", "config.json", "environment.json"
# Version 0.1 kept the definition of a sweep here, and had no config.json beside it.
OLD_SWEEP = "sweep.json"
T = TypeVar("T")


# Checkpoints


def path_of(checkpoints: Path, job: str, step: int) -> Path:
    """Where the checkpoint of a job at a step lies."""
    return checkpoints / f"{job}-{step:012d}.npz"


def newest_first(checkpoints: Path, job: str) -> list[Path]:
    """The checkpoints of a job that are there."""
    return sorted(checkpoints.glob(f"{job}-????????????.npz"), reverse=True)


def newest_good(checkpoints: Path, job: str, read: Callable[[Path], T], say: Callable[[str], None]) -> T | None:
    """What `read` makes of the newest checkpoint that it can read; None where there is none. Each other is told of.

    `read` raises `saving.Unreadable` on a damaged checkpoint; any other error ends the search.
    """
    paths = newest_first(checkpoints, job)
    for path in paths:
        try:
            return read(path)
        except saving.Unreadable as error:
            say(f"{error}; {'there is none before it' if path == paths[-1] else 'trying the one before'}")
    return None


def prune(checkpoints: Path, job: str) -> None:
    """Delete all checkpoints of a job but the newest few, and what a kill has left of one that was being written."""
    for path in (*newest_first(checkpoints, job)[KEPT:], *checkpoints.glob(f"{job}-????????????.npz.part")):
        path.unlink(missing_ok=True)


# What a folder says of itself


class _Config(TypedDict):
    onward: str
    command: str
    fields: dict[str, Any]


def environment() -> dict[str, Any]:
    """What the numbers were made on: time, processor, devices, versions. It starts JAX."""
    import jax

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = models[0] if models else cpu
    packages = ("onward", "jax", "jaxlib", "equinox", "optax", "numpy")
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "devices": [str(device) for device in jax.devices()],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def read_config(
    path: Path, command: str | None = None, *, kind: type | None = None, same_version: bool = False
) -> dict[str, Any]:
    """The config.json of a run folder: format, onward, command, fields, and what the command added.

    Raises OnwardError if there is none, if it is damaged or of another format, if it is not one of `command`, if its
    fields are not those of the dataclass `kind`, and, if `same_version`, where another version of onward wrote it.
    """
    file = path / CONFIG
    found = [each for each in (file, path / OLD_SWEEP) if os.path.isfile(each)]
    if not found:
        what = (
            f"it has no {CONFIG}"
            if os.path.isdir(path)
            else "it is a file"
            if os.path.exists(path)
            else "it is not there"
        )
        raise OnwardError(f"{path} is not a run folder: {what}")
    file = found[0]
    config = saving.read_json(file)
    form = config.get("format")
    if type(form) is not int or form != FORMAT or file.name == OLD_SWEEP:
        raise OnwardError(
            f"{file} has {'no format' if form is None else f'format {form}'}, this onward reads folders of format "
            f"{FORMAT}: it was written by onward {config.get('onward', '0.1.0')}. Go on with that version, or start "
            "anew with --replace"
        )
    saving.check_meta(config, _Config, str(file))
    if command not in (None, config["command"]):
        raise OnwardError(_belongs(path, config))
    here = importlib.metadata.version("onward")
    if same_version and config["onward"] != here:
        raise OnwardError(
            f"{path} is of onward {config['onward']}, this is {here}: numbers of two versions are not to be mixed. "
            "Choose another --out, or --replace it"
        )
    if kind is not None:
        config["fields"] = from_json(kind, config["fields"], file)
    return config


def _belongs(path: Path, config: Mapping[str, Any]) -> str:
    """Which command a folder belongs to, and how to go on with it."""
    again = {
        "run": f"onward run --resume {path}",
        "learn": f"onward learn {config.get('source', 'SOURCE')} --resume {path}",
        "sweep": f"onward sweep {config.get('experiment', 'EXPERIMENT')} ... --out {path}",
        "job": "the sweep that it is a job of",
        "train": "onward.adapters.gymnasium.train(..., out=...)",
    }
    command = config.get("command", "run")
    return f"{path} belongs to onward {command}: go on with {again.get(command, 'that')}, or name another folder"


def same_fields(path: Path, before: Mapping[str, Any], asked: Mapping[str, Any], free: Collection[str] = ()) -> None:
    """Refuse to go on in a folder with fields other than it was made with; those in `free` may change."""
    for name, value in json.loads(json.dumps(dict(asked))).items():
        if name not in free and value != before.get(name):
            raise OnwardError(
                f"{path} was run with --{name.replace('_', '-')} {_words(before.get(name))}, not {_words(value)}: "
                "leave the option out, or start a new run"
            )


def _words(value: Any) -> str:
    if value is None:
        return "unset"
    return (" ".join(map(str, value)) if isinstance(value, list) else str(value)) or "unset"


class RunFolder:
    """A folder in which one command works at a time: locked inside `with`, and left as it was if nothing was begun.

    `command`: run, learn, sweep or job, to which the folder then belongs; or report or predict, which work in any.
    `wait` is told who works there now (command, process, host, since) and says whether to wait for them.

    What `begin` replaces is set aside (`Aside`). Where an error, a stop or a kill comes before there is something to go
    on with, as `hold` says, what was begun is taken away and the old is put back: at once, or by whoever locks the
    folder next. After that both are there, the old one in `.kept`, until `settle` deletes it: `learn` settles with its
    first checkpoint; `run` and `sweep` hold then, and settle when all their methods and jobs have ended.

    Raises OnwardError where another process works in the folder, where it cannot be made, and on a file system
    without locks.
    """

    def __init__(self, path: Path, command: str, *, wait: Callable[[dict[str, Any]], bool] = lambda holder: False):
        self.path, self.command = path, command
        self.checkpoints = path / "checkpoints"
        self._wait = wait
        self._lock = FileLock(path / LOCK, timeout=0, thread_local=False, fallback_to_soft=False)
        self._made: list[Path] = []
        self._unsettled = False
        self._aside = Aside(path, LOCK)

    def __truediv__(self, name: str) -> Path:
        """The path of something in it."""
        return self.path / name

    def __str__(self) -> str:
        return str(self.path)

    def __enter__(self) -> Self:
        if os.path.exists(self.path) and not self.path.is_dir():
            raise OnwardError(f"{self.path} is a file; name a folder")
        if self.command in ("report", "predict"):
            read_config(self.path)
            if self.command == "predict" and not os.access(self.path, os.W_OK):
                return self  # who may only read cannot lock, and harms nobody
        self._made = [path for path in (self.path, *self.path.parents) if not os.path.exists(path)]
        try:
            self._acquire()
            self._aside.recover()
        except BaseException:
            self._lock.release()
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock.is_locked:
            if self._unsettled and kind is None:
                self.settle()
            elif self._unsettled:
                self._aside.back()
            elif isinstance(value, OnwardError) and self._aside.kept:
                value.args = (f"{value}. What it was to replace is in {self._aside.kept} until it is through",)
            # Before the release: who waits has opened this file, and filelock refuses a lock on one that is deleted.
            with contextlib.suppress(OSError):  # Windows deletes no open file
                (self / LOCK).unlink()
            self._lock.release()
        self._leave()

    def _leave(self) -> None:
        """Take away the folders that were made for nothing."""
        for path in self._made:
            with contextlib.suppress(OSError):  # somebody else put something there; or it could not be made
                path.rmdir()

    def _acquire(self) -> None:
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OnwardError(
                    f"cannot make the folder {self.path}: {error.strerror or error}. Choose another folder"
                ) from error
            try:
                # Where no file can be made, filelock takes it for one that somebody holds.
                os.close(os.open(self / LOCK, os.O_RDWR | os.O_CREAT, 0o644))
                self._lock.acquire()
            except Timeout:
                holder = self._holder()
                if holder and not self._wait(holder):
                    raise OnwardError(
                        f"{self.path} is in use by another onward: onward {holder['command']}, process "
                        f"{holder['process']} on {holder['host']}, since {holder['since']}. Wait for it, or stop it"
                    ) from None
                time.sleep(0.1)
                continue
            except OSError as error:
                raise OnwardError(
                    f"cannot lock {self.path}: {error.strerror or error}; onward works in folders that can be written, "
                    "on file systems with locks. Choose another folder"
                ) from error
            break
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = {"command": self.command, "process": os.getpid(), "host": socket.gethostname(), "since": since}
        with open(self / LOCK, "r+b") as file:
            file.seek(1)  # Windows lets nobody else read the first byte, which is what is locked
            file.write(json.dumps(holder).encode())
            file.truncate()

    def _holder(self) -> dict[str, Any]:
        """Who works there; empty if they have just gone."""
        unknown = dict.fromkeys(("command", "process", "host", "since"), "?")
        try:
            with open(self / LOCK, "rb") as file:
                file.seek(1)
                return unknown | json.loads(file.read())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, RecursionError):  # not told yet
            return unknown

    def _must_be_locked(self) -> None:
        if not self._lock.is_locked:
            raise RuntimeError(f"{self.path} is not locked: write to a RunFolder inside `with`")

    # Its life

    def vacant(self, *, replace: bool = False) -> None:
        """Refuse a folder that holds something, unless it is an older one of this command and is to be replaced."""
        held = [path.name for path in self.path.iterdir() if path.name not in (LOCK, f"{CONFIG}.part")]
        if not held:
            return
        if not self.holds_run:
            raise OnwardError(
                f"{self.path} is not empty and not a run folder: --replace will not delete it. Choose another --out"
            )
        owner = self._owner()
        if owner["command"] not in (self.command, None):
            raise OnwardError(_belongs(self.path, owner))
        if not replace:
            raise OnwardError(
                f"{self.path} is not empty: it holds a run already. Go on with --resume {self.path}, delete it with "
                "--replace, or choose another --out"
            )

    def _owner(self) -> dict[str, Any]:
        """Its configuration, of whatever version, as far as it can be read; the command may be None."""
        if not (self / CONFIG).is_file():
            return {"command": "sweep"}
        try:
            config = saving.read_json(self / CONFIG)
        except saving.Unreadable:
            return {"command": None}
        return {"command": "run" if "experiment" in config else None} | config

    def begin(self, fields: Mapping[str, Any], *, replace: bool = False, **more: Any) -> None:
        """Make it a new folder of this command, with `fields` and `more` in its config.json; see `vacant`."""
        self._must_be_locked()
        self.vacant(replace=replace)
        if replace:
            self._aside.put()
        self._unsettled = True
        try:
            self.configure(fields, **more)
            saving.write_json(self / ENVIRONMENT, environment())
        except saving.Unwritable as error:
            raise error.at_start() from error

    def hold(self) -> None:
        """There is something to go on with now: what was replaced is put back no more, but not yet deleted."""
        self._unsettled = False
        self._aside.keep()

    def settle(self) -> None:
        """The start went well: what was replaced is deleted."""
        self._unsettled = False
        self._aside.delete()

    def configure(self, fields: Mapping[str, Any], **more: Any) -> None:
        """Write its config.json."""
        self._must_be_locked()
        head = {"format": FORMAT, "onward": importlib.metadata.version("onward"), "command": self.command}
        saving.write_json(self / CONFIG, {**head, **more, "fields": dict(fields)})

    def resume(self) -> dict[str, Any]:
        """Go on in a folder of this command: its configuration; refused as by `read_config`."""
        self._must_be_locked()
        config = read_config(self.path, self.command)
        if not (self / ENVIRONMENT).exists():
            saving.write_json(self / ENVIRONMENT, environment())
        return config

    @property
    def holds_run(self) -> bool:
        """Whether some command, of any version, has begun here."""
        return (self / CONFIG).exists() or (self / OLD_SWEEP).exists()

    # Its files

    def append(self, name: str, text: str) -> None:
        """Add to a file; on a full disk a part of `text` may be there, which `cut` takes away."""
        self._must_be_locked()
        if not text:
            return
        try:
            with open(self / name, "a", encoding="utf-8", newline="") as file:
                file.write(text)
        except OSError as error:
            raise saving.Unwritable(self / name, error) from error

    def sizes(self, *names: str) -> dict[str, int]:
        """Bytes of files, to be kept in a checkpoint; the disk holds so much of each from now on."""
        sizes = dict.fromkeys(names, 0)
        for name in names:
            with contextlib.suppress(FileNotFoundError), open(self / name, "rb") as file:
                with contextlib.suppress(OSError):  # not every file system can
                    os.fsync(file.fileno())
                sizes[name] = os.fstat(file.fileno()).st_size
        return sizes

    def cut(self, sizes: Mapping[str, int]) -> None:
        """Take away what was appended after a checkpoint; refuse files that are shorter than they were at it."""
        self._must_be_locked()
        for name, size in sizes.items():
            now = (self / name).stat().st_size if (self / name).exists() else 0
            if now < size:
                raise OnwardError(
                    f"{self / name} has {now:,} bytes and had {size:,}: it was changed since. Put it back, or start "
                    "anew"
                )
        for name, size in sizes.items():
            if size:
                os.truncate(self / name, size)
            else:
                (self / name).unlink(missing_ok=True)

    def record(self, job: str, when: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays of a job, for pictures; `records.load_record` reads them."""
        saving.save_arrays(self / "records" / f"{job}-{when}.npz", arrays, {})
