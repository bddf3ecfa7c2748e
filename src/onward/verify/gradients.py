"""Gradients: by a rule driven step by step, by backpropagation through time, by finite differences; and compared.

A rule is driven as it is in learning, with a cotangent on the features at every step:

    L(theta) = sum_t c_t . features(carry_t),   rule: sum_t pull(c_t),   reference: grad L by BPTT

A whole-sequence pullback through a forward rule would return BPTT for every rule, right or wrong. Running moments are
constants of the gradient, by definition; for finite differences they are replayed from the unperturbed run.
"""

import functools
from contextlib import nullcontext
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from onward.cells.base import AbstractCell
from onward.credit.base import AbstractCredit
from onward.devices import fast_to_compile
from onward.model import Model
from onward.objectives.base import AbstractObjective
from onward.trees import select
from onward.types import Carry, PyTree, Step


def in_float64(tree: PyTree) -> PyTree:
    """Every floating array as float64 (inside `jax.enable_x64`)."""
    return jax.tree.map(lambda a: a.astype(jnp.float64) if eqx.is_inexact_array(a) else a, tree)


def stepwise_gradient(
    cell: AbstractCell,
    rule: AbstractCredit,
    carry: Carry,
    xs: Float[Array, "time inputs"],
    resets: Bool[Array, " time"],
    cotangents: Float[Array, "time features"],
    *,
    key: PRNGKeyArray | None = None,
) -> PyTree:
    """The sum of a rule's pulls along a stream, one step after another; weights stand.

    carry: where the stream starts. resets: where an episode starts. cotangents: of the features, at every step.
    Returns a cell-shaped gradient, None where nothing learns.
    """
    fresh = rule.init(cell, xs[0], key=key)
    start = cell.init().hidden
    zero = jax.tree.map(jnp.zeros_like, eqx.filter(cell, cell.trainable()))

    def step(
        loop: tuple[Carry, PyTree, PyTree], instant: tuple[Array, Array, Array]
    ) -> tuple[tuple[Carry, PyTree, PyTree], None]:
        carry, state, total = loop
        x, reset, cotangent = instant
        hidden, state = select(reset, (start, fresh), (carry.hidden, state))
        carry, state = rule.advance(cell, Carry(hidden, carry.stats), x, state, key=key)
        _, pullback = jax.vjp(lambda hidden: cell.features(Carry(hidden, carry.stats)), carry.hidden)
        gradient = rule.pull(cell, state, pullback(cotangent)[0])
        return (carry, state, jax.tree.map(jnp.add, total, gradient)), None

    return lax.scan(step, (carry, fresh, zero), (xs, resets, cotangents))[0][2]


def _value(
    cell: AbstractCell, carry: Carry, xs: Array, resets: Array, cotangents: Array, replay: PyTree | None
) -> tuple[Array, PyTree]:
    start = cell.init().hidden

    def step(carry: Carry, instant: tuple[Array, Array, Array, PyTree]) -> tuple[Carry, tuple[Array, PyTree]]:
        x, reset, cotangent, stats = instant
        hidden = jax.tree.map(lambda a, b: jnp.where(reset, a, b), start, carry.hidden)
        carry = cell(Carry(hidden, carry.stats), x)
        if replay is not None:
            carry = Carry(carry.hidden, stats)
        return carry, (cell.features(carry) @ cotangent, carry.stats)

    _, (values, stats) = lax.scan(step, carry, (xs, resets, cotangents, replay))
    return jnp.sum(values), stats


def reference_gradient(cell: AbstractCell, carry: Carry, xs: Array, resets: Array, cotangents: Array) -> PyTree:
    """The gradient of sum_t c_t . features(carry_t) by BPTT; arguments as in `stepwise_gradient`."""
    parameters, rest = eqx.partition(cell, cell.trainable())
    loss = lambda p: _value(eqx.combine(p, rest), carry, xs, resets, cotangents, None)[0]
    return jax.grad(loss)(parameters)


# For tiny programs that run a few times: they are compiled fast rather than well.
quick: Any = functools.partial(eqx.filter_jit, compiler_options=fast_to_compile())


def _mean_gradient(
    cell: AbstractCell,
    rule: AbstractCredit,
    carry: Carry,
    xs: Array,
    starts: Array,
    cotangents: Array,
    key: PRNGKeyArray,
) -> PyTree:
    """The rule's gradient, averaged over streams."""
    of_stream = lambda x, r, c, k: stepwise_gradient(cell, rule, carry, x, r, c, key=k)
    each = jax.vmap(of_stream)(xs, starts, cotangents, jax.random.split(key, len(xs)))
    return jax.tree.map(lambda a: jnp.mean(a, 0), each)


mean_gradient = quick(_mean_gradient)


