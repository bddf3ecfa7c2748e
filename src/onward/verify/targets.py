"""Do target propagation and stochastic units do what they say? Each claim against a reference, in float64.

Where an inverse is the one that the theory asks for, the local updates must be the gradient of BPTT; where a
gradient must not go, none may arrive; and what is random is compared, draw by draw, with numpy.
"""

import functools
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

import onward as ow
from onward.learners.bptt import sequence_loss
from onward.learners.inverses import Transition
from onward.learners.tptt import Propagation, TPTTState
from onward.random import seed_of, uniform
from onward.types import PyTree
from onward.verify.claims import EXACT, SIGMAS
from onward.verify.gradients import compare, quick

# Draws of a gradient whose expectation is asked for.
DRAWS = 4_000
KINDS: dict[str, Callable[..., ow.Dense]] = {"Elman": ow.Elman, "GRU": ow.GRU, "LSTM": ow.LSTM}
INPUTS, UNITS, CLASSES, OUTPUTS = 2, 4, 3, 3


@dataclass(frozen=True)
class Check:
    """One claim: what was compared, the number that came out, and what it has to be."""

    name: str
    what: str
    value: float
    limit: str
    ok: bool


# Name, what is compared, the number, and what it has to be: smaller than, larger than or equal to a bound.
Claim = tuple[str, str, float, Literal["<", ">", "="], float]


def _checked(claims: Callable[..., Iterator[Claim]]) -> Callable[..., list[Check]]:
    """What a generator claims, computed in float64 and judged."""
    holds = {"<": operator.lt, ">": operator.gt, "=": operator.eq}

    @functools.wraps(claims)
    def run(*arguments: Any, **options: Any) -> list[Check]:
        with jax.enable_x64(True):
            computed = [(n, what, float(v), must, bound) for n, what, v, must, bound in claims(*arguments, **options)]
        return [Check(n, what, v, f"{must} {bound:g}", holds[must](v, bound)) for n, what, v, must, bound in computed]

    return run


def filled(make: Callable[[], Any], *, scale: float = 0.6, seed: int = 0) -> Any:
    """What `make` builds, with normal numbers in every array: heads start at zero, and zeros hide faults."""
    rng = np.random.default_rng(seed)
    fill = lambda a: jnp.asarray(scale * rng.normal(size=a.shape)) if isinstance(a, jax.ShapeDtypeStruct) else a
    return jax.tree.map(fill, eqx.filter_eval_shape(make))


def small(cell: Callable[[PRNGKeyArray], ow.AbstractCell], *, seed: int = 0, samples: int | None = None) -> Any:
    """A small model with random weights."""

    def make() -> ow.Model:
        made = cell(jax.random.key(0))
        head = ow.Categorical(made.feature_count, CLASSES)
        return ow.Model(made, head if samples is None else ow.MonteCarlo(head, samples))

    return filled(make, seed=seed)


def batch(time: int, rows: int, outputs: int = 1, *, scale: float = 1.0, seed: int = 1) -> ow.Sequence:
    """Random inputs, (time, rows, 2), and classes of the last `outputs` steps."""
    rng = np.random.default_rng(seed)
    xs, y = scale * rng.normal(size=(time, rows, INPUTS)), rng.integers(0, CLASSES, (outputs, rows))
    return ow.Sequence(jnp.asarray(xs), jnp.asarray(y), jnp.ones((outputs, rows)))


@quick
def bptt_gradient(model: ow.Model, example: ow.Sequence, key: PRNGKeyArray | None = None) -> tuple[Array, PyTree]:
    """The loss, and its gradient by backpropagation through time."""
    parameters, rest = eqx.partition(model, model.trainable())
    stats = model.cell.init().stats
    loss = lambda p: sequence_loss(eqx.combine(p, rest), stats, example, key=key)[0]
    found: tuple[Array, PyTree] = jax.value_and_grad(loss)(parameters)
    return found


@quick
def sweep(
    learner: ow.TPTT,
    model: ow.Model,
    example: ow.Sequence,
    key: PRNGKeyArray,
    inverse: PyTree = None,
    keep: bool = False,
) -> Propagation:
    """The learner's first sweep with these weights of the inverse; its gradient divided by the weight of the losses."""
    # Compiled with the rest: drawing weights operation by operation takes seconds.
    state = learner.init(model, example, key=key)
    state = state if inverse is None else state._replace(inverse=inverse)
    swept = learner.propagate(state, example, key=key, keep=keep)
    return swept._replace(gradient=jax.tree.map(lambda g: g / swept.weight, swept.gradient))


