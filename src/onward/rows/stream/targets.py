"""What is predicted: numbers, a class, or a return. How a row's value is learned from, and how a prediction answers."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array

from onward.heads.base import AbstractHead
from onward.heads.categorical import Categorical
from onward.heads.linear import Linear
from onward.learners.late import Late
from onward.learners.online import Online
from onward.learners.optimisers import least_squares, rms
from onward.objectives.supervised import Supervised
from onward.objectives.td import TDLambda
from onward.rows.stream.linear import LinearBaseline
from onward.rows.stream.moments import RATE_INPUTS, Running, deviation_of, see_squares
from onward.rows.stream.recipe import RowRecipe


class Label(NamedTuple):
    """What a row makes known: running moments that have seen it, what is to be learned, and where that is known."""

    targets: Running
    changes: Running
    value: Array
    known: Array


class _Common:
    """What targets of most kinds do; `outputs`: how many numbers are said of a row."""

    anchored = False  # whether the change from the last known value is predicted

    def __init__(self, recipe: RowRecipe, outputs: int):
        self.recipe, self.outputs = recipe, outputs

    def remembered(self, outputs: Array) -> Array:
        """What `label` will be told that the prediction was; nothing, unless it asks."""
        return jnp.zeros(1)

    def linear(self, baseline: LinearBaseline, z: Array) -> Array:
        """The baseline's answer."""
        return baseline.number(z)

    def linear_outputs(self, baseline: LinearBaseline, z: Array) -> Array:
        """The same as `output` says it of the network: the number, or the probabilities of the classes."""
        return self.linear(baseline, z)

    def learn_linear(self, baseline: LinearBaseline, z: Array, y: Array) -> LinearBaseline:
        """The baseline after a target; NaN: none."""
        return baseline.learn_number(z, y)

    def _supervised(self, optimiser: optax.GradientTransformation) -> Online | Late:
        online = Online(self.recipe.credit(), Supervised(), optimiser)
        return Late(online, self.recipe.horizon) if self.recipe.horizon else online


class NumberTarget(_Common):
    """Numbers, as changes from their last known value in units of their usual change; of the same row, as they are."""

    def __init__(self, recipe: RowRecipe):
        super().__init__(recipe, recipe.targets)
        self.anchored = recipe.horizon > 0

    def learner(self) -> Online | Late:
        """Least squares for the readout, RMSProp for the recurrent weights."""
        recipe = self.recipe
        cell = optax.chain(rms(0.999), optax.scale(5e-3 if recipe.step_size is None else recipe.step_size))
        # The further ahead, the more of an error is chance.
        # Of the same row the readout can say much at once: it starts free, and believes large errors.
        free = {} if recipe.horizon else {"prior": 1.0, "clip": 3.0}
        return self._supervised(least_squares(cell, noise=math.sqrt(max(1, recipe.horizon)), **free))

    def head(self, features: int) -> AbstractHead:
        """A number each."""
        return Linear(features, self.recipe.targets)

    def value(self, y: Array, known: Array) -> Array:
        """As the objective takes it."""
        return y

    def label_now(self, targets: Running, y: Array, known: Array) -> tuple[Running, Array]:
        """With horizon 0: moments that have seen y, and y in standard deviations; the mean where it is missing."""
        targets = targets.see(y, RATE_INPUTS)
        return targets, jnp.where(known, targets.normalise(y), jnp.zeros_like(y))

    def label(self, targets: Running, changes: Running, y: Array, arrived: Array, was: Array, base: Array) -> Label:
        """Of what `arrived`, with what the prediction `was` and the value `base` that it was to change."""
        change = arrived - base
        usual = jnp.sqrt(changes.variance)
        # An outlier is no measure of change; the mean square is kept as a variance about zero.
        cut = jnp.where(changes.seen > 20, 100 * usual, jnp.inf)
        changes = see_squares(changes, jnp.clip(change, -cut, cut))
        now = deviation_of(changes)
        said = jnp.where(jnp.isfinite(base), (was - base) / now, 0)
        # Of several targets the missing ones are taken as predicted.
        value = jnp.where(jnp.isfinite(change), jnp.clip(change / now, -1e4, 1e4), said)
        return Label(targets, changes, value, jnp.isfinite(change))

    def output(self, prediction: Array, targets: Running, centre: Array, unit: Array) -> Array:
        """The prediction in the targets' own units."""
        return centre + unit * prediction

    def remembered(self, outputs: Array) -> Array:
        """What `label` will be told that the prediction was."""
        return outputs


