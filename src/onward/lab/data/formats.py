"""Files of digits and of music, read and checked: IDX, .mat and .npz. Reading never runs code.

A piece of music is a piano roll: an eighth note a row, the 88 keys of a piano (MIDI notes 21 to 108) as columns, 1
where a key is down.
"""

import gzip
import hashlib
import io
import math
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from onward.errors import OnwardError
from onward.text import counted

KEYS, LOWEST, HIGHEST = 88, 21, 108
SPLITS = ("train", "valid", "test")
DIGITS = ("train_images", "train_labels", "test_images", "test_labels")
MAX_BYTES = 2**31
MAX_STEPS = 100_000


class Digits(NamedTuple):
    """Digits of the digits 0 to 9, uint8 (n, height, width), and labels (n,), in two parts."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    top: int = 255  # the greatest value a pixel may have


class Piece(NamedTuple):
    """A title (empty where the file gives none) and a piano roll, (steps, 88) uint8."""

    title: str
    roll: np.ndarray


class Pieces(NamedTuple):
    """Music in three parts, and what a person should know of how it was read."""

    train: tuple[Piece, ...]
    valid: tuple[Piece, ...]
    test: tuple[Piece, ...]
    notes: tuple[str, ...] = ()


# Digits


def find_idx(folder: Path, name: str) -> Path | None:
    """The IDX file of `train_images` and so on, however it is spelt."""
    part, what = name.split("_")
    stem = f"{part.replace('test', 't10k')}-{what}"
    suffix = f"idx{3 if what == 'images' else 1}-ubyte"
    names = [f"{stem}{mark}{suffix}{end}" for end in ("", ".gz") for mark in "-."]
    return next((folder / name for name in names if os.path.isfile(folder / name)), None)


def read_images(folder: Path) -> Digits:
    """The four IDX files of MNIST and its like: `train-images-idx3-ubyte` and so on, plain or gzip."""
    paths = {name: find_idx(folder, name) for name in DIGITS}
    missing = [name.replace("_", "-").replace("test", "t10k") for name, path in paths.items() if path is None]
    if missing:
        raise OnwardError(
            f"{folder} lacks {', '.join(missing)}: it needs train-images-idx3-ubyte, train-labels-idx1-ubyte, "
            "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each plain or with .gz"
        )
    arrays: Any = {name: read_idx(path, 3 if "images" in name else 1) for name, path in paths.items() if path}
    return check_images(Digits(**arrays), folder)


def read_idx(path: Path, axes: int) -> np.ndarray:
    """One IDX file of bytes with this many axes."""
    header = 4 + 4 * axes
    try:
        with open(path, "rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as file:
            head = file.read(header)
            wanted = bytes([0, 0, 8, axes])
            if head[:4] != wanted:
                raise OnwardError(
                    f"{path} starts with {head[:4].hex(' ') or 'nothing'}; an IDX file of "
                    f"{'images' if axes == 3 else 'labels'} starts with {wanted.hex(' ')}: get the right file"
                )
            if len(head) < header:
                raise OnwardError(f"{path} ends within its header: it was cut short; get it again")
            shape = tuple(int.from_bytes(head[i : i + 4], "big") for i in range(4, header, 4))
            size = math.prod(shape)
            if not 0 < size < MAX_BYTES:
                raise OnwardError(f"{path} says it holds {' x '.join(map(str, shape))} bytes; 1 to 2^31 are allowed")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise OnwardError(
            f"cannot read {path} ({str(error) or type(error).__name__}): it is damaged or cut short; get it again"
        ) from error
    if len(data) != size:
        follow = f"{len(data):,}" if len(data) < size else "more"
        raise OnwardError(
            f"{path} says it holds {' x '.join(map(str, shape))} = {size:,} bytes, and {follow} follow: get it again"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def check_images(images: Digits, path: Path) -> Digits:
    """The same images, once they fit together."""
    for part in ("train", "test"):
        pixels, labels = getattr(images, f"{part}_images"), getattr(images, f"{part}_labels")
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or labels.ndim != 1 or labels.dtype.kind not in "ui":
            raise OnwardError(
                f"{path}: the {part} images are {pixels.dtype}{list(pixels.shape)} and the labels "
                f"{labels.dtype}{list(labels.shape)}; they must be uint8 [n, height, width] and whole numbers [n]"
            )
        if len(pixels) != len(labels):
            raise OnwardError(
                f"{path}: {len(pixels):,} {part} images and {len(labels):,} labels; the files are not of one set"
            )
        wrong = np.flatnonzero((labels < 0) | (labels > 9))
        if len(wrong):
            raise OnwardError(
                f"{path}: {part} label {wrong[0] + 1:,} is {labels[wrong[0]]}; labels are 0 to 9 "
                f"({len(wrong):,} are not). Sets with more classes cannot be used"
            )
    if images.train_images.shape[1:] != images.test_images.shape[1:]:
        raise OnwardError(
            f"{path}: training images of {list(images.train_images.shape[1:])} pixels and test images of "
            f"{list(images.test_images.shape[1:])}; the files are not of one set"
        )
    return images


# Music


def as_roll(value: ArrayLike, where: str) -> np.ndarray:
    """A (steps, 88) uint8 array of 0 and 1, or an error that says `where` it came from."""
    array = np.asarray(value)
    if array.size == 0:
        return np.zeros((0, KEYS), np.uint8)
    if array.ndim != 2 or array.shape[1] != KEYS or array.dtype.kind not in "buif":
        raise OnwardError(f"{where} is {array.dtype}{list(array.shape)}; a piano roll is [steps, 88] of 0 and 1")
    wrong = array[(array != 0) & (array != 1)]
    if len(wrong):
        raise OnwardError(f"{where} holds {wrong[0]}; a piano roll is [steps, 88] of 0 and 1")
    return array.astype(np.uint8)


def listed(parts: Sequence[str], most: int = 5) -> str:
    """The first few, and how many more."""
    return ", ".join(parts[:most]) + (f" and {len(parts) - most:,} more" if len(parts) > most else "")


def usable(pieces: Sequence[Piece], split: str) -> tuple[list[Piece], list[str]]:
    """Without the pieces that have nothing to predict; and the names of those."""
    kept = [len(piece.roll) > 1 and piece.roll.any() for piece in pieces]
    dropped = [piece.title or f"{split} {i + 1}" for i, piece in enumerate(pieces) if not kept[i]]
    return [piece for piece, keep in zip(pieces, kept, strict=True) if keep], dropped


def note_dropped(names: Sequence[str]) -> tuple[str, ...]:
    """A note of the pieces that `usable` left out."""
    return (f"left out {counted(len(names), 'piece')}, empty or of a single frame: {listed(names)}",) if names else ()


def as_pieces(parts: dict[str, list[Piece]], path: Path, notes: Sequence[str] = ()) -> Pieces:
    """The usable pieces of each part, of which there must be some."""
    kept, names = {}, []
    for split in SPLITS:
        kept[split], dropped = usable(parts[split], split)
        names += dropped
        if not kept[split]:
            raise OnwardError(
                f"{path}: no piece of the {split} part can be used ({len(parts[split]):,} given); "
                "each of train, valid and test needs at least one of two frames or more"
            )
    train, valid, test = (tuple(kept[split]) for split in SPLITS)
    return Pieces(train, valid, test, (*notes, *note_dropped(names)))


def read_mat(path: Path, known: Mapping[str, str]) -> Pieces:
    """One of the .mat files whose name and checksum are `known`: `traindata` and so on, each a row of piano rolls.

    It is read only once its checksum is found good, for a damaged one can crash the reader.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OnwardError(f"cannot read {path}: {error.strerror or error}") from error
    if f"sha256:{hashlib.sha256(data).hexdigest()}" not in known.values():
        raise OnwardError(
            f"{path} is none of the known .mat files, {', '.join(sorted(known))}: it is damaged or another file. "
            "Get it again; music of your own is read from MIDI files or an .npz"
        )
    from scipy.io import loadmat  # here: it takes a quarter of a second

    cells = loadmat(io.BytesIO(data))
    parts = {
        split: [
            Piece("", as_roll(roll, f"{path}: piece {i + 1} of {split}"))
            for i, roll in enumerate(cells[f"{split}data"].ravel())
        ]
        for split in SPLITS
    }
    return as_pieces(parts, path)


