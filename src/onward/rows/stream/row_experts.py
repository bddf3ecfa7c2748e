"""Experts for what is read from the row itself: classes, and numbers of the same row. And the mixture of each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from onward.rows.stream.experts import LIMIT, RATE_ERROR, SHARE, Recursive, mixed, shared
from onward.rows.stream.mixture import Asked, Heard, Sizes, shares
from onward.rows.stream.moments import Running
from onward.rows.stream.room import enlarge
from onward.rows.stream.trees import Trees, of_classes, of_numbers
from onward.trees import remember

# In this order. stack: what the others say together. network: the recurrent network. trees: boosted trees over the rows
# kept. linear: the linear baseline. last: what followed the class before, so far. mean: the share of each class, or the
# mean.
OF_CLASSES = ("stack", "network", "trees", "linear", "last", "mean")
OF_NUMBERS = ("stack", "network", "trees", "linear", "mean")
# No class that was ever seen is less probable than this share of equal.
LEAST = 1e-3
# Of the stack of classes: the step, and the sum of squared slopes at the start.
STEP, SQUARES = 0.1, 1.0
# Of the row of a class, in how many of its rows what followed is forgotten; and how much the shares of all count in it.
FOLLOWED, SMOOTH = 500.0, 1.0


class ClassSaid(NamedTuple):
    """What experts said of a row's class, until it is known. `last`: the class before, -1: none."""

    answers: Float[Array, "experts classes"]
    mixed: Float[Array, " classes"]
    x: Float[Array, " inputs"]
    last: Int[Array, ""]


