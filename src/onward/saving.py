"""Checkpoints: data, never code. One npz file a checkpoint, written aside and renamed into place."""

import contextlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from onward.errors import OnwardError
from onward.types import PyTree

FORMAT = 1
_META = "meta"


class Unreadable(OnwardError):
    """A checkpoint that is damaged, or that belongs to something else."""


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
        raise OnwardError(
            f"cannot write {path}: {error.strerror or error}; what was saved before is intact. "
            "Make room or mend the folder, then resume"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of readable JSON."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def _plain(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
    paths, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, eqx.is_array))
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in paths]


def save(path: Path, state: PyTree, meta: dict[str, Any]) -> None:
    """Every array of `state` under its path, and `meta` as JSON."""
    save_arrays(path, {f"state.{name}": _plain(leaf) for name, leaf in _leaves(state)}, meta)


def save_arrays(path: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Arrays by name, and `meta` as JSON."""
    buffer = io.BytesIO()
    header = np.frombuffer(json.dumps({"format": FORMAT, **meta}).encode(), np.uint8)
    np.savez(buffer, **{**arrays, _META: header})  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def read_meta(path: Path) -> dict[str, Any]:
    """What the checkpoint says of itself; reads and checks the whole file."""
    return load_arrays(path)[0]


def load_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `save_arrays` kept: meta and arrays."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop(_META).tobytes())
        found = meta["format"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise Unreadable(f"checkpoint {path} is damaged ({type(error).__name__}: {error})") from error
    if found != FORMAT:
        raise Unreadable(f"checkpoint {path} has format {found!r}, this version of onward reads format {FORMAT}")
    return meta, arrays


def load(path: Path, skeleton: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """The state saved in `path`, in the structure of `skeleton` (arrays or their shapes)."""
    meta, arrays = load_arrays(path)
    dynamic, static = eqx.partition(skeleton, lambda leaf: eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct))
    flat, structure = jax.tree_util.tree_flatten_with_path(dynamic)
    restored = []
    for tree_path, leaf in flat:
        name = "state." + jax.tree_util.keystr(tree_path, simple=True, separator=".")
        if name not in arrays:
            raise Unreadable(f"checkpoint {path} lacks {name}: it belongs to another configuration")
        value = arrays.pop(name)
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        wanted = jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf
        if value.shape != wanted.shape or value.dtype != wanted.dtype:
            raise Unreadable(
                f"checkpoint {path}: {name} is {value.dtype}{list(value.shape)}, the configuration needs "
                f"{wanted.dtype}{list(wanted.shape)}"
            )
        restored.append(jax.random.wrap_key_data(jnp.asarray(value)) if is_key else jnp.asarray(value))
    if arrays:
        raise Unreadable(f"checkpoint {path} holds {sorted(arrays)[0]}, which the configuration does not have")
    return eqx.combine(jax.tree.unflatten(structure, restored), static), meta
