"""Saved states: data, never code. One npz file holds arrays by name; it is written aside and renamed into place.

Whatever is read here may be damaged or made up. A file is taken as a whole or refused, in one line, as `Unreadable`.
"""

import contextlib
import io
import json
import math
import os
import struct
import sys
import types
import zipfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NewType, TypeGuard, Union, get_args, get_origin, get_type_hints, is_typeddict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from onward.errors import OnwardError
from onward.types import PyTree

FORMAT = 2
Arrays = dict[str, np.ndarray]
_META, _STATE, _IMPLEMENTATION = "meta", "state.", ".implementation"
_HEADER = ("format", "onward")


class Unreadable(OnwardError):
    """A saved state that is damaged, or that belongs to something else."""


class Unwritable(OnwardError):
    """A file that cannot be written, as on a full disk; the message says how to go on."""

    def __init__(self, path: Path, error: OSError):
        self.what = f"cannot write {path}: {error.strerror or error}"
        super().__init__(f"{self.what}; what was saved before is intact. Make room or mend the folder, then resume")

    def at_start(self) -> OnwardError:
        """The same, where nothing was saved before that could be gone on with."""
        return OnwardError(
            f"{self.what}; nothing was kept of this start. Make room or mend the folder, then start again"
        )


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a power cut, never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise Unwritable(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of readable JSON."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def save(path: str | Path, tree: PyTree, /, **meta: Any) -> None:
    """Write every array of `tree` to the file `path`, under its name, with `meta` as JSON.

    `tree` may be any state or model. What is not an array (sizes, names, functions) is not written: `load` takes it
    from its `like`. The file is written aside and renamed, so that an older one is replaced as a whole or not at all.
    Raises `OnwardError` if the file cannot be written, TypeError if no leaf of the tree is an array.

    >>> import tempfile, jax.numpy as jnp, onward as ow
    >>> path = f"{tempfile.mkdtemp()}/head.npz"
    >>> ow.save(path, ow.Linear(3), step=7)
    >>> head, meta = ow.load(path, ow.Linear(3))
    >>> meta
    {'step': 7}
    >>> ow.load(path, ow.Linear(4))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    onward.saving.Unreadable: ...head.npz...: weight is float32[3], float32[4] is needed...
    """
    arrays = named_arrays(tree)
    if not arrays and jax.tree.leaves(tree):
        raise TypeError(
            f"save: there is no array in this {type(tree).__name__}, so nothing would be kept; save the model or the "
            "state of a learner, and pickle a model of River or scikit-learn"
        )
    save_arrays(Path(path), {_STATE + name: array for name, array in arrays.items()}, meta)


def load(path: str | Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """The tree that `save` wrote to `path`, in the structure of `like`, and its meta.

    `like` is a tree of the same parts, as `learner.init` makes it; only the shapes and types of its arrays matter
    (`eqx.filter_eval_shape` gives them at no cost), the rest of it is taken over. Raises `Unreadable`, naming file and
    array, if an array is missing, is one too many, or has another shape or type, if the file has another format, and
    if it is damaged.
    """
    return tree_of(path, *load_arrays(Path(path)), like)


def tree_of(
    path: str | Path, meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray], like: PyTree
) -> tuple[PyTree, dict[str, Any]]:
    """`load`, of a file that `load_arrays` has read."""
    odd = [name for name in arrays if not name.startswith(_STATE)]
    if odd:
        raise Unreadable(f"{path} holds {odd[0]}: it was not written by save")
    writer, here = meta.get("onward"), metadata.version("onward")
    by = "" if writer in (None, here) else f" (written by onward {writer}, this is {here})"
    tree = from_named_arrays({n.removeprefix(_STATE): a for n, a in arrays.items()}, like, f"{path}{by}")
    return tree, {name: value for name, value in meta.items() if name not in _HEADER}


def named_arrays(tree: PyTree) -> Arrays:
    """Every array of `tree`, on the host, by the path of its leaf: `model.cell.weight`.

    A PRNG key becomes two arrays: its data, and the name of its implementation. Raises ValueError if two leaves have
    the same name, as those of `{"a.b": x, "a": {"b": y}}` have.
    """
    arrays: Arrays = {}
    for name, leaf in _leaves(tree):
        parts = {name: leaf}
        if _is_key(leaf):
            parts = {name: jax.random.key_data(leaf), name + _IMPLEMENTATION: np.asarray(_implementation(leaf))}
        for part, value in parts.items():
            if part in arrays:
                raise ValueError(f"two arrays of the tree have the name {part!r}: rename a key of a dictionary")
            arrays[part] = np.asarray(value)
    return arrays


def names_of(tree: PyTree) -> set[str]:
    """The names that `named_arrays` gives to the arrays of a tree, or to their shapes; of a key that of its data."""
    return {name for name, _ in _leaves(tree)}


def from_named_arrays(arrays: Mapping[str, np.ndarray], like: PyTree, what: str) -> PyTree:
    """The tree that `named_arrays` took apart, in the structure of `like` (arrays, or their shapes).

    `what` says in errors where the arrays are from. Raises `Unreadable`, naming the array, if one is missing, one too
    many, or of another shape or type than in `like`.
    """
    rest = dict(arrays)
    dynamic, static = eqx.partition(like, _is_array)
    restored = [_restored(rest, name, leaf, what) for name, leaf in _leaves(like)]
    if rest:
        raise Unreadable(f"{what} holds {sorted(rest)[0]}, which is not a part of what is to be loaded")
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(dynamic), restored), static)