def note_outside(outside: dict[str, Counter[int]]) -> tuple[str, ...]:
    """A note of the MIDI notes, by file, that no piano has."""
    total = sum(notes.total() for notes in outside.values())
    if not total:
        return ()
    where = [f"{name} ({listed([str(note) for note in sorted(notes)])})" for name, notes in outside.items() if notes]
    return (f"left out {counted(total, 'note')} outside the piano, MIDI {LOWEST} to {HIGHEST}: {listed(where)}",)


def read_npz(path: Path) -> Digits | Pieces:
    """What `pack` wrote; or `train` and so on, (pieces, steps, 88) or (frames, 88) with `train_lengths` and so on."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz file, or cut short")
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if sum(entry.file_size for entry in file.zip.infolist()) > MAX_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_BYTES:,} bytes")
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged file raises nearly anything
        raise OnwardError(f"cannot read {path} ({type(error).__name__}: {error})") from error
    if all(name in arrays for name in DIGITS):
        return check_images(Digits(*(arrays[name] for name in DIGITS)), path)
    parts = {}
    for split in SPLITS:
        if f"{split}_frames" in arrays:
            packed = arrays[f"{split}_frames"]
            if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != KEYS // 8:
                raise OnwardError(
                    f"{path}: {split}_frames is {packed.dtype}{list(packed.shape)}, not uint8 [frames, 11]"
                )
            frames = np.unpackbits(packed, axis=1)
        elif split in arrays:
            frames = arrays[split]
        else:
            raise OnwardError(
                f"{path} holds {listed(sorted(arrays)) or 'nothing'}; music is train, valid and test, each "
                "[pieces, steps, 88], or [frames, 88] with train_lengths and so on; digits are "
                f"{', '.join(DIGITS)}"
            )
        parts[split] = [
            Piece(title, as_roll(roll, f"{path}: piece {i + 1} of {split}"))
            for i, (title, roll) in enumerate(_cut(frames, arrays, split, path))
        ]
    return as_pieces(parts, path)


def _cut(frames: np.ndarray, arrays: dict[str, np.ndarray], split: str, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    if frames.ndim == 3:
        return (("", roll) for roll in frames)
    if frames.ndim != 2:
        raise OnwardError(f"{path}: {split} has {frames.ndim} axes; it must be [pieces, steps, 88] or [frames, 88]")
    lengths, titles = arrays.get(f"{split}_lengths"), arrays.get(f"{split}_titles")
    good = lengths is not None and lengths.dtype.kind in "iu" and lengths.ndim == 1 and len(lengths) > 0
    if lengths is None or not good or (lengths < 0).any() or lengths.sum() != len(frames):
        raise OnwardError(f"{path}: {split}_lengths must be whole numbers that sum to its {len(frames):,} frames")
    names = [""] * len(lengths) if titles is None or len(titles) != len(lengths) else [str(t) for t in titles]
    return zip(names, np.split(frames, np.cumsum(lengths)[:-1]), strict=True)


def pack(content: Digits | Pieces) -> dict[str, np.ndarray]:
    """The arrays kept in the data folder: images as they are; frames of music as bits, with lengths and titles."""
    if isinstance(content, Digits):
        return {name: np.asarray(getattr(content, name), np.uint8) for name in DIGITS}
    arrays = {}
    for split in SPLITS:
        pieces: tuple[Piece, ...] = getattr(content, split)
        arrays[f"{split}_frames"] = np.packbits(np.concatenate([piece.roll for piece in pieces]), axis=1)
        arrays[f"{split}_lengths"] = np.array([len(piece.roll) for piece in pieces], np.int32)
        if any(piece.title for piece in pieces):
            arrays[f"{split}_titles"] = np.array([piece.title for piece in pieces])
    return arrays
