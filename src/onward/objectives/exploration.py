"""The choice among values of actions, and how much of it is left to chance."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from onward import random

# The share of actions drawn from all alike: a number, or a function of the steps so far.
Schedule = float | Callable[[Any], Any]


def require_schedule(owner: str, exploration: Schedule) -> None:
    """Refuse a share outside [0, 1]; a function is believed."""
    if not callable(exploration) and not 0 <= exploration <= 1:
        raise ValueError(f"{owner}: exploration must be in [0, 1] or a function of the steps, got {exploration}")


def epsilon_greedy(
    values: Float[Array, " actions"], exploration: Schedule, steps: Int[Array, ""], *, key: PRNGKeyArray
) -> Int[Array, ""]:
    """The first best action, or with the probability that `exploration` says at this step any of them."""
    epsilon = exploration(steps) if callable(exploration) else exploration
    explore, which = random.uniforms(key, (2,))
    count = values.shape[0]
    drawn = jnp.minimum((which * count).astype(jnp.int32), count - 1)
    return jnp.where(explore < epsilon, drawn, jnp.argmax(values).astype(jnp.int32))


def one_hot(index: Int[Array, ""] | int, like: Float[Array, " numbers"]) -> Float[Array, " numbers"]:
    """1 at a place, 0 elsewhere: the cotangent that asks for the gradient of one number of a prediction.

    It is made of `like`, so that a batch of predictions has one for each: XLA turns the product of a batch of weights
    with a single vector into one of another layout, and every array around it with it. All 0 for what is not a number.
    """
    return ((jnp.arange(like.shape[0]) == index) & (like == like)).astype(like.dtype)


def value_of(values: Float[Array, " actions"], action: Int[Array, ""]) -> Float[Array, ""]:
    """The value of one action: a sum, which XLA fuses where it would gather."""
    return jnp.sum(jnp.where(jnp.arange(values.shape[0]) == action, values, 0))


def require_values(owner: str, outputs: tuple[int, ...], each: int = 1) -> int:
    """The number of actions, by the shape of a prediction; ValueError for one without `each` numbers an action."""
    if len(outputs) != 1 or outputs[0] < 2 * each or outputs[0] % each:
        said = "a value" if each == 1 else f"{each} numbers"
        wanted = "actions" if each == 1 else f"{each} * actions"
        raise ValueError(
            f"{owner} needs {said} for each of two actions or more, the head predicts shape {outputs}; use "
            f"Linear(features, {wanted}). Actions that are real numbers are for ActorCritic and Reinforce"
        )
    return outputs[0] // each
