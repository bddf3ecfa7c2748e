"""Room for more in the arrays of a state."""

from typing import Any

import equinox as eqx
import jax
import numpy as np

from onward.types import PyTree


def enlarge(old: PyTree, new: PyTree, at: int) -> PyTree:
    """The arrays of `old` in the shapes of `new`: what is missing is inserted from `new` at place `at` of its axis."""

    def fit(a: Any, b: Any) -> Any:
        if not eqx.is_array(a) or a.shape == b.shape:
            return a
        kept = [np.delete(np.arange(n), slice(at, at + n - m)) for m, n in zip(a.shape, b.shape, strict=True)]
        return b.at[np.ix_(*kept)].set(a)

    # Part by part: the structures may differ in what they say of sizes.
    leaves, structure = jax.tree.flatten(new)
    return jax.tree.unflatten(structure, [fit(a, b) for a, b in zip(jax.tree.leaves(old), leaves, strict=True)])
