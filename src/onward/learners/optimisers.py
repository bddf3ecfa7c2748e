"""Optimisers that optax does not have in the form that a fast inner loop needs. Each is an optax transformation."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from onward.batching import pointwise
from onward.heads.mlp import MLP
from onward.types import PyTree


class RMSState(NamedTuple):
    """Steps taken, and the running mean of the squared gradient."""

    steps: Int[Array, ""]
    second: PyTree


def scale_by_rms(
    decay: float = 0.9999, eps: float = 1e-8, initial: float | None = None
) -> optax.GradientTransformation:
    """RMSProp's direction, with the sign of `optax.scale_by_rms`: update = g / sqrt(q + eps^2).

    q <- decay q + (1 - decay) g^2 is the running mean of the squared gradient. `initial=None` starts q at 0 and
    corrects the bias, q / (1 - decay^t), as Adam does; a number starts q there without correction, as the code of
    Javed et al. does (1: a warm-up of 1/(1 - decay) steps). The numbers of `optax.scale_by_rms` with bias_correction
    and eps_in_sqrt, 1.4-2x faster in batches of runs (decisions.md). The minus belongs to the step size, as in optax:
    `optax.chain(scale_by_rms(), optax.scale_by_learning_rate(1e-3))` descends.

    ValueError for a decay outside [0, 1) or an eps that is not positive. State: one number a parameter, and a count.
    """
    return _rms(decay, eps, initial, 1.0)


def rms(decay: float = 0.9999, eps: float = 1e-8, initial: float | None = None) -> optax.GradientTransformation:
    """RMSProp of unit step size, an optimiser like `optax.rmsprop(1.0)`: `scale_by_rms` times -1, to be added.

    Its step size is that of the learner: `Online(rule, objective, rms(), step_size=1e-3)`. Arguments and errors are
    those of `scale_by_rms`.
    """
    return _rms(decay, eps, initial, -1.0)


def _rms(decay: float, eps: float, initial: float | None, sign: float) -> optax.GradientTransformation:
    if not 0 <= decay < 1:
        raise ValueError(f"rms: decay must be in [0, 1), got {decay}")
    if not eps > 0:
        raise ValueError(f"rms: eps must be positive, got {eps}")
    follow = pointwise(lambda q, g: decay * q + (1 - decay) * g * g)
    direction = pointwise(lambda q, g, correction: sign * g * lax.rsqrt(q * correction + eps * eps))

    def init(parameters: PyTree) -> RMSState:
        start = 0.0 if initial is None else initial
        return RMSState(jnp.zeros((), jnp.int32), jax.tree.map(lambda p: jnp.full_like(p, start), parameters))

    def update(gradient: PyTree, state: RMSState, parameters: PyTree = None) -> tuple[PyTree, RMSState]:
        steps = state.steps + 1
        second = jax.tree.map(follow, state.second, gradient)
        float_type = jnp.result_type(float)
        uncorrected = jnp.ones((), float_type)
        correction = uncorrected if initial is not None else 1 / (1 - decay ** steps.astype(float_type))
        return jax.tree.map(lambda q, g: direction(q, g, correction), second, gradient), RMSState(steps, second)

    return optax.GradientTransformation(init, update)


def scale_head(factor: float, hidden: float = 1.0) -> optax.GradientTransformation:
    """Multiply the head's updates by `factor`; their sign is the one that came in, so it goes before or after others.

    `1 / features` makes the step size of a readout independent of its width:
    `optax.chain(rms(), scale_head(1 / cell.feature_count))`. Of an `MLP` the hidden layer's are multiplied by `hidden`,
    and those of the head that reads it by `factor`. For gradients shaped like a `Model`.
    """

    def scale(updates: PyTree) -> PyTree:
        times = lambda factor, tree: jax.tree.map(pointwise(lambda u: factor * u), tree)
        if not isinstance(updates, MLP):
            return times(factor, updates)
        parts = (times(hidden, updates.weight), times(hidden, updates.bias), scale(updates.head))
        return eqx.tree_at(lambda h: (h.weight, h.bias, h.head), updates, parts)

    def update(updates: PyTree, state: optax.EmptyState, parameters: PyTree = None) -> tuple[PyTree, optax.EmptyState]:
        return eqx.tree_at(lambda m: m.head, updates, scale(updates.head)), state

    return optax.GradientTransformation(lambda parameters: optax.EmptyState(), update)


class LeastSquaresState(NamedTuple):
    """Covariance of the head's weights, running mean of |error|, examples seen, and the cell's optimiser."""

    covariance: Float[Array, "features+1 features+1"]
    error: Float[Array, ""]
    steps: Float[Array, ""]
    cell: PyTree


def kalman(
    kept: tuple[Array, Array, Array],
    phi: Array,
    size: Array,
    *,
    known: Array | bool,
    prior: float,
    leak: Array | float,
    clip: float,
    rate: float,
    noise: float | Array,
    floor: float,
) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """A step of recursive least squares, by the equations of `least_squares`.

    `kept`: covariance P, running mean of |e|, and steps so far. `size`: |e| of what was said of the features `phi`.
    The gain k, the factor by which e is cut, and what is kept after; where not `known` the gain is 0. The constants
    are those of `least_squares`.
    """
    covariance, mean, steps = kept
    steps = steps + 1
    # An outlier moves the mean by no more than ten of the usual errors.
    counted = jnp.minimum(size, 10 * mean)
    pace = jnp.maximum(1 / (steps + 9), rate)
    error = jnp.maximum(mean + pace * (counted - mean), floor)
    cut = jnp.minimum(1, clip * mean / jnp.maximum(size, floor))
    p_phi = covariance @ phi
    spread = noise * jnp.square(1.25 * error)
    gain = jnp.where(known, p_phi / (spread + phi @ p_phi), 0)
    covariance = (1 - leak) * (covariance - jnp.outer(gain, p_phi))
    covariance = covariance + leak * prior * jnp.eye(len(phi), dtype=phi.dtype)
    return gain, cut, (covariance, error, steps)


def least_squares(
    cell: optax.GradientTransformation,
    *,
    prior: float = 0.05,
    leak: float = 3e-5,
    clip: float = 1.0,
    rate: float = 3e-3,
    noise: float = 1.0,
    floor: float = 1e-3,
) -> optax.GradientTransformation:
    """Recursive least squares for a `Linear` head, the optimiser `cell` for all other parameters.

    An optimiser of its own step size: its updates are to be added, as those of `cell` must be; use it with a step
    size of 1.

    Of a squared error e = prediction - y the head's gradient is e [features, 1], and that of its bias e itself, so all
    that a Kalman filter needs is in the gradient. With phi = [features, 1] and R = noise (1.25 mean |e|)^2:

        k = P phi / (R + phi' P phi);   weights <- weights - k e;   P <- (1 - leak) (P - k phi' P) + leak prior I

    P starts at prior I and returns to it where nothing is seen, so it is bounded: a feature that is always 0, or a
    constant, does no harm. Errors are cut at `clip` times the running mean of |e|, for the weights and, as
    e / mean |e|, for the gradient of `cell`, whose step is then free of the unit of y. That mean starts at 1 as if
    seen ten times (y should vary by about 1), moves at `rate` later, and is at least `floor`. Several outputs share P.
    Cost: 3 (features + 1)^2 multiply-adds. Only for the squared error of a `Linear` head. ValueError for rates that are
    out of range.
    """
    if not prior > 0 or not 0 <= leak < 1 or not clip > 0 or not 0 < rate <= 1 or not noise > 0 or not floor > 0:
        raise ValueError(
            "least_squares needs prior, clip, noise and floor > 0, leak in [0, 1) and rate in (0, 1], got "
            f"prior={prior}, clip={clip}, noise={noise}, floor={floor}, leak={leak}, rate={rate}"
        )

    def init(parameters: PyTree) -> LeastSquaresState:
        weight = parameters.head.weight
        eye = prior * jnp.eye(weight.shape[-1] + 1, dtype=weight.dtype)
        error = jnp.ones((), weight.dtype)
        return LeastSquaresState(eye, error, 0 * error, cell.init(parameters.cell))

    def update(
        gradient: PyTree, state: LeastSquaresState, parameters: PyTree = None
    ) -> tuple[PyTree, LeastSquaresState]:
        weight, bias = jnp.atleast_2d(gradient.head.weight), jnp.atleast_1d(gradient.head.bias)
        largest = jnp.max(jnp.abs(bias))
        there = largest > 1e-15
        share = bias / jnp.where(there, largest, 1)  # the square of an error may be too large for a float
        power = jnp.sum(share * share)
        phi = jnp.append(jnp.where(there, (share @ weight) / jnp.where(there, largest * power, 1), 0), 1)
        size = largest * jnp.sqrt(power / len(bias))
        kept = state.covariance, state.error, state.steps
        constants = {"prior": prior, "leak": leak, "clip": clip, "rate": rate, "noise": noise, "floor": floor}
        gain, cut, after = kalman(kept, phi, size, known=there, **constants)
        move = -cut * bias[:, None] * gain[None]
        head = eqx.tree_at(
            lambda h: (h.weight, h.bias),
            gradient.head,
            (move[:, :-1].reshape(gradient.head.weight.shape), move[:, -1].reshape(gradient.head.bias.shape)),
        )
        scale = cut / state.error
        times = pointwise(lambda g, factor: g * factor)
        scaled = jax.tree.map(lambda g: times(g, scale), gradient.cell)
        updates, inner = cell.update(scaled, state.cell, None if parameters is None else parameters.cell)
        updates = eqx.tree_at(lambda m: (m.cell, m.head), gradient, (updates, head))
        return updates, LeastSquaresState(*after, inner)

    return optax.GradientTransformation(init, update)
