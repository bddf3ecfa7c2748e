"""How a batch lies in memory: kernels whose last axis stays long, and sums that stay on XLA's fast path."""

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array

PyTree = Any

# From this batch size on a batch is an axis of its own; below, it is folded into the axis before it.
WIDE_BATCH = 32
# From this many lanes on a batch stays the leading axis.
WIDE_LANES = 32
# Terms that one fused sum may add: above this XLA leaves the fast path (measured, see decisions.md).
TERMS_PER_SUM = 15

_plain = ContextVar("plain", default=False)


@contextlib.contextmanager
def plain_kernels() -> Iterator[None]:
    """Here `lanes` leaves functions as they are. For who asks what a result is made of: kernels let nobody look in."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def lanes(function: Callable[..., PyTree], *fixed: Hashable, fold_only: bool = False) -> Callable[..., PyTree]:
    """Keep the last axis of a kernel long and contiguous when it runs in a batch.

    `function(*fixed, *arguments)`: the arguments are trees of arrays whose last axis counts independent lanes
    (columns, say), or has size 1 where all lanes share a value; it returns trees of arrays with the lanes last, and
    must be elementwise along that axis. Alone it is called as it is, and under `vmap` too where the lanes
    are many. Else a batch of at least `WIDE_BATCH` becomes one more, last axis, and a smaller one is
    folded into the lanes: XLA loops over narrow last axes 5-10x slower (decisions.md). `fold_only`: a batch is folded
    in, whatever its size. Differentiable in both modes.

    The kernel of a function of a module is made once for what is `fixed`; outside `jit` it is then a compiled program.
    One made within a function may hold arrays, so its kernel is made anew.
    """
    if _plain.get():
        return functools.partial(function, *fixed)
    make = _kernel.__wrapped__ if "<locals>" in function.__qualname__ else _kernel
    return make(function, fixed, fold_only)


@functools.lru_cache(maxsize=512)
def _kernel(function: Callable[..., PyTree], fixed: tuple[Hashable, ...], fold_only: bool) -> Callable[..., PyTree]:
    local = "<locals>" in function.__qualname__
    function = functools.partial(function, *fixed)
    kernel = custom_vmap(function)

    @kernel.def_vmap
    def batch(size: int, batched: tuple[PyTree, ...], *arguments: PyTree) -> tuple[PyTree, PyTree]:
        count = max(leaf.shape[-1] for leaf in jax.tree.leaves(arguments))
        if count >= WIDE_LANES and not fold_only:
            axes = jax.tree.map(lambda b: 0 if b else None, tuple(batched))
            out = jax.vmap(function, in_axes=axes)(*arguments)
            return out, jax.tree.map(lambda _: True, out)
        if size >= WIDE_BATCH and not fold_only:
            widen = lambda a, b: _last(jnp.moveaxis(a, 0, -1)) if b else a[..., None]
            out = function(*jax.tree.map(widen, arguments, tuple(batched)))
            narrow = lambda a: jnp.moveaxis(a, -1, 0) if a.shape[-1] == size else a[..., 0]
            return jax.tree.map(narrow, out), jax.tree.map(lambda a: a.shape[-1] == size, out)

        def fold(a: Array, is_batched: bool) -> Array:
            if not is_batched:
                return a if a.shape[-1] == 1 else jnp.repeat(a, size, -1)
            a = jnp.moveaxis(a, 0, -1)
            if a.shape[-2] == count:
                return a.reshape(*a.shape[:-2], count * size)
            return jnp.concatenate([a[..., 0, :]] * count, -1)

        def unfold(a: Array) -> Array:
            return jnp.moveaxis(a.reshape(*a.shape[:-1], count, size), -1, 0)

        out = kernel(*jax.tree.map(fold, arguments, tuple(batched)))
        touched = jax.tree.map(lambda a: a.shape[-1] == count * size, out)  # else it depends on shared values only
        return jax.tree.map(lambda a, t: unfold(a) if t else a, out, touched), touched

    # Inlined within another program, which is then the same as without `jit`.
    call = jax.custom_jvp(kernel if local else jax.jit(kernel, inline=True))
    call.defjvp(lambda primals, tangents: jax.jvp(function, primals, tangents))
    return call


def _last(array: Array) -> Array:
    """A small argument, written down with the runs next to one another: what all lanes share, or one number a lane.

    XLA leaves it as the code around a kernel had it, runs first, and reads it with strides in every pass over a trace.
    """
    small = array.ndim == 2 or array.shape[-2] == 1
    if not small or array.shape[0] == 1:
        return array
    return with_layout_constraint(array, Layout(tuple(range(array.ndim))))


def pointwise(function: Callable[..., Any]) -> Callable[..., Any]:
    """`lanes` for an elementwise function of arrays that have one common shape, or one element."""
    kernel = lanes(function)

    def call(*arguments: Any) -> Any:
        arrays = [jnp.asarray(a) for a in arguments]
        shape = max((a.shape for a in arrays), key=lambda s: (len(s), s))
        lift = lambda a: a.reshape(shape or (1,)) if a.shape == shape else a.reshape((1,) * max(len(shape), 1))
        return jax.tree.map(lambda a: a.reshape(shape), kernel(*map(lift, arrays)))

    return call


def runs(
    function: Callable[..., PyTree], units: int, *fixed: Hashable, wide: int = WIDE_LANES
) -> Callable[..., PyTree]:
    """Keep a batch of small networks on the last axis of a kernel that mixes units.

    `function(*fixed, *arguments)`, as in `lanes`: the arguments and what is returned are trees of arrays with one more,
    last axis: 1, or the size of the batch (of independent runs, or of parallel streams), along which it is
    elementwise. From `wide` units on a batch stays the leading axis: matrix products are then large enough.
    """
    kernel = lanes(function, *fixed, fold_only=True) if units < wide else functools.partial(function, *fixed)

    def call(*arguments: PyTree) -> PyTree:
        return jax.tree.map(lambda a: a[..., 0], kernel(*jax.tree.map(lambda a: a[..., None], arguments)))

    return call


def under(factor: Array, like: Array) -> Array:
    """`factor` with leading axes, so that it multiplies an array of more of them."""
    return factor.reshape((1,) * (like.ndim - factor.ndim) + factor.shape)


def tree_sum(terms: Sequence[Array]) -> Array:
    """The sum, added in pairs."""
    terms = list(terms)
    while len(terms) > 1:
        terms = [sum(terms[i + 1 : i + 2], start=terms[i]) for i in range(0, len(terms), 2)]
    return terms[0]


def sum_in_blocks(terms: Sequence[Array]) -> Array:
    """The sum of many small arrays; blocks of at most 15 stay on XLA's fast path (decisions.md)."""
    starts = range(0, len(terms), TERMS_PER_SUM)
    return tree_sum([tree_sum(terms[i : i + TERMS_PER_SUM]) for i in starts])


def sum_products(left: Array, right: Array) -> Array:
    """Sum over the first axis of left * right, in a kernel of `runs`; all other axes broadcast."""
    if max(left.shape[-1], right.shape[-1]) > 1:
        return sum_in_blocks([left[i] * right[i] for i in range(left.shape[0])])
    # Alone: a product with a vector, where one of them is one (a reduction of this shape can be 10x slower).
    for vector, matrix in ((left, right), (right, left)):
        if vector.size == vector.shape[0]:
            return (vector.reshape(-1) @ matrix.reshape(matrix.shape[0], -1)).reshape(matrix.shape[1:])
    return jnp.sum(left * right, 0)


def total(array: Array) -> Array:
    """The sum over every axis but the last, in a kernel of `runs`."""
    while array.ndim > 1 and array.shape[-1] > 1:
        array = sum_in_blocks(list(array))
    return jnp.sum(array, tuple(range(array.ndim - 1)))