@_checked
def linear_inverse() -> Iterator[Claim]:
    """Orthogonal recurrent weights near the origin, and the inverse of the linear step: shifts are gradients."""
    key, example = jax.random.key(0), batch(8, 5, scale=0.02)
    rng = np.random.default_rng(2)
    square, other = (jnp.asarray(np.linalg.qr(rng.normal(size=(UNITS, UNITS)))[0]) for _ in range(2))
    model = small(lambda k: ow.Elman(INPUTS, UNITS, key=k))
    arrays = square[:, None], 0.02 * model.cell.bias
    model = eqx.tree_at(lambda m: (m.cell.recurrent, m.cell.bias), model, arrays)
    learner = ow.TPTT(ow.AffineInverse(), optax.sgd(1.0), target_step_size=1e-3, inverse_steps=0)
    weight, bias, back = model.cell.weight[:, 0], model.cell.bias[0], square.T
    inverse = filled(lambda: learner.inverse.init(model.cell, key=key))._replace(
        inputs=-weight @ back, hidden=back, bias=-bias @ back
    )
    _, reference = bptt_gradient(model, example)

    def cosine(inverse: PyTree) -> float:
        return compare(sweep(learner, model, example, key, inverse).gradient.cell, reference.cell).cosine

    what = "cosine of TPTT's update of an orthogonal, nearly linear Elman layer with BPTT's, 8 steps"
    yield "exact linear inverse", what, cosine(inverse), ">", 0.999
    what = "the same with another orthogonal matrix in the inverse"
    yield "exact linear inverse, control", what, cosine(inverse._replace(hidden=other)), "<", 0.9


@_checked
def exact_feedback(kinds: tuple[str, ...] = tuple(KINDS)) -> Iterator[Claim]:
    """Feedback weights that are the forward ones: TPTT is BPTT, for one output and for several."""
    key, example = jax.random.key(0), batch(5, 3, OUTPUTS)
    last = example._replace(mask=example.mask.at[:-1].set(0.0))
    what = f"largest relative error of an array of TPTT's update to BPTT's gradient, 1 and {OUTPUTS} outputs"
    learner = ow.TPTT(ow.FeedbackInverse(), optax.sgd(1.0), inverse_steps=0)
    for name in kinds:
        model = small(lambda k, kind=KINDS[name]: kind(INPUTS, UNITS, key=k))
        exact = lambda e, model=model: sweep(learner, model, e, key, model.cell.recurrent).gradient
        error = max(compare(exact(e), bptt_gradient(model, e)[1]).relative_error for e in (example, last))
        yield f"exact feedback, {name}", what, error, "<", EXACT


class _Handed(ow.AbstractCell):
    """The same cell, that tells `arrived` how much gradient comes back on the state that a step was handed."""

    cell: ow.AbstractCell
    arrived: Callable[[Any], None] = eqx.field(static=True)

    @property
    def inputs(self) -> int:
        return self.cell.inputs

    @property
    def feature_count(self) -> int:
        return self.cell.feature_count

    def init(self) -> ow.Carry:
        return self.cell.init()

    def __call__(self, carry: ow.Carry, x: Array, *, key: PRNGKeyArray | None = None) -> ow.Carry:
        def back(_: None, cotangent: PyTree) -> tuple[PyTree]:
            jax.debug.callback(self.arrived, sum(jnp.sum(g != 0) for g in jax.tree.leaves(cotangent)))
            return (cotangent,)

        handed = jax.custom_vjp(lambda hidden: hidden)
        handed.defvjp(lambda hidden: (hidden, None), back)
        return self.cell(ow.Carry(handed(carry.hidden), carry.stats), x, key=key)

    def features(self, carry: ow.Carry, *, key: PRNGKeyArray | None = None) -> Array:
        return self.cell.features(carry, key=key)


