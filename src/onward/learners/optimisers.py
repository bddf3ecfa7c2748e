"""Optimisers that optax does not have in the form that a fast inner loop needs. Each is an optax transformation."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Int

from onward._tree import pointwise
from onward._types import PyTree


class RMSState(NamedTuple):
    """Steps taken, and the running mean of the squared gradient."""

    steps: Int[Array, ""]
    second: PyTree


def rms(decay: float = 0.9999, eps: float = 1e-8, initial: float | None = None) -> optax.GradientTransformation:
    """RMSProp of unit step size: update = -g / (sqrt(q) + eps), q <- decay q + (1 - decay) g^2.

    `initial=None` starts q at 0 and corrects the bias, q / (1 - decay^t), as Adam does; a number
    starts q there without correction, as the code of Javed et al. does (1: a warm-up of 1/(1 - decay)
    steps). The same as `optax.scale_by_rms`, 1.4-2x faster in batches of runs (decisions.md).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"rms: decay must be in [0, 1), got {decay}")
    if not eps > 0:
        raise ValueError(f"rms: eps must be positive, got {eps}")
    follow = pointwise(lambda q, g: decay * q + (1 - decay) * g * g)
    direction = pointwise(lambda q, g, correction: -g * lax.rsqrt(q * correction + eps * eps))

    def init(parameters: PyTree) -> RMSState:
        start = 0.0 if initial is None else initial
        return RMSState(jnp.zeros((), jnp.int32), jax.tree.map(lambda p: jnp.full_like(p, start), parameters))

    def update(gradient: PyTree, state: RMSState, parameters: PyTree = None) -> tuple[PyTree, RMSState]:
        steps = state.steps + 1
        second = jax.tree.map(follow, state.second, gradient)
        one = jnp.ones((), jnp.result_type(float))
        correction = one if initial is not None else 1 / (1 - decay ** steps.astype(one.dtype))
        return jax.tree.map(lambda q, g: direction(q, g, correction), second, gradient), RMSState(steps, second)

    return optax.GradientTransformation(init, update)


def scale_head(factor: float) -> optax.GradientTransformation:
    """Multiply the head's updates: `1 / features` makes the step size of a readout independent of its width."""

    def update(updates: PyTree, state: optax.EmptyState, parameters: PyTree = None) -> tuple[PyTree, optax.EmptyState]:
        scaled = jax.tree.map(pointwise(lambda u: factor * u), updates.head)
        return eqx.tree_at(lambda m: m.head, updates, scaled), state

    return optax.GradientTransformation(lambda parameters: optax.EmptyState(), update)
