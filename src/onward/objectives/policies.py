"""Distributions of actions: a softmax over choices, or a Gaussian over real numbers."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward import random
from onward.types import Actions

# The logarithm of a deviation is within this of 0: it is between 0.018 and 55.
LARGEST_LOG_DEVIATION = 4.0


def require_policy(owner: str, outputs: tuple[int, ...], continuous: bool, more: int = 0) -> Actions:
    """What is chosen from, by the shape of a prediction: the policy, then `more` numbers. ValueError for another."""
    numbers = outputs[0] - more if len(outputs) == 1 else 0
    if numbers < 2 or (continuous and numbers % 2):
        each = "mean and log deviation of each real action" if continuous else "a logit for each of two actions or more"
        size = "2 * actions" if continuous else "actions"
        raise ValueError(
            f"{owner} needs {each}{', and a value' * more}, the head predicts shape {outputs}; use "
            f"Linear(features, {size}{' + 1' * more})"
        )
    return (numbers // 2,) if continuous else numbers


def no_action(actions: Actions) -> Array:
    """Before the first choice: the first of them, or zeros."""
    return jnp.zeros((), jnp.int32) if isinstance(actions, int) else jnp.zeros(actions)


def sample(policy: Float[Array, " numbers"], continuous: bool, *, key: PRNGKeyArray) -> Array:
    """One draw: an index, or real numbers."""
    if continuous:
        mean, log_deviation = _moments(policy)
        return mean + jnp.exp(log_deviation) * jax.random.normal(key, mean.shape, mean.dtype)
    # By the distribution function: one random number, whatever the number of actions.
    below = jnp.cumsum(jax.nn.softmax(policy)) <= random.uniforms(key, (), policy.dtype)
    return jnp.minimum(jnp.sum(below, dtype=jnp.int32), len(policy) - 1)


def log_prob(policy: Float[Array, " numbers"], action: Array, continuous: bool) -> Float[Array, ""]:
    """Log probability (density) of an action, in nats."""
    if continuous:
        mean, log_deviation = _moments(policy)
        z = (action - mean) * jnp.exp(-log_deviation)
        return jnp.sum(-0.5 * jnp.square(z) - log_deviation - 0.5 * math.log(2 * math.pi))
    return jnp.sum(jnp.where(jnp.arange(len(policy)) == action, jax.nn.log_softmax(policy), 0))


def entropy(policy: Float[Array, " numbers"], continuous: bool) -> Float[Array, ""]:
    """Of choices the entropy, of real numbers the differential entropy, in nats."""
    if continuous:
        _, log_deviation = _moments(policy)
        return jnp.sum(log_deviation + 0.5 * math.log(2 * math.pi * math.e))
    return -jnp.sum(jax.nn.softmax(policy) * jax.nn.log_softmax(policy))


def _moments(policy: Float[Array, " numbers"]) -> tuple[Array, Array]:
    """Means, and logarithms of deviations: bounded, and near 0 what is predicted."""
    mean, raw = jnp.split(policy, 2)
    return mean, LARGEST_LOG_DEVIATION * jnp.tanh(raw / LARGEST_LOG_DEVIATION)