@_checked
def local(learner: type[ow.TPTT] = ow.TPTT) -> Iterator[Claim]:
    """No gradient crosses a step, and what stays is the gradient of the local losses."""
    key, example = jax.random.key(0), batch(5, 3, OUTPUTS)
    counts: list[int] = []
    model = small(lambda k: ow.GRU(INPUTS, UNITS, key=k))
    watched = ow.Model(_Handed(model.cell, lambda n: counts.append(int(n))), model.head)
    trained = learner(ow.AffineInverse(), optax.sgd(1.0))

    def arrived(gradient: Callable[[], PyTree]) -> int:
        counts.clear()
        jax.block_until_ready(gradient())
        jax.effects_barrier()
        return sum(counts)

    what = "numbers of gradient that reach the state which a step of the cell is handed, in a sweep"
    yield "local, nothing arrives", what, arrived(lambda: sweep(trained, watched, example, key).gradient), "=", 0
    yield "local, control", "the same in BPTT", arrived(lambda: bptt_gradient(watched, example)), ">", 0

    targets = learner(ow.AffineInverse(), optax.sgd(1.0), target_step_size=0.3, inverse_steps=0)
    swept = sweep(targets, model, example, key, keep=True)
    alone = _local_gradient(model, example, swept.hidden, swept.shifts)
    error = compare(swept.gradient.cell, jax.tree.map(lambda g: g / swept.weight, alone)).relative_error
    what = (
        "largest relative error of an array of TPTT's update to the gradient of |F(x_t, h_{t-1}) - target_t|^2 / 2 "
        "with h_{t-1} given as a number, summed over steps"
    )
    yield "local, step by step", what, error, "<", EXACT


@quick
def _local_gradient(model: ow.Model, example: ow.Sequence, hidden: PyTree, shifts: PyTree) -> PyTree:
    parameters, rest = eqx.partition(model.cell, model.cell.trainable())
    start = model.cell.init()
    first = lambda a, h: jnp.concatenate([jnp.broadcast_to(a, h[:1].shape), h[:-1]])
    before = jax.tree.map(first, start.hidden, hidden)
    target = jax.tree.map(jnp.add, hidden, shifts)

    def loss(parameters: PyTree) -> Array:
        cell = eqx.combine(parameters, rest)
        step = lambda h, x: cell(ow.Carry(h, start.stats), x).hidden
        reached = jax.vmap(jax.vmap(step))(before, example.xs)
        return sum((0.5 * jnp.sum(jnp.square(a - b)) for a, b in zip(reached, target, strict=True)), jnp.zeros(()))

    gradient: PyTree = jax.grad(loss)(parameters)
    return gradient


@_checked
def least_difference() -> Iterator[Claim]:
    """The least expected loss of differences is where the feedback weights are the forward ones."""
    cell = small(lambda k: ow.GRU(INPUTS, UNITS, key=k)).cell
    inverse, rng = ow.FeedbackInverse(), np.random.default_rng(3)
    before = ow.Carry((jnp.asarray(0.5 * rng.normal(size=UNITS)),), cell.init().stats)
    x, away = jnp.asarray(rng.normal(size=INPUTS)), jnp.asarray(0.3 * rng.normal(size=cell.recurrent.shape))

    @quick
    def gradients(weights: Array, keys: PRNGKeyArray) -> Array:
        transition = Transition(before, x, cell(before, x).hidden, keys[0])
        loss = lambda w, k: inverse.loss(w, cell, transition, key=k)
        found: Array = jax.vmap(jax.grad(loss), (None, 0))(weights, keys)
        return found

    def sigmas(drawn: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " n"]:
        return drawn.mean(0) / (drawn.std(0, ddof=1) / len(drawn) ** 0.5)

    keys = jax.random.split(jax.random.key(4), DRAWS)
    at = lambda weights: np.asarray(gradients(weights, keys)).reshape(DRAWS, -1)
    here, there = at(cell.recurrent), at(cell.recurrent + away)
    along = there @ np.asarray(away).reshape(-1, 1)
    what = f"mean gradient of {DRAWS:,} draws with a GRU's recurrent weights as feedback weights, in standard errors"
    yield "difference loss, minimum", what, np.abs(sigmas(here)).max(), "<", SIGMAS
    what = "its slope away from there, in a random direction, in standard errors"
    yield "difference loss, control", what, sigmas(along)[0], ">", SIGMAS


