"""What a run measures. Only metrics may read `truth`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from onward._types import Carry, Info, PyTree, Sequence, Step
from onward.learners.bptt import sequence_loss
from onward.learners.inverses import FeedbackInverse, layer_of
from onward.learners.tptt import TPTT, TPTTState
from onward.model import Model


def training_loss(example: Sequence, info: Info) -> tuple[Array, Array]:
    """The loss of the batch, before the update."""
    return info.loss, jnp.ones(())


def return_error(example: Step, info: Info) -> tuple[Array, Array]:
    """(return - prediction)^2, the prediction made before the update."""
    return jnp.square(example.truth - info.prediction), jnp.ones(())


def accuracy(example: Step | Sequence, info: Info) -> tuple[Array, Array]:
    """Right or wrong, before the update, weighted as the loss is. Predictions end in a class axis."""
    weight = example.weight if isinstance(example, Step) else example.mask
    right = jnp.argmax(info.prediction, -1) == example.y
    return jnp.sum(right * weight), jnp.sum(weight)


def alignment(names: tuple[str, ...]) -> Callable[[Any, Info], dict[str, tuple[Array, Array]]]:
    """A monitor of `Online(watch=...)`: per rule, its own first, "NAME cosine" and "NAME ratio" to the exact one."""

    def monitor(example: Step, info: Info) -> dict[str, tuple[Array, Array]]:
        found = {}
        for name, (cosine, ratio, there) in zip(names, info.alignment, strict=True):
            found[f"{name} cosine"], found[f"{name} ratio"] = (cosine, there), (ratio, there)
        return found

    return monitor


def read_sequences(
    model: Model, stats: PyTree, sequences: Float[Array, "batch time inputs"]
) -> Float[Array, "time batch *prediction"]:
    """The model's prediction after each step of each sequence, read from a clean start with given moments."""
    start = Carry(model.init().hidden, stats)

    def one(sequence: Array) -> Array:
        return lax.scan(lambda carry, x: model(carry, x), start, sequence)[1]

    return jnp.swapaxes(jax.vmap(one)(sequences), 0, 1)


def test_accuracy(sequences: Any, labels: Any) -> Callable[[Any], dict[str, Array]]:
    """A measurement: the share of held-out sequences whose class is right after their last step."""

    def measure(state: Any) -> dict[str, Array]:
        predictions = read_sequences(state.model, state.stats, jnp.asarray(sequences))[-1]
        return {"test_accuracy": jnp.mean(jnp.argmax(predictions, -1) == jnp.asarray(labels))}

    return measure


def network_loss(model: Model, stats: PyTree, example: Sequence, key: PRNGKeyArray) -> tuple[Array, Array]:
    """The loss of a batch and its predictions (outputs, batch, ...)."""
    loss, (predictions, _) = sequence_loss(model, stats, example, key=key)
    return loss, predictions


def held_out_loss(
    example: Sequence, *, block: int = 250, loss: Callable[..., tuple[Array, Array]] = network_loss
) -> Callable[[Any], dict[str, Array]]:
    """A measurement: mean -log p(y | x) of held-out sequences, with as many trajectories as evaluation asks for.

    Rows are read in blocks of at most `block`, of a size that divides their number. Always the same random draws.
    `loss` may replace `network_loss` for a network that is not read as its cell says.
    """
    count = example.xs.shape[1]
    blocks = next(n for n in range(-(-count // block), count + 1) if count % n == 0)

    def measure(state: Any) -> dict[str, Array]:
        model = state.model.evaluation()
        split = lambda a: jnp.moveaxis(jnp.asarray(a).reshape(a.shape[0], blocks, -1, *a.shape[2:]), 1, 0)
        one = lambda part: loss(model, state.stats, *part)[0]
        losses = lax.map(one, (jax.tree.map(split, example), jax.random.split(jax.random.key(0), blocks)))
        return {"held_out": jnp.mean(losses)}

    return measure


def credit_by_step(learner: TPTT, example: Sequence) -> Callable[[TPTTState], dict[str, Array]]:
    """A measurement of target propagation on a dense or hybrid layer, against BPTT with the same random draws.

    `shift_cosine` and `shift_ratio` (time,): cosine and norm ratio, over all rows and units, of the shift of h_t to
    that which moves along the gradient; `update_cosine` and `update_ratio`: of the whole update of the cell;
    `inverse_loss` per transition.
    """

    def measure(state: TPTTState) -> dict[str, Array]:
        layer = layer_of(state.model.cell)
        exact = replace(learner, inverse=FeedbackInverse(), inverse_steps=0)
        key = state.key
        found = learner.sweep(state, example, key=key, keep=True)
        true = exact.sweep(state._replace(inverse=layer.recurrent), example, key=key, keep=True)
        by_step = jax.vmap(_compare)(found.shifts, true.shifts)
        whole = _compare(found.gradient.cell, true.gradient.cell)
        return {
            "shift_cosine": by_step[0],
            "shift_ratio": by_step[1],
            "update_cosine": whole[0],
            "update_ratio": whole[1],
            "inverse_loss": found.inverse_loss / found.transitions,
        }

    return measure


def _compare(found: PyTree, true: PyTree) -> tuple[Array, Array]:
    """Cosine and norm ratio of two trees."""
    a, b = ravel_pytree(found)[0], ravel_pytree(true)[0]
    size, length = jnp.linalg.norm(a), jnp.linalg.norm(b)
    tiny = jnp.finfo(a.dtype).tiny
    return a @ b / jnp.maximum(size * length, tiny), size / jnp.maximum(length, tiny)


def class_probabilities(sequences: Any) -> Callable[[Any], dict[str, Array]]:
    """A measurement: the probability of each class after each step of each held-out sequence."""
    return lambda state: {"probabilities": jnp.exp(read_sequences(state.model, state.stats, jnp.asarray(sequences)))}
