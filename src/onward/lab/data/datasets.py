"""The data sets: what there is, where it is kept, and how it gets there (`onward data`).

A set is embedded, or one file `NAME.npz` in the data folder, written whole or not at all. Importing a set checks it.
"""

import functools
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from onward.errors import OnwardError, nearest
from onward.lab.data import formats
from onward.lab.data.download import download
from onward.lab.data.etudes import etudes
from onward.lab.data.formats import SPLITS, Digits, Pieces
from onward.lab.data.known import KNOWN, MNIST_MD5, Kind
from onward.lab.data.midi import read_midi, write_midi
from onward.saving import write_bytes

__all__ = ["Digits", "Music", "data_folder", "fetch", "fingerprint", "install", "installed", "kind_of", "load_digits"]
__all__ += ["load_music", "overview", "write_midi"]

Say = Callable[[str], object]
Set = TypeVar("Set", "Digits", "Music")


class Music(NamedTuple):
    """Piano rolls in three parts, each roll (steps, 88) uint8 of 0 and 1."""

    train: tuple[np.ndarray, ...]
    valid: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]
    titles: tuple[tuple[str, ...], ...] = ((), (), ())  # of each part; a piece without one has its number


# Where


def data_folder() -> Path:
    """The folder of the sets: ONWARD_DATA, or the one this system keeps a user's data in."""
    import platformdirs

    own = os.environ.get("ONWARD_DATA")
    return Path(own).expanduser() if own else platformdirs.user_data_path("onward", appauthor=False)


def _folder_made() -> Path:
    """The data folder, there and writable."""
    folder = data_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OnwardError(
            f"cannot write into the data folder {folder}: {error.strerror or error}; "
            "set ONWARD_DATA to a folder that can be written to"
        ) from error
    return folder


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
    near = nearest(name, _names())
    hint = f"did you mean {near}?" if near else f"there are: {', '.join(_names())}."
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

    >>> [len(part) for part in load_music("etudes")[:3]]
    [60, 12, 12]
    """
    if name == "etudes":
        made = etudes()
        return Music(made["train"], made["valid"], made["test"])
    return cast(Music, _load(name, "music"))


def fingerprint(content: Digits | Music) -> str:
    """Of what the set holds."""
    digest = hashlib.sha256()
    for array in _arrays(content):
        digest.update(str((array.shape, array.dtype)).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _arrays(content: Digits | Music) -> tuple[np.ndarray, ...]:
    return content[:4] if isinstance(content, Digits) else (*content.train, *content.valid, *content.test)


@functools.cache
def _digits() -> Digits:
    """Every fifth image is held out, as in `onward.tasks.digits`."""
    with resources.files("onward.lab.data").joinpath("digits.npz").open("rb") as file, np.load(file) as data:
        images, labels = data["images"], data["labels"].astype(np.int32)
    test = np.arange(len(labels)) % 5 == 4
    return _frozen(Digits(images[~test], labels[~test], images[test], labels[test], top=16))


def _frozen(content: Set) -> Set:
    """The same set, with arrays that cannot be written to: they are shared."""
    for array in _arrays(content):
        array.setflags(write=False)
    return content


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
        content = _cached(path, stat.st_mtime_ns, stat.st_size)
    except (OnwardError, OSError) as error:
        ways = [f"onward data fetch {name}"] * (name in KNOWN) + [f"onward data import {name} PATH"]
        raise OnwardError(f"the installed set is damaged: {error}. Install it anew: {', or '.join(ways)}") from None
    if name in KNOWN and isinstance(content, Digits) != (KNOWN[name].kind == "digits"):
        raise OnwardError(f"{path} does not hold {KNOWN[name].kind}: delete it")
    return content


@functools.lru_cache(maxsize=8)
def _cached(path: Path, changed: int, size: int) -> Digits | Music:
    content = formats.read_npz(path)
    if isinstance(content, Pieces):
        train, valid, test = (tuple(piece.roll for piece in part) for part in content[:3])
        titles = tuple(tuple(p.title or f"number {i}" for i, p in enumerate(part, 1)) for part in content[:3])
        return _frozen(Music(train, valid, test, titles))
    labels = {name: getattr(content, name).astype(np.int32) for name in ("train_labels", "test_labels")}
    return _frozen(content._replace(**labels))


# Installing


def install(name: str, path: Path, say: Say = print) -> None:
    """Read a set from the user's files, check it, and keep it in the data folder."""
    target = _path(name)
    if _embedded(name):
        raise OnwardError(f"{name} is embedded and cannot be replaced: choose another name")
    if name not in KNOWN and name.lower() in KNOWN:
        raise _unknown(name)
    content = _read(Path(path), KNOWN[name].kind if name in KNOWN else None)
    replaces = installed(name)
    packed = io.BytesIO()
    np.savez_compressed(packed, **cast(Any, formats.pack(content)))
    _folder_made()
    write_bytes(target, packed.getvalue())
    if isinstance(content, Pieces):
        for note in content.notes:
            say(f"{name}: {note}")
    _warn(name, content, say)
    say(f"{name}: {_counts(_sizes(content))}, {'replaced' if replaces else 'installed'} in {target}")