@_checked
def no_share() -> Iterator[Claim]:
    """A hybrid layer without stochastic units is the plain layer."""
    key, example = jax.random.key(0), batch(5, 3, OUTPUTS)
    plain = small(lambda k: ow.Elman(INPUTS, UNITS, key=k))
    hybrid = ow.Model(ow.Hybrid(plain.cell, share=0.0), plain.head)
    learner = ow.TPTT(ow.FeedbackInverse(), optax.sgd(0.1))

    @quick
    def steps(model: ow.Model) -> TPTTState:
        state = learner.init(model, example, key=key)
        return jax.lax.scan(lambda s, _: (learner.step(s, example)[0], None), state, length=3)[0]

    arrays = lambda state: jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))
    ends = [[np.asarray(a) for a in arrays(steps(model))] for model in (plain, hybrid)]
    differ = sum(int(np.sum(a != b)) for a, b in zip(*ends, strict=True))
    what = "numbers of the learner's state that differ from those of the plain layer after 3 steps"
    yield "no stochastic units", what, differ, "=", 0


@_checked
def straight_through(hybrid: type[ow.Hybrid] = ow.Hybrid) -> Iterator[Claim]:
    """BPTT of stochastic units, by the same draws in numpy: a unit fires where z < h, and d sample / d h = 1."""
    key, (time, rows, outputs, copies) = jax.random.key(5), (4, 2, 2, 3)
    example = batch(time, rows, outputs)
    make = lambda k: hybrid(ow.Elman(INPUTS, UNITS, key=k, activation="sigmoid"), share=0.5)
    model = small(make, samples=copies)
    loss, gradient = bptt_gradient(model, example, key)
    lanes = jnp.arange(model.cell.stochastic, dtype=jnp.uint32)

    @quick
    def draw(key: PRNGKeyArray) -> tuple[Array, ...]:
        # As `sequence_loss` does: first for the steps, then for the readings.
        keys = (jax.random.split(jax.random.fold_in(key, i), (time, rows * copies)) for i in range(2))
        of = jax.vmap(jax.vmap(lambda k: uniform(seed_of(k), jnp.zeros((), jnp.int32), lanes)))
        return tuple(of(k) for k in keys)

    draws = [np.asarray(z, np.float64) for z in draw(key)]
    by_hand, arrays = _straight_through(model, example, draws[0], draws[1], copies)
    layer = lambda m: (m.cell.cell.weight, m.cell.cell.recurrent, m.cell.cell.bias)
    where = lambda m: (*layer(m), m.head.head.weight, m.head.head.bias)
    error = compare(gradient, eqx.tree_at(where, gradient, arrays)).relative_error
    what = f"largest relative error of the loss and of an array of BPTT's gradient to numpy's, {copies} trajectories"
    yield "straight-through", what, max(error, abs(float(loss) / by_hand - 1)), "<", EXACT


