"""Experts that answer beside the network, and the mixture of all."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from onward.learners.optimisers import kalman
from onward.rows.calendar import CLASSES, SEASONS, SLOTS, SORTS, TURN
from onward.rows.stream.past import LAGS, Past, moved
from onward.trees import remember

# In this order. stack: least squares over what the others say. lags: least squares over lags, seasons, calendar and all
# the network reads and makes of it. calendar: the same with a constant for each class of times. last, mean: the last
# value, and the mean of all. Then the value of a season before.
EXPERTS = ("stack", "network", "lags", "calendar", "last", "mean", "day", "week", "year", "season")
_STACKED = [EXPERTS.index(name) for name in EXPERTS if name not in ("stack", "last")]
# Of more numbers than these least squares reads none, but what is of the target itself.
MOST_READ = 128
# Variance of the weights of least squares before anything is learned; and as in `onward.least_squares` the pace of the
# mean error, and the least error.
PRIOR, RATE_ERROR, FLOOR = 0.05, 3e-3, 1e-3
# Sines and cosines of the time of day, of the week and of the year of the row that is predicted.
HARMONICS = 3, 2, 2
# Numbers that are read lie within so many usual changes.
LIMIT = 10.0
# The mixture: the learning rate, for losses in usual changes, the most that one is above the best, and the share of all
# weight that is dealt out anew at every row.
ETA, MOST_LOSS, SHARE = 1.0, 10.0, 1e-3


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

    def learn(
        self, phi: Array, error: Array, noise: float, leak: float = 3e-5
    ) -> tuple["Recursive", Float[Array, " m"]]:
        """After the error of what was said of phi; NaN: not known, and nothing changes. Also the gain."""
        known = jnp.isfinite(error)
        error = jnp.where(known, error, 0)
        gain, cut, after = kalman(
            (self.covariance, self.error, self.steps), phi, jnp.abs(error), noise=noise, leak=leak
        )
        new = Recursive(self.weight - cut * error * gain, *after)
        whole = known & jnp.all(jnp.isfinite(new.weight)) & jnp.isfinite(new.error)
        return jax.tree.map(lambda a, b: jnp.where(whole, a, b), new, self), jnp.where(whole, gain, 0)


class Profile(NamedTuple):
    """Least squares with a constant for each class of times, the mean of those of all sorts.

    The weights follow the gain of the least squares without, so that they cost next to nothing; a constant moves by its
    share of the error, at first like a mean of it.
    """

    weight: Float[Array, " m"]
    constants: Float[Array, "sorts classes 2"]
    error: Array

    @classmethod
    def start(cls, size: int) -> "Profile":
        """Nothing known."""
        return cls(jnp.zeros(size), jnp.zeros((SORTS, CLASSES, 2)), jnp.ones(()))

    def say(self, phi: Array, classes: Int[Array, " sorts"]) -> Array:
        """The prediction; of a time of no class by the weights alone."""
        held = self.constants[jnp.arange(SORTS), classes, 0]
        return self.weight @ phi + jnp.sum(jnp.where(classes >= 0, held, 0)) / SORTS

    def learn(self, phi: Array, classes: Int[Array, " sorts"], change: Array, gain: Array, pace: Array) -> "Profile":
        """After what it was about; NaN: not known, and nothing changes. `pace`: of the mean size of errors."""
        error = self.say(phi, classes) - change
        known = jnp.isfinite(error)
        error = jnp.where(known, error, 0)
        size = jnp.abs(error)
        cut = error * jnp.minimum(1, self.error / jnp.maximum(size, FLOOR))
        usual = jnp.maximum(self.error + pace * (jnp.minimum(size, 10 * self.error) - self.error), FLOOR)
        constants = moved(self.constants, classes, -cut, known)
        return Profile(self.weight - gain * cut, constants, jnp.where(known, usual, self.error))


class Said(NamedTuple):
    """What experts said of a target, until it is known: what they read, in units, and their answers.

    `base`: the value whose change is predicted, `unit` its usual change. `classes`: those that the row was expected in,
    `place`: that of the row in the tables of the past.
    """

    answers: Float[Array, " experts"]
    mixed: Array
    base: Array
    unit: Array
    classes: Float[Array, " sorts"]
    place: Array
    read: Float[Array, " m"]

    @property
    def flat(self) -> Array:
        """All of it end to end."""
        return jnp.concatenate([jnp.atleast_1d(part) for part in self])

    @classmethod
    def of(cls, flat: Array) -> "Said":
        """What `flat` was made of."""
        answers, one, classes, place, read = jnp.split(flat, np.cumsum((len(EXPERTS), 3, SORTS, 1)))
        mixed, base, unit = one
        return cls(answers, mixed, base, unit, classes, place[0], read)


class Experts(NamedTuple):
    """The experts of one target, and their weights in the mixture.

    Weights follow fixed share (Herbster and Warmuth 1998): w_j <- w_j exp(-eta l_j), normalised, then
    w <- (1 - SHARE) w + SHARE / J, with l_j the distance of answer j from the target, less that of the best, in usual
    changes and at most `MOST_LOSS`; eta = ETA / sqrt(lag). Who has no answer has no weight but what is dealt out.

    Regret, of answers that are judged before the next: distances are convex, so in T rows the mixture's sum to at most
    those of the best sequence of experts with m changes, plus
    ((m + 1) ln J + m ln(1 / SHARE) + T ln(1 / (1 - SHARE))) / eta, plus eta / 8 times the sum of R^2. R is how far the
    best and the worst distance of a row lie apart, if below `MOST_LOSS`.
    """

    past: Past
    squares: Recursive
    profile: Profile
    stack: Recursive
    weights: Float[Array, " experts"]
    asked: Said
    waiting: Float[Array, "lag size"]

    @classmethod
    def start(cls, inputs: int, lag: int) -> "Experts":
        """Nothing known; `inputs`: how many numbers of a row are read besides."""
        size, many = OWN + inputs, len(EXPERTS)
        none = jnp.zeros(())
        asked = Said(jnp.zeros(many), none, none, none + 1, jnp.zeros(SORTS), none + SLOTS, jnp.zeros(size))
        equal = jnp.array([EXPERTS[i] in ("network", "lags") for i in _STACKED]) / 2
        return cls(
            Past.start(),
            Recursive.start(jnp.zeros(size), PRIOR),
            Profile.start(size),
            Recursive.start(equal.astype(float), PRIOR),
            jnp.full(many, 1 / many),
            asked,
            jnp.zeros((lag, many + 4 + SORTS + size)),
        )

    def learn(self, rows: Array, y: Array, arrived: Array, step: Array, at: Array) -> tuple["Experts", Array]:
        """After one more row than `rows`; and what the mixture said of it.

        `arrived` is what the answer of `lag` rows before is judged by, NaN where by nothing.
        """
        waiting, then = remember(self.waiting, rows, self.asked.flat)
        said = Said.of(then)
        change = jnp.clip((arrived - said.base) / said.unit, -1e4, 1e4)
        change = jnp.where(said.unit > 0, change, jnp.nan)  # of a row whose answer is not known any more
        # Errors of neighbouring rows overlap: the further ahead, the less each of them says.
        lag = len(self.waiting)
        noise, eta = float(lag), ETA / math.sqrt(lag)
        classes = said.classes.astype(jnp.int32)
        squares, gain = self.squares.learn(said.read, self.squares.weight @ said.read - change, noise=noise)
        pace = jnp.maximum(1 / (squares.steps + 9), RATE_ERROR)
        profile = self.profile.learn(said.read, classes, change, gain, pace)
        moves = _moves(said)
        stack, _ = self.stack.learn(moves, self.stack.weight @ moves - change, noise=noise, leak=3e-4)
        step_of = jnp.clip(arrived - said.base, -LIMIT * said.unit, LIMIT * said.unit)
        past = self.past.learn(classes, step_of, arrived)
        past, place = past.see(y, step, jnp.where(rows < len(self.waiting), SLOTS, said.place).astype(jnp.int32), at)
        weights = shared(self.weights, (said.answers - said.base) / said.unit, change, eta)
        asked = self.asked._replace(place=place.astype(arrived.dtype))
        return Experts(past, squares, profile, stack, weights, asked, waiting), said.mixed

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
        mean = jnp.where(past.mean[1] > 0, past.mean[0], jnp.nan)
        steps = -jnp.diff(past.lags)
        differ = lambda a: _near(jnp.nan_to_num(a / unit))
        own = [differ(steps), units(value), differ(value - before), differ(after - value)]
        own += [differ(change), units(level), units(mean)[None], _waves(at)]
        read = jnp.concatenate([*own, jnp.ones(1), inputs])
        squares = base + unit * (self.squares.weight @ read)
        profile = base + unit * self.profile.say(read, at[-SORTS:])
        answers = jnp.concatenate([jnp.stack([jnp.nan * base, network, squares, profile, base, mean]), value])
        said = Said(
            jnp.where(awake, answers, jnp.nan), base, base, unit, at[-SORTS:].astype(unit.dtype), self.asked.place, read
        )
        answers = said.answers.at[0].set(jnp.where(awake[0], base + unit * (self.stack.weight @ _moves(said)), jnp.nan))
        return self._replace(asked=said._replace(answers=answers, mixed=mixed(self.weights, answers, base)))

    def enlarge(self, fresh: "Experts | tuple[()]", at: int, more: int) -> "Experts":
        """With room for what `fresh` reads: `more` numbers, which come before place `at` of those there were.

        Stacked along the first axis of all arrays. Where other kinds of numbers are read, or none, since there are too
        many, least squares begins anew.
        """
        assert isinstance(fresh, Experts)
        size, new = self.asked.read.shape[1], fresh.asked.read.shape[1]
        if new - size not in (0, more):
            return fresh._replace(past=self.past, stack=self.stack, weights=self.weights)
        place = np.insert(np.arange(size), min(OWN + at, size), np.full(new - size, size))

        def fit(old: Array, axis: int, before: int = 0) -> Array:
            gap = [(0, 1 if i == axis else 0) for i in range(old.ndim)]
            where = np.concatenate([np.arange(before), before + place])
            return jnp.take(jnp.pad(old, gap), where, axis)

        covariance = fit(fit(self.squares.covariance, 1), 2)
        covariance = covariance + PRIOR * jnp.diag(jnp.asarray(place == size, covariance.dtype))
        squares = self.squares._replace(weight=fit(self.squares.weight, 1), covariance=covariance)
        return self._replace(
            squares=squares,
            profile=self.profile._replace(weight=fit(self.profile.weight, 1)),
            asked=self.asked._replace(read=fit(self.asked.read, 1)),
            waiting=fit(self.waiting, 2, self.waiting.shape[2] - size),
        )


# Of what least squares reads, that which is not other columns: lags, seasons, classes, the mean, waves, and 1.
OWN = LAGS + 3 * (len(SEASONS) + 1) + 2 * SORTS + 1 + 2 * sum(HARMONICS) + 1


def _waves(at: Int[Array, " width"]) -> Float[Array, " waves"]:
    """Where in the day, the week and the year the row lies that is predicted; 0 where nobody knows."""
    phases = at[2 + len(SEASONS) : 2 + 2 * len(SEASONS)]
    each = np.repeat(np.arange(len(SEASONS)), HARMONICS)
    times = np.concatenate([np.arange(1, many + 1) for many in HARMONICS])
    angle = 2 * jnp.pi / TURN * (phases[each] * times % TURN)
    there = phases[each] >= 0
    return jnp.where(jnp.tile(there, 2), jnp.concatenate([jnp.sin(angle), jnp.cos(angle)]), 0)


def _near(a: Array) -> Array:
    return jnp.clip(a, -LIMIT, LIMIT)


def _moves(said: Said) -> Array:
    """What others than the stack say, as changes in units; none where one has no answer."""
    moves = (said.answers[jnp.array(_STACKED)] - said.base) / said.unit
    return jnp.clip(jnp.nan_to_num(moves), -2 * LIMIT, 2 * LIMIT)


def mixed(weights: Float[Array, " experts"], answers: Float[Array, " experts"], base: Array) -> Array:
    """The mean of those that have an answer, by weight; `base` where none has."""
    there = jnp.isfinite(answers)
    share = jnp.where(there, weights, 0)
    total = jnp.sum(share)
    return base + jnp.sum(share * jnp.where(there, answers - base, 0)) / jnp.where(total > 0, total, 1)


def shared(
    weights: Float[Array, " experts"], moves: Float[Array, " experts"], change: Array, eta: float = ETA
) -> Array:
    """Weights after what was said of a change, and the change, NaN where it is not known."""
    there: Bool[Array, " experts"] = jnp.isfinite(moves)
    loss = jnp.where(there, jnp.abs(moves - change), jnp.inf)
    loss = jnp.minimum(loss - jnp.min(loss), MOST_LOSS)
    new = jnp.where(there, weights * jnp.exp(-eta * loss), 0)
    new = (1 - SHARE) * new / jnp.sum(new) + SHARE / len(weights)
    # Where nobody knew anything, or nothing is known, all stays.
    return jnp.where(jnp.isfinite(change) & jnp.any(there), new, weights)