def _restored(arrays: Arrays, name: str, leaf: Any, what: str) -> Any:
    """The leaf of this name, taken out of `arrays`, if it is of the kind of `leaf`."""
    if name not in arrays:
        raise Unreadable(f"{what} lacks {name}: it was saved from other parts")
    value = np.asarray(arrays.pop(name))
    is_key = _is_key(leaf)
    wanted = jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf
    if value.dtype.kind == wanted.dtype.kind == "V" and value.dtype.itemsize == wanted.dtype.itemsize:
        value = value.view(wanted.dtype)  # numpy's files do not know the name of bfloat16
    if value.shape != wanted.shape or value.dtype != wanted.dtype:
        raise Unreadable(
            f"{what}: {name} is {value.dtype}{list(value.shape)}, {wanted.dtype}{list(wanted.shape)} is needed: "
            f"it was saved from other parts, {_in_precision(value.dtype, wanted.dtype)}or changed"
        )
    if not is_key:
        return value if isinstance(leaf, np.ndarray) else jnp.asarray(value)
    implementation = _implementation(leaf)
    saved = str(arrays.pop(name + _IMPLEMENTATION, None))
    if saved != implementation:
        raise Unreadable(f"{what}: {name} is a key of {saved!r}, one of {implementation!r} is needed")
    return jax.random.wrap_key_data(jnp.asarray(value), impl=implementation)


