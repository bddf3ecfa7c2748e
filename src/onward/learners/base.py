"""What a learner is: an example in, a new model out."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from onward.heads.base import AbstractHead
from onward.model import Model
from onward.types import Info, PyTree, Sequence, Step

Rate = float | Float[Array, ""]


class AbstractLearner(eqx.Module):
    """Keeps the model in its state and improves it with every example."""

    @abc.abstractmethod
    def init(self, model: Model, example: Step | Sequence, *, key: PRNGKeyArray) -> PyTree:
        """The state before the first example; it has a field `model`."""

    @abc.abstractmethod
    def step(self, state: PyTree, example: Step | Sequence) -> tuple[PyTree, Info]:
        """Predict, then learn."""


def require_sequences(owner: str, model: Model, example: Sequence) -> None:
    """Refuse batches that the model cannot read, or whose targets do not cover their last steps."""
    xs, y, mask = example
    if xs.ndim != 3 or xs.shape[2] != model.cell.inputs or 0 in xs.shape:
        raise ValueError(f"{owner} needs xs of shape (time, batch, {model.cell.inputs}), the task gives {xs.shape}")
    if mask.ndim != 2 or not 1 <= len(mask) <= len(xs) or mask.shape[1] != xs.shape[1] or y.shape[:2] != mask.shape:
        raise ValueError(
            f"{owner} needs y and mask of shape (outputs, {xs.shape[1]}, ...), for the last `outputs` of "
            f"{len(xs)} steps; the task gives y {y.shape} and mask {mask.shape}"
        )


def require_rate(owner: str, name: str, rate: Any) -> None:
    """Refuse a rate that is known now and is not a positive, finite number; None stands for a default."""
    if rate is None or isinstance(rate, jax.core.Tracer):
        return
    number = not isinstance(rate, bool | str) and np.issubdtype(np.asarray(rate).dtype, np.number)
    if not number or not bool(np.all((np.asarray(rate) > 0) & np.isfinite(rate))):
        raise ValueError(f"{owner}: {name} must be positive and finite, got {rate}")


def weighted_sum(log_probs: Array, mask: Array) -> Array:
    """Sum of mask times log-probability; where the mask is 0 a target may be anything."""
    return jnp.sum(jnp.where(mask > 0, log_probs, 0) * mask)


def gather_trajectories(head: AbstractHead, features: Float[Array, "rows features"]) -> Array:
    """Features as the head reads them: the trajectories of a sequence, neighbouring rows, on an axis of their own."""
    return features if head.trajectories is None else features.reshape(-1, head.trajectories, features.shape[-1])
