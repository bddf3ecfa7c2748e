"""Backpropagation through time that keeps the length of the gradient from step to step."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.dense import Dense
from onward.learners.base import (
    AbstractLearner,
    Rate,
    compiled,
    descend,
    require_scalar,
    require_sequences,
    require_supervised,
    start_optimiser,
)
from onward.learners.bptt import BPTTState
from onward.learners.inverses import FeedbackInverse, Transition
from onward.learners.tptt import TPTT, TPTTState
from onward.model import Model
from onward.objectives.supervised import Supervised
from onward.types import Carry, Info, PyTree, Sequence

# A step counts where the square of its gradient's length is at least this, as in the authors' code.
BOUND = 1e-20


class Preserving(AbstractLearner):
    """BPTT with the regulariser of Pascanu, Mikolov & Bengio (2013, eqs 9-10), for dense layers.

        Omega = mean over steps t and rows of (|J_t^T g_t| / |g_t| - 1)^2,    g_t = dE/dh_t,  J_t = dh_t/dh_{t-1}

    `weight` times its gradient is added to that of the loss E, before the optimiser (in which to clip). As in the
    paper, only its direct part: by the recurrent weights as they stand in J_t, with g_t, states and derivatives of the
    gates given. Not taken: the ratio of squares in place of the ratio, which the authors' code has. A step and row
    count where |g_t|^2 is at least 1e-20, as there. For gated layers (GRU, LSTM) the same, with all that J_t carries.

    `optimiser`, `step_size` and `objective`: as for `BPTT`, whose state and update this has with `weight` 0. Cost: some
    twice that of BPTT. ValueError for a weight that is negative or not finite, TypeError for a cell that is no plain
    dense layer.
    """

    optimiser: optax.GradientTransformation = eqx.field(static=True)
    weight: float = eqx.field(static=True)
    step_size: Rate = 1.0
    objective: Supervised = Supervised()

    def __check_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"Preserving: weight must be at least 0 and finite, got {self.weight}")
        require_supervised("Preserving", self.objective)

    def init(self, model: Model, example: Sequence, *, key: PRNGKeyArray) -> BPTTState:
        """Start; `example` gives shapes only. TypeError for a cell that is no plain dense layer."""
        self._require(model, example)
        optimiser = start_optimiser("Preserving", self.optimiser, eqx.filter(model, model.trainable()))
        return BPTTState(model, model.cell.init().stats, optimiser, key, jnp.zeros((), jnp.int32))

    def _require(self, model: Model, example: Sequence) -> None:
        require_scalar("Preserving", "step_size", self.step_size)
        if not isinstance(model.cell, Dense):
            raise TypeError(
                f"Preserving is for a dense layer (Elman, GRU, LSTM, Dense), got {type(model.cell).__name__}; "
                "BPTT takes any cell"
            )
        require_sequences("Preserving", model, example)

    @compiled
    def step(self, state: BPTTState, example: Sequence) -> tuple[BPTTState, Info]:
        """One batch: its predictions (outputs, batch, ...) and loss before the update."""
        self._require(state.model, example)
        model, cell = state.model, state.model.cell
        assert isinstance(cell, Dense)
        # With the recurrent weights as feedback, targets are the gradient's: shift_t = -dE/dh_t.
        exact = TPTT(FeedbackInverse(), self.optimiser, inverse_steps=0, objective=self.objective)
        swept = TPTTState(model, state.stats, cell.recurrent, None, None, state.key, state.steps)
        passed = exact.propagate(swept, example, key=state.key, keep=True)
        gradient = jax.tree.map(lambda g: g / passed.weight, passed.gradient)
        if self.weight:
            added = self.weight * jax.grad(lengthening)(cell.recurrent, cell, state.stats, example.xs, passed)
            gradient = eqx.tree_at(lambda m: m.cell.recurrent, gradient, gradient.cell.recurrent + added)
        parameters, rest = eqx.partition(model, model.trainable())
        loss = passed.loss / passed.weight
        parameters, optimiser = descend(self.optimiser, gradient, state.optimiser, parameters, self.step_size, loss)
        after = BPTTState(eqx.combine(parameters, rest), passed.stats, optimiser, state.key, state.steps + 1)
        return after, Info(passed.predictions, loss)


def lengthening(
    recurrent: Array, cell: Dense, stats: PyTree, xs: Float[Array, "time batch inputs"], passed: PyTree
) -> Float[Array, ""]:
    """Omega, as it depends on the recurrent weights directly; `passed` is a sweep whose shifts are -dE/dh_t."""
    inverse, start = FeedbackInverse(), cell.init().hidden
    before = lambda a, h: jnp.concatenate([jnp.broadcast_to(a, h[:1].shape), h[:-1]])
    befores = jax.tree.map(before, start, passed.hidden)
    square = lambda tree: sum(jnp.sum(jnp.square(a)) for a in tree)

    def of_row(before: PyTree, x: Array, after: PyTree, d: PyTree) -> tuple[Array, Array]:
        transition = Transition(Carry(before, stats), x, after, jax.random.key(0))
        seen = inverse.observe(cell, transition)
        # Lengths of gradients are small: both sides of the ratio at the scale of the larger.
        top = jnp.max(jnp.asarray([jnp.max(jnp.abs(a)) for a in d]))
        scaled = jax.tree.map(lambda a: a / jnp.where(top > 0, top, 1), d)
        counts = jnp.sqrt(square(scaled)) * top >= BOUND**0.5
        back = square(inverse.shift(recurrent, cell, transition, seen, scaled))
        # Where nothing comes back the root has no derivative.
        there = counts & (back > 0)
        ratio = jnp.sqrt(jnp.where(there, back, 1)) / jnp.sqrt(jnp.where(counts, square(scaled), 1))
        return jnp.where(counts, jnp.square(jnp.where(there, ratio, 0) - 1), 0), counts

    def add(total: tuple[Array, Array], step: PyTree) -> tuple[tuple[Array, Array], None]:
        terms, counts = jax.vmap(of_row)(*step)
        return (total[0] + jnp.sum(terms), total[1] + jnp.sum(counts)), None

    zero = (jnp.zeros((), xs.dtype), jnp.zeros((), int))
    (total, count), _ = lax.scan(add, zero, (befores, xs, passed.hidden, passed.shifts))
    return total / jnp.maximum(count, 1)
