"""A state of many small arrays in two buffers, so that one call from Python costs microseconds."""

from collections.abc import Callable
from typing import Any, NamedTuple

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


class Packing:
    """How the arrays of a state of one structure lie in a `Packed`.

    Arrays named by `keep_apart(state)` stay on their own: they are updated in place.
    """

    def __init__(self, state: PyTree, keep_apart: Callable[[PyTree], PyTree] = lambda state: ()):
        dynamic, self.static = eqx.partition(
            state, lambda leaf: eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
        )
        leaves, self.structure = jax.tree.flatten(dynamic)
        apart = {id(leaf) for leaf in jax.tree.leaves(keep_apart(state))}
        self.kinds = ["long" if id(leaf) in apart else _kind(leaf.dtype) for leaf in leaves]
        plain = [jax.eval_shape(_plain, leaf) for leaf in leaves]
        self.shapes = [(leaf.shape, leaf.dtype) for leaf in plain]
        self.dtypes = [leaf.dtype for leaf in leaves]

    def pack(self, state: PyTree) -> Packed:
        """Traced or not."""
        leaves = [_plain(leaf) for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_array))]
        flat = {"float": [], "whole": [], "long": []}  # type: dict[str, list[Array]]
        for kind, leaf in zip(self.kinds, leaves, strict=True):
            if kind == "whole":
                leaf = (
                    leaf.astype(jnp.int32)
                    if jnp.issubdtype(leaf.dtype, jnp.bool_)
                    else lax.bitcast_convert_type(leaf, jnp.int32)
                )
            flat[kind].append(leaf if kind == "long" else leaf.reshape(-1))
        join = lambda parts, dtype: jnp.concatenate([jnp.zeros(0, dtype), *parts])
        return Packed(join(flat["float"], jnp.float32), join(flat["whole"], jnp.int32), tuple(flat["long"]))

    def unpack(self, packed: Packed) -> PyTree:
        """The state again."""
        at = {"float": 0, "whole": 0}
        long = iter(packed.long)
        leaves = []
        for kind, (shape, dtype), wanted in zip(self.kinds, self.shapes, self.dtypes, strict=True):
            if kind == "long":
                leaves.append(next(long))
                continue
            size = int(np.prod(shape))
            buffer = packed.floats if kind == "float" else packed.whole
            part = lax.slice(buffer, (at[kind],), (at[kind] + size,)).reshape(shape)
            at[kind] += size
            if kind == "whole":
                part = part.astype(bool) if jnp.issubdtype(dtype, jnp.bool_) else lax.bitcast_convert_type(part, dtype)
            leaves.append(jax.random.wrap_key_data(part) if jnp.issubdtype(wanted, jax.dtypes.prng_key) else part)
        return eqx.combine(jax.tree.unflatten(self.structure, leaves), self.static)


def _kind(dtype: Any) -> str:
    return "float" if jnp.issubdtype(dtype, jnp.floating) else "whole"


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
