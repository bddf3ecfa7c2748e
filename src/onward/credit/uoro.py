"""Unbiased online recurrent optimisation."""

from functools import reduce
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Int, PRNGKeyArray, UInt32

from onward.batching import runs, total, under
from onward.cells.base import AbstractCell, AbstractGates, Parameters, States, pull_back, push_forward
from onward.cells.dense import Dense, Sources, loop, preactivation, sources_of
from onward.credit.base import MEMORY_LIMIT, AbstractCredit, AbstractKernel, Kind, allocate, bounded, transition
from onward.random import bits, seed_of
from onward.types import Carry, PyTree

TINY = 1e-30
# What of the state starts anew together.
KEPT = "states", "parameters"


class RankOne(NamedTuple):
    """The influence matrix as an outer product, states x parameters, and the counter of the random signs."""

    states: PyTree
    parameters: PyTree
    seed: UInt32[Array, "2"]
    steps: Int[Array, ""]


class UORO(AbstractCredit):
    """Unbiased online recurrent optimisation (Tallec and Ollivier, 2018): RTRL's matrix as one random outer product.

        s' = rho0 (d hidden'/d hidden) s + rho1 nu,    t' = t / rho0 + (nu . d hidden'/d theta) / rho1,
        pull(c) = (c . s) t,    nu random signs

    Unbiased: the expectation of s t is the influence matrix for any rho > 0. `scaling` chooses them:
    "uoro" makes both parts of each sum of equal norm; "nobacktrack" (Ollivier et al., 2015) gives each state its own
    rho1, the norm of that row of the immediate Jacobian; "none" is rho = 1. The variance grows with the
    number of states and with the horizon. Memory: P + |hidden| floats and a counter. Cost on `Dense`:
    about 3 P multiply-adds.
    """

    kind: ClassVar[Kind] = "unbiased"
    scaling: Literal["uoro", "nobacktrack", "none"] = eqx.field(default="uoro", static=True)
    memory_limit: float = eqx.field(default=MEMORY_LIMIT, static=True, repr=False)

    def __check_init__(self) -> None:
        if self.scaling not in ("uoro", "nobacktrack", "none"):
            raise ValueError(f"UORO: scaling must be 'uoro', 'nobacktrack' or 'none', got {self.scaling!r}")

    def on(self, cell: AbstractCell) -> AbstractKernel[RankOne]:
        """Both factors of a dense layer, or those of any other cell through its pullbacks."""
        return _OnDense(self, cell) if isinstance(cell, Dense) else _OnAny(self, cell)

    def start(self, hidden: PyTree, parameters: PyTree, key: PRNGKeyArray | None) -> RankOne:
        """No influence yet, for trees of these shapes. ValueError without a key to seed the signs."""
        if key is None:
            raise ValueError("UORO draws random signs: give init a key")
        shapes = jax.eval_shape(lambda: (hidden, parameters))
        states, parameters = allocate(self, shapes, self.memory_limit)
        return RankOne(states, parameters, seed_of(key), jnp.zeros((), jnp.int32))


class _OnDense(AbstractKernel[RankOne]):
    kind: ClassVar[Kind] = "unbiased"
    rule: UORO
    cell: Dense

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> RankOne:
        return self.rule.start(self.cell.init().hidden, self.cell.parameters, key)

    def advance(
        self, carry: Carry, x: Array, state: RankOne, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, RankOne]:
        cell, count = self.cell, state.steps + 1
        signs = _signs(state.seed, count, state.states)
        z, moments = cell.read(carry, x)
        step = runs(_advance, cell.units, cell.gates, cell.sources, self.rule.scaling)
        states, s, t = step(cell.parameters, carry.hidden, state.states, state.parameters, z, signs)
        return cell.settle(states, moments, carry), RankOne(s, t, state.seed, count)

    def pull(self, state: RankOne, cotangent: PyTree) -> PyTree:
        return self.cell.gradient_of(runs(_pull, self.cell.units)(state.states, state.parameters, cotangent))


class _OnAny(AbstractKernel[RankOne]):
    kind: ClassVar[Kind] = "unbiased"
    rule: UORO
    cell: AbstractCell

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> RankOne:
        return self.rule.start(self.cell.init().hidden, eqx.filter(self.cell, self.cell.trainable()), key)

    def advance(
        self, carry: Carry, x: Array, state: RankOne, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, RankOne]:
        scaling, count = self.rule.scaling, state.steps + 1
        signs = _signs(state.seed, count, state.states)
        kept = _kept(state.states, state.parameters)
        state = state._replace(**jax.tree.map(lambda a: a * kept, {name: getattr(state, name) for name in KEPT}))
        parameters, step_of = transition(self.cell, carry.stats, x, key)
        hidden_step = lambda hidden: step_of(parameters, hidden)[0]
        _, pushed = jax.jvp(hidden_step, (carry.hidden,), (state.states,))
        _, pullback, after = jax.vjp(lambda p: step_of(p, carry.hidden), parameters, has_aux=True)
        inward = signs
        if scaling == "nobacktrack":
            flat, unravel = ravel_pytree(carry.hidden)
            rows = jax.vmap(lambda e: ravel_pytree(pullback(unravel(e)))[0])(jnp.eye(flat.size, dtype=flat.dtype))
            signs, inward = _weighted(signs, unravel(jnp.sqrt(jnp.sum(jnp.square(rows), 1))))
        drive = pullback(inward)[0]
        norm = lambda tree: jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))
        rho0, rho1 = _scales(scaling, norm(state.parameters), norm(pushed), norm(drive), norm(signs))
        s = jax.tree.map(lambda a, b: rho0 * a + rho1 * b, pushed, signs)
        t = jax.tree.map(lambda a, b: a / rho0 + b / rho1, state.parameters, drive)
        return after, RankOne(s, t, state.seed, count)

    def pull(self, state: RankOne, cotangent: PyTree) -> PyTree:
        size = sum(jnp.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (state.states, cotangent)), strict=True))
        return jax.tree.map(lambda t: size * t, state.parameters)