def _in_precision(saved: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    """How to read numbers of twice the width, or of half."""
    if saved.kind != wanted.kind or {saved.itemsize, wanted.itemsize} != {4, 8}:
        return ""
    return f"in another precision (JAX_ENABLE_X64={int(saved.itemsize == 8)}), "


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def _is_key(leaf: Any) -> TypeGuard[jax.Array]:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _implementation(key: jax.Array) -> str:
    """The name of the generator of a key, or of the shape of one."""
    names: list[str] = []
    jax.eval_shape(lambda key: names.append(str(jax.random.key_impl(key))), key)
    return names[0]


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
    paths, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, _is_array))
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in paths]


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write arrays by name, and `meta` as JSON. Raises ValueError for a name that the file itself uses."""
    taken = sorted({*meta} & {*_HEADER}) + [_META] * (_META in arrays)
    if taken:
        raise ValueError(f"{taken[0]!r} is a name of the file's own; choose another")
    header = json.dumps({"format": FORMAT, "onward": metadata.version("onward"), **meta}).encode()
    buffer = io.BytesIO()
    np.savez(buffer, **{**arrays, _META: np.frombuffer(header, np.uint8)})  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def read_meta(path: Path) -> dict[str, Any]:
    """What a file says of itself; reads and checks the whole file."""
    return load_arrays(path)[0]


def load_arrays(path: Path) -> tuple[dict[str, Any], Arrays]:
    """What `save_arrays` wrote: meta, with the format and the version that wrote it, and arrays.

    Raises `Unreadable` for all else. Sizes are looked at before anything is taken, so that no file asks for more memory
    than it has bytes.
    """
    with reading(path):
        arrays = _unzipped(path.read_bytes())
        meta = json.loads(arrays.pop(_META).tobytes())
        written = meta["format"]
    if type(written) is not int or written != FORMAT:
        raise Unreadable(f"{path} has format {written!r}, this version of onward reads format {FORMAT}")
    return meta, arrays


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Whatever damaged or made-up data leads to inside, of whatever type, becomes one line: `Unreadable`."""
    try:
        yield
    except OnwardError:
        raise
    except FileNotFoundError:
        raise Unreadable(f"there is no file {path}") from None
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise Unreadable(f"{path} is damaged ({type(error).__name__}: {said})") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; raises `Unreadable` where there is none."""
    with reading(path):
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("it holds no object")
    return value


def _unzipped(data: bytes) -> Arrays:
    """Every array of an npz file. Members are stored as they are, each once, and none is larger than the file."""
    arrays: Arrays = {}
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = file.infolist()
        end = data[-22:]  # the last record of the directory: the number of members stands there
        if end[:4] != b"PK\5\6" or struct.unpack("<H", end[10:12])[0] != min(len(members), 0xFFFF):
            raise ValueError("its directory is not whole")
        if sum(member.file_size for member in members) > len(data):
            raise ValueError("its directory names more bytes than there are")
        for member in members:
            name = member.filename.removesuffix(".npy")
            plain = member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
            # Of the flags only one is allowed, that the name is in UTF-8: it is not encrypted, nor a patch.
            if not plain or member.flag_bits & ~0x800 or name == member.filename:
                raise ValueError(f"{member.filename!r} is not stored as a plain array")
            if name in arrays:
                raise ValueError(f"{name!r} is there twice")
            arrays[name] = _array(file.read(member))  # to the last byte: only then is the checksum compared
    return arrays


def _array(data: bytes) -> np.ndarray:
    """The array of an npy file, all of whose bytes it must be."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or dtype.fields or dtype.subdtype:
        raise ValueError(f"an array of {dtype}")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{len(data) - file.tell()} bytes are no {dtype}{list(shape)}")
    return np.ndarray(shape, dtype, data, file.tell(), order="F" if fortran else "C").copy(order="K")


# What JSON must hold

# A number of a result, which may be NaN or infinite; all others are finite.
Number = NewType("Number", float)


def check_meta(value: Any, kind: Any, what: str) -> None:
    """Refuse JSON that is not of a type: a `TypedDict`, whose other keys may hold anything, or what it is made of.

    `what` says in errors where it is from. Raises `Unreadable`, naming the key.
    """
    if odd := _misfit(value, kind, ""):
        raise Unreadable(f"{what} is damaged, or of another version of onward: {odd}")


def _misfit(value: Any, kind: Any, at: str) -> str:
    """Where a JSON value is not of a type, and how; empty: it is. True and false are no numbers."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return ""
    if origin in (types.UnionType, Union):
        return "" if any(not _misfit(value, part, at) for part in parts) else _is(value, at)
    if is_typeddict(kind) and isinstance(value, dict):
        if missing := sorted(kind.__required_keys__ - {*value}):
            return f"{at}.{missing[0]} is missing".removeprefix(".")
        hints = {name: hint for name, hint in get_type_hints(kind).items() if name in value}
        inside = (_misfit(value[name], hint, f"{at}.{name}") for name, hint in hints.items())
    elif origin is list and isinstance(value, list):
        inside = (_misfit(each, parts[0], f"{at}[{i}]") for i, each in enumerate(value))
    elif origin is dict and isinstance(value, dict):
        inside = (_misfit(each, parts[1], f"{at}.{name}") for name, each in value.items())
    elif kind in (float, Number):
        good = type(value) in (int, float) and (kind is Number or abs(value) <= sys.float_info.max)
        return "" if good else _is(value, at)
    else:
        return "" if type(value) is kind or (kind is types.NoneType and value is None) else _is(value, at)
    return next(filter(None, inside), "").removeprefix(".")


def _is(value: Any, at: str) -> str:
    text = repr(value)
    return f"{at.removeprefix('.')} is {text if len(text) < 60 else text[:60] + ' ...'}"
