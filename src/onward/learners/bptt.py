"""Backpropagation through time: the oracle, and the usual way to train on whole sequences."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from onward._tree import apply_scaled
from onward._types import Carry, Info, PyTree, Sequence
from onward.learners.base import AbstractLearner
from onward.model import Model


class BPTTState(NamedTuple):
    """The model, its running moments, and the optimiser's state."""

    model: Model
    stats: PyTree
    optimiser: PyTree


class BPTT(AbstractLearner):
    """Full backpropagation through time on batches of sequences (Werbos, 1988).

    loss = -sum(mask log p(y | x_1 ... x_t)) / sum(mask); one update a batch. Exact. Memory grows with
    the length of the sequence, and nothing is learned before its end. Running moments of a cell are
    carried from batch to batch as the mean over the batch; no gradient flows through them.
    """

    optimiser: optax.GradientTransformation = eqx.field(static=True)
    step_size: float | Float[Array, ""] = 1.0

    def init(self, model: Model, example: Sequence, *, key: PRNGKeyArray) -> BPTTState:  # type: ignore[override]
        """Start; `example` gives shapes only."""
        if example.xs.ndim != 3 or example.xs.shape[2] != model.cell.inputs:
            raise ValueError(
                f"BPTT needs xs of shape (time, batch, {model.cell.inputs}), the task gives {example.xs.shape}"
            )
        optimiser = self.optimiser.init(eqx.filter(model, model.trainable()))
        return BPTTState(model, model.init().stats, optimiser)

    def step(self, state: BPTTState, example: Sequence) -> tuple[BPTTState, Info]:  # type: ignore[override]
        """One batch."""
        parameters, rest = eqx.partition(state.model, state.model.trainable())

        def objective(parameters: PyTree) -> Any:
            return sequence_loss(eqx.combine(parameters, rest), state.stats, example)

        (loss, (predictions, stats)), gradient = jax.value_and_grad(objective, has_aux=True)(parameters)
        updates, optimiser = self.optimiser.update(gradient, state.optimiser, parameters)
        parameters = apply_scaled(parameters, updates, self.step_size)
        return BPTTState(eqx.combine(parameters, rest), stats, optimiser), Info(predictions, loss)


def sequence_loss(model: Model, stats: PyTree, example: Sequence) -> tuple[Array, tuple[Array, PyTree]]:
    """Mean negative log-likelihood of a batch, with its predictions (time, batch, ...) and the new moments."""
    batch = example.xs.shape[1]
    spread = lambda tree: jax.tree.map(lambda a: jnp.stack([a] * batch), tree)
    carry = Carry(spread(model.init().hidden), spread(stats))

    def step(carry: Carry, inputs: Any) -> Any:
        x, y = inputs
        carry, prediction = jax.vmap(model)(carry, x)
        return carry, (prediction, jax.vmap(model.head.log_prob)(prediction, y))

    carry, (predictions, log_probs) = lax.scan(step, carry, (example.xs, example.y))
    loss = -jnp.sum(log_probs * example.mask) / jnp.sum(example.mask)
    return loss, (predictions, jax.tree.map(lambda a: jnp.mean(a, 0), carry.stats))
