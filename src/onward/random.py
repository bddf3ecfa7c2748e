"""Random numbers from a counter: cheap inside a compiled loop, and a checkpoint of them is one integer.

Where `jax.random` is to be followed to the bit, `fold_in` and `uniforms` are its own, unrolled: on a CPU it runs its
rounds in a loop, whose hundred small steps cost more than all else that a small network does.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

Lane = int | UInt32[Array, "n"]


def _mix(bits: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """A bijection of 32 bits in which every input bit flips every output bit with probability near 1/2."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x21F0AAAD)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x735A2D97)
    return bits ^ (bits >> 15)


def seed_of(key: PRNGKeyArray) -> UInt32[Array, "2"]:
    """64 bits drawn from a key, the seed of the functions below."""
    return jax.random.bits(key, (2,), jnp.uint32)


def bits(seed: UInt32[Array, "2"], count: Int[Array, ""], lane: Lane) -> UInt32[Array, "*n"]:
    """32 random bits for draw `lane` (one or several) of step `count`: three keyed rounds of a mixing function."""
    x = _mix(jnp.uint32(count) + seed[0]) ^ seed[1]
    x = _mix(x ^ (jnp.asarray(lane, jnp.uint32) * jnp.uint32(0x9E3779B9)))
    return _mix(x + seed[0])


def uniform(seed: UInt32[Array, "2"], count: Int[Array, ""], lane: Lane) -> Float[Array, "*n"]:
    """In [0, 1), on a grid of 2^-24."""
    return (bits(seed, count, lane) >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def integer(seed: UInt32[Array, "2"], count: Int[Array, ""], lane: Lane, low: int, high: int) -> Int[Array, "*n"]:
    """Uniform on low..high, both included."""
    n = high - low + 1
    return low + jnp.minimum((uniform(seed, count, lane) * n).astype(jnp.int32), n - 1)


# Threefry-2x32 (Salmon et al., 2011): after every four rounds one of three words of the key is added.
_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = 0x1BD11BDA


def _threefry(key: UInt32[Array, "2"], x: Array, y: Array) -> tuple[Array, Array]:
    """Two words of a counter, enciphered."""
    words = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY)
    x, y = x + words[0], y + words[1]
    for i in range(5):
        for by in _ROTATIONS[i % 2]:
            x = x + y
            y = x ^ ((y << by) | (y >> (32 - by)))
        x, y = x + words[(i + 1) % 3], y + words[(i + 2) % 3] + jnp.uint32(i + 1)
    return x, y


def _is_threefry(key: PRNGKeyArray) -> bool:
    return str(jax.random.key_impl(key)) == "threefry2x32"


def fold_in(key: PRNGKeyArray, data: Int[Array, ""] | int) -> PRNGKeyArray:
    """`jax.random.fold_in`, to the bit."""
    if not _is_threefry(key):
        return jax.random.fold_in(key, data)
    words = jax.random.key_data(key)
    return jax.random.wrap_key_data(jnp.stack(_threefry(words, jnp.uint32(0), jnp.asarray(data).astype(jnp.uint32))))


def uniforms(key: PRNGKeyArray, shape: tuple[int, ...] = (), dtype: DTypeLike = float) -> Float[Array, "*shape"]:
    """`jax.random.uniform`, to the bit, with its partitionable bits."""
    if not _is_threefry(key) or jax.dtypes.canonicalize_dtype(dtype) != jnp.float32:
        return jax.random.uniform(key, shape, dtype)
    words = jax.random.key_data(key)
    x, y = _threefry(words, jnp.uint32(0), jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape))
    mantissa = ((x ^ y) >> 9) | jnp.uint32(0x3F800000)
    return lax.bitcast_convert_type(mantissa, jnp.float32) - 1