def _read(path: Path, kind: Kind | None) -> Digits | Pieces:
    """Whatever lies at `path`; `kind` ("digits" or "music") says what must."""
    if not os.path.exists(path):
        raise OnwardError(f"there is no {path}: give the file, or the folder, that you have")
    content: Digits | Pieces
    if path.is_dir():
        is_idx = any(formats.find_idx(path, name) for name in formats.DIGITS)
        content = formats.read_images(path) if kind == "digits" or (kind is None and is_idx) else read_midi(path)
    elif path.suffix.lower() == ".npz":
        content = formats.read_npz(path)
    elif kind == "digits":
        raise OnwardError(f"{path} is a file: digits are read from a folder with the four IDX files, or from an .npz")
    elif path.suffix.lower() == ".mat":
        mats = {known.downloads[0] for known in KNOWN.values() if known.kind == "music" and known.downloads}
        content = formats.read_mat(path, {mat.file: mat.checksum for mat in mats})
    else:
        raise OnwardError(
            f"{path} is of no known form: music is read from an .npz file, a folder of MIDI files or one of the known .mat files, "
            "digits from a folder with IDX files"
        )
    if kind is not None and isinstance(content, Digits) != (kind == "digits"):
        raise OnwardError(
            f"{path} holds {'digits' if isinstance(content, Digits) else 'music'}, and this set is {kind}"
        )
    return content


def _sizes(content: Any) -> tuple[int, ...]:
    if isinstance(content, Digits):
        return len(content.train_images), len(content.test_images)
    return tuple(len(getattr(content, split)) for split in SPLITS)


def _counts(sizes: tuple[int, ...]) -> str:
    return f"{sizes[0]:,} + {sizes[1]:,} images" if len(sizes) == 2 else f"{'/'.join(map(str, sizes))} pieces"


def _warn(name: str, content: Digits | Pieces, say: Say) -> None:
    """Say when a set does not hold what its name promises."""
    if name == "mnist" and isinstance(content, Digits):
        same = tuple(map(_md5, _arrays(content))) == MNIST_MD5
    else:
        same = name not in KNOWN or _sizes(content) == KNOWN[name].counts
    if not same:
        expected = "" if _sizes(content) == KNOWN[name].counts else f" ({_counts(KNOWN[name].counts)})"
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
    known = KNOWN[name]
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
    with tempfile.TemporaryDirectory(dir=_folder_made(), prefix=".fetch-") as place:
        for wanted in known.downloads:
            download(name, wanted, Path(place), say)
        install(name, Path(place) if len(known.downloads) > 1 else Path(place) / known.downloads[0].file, say)


# Telling


def overview() -> list[str]:
    """A line for each set: its name, what it holds, and whether it is embedded, installed or how to get it."""
    return [f"{name:12} {_line(name)}" for name in _names()]


def _line(name: str) -> str:
    known = KNOWN.get(name)
    here = installed(name)
    try:
        content = _stored(name) if here and not _embedded(name) else None
    except OnwardError as error:
        return f"damaged        {error}"
    sizes = _sizes(content) if content else known.counts if known else ()
    what = f"{known.line}; {_counts(sizes)}" if known else f"your own; {_counts(sizes)}"
    if known and not here:
        return f"not installed  {what}; onward data fetch {name} ({known.megabytes} MB)"
    return f"{'embedded' if _embedded(name) else 'installed':14} {what}"
