"""Random numbers from a counter: cheap inside a compiled loop, and a checkpoint of them is one integer."""

import jax
import jax.numpy as jnp
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