class ClassTarget(_Common):
    """One of several classes, by its number."""

    def learner(self) -> Online | Late:
        """Adam for all weights."""
        return self._supervised(optax.adam(1e-2 if self.recipe.step_size is None else self.recipe.step_size))

    def head(self, features: int) -> AbstractHead:
        """Log odds of each class."""
        return Categorical(features, self.outputs)

    def value(self, y: Array, known: Array) -> Array:
        """As the objective takes it."""
        return jnp.where(known[0], y[0], 0).astype(jnp.int32)

    def label_now(self, targets: Running, y: Array, known: Array) -> tuple[Running, Array]:
        """With horizon 0: the class."""
        return targets, y

    def label(self, targets: Running, changes: Running, y: Array, arrived: Array, was: Array, base: Array) -> Label:
        """The class that stands in the row."""
        return Label(targets, changes, y, jnp.isfinite(y))

    def output(self, prediction: Array, targets: Running, centre: Array, unit: Array) -> Array:
        """Probabilities."""
        return jnp.exp(prediction)

    def linear(self, baseline: LinearBaseline, z: Array) -> Array:
        """The baseline's answer."""
        return baseline.label(z)

    def linear_outputs(self, baseline: LinearBaseline, z: Array) -> Array:
        """The probabilities of the classes."""
        return baseline.probabilities(z)

    def learn_linear(self, baseline: LinearBaseline, z: Array, y: Array) -> LinearBaseline:
        """The baseline after a class; NaN: none."""
        return baseline.learn_label(z, y)


class ReturnTarget(_Common):
    """The discounted sum of a number's coming values, learned from each of them by temporal differences."""

    def learner(self) -> Online:
        """TD(0.9) and RMSProp for all weights."""
        size = 1e-3 if self.recipe.step_size is None else self.recipe.step_size
        return Online(self.recipe.credit(), TDLambda(self.recipe.discount, 0.9), rms(0.999), step_size=size)

    def head(self, features: int) -> AbstractHead:
        """A single value."""
        return Linear(features)

    def value(self, y: Array, known: Array) -> Array:
        """As the objective takes it."""
        return y[0]

    def label_now(self, targets: Running, y: Array, known: Array) -> tuple[Running, Array]:
        """A return is never known at its own row."""
        raise ValueError("a return needs a lag of at least 1 row, got 0")

    def label(self, targets: Running, changes: Running, y: Array, arrived: Array, was: Array, base: Array) -> Label:
        """The row's value, in standard deviations: the reward."""
        targets = targets.see(y, RATE_INPUTS)
        return Label(targets, changes, targets.normalise(y), jnp.isfinite(y))

    def output(self, prediction: Array, targets: Running, centre: Array, unit: Array) -> Array:
        """The return of the centred and scaled value, and that of its mean."""
        rest = targets.mean / (1 - self.recipe.discount)
        return rest + targets.deviation() * prediction


Target = NumberTarget | ClassTarget | ReturnTarget


def target_of(recipe: RowRecipe, classes: int) -> Target:
    """What a recipe predicts; `classes`: for how many of them there is room."""
    if recipe.kind == "class":
        return ClassTarget(recipe, classes)
    return ReturnTarget(recipe, recipe.targets) if recipe.kind == "return" else NumberTarget(recipe)
