"""What objectives with eligibility traces share."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from onward.batching import pointwise
from onward.types import PyTree

Eligibility = TypeVar("Eligibility")
# A number, or a function of the steps so far.
Schedule = float | Callable[[Any], Any]


def require_discount(owner: str, discount: float, trace_decay: float) -> None:
    """Refuse a discount outside [0, 1), or a lambda outside [0, 1]."""
    if not 0 <= discount < 1:
        raise ValueError(f"{owner}: discount must be in [0, 1), got {discount}")
    if not 0 <= trace_decay <= 1:
        raise ValueError(f"{owner}: trace_decay must be in [0, 1], got {trace_decay}")


def corrected(eligibility: PyTree, error: Array) -> PyTree:
    """The gradient to descend: -error times what is eligible."""
    negative = pointwise(lambda e, d: -d * e)
    return jax.tree.map(lambda e: negative(e, error), eligibility)


def accumulated(eligibility: PyTree, decay: Array | float, gradient: PyTree) -> PyTree:
    """The eligibility after one more step: decay e + gradient."""
    accumulate = pointwise(lambda e, g, d: d * e + g)
    return jax.tree.map(lambda e, g: accumulate(e, g, decay), eligibility, gradient)


def grown_eligibility(old: Eligibility, new: Eligibility) -> Eligibility:
    """That of a model which has grown: old output weights stay eligible, the new stage starts with nothing.

    `new`: zeros of the model's present shape.
    """
    keep = lambda a, b: a if a.shape == b.shape else jnp.zeros_like(b).at[..., : a.shape[-1]].set(a)
    return eqx.tree_at(lambda e: e.head, new, jax.tree.map(keep, old.head, new.head))  # type: ignore[attr-defined]


def require_schedule(owner: str, exploration: Schedule) -> None:
    """Refuse a share outside [0, 1]; a function is believed."""
    if not callable(exploration) and not 0 <= exploration <= 1:
        raise ValueError(f"{owner}: exploration must be in [0, 1] or a function of the steps, got {exploration}")


def now(schedule: Schedule, steps: Int[Array, ""]) -> Array:
    """What a schedule says at this step."""
    return jnp.asarray(schedule(steps) if callable(schedule) else schedule)
