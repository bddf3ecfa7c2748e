"""Truncated backpropagation through time, at every step."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from onward.batching import runs, sum_in_blocks
from onward.cells.base import AbstractCell, AbstractGates, Derivatives, Parameters, States, pull_back, require_size
from onward.cells.dense import Dense, Sources, loop_back, preactivation, sources_of
from onward.cells.hybrid import Hybrid
from onward.credit.base import MEMORY_LIMIT, AbstractCredit, AbstractKernel, Kind, allocate, transition
from onward.types import Carry, PyTree

# Steps back that are written out for a single network. In a batch XLA would then recompute the chain at each step: 25x.
UNROLL = 32


class Window(NamedTuple):
    """The last k steps, oldest first: what was read (inputs and 1; zero before the stream began), states, drives."""

    read: Float[Array, "window inputs_and_one"]
    states: tuple[Float[Array, "window units"], ...]
    slots: tuple[Float[Array, "window units"], ...]


class Replay(NamedTuple):
    """The last k steps of any cell, oldest first: what is needed to run them again, and whether they happened."""

    x: Float[Array, "window inputs"]
    carry: Carry
    real: Float[Array, " window"]


class TBPTT(AbstractCredit):
    """Backpropagation through the last `window` steps, anew at every step (Williams and Peng, 1990).

        pull(c) = sum over j < window of the gradient that reaches back j steps

    Biased beyond the window: what happened earlier gets no credit; `window` = 1 is Elman's (1990).
    Equal to BPTT while fewer than `window` steps have passed. States and drives are those of the time;
    recurrent weights are today's. Memory on `Dense`: window (m + 1 + states n + slots n) floats (k (m + 1 + 6 n)
    for an LSTM). Cost of a pull: window (P + G n^2) multiply-adds for n units of G gates and P
    parameters. Any other cell is run again step by step through its own pullback.

    Raises ValueError for a window below 1, MemoryError above `memory_limit` bytes.
    """

    kind: ClassVar[Kind] = "biased"
    window: int = eqx.field(default=10, static=True)
    memory_limit: float = eqx.field(default=MEMORY_LIMIT, static=True, repr=False)

    def __check_init__(self) -> None:
        require_size("TBPTT", window=self.window)

    def claim(self, cell: AbstractCell, steps: int) -> Kind:
        """Exact while the window holds every step."""
        return "exact" if steps <= self.window else "biased"

    def on(self, cell: AbstractCell) -> AbstractKernel[Any]:
        """The window of a dense layer's states, or of all that it takes to run any other cell again."""
        if isinstance(cell, Hybrid) and cell.stochastic:
            raise TypeError(
                "TBPTT runs its window again and cannot draw the same samples of a Hybrid; use RTRL or UORO, or BPTT "
                "on whole sequences"
            )
        return _OnDense(self, cell) if isinstance(cell, Dense) else _OnAny(self, cell)


class _OnDense(AbstractKernel[Window]):
    kind: ClassVar[Kind] = "biased"
    rule: TBPTT
    cell: Dense

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> Window:
        cell, window = self.cell, self.rule.window
        shape = lambda width: jax.ShapeDtypeStruct((window, width), cell.bias.dtype)
        states, slots = ((shape(cell.units),) * count for count in (cell.gates.states, cell.gates.slots))
        return Window(*allocate(self.rule, (shape(cell.inputs + 1), states, slots), self.rule.memory_limit))

    def advance(
        self, carry: Carry, x: Array, state: Window, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, Window]:
        cell = self.cell
        z, moments = cell.read(carry, x)
        step = runs(_advance, cell.units, cell.gates, cell.sources)
        states, window = step(cell.parameters, carry.hidden, state, z)
        return cell.settle(states, moments, carry), window

    def pull(self, state: Window, cotangent: PyTree) -> PyTree:
        cell = self.cell
        back = runs(_pull, cell.units, cell.gates, cell.sources)
        return cell.gradient_of(back(cell.parameters, state, cotangent))