@quick
def gradient_of_seeds(*on: Any) -> PyTree:
    """`mean_gradient` for each key; the arguments are its own, with the keys, (seeds,), last."""
    return lax.map(functools.partial(_mean_gradient, *on[:-1]), on[-1], batch_size=200)


@quick
def mean_reference(cell: AbstractCell, carry: Carry, xs: Array, starts: Array, cotangents: Array) -> PyTree:
    """The gradient by backpropagation through time, averaged over streams."""
    of_stream = lambda x, r, c: reference_gradient(cell, carry, x, r, c)
    return jax.tree.map(lambda a: jnp.mean(a, 0), jax.vmap(of_stream)(xs, starts, cotangents))


def finite_difference_error(
    cell: AbstractCell, carry: Carry, xs: Array, resets: Array, cotangents: Array, gradient: PyTree, key: PRNGKeyArray
) -> float:
    """Largest relative error of a gradient along one random direction for each array; running moments are replayed."""
    found = slopes(cell, carry, xs, resets, cotangents, gradient, key)
    return max((abs(s.measured - s.claimed) / max(s.scale, 1e-300) for s in found), default=0.0)


class Slope(NamedTuple):
    """Along a random direction of one array: the slope by finite differences, by the gradient, and how large it could
    be expected to be.
    """

    measured: float
    claimed: float
    scale: float


def slopes(
    cell: AbstractCell, carry: Carry, xs: Array, resets: Array, cotangents: Array, gradient: PyTree, key: PRNGKeyArray
) -> list[Slope]:
    """The slope of each trainable array, in their order; arguments as in `finite_difference_error`."""
    found = _slopes(cell, carry, xs, resets, cotangents, gradient, key)
    return [Slope(*(float(a) for a in one)) for one in zip(*found, strict=True)]


# Offsets and weights of a central difference of fourth order, in steps of H.
H, OFFSETS, WEIGHTS = 1e-4, (1, -1, 2, -2), (8 / 12, -8 / 12, -1 / 12, 1 / 12)


@quick
def _slopes(
    cell: AbstractCell, carry: Carry, xs: Array, resets: Array, cotangents: Array, gradient: PyTree, key: PRNGKeyArray
) -> tuple[Array, Array, Array]:
    parameters, rest = eqx.partition(cell, cell.trainable())
    _, stats = _value(cell, carry, xs, resets, cotangents, None)
    leaves, structure = jax.tree.flatten(parameters)
    given = jax.tree.leaves(gradient)
    ends = np.cumsum([0, *(leaf.size for leaf in leaves)])
    drawn = jax.random.normal(key, (int(ends[-1]),), xs.dtype)
    directions = [drawn[a:b].reshape(leaf.shape) for a, b, leaf in zip(ends, ends[1:], leaves, strict=False)]

    def value(place: tuple[Array, Array]) -> Array:
        array, offset = place
        moved = [
            a + jnp.where(array == i, offset * H, 0) * d
            for i, (a, d) in enumerate(zip(leaves, directions, strict=True))
        ]
        moved_cell = eqx.combine(jax.tree.unflatten(structure, moved), rest)
        return _value(moved_cell, carry, xs, resets, cotangents, stats)[0]

    arrays = jnp.repeat(jnp.arange(len(leaves)), len(OFFSETS))
    offsets = jnp.tile(jnp.asarray(OFFSETS, xs.dtype), len(leaves))
    values = lax.map(value, (arrays, offsets)).reshape(len(leaves), len(OFFSETS))
    measured = values @ jnp.asarray(WEIGHTS, xs.dtype) / H
    claimed = jnp.stack([jnp.sum(g * d) for g, d in zip(given, directions, strict=True)])
    norm = lambda a: jnp.sqrt(jnp.sum(a * a))
    scale = jnp.stack([norm(g) * norm(d) / g.size**0.5 for g, d in zip(given, directions, strict=True)])
    return measured, claimed, scale


class Comparison(NamedTuple):
    """Of a gradient and a reference: the largest relative error of an array, the cosine of the whole, and the smallest
    and the largest ratio of an array, (g . r) / (r . r), which shows a factor that a cosine hides.
    """

    relative_error: float
    cosine: float
    ratio_min: float
    ratio_max: float


