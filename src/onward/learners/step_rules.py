"""Step-size rules for streams: optax transformations that are told the error and the eligibility apart.

`Online` gives them `delta` (a scalar), `eligibility` (shaped like the gradient, which is -delta times it) and
`step_size` as extra arguments, wherever its objective has them: `TDLambda`, `Supervised` with a scalar prediction, and
of those that act `QLambda`, `SarsaLambda`, `Reinforce` and, for critic and actor each, `ActorCritic`.
Updates are to be added, times the learner's step size.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from onward.batching import pointwise, tree_sum
from onward.trees import scaled
from onward.types import PyTree

LARGEST_LOG = 80.0


def _require(owner: str, good: bool, wanted: str, **given: float) -> None:
    if not good:
        got = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(f"{owner} needs {wanted}, got {got}")


def _sum(function: Callable[..., Array], *trees: PyTree) -> Array:
    """The sum of an elementwise function over every number of trees of equal structure."""
    return tree_sum([jnp.sum(function(*leaves)) for leaves in zip(*map(jax.tree.leaves, trees), strict=True)])


def _map(function: Callable[..., Any], *trees: PyTree) -> PyTree:
    return jax.tree.map(pointwise(function), *trees)


class BoundedState(NamedTuple):
    """Steps taken, and the running mean of the squared update (of the adaptive form; else nothing)."""

    steps: Int[Array, ""]
    second: PyTree


def obgd(
    kappa: float = 2.0, *, adaptive: bool = False, decay: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Overshooting-bounded gradient descent (Elsayed et al., 2024, algorithm 3; `adaptive`: algorithm 4).

        M = step_size kappa max(|delta|, 1) |z|_1;    update = delta z / max(1, M)

    for an eligibility z. Of a linear prediction with an eligibility of no entry above kappa max(|delta|, 1), an update
    does not carry it past its target, whatever the step size (theirs is 1, with kappa 2 for values and 3 for policies).
    Adaptive: q <- decay q + (1 - decay) (delta z)^2, corrected for its
    start at 0, and z / sqrt(q + eps) in place of z. The bound is over all parameters together. With exact traces z is
    dense, |z|_1 large, and the steps small. State: none, or one number a parameter. Use with `Online` of one stream.

    ValueError for kappa or eps that are not positive, or a decay outside [0, 1).
    """
    _require(
        "obgd",
        kappa > 0 and eps > 0 and 0 <= decay < 1,
        "kappa, eps > 0 and decay in [0, 1)",
        kappa=kappa,
        eps=eps,
        decay=decay,
    )

    def init(parameters: PyTree) -> BoundedState:
        return BoundedState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, parameters) if adaptive else ())

    def update(
        gradient: PyTree,
        state: BoundedState,
        parameters: PyTree = None,
        *,
        delta: Array,
        eligibility: PyTree,
        step_size: Array | float = 1.0,
        **extra: Any,
    ) -> tuple[PyTree, BoundedState]:
        z, steps = eligibility, state.steps + 1
        if adaptive:
            second = _map(lambda q, z, d: decay * q + (1 - decay) * jnp.square(d * z), state.second, z, _like(delta, z))
            correction = 1 / (1 - decay ** steps.astype(delta.dtype))
            z = _map(lambda z, q, c: z / jnp.sqrt(q * c + eps), z, second, _like(correction, z))
            state = state._replace(second=second)
        bound = step_size * kappa * jnp.maximum(jnp.abs(delta), 1) * _sum(jnp.abs, z)
        return scaled(z, delta / jnp.maximum(1, bound)), state._replace(steps=steps)

    return optax.GradientTransformationExtraArgs(init, update)  # type: ignore[arg-type]


def _like(value: Array, tree: PyTree) -> PyTree:
    """A scalar for each leaf of a tree."""
    return jax.tree.map(lambda _: value, tree)


class IntentionalState(NamedTuple):
    """Steps, the running second moment, that of a gradient's size, that of delta, and the last eligibility."""

    steps: Int[Array, ""]
    second: PyTree
    size: Float[Array, ""]
    error: Float[Array, ""]
    last: PyTree


