"""The step of a recipe: what happens between a row and its prediction."""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from onward.learners.base import inside
from onward.learners.late import LateState
from onward.learners.online import OnlineState
from onward.model import Model
from onward.rows.calendar import NONE, WIDTH
from onward.rows.stream import guard
from onward.rows.stream.density import Density, of_each
from onward.rows.stream.experts import AHEAD, MOST_READ
from onward.rows.stream.guard import Examined, Guard
from onward.rows.stream.linear import LinearBaseline
from onward.rows.stream.mixture import AbstractExperts, Asked, Heard, Sizes
from onward.rows.stream.moments import LIMIT, RATE_INPUTS, Carried, Running, deviation_of, see_squares
from onward.rows.stream.recipe import RowRecipe, start_columns
from onward.rows.stream.room import enlarge
from onward.rows.stream.targets import target_of
from onward.trees import remember
from onward.types import Step

# Numbers this close, as a share, are the same number.
SAME = 1e-6
# First rows, in which a number that is missing, or comes for the first time, spoils much.
EARLY = 5


class StreamState(NamedTuple):
    """All that the next row needs.

    `guard` and `guards` watch the inputs and the targets; `own`: which input has always been equal to which target.
    `expected`: what the next targets will be, as far as is known; `settled`: the row since which each has its present
    level. `asked` is what the last prediction will be judged by, `waiting` the same of those whose targets are not
    known yet.
    """

    guard: Guard
    guards: Guard
    own: Bool[Array, "capacity targets"]
    expected: Float[Array, " targets"]
    settled: Array
    inputs: Running
    carried: Carried
    targets: Running
    changes: Running
    moves: Running
    base: Float[Array, " targets"]
    learned: OnlineState | LateState
    linear: LinearBaseline
    density: Density | tuple[()]
    asked: Float[Array, " kept"]
    waiting: Float[Array, "lag kept"]
    experts: AbstractExperts
    rows: Array


class Reading(NamedTuple):
    """What is believed of a row: inputs, targets to go by and targets to learn from, NaN where there are none.

    `inputs` and `targets`: how each was judged. `arrived`: what a prediction is corrected by; NaN where that would be
    strange, or where the prediction was made at a level that is left.
    """

    x: Array
    y: Array
    arrived: Array
    inputs: Examined
    targets: Examined

    @property
    def strange(self) -> Array:
        """Which inputs, then which targets, are not believed."""
        return jnp.concatenate([self.inputs.strange, self.targets.strange])

    @property
    def first(self) -> Array:
        """The place of the first that is strange, from 1 on; 0: none."""
        return jnp.where(jnp.any(self.strange), jnp.argmax(self.strange) + 1, 0).astype(self.x.dtype)


