"""An inverse problem with several answers (Bishop, 1994), to be remembered through distractors."""

import abc
import functools
import itertools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from onward.cells.base import require_size
from onward.random import bits, integer, seed_of, uniform
from onward.tasks.base import AbstractTask
from onward.types import Sequence

BEND, NOISE, CLASSES = 0.3, 0.1, 10

# By rule: L, and the class of each value of rint(L a). The second is int(round(a, 1) * 9).
RULES = {"nearest": (9, tuple(range(10))), "code": (10, (0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9))}


class OneToManyState(NamedTuple):
    """The counter of the random numbers."""

    seed: UInt32[Array, "2"]
    step: Int[Array, ""]


class AbstractOneToMany(AbstractTask):
    """What both tasks share: their sequences, new or of a training set."""

    length: eqx.AbstractVar[int]
    batch: eqx.AbstractVar[int]
    rows: eqx.AbstractVar[int | None]

    @abc.abstractmethod
    def target(self, a: Float[Array, " batch"]) -> Array:
        """What is asked of each latent."""

    def __check_init__(self) -> None:
        owner = type(self).__name__
        if isinstance(self.length, bool) or not isinstance(self.length, int) or self.length < 1:
            raise ValueError(f"{owner}: a sequence needs at least one step, got length={self.length!r}")
        require_size(owner, batch=self.batch, **({} if self.rows is None else {"rows": self.rows}))

    @property
    def inputs(self) -> int:
        """Size of an observation: one number."""
        return 1

    def init(self, key: PRNGKeyArray) -> OneToManyState:
        """The state before the first batch."""
        return OneToManyState(seed_of(key), jnp.zeros((), jnp.int32))

    def emit(self, state: OneToManyState) -> tuple[OneToManyState, Sequence]:
        """The next batch."""
        count, index = state.step + 1, jnp.arange(self.batch, dtype=jnp.int32)
        # A seed for this step alone: what it draws is no part of the fixed rows, which the stream's own seed makes.
        now = bits(state.seed, count, jnp.arange(2, dtype=jnp.uint32))
        if self.rows is not None and self.rows != self.batch:
            index = integer(now, count, jnp.arange(self.batch, dtype=jnp.uint32), 0, self.rows - 1)
        return state._replace(step=count), self._sequence(now if self.rows is None else state.seed, index)

    def held_out(self, count: int, seed: int) -> Sequence:
        """`count` rows of a stream that no key given to `init` leads to."""
        require_size(f"{type(self).__name__}.held_out", count=count)
        apart = seed_of(jax.random.fold_in(jax.random.key(seed), 0x5EED))
        return self._sequence(apart, jnp.arange(count, dtype=jnp.int32))

    def _sequence(self, seed: UInt32[Array, "2"], index: Int[Array, " batch"]) -> Sequence:
        a, xs = _rows(seed, index, self.length)
        return Sequence(xs[..., None], self.target(a)[None], jnp.ones((1, len(a))))


class OneToManyClasses(AbstractOneToMany):
    """Sequences that start with v, which depends on a latent `a`, and go on with noise: name the class of `a`.

        a ~ U(0, 1)    v = a + 0.3 sin(2 pi a) + U(-0.1, 0.1)    xs = [v, length - 1 numbers from U(0, 1)]

    `labels` makes ten classes of `a`. "nearest": rint(9a). "code": `a` rounded to one decimal, times 9,
    truncated, which leaves class 0 with 15 % of the rows and class 9 with 5 %.

    `rows=None`: new rows at every call. `rows=n`: a training set of n rows, from which a batch is drawn
    with replacement; `batch == rows` gives all of them, in order, each time. A row is computed from its
    index whenever it is needed. `y` and `mask` have one step: they cover the last step of `xs`.

    >>> state, (xs, y, mask) = (task := OneToManyClasses(5, batch=3)).emit(task.init(jax.random.key(0)))
    >>> xs.shape, y.shape, mask.shape
    ((5, 3, 1), (1, 3), (1, 3))
    """

    length: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    labels: str = eqx.field(default="nearest", static=True)
    rows: int | None = eqx.field(default=None, static=True)

    def __check_init__(self) -> None:
        _rule(self.labels)

    def target(self, a: Float[Array, " batch"]) -> Int[Array, " batch"]:
        """The class of each, int32."""
        return class_of(a, self.labels)