def intentional(
    trace_decay: float,
    *,
    of: Literal["eligibility", "gradient"] = "eligibility",
    decay: float = 0.999,
    error_decay: float = 0.9998,
    cut: float = 20.0,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Intentional updates (Sharifnassab et al., 2026): a step that moves the prediction by a share of its error.

    In RMSProp's metric:

        v = running mean of g^2;  D = sqrt(v) + eps;  s = running mean of sum g^2 / D, at rate 1 - trace_decay
        update = delta z / (D sqrt(s sum z^2 / D)),    |delta| at most `cut` sqrt(running mean of delta^2)

    z is the eligibility, g the gradient that entered it last, z - trace_decay z_before; `trace_decay` is discount times
    lambda of the objective (0 for `Supervised`). All means are corrected for their start at 0. The learner's step
    size is the share (theirs: .5 for values, .05 for policies). `of`: v of g, as published, or of z, which is better
    behaved where exact traces make z dense. State: one number a parameter, and another where trace_decay is not 0. Use
    with `Online` of one stream. ValueError for rates out of range.
    """
    good = 0 <= trace_decay < 1 and 0 <= decay < 1 and 0 <= error_decay < 1 and cut > 0 and eps > 0
    given = {"trace_decay": trace_decay, "decay": decay, "error_decay": error_decay, "cut": cut, "eps": eps}
    _require("intentional", good, "decays in [0, 1) and cut, eps > 0", **given)
    if of not in ("eligibility", "gradient"):
        raise ValueError(f"intentional: of must be 'eligibility' or 'gradient', got {of!r}")

    def init(parameters: PyTree) -> IntentionalState:
        zero = jax.tree.map(jnp.zeros_like, parameters)
        one = jnp.zeros((), jax.tree.leaves(parameters)[0].dtype)
        return IntentionalState(jnp.zeros((), jnp.int32), zero, one, one, zero if trace_decay else ())

    def update(
        gradient: PyTree,
        state: IntentionalState,
        parameters: PyTree = None,
        *,
        delta: Array,
        eligibility: PyTree,
        **extra: Any,
    ) -> tuple[PyTree, IntentionalState]:
        z, steps = eligibility, state.steps + 1
        corrected = lambda rate, mean: mean / (1 - rate ** steps.astype(delta.dtype))
        g = _map(lambda z, last: z - trace_decay * last, z, state.last) if trace_decay else z
        follow = lambda v, a: decay * v + (1 - decay) * jnp.square(a)
        second = _map(follow, state.second, z if of == "eligibility" else g)
        root = _map(lambda v, c: jnp.sqrt(v * c) + eps, second, _like(corrected(decay, jnp.ones_like(delta)), second))
        in_metric = lambda a, d: jnp.square(a) / d
        size = trace_decay * state.size + (1 - trace_decay) * _sum(in_metric, g, root)
        error = error_decay * state.error + (1 - error_decay) * jnp.square(delta)
        limit = cut * jnp.sqrt(corrected(error_decay, error))
        length = jnp.sqrt(corrected(trace_decay, size) * _sum(in_metric, z, root))
        factor = jnp.where(length > 0, jnp.clip(delta, -limit, limit) / jnp.where(length > 0, length, 1), 0)
        updates = _map(lambda z, d, f: f * z / d, z, root, _like(factor, z))
        return updates, IntentionalState(steps, second, size, error, z if trace_decay else ())

    return optax.GradientTransformationExtraArgs(init, update)  # type: ignore[arg-type]


class IDBDState(NamedTuple):
    """Of each weight the logarithm of its step size and the trace h; of `autostep` the normaliser v too."""

    log_step: PyTree
    trace: PyTree
    normaliser: PyTree


def idbd(meta: float = 0.01, *, initial: float = 0.05) -> optax.GradientTransformationExtraArgs:
    """Incremental delta-bar-delta (Sutton, 1992): a step size e^beta for each weight of a linear prediction.

        beta <- beta + meta delta x h;  update = e^beta delta x;  h <- h max(0, 1 - e^beta x^2) + e^beta delta x

    x is the eligibility: what a weight multiplies, of `Supervised` or `TDLambda` with lambda 0 (else the eligibility
    stands in all places of x). `initial` is the first step size of all. Only for weights that enter linearly: put it on
    a `Linear` head, `on_head(idbd(), cell=rms())`, with a step size of 1. State: two numbers a weight. ValueError for a
    meta step size below 0 or an initial one that is not positive.
    """
    _require("idbd", meta >= 0 and initial > 0, "meta >= 0 and initial > 0", meta=meta, initial=initial)

    def update(
        gradient: PyTree,
        state: IDBDState,
        parameters: PyTree = None,
        *,
        delta: Array,
        eligibility: PyTree,
        **extra: Any,
    ) -> tuple[PyTree, IDBDState]:
        def one(beta: Array, h: Array, x: Array, delta: Array) -> tuple[Array, Array, Array]:
            beta = jnp.clip(beta + meta * delta * x * h, -LARGEST_LOG, LARGEST_LOG)
            step = jnp.exp(beta)
            moved = step * delta * x
            return moved, beta, h * jnp.maximum(0, 1 - step * jnp.square(x)) + moved

        found = _map(one, state.log_step, state.trace, eligibility, _like(delta, eligibility))
        updates, beta, h = _apart(found, eligibility)
        return updates, IDBDState(beta, h, ())

    return optax.GradientTransformationExtraArgs(_start_steps(initial, False), update)  # type: ignore[arg-type]


def autostep(meta: float = 0.01, *, initial: float = 0.1, tau: float = 1e4) -> optax.GradientTransformationExtraArgs:
    """Autostep (Mahmood et al., 2012): IDBD free of the scale of its meta step, with a bound on the whole step.

        v <- max(|delta x h|, v + step x^2 (|delta x h| - v) / tau);  step <- step exp(meta delta x h / v)
        step <- step / max(1, sum step x^2);  update = step delta x;  h <- h (1 - step x^2) + step delta x

    As `idbd` in all else. State: three numbers a weight. ValueError for a meta step size below 0, or an initial one or
    tau that are not positive.
    """
    _require(
        "autostep",
        meta >= 0 and initial > 0 and tau > 0,
        "meta >= 0, initial, tau > 0",
        meta=meta,
        initial=initial,
        tau=tau,
    )

    def update(
        gradient: PyTree,
        state: IDBDState,
        parameters: PyTree = None,
        *,
        delta: Array,
        eligibility: PyTree,
        **extra: Any,
    ) -> tuple[PyTree, IDBDState]:
        def adapt(beta: Array, h: Array, v: Array, x: Array, delta: Array) -> tuple[Array, Array]:
            move = delta * x * h
            v = jnp.maximum(jnp.abs(move), v + jnp.exp(beta) * jnp.square(x) * (jnp.abs(move) - v) / tau)
            moved = beta + jnp.where(v > 0, meta * move / jnp.where(v > 0, v, 1), 0)
            return jnp.clip(moved, -LARGEST_LOG, LARGEST_LOG), v

        def apply(beta: Array, h: Array, x: Array, delta: Array, over: Array) -> tuple[Array, Array, Array]:
            beta = beta - jnp.log(over)
            step = jnp.exp(beta)
            moved = step * delta * x
            return moved, beta, h * (1 - step * jnp.square(x)) + moved

        x, told = eligibility, _like(delta, eligibility)
        beta, v = _apart(_map(adapt, state.log_step, state.trace, state.normaliser, x, told), x)
        over = jnp.maximum(1, _sum(lambda b, x: jnp.exp(b) * jnp.square(x), beta, x))
        updates, beta, h = _apart(_map(apply, beta, state.trace, x, told, _like(over, x)), x)
        return updates, IDBDState(beta, h, v)

    return optax.GradientTransformationExtraArgs(_start_steps(initial, True), update)  # type: ignore[arg-type]


def _start_steps(initial: float, normalised: bool) -> Callable[[PyTree], IDBDState]:
    def init(parameters: PyTree) -> IDBDState:
        zero = jax.tree.map(jnp.zeros_like, parameters)
        start = jax.tree.map(lambda p: jnp.full_like(p, math.log(initial)), parameters)
        return IDBDState(start, zero, zero if normalised else ())

    return init


def _apart(found: PyTree, like: PyTree) -> tuple[PyTree, ...]:
    """A tree of tuples as a tuple of trees."""
    return jax.tree.transpose(jax.tree.structure(like), None, found)


class SwiftTDState(NamedTuple):
    """Of each weight what SwiftTD keeps, in its authors' letters."""

    beta: PyTree
    z: PyTree
    z_delta: PyTree
    z_bar: PyTree
    p: PyTree
    h: PyTree
    h_old: PyTree
    h_temp: PyTree
    delta_w: PyTree


def swift_td(
    discount: float,
    trace_decay: float,
    *,
    initial: float = 1e-3,
    largest: float = 0.1,
    decay: float = 0.999,
    meta: float = 1e-3,
    smallest: float = 1e-10,
) -> optax.GradientTransformationExtraArgs:
    """SwiftTD (Javed et al., 2024): true-online TD(lambda) of a linear prediction, with a step size for each weight.

    Step sizes e^beta follow the gradient (`meta`) between `smallest` and `largest`; where sum e^beta x^2 would exceed
    `largest` the step is cut to it and the step sizes of what is seen decay by `decay`. It keeps traces of its own,
    with `discount` and `trace_decay` (lambda), so the objective is `TDLambda(discount, trace_decay=0)`, whose
    eligibility is the x of the last prediction. Only for weights that enter linearly: `on_head(swift_td(...),
    cell=...)`, with a step size of 1. The start of an episode does not clear its traces. State: nine numbers a weight.
    The published code compares e^beta with log(eta_min), so that its floor never acts; here `smallest` is one.
    ValueError for rates out of range.
    """
    good = 0 <= discount < 1 and 0 <= trace_decay <= 1 and 0 < smallest <= initial <= largest and 0 < decay <= 1
    given = {"discount": discount, "trace_decay": trace_decay, "smallest": smallest, "initial": initial}
    given |= {"largest": largest, "decay": decay, "meta": meta}
    wanted = "discount in [0, 1), trace_decay in [0, 1], 0 < smallest <= initial <= largest, decay in (0, 1], meta >= 0"
    _require("swift_td", good and meta >= 0, wanted, **given)
    fade = discount * trace_decay
    low, high = math.log(smallest), math.log(largest)

    def init(parameters: PyTree) -> SwiftTDState:
        zero = jax.tree.map(jnp.zeros_like, parameters)
        return SwiftTDState(jax.tree.map(lambda p: jnp.full_like(p, math.log(initial)), parameters), *[zero] * 8)

    def update(
        gradient: PyTree,
        state: SwiftTDState,
        parameters: PyTree = None,
        *,
        delta: Array,
        eligibility: PyTree,
        **extra: Any,
    ) -> tuple[PyTree, SwiftTDState]:
        x = eligibility
        # What the last prediction saw enters the traces, by the step sizes of then.
        rate = _sum(lambda b, x: jnp.exp(b) * jnp.square(x), state.beta, x)
        overlap = _sum(lambda z, x: fade * z * x, state.z, x)
        v_delta = _sum(jnp.multiply, state.delta_w, x)
        shared = (rate, overlap, v_delta, delta)

        def one(s: tuple[Array, ...], x: Array, rate: Array, overlap: Array, v_delta: Array, delta: Array) -> Any:
            beta, z, _, z_bar, p, h, h_old, _, _ = s
            z, z_bar, p = fade * z, fade * z_bar, fade * p
            over = rate > largest
            z_delta = jnp.where(over, largest / rate, 1) * jnp.exp(beta) * x
            z = z + z_delta * (1 - overlap)
            p = p + h_old * x
            z_bar = z_bar + z_delta * (1 - overlap - z_bar * x)
            h_temp = h - h_old * x * (z - z_delta) - h * z_delta * x
            h_temp, z_bar = (jnp.where(over, 0, a) for a in (h_temp, z_bar))
            h = jnp.where(over, 0, h)
            beta = beta + jnp.where(over, math.log(decay) * jnp.square(x), 0)
            # Then the error that came of it.
            delta_w = delta * z - z_delta * v_delta
            beta = beta + meta / (jnp.exp(beta) + 1e-8) * (delta - v_delta) * p
            beta = jnp.clip(beta, low, high)
            h_after = h_temp + delta * z_bar - z_delta * v_delta
            return beta, z, z_delta, z_bar, p, h_after, h, h_after, delta_w

        leaves, structure = jax.tree.flatten(x)
        parts = zip(*map(jax.tree.leaves, state), strict=True)
        kernel = pointwise(lambda *a: one(a[:9], *a[9:]))
        found = [kernel(*s, leaf, *shared) for s, leaf in zip(parts, leaves, strict=True)]
        after = SwiftTDState(*(jax.tree.unflatten(structure, part) for part in zip(*found, strict=True)))
        return after.delta_w, after

    return optax.GradientTransformationExtraArgs(init, update)  # type: ignore[arg-type]


class OnHeadState(NamedTuple):
    """The states of both transformations."""

    head: PyTree
    cell: PyTree


def on_head(
    head: optax.GradientTransformation, cell: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """One transformation for the head's weights, another for all others; each is told of its own part only.

    For gradients shaped like a `Model`. `on_head(swift_td(...), cell=rms())`.
    """
    parts = {"head": optax.with_extra_args_support(head), "cell": optax.with_extra_args_support(cell)}

    def init(parameters: PyTree) -> OnHeadState:
        return OnHeadState(**{name: part.init(getattr(parameters, name)) for name, part in parts.items()})

    def update(
        gradient: PyTree, state: OnHeadState, parameters: PyTree = None, **extra: Any
    ) -> tuple[PyTree, OnHeadState]:
        updates, after = {}, {}
        for name, part in parts.items():
            of = lambda tree, name=name: None if tree is None else getattr(tree, name)
            mine = {key: of(value) if key in ("eligibility", "grad") else value for key, value in extra.items()}
            updates[name], after[name] = part.update(of(gradient), getattr(state, name), of(parameters), **mine)
        moved = eqx.tree_at(lambda m: (m.head, m.cell), gradient, (updates["head"], updates["cell"]))
        return moved, OnHeadState(**after)

    return optax.GradientTransformationExtraArgs(init, update)
