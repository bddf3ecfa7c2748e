"""Weights as other programs read them: `model.safetensors`, and a `config.json` that says what they are of."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import equinox as eqx
import jax
import numpy as np

from onward.errors import needs
from onward.saving import (
    Unreadable,
    check_meta,
    from_named_arrays,
    named_arrays,
    read_json,
    reading,
    write_bytes,
    write_json,
)

try:
    from safetensors import numpy as safetensors
except ImportError as error:
    raise ImportError(needs(__name__, "safetensors")) from error

Part = TypeVar("Part")
FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"


class _Config(TypedDict):
    """What `config.json` must hold."""

    format: int
    onward: str
    sha256: str
    parts: Any
    meta: dict[str, Any]


def save_weights(folder: str | Path, part: Any, /, **meta: Any) -> None:
    """Write the arrays of a model, or of any part, to `folder`, for other programs to read.

    `model.safetensors` holds the arrays by the names of their leaves (`cell.weight`), which is all that a reader of
    safetensors needs. `config.json` says which parts they are of, field by field, with `meta`, the version of onward,
    and the SHA-256 of the weights. What the next step needs besides weights (carry, traces, optimiser, keys) is not a
    model: `onward.save` writes that.

    Raises `OnwardError` if a file cannot be written, ValueError for two arrays of one name, and TypeError for an array
    that holds no numbers of NumPy's (keys, bfloat16).

    >>> import tempfile, jax, onward as ow
    >>> folder = tempfile.mkdtemp()
    >>> model = ow.Model(ow.GRU(2, 3, key=jax.random.key(0)), ow.Linear(3))
    >>> save_weights(folder, model, rows=500)
    >>> model, meta = load_weights(folder, model)
    >>> meta
    {'rows': 500}
    >>> load_weights(folder, ow.Model(ow.LSTM(2, 3, key=jax.random.key(0)), ow.Linear(3)))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    onward.saving.Unreadable: ...config.json: cell.gates.part is 'GRUGates', 'LSTMGates' is needed...
    """
    arrays = named_arrays(part)
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or not array.dtype.isbuiltin:
            raise TypeError(f"save_weights: {name} holds {array.dtype}, numbers of NumPy are needed; use onward.save")
    data = safetensors.save({name: np.array(array, order="C") for name, array in arrays.items()})
    config = _Config(
        format=FORMAT,
        onward=metadata.version("onward"),
        sha256=hashlib.sha256(data).hexdigest(),
        parts=described(part),
        meta=meta,
    )
    write_bytes(Path(folder) / WEIGHTS, data)
    write_json(Path(folder) / CONFIG, config)


def load_weights(folder: str | Path, like: Part) -> tuple[Part, dict[str, Any]]:
    """The part that `save_weights` wrote to `folder`, to the bit, and its meta.

    `like` is a part of the same make; of its arrays only shapes and types matter (`eqx.filter_eval_shape` gives them
    at no cost). Nothing of the files is run, and no class is looked up by a name in them. Raises `Unreadable`, with
    file and field or array, for another part, other settings (a bias, an activation) or shapes, and for weights that
    are missing, damaged, or not those that `config.json` was written with.
    """
    path, weights = Path(folder) / CONFIG, Path(folder) / WEIGHTS
    config = read_json(path)
    if config.get("format") != FORMAT or type(config["format"]) is not int:
        raise Unreadable(f"{path} has format {config.get('format')!r}, save_weights of this version has {FORMAT}")
    check_meta(config, _Config, str(path))
    if odd := _misfit(config["parts"], described(like), ""):
        raise Unreadable(f"{path}: {odd}: the weights are of other parts (onward {config['onward']})")
    with reading(weights):
        data = weights.read_bytes()
        if hashlib.sha256(data).hexdigest() != config["sha256"]:
            raise Unreadable(f"{weights} is damaged, or not the file that {path.name} was written with")
        arrays = safetensors.load(data)
        return from_named_arrays(arrays, like, str(weights)), config["meta"]


def described(part: Any) -> Any:
    """A part as JSON: its class under `part`, then its fields; arrays by type and shape, `float32[3, 4]`."""
    if isinstance(part, jax.Array | np.ndarray | jax.ShapeDtypeStruct):
        return f"{part.dtype}{list(part.shape)}"
    if isinstance(part, eqx.Module):
        fields = {field.name: described(getattr(part, field.name)) for field in dataclasses.fields(part)}
        return {"part": type(part).__name__, **fields}
    if isinstance(part, Mapping):
        return {str(name): described(value) for name, value in part.items()}
    if isinstance(part, tuple | list):
        return [described(value) for value in part]
    if isinstance(part, np.generic):
        return described(part.item())
    if part is None or isinstance(part, str | bool | int) or (isinstance(part, float) and math.isfinite(part)):
        return part
    return str(part) if isinstance(part, float) else getattr(part, "__qualname__", type(part).__name__)


def _misfit(found: Any, wanted: Any, at: str) -> str:
    """The first field in which two descriptions differ, and how; empty: in none."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        if found.get("part") != wanted.get("part"):
            return _misfit(found.get("part"), wanted.get("part"), f"{at}part")
        if odd := [name for name in (*wanted, *found) if (name in wanted) != (name in found)]:
            return f"{at}{odd[0]} is {'missing' if odd[0] in wanted else 'not a field'}"
        pairs = [(found[name], wanted[name], f"{at}{name}") for name in wanted]
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = [(a, b, f"{at}{i}") for i, (a, b) in enumerate(zip(found, wanted, strict=True))]
    else:
        same = type(found) is type(wanted) and found == wanted
        return "" if same else f"{at.removesuffix('.')} is {_brief(found)}, {_brief(wanted)} is needed"
    return next(filter(None, (_misfit(a, b, f"{where}.") for a, b, where in pairs)), "")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:60]} ..."
