"""Experts that answer beside the network, and the mixture of all."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from onward.learners.optimisers import kalman
from onward.learners.step_rules import IDBDState, autostep
from onward.rows.calendar import CLASSES, SEASONS, SORTS, TURN, WIDTH
from onward.rows.stream.density import of_each
from onward.rows.stream.mixture import Asked, Heard, Sizes, shares
from onward.rows.stream.past import LAGS, Past, moved
from onward.trees import remember

# In this order. stack: least squares over what the others say. lags: least squares over lags, seasons, calendar and all
# the network reads and makes of it. calendar: the same with a constant for each class of times. delays: the same with
# the other columns of many rows before. last, mean: the last value, and the mean of all. Then the value of a season
# before.
AHEAD = ("stack", "network", "lags", "calendar", "delays", "last", "mean", "day", "week", "year", "season")
_STACKED = [AHEAD.index(name) for name in AHEAD if name not in ("stack", "last")]
# Of more numbers than these least squares reads none, but what is of the target itself.
MOST_READ = 128
# Variance of the weights of least squares before anything is learned; and as in `onward.least_squares` the pace of the
# mean error, and the least error.
PRIOR, RATE_ERROR, FLOOR = 0.05, 3e-3, 1e-3
# Rows back that columns are read, and numbers of theirs in all: of many columns fewer rows. How many of them least
# squares reads.
MOST_BACK, MOST_FAR, FAR = 64, 512, 64
# Sines and cosines of the time of day, of the week and of the year of the row that is predicted.
HARMONICS = 3, 2, 2
# Numbers that are read lie within so many usual changes.
LIMIT = 10.0
# The mixture: the learning rate, for losses in usual changes, the most that one is above the best, and the share of all
# weight that is dealt out anew at every row.
ETA, MOST_LOSS, SHARE = 1.0, 10.0, 1e-3
# Weights at the start, and shares of what is dealt out: what learns has more.
_FAIR = {"stack": 2, "network": 4, "lags": 4, "calendar": 4, "delays": 4}
START = np.array([_FAIR.get(name, 1) for name in AHEAD], np.float32)
START /= START.sum()


class Recursive(NamedTuple):
    """Recursive least squares of one output, by the equations of `onward.least_squares`."""

    weight: Float[Array, " m"]
    covariance: Float[Array, "m m"]
    error: Array
    steps: Array

    @classmethod
    def start(cls, weight: Float[Array, " m"]) -> "Recursive":
        """Weights at the start."""
        return cls(weight, PRIOR * jnp.eye(len(weight)), jnp.ones(()), jnp.zeros(()))

    def learn(
        self, phi: Array, error: Array, noise: float | Array, leak: float = 3e-5, power: int = 0
    ) -> tuple["Recursive", Float[Array, " m"]]:
        """After the error of what was said of phi; NaN: not known, and nothing changes. Also the gain.

        `power`: the leak is smaller by this power of the usual error, where that is below 1. With 0 weights follow
        changes as fast whatever the error, and those of what is predicted well follow noise: n of them add some
        n sqrt(prior leak) / error of its variance. With 2 they remember as many rows whatever the error.
        """
        forgotten = leak * jnp.minimum(1, (1.25 * self.error) ** power) if power else leak
        known = jnp.isfinite(error)
        error = jnp.where(known, error, 0)
        kept, size = (self.covariance, self.error, self.steps), jnp.abs(error)
        constants = {"prior": PRIOR, "clip": 1.0, "rate": RATE_ERROR, "floor": FLOOR}
        gain, cut, after = kalman(kept, phi, size, known=known, leak=forgotten, noise=noise, **constants)
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
        cut, usual = cut_error(self.say(phi, classes) - change, self.error, pace)
        constants = moved(self.constants, classes, -cut, jnp.isfinite(change))
        return Profile(self.weight - gain * cut, constants, usual)


class Delays(NamedTuple):
    """Least squares, and beside it weights of its own for the columns of many rows before.

    The weights of the former follow its gain, as in `Profile`. Of the columns there are, `used`, the `FAR` newest
    numbers have least squares of their own, and all older ones learn by `autostep`, at a few multiply-adds each; all
    from one error. `history`: the columns of the last rows, newest first.
    """

    weight: Float[Array, " m"]
    near: Recursive
    far: Float[Array, "rows columns"]
    steps: IDBDState
    error: Array
    history: Float[Array, "rows columns"]
    used: Int[Array, ""]

    @classmethod
    def start(cls, size: int, columns: int) -> "Delays":
        """Nothing known; without columns nothing is remembered."""
        none = jnp.zeros((min(MOST_BACK, MOST_FAR // columns) if columns else 0, columns))
        near = Recursive.start(jnp.zeros(FAR if len(none) else 0))
        return cls(jnp.zeros(size), near, none, _STEPS.init(none), jnp.ones(()), none, jnp.zeros((), jnp.int32))

    def see(self, columns: Float[Array, " columns"]) -> "Delays":
        """After one more row. With a column that is new places change, and what was learned of them is forgotten."""
        if not len(self.history):
            return self
        used = jnp.maximum(self.used, jnp.max(jnp.where(columns != 0, jnp.arange(1, len(columns) + 1), 0)))
        near = jax.tree.map(lambda a, b: jnp.where(used == self.used, a, b), self.near, Recursive.start(jnp.zeros(FAR)))
        return self._replace(near=near, used=used, history=jnp.concatenate([columns[None], self.history[:-1]]))

    @property
    def read(self) -> tuple[Float[Array, " near"], Float[Array, "rows columns"]]:
        """The newest numbers, row by row, and all that are older."""
        rows, columns = self.history.shape
        if not rows:
            return jnp.zeros(0), self.history
        place, used = jnp.arange(FAR), jnp.maximum(self.used, 1)
        row = place // used
        near = jnp.take(self.history.ravel(), jnp.minimum(row, rows - 1) * columns + place % used)
        older = jnp.arange(rows)[:, None] * used + jnp.arange(columns)[None] >= FAR
        return jnp.where(row < rows, near, 0), jnp.where(older, self.history, 0)

    def say(self, phi: Array) -> Array:
        """The prediction."""
        near, older = self.read
        return self.weight @ phi + self.near.weight @ near + jnp.sum(self.far * older)

    def learn(self, phi: Array, change: Array, gain: Array, pace: Array) -> "Delays":
        """After what was said of phi; NaN: not known, and no weight moves. `pace`: of the mean size of errors."""
        error, (near, older) = self.say(phi) - change, self.read
        cut, usual = cut_error(error, self.error, pace)
        one = self._replace(weight=self.weight - gain * cut, error=usual)
        if not len(self.history):
            return one
        after, _ = self.near.learn(near, error, noise=1.0, power=2)
        moves, steps = _STEPS.update(None, self.steps, delta=-cut, eligibility=older)
        return one._replace(near=after, far=self.far + moves, steps=steps)

    def enlarge(self, fresh: "Delays") -> "Delays":
        """With as many columns as `fresh`, stacked along the first axis of all arrays; of the rows that have room."""
        if self.history.shape == fresh.history.shape:
            return self
        shape, columns = fresh.history.shape[1:], self.history.shape[2]
        rows = min(shape[0], self.history.shape[1])
        fit = lambda old, new: new.at[:, :rows, :columns].set(old[:, :rows]) if new.shape[1:] == shape else old
        of = lambda one: (one.far, one.steps, one.history)
        far, steps, history = jax.tree.map(fit, of(self), of(fresh))
        return self._replace(near=self.near if rows else fresh.near, far=far, steps=steps, history=history)


# Mahmood's settings; a first step of a thousandth.
_STEPS = autostep(0.01, initial=1e-3)


def cut_error(error: Array, usual: Array, pace: Array) -> tuple[Array, Array]:
    """An error cut at its usual size, 0 where it is not known, and the usual size after it."""
    known = jnp.isfinite(error)
    size = jnp.abs(jnp.where(known, error, 0))
    cut = jnp.where(known, error, 0) * jnp.minimum(1, usual / jnp.maximum(size, FLOOR))
    after = jnp.maximum(usual + pace * (jnp.minimum(size, 10 * usual) - usual), FLOOR)
    return cut, jnp.where(known, after, usual)


class Said(NamedTuple):
    """What experts said of a target, until it is known: what they read, in units, and their answers.

    `base`: the value whose change is predicted, `unit` its usual change; 0: nothing is known of what was said.
    `classes`: those that the row was expected in.
    """

    answers: Float[Array, " experts"]
    mixed: Array
    base: Array
    unit: Array
    classes: Float[Array, " sorts"]
    read: Float[Array, " m"]

    @property
    def flat(self) -> Array:
        """All of it end to end."""
        return jnp.concatenate([part.ravel() for part in self])

    def of(self, flat: Array) -> "Said":
        """What another `flat` of these sizes was made of."""
        parts = jnp.split(flat, np.cumsum([part.size for part in self])[:-1])
        return Said(*(part.reshape(like.shape) for part, like in zip(parts, self, strict=True)))


class Experts(NamedTuple):
    """The experts of each target, stacked along the first axis of all arrays, and their weights in the mixture.

    Weights follow fixed share (Herbster and Warmuth 1998): w_j <- w_j exp(-eta l_j), normalised, then
    w_j <- (1 - SHARE) w_j + SHARE s_j, with s = `START` and l_j the distance of answer j from the target, less that of
    the best, in usual changes and at most `MOST_LOSS`; eta = ETA / sqrt(lag). Who has no answer has no weight but what
    is dealt out.

    Regret, of answers that are judged before the next: distances are convex, so in T rows the mixture's sum to at most
    those of the best sequence of experts with m changes, plus
    ((m + 1) ln(1 / s) + m ln(1 / SHARE) + T ln(1 / (1 - SHARE))) / eta with s the least s_j, plus eta / 8 times the sum
    of R^2. R is how far the best and the worst distance of a row lie apart, if below `MOST_LOSS`.
    """

    past: Past
    squares: Recursive
    profile: Profile
    delays: Delays
    stack: Recursive
    weights: Float[Array, " experts"]
    asked: Said
    waiting: Float[Array, "lag size"]

    @staticmethod
    def names() -> tuple[str, ...]:
        """In the order of their answers."""
        return AHEAD

    @classmethod
    def start(cls, sizes: Sizes) -> "Experts":
        """Nothing known."""
        one = cls._of_one(sizes.read, sizes.inputs, sizes.lag)
        each = jax.tree.map(lambda a: jnp.broadcast_to(a, (sizes.targets, *a.shape)), one)
        if sizes.path == 1:
            return each
        spans = jnp.arange(sizes.targets, dtype=jnp.int32) % sizes.path + 1
        return each._replace(past=each.past._replace(span=spans))

    @classmethod
    def _of_one(cls, inputs: int, columns: int, lag: int) -> "Experts":
        """Nothing known; `inputs`: how many numbers of a row are read besides, `columns`: how many are remembered."""
        size, many = OWN + inputs, len(AHEAD)
        none = jnp.zeros(())
        delays = Delays.start(size, columns if lag == 1 else 0)
        read, classes = jnp.zeros(size), jnp.zeros(SORTS)
        asked = Said(jnp.zeros(many), none, none, none, classes, read)
        equal = jnp.array([AHEAD[i] in ("network", "lags") for i in _STACKED]) / 2
        return cls(
            Past.start(lag),
            Recursive.start(jnp.zeros(size)),
            Profile.start(size),
            delays,
            Recursive.start(equal.astype(float)),
            jnp.asarray(START),
            asked,
            jnp.zeros((lag, asked.flat.size)),
        )

    def learn(self, heard: Heard, said: Array) -> tuple["Experts", Array]:
        """After one more row; and what the mixture said of what has arrived, NaN: not known."""
        learn = lambda one, y, arrived, step, at: one._learn(heard.rows, y, arrived, step, at)
        return of_each(learn, self, heard.y, heard.arrived, heard.step, self._places(heard.at))

    def see(self, heard: Heard) -> "Experts":
        """After a row from which nothing is learned."""
        see = lambda one, y, step, at: one._replace(past=one.past.see(y, step, at))
        return of_each(see, self, heard.y, heard.step, self._places(heard.at))

    def answer(self, asked: Asked) -> "Experts":
        """With what is said of the row that is predicted, in `asked`."""
        read = asked.features[: self.asked.read.shape[1] - OWN]
        awake = asked.awake
        if self.waiting.shape[1] > 1:  # errors overlap, and steps that follow them go astray
            awake = awake & np.array([name != "delays" for name in AHEAD])
        answer = lambda one, said, base, unit, at: one._answer(said, read, asked.columns, base, unit, at, awake)
        return of_each(answer, self, asked.network, asked.base, asked.unit, self._places(asked.at))

    def _places(self, at: Int[Array, " paths*width"]) -> Int[Array, "targets width"]:
        """Where in time the row lies for each target: of a path, which looks so many rows ahead, each has its own."""
        each = at.reshape(-1, WIDTH)
        return jnp.tile(each, (len(self.weights) // len(each), 1))

    def mixed(self, network: Array) -> Array:
        """What the mixture says of each target."""
        return self.asked.mixed

    def spoken(self) -> tuple[Array, Array]:
        """The share of each, and its answer."""
        return shares(self.weights, self.asked.answers), self.asked.answers

    def _learn(self, rows: Array, y: Array, arrived: Array, step: Array, at: Array) -> tuple["Experts", Array]:
        waiting, then = remember(self.waiting, rows, self.asked.flat)
        said = self.asked.of(then)
        known = said.unit > 0
        arrived = jnp.where(known, arrived, jnp.nan)
        change = jnp.clip((arrived - said.base) / said.unit, -1e4, 1e4)
        # Errors of neighbouring rows overlap: the further ahead, the less each of them says.
        lag, span = len(self.waiting), self.past.span
        noise, eta = (float(lag), ETA / math.sqrt(lag)) if isinstance(span, tuple) else (1.0 * span, ETA * span**-0.5)
        classes = said.classes.astype(jnp.int32)
        error = self.squares.weight @ said.read - change
        squares, gain = self.squares.learn(said.read, error, noise=noise, power=int(lag == 1))
        pace = jnp.maximum(1 / (squares.steps + 9), RATE_ERROR)
        profile = self.profile.learn(said.read, classes, change, gain, pace)
        delays = self.delays.learn(said.read, change, gain, pace)
        moves = _moves(said)
        stack, _ = self.stack.learn(moves, self.stack.weight @ moves - change, noise=noise, leak=3e-4)
        step_of = jnp.clip(arrived - said.base, -LIMIT * said.unit, LIMIT * said.unit)
        past = self.past.learn(classes, step_of, arrived).see(y, step, at)
        weights = shared(self.weights, (said.answers - said.base) / said.unit, change, eta)
        after = Experts(past, squares, profile, delays, stack, weights, self.asked, waiting)
        return after, jnp.where(known, said.mixed, jnp.nan)

    def _answer(
        self, network: Array, inputs: Array, columns: Array, base: Array, unit: Array, at: Array, awake: Array
    ) -> "Experts":
        base = jnp.where(jnp.isfinite(base), base, 0)
        past = self.past
        read = jnp.concatenate([*groups(past, base, unit, at).values(), jnp.ones(1), inputs])
        squares = base + unit * (self.squares.weight @ read)
        profile = base + unit * self.profile.say(read, at[-SORTS:])
        delays = self.delays.see(columns)
        delayed = base + unit * delays.say(read)
        mean = jnp.where(past.mean[1] > 0, past.mean[0], jnp.nan)
        first = jnp.stack([jnp.nan * base, network, squares, profile, delayed, base, mean])
        answers = jnp.concatenate([first, past.seasons[1]])
        said = Said(
            jnp.where(awake, answers, jnp.nan),
            base,
            base,
            unit,
            at[-SORTS:].astype(unit.dtype),
            read,
        )
        answers = said.answers.at[0].set(jnp.where(awake[0], base + unit * (self.stack.weight @ _moves(said)), jnp.nan))
        asked = said._replace(answers=answers, mixed=mixed(self.weights, answers, base))
        return self._replace(delays=delays, asked=asked)

    @property
    def in_stack(self) -> dict[str, Array]:
        """The weight that each other expert has in the stack, (targets,)."""
        return {AHEAD[i]: self.stack.weight[:, j] for j, i in enumerate(_STACKED)}

    def enlarge(self, fresh: "Experts", at: int, more: int) -> "Experts":
        """With room for what `fresh` reads: `more` numbers, which come before place `at` of those there were.

        Where other kinds of numbers are read, or none, since there are too many, least squares begins anew.
        """
        size, new = self.asked.read.shape[1], fresh.asked.read.shape[1]
        if new - size not in (0, more):
            return fresh._replace(past=self.past, stack=self.stack, weights=self.weights)
        one = self._replace(delays=self.delays.enlarge(fresh.delays))
        return one._insert(at, new - size, one.waiting.shape[2] - size)

    def _insert(self, at: int, more: int, before: int) -> "Experts":
        """With `more` numbers before place `at` of what is read, which is kept in `waiting` after `before` others."""
        size = self.asked.read.shape[1]
        place = np.insert(np.arange(size), min(OWN + at, size), np.full(more, size))

        def fit(old: Array, axis: int, before: int = 0) -> Array:
            gap = [(0, 1 if i == axis else 0) for i in range(old.ndim)]
            where = np.where(place == size, old.shape[axis], before + place)
            rest = np.arange(before + size, old.shape[axis])
            return jnp.take(jnp.pad(old, gap), np.concatenate([np.arange(before), where, rest]), axis)

        covariance = fit(fit(self.squares.covariance, 1), 2)
        covariance = covariance + PRIOR * jnp.diag(jnp.asarray(place == size, covariance.dtype))
        squares = self.squares._replace(weight=fit(self.squares.weight, 1), covariance=covariance)
        return self._replace(
            squares=squares,
            profile=self.profile._replace(weight=fit(self.profile.weight, 1)),
            asked=self.asked._replace(read=fit(self.asked.read, 1)),
            delays=self.delays._replace(weight=fit(self.delays.weight, 1)),
            waiting=fit(self.waiting, 2, before),
        )


def groups(past: Past, base: Array, unit: Array, at: Int[Array, " width"]) -> dict[str, Array]:
    """What least squares reads of the target and the calendar, by kind, in usual changes; 0 where nothing is known."""
    before, value, after = past.seasons
    change, level = past.classes(at)
    near = lambda a: jnp.clip(jnp.nan_to_num(a / unit), -LIMIT, LIMIT)
    return {
        "lags": near(-jnp.diff(past.lags)),
        "seasons": jnp.concatenate([near(value - base), near(value - before), near(after - value)]),
        "classes": jnp.concatenate([near(change), near(level - base)]),
        "mean": near(past.mean[:1] - base),
        "waves": _waves(at),
    }


# How many numbers `groups` gives, and 1.
OWN = LAGS + 3 * (len(SEASONS) + 1) + 2 * SORTS + 1 + 2 * sum(HARMONICS) + 1


def _waves(at: Int[Array, " width"]) -> Float[Array, " waves"]:
    """Where in the day, the week and the year the row lies that is predicted; 0 where nobody knows."""
    phases = at[2 + len(SEASONS) : 2 + 2 * len(SEASONS)]
    each = np.repeat(np.arange(len(SEASONS)), HARMONICS)
    times = np.concatenate([np.arange(1, many + 1) for many in HARMONICS])
    angle = 2 * jnp.pi / TURN * (phases[each] * times % TURN)
    there = phases[each] >= 0
    return jnp.where(jnp.tile(there, 2), jnp.concatenate([jnp.sin(angle), jnp.cos(angle)]), 0)


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
    weights: Float[Array, " experts"],
    moves: Float[Array, " experts"],
    change: Array,
    eta: float | Array = ETA,
    start: Float[Array, " experts"] | np.ndarray = START,
) -> Array:
    """Weights after what was said of a change, and the change, NaN where it is not known; `start`: as in `START`."""
    there: Bool[Array, " experts"] = jnp.isfinite(moves)
    loss = jnp.where(there, jnp.abs(moves - change), jnp.inf)
    loss = jnp.minimum(loss - jnp.min(loss), MOST_LOSS)
    new = jnp.where(there, weights * jnp.exp(-eta * loss), 0)
    new = (1 - SHARE) * new / jnp.sum(new) + SHARE * start
    # Where nobody knew anything, or nothing is known, all stays.
    return jnp.where(jnp.isfinite(change) & jnp.any(there), new, weights)
