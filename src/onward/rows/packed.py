"""A state of many small arrays in two buffers, so that one call from Python costs microseconds."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from onward.types import PyTree


class Packed(NamedTuple):
    """Floats end to end, integers (and keys and flags) end to end, and arrays that are too long to be copied."""

    floats: Array
    whole: Array
    long: tuple[Array, ...]


class _Place(NamedTuple):
    """Where a leaf lies: in which part and from where on, its shape, and its types as plain numbers and as a leaf."""

    part: Literal["floats", "whole", "long"]
    start: int
    shape: tuple[int, ...]
    plain: Any
    dtype: Any


class Packing:
    """How the arrays of a state of one structure lie in a `Packed`, which lives in memory only.

    `state` may hold shapes in place of arrays; they are kept as `shapes`. Arrays named by `keep_apart(state)` stay on
    their own: they are updated in place.
    """

    def __init__(self, state: PyTree, keep_apart: Callable[[PyTree], PyTree] = lambda state: ()):
        self.shapes = state
        dynamic, self.static = eqx.partition(
            state, lambda leaf: eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
        )
        leaves, self.structure = jax.tree.flatten(dynamic)
        apart = {id(leaf) for leaf in jax.tree.leaves(keep_apart(state))}
        filled = {"floats": 0, "whole": 0, "long": 0}
        self._places: list[_Place] = []
        for leaf in leaves:
            plain = jax.eval_shape(_plain, leaf)
            floats = jnp.issubdtype(plain.dtype, jnp.floating)
            part: Any = "long" if id(leaf) in apart else "floats" if floats else "whole"
            self._places.append(_Place(part, filled[part], plain.shape, plain.dtype, leaf.dtype))
            filled[part] += 1 if part == "long" else int(np.prod(plain.shape))

    def pack(self, state: PyTree) -> Packed:
        """Traced or not."""
        leaves = [_plain(leaf) for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_array))]
        parts: dict[str, list[Array]] = {"floats": [], "whole": [], "long": []}
        for place, leaf in zip(self._places, leaves, strict=True):
            if place.part == "whole":
                leaf = (
                    leaf.astype(jnp.int32)
                    if jnp.issubdtype(leaf.dtype, jnp.bool_)
                    else lax.bitcast_convert_type(leaf, jnp.int32)
                )
            parts[place.part].append(leaf if place.part == "long" else leaf.reshape(-1))
        join = lambda part, dtype: jnp.concatenate([jnp.zeros(0, dtype), *part])
        return Packed(join(parts["floats"], jnp.float32), join(parts["whole"], jnp.int32), tuple(parts["long"]))

    def unpack(self, packed: Packed) -> PyTree:
        """The state again; traced."""

        def leaf(place: _Place) -> Array:
            if place.part == "long":
                return packed.long[place.start]
            buffer = packed.floats if place.part == "floats" else packed.whole
            size = int(np.prod(place.shape))
            part = lax.slice(buffer, (place.start,), (place.start + size,)).reshape(place.shape)
            if place.part == "whole":
                flag = jnp.issubdtype(place.plain, jnp.bool_)
                part = part.astype(bool) if flag else lax.bitcast_convert_type(part, place.plain)
            return _typed(part, place)

        return self._tree([leaf(place) for place in self._places])

    def on_host(self, packed: Packed) -> PyTree:
        """The state, of NumPy arrays; nothing is compiled."""
        host: Packed = jax.device_get(packed)

        def leaf(place: _Place) -> Any:
            if place.part == "long":
                return _typed(host.long[place.start], place)
            buffer = np.asarray(host.floats if place.part == "floats" else host.whole)
            part = buffer[place.start : place.start + int(np.prod(place.shape))].reshape(place.shape)
            if place.part == "whole":
                part = part.astype(bool) if place.plain == np.bool_ else part.view(place.plain)
            return _typed(part, place)

        return self._tree([leaf(place) for place in self._places])

    def from_host(self, state: PyTree) -> Packed:
        """`pack`, by NumPy."""
        parts: dict[str, list[np.ndarray]] = {"floats": [], "whole": [], "long": []}
        for place, leaf in zip(self._places, jax.tree.leaves(eqx.filter(state, eqx.is_array)), strict=True):
            array = np.asarray(_plain(leaf))
            if place.part == "whole":
                array = array.astype(np.int32) if array.dtype == np.bool_ else array.view(np.int32)
            parts[place.part].append(array if place.part == "long" else array.reshape(-1))
        join = lambda part, dtype: np.concatenate([np.zeros(0, dtype), *part])
        floats, whole = join(parts["floats"], np.float32), join(parts["whole"], np.int32)
        return Packed(floats, whole, tuple(parts["long"]))  # type: ignore[arg-type]

    def _tree(self, leaves: list[Any]) -> PyTree:
        return eqx.combine(jax.tree.unflatten(self.structure, leaves), self.static)


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _typed(leaf: Any, place: _Place) -> Any:
    return jax.random.wrap_key_data(leaf) if jnp.issubdtype(place.dtype, jax.dtypes.prng_key) else leaf
