"""Experts that answer beside the network, and the mixture of all."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from onward.learners.optimisers import kalman
from onward.rows.calendar import CLASSES, NONE, PARTS, SEASONS, SLOTS, SORTS, TURN
from onward.trees import remember

# In this order. least squares: over lags, seasons and calendar; stacked: over what the others say.
FIXED = ("stacked", "network", "least squares", "last value", "mean")
EXPERTS = (*FIXED, "day", "week", "year", "season")
_STACKED = [EXPERTS.index(name) for name in EXPERTS if name not in ("stacked", "last value")]
# Differences of the target from row to row that are read, and inputs above which only what is of the target is.
LAGS, MOST_INPUTS = 24, 64
# Changes and levels of a class are running means, at first plain averages.
RATE_CHANGE, RATE_LEVEL = 0.02, 0.05
# Variance of the weights of least squares before anything is learned.
PRIOR = 0.05
# Sines and cosines of the time of day, of the week and of the year of the row that is predicted.
HARMONICS = 3, 2, 2
# Numbers that are read lie within so many usual changes.
LIMIT = 10.0
# Further than any time in a slot.
FAR = 2**24
# The mixture: the learning rate, for losses in usual changes, of at most `MOST_LOSS` more than the best's, and the share
# of all weight that is dealt out anew at every row.
ETA, MOST_LOSS, SHARE = 1.0, 10.0, 1e-3


class Past(NamedTuple):
    """What is remembered of one target.

    `lags`: its last values, newest first. `seasons`: the values one season before the last row, and `lag` rows after
    those. `values`, `later`, `times`: by slot of time the last value, that of `lag` rows later, and when it was. `change`, `level`: means, and counts, by class.
    """

    lags: Float[Array, " lags+1"]
    total: Float[Array, "2"]
    seasons: Float[Array, "3 seasons"]
    values: Float[Array, " slots"]
    later: Float[Array, " slots"]
    times: Int[Array, " slots"]
    change: Float[Array, "sorts classes 2"]
    level: Float[Array, "sorts classes 2"]

    @classmethod
    def start(cls) -> "Past":
        """Nothing seen."""
        none = jnp.zeros((SORTS, CLASSES, 2))
        return cls(
            jnp.full(LAGS + 1, jnp.nan),
            jnp.zeros(2),
            jnp.full((3, len(SEASONS) + 1), jnp.nan),
            jnp.zeros(SLOTS + 1),
            jnp.full(SLOTS + 1, jnp.nan),
            jnp.full(SLOTS + 1, NONE, jnp.int32),
            none,
            none,
        )

    def see(self, y: Array, step: Array, before: Array, at: Int[Array, " width"]) -> tuple["Past", Array]:
        """Take in a row: its target y (NaN: none, and the last stands in), and by how much its level has moved.

        `before`: the place, in the tables, of the row of `lag` rows before. Also the place of this one.
        """
        lags = self.lags + step
        y = jnp.where(jnp.isfinite(y), y, lags[0])
        known = jnp.isfinite(y)
        # What is not known goes to a place beyond the end: so tables are written in place.
        place = jnp.where(known & (at[0] != NONE), at[0] // PARTS % SLOTS, SLOTS)
        seasons, never = self._seasons(at, before, y)
        write = lambda table, value, place: lax.dynamic_update_index_in_dim(table, value, place + never, 0)
        after = Past(
            jnp.concatenate([jnp.where(known, y, lags[0])[None], lags[:-1]]),
            self.total + jnp.where(known, jnp.stack([y, jnp.ones_like(y)]), 0),
            seasons,
            write(self.values, y, place),
            write(write(self.later, y, before), jnp.nan, place),
            write(self.times, at[0], place),
            self.change,
            self.level,
        )
        return after, place

    def learn(self, classes: Int[Array, " sorts"], change: Array, y: Array) -> "Past":
        """With what a target and its change have been that was predicted for a row of these classes; NaN: not known."""
        change = _counted(self.change, classes, change, RATE_CHANGE)
        return self._replace(change=change, level=_counted(self.level, classes, y, RATE_LEVEL))

    def _seasons(self, at: Int[Array, " width"], before: Array, y: Array) -> tuple[Array, Array]:
        """The values nearest to one season before this row, and `lag` rows after those; NaN: none within a step and a
        half.

        The tables are read as they were before this row, whose value y belongs to the row at place `before`. The second
        result is 0: added to where they are written, it makes XLA read them first. Else it copies them at every row.
        """
        wanted = at[1 : 2 + len(SEASONS)]
        slots = wanted[:, None] // PARTS + jnp.arange(-2, 3)[None]
        places = slots % SLOTS
        times, values, later = self.times[places], self.values[places], self.later[places]
        never = jnp.any(times == NONE + 1) & jnp.any(values == jnp.inf) & jnp.any(later == jnp.inf)
        later = jnp.where(places == before, y, later)
        there = (times // PARTS == slots) & (times != NONE) & (wanted != NONE)[:, None]
        off = jnp.where(there, jnp.abs(times - wanted[:, None]), FAR)
        nearest = jnp.argmin(off, 1)
        found = jnp.min(off, 1) <= 3 * PARTS // 2
        each, after = jnp.arange(len(wanted)), jnp.minimum(nearest + 1, 4)
        next = jnp.where(there, later, jnp.nan)[each, after]
        three = jnp.stack([values[each, nearest], later[each, nearest], next])
        return jnp.where(found, three, jnp.nan), never.astype(jnp.int32)

    def classes(self, at: Int[Array, " width"]) -> tuple[Array, Array]:
        """The mean change and the mean level of the classes of the row that is predicted; NaN where none was seen."""
        which, sorts = at[-SORTS:], jnp.arange(SORTS)
        held = jnp.stack([self.change[sorts, which], self.level[sorts, which]])
        change, level = jnp.where((held[..., 1] > 0) & (which >= 0), held[..., 0], jnp.nan)
        return change, level


def _first(values: list[Array]) -> Array:
    """The first of some that is there."""
    found = values[-1]
    for value in values[-2::-1]:
        found = jnp.where(jnp.isfinite(value), value, found)
    return found


def _counted(held: Array, classes: Array, value: Array, rate: float) -> Array:
    """Running means of classes, with their counts, after one value of one class of each sort."""
    for sort in range(SORTS):
        place = jnp.maximum(classes[sort], 0)
        was = held[sort, place]
        pace = jnp.maximum(1 / (was[1] + 1), rate)
        new = was + jnp.stack([pace * (value - was[0]), jnp.ones_like(value)])
        new = jnp.where(jnp.isfinite(value) & (classes[sort] >= 0), new, was)
        held = lax.dynamic_update_slice(held, new[None, None], (sort, place, 0))
    return held


class Recursive(NamedTuple):
    """Recursive least squares of one output, by the equations of `onward.least_squares`."""

    weight: Float[Array, " m"]
    covariance: Float[Array, "m m"]
    error: Array
    steps: Array

    @classmethod
    def start(cls, weight: Float[Array, " m"], prior: float) -> "Recursive":
        """Weights at the start."""
        return cls(weight, prior * jnp.eye(len(weight)), jnp.ones(()), jnp.zeros(()))

    def learn(self, phi: Array, error: Array, **constants: float) -> "Recursive":
        """After the error of what was said of phi; NaN: not known, and nothing changes."""
        known = jnp.isfinite(error)
        error = jnp.where(known, error, 0)
        gain, cut, after = kalman((self.covariance, self.error, self.steps), phi, jnp.abs(error), **constants)
        new = Recursive(self.weight - cut * error * gain, *after)
        whole = known & jnp.all(jnp.isfinite(new.weight)) & jnp.isfinite(new.error)
        return jax.tree.map(lambda a, b: jnp.where(whole, a, b), new, self)


class Said(NamedTuple):
    """What experts said of a target, until it is known: what they read, in units, and their answers.

    `base`: the value whose change is predicted, `unit` its usual change, `classes` those that the row was expected in, `place` that of
    the row in the tables of the past.
    """

    answers: Float[Array, " experts"]
    mixed: Array
    base: Array
    unit: Array
    classes: Float[Array, " sorts"]
    place: Array
    read: Float[Array, " m"]


class Experts(NamedTuple):
    """The experts of one target, and their weights in the mixture.

    Weights follow fixed share: w_j <- w_j exp(-ETA l_j), then w <- (1 - SHARE) w + SHARE / J, with l_j the distance of
    answer j from the target, less that of the best, in usual changes and at most `MOST_LOSS`. An expert that has no
    answer sleeps: it has the mixture's. Regret against the best sequence of experts with m changes in T rows, for
    losses below B = `MOST_LOSS`: at most ((m + 1) ln J + m ln(1 / SHARE) + T ln(1 / (1 - SHARE))) / ETA + T ETA B^2 / 8.
    """

    past: Past
    squares: Recursive
    stack: Recursive
    weights: Float[Array, " experts"]
    asked: Said
    waiting: Float[Array, "lag size"]

    @classmethod
    def start(cls, inputs: int, lag: int) -> "Experts":
        """Nothing known; `inputs`: how many numbers of a row are read besides."""
        size, many = reads(inputs), len(EXPERTS)
        none = jnp.zeros(())
        asked = Said(jnp.zeros(many), none, none, none + 1, jnp.zeros(SORTS), none + SLOTS, jnp.zeros(size))
        equal = jnp.array([EXPERTS[i] in ("network", "least squares") for i in _STACKED]) / 2
        return cls(
            Past.start(),
            Recursive.start(jnp.zeros(size), PRIOR),
            Recursive.start(equal.astype(float), PRIOR),
            jnp.full(many, 1 / many),
            asked,
            jnp.zeros((lag, many + 4 + SORTS + size)),
        )

    def learn(self, rows: Array, y: Array, arrived: Array, step: Array, at: Array) -> tuple["Experts", Array]:
        """After one more row than `rows`; and what the mixture said of it.

        `arrived` is what the answer of `lag` rows before is judged by, NaN where by nothing.
        """
        waiting, then = remember(self.waiting, rows, jnp.concatenate([jnp.atleast_1d(part) for part in self.asked]))
        many = len(EXPERTS)
        said = Said(
            then[:many], *then[many : many + 3], then[many + 3 : many + 3 + SORTS], *_rest(then[many + 3 + SORTS :])
        )
        change = jnp.clip((arrived - said.base) / said.unit, -1e4, 1e4)
        noise = math.sqrt(len(self.waiting))
        squares = self.squares.learn(said.read, self.squares.weight @ said.read - change, noise=noise)
        moves = _moves(said)
        stack = self.stack.learn(moves, self.stack.weight @ moves - change, noise=noise, leak=3e-4)
        moved = jnp.clip(arrived - said.base, -LIMIT * said.unit, LIMIT * said.unit)
        past = self.past.learn(said.classes.astype(jnp.int32), moved, arrived)
        past, place = past.see(y, step, jnp.where(rows < len(self.waiting), SLOTS, said.place).astype(jnp.int32), at)
        weights = shared(self.weights, (said.answers - said.base) / said.unit, change)
        after = self._replace(past=past, squares=squares, stack=stack, weights=weights, waiting=waiting)
        return after._replace(asked=self.asked._replace(place=place.astype(arrived.dtype))), said.mixed

    def see(self, y: Array, step: Array, at: Array) -> "Experts":
        """After a row from which nothing is learned."""
        past, place = self.past.see(y, step, jnp.array(SLOTS, jnp.int32), at)
        return self._replace(past=past, asked=self.asked._replace(place=place.astype(y.dtype)))

    def answer(self, network: Array, inputs: Array, base: Array, unit: Array, at: Array, awake: Array) -> "Experts":
        """With what is said of the row that is predicted, in `asked`.

        `network`: what the network says. `awake`: which experts may speak.
        """
        base = jnp.where(jnp.isfinite(base), base, 0)
        past, units = self.past, lambda a: _near(jnp.nan_to_num((a - base) / unit))
        before, value, after = past.seasons
        change, level = past.classes(at)
        count = past.total[1]
        mean = jnp.where(count > 0, past.total[0] / jnp.maximum(count, 1), jnp.nan)
        steps = -jnp.diff(past.lags)
        differ = lambda a: _near(jnp.nan_to_num(a / unit))
        own = [differ(steps), units(value), differ(value - before), differ(after - value)]
        own += [differ(change), units(level), units(mean)[None], _waves(at)]
        others = inputs if len(inputs) <= MOST_INPUTS else inputs[:0]
        read = jnp.concatenate([*own, jnp.ones(1), others])
        squares = base + unit * (self.squares.weight @ read)
        answers = jnp.concatenate([jnp.stack([jnp.nan * base, network, squares, base, mean]), value])
        said = Said(
            jnp.where(awake, answers, jnp.nan), base, base, unit, at[-SORTS:].astype(unit.dtype), self.asked.place, read
        )
        answers = said.answers.at[0].set(jnp.where(awake[0], base + unit * (self.stack.weight @ _moves(said)), jnp.nan))
        return self._replace(asked=said._replace(answers=answers, mixed=mixed(self.weights, answers, base)))

    def enlarge(self, fresh: "Experts", at: int) -> "Experts":
        """With room for the inputs of `fresh`, of which the new ones come before place `at` of those there were.

        Stacked along the first axis of all arrays. Of more inputs than `MOST_INPUTS` none is read.
        """
        own, new = OWN + at, fresh.asked.read.shape[1]

        def fit(old: Array, axis: int, before: int) -> Array:
            first, rest = jnp.split(old, [before + own], axis)
            missing = before + new - old.shape[axis]
            if missing < 0:
                return jnp.take(old, jnp.arange(before + OWN), axis)
            gap = [(0, missing if i == axis else 0) for i in range(old.ndim)]
            return jnp.concatenate([jnp.pad(first, gap), rest], axis)

        covariance = fit(fit(self.squares.covariance, 1, 0), 2, 0)
        diagonal = jnp.arange(new)
        was = fit(jnp.ones(self.asked.read.shape[1]), 0, 0)
        covariance = covariance.at[:, diagonal, diagonal].add(jnp.where(was > 0, 0, PRIOR))
        squares = self.squares._replace(weight=fit(self.squares.weight, 1, 0), covariance=covariance)
        asked = self.asked._replace(read=fit(self.asked.read, 1, 0))
        return self._replace(squares=squares, asked=asked, waiting=fit(self.waiting, 2, len(EXPERTS) + 4 + SORTS))


# Of what least squares reads, that which is not other columns: lags, seasons, classes, the mean, waves, and 1.
OWN = LAGS + 3 * (len(SEASONS) + 1) + 2 * SORTS + 1 + 2 * sum(HARMONICS) + 1


def reads(inputs: int) -> int:
    """How many numbers least squares reads."""
    return OWN + (inputs if inputs <= MOST_INPUTS else 0)


def _waves(at: Int[Array, " width"]) -> Float[Array, " waves"]:
    """Where in the day, the week and the year the row lies that is predicted; 0 where nobody knows."""
    phases = at[2 + len(SEASONS) : 2 + 2 * len(SEASONS)]
    each = np.repeat(np.arange(len(SEASONS)), HARMONICS)
    times = np.concatenate([np.arange(1, many + 1) for many in HARMONICS])
    angle = 2 * jnp.pi / TURN * (phases[each] * times % TURN)
    there = phases[each] >= 0
    return jnp.where(jnp.tile(there, 2), jnp.concatenate([jnp.sin(angle), jnp.cos(angle)]), 0)


def _rest(then: Array) -> tuple[Array, Array]:
    return then[0], then[1:]


def _near(a: Array) -> Array:
    return jnp.clip(a, -LIMIT, LIMIT)


def _moves(said: Said) -> Array:
    """What others than the stack say, as changes in units; none where one has no answer."""
    moves = (said.answers[jnp.array(_STACKED)] - said.base) / said.unit
    return jnp.clip(jnp.nan_to_num(moves), -2 * LIMIT, 2 * LIMIT)


def mixed(weights: Float[Array, " experts"], answers: Float[Array, " experts"], base: Array) -> Array:
    """The mean of those that have an answer, by weight."""
    there = jnp.isfinite(answers)
    share = jnp.where(there, weights, 0)
    return base + jnp.sum(share * jnp.where(there, answers - base, 0)) / jnp.sum(share)


def shared(weights: Float[Array, " experts"], moves: Float[Array, " experts"], change: Array) -> Array:
    """Weights after what was said of a change, and the change, NaN where it is not known."""
    there: Bool[Array, " experts"] = jnp.isfinite(moves)
    share = jnp.where(there, weights, 0)
    together = jnp.sum(share * jnp.where(there, moves, 0)) / jnp.sum(share)
    loss = jnp.abs(jnp.where(there, moves, together) - change)
    loss = jnp.minimum(loss - jnp.min(loss), MOST_LOSS)
    new = weights * jnp.exp(-ETA * loss)
    new = (1 - SHARE) * new / jnp.sum(new) + SHARE / len(weights)
    return jnp.where(jnp.isfinite(change), new, weights)
