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
        return self._joined(state, jnp)

    def from_host(self, state: PyTree) -> Packed:
        """`pack`, by NumPy; nothing is compiled."""
        return self._joined(state, np)

    def unpack(self, packed: Packed) -> PyTree:
        """The state again; traced."""
        return self._cut(packed, lambda buffer, start, stop: lax.slice(buffer, (start,), (stop,)))

    def on_host(self, packed: Packed) -> PyTree:
        """`unpack`, by NumPy; nothing is compiled."""
        return self._cut(jax.device_get(packed), lambda buffer, start, stop: buffer[start:stop])

    def _joined(self, state: PyTree, numpy: Any) -> Packed:
        parts: dict[str, list[Any]] = {"floats": [], "whole": [], "long": []}
        for place, leaf in zip(self._places, jax.tree.leaves(eqx.filter(state, eqx.is_array)), strict=True):
            array = numpy.asarray(_plain(leaf))
            if place.part == "whole":
                array = array.astype(np.int32) if array.dtype == np.bool_ else array.view(np.int32)
            # Of one type before and after a step: weakly typed at the start, a program would be compiled twice.
            parts[place.part].append(array.astype(place.plain) if place.part == "long" else array.reshape(-1))
        join = lambda part, dtype: numpy.concatenate([numpy.zeros(0, dtype), *part])
        return Packed(join(parts["floats"], np.float32), join(parts["whole"], np.int32), tuple(parts["long"]))

    def _cut(self, packed: Packed, piece: Callable[[Any, int, int], Any]) -> PyTree:
        def leaf(place: _Place) -> Any:
            array = getattr(packed, place.part)
            if place.part == "long":
                array = array[place.start]
            else:
                array = piece(array, place.start, place.start + int(np.prod(place.shape))).reshape(place.shape)
            if place.part == "whole":
                array = array.astype(bool) if place.plain == np.bool_ else array.view(place.plain)
            is_key = jnp.issubdtype(place.dtype, jax.dtypes.prng_key)
            return jax.random.wrap_key_data(array) if is_key else array

        return eqx.combine(jax.tree.unflatten(self.structure, [leaf(place) for place in self._places]), self.static)


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
