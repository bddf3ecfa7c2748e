"""What a run measures. Only metrics may read `truth`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from onward._types import Carry, Info, PyTree, Sequence, Step
from onward.model import Model


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


def class_probabilities(sequences: Any) -> Callable[[Any], dict[str, Array]]:
    """A measurement: the probability of each class after each step of each held-out sequence."""
    return lambda state: {"probabilities": jnp.exp(read_sequences(state.model, state.stats, jnp.asarray(sequences)))}
