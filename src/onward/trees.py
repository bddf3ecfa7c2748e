"""Small helpers over pytrees: what learns, what depends on what, choosing, adding, remembering."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.extend.core
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array

from onward.batching import pointwise
from onward.types import PyTree


def trainable(part: PyTree) -> PyTree:
    """The bool tree that `part` answers about its own leaves, or: every floating array is trainable."""
    answer = getattr(part, "trainable", None)
    return jax.tree.map(eqx.is_inexact_array, part) if answer is None else answer()


def parameter_count(part: PyTree) -> int:
    """Number of trainable numbers in `part`."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(part, trainable(part))))


def depends(function: Callable[..., Any], *arguments: PyTree) -> PyTree:
    """Which leaves of the arguments the result can depend on, read off the program, never off values."""
    program = jax.make_jaxpr(function)(*arguments).jaxpr
    needed = {v for v in program.outvars if isinstance(v, jax.extend.core.Var)}
    for equation in reversed(program.eqns):
        if needed.intersection(equation.outvars):
            needed.update(v for v in equation.invars if isinstance(v, jax.extend.core.Var))
    return jax.tree.unflatten(jax.tree.structure(arguments), [v in needed for v in program.invars])


def when(condition: Array, function: Callable[[PyTree], PyTree], operand: PyTree) -> PyTree:
    """`function(operand)` where the condition holds, else `operand`; under `vmap` nothing is done if nobody asks."""

    @custom_vmap
    def conditional(condition: Array, operand: PyTree) -> PyTree:
        return lax.cond(condition, function, lambda same: same, operand)

    @conditional.def_vmap
    def batch(size: int, batched: tuple[bool, PyTree], condition: Array, operand: PyTree) -> tuple[PyTree, PyTree]:
        asked, _ = batched
        spread = lambda a, b: a if b else jnp.broadcast_to(a, (size, *a.shape))
        operand = jax.tree.map(spread, operand, batched[1])
        chosen = lambda c, o: select(c, function(o), o)
        every = jax.vmap(chosen) if asked else jax.vmap(chosen, in_axes=(None, 0))
        out = lax.cond(jnp.any(condition), lambda o: every(condition, o), lambda o: o, operand)
        return out, jax.tree.map(lambda _: True, out)

    return conditional(condition, operand)


_select = pointwise(lambda choose, a, b: jnp.where(choose, a, b))


def select(choose: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Leafwise `where` of one bool over two trees of equal structure."""
    return jax.tree.map(lambda a, b: _select(choose, a, b), on_true, on_false)


_add_scaled = pointwise(lambda weight, update, size: weight + size * update)


_scale = pointwise(lambda leaf, factor: factor * leaf)


def scaled(tree: PyTree, factor: Array) -> PyTree:
    """The factor times every leaf."""
    return jax.tree.map(lambda leaf: _scale(leaf, factor), tree)


def apply_scaled(parameters: PyTree, updates: PyTree, size: float | Array) -> PyTree:
    """Parameters + size * updates, leaf by leaf."""
    return jax.tree.map(lambda w, u: _add_scaled(w, u, size), parameters, updates)


def remember(ring: Array, step: Array, value: Array) -> tuple[Array, Array]:
    """Keep `value`, of the step before `step`, in a ring buffer; the ring, and its oldest value: of as many steps ago
    as it has slots.

    Written first and read from the result, so that a loop does it in place. In the other order XLA's CPU compiler
    copies the ring at every step (decisions.md).
    """
    slots = len(ring)
    ring = lax.dynamic_update_index_in_dim(ring, value, (step - 1) % slots, 0)
    return ring, lax.dynamic_index_in_dim(ring, step % slots, keepdims=False)