def _straight_through(
    model: Any, example: ow.Sequence, step_draws: np.ndarray, reading_draws: np.ndarray, copies: int
) -> tuple[float, tuple[np.ndarray, ...]]:
    layer: ow.Dense = model.cell.cell
    weight, recurrent, bias = (np.asarray(a)[..., 0, :] for a in (layer.weight, layer.recurrent, layer.bias))
    out, offset = np.asarray(model.head.head.weight), np.asarray(model.head.head.bias)
    xs, y, mask = (np.asarray(a) for a in example)
    time, rows, outputs = len(xs), xs.shape[1], len(mask)
    xs, count = np.repeat(xs, copies, 1), step_draws.shape[-1]

    def sampled(h: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.concatenate([(z < h[:, :count]).astype(float), h[:, count:]], 1)

    h, seen, hidden = np.zeros((rows * copies, layer.units)), [], []
    loss, on_hidden = 0.0, np.zeros((time, *h.shape))
    on_out, on_offset = np.zeros_like(out), np.zeros_like(offset)
    for t in range(time):
        seen.append(sampled(h, step_draws[t]))
        h = 1 / (1 + np.exp(-(xs[t] @ weight + seen[t] @ recurrent + bias)))
        hidden.append(h)
        k = t - (time - outputs)
        if k < 0:
            continue
        features = sampled(h, reading_draws[t])
        p = np.exp(features @ out.T + offset)
        p /= p.sum(1, keepdims=True)
        right = np.eye(len(out))[np.repeat(y[k], copies)]
        likelihood = (p * right).sum(1).reshape(rows, copies)
        loss -= float((mask[k] * np.log(likelihood.mean(1))).sum() / mask.sum())
        share = (mask[k, :, None] / mask.sum() * likelihood / likelihood.sum(1, keepdims=True)).reshape(-1, 1)
        on_logits = -share * (right - p)
        on_out, on_offset = on_out + on_logits.T @ features, on_offset + on_logits.sum(0)
        on_hidden[t] += on_logits @ out
    on_weight, on_recurrent, on_bias = np.zeros_like(weight), np.zeros_like(recurrent), np.zeros_like(bias)
    for t in reversed(range(time)):
        on_a = on_hidden[t] * hidden[t] * (1 - hidden[t])
        on_weight, on_recurrent = on_weight + xs[t].T @ on_a, on_recurrent + seen[t].T @ on_a
        on_bias = on_bias + on_a.sum(0)
        if t:
            on_hidden[t - 1] += on_a @ recurrent.T
    return loss, (on_weight[:, None], on_recurrent[:, None], on_bias[None], on_out, on_offset)


@_checked
def likelihoods() -> Iterator[Claim]:
    """What heads say of y, against densities and probabilities written out in numpy."""
    rng = np.random.default_rng(6)
    features = rng.normal(size=(3, UNITS))
    off = lambda found, expected: float(np.abs(np.exp(np.asarray(found)) / expected - 1).max())
    # Mixtures of four components, of numbers and of pairs.
    mixed = 0.0
    for outputs in (None, 2):
        head = filled(lambda outputs=outputs: ow.Mixture(UNITS, 4, outputs=outputs))
        y = rng.normal(size=(3,) if outputs is None else (3, outputs))
        expected = [_mixture(head, f, v) for f, v in zip(features, y, strict=True)]
        mixed = max(mixed, off(_log_probs(head, jnp.asarray(features), jnp.asarray(y)), expected))
    bits = filled(lambda: ow.Bernoulli(UNITS, 5))
    on = rng.integers(0, 2, (3, 5))
    p = 1 / (1 + np.exp(-(features @ np.asarray(bits.weight).T + np.asarray(bits.bias))))
    flips = off(_log_probs(bits, jnp.asarray(features), jnp.asarray(on)), np.where(on == 1, p, 1 - p).prod(1))
    # Three features of one trajectory each: the mean of three probabilities.
    classes = filled(lambda: ow.Categorical(UNITS, CLASSES))
    e = np.exp(features @ np.asarray(classes.weight).T + np.asarray(classes.bias))
    mean = (e / e.sum(1, keepdims=True)).mean(0)
    of_mean = _log_probs(ow.MonteCarlo(classes, 3), jnp.asarray([features] * CLASSES), jnp.arange(CLASSES))
    what = "largest relative error of a likelihood to numpy's"
    yield "Mixture", f"{what}, of numbers and of pairs", mixed, "<", EXACT
    yield "Bernoulli", what, flips, "<", EXACT
    yield "MonteCarlo", f"{what}, the mean over 3 trajectories", off(of_mean, mean), "<", EXACT


@quick
def _log_probs(head: Any, features: Array, y: Array) -> Array:
    found: Array = jax.vmap(lambda f, y: head.log_prob(head(f), y))(features, y)
    return found


def _mixture(head: ow.Mixture, features: np.ndarray, y: np.ndarray) -> float:
    log_pi, mu, log_sigma = (np.asarray(part) for part in head.parts(head(jnp.asarray(features))))
    sigma, d = np.exp(log_sigma), head.outputs or 1
    square = ((y - mu.reshape(-1, d)) ** 2).sum(1)
    return float((np.exp(log_pi) * np.exp(-square / (2 * sigma**2)) / (2 * np.pi * sigma**2) ** (d / 2)).sum())


PARTS = (linear_inverse, exact_feedback, local, least_difference, no_share, straight_through, likelihoods)


def checks() -> list[Check]:
    """Every claim of this module, in some 10 seconds."""
    return [check for part in PARTS for check in part()]