def compare(gradient: PyTree, reference: PyTree) -> Comparison:
    """Compare two gradients, array by array.

    gradient, reference: trees of the same structure, such as `gradient` returns. ValueError for another structure, or
    if an array of the reference is zero, for then nothing could be said of it.

    >>> import jax.numpy as jnp
    >>> compare({"w": jnp.array([6.0, 8.0])}, {"w": jnp.array([3.0, 4.0])})
    Comparison(relative_error=1.0, cosine=1.0, ratio_min=2.0, ratio_max=2.0)
    """
    named = jax.tree_util.tree_leaves_with_path(reference)
    if [path for path, _ in jax.tree_util.tree_leaves_with_path(gradient)] != [path for path, _ in named]:
        raise ValueError("compare: the two gradients are trees of different structure; are they of one model?")
    flat = lambda a: np.asarray(a, np.float64).ravel()
    pairs = [(flat(g), flat(r)) for g, (_, r) in zip(jax.tree.leaves(gradient), named, strict=True)]
    tiny = 1e-300
    norms = [np.linalg.norm(r) for _, r in pairs]
    for (path, _), norm in zip(named, norms, strict=True):
        if not norm > 1e-12:
            where = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(f"compare: the reference gradient of {where!r} is zero, so nothing can be said of it")
    error = max(float(np.linalg.norm(g - r) / n) for (g, r), n in zip(pairs, norms, strict=True))
    ratios = [float(g @ r / n**2) for (g, r), n in zip(pairs, norms, strict=True)]
    g, r = (np.concatenate(side) for side in zip(*pairs, strict=True))
    cosine = float(g @ r / max(float(np.linalg.norm(g) * np.linalg.norm(r)), tiny))
    return Comparison(error, cosine, min(ratios), max(ratios))


def gradient(
    model: Model,
    rule: AbstractCredit,
    objective: AbstractObjective,
    steps: Step,
    *,
    key: PRNGKeyArray | None = None,
    float64: bool = False,
) -> PyTree:
    """The gradient that a rule gives for an objective over a stream, driven step by step while the weights stand.

    steps: a `Step` with time first in every array; a number without time (a weight of 1, say) counts at every step.
    key: for rules and cells that draw random numbers. float64: compute, and return, in float64.
    Returns a model-shaped tree, None where nothing learns: the sum of what the objective would descend at each step.
    Cost: that of learning, without the optimiser. ValueError for arrays of different length.

    >>> import jax, jax.numpy as jnp, onward as ow
    >>> key = jax.random.key(0)
    >>> head = jax.tree.map(jnp.ones_like, ow.Linear(4))  # it starts at zero, where no gradient passes
    >>> model, xs = ow.Model(ow.GRU(3, 4, key=key), head), jax.random.normal(key, (9, 3))
    >>> steps = ow.Step(xs, xs[:, 0], 1.0, False, xs[:, 0])
    >>> exact, cheap = (gradient(model, rule, ow.Supervised(), steps) for rule in (ow.RTRL(), ow.SnAp(1)))
    >>> 0.9 < compare(cheap, exact).cosine < 1
    True
    """
    if model.head.trajectories is not None:
        raise TypeError("verify.gradient follows one trajectory of the cell: take the head out of its MonteCarlo")
    with jax.enable_x64(True) if float64 else nullcontext():
        if float64:
            model, objective, steps = in_float64((model, objective, steps))
        return _over_stream(model, rule, objective, _timed(steps), jax.random.key(0) if key is None else key)


def _timed(steps: Step) -> Step:
    time = len(steps.x)
    spread = lambda a: jnp.broadcast_to(a, (time, *jnp.shape(a))) if jnp.ndim(a) == 0 else jnp.asarray(a)
    steps = jax.tree.map(spread, steps)
    lengths = sorted({len(leaf) for leaf in jax.tree.leaves(steps)})
    if lengths != [time]:
        raise ValueError(f"verify.gradient: x has {time} steps; every array of steps needs as many, got {lengths}")
    return steps


@quick
def _over_stream(
    model: Model, rule: AbstractCredit, objective: AbstractObjective, steps: Step, key: PRNGKeyArray
) -> PyTree:
    cell = model.cell
    start = cell.init()
    fresh = (start.hidden, rule.init(cell, steps.x[0], key=key), objective.init(model))
    zero = jax.tree.map(jnp.zeros_like, eqx.filter(model, model.trainable()))

    def step(
        loop: tuple[PyTree, PyTree, PyTree], instant: tuple[Step, Array]
    ) -> tuple[tuple[PyTree, PyTree, PyTree], None]:
        now, stats, total = loop
        example, t = instant
        hidden, credit, state = select(jnp.asarray(example.reset), fresh, now)
        own = jax.random.fold_in(key, t)
        carry, credit = rule.advance(cell, Carry(hidden, stats), example.x, credit, key=own)
        prediction, pullback = model.answer(carry, key=own)

        def pull(cotangent: Array) -> PyTree:
            head, on_hidden = pullback(cotangent)
            return model.gradient_of(rule.pull(cell, credit, on_hidden), head)

        state, gradient, *_ = objective.step(state, model, prediction, example, pull)
        return ((carry.hidden, credit, state), carry.stats, jax.tree.map(jnp.add, total, gradient)), None

    times = jnp.arange(len(steps.x))
    return lax.scan(step, (fresh, start.stats, zero), (steps, times))[0][2]