class OneToManyMixture(AbstractOneToMany):
    """The sequences of `OneToManyClasses`, with the latent `a` itself as the target.

    The same key, length, batch and rows give the same sequences.

    >>> state, (xs, y, mask) = (task := OneToManyMixture(5, batch=3)).emit(task.init(jax.random.key(0)))
    >>> xs.shape, y.shape, bool((abs(xs[0, :, 0] - y[0] - 0.3 * jnp.sin(2 * jnp.pi * y[0])) < 0.1001).all())
    ((5, 3, 1), (1, 3), True)
    """

    length: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    rows: int | None = eqx.field(default=None, static=True)

    def target(self, a: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """The latent itself."""
        return a


@functools.partial(jax.jit, static_argnames="labels")
def class_of(a: Float[Array, "*n"], labels: str) -> Int[Array, "*n"]:
    """The class of each latent, exact for float32 on the grid of 2^-24 that latents are drawn from.

    >>> class_of(jnp.array([0.0, 0.25, 0.5, 0.75, 1.0]), "code").tolist()
    [0, 1, 4, 7, 9]
    """
    levels, classes = _rule(labels)
    # In integers: float32 would round levels * a, at times onto a half. Halves go to the even side, as in rint.
    scaled = (a * 2**24).astype(jnp.int32) * levels
    return jnp.asarray(classes, jnp.int32)[(scaled + 2**23 - 1 + (scaled >> 24 & 1)) >> 24]


def _rule(labels: str) -> tuple[int, tuple[int, ...]]:
    if labels not in tuple(RULES):
        raise ValueError(f"OneToManyClasses: labels must be 'nearest' or 'code', got {labels!r}")
    return RULES[labels]


@functools.partial(jax.jit, static_argnames="length")
def _rows(
    seed: UInt32[Array, "2"], index: Int[Array, "batch"], length: int
) -> tuple[Float[Array, "batch"], Float[Array, "length batch"]]:
    """The latents and the sequences of the rows `index` of a stream."""
    lanes = jnp.arange(length + 1, dtype=jnp.uint32)
    a, noise, *distractors = jax.vmap(lambda i: uniform(seed, i, lanes), out_axes=1)(index)
    v = a + BEND * jnp.sin(2 * jnp.pi * a) + NOISE * (2 * noise - 1)
    return a, jnp.stack([v, *distractors])


# What is known of the problem, in numpy. Distractors say nothing of `a`: only v counts.


def _curve(a: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    return a + BEND * np.sin(2 * np.pi * a)


# Where the curve turns: it rises, falls and rises.
_TURN = float(np.arccos(-1 / (2 * np.pi * BEND)) / (2 * np.pi))
_BRANCHES = (0.0, _TURN, 1 - _TURN, 1.0)


def _reach(v: Float[np.ndarray, "*v"]) -> tuple[Float[np.ndarray, "*v 3"], Float[np.ndarray, "*v 3"]]:
    """Least and greatest `a` of each branch of the curve that can give v: equal where none can."""
    edges, ends = np.asarray(v, float)[..., None] + [-NOISE, NOISE], []
    for start, stop in itertools.pairwise(_BRANCHES):
        a = np.linspace(start, stop, 2**14)
        a = a if _curve(a)[0] < _curve(a)[-1] else a[::-1]
        ends.append(np.sort(np.interp(edges, _curve(a), a)))
    low, high = np.moveaxis(np.stack(ends, -2), -1, 0)
    return low, high


def _length(v: Float[np.ndarray, "*v"]) -> Float[np.ndarray, "*v"]:
    low, high = _reach(v)
    return (high - low).sum(-1)


def input_density(v: Float[np.ndarray, "*v"]) -> Float[np.ndarray, "*v"]:
    """The density p(v) of inputs."""
    return _length(v) / (2 * NOISE)


def conditional(v: Float[np.ndarray, "*v"], grid: Float[np.ndarray, "grid"]) -> Float[np.ndarray, "*v grid"]:
    """p(a | v) at every `a` of the grid: uniform over the `a` that can give v; zeros for an impossible v.

    >>> conditional(np.array([0.0, 0.5]), np.array([0.0, 0.2, 0.5])).round(3).tolist()
    [[28.699, 0.0, 0.0], [0.0, 1.443, 1.443]]
    """
    v, grid = np.asarray(v, float), np.asarray(grid, float)
    within = (np.abs(v[..., None] - _curve(grid)) <= NOISE) & (grid >= 0) & (grid <= 1)
    length = _length(v)[..., None]
    return within / np.where(length > 0, length, 1)


def class_probabilities(v: Float[np.ndarray, "*v"], labels: str) -> Float[np.ndarray, "*v 10"]:
    """p(y | v); zeros for an impossible v."""
    levels, classes = _rule(labels)
    edges = np.clip((np.arange(levels + 2) - 0.5) / levels, 0, 1)
    low, high = (end[..., None] for end in _reach(v))
    cells = np.maximum(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0).sum(-2)
    length = cells.sum(-1, keepdims=True)
    return cells @ np.eye(CLASSES)[list(classes)] / np.where(length > 0, length, 1)


@functools.cache
def _inputs(count: int) -> tuple[Float[np.ndarray, "v"], Float[np.ndarray, "v"]]:
    """Nodes of v and their weights, p(v) dv: `count` between any two places where the set of possible `a` changes."""
    turns = _curve(np.array(_BRANCHES))
    ends = np.unique(np.r_[turns[[0, -1]] + [-NOISE, NOISE], turns[1:3] - NOISE, turns[1:3] + NOISE])
    angle = np.pi * (np.arange(count) + 0.5) / count
    gaps = np.diff(ends)[:, None]
    v = (ends[:-1, None] + gaps * (1 - np.cos(angle)) / 2).ravel()
    weight = (gaps * np.sin(angle)).ravel() * input_density(v)
    return v, weight / weight.sum()


def _entropy(p: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n"]:
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)


@functools.cache
def class_floor(labels: str) -> float:
    """H(y | v) in nats: the least expected -log p(y).

    >>> [round(class_floor(labels), 3) for labels in ("nearest", "code")]
    [1.322, 1.362]
    """
    v, weight = _inputs(2000)
    return float(weight @ _entropy(class_probabilities(v, labels)))


@functools.cache
def class_accuracy(labels: str) -> float:
    """The greatest expected share of right answers.

    >>> [round(class_accuracy(labels), 3) for labels in ("nearest", "code")]
    [0.401, 0.393]
    """
    v, weight = _inputs(2000)
    return float(weight @ class_probabilities(v, labels).max(-1))


def class_marginal_entropy(labels: str) -> float:
    """H(y) in nats: the least expected -log p(y) of an answer that ignores the input.

    >>> [round(class_marginal_entropy(labels), 3) for labels in ("nearest", "code")]
    [2.274, 2.276]
    """
    v, weight = _inputs(2000)
    return float(_entropy(weight @ class_probabilities(v, labels)))


@functools.cache
def mixture_floor() -> float:
    """h(a | v) in nats: the least expected -log p(a), reached by no finite mixture of Gaussians.

    >>> round(mixture_floor(), 3)
    -1.282
    """
    v, weight = _inputs(2000)
    return float(weight @ np.log(_length(v)))


@functools.cache
def mixture_floor_of(components: int) -> float:
    """The least expected -log p(a) in nats of a mixture of `components` Gaussians, the best one for each v.

    Fitted, from above; to within 0.001 for up to five components.
    """
    require_size("mixture_floor_of", components=components)
    v, weight = _inputs(24)
    upper = v > 0.5  # a -> 1 - a maps v to 1 - v: the other half is the same
    low, high = _reach(v[upper])
    return float(weight[upper] @ _fit(low, high, 48, components) / weight[upper].sum())


@functools.cache
def mixture_learn_nothing(components: int) -> float:
    """The same, for one mixture whatever the input.

    >>> round(mixture_learn_nothing(1), 4)
    0.1765
    """
    require_size("mixture_learn_nothing", components=components)
    return float(_fit(np.zeros((1, 1)), np.ones((1, 1)), 400, components)[0])


def _fit(
    low: Float[np.ndarray, "v parts"], high: Float[np.ndarray, "v parts"], cells: int, components: int
) -> Float[np.ndarray, "v"]:
    """Least found -log p of a mixture of Gaussians for uniform densities, each on the union of its intervals.

    EM on `cells` cells of an interval. A whole cell goes to a component in the same share, which bounds the
    loss from above: a component cannot hide in a cell, and variances need no floor.
    """
    width = (high - low)[..., None] / cells
    centre = (low[..., None] + width * (np.arange(cells) + 0.5)).reshape(len(low), -1)
    spread = np.repeat(width[..., 0] ** 2 / 12, cells, 1)
    weight = np.repeat(width[..., 0], cells, 1)
    weight /= weight.sum(1, keepdims=True)
    share = np.arange(1, components) / components
    best = np.full(len(low), np.inf)
    for cuts in (share, share**0.5, share**2, (1 - np.cos(np.pi * share)) / 2):
        first = np.searchsorted(cuts, np.cumsum(weight, 1) - weight / 2)
        owner = np.moveaxis(np.eye(components)[first], -1, 0)
        for _ in range(300):
            mass = (owner * weight).sum(-1) + 1e-300
            mean = (owner * weight * centre).sum(-1) / mass
            square = (centre - mean[..., None]) ** 2 + spread
            variance = (owner * weight * square).sum(-1) / mass + 1e-16
            scale = np.log(mass) - np.log(2 * np.pi * variance) / 2
            joint = scale[..., None] - square / (2 * variance[..., None])
            top = joint.max(0)
            owner = np.exp(joint - top)
            total = owner.sum(0)
            owner /= total
        best = np.minimum(best, -(weight * (top + np.log(total))).sum(1))
    return best
