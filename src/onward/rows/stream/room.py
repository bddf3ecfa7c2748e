"""Room for more in the arrays of a state."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from onward.types import PyTree


def enlarge(old: PyTree, new: PyTree, at: int) -> PyTree:
    """The arrays of `old` in the shapes of `new`: what is missing is inserted from `new` at place `at` of its axis."""

    def fit(a: Any, b: Any) -> Any:
        if not eqx.is_array(a) or a.shape == b.shape:
            return a
        for axis in range(a.ndim):
            more = b.shape[axis] - a.shape[axis]
            if more:
                size = a.shape[axis]
                head, tail = lax.slice_in_dim(a, 0, at, axis=axis), lax.slice_in_dim(a, at, size, axis=axis)
                part = lax.slice_in_dim(b, at, at + more, axis=axis)
                # `b` is still larger along later axes: those places are filled when their turn comes.
                for later in range(axis + 1, a.ndim):
                    if b.shape[later] != a.shape[later]:
                        extra = b.shape[later] - a.shape[later]
                        ends = (
                            lax.slice_in_dim(part, 0, at, axis=later),
                            lax.slice_in_dim(part, at + extra, b.shape[later], axis=later),
                        )
                        part = jnp.concatenate(ends, later)
                a = jnp.concatenate([head, part, tail], axis)
        return a

    # Part by part: the structures may differ in what they say of sizes.
    leaves, structure = jax.tree.flatten(new)
    return jax.tree.unflatten(structure, [fit(a, b) for a, b in zip(jax.tree.leaves(old), leaves, strict=True)])
