"""What objectives with eligibility traces share."""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from onward.batching import pointwise
from onward.model import Model
from onward.types import PyTree

Eligibility = TypeVar("Eligibility")


def require_discount(owner: str, discount: float, trace_decay: float = 1.0) -> None:
    """Refuse a discount outside [0, 1), or a lambda outside [0, 1]."""
    if not 0 <= discount < 1:
        raise ValueError(f"{owner}: discount must be in [0, 1), got {discount}")
    if not 0 <= trace_decay <= 1:
        raise ValueError(f"{owner}: trace_decay must be in [0, 1], got {trace_decay}")


def nothing_eligible(model: Model) -> PyTree:
    """Zeros, shaped like the trainable arrays of the model."""
    return jax.tree.map(jnp.zeros_like, eqx.filter(model, model.trainable()))


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
