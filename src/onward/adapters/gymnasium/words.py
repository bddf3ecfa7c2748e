"""A state of many small arrays in one buffer: a call from Python then costs microseconds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from onward.types import PyTree

# Arrays of more numbers are handed over by themselves: they take longer to copy.
LARGE = 2500


class Words(NamedTuple):
    """The bits of all small arrays of a state, end to end, and what was said with it; and its large arrays."""

    small: UInt32[Array, " words"]
    large: tuple[Array, ...]


class Wording:
    """How the arrays of a state of one structure lie in `Words`, which live in memory only."""

    def __init__(self, state: PyTree):
        dynamic, self._static = eqx.partition(state, eqx.is_array)
        self._like, self._structure = jax.tree.flatten(dynamic)
        self._open: Callable[[Words], PyTree] = jax.jit(lambda words: eqx.filter(self.unpack(words), eqx.is_array))

    def pack(self, state: PyTree, said: Array) -> Words:
        """The state, and float32 numbers said with it; traced or not."""
        leaves = jax.tree.leaves(eqx.filter(state, eqx.is_array))
        small = [_bits(leaf) for leaf in (*leaves, said) if leaf.size < LARGE]
        return Words(jnp.concatenate(small), tuple(leaf for leaf in leaves if leaf.size >= LARGE))

    def unpack(self, words: Words) -> PyTree:
        """The state again; traced."""
        large, start, leaves = iter(words.large), 0, []
        for like in self._like:
            if like.size >= LARGE:
                leaves.append(next(large))
            else:
                stop = start + jax.eval_shape(_bits, like).size
                leaves.append(_of_bits(lax.slice(words.small, (start,), (stop,)), like))
                start = stop
        return eqx.combine(jax.tree.unflatten(self._structure, leaves), self._static)

    def state(self, words: Words) -> PyTree:
        """The state again, by a program of its own."""
        return eqx.combine(self._open(words), self._static)


def said_with(words: Words, count: int) -> np.ndarray:
    """The last numbers in the buffer."""
    return np.asarray(words.small)[-count:].view(np.float32)


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _unsigned(dtype: Any) -> Any:
    """What holds the bits of a type; two of it, where there are 64."""
    return jnp.dtype(f"uint{8 * min(dtype.itemsize, 4)}")


def _bits(leaf: Array) -> UInt32[Array, " words"]:
    plain = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    if plain.dtype != jnp.bool_:
        plain = lax.bitcast_convert_type(plain, _unsigned(plain.dtype))
    return plain.astype(jnp.uint32).reshape(-1)


def _of_bits(bits: UInt32[Array, " words"], like: Array) -> Array:
    plain = jax.eval_shape(jax.random.key_data, like) if _is_key(like) else like
    if plain.dtype == jnp.bool_:
        return bits.reshape(plain.shape).astype(jnp.bool_)
    shape = (*plain.shape, 2) if plain.dtype.itemsize == 8 else plain.shape
    array = lax.bitcast_convert_type(bits.reshape(shape).astype(_unsigned(plain.dtype)), plain.dtype)
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like)) if _is_key(like) else array