class ClassExperts(NamedTuple):
    """The experts of a class, which say probabilities, and their weights in the mixture.

    Weights follow fixed share with the log loss (Herbster and Warmuth 1998): w_j <- w_j p_j(y), normalised, then
    w_j <- (1 - SHARE) w_j + SHARE / n. Who has no answer has no weight but what is dealt out.

    Regret, of answers that are judged before the next: the log loss is 1-exp-concave, so in T rows the mixture's sums
    to at most that of the best sequence of the n experts with k changes, plus
    (k + 1) ln n + k ln(1 / SHARE) + T ln(1 / (1 - SHARE)).
    """

    trees: Trees
    follows: Float[Array, "classes+1 classes"]
    shares: Float[Array, " classes"]
    exponents: Float[Array, " others"]
    bias: Float[Array, " classes"]
    slopes: tuple[Array, Array]
    weights: Float[Array, " experts"]
    last: Int[Array, ""]
    asked: ClassSaid
    waiting: ClassSaid

    @staticmethod
    def names() -> tuple[str, ...]:
        """In the order of their answers."""
        return OF_CLASSES

    @classmethod
    def start(cls, sizes: Sizes) -> "ClassExperts":
        """Nothing known."""
        inputs, classes = sizes.inputs, sizes.classes
        none, many = jnp.zeros(classes), len(OF_CLASSES)
        asked = ClassSaid(jnp.zeros((many, classes)), none, jnp.zeros(inputs), jnp.array(-1))
        exponents = jnp.array([0.5 * (name in ("network", "trees")) for name in OF_CLASSES[1:]])
        return cls(
            Trees.start(inputs, classes, sizes.seed),
            jnp.zeros((classes + 1, classes)),
            none,
            exponents,
            none,
            (jnp.full(many - 1, SQUARES), jnp.full(classes, SQUARES)),
            jnp.full(many, 1 / many),
            jnp.array(-1),
            asked,
            jax.tree.map(lambda a: jnp.zeros((sizes.lag, *a.shape), a.dtype), asked),
        )

    def answer(self, asked: Asked) -> "ClassExperts":
        """With what is said of a row, in `asked`."""
        network, x, awake, seen = asked.network, asked.x, asked.awake, self._seen
        followed = self.follows[self.last] + SMOOTH * self.shares / jnp.maximum(jnp.sum(self.shares), 1)
        trees = jax.nn.softmax(jnp.where(seen, self.trees.say(x), -jnp.inf))
        others = jnp.stack([network, trees, asked.linear, followed, self.shares])
        others = jnp.where(awake[1:, None], _floored(others, seen), jnp.nan)
        stack = jnp.where(awake[0], _floored(jax.nn.softmax(self._pooled(others))[None], seen)[0], jnp.nan)
        answers = jnp.concatenate([stack[None], others])
        there = jnp.isfinite(answers[:, 0])
        weights = jnp.where(there, self.weights, 0)
        weights = weights / jnp.maximum(jnp.sum(weights), 1e-30)
        together = weights @ jnp.where(there[:, None], answers, 0)
        together = jnp.where(jnp.any(there), together, network)
        return self._replace(asked=ClassSaid(answers, together, x, self.last))

    def see(self, heard: Heard) -> "ClassExperts":
        """After a class from which nothing is learned; NaN: it is missing."""
        y = heard.y[0]
        label = jnp.where(jnp.isfinite(y), y, 0).astype(jnp.int32)
        return self._replace(last=jnp.where(jnp.isfinite(y), label, self.last))

    def mixed(self, network: Array) -> Array:
        """The probabilities of the mixture."""
        return self.asked.mixed

    def spoken(self) -> tuple[Array, Array]:
        """The share of each, and the class that it says."""
        answers = self.asked.answers
        best = jnp.argmax(answers, 1).astype(answers.dtype)
        said = jnp.where(jnp.isfinite(answers[:, 0]), best, jnp.nan)[None]
        return shares(self.weights, said), said

    def enlarge(self, fresh: "ClassExperts", at: int, more: int) -> "ClassExperts":
        """With room for more inputs, or classes."""
        return enlarge(self, fresh, at)

    def learn(self, heard: Heard, said: Array) -> tuple["ClassExperts", Array]:
        """After the class of a row, NaN where it is missing: of the row that `asked` is about, or of `lag` before."""
        return self._learn(heard.rows, heard.y[0]).see(heard), said

    def _learn(self, rows: Array, y: Array) -> "ClassExperts":
        said, waiting = self.asked, self.waiting
        due = jnp.isfinite(y)
        if len(self.waiting.last):
            pairs = [remember(ring, rows, value) for ring, value in zip(self.waiting, self.asked, strict=True)]
            waiting, said = (ClassSaid(*parts) for parts in zip(*pairs, strict=True))
            due = due & (rows >= len(self.waiting.last))
        classes = len(self.shares)
        label = jnp.where(jnp.isfinite(y), y, 0).astype(jnp.int32)
        truth = jax.nn.one_hot(label, classes, dtype=self.bias.dtype)
        there = jnp.isfinite(said.answers[:, 0])
        likely = jnp.where(there, said.answers[:, label], 0)
        judged = due & jnp.any(likely > 0)  # a class that nobody knew of tells nothing of who knew more
        shares = self.shares + due * truth
        # The stack: one step down the slope of its log loss, by its own size so far.
        logs = _logs(said.answers[1:])
        error = jax.nn.softmax(self._pooled(said.answers[1:])) - truth
        errors = jnp.where(judged, logs @ error, 0), jnp.where(judged, error, 0)
        slopes = self.slopes[0] + jnp.square(errors[0]), self.slopes[1] + jnp.square(errors[1])
        faded = self.follows[said.last] * (1 - 1 / FOLLOWED) + truth
        return self._replace(
            trees=self.trees.learn(said.x, truth, due, of_classes(shares > 0)),
            follows=self.follows.at[said.last].set(jnp.where(due, faded, self.follows[said.last])),
            shares=shares,
            exponents=self.exponents - STEP * errors[0] / jnp.sqrt(slopes[0]),
            bias=self.bias - STEP * errors[1] / jnp.sqrt(slopes[1]),
            slopes=slopes,
            weights=jnp.where(judged, judged_by(self.weights, likely), self.weights),
            waiting=waiting,
        )

    @property
    def in_stack(self) -> dict[str, Array]:
        """The power of each other expert in the stack, (1,)."""
        return {name: self.exponents[i : i + 1] for i, name in enumerate(OF_CLASSES[1:])}

    @property
    def _seen(self) -> Bool[Array, " classes"]:
        """The classes there were; all, before the first."""
        return (self.shares > 0) | (jnp.sum(self.shares) == 0)

    def _pooled(self, others: Float[Array, "others classes"]) -> Float[Array, " classes"]:
        """What the stack says: log odds of the product of all answers, each to the power of its exponent."""
        return self.exponents @ _logs(others) + jnp.where(self._seen, self.bias, -jnp.inf)


def judged_by(weights: Float[Array, " experts"], likely: Float[Array, " experts"]) -> Float[Array, " experts"]:
    """Weights after a class to which experts gave these probabilities; 0: one had no answer. Not all are 0."""
    new = weights * likely
    return (1 - SHARE) * new / jnp.maximum(jnp.sum(new), 1e-30) + SHARE / len(new)


def _logs(answers: Float[Array, "others classes"]) -> Float[Array, "others classes"]:
    """Logarithms; 0 of classes that were never seen, and where one has no answer."""
    return jnp.log(jnp.where(answers > 0, answers, 1))


def _floored(p: Float[Array, "any classes"], seen: Bool[Array, " classes"]) -> Float[Array, "any classes"]:
    """Probabilities of the classes that were seen, none below its share; NaN where there are none."""
    seen = seen[None]
    p = jnp.where(seen, p, 0)
    p = p / jnp.sum(p, 1, keepdims=True)
    return jnp.where(seen, (1 - LEAST) * p + LEAST / jnp.sum(seen), 0)


class NumberSaid(NamedTuple):
    """What experts said of each target, and the mixture of it, until the target is known; as `x` they read the row."""

    answers: Float[Array, "targets experts"]
    mixed: Float[Array, " targets"]
    x: Float[Array, " inputs"]


