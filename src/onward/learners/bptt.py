"""Backpropagation through time: the oracle, and the usual way to train on whole sequences."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Int, PRNGKeyArray

from onward.cells.base import require_size
from onward.learners.base import (
    AbstractLearner,
    Rate,
    compiled,
    descend,
    gather_trajectories,
    require_scalar,
    require_sequences,
    require_supervised,
    start_optimiser,
    weighted_sum,
)
from onward.model import Model
from onward.objectives.supervised import Supervised
from onward.types import Carry, Info, PyTree, Sequence

SUPERVISED = Supervised()


class BPTTState(NamedTuple):
    """The model, its running moments, the optimiser's state, and where random numbers come from."""

    model: Model
    stats: PyTree
    optimiser: PyTree
    key: PRNGKeyArray
    steps: Int[Array, ""]


class BPTT(AbstractLearner):
    """Full backpropagation through time on batches of sequences (Werbos, 1988).

    loss = sum(mask loss_t) / sum(|mask|), with loss_t that of `objective`, -log p(y | x_1 ... x_t) by default; one
    update a batch. Exact for deterministic cells. With a `Hybrid(straight_through=True)` cell it is straight-through
    BPTT (STE-BPTT), biased because the derivative of a sample is taken to be that of its mean. Memory grows with the
    length of the sequence, and nothing is learned before its end. Running moments of a cell are carried from batch to
    batch as the mean over the batch; no gradient flows through them. Clip gradients in the optimiser,
    `optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1.0))`; what `optimiser` and `step_size` may be: see
    `Online`.

    `window=k`: truncated BPTT for targets at the last step only; the gradient reaches the last k steps, as if the
    state before them were given. Biased where earlier steps matter; exact for k of at least the length. (`TBPTT(k)` is
    the rule for streams.)
    """

    optimiser: optax.GradientTransformation = eqx.field(static=True)
    step_size: Rate = 1.0
    window: int | None = eqx.field(default=None, static=True)
    objective: Supervised = Supervised()

    def __check_init__(self) -> None:
        if self.window is not None:
            require_size("BPTT", window=self.window)
        require_supervised("BPTT", self.objective)

    def init(self, model: Model, example: Sequence, *, key: PRNGKeyArray) -> BPTTState:
        """Start; `example` gives shapes only.

        ValueError for shapes that do not fit, TypeError for an optimiser that wants more than a learner gives.
        """
        self._require(model, example)
        optimiser = start_optimiser("BPTT", self.optimiser, eqx.filter(model, model.trainable()))
        return BPTTState(model, model.cell.init().stats, optimiser, key, jnp.zeros((), jnp.int32))

    def _require(self, model: Model, example: Sequence) -> None:
        require_scalar("BPTT", "step_size", self.step_size)
        require_sequences("BPTT", model, example)
        if self.window is not None and len(example.mask) != 1:
            steps = len(example.mask)
            raise ValueError(f"BPTT: a window needs targets at the last step only, the task gives {steps} steps")

    @compiled
    def step(self, state: BPTTState, example: Sequence) -> tuple[BPTTState, Info]:
        """One batch: its predictions (outputs, batch, ...) and loss before the update."""
        self._require(state.model, example)
        parameters, rest = eqx.partition(state.model, state.model.trainable())
        key = jax.random.fold_in(state.key, state.steps)

        def lose(parameters: PyTree) -> tuple[Array, tuple[Array, PyTree]]:
            model = eqx.combine(parameters, rest)
            return sequence_loss(model, state.stats, example, key=key, window=self.window, objective=self.objective)

        (loss, (predictions, stats)), gradient = jax.value_and_grad(lose, has_aux=True)(parameters)
        parameters, optimiser = descend(self.optimiser, gradient, state.optimiser, parameters, self.step_size, loss)
        model = eqx.combine(parameters, rest)
        return BPTTState(model, stats, optimiser, state.key, state.steps + 1), Info(predictions, loss)


def sequence_loss(
    model: Model,
    stats: PyTree,
    example: Sequence,
    *,
    key: PRNGKeyArray | None = None,
    window: int | None = None,
    objective: Supervised = SUPERVISED,
) -> tuple[Array, tuple[Array, PyTree]]:
    """Mean loss of a batch, with its predictions (outputs, batch, ...) and the new moments of the cell.

    `stats`: the moments before. `key`: for cells that sample. `window`: no gradient flows to before the last so many
    steps. `objective` says what the loss of one instant is.
    """
    time, batch = example.xs.shape[:2]
    cell, copies = model.cell, model.head.trajectories or 1
    rows = batch * copies
    start = Carry(cell.init().hidden, stats)
    carry = jax.tree.map(lambda a: jnp.broadcast_to(a, (rows, *a.shape)), start)
    draw = lambda i: None if key is None else jax.random.split(jax.random.fold_in(key, i), (time, rows))

    def advance(carry: Carry, inputs: tuple[Array, PRNGKeyArray | None]) -> tuple[Carry, None]:
        x, keys = inputs
        return jax.vmap(lambda c, x, k: cell(c, x, key=k))(carry, jnp.repeat(x, copies, 0), keys), None

    def answer(carry: Carry, inputs: tuple[Array, ...]) -> tuple[Carry, tuple[Array, Array]]:
        x, keys, y, reading_keys = inputs
        carry, _ = advance(carry, (x, keys))
        features = jax.vmap(lambda c, k: cell.features(c, key=k))(carry, reading_keys)
        prediction = jax.vmap(model.head)(gather_trajectories(model.head, features))
        return carry, (prediction, jax.vmap(lambda p, y: objective.loss_of(model.head, p, y))(prediction, y))

    quiet = time - len(example.mask)
    steps, reading = (example.xs, draw(0)), draw(1)
    take = lambda tree, chosen: jax.tree.map(lambda a: a[chosen], tree)
    cut = 0 if window is None else max(0, time - window)
    if cut:
        carry, _ = lax.scan(advance, carry, take(steps, slice(cut)))
        carry = lax.stop_gradient(carry)
    if quiet > cut:
        carry, _ = lax.scan(advance, carry, take(steps, slice(cut, quiet)))
    last = take((*steps, reading), slice(quiet, None))
    carry, (predictions, losses) = lax.scan(answer, carry, (*last[:2], example.y, last[2]))
    loss = weighted_sum(losses, example.mask) / jnp.sum(jnp.abs(example.mask))
    return loss, (predictions, jax.tree.map(lambda a: jnp.mean(a, 0), carry.stats))
