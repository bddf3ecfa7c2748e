"""Switches of JAX that somebody may set: in a notebook, or for a whole process."""

import jax

SWITCHES = {
    "x64": lambda: jax.enable_x64(True),
    "nan": lambda: jax.debug_nans(True),
    "inf": lambda: jax.debug_infs(True),
    "eager": lambda: jax.disable_jit(True),
    "strict types": lambda: jax.numpy_dtype_promotion("strict"),
    "strict ranks": lambda: jax.numpy_rank_promotion("raise"),
}