class _OnAny(AbstractKernel[Replay]):
    kind: ClassVar[Kind] = "biased"
    rule: TBPTT
    cell: AbstractCell

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> Replay:
        shape = lambda a: jax.ShapeDtypeStruct((self.rule.window, *a.shape), a.dtype)
        instant = (x, self.cell.init(), jnp.zeros((), jnp.result_type(float)))
        replay: Replay = allocate(self.rule, Replay(*jax.tree.map(shape, instant)), self.rule.memory_limit)
        return replay

    def advance(
        self, carry: Carry, x: Array, state: Replay, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, Replay]:
        push = lambda old, new: jnp.concatenate([old[1:], new[None]])
        seen = Replay(x, carry, jnp.ones((), state.real.dtype))
        return self.cell(carry, x, key=key), jax.tree.map(push, state, seen)

    def pull(self, state: Replay, cotangent: PyTree) -> PyTree:
        cell = self.cell
        zero = jax.tree.map(jnp.zeros_like, eqx.filter(cell, cell.trainable()))

        def back_one(loop: tuple[PyTree, PyTree], seen: Replay) -> tuple[tuple[PyTree, PyTree], None]:
            cotangent, total = loop
            parameters, step = transition(cell, seen.carry.stats, seen.x, None)
            _, pullback, _ = jax.vjp(step, parameters, seen.carry.hidden, has_aux=True)
            gradient, cotangent = pullback(cotangent)
            total = jax.tree.map(lambda t, g: t + seen.real * g, total, gradient)
            return (jax.tree.map(lambda c: seen.real * c, cotangent), total), None

        return lax.scan(back_one, (cotangent, zero), state, reverse=True)[0][1]


def _advance(
    gates: AbstractGates, sources: Sources | None, parameters: Parameters, states: States, window: Window, z: Array
) -> tuple[States, Window]:
    slots = preactivation(gates, sources, parameters, states, z)
    one = jnp.ones_like(z[:1])
    push = lambda old, new: jnp.concatenate([old[1:], new[None]])
    window = jax.tree.map(push, window, Window(jnp.concatenate([z, one]), states, slots))
    return gates(slots, states), window


def _pull(
    gates: AbstractGates, sources: Sources | None, parameters: Parameters, window: Window, cotangent: States
) -> Parameters:
    _, derivatives = gates.jacobian(window.slots, window.states)

    def back(cotangent: States, here: list[Derivatives]) -> tuple[States, Array]:
        by_slot, by_state = pull_back(here, cotangent, gates.slots)
        on_h = loop_back(sources, parameters, jnp.stack([by_slot[s] for s in gates.recurrent_slots]))
        return (*by_state[:-1], by_state[-1] + on_h), jnp.stack(by_slot)

    steps = window.read.shape[0]
    drives: list[Array] = []
    batch = max(leaf.shape[-1] for leaf in jax.tree.leaves((window, cotangent, parameters)))
    if batch > 1 or steps > UNROLL:
        cotangent = tuple(jnp.broadcast_to(c, (*c.shape[:-1], batch)) for c in cotangent)
        drives = list(lax.scan(back, cotangent, derivatives, reverse=True)[1])
    else:
        for j in reversed(range(steps)):
            cotangent, drive = back(cotangent, jax.tree.map(lambda d, j=j: d[j], derivatives))
            drives.insert(0, drive)
    entered = [d[jnp.asarray(gates.input_slots)] for d in drives]
    looped = [d[jnp.asarray(gates.recurrent_slots)] for d in drives]
    ones = window.read[:, -1:]  # 0 where the stream had not begun
    rows = _outer_sum(window.read[:, :, None, None], entered)
    read_h = [sources_of(sources, window.states[-1][j]) * ones[j][None] for j in range(steps)]
    bias = rows[-1]
    if gates.biases != gates.input_slots:
        bias = _outer_sum(ones[:, :, None, None], [d[jnp.asarray(gates.biases)] for d in drives])[0]
    return Parameters(rows[:-1], _outer_sum([r[:, None] for r in read_h], looped), bias)


def _outer_sum(rows: Array | list[Array], drives: list[Array]) -> Array:
    """Sum over the window of row x drive."""
    if drives[0].shape[-1] > 1:
        return sum_in_blocks([rows[j] * d[None] for j, d in enumerate(drives)])
    rows, stacked = jnp.stack(list(rows))[..., 0], jnp.stack(drives)[..., 0]
    if rows.shape[-1] == 1:
        return jnp.einsum("kr,kgu->rgu", rows[..., 0, 0], stacked)[..., None]
    return jnp.einsum("kru,kgu->rgu", rows[..., 0, :], stacked)[..., None]
