"""Random numbers of our own beside those of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onward import random

KEYS = [jax.random.key(seed) for seed in (0, 1, 2**32 - 1)]
same = lambda a, b: np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("data", [0, 1, 12345, 2**31 - 1, 2**32 - 1])
def test_keys_folded_in_are_those_of_jax(data):
    for key in KEYS:
        ours, theirs = random.fold_in(key, np.uint32(data)), jax.random.fold_in(key, np.uint32(data))
        assert same(jax.random.key_data(ours), jax.random.key_data(theirs))
        assert ours.dtype == theirs.dtype


def test_keys_folded_in_a_loop_and_under_vmap():
    steps = jnp.arange(-3, 200, dtype=jnp.int32)
    each_step = jax.jit(jax.vmap(random.fold_in, (None, 0)))
    for key in KEYS:
        folded = each_step(key, steps)
        each = [jax.random.key_data(jax.random.fold_in(key, step)) for step in steps]
        assert same(jax.random.key_data(folded), jnp.stack(each))


@pytest.mark.parametrize("shape", [(), (2,), (3, 5)])
def test_uniform_numbers_are_those_of_jax(shape):
    keys = jax.random.split(KEYS[1], 300)
    ours = jax.vmap(lambda key: random.uniforms(key, shape))(keys)
    assert same(ours, jax.vmap(lambda key: jax.random.uniform(key, shape))(keys))
    assert ours.dtype == jnp.float32


def test_in_double_precision_and_of_another_generator_they_are_jax_s_own():
    with jax.enable_x64(True):
        assert same(random.uniforms(KEYS[0], (4,)), jax.random.uniform(KEYS[0], (4,)))
        assert random.uniforms(KEYS[0]).dtype == jnp.float64
        assert same(random.uniforms(KEYS[0], (), jnp.float32), jax.random.uniform(KEYS[0], (), jnp.float32))
    other = jax.random.key(3, impl="rbg")
    assert same(random.uniforms(other, (4,)), jax.random.uniform(other, (4,)))
    assert same(jax.random.key_data(random.fold_in(other, 7)), jax.random.key_data(jax.random.fold_in(other, 7)))