class Stream:
    """The step of a recipe, for rows of `capacity` numbers and, if classes are predicted, `classes` of them.

    A row x holds NaN where a number is missing; `plain` says which of its places are not to be normalised (flags).
    Inputs are normalised by running moments. The network predicts the change of the target from its present value, in
    units of its usual change (with horizon 0: from its running mean, in standard deviations), reads out by recursive
    least squares over the inputs and its features, and learns its recurrent weights online.

    `step(state, x, plain, y, arrived, at)` learns what a row brings and answers it: (state, answer). y: the targets
    (numbers, or the class) that stand in this row, NaN where missing. `arrived`: the same, or of a return the one that
    is known as of now: that of `lag` rows ago. Of a path y holds each column's number `path` times, and `arrived` the
    path that followed the row `lag` rows ago. `at`: where the row lies in time, `width` integers as
    `onward.rows.calendar` has them. With horizon 0 the answer is given first. The answer: see `Answers`.

    `pooled`: others learn by the same weights, so that no first row of one of them makes the weights start anew.
    """

    def __init__(self, recipe: RowRecipe, capacity: int, classes: int = 0, *, pooled: bool = False):
        self.recipe, self.capacity, self.classes, self.pooled = recipe, capacity, classes, pooled
        self.target = target_of(recipe, classes)
        # The last change of every target is one more input.
        self.inputs = capacity + (recipe.columns if self.target.anchored else 0)
        self.learner: Any = self.target.learner()  # Online or Late, each with its own state
        self.width = WIDTH * recipe.path if recipe.answering == AHEAD else 0
        self._learn: Any = partial(inside(type(self.learner).step), self.learner)
        self.step = self._learn_then_answer if recipe.lag else self._answer_then_learn

    def init(self) -> StreamState:
        """Before the first row."""
        k = self.recipe.targets
        key, learn_key = jax.random.split(jax.random.key(self.recipe.seed))
        model = self._model(key)
        features = model.cell.feature_count
        kept = self.inputs + features + 3 * k
        return StreamState(
            Guard.start(self.capacity),
            Guard.start(k),
            jnp.ones((self.capacity, k), bool),
            jnp.full(k, jnp.nan),
            jnp.zeros(k, jnp.int32),
            Running.start(self.capacity),
            Carried.start(self.capacity),
            Running.start(k),
            Running.start(k),
            Running.start(k),
            jnp.full(k, jnp.nan),
            self.learner.init(model, self._nothing(), key=learn_key),
            LinearBaseline.start(self.target.outputs, self.inputs),
            self._density(features),
            jnp.zeros(kept),
            jnp.zeros((self.recipe.lag, kept)),
            self._experts(features),
            jnp.zeros((), jnp.int32),
        )

    def _model(self, key: PRNGKeyArray) -> Model:
        cell = self.recipe.cell(self.inputs, key)
        return Model(cell, self.target.head(cell.feature_count))

    def _density(self, features: int) -> Density | tuple[()]:
        recipe = self.recipe
        return Density.each(recipe.targets, features, recipe.components) if recipe.components else ()

    def _experts(self, features: int) -> AbstractExperts:
        recipe = self.recipe
        # Least squares reads all features, or the inputs, which come first, or none.
        read = next((n for n in (features, self.inputs) if n <= MOST_READ), 0)
        sizes = Sizes(self.capacity, self.classes, recipe.targets, read, recipe.lag, recipe.seed, recipe.path)
        return recipe.mixture.start(sizes)

    @property
    def nowhere(self) -> Array:
        """A row of which nobody knows where it lies in time."""
        return jnp.full(self.width, NONE, jnp.int32)

    def _nothing(self) -> Step:
        k = self.recipe.targets
        return self._example(jnp.zeros(self.inputs), jnp.zeros(k), jnp.ones(k, bool))

    def _example(self, x: Array, y: Array, known: Array) -> Step:
        target = self.target.value(y, known)
        return Step(x, target, jnp.any(known).astype(x.dtype), jnp.zeros((), bool), target)

    def _answer_then_learn(
        self, state: StreamState, x: Array, plain: Array, y: Array, arrived: Array, at: Array
    ) -> tuple[StreamState, Array]:
        """Horizon 0: read, predict, then learn from the same row's target."""
        state, row = self._examine(state._replace(rows=state.rows + 1), x, plain, y, y)
        state, lacks = self._early(state, row, plain)
        moved, z = self._normalised(state, row, plain)
        inputs = jax.tree.map(lambda old, new: jnp.where(lacks, old, new), state.inputs, moved.inputs)
        known = jnp.isfinite(row.arrived) & ~lacks
        targets, label = self.target.label_now(state.targets, jnp.where(lacks, jnp.nan, row.arrived), known)
        state = moved._replace(inputs=inputs)
        learned, info = self._learn(state.learned, self._example(z, label, known))
        outputs = self.target.output(info.prediction, state.targets, state.targets.mean, state.targets.deviation())
        features = state.learned.model.features(_online(learned).carry)
        base, unit = state.targets.mean, state.targets.deviation()
        state, outputs = self._mixed(state, row, z, features, outputs, base, unit, at)
        answer = self._said(state, row, z, features, outputs, unit, known=False)
        believed = row._replace(arrived=jnp.where(lacks, jnp.nan, row.arrived))
        experts, _ = state.experts.learn(self._heard(state, believed, at), outputs)
        after = self.target.learn_linear(state.linear, z, y)
        density = state.density
        if density:
            residual = (row.arrived - outputs) / state.targets.deviation()
            density = of_each(lambda one, error: one.learn(features, error), density, residual)
        state = state._replace(targets=targets, learned=learned, linear=after, density=density, experts=experts)
        return state, answer

    def _mixed(
        self,
        state: StreamState,
        row: Reading,
        z: Array,
        features: Array,
        outputs: Array,
        base: Array,
        unit: Array,
        at: Array,
    ) -> tuple[StreamState, Array]:
        """What the mixture says of the row that is predicted; `outputs`: what the network says."""
        linear = self.target.linear_outputs(state.linear, z)
        awake = jnp.array([name in self.recipe.experts for name in self.recipe.answering], bool)
        columns = z[: self.capacity]
        asked = Asked(outputs, linear, row.x, columns, features, base, unit, at, state.targets, awake)
        state = state._replace(experts=state.experts.answer(asked))
        return state, state.experts.mixed(outputs)

    def _heard(self, state: StreamState, row: Reading, at: Array) -> Heard:
        """What a row, which the state counts already, brings to experts."""
        return Heard(state.rows - 1, row.y, row.arrived, row.targets.step, at, state.targets)

    def _early(self, state: StreamState, row: Reading, plain: Array) -> tuple[StreamState, Array]:
        """Of the first rows of a target that is read out from the same row: whether this one is not to be learned from.

        Moments and least squares believe the first rows most. One that lacks the column that says most spoils hundreds
        after it, and so does a column whose moments are not of the same rows as the target's. So a row that lacks a
        number which half of them had is passed over, and all but the recurrent weights starts anew where a column
        has its first value. Later rows may lack what they will: something stands in its place by then.
        """
        if self.recipe.kind != "number" or self.pooled:
            return state, jnp.zeros((), bool)
        early, seen, known = state.rows <= EARLY, state.inputs.seen, jnp.isfinite(row.x)
        lacks = early & jnp.any(~plain & ~known & (2 * seen >= state.rows - 1) & (seen > 0))
        born = early & (state.rows > 1) & jnp.any(~plain & known & (seen == 0))
        online = _online(state.learned)
        head = self.target.head(online.model.cell.feature_count)
        start = self.learner.optimiser.init(eqx.tree_at(lambda m: m.head, online.model, head))
        here = lambda s: (s.inputs, s.targets, s.learned.model.head, s.learned.optimiser)
        counts = (moments.anew() for moments in here(state)[:2])
        fresh = (*counts, head, start._replace(cell=online.optimiser.cell))
        anew = jax.tree.map(lambda new, old: jnp.where(born, new, old), fresh, here(state))
        return eqx.tree_at(here, state, anew), lacks

    def _learn_then_answer(
        self, state: StreamState, x: Array, plain: Array, y: Array, arrived: Array, at: Array
    ) -> tuple[StreamState, Array]:
        """Learn from the target of an earlier prediction; then read and predict."""
        n, k = self.inputs, self.recipe.targets
        waiting, asked = remember(state.waiting, state.rows, state.asked)
        state = state._replace(waiting=waiting, rows=state.rows + 1)
        features, (was, base, unit) = asked[n : -3 * k], jnp.split(asked[-3 * k :], 3)
        arrived = jnp.where(state.rows > self.recipe.lag, arrived, jnp.nan)
        linear = self.target.learn_linear(state.linear, asked[:n], arrived)
        state, row = self._examine(state, x, plain, y, arrived)
        experts, mixed = state.experts.learn(self._heard(state, row, at), was)
        density = state.density
        if density:
            residual = (row.arrived - mixed) / unit
            density = of_each(lambda one, error: one.learn(features, error), density, residual)
        label = self.target.label(state.targets, state.changes, row.y, row.arrived, was, base)
        state, z = self._normalised(state, row, plain)
        learned, info = self._learn(state.learned, self._example(z, label.value, label.known))
        state = state._replace(
            targets=label.targets,
            changes=label.changes,
            learned=learned,
            linear=linear,
            density=density,
            experts=experts,
        )
        return self._answer(state, row, z, info.prediction, at, wait=True)

    def _answer(
        self, state: StreamState, row: Reading, z: Array, prediction: Array, at: Array, *, wait: bool
    ) -> tuple[StreamState, Array]:
        """The prediction in the target's own units, with all that its target will need when it comes."""
        anchored = self.target.anchored
        base = jnp.where(jnp.isfinite(row.y), row.y, state.base) if anchored else state.targets.mean
        centre = jnp.where(jnp.isfinite(base), base, 0)
        unit = deviation_of(state.changes) if anchored else state.targets.deviation()
        own = outputs = self.target.output(prediction, state.targets, centre, unit)
        features = state.learned.model.features(_online(state.learned).carry)
        state, outputs = self._mixed(state, row, z, features, outputs, base, unit, at)
        answer = self._said(state, row, z, features, outputs, unit, known=True)
        state = state._replace(base=base)
        if self.recipe.kind == "number" and self.recipe.horizon == 1:
            state = state._replace(expected=jnp.where(jnp.isfinite(base), outputs, jnp.nan))
        if wait:
            asked = jnp.concatenate([z, features, self.target.remembered(own), base, unit])
            state = state._replace(asked=asked)
        return state, answer

    def _said(
        self,
        state: StreamState,
        row: Reading,
        z: Array,
        features: Array,
        outputs: Array,
        unit: Array,
        *,
        known: bool,
    ) -> Array:
        """An answer, as `Answers` takes it apart; `known`: the row's targets were, before it was answered."""
        linear = self.target.linear(state.linear, z)
        spread = jnp.zeros(0)
        if state.density:
            doubt = jnp.any(row.strange if known else row.inputs.strange)
            other = jnp.where(row.targets.strange & known, state.guards.other, jnp.nan)
            around = lambda one, said, unit, other: one.around(features, said, unit, doubt, other)
            spread = of_each(around, state.density, outputs, unit, other).ravel()
        spoken = [part.ravel() for part in state.experts.spoken()]
        parts = [outputs, linear, spread, *spoken, row.targets.strange, row.first[None]]
        return jnp.concatenate(parts, dtype=outputs.dtype)

    def read(
        self, state: StreamState, x: Array, plain: Array, y: Array, arrived: Array, at: Array
    ) -> tuple[StreamState, Array]:
        """Answer a row and remember it in the recurrent state, and learn nothing; `arrived` is not looked at.

        The running moments of the inputs see the row for its own answer, as they do when it is learned from.
        """
        moved, row = self._examine(state, x, plain, y, y)
        moved, z = self._normalised(moved, row, plain)
        state = state._replace(guard=moved.guard, guards=moved.guards, carried=moved.carried)
        heard, ahead = self._heard(state._replace(rows=state.rows + 1), row, at), self.recipe.lag > 0
        state = state._replace(experts=state.experts.see(heard)) if ahead else state
        # Not `learner.read`: what is not learned from needs no credit, which costs units^4 a row of a dense layer.
        carry, prediction = state.learned.model(_online(state.learned).carry, z)
        learned = eqx.tree_at(lambda s: _online(s).carry, state.learned, carry)
        state, answer = self._answer(state._replace(learned=learned), row, z, prediction, at, wait=False)
        return (state if ahead else state._replace(experts=state.experts.see(heard))), answer

    def believed(self, state: StreamState, x: Array, plain: Array) -> Array:
        """The inputs of a row as they would be gone by; nothing changes."""
        none = jnp.full(self.recipe.targets, jnp.nan)
        return self._examine(state, x, plain, none, none)[1].x

    def _examine(
        self, state: StreamState, x: Array, plain: Array, y: Array, arrived: Array
    ) -> tuple[StreamState, Reading]:
        """What is believed of a row. Where a level has moved, so have the means around which a column is read."""
        # Of classes and returns every value is believed: rewards may be few.
        values = y if self.recipe.kind == "number" else jnp.full_like(y, jnp.nan)
        often = guard.FAR_SAID if self.recipe.horizon == 1 else guard.FAR_LAST
        guards, targets = state.guards.see(values, state.expected, often)
        numbers = jnp.where(plain, jnp.nan, x)
        watch, inputs = state.guard.see(numbers, jnp.full_like(x, jnp.nan), guard.FAR_LAST, followed=False)
        # A target's own column is judged as the target is.
        known = jnp.isfinite(numbers)[:, None] & jnp.isfinite(values)[None]
        same = jnp.abs(x[:, None] - values[None]) <= SAME * jnp.abs(values)[None]
        own = state.own & (same | ~known)
        for i in range(self.recipe.targets):
            at = own[:, i] & known[:, i]
            inputs = jax.tree.map(lambda mine, its, at=at, i=i: jnp.where(at, its[i], mine), inputs, targets)
        x = jnp.where(plain, x, inputs.value)
        settled = jnp.where(targets.moved, state.rows, state.settled)
        if self.recipe.kind == "number":
            old = targets.strange | targets.moved | (state.rows - self.recipe.lag < settled)
            y, arrived = jnp.where(targets.strange, targets.value, y), jnp.where(old, jnp.nan, arrived)
        state = state._replace(
            guard=watch,
            guards=guards,
            own=own,
            settled=settled,
            inputs=state.inputs.shift(inputs.value, inputs.step),
            targets=state.targets.shift(targets.value, targets.step),
        )
        return state, Reading(x, y, arrived, inputs, targets)

    def _normalised(self, state: StreamState, row: Reading, plain: Array) -> tuple[StreamState, Array]:
        """What the network reads of a row; the moments have seen it."""
        inputs = state.inputs.see(jnp.where(plain, jnp.nan, row.x), RATE_INPUTS)
        carried, z = state.carried.fill(inputs.normalise(row.x), jnp.isfinite(row.x) & ~plain)
        z, moves = jnp.where(plain, row.x, z), state.moves
        if self.target.anchored:
            move = row.y - jnp.where(row.targets.moved, row.targets.other, state.base)
            moves = see_squares(moves, move)
            last = jnp.clip(move / deviation_of(moves), -LIMIT, LIMIT)
            z = jnp.concatenate([z, jnp.where(jnp.isfinite(move), last, 0)[:: self.recipe.path]])
        return state._replace(inputs=inputs, carried=carried, moves=moves), z

    def grow(self, state: StreamState) -> StreamState:
        """The next stage of the network. The readout's covariance goes on, and so does all but the credit."""
        before = state.learned
        learned = self.learner.grow(before, self._nothing())
        columns = start_columns(learned.model.cell.live, jax.random.fold_in(_online(before).key, self.recipe.seed + 1))
        learned = eqx.tree_at(lambda s: s.model.cell.cell.stage, learned, columns)
        old, new = (state.model.cell.feature_count for state in (before, learned))
        if self.recipe.kind == "number":
            readout, fresh = _online(before).optimiser, _online(learned).optimiser
            covariance = enlarge(readout.covariance, fresh.covariance, old)
            after = readout._replace(covariance=covariance, cell=fresh.cell)
            learned = eqx.tree_at(lambda s: _online(s).optimiser, learned, after)
        density = state.density
        if density:
            density = enlarge(density, self._density(new), old)
        experts = state.experts.enlarge(self._experts(new), old, new - old)
        # New features come last, before what is kept of the prediction itself.
        places = np.full(new - old, state.waiting.shape[1] - 3 * self.recipe.targets)
        asked, waiting = jnp.insert(state.asked, places, 0), jnp.insert(state.waiting, places, 0, axis=1)
        return state._replace(learned=learned, density=density, asked=asked, waiting=waiting, experts=experts)

    def enlarge(self, state: StreamState, fresh: StreamState) -> StreamState:
        """The state with room for more inputs or classes: for as many as `fresh` has, the state of a larger stream."""
        asked, waiting = state.asked, state.waiting
        more = fresh.inputs.seen.size - self.capacity
        if more:  # what waits is [inputs, features (inputs first), the rest]
            places = np.repeat([self.capacity, self.inputs + self.capacity], more)
            asked, waiting = jnp.insert(asked, places, 0), jnp.insert(waiting, places, 0, axis=1)
        place = self.capacity if more else self.classes
        experts = state.experts.enlarge(fresh.experts, place, more)
        state = state._replace(asked=fresh.asked, waiting=fresh.waiting, experts=fresh.experts)
        state = enlarge(state, fresh, place)
        return state._replace(asked=asked, waiting=waiting, experts=experts)


def _online(learned: OnlineState | LateState) -> OnlineState:
    return learned.online if isinstance(learned, LateState) else learned
