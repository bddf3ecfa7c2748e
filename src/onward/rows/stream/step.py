"""The step of a recipe: what happens between a row and its prediction."""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from onward.learners.base import inside
from onward.learners.late import LateState
from onward.learners.online import OnlineState
from onward.model import Model
from onward.rows.stream.density import Density
from onward.rows.stream.linear import LinearBaseline
from onward.rows.stream.moments import LIMIT, RATE_INPUTS, Running, deviation_of, see_squares
from onward.rows.stream.recipe import RowRecipe, start_columns
from onward.rows.stream.room import enlarge
from onward.rows.stream.targets import target_of
from onward.trees import remember
from onward.types import Step


class StreamState(NamedTuple):
    """All that the next row needs.

    `asked` is what the last prediction will be judged by, `waiting` the same of those whose targets are not known yet.
    """

    inputs: Running
    targets: Running
    changes: Running
    moves: Running
    base: Float[Array, " targets"]
    learned: OnlineState | LateState
    linear: LinearBaseline
    density: Density | tuple[()]
    asked: Float[Array, " kept"]
    waiting: Float[Array, "lag kept"]
    rows: Array


class Stream:
    """The step of a recipe, for rows of `capacity` numbers and, if classes are predicted, `classes` of them.

    A row x holds NaN where a number is missing; `plain` says which of its places are not to be normalised (flags).
    Inputs are normalised by running moments. The network predicts the change of the target from its present value, in
    units of its usual change (with horizon 0: from its running mean, in standard deviations), reads out by recursive
    least squares over the inputs and its features, and learns its recurrent weights online.

    `step(state, x, plain, y, arrived)` learns what a row brings and answers it: (state, answer). y: the targets
    (numbers, or the class) that stand in this row, NaN where missing. `arrived`: the same, or of a return the one that
    is known as of now: that of `lag` rows ago. With horizon 0 the answer is given first. The answer: see `Answers`.
    """

    def __init__(self, recipe: RowRecipe, capacity: int, classes: int = 0):
        self.recipe, self.capacity, self.classes = recipe, capacity, classes
        self.target = target_of(recipe, classes)
        # The last change of every target is one more input.
        self.inputs = capacity + (recipe.targets if self.target.anchored else 0)
        self.learner: Any = self.target.learner()  # Online or Late, each with its own state
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
            Running.start(self.capacity),
            Running.start(k),
            Running.start(k),
            Running.start(k),
            jnp.full(k, jnp.nan),
            self.learner.init(model, self._nothing(), key=learn_key),
            LinearBaseline.start(self.target.outputs, self.inputs),
            self._density(features),
            jnp.zeros(kept),
            jnp.zeros((self.recipe.lag, kept)),
            jnp.zeros((), jnp.int32),
        )

    def _model(self, key: PRNGKeyArray) -> Model:
        cell = self.recipe.cell(self.inputs, key)
        return Model(cell, self.target.head(cell.feature_count))

    def _density(self, features: int) -> Density | tuple[()]:
        return Density.start(features, self.recipe.components) if self.recipe.components else ()

    def _nothing(self) -> Step:
        k = self.recipe.targets
        return self._example(jnp.zeros(self.inputs), jnp.zeros(k), jnp.ones(k, bool))

    def _example(self, x: Array, y: Array, known: Array) -> Step:
        target = self.target.value(y, known)
        return Step(x, target, jnp.any(known).astype(x.dtype), jnp.zeros((), bool), target)

    def _answer_then_learn(
        self, state: StreamState, x: Array, plain: Array, y: Array, arrived: Array
    ) -> tuple[StreamState, Array]:
        """Horizon 0: read, predict, then learn from the same row's target."""
        state = state._replace(rows=state.rows + 1)
        inputs, _, z = self._normalised(state, x, plain, y)
        state = state._replace(inputs=inputs)
        known = jnp.isfinite(y)
        targets, label = self.target.label_now(state.targets, y, known)
        learned, info = self._learn(state.learned, self._example(z, label, known))
        outputs = self.target.output(info.prediction, state.targets, state.targets.mean, state.targets.deviation())
        linear = self.target.linear(state.linear, z)
        features = state.learned.model.features(_online(learned).carry)
        unit = state.targets.deviation()
        answer = jnp.concatenate([outputs, linear, _spread(state.density, features, outputs, unit)])
        after = self.target.learn_linear(state.linear, z, y)
        density = state.density
        if density:
            density = density.learn(features, ((y - outputs) / state.targets.deviation())[0])
        return state._replace(targets=targets, learned=learned, linear=after, density=density), answer

    def _learn_then_answer(
        self, state: StreamState, x: Array, plain: Array, y: Array, arrived: Array
    ) -> tuple[StreamState, Array]:
        """Learn from the target of an earlier prediction; then read and predict."""
        n, k = self.inputs, self.recipe.targets
        waiting, row = remember(state.waiting, state.rows, state.asked)
        state = state._replace(waiting=waiting, rows=state.rows + 1)
        features, (was, base, unit) = row[n : -3 * k], jnp.split(row[-3 * k :], 3)
        arrived = jnp.where(state.rows > self.recipe.lag, arrived, jnp.nan)
        linear = self.target.learn_linear(state.linear, row[:n], arrived)
        density = state.density
        if density:
            density = density.learn(features, ((arrived - was) / unit)[0])
        label = self.target.label(state.targets, state.changes, y, arrived, was, base)
        inputs, moves, z = self._normalised(state, x, plain, y)
        learned, info = self._learn(state.learned, self._example(z, label.value, label.known))
        state = state._replace(
            inputs=inputs,
            targets=label.targets,
            changes=label.changes,
            moves=moves,
            learned=learned,
            linear=linear,
            density=density,
        )
        return self._answer(state, z, y, info.prediction, wait=True)

    def _answer(
        self, state: StreamState, z: Array, y: Array, prediction: Array, *, wait: bool
    ) -> tuple[StreamState, Array]:
        """The prediction in the target's own units, with all that its target will need when it comes."""
        anchored = self.target.anchored
        base = jnp.where(jnp.isfinite(y), y, state.base) if anchored else state.targets.mean
        centre = jnp.where(jnp.isfinite(base), base, 0)
        unit = deviation_of(state.changes) if anchored else state.targets.deviation()
        outputs = self.target.output(prediction, state.targets, centre, unit)
        linear = self.target.linear(state.linear, z)
        features = state.learned.model.features(_online(state.learned).carry)
        answer = jnp.concatenate([outputs, linear, _spread(state.density, features, outputs, unit)])
        state = state._replace(base=base)
        if wait:
            row = jnp.concatenate([z, features, self.target.remembered(outputs), base, unit])
            state = state._replace(asked=row)
        return state, answer

    def read(
        self, state: StreamState, x: Array, plain: Array, y: Array, arrived: Array | None = None
    ) -> tuple[StreamState, Array]:
        """Answer a row and remember it in the recurrent state, and learn nothing; `arrived` is not looked at.

        The running moments of the inputs see the row for its own answer, as they do when it is learned from.
        """
        _, _, z = self._normalised(state, x, plain, y)
        # Not `learner.read`: what is not learned from needs no credit, which costs units^4 a row of a dense layer.
        carry, prediction = state.learned.model(_online(state.learned).carry, z)
        learned = eqx.tree_at(lambda s: _online(s).carry, state.learned, carry)
        return self._answer(state._replace(learned=learned), z, y, prediction, wait=False)

    def _normalised(self, state: StreamState, x: Array, plain: Array, y: Array) -> tuple[Running, Running, Array]:
        """What the network reads of a row, and the moments that have seen it."""
        inputs = state.inputs.see(jnp.where(plain, jnp.nan, x), RATE_INPUTS)
        z, moves = jnp.where(plain, x, inputs.normalise(x)), state.moves
        if self.target.anchored:
            move = y - state.base
            moves = see_squares(moves, move)
            last = jnp.clip(move / deviation_of(moves), -LIMIT, LIMIT)
            z = jnp.concatenate([z, jnp.where(jnp.isfinite(move), last, 0)])
        return inputs, moves, z

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
        # New features come last, before what is kept of the prediction itself.
        places = np.full(new - old, state.waiting.shape[1] - 3 * self.recipe.targets)
        asked, waiting = jnp.insert(state.asked, places, 0), jnp.insert(state.waiting, places, 0, axis=1)
        return state._replace(learned=learned, density=density, asked=asked, waiting=waiting)

    def enlarge(self, state: StreamState, fresh: StreamState) -> StreamState:
        """The state with room for more inputs or classes: for as many as `fresh` has, the state of a larger stream."""
        asked, waiting = state.asked, state.waiting
        more = fresh.inputs.seen.size - self.capacity
        if more:  # what waits is [inputs, features (inputs first), the rest]
            places = np.repeat([self.capacity, self.inputs + self.capacity], more)
            asked, waiting = jnp.insert(asked, places, 0), jnp.insert(waiting, places, 0, axis=1)
        state = state._replace(asked=fresh.asked, waiting=fresh.waiting)
        state = enlarge(state, fresh, self.capacity if more else self.classes)
        return state._replace(asked=asked, waiting=waiting)


def _online(learned: OnlineState | LateState) -> OnlineState:
    return learned.online if isinstance(learned, LateState) else learned


def _spread(density: Density | tuple[()], features: Array, outputs: Array, unit: Array) -> Array:
    return density.around(features, outputs[0], unit[0]) if density else jnp.zeros(0)