class NumberExperts(NamedTuple):
    """The experts of numbers of the same row, and their weights in the mixture of each.

    Weights follow those of `Experts` with eta = 1, where distances are told in mean errors of the mixture.
    """

    trees: Trees
    stack: Recursive
    error: Float[Array, " targets"]
    known: Float[Array, " targets"]
    weights: Float[Array, "targets experts"]
    asked: NumberSaid

    @staticmethod
    def names() -> tuple[str, ...]:
        """In the order of their answers."""
        return OF_NUMBERS

    @property
    def in_stack(self) -> dict[str, Array]:
        """The weight that each other expert has in the stack, (targets,)."""
        return {name: self.stack.weight[:, i] for i, name in enumerate(OF_NUMBERS[1:-1])}

    @classmethod
    def start(cls, sizes: Sizes) -> "NumberExperts":
        """Nothing known."""
        inputs, targets, many = sizes.inputs, sizes.targets, len(OF_NUMBERS)
        equal = jnp.array([0.5 * (name in ("network", "trees")) for name in OF_NUMBERS[1:-1]])
        stack = jax.tree.map(lambda a: jnp.broadcast_to(a, (targets, *a.shape)), Recursive.start(equal))
        asked = NumberSaid(jnp.zeros((targets, many)), jnp.zeros(targets), jnp.zeros(inputs))
        trees = Trees.start(inputs, targets, sizes.seed)
        return cls(trees, stack, jnp.zeros(targets), jnp.zeros(targets), jnp.full((targets, many), 1 / many), asked)

    def answer(self, asked: Asked) -> "NumberExperts":
        """With what is said of a row, in `asked`."""
        targets, x, awake = asked.moments, asked.x, asked.awake
        centre, unit = targets.mean, targets.deviation()
        mean = jnp.where(targets.seen > 0, centre, jnp.nan)
        trees = jnp.where(targets.seen > 0, centre + unit * self.trees.say(x), jnp.nan)
        others = jnp.where(awake[None, 1:], jnp.stack([asked.network, trees, asked.linear, mean], 1), jnp.nan)
        moves = _moves(others, centre, unit)
        stack = jnp.where(awake[0] & (targets.seen > 0), centre + unit * jnp.sum(self.stack.weight * moves, 1), jnp.nan)
        answers = jnp.concatenate([stack[:, None], others], 1)
        return self._replace(asked=NumberSaid(answers, jax.vmap(mixed)(self.weights, answers, centre), x))

    def mixed(self, network: Array) -> Array:
        """What the mixture says of each target."""
        return self.asked.mixed

    def spoken(self) -> tuple[Array, Array]:
        """The share of each, and its answer."""
        return shares(self.weights, self.asked.answers), self.asked.answers

    def see(self, heard: Heard) -> "NumberExperts":
        """Nothing is remembered of a row."""
        return self

    def enlarge(self, fresh: "NumberExperts", at: int, more: int) -> "NumberExperts":
        """With room for more inputs."""
        return enlarge(self, fresh, at)

    def learn(self, heard: Heard, said: Array) -> tuple["NumberExperts", Array]:
        """After the targets of the row that `asked` is about, NaN where missing."""
        return self._learn(heard.arrived, heard.moments), said

    def _learn(self, y: Array, targets: Running) -> "NumberExperts":
        said, centre, unit = self.asked, targets.mean, targets.deviation()
        change = (y - centre) / unit
        moves = _moves(said.answers[:, 1:], centre, unit)
        learn = lambda one, moves, change: one.learn(moves, one.weight @ moves - change, noise=1.0, leak=3e-4)[0]
        known = jnp.isfinite(y)
        size = jnp.where(known, jnp.abs(y - said.mixed), 0)
        count = self.known + known
        pace = known * jnp.maximum(1 / jnp.maximum(count, 1), RATE_ERROR)
        error = self.error + pace * (jnp.where(self.known > 20, jnp.minimum(size, 10 * self.error), size) - self.error)
        scale = jnp.where(self.error > 0, self.error, unit)[:, None]
        step = lambda weights, moves, change: shared(
            weights, moves, change, start=np.full(len(OF_NUMBERS), 1 / len(OF_NUMBERS))
        )
        weights = jax.vmap(step)(self.weights, (said.answers - centre[:, None]) / scale, (y - centre) / scale[:, 0])
        return self._replace(
            trees=self.trees.learn(said.x, y, jnp.any(known), of_numbers(centre, unit)),
            stack=jax.vmap(learn)(self.stack, moves, change),
            error=error,
            known=count,
            weights=weights,
        )


def _moves(others: Array, centre: Array, unit: Array) -> Float[Array, "targets others"]:
    """What others than the stack and the mean say, in units from the mean; none where one has no answer."""
    return jnp.clip(jnp.nan_to_num((others[:, :-1] - centre[:, None]) / unit[:, None]), -2 * LIMIT, 2 * LIMIT)