def _kept(s: PyTree, t: PyTree, *, axis: int | None = None) -> Array:
    """`bounded` for both factors and for the influence, their outer product, whose square reaches an optimiser."""
    factors = jax.tree.leaves(s), jax.tree.leaves(t)
    largest = [reduce(jnp.maximum, [jnp.max(jnp.abs(leaf), axis) for leaf in leaves]) for leaves in factors]
    return bounded([*largest, largest[0] * largest[1]], axis=())


def _signs(seed: Array, count: Array, like: PyTree) -> PyTree:
    """A random sign for each number of a tree."""
    flat, unravel = ravel_pytree(like)
    drawn = bits(seed, count, jnp.arange(flat.size, dtype=jnp.uint32))
    return unravel(1.0 - 2.0 * (drawn >> 31).astype(flat.dtype))


def _weighted(signs: PyTree, norms: PyTree) -> tuple[PyTree, PyTree]:
    """NoBacktrack: nu rho and nu / rho with rho the root of each row's norm."""
    rho = jax.tree.map(lambda n: jnp.sqrt(jnp.maximum(n, 1e-14)), norms)
    return jax.tree.map(jnp.multiply, signs, rho), jax.tree.map(jnp.divide, signs, rho)


def _scales(scaling: str, parameters: Array, pushed: Array, drive: Array, signs: Array) -> tuple[Array, Array]:
    """rho0 and rho1; 1 where a part is zero, for then any value does."""
    one = jnp.ones_like(parameters)
    if scaling == "none":
        return one, one
    ratio = lambda a, b: jnp.where((a > TINY) & (b > TINY), jnp.sqrt(a / jnp.maximum(b, TINY)), one)
    return ratio(parameters, pushed), one if scaling == "nobacktrack" else ratio(drive, signs)


def _advance(
    gates: AbstractGates,
    sources: Sources | None,
    scaling: str,
    parameters: Parameters,
    states: States,
    s: States,
    t: Parameters,
    z: Array,
    signs: States,
) -> tuple[States, States, Parameters]:
    new, derivatives = gates.jacobian(preactivation(gates, sources, parameters, states, z), states)
    kept = _kept(*jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), (s, t)), axis=0)
    s = tuple(part * kept[None] for part in s)
    pushed_drive = loop(sources, parameters, s[-1])
    zero = jnp.zeros((len(gates.input_slots), *states[-1].shape), z.dtype)
    pushed = push_forward(derivatives, gates.gather(zero, pushed_drive, None), s)
    read_h = sources_of(sources, states[-1])
    h_size = jnp.sum(jnp.square(read_h), 0)
    # What rows of weights and of the bias multiply, squared and added up: with a bias on every input, one sum.
    apart = gates.biases != gates.input_slots
    in_size = total_square(z) if apart else total_square(z) + 1
    own = gates.biases if apart else ()
    inward = signs
    if scaling == "nobacktrack":
        one = jnp.ones_like(states[-1])
        rows = []
        for i in range(gates.states):
            alone = tuple(one if j == i else jnp.zeros_like(one) for j in range(gates.states))
            by_slot, _ = pull_back(derivatives, alone, gates.slots)
            square = in_size[None] * sum(jnp.square(by_slot[k]) for k in gates.input_slots)
            square = sum((jnp.square(by_slot[k]) for k in own), start=square)
            rows.append(jnp.sqrt(square + h_size * sum(jnp.square(by_slot[k]) for k in gates.recurrent_slots)))
        signs, inward = _weighted(signs, tuple(rows))
    by_slot, _ = pull_back(derivatives, inward, gates.slots)
    entered = jnp.stack([by_slot[k] for k in gates.input_slots])
    looped = jnp.stack([by_slot[k] for k in gates.recurrent_slots])
    # The norm of the outer products, without forming them.
    biased = jnp.stack([by_slot[k] for k in gates.biases])
    squared = in_size * total_square(entered) + total(jnp.square(looped) * h_size[None])
    drive = jnp.sqrt(squared + total_square(biased) if apart else squared)
    norm = lambda arrays: jnp.sqrt(sum(total_square(a) for a in arrays))
    rho0, rho1 = _scales(scaling, norm(t) * kept, norm(pushed), drive, norm(signs))
    s = tuple(rho0[None] * a + rho1[None] * b for a, b in zip(pushed, signs, strict=True))
    old, fresh = kept / rho0, 1 / rho1
    entered, looped, biased = (rows * under(fresh, rows) for rows in (entered, looped, biased))
    added = Parameters(z[:, None, None] * entered[None], read_h[:, None] * looped[None], biased)
    t = jax.tree.map(lambda a, b: a * under(old, a) + b, t, added)
    return new, s, t


def total_square(array: Array) -> Array:
    """The sum of squares over every axis but the last."""
    return total(jnp.square(array))


def _pull(s: States, t: Parameters, cotangent: States) -> Parameters:
    size: Any = sum(total(a * b) for a, b in zip(s, cotangent, strict=True))
    gradient: Parameters = jax.tree.map(lambda a: under(size, a) * a, t)
    return gradient
