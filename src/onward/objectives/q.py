"""Values of actions, learned by temporal differences, and the choice by them."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from onward.model import Model
from onward.objectives.base import AbstractObjective
from onward.objectives.exploration import Schedule, epsilon_greedy, one_hot, require_schedule, require_values, value_of
from onward.objectives.traces import accumulated, corrected, grown_eligibility, nothing_eligible, require_discount
from onward.types import Actions, Info, PyTree, Step


class QState(NamedTuple):
    """The value of the last action, the eligibility of each parameter, and what was chosen now."""

    q_tm1: Float[Array, ""]
    eligibility: PyTree
    action: Int[Array, ""]


class AbstractValues(AbstractObjective):
    """Values of actions by temporal differences; what follows an action is worth what `_ahead` says."""

    discount: float = eqx.field(default=0.99, static=True)
    trace_decay: float = eqx.field(default=0.9, static=True)
    exploration: Schedule = eqx.field(default=0.05, static=True)

    def __check_init__(self) -> None:
        require_discount(type(self).__name__, self.discount, self.trace_decay)
        require_schedule(type(self).__name__, self.exploration)

    def init(self, model: Model) -> QState:
        """No last value, and no parameter eligible; ValueError for a head without a value for each action."""
        self.actions(model.prediction_shape)
        return QState(jnp.zeros(()), nothing_eligible(model), jnp.zeros((), jnp.int32))

    def actions(self, outputs: tuple[int, ...]) -> Actions:
        """One for each value."""
        return require_values(type(self).__name__, outputs)

    def choose(
        self, state: QState, prediction: Array, steps: Int[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[QState, Int[Array, ""]]:
        """A best action, or with probability `exploration` any."""
        action = epsilon_greedy(prediction, self.exploration, steps, key=key)
        return state._replace(action=action), action

    @abc.abstractmethod
    def _ahead(self, values: Array, chosen: Array) -> tuple[Array, Array | float]:
        """What is to come, by all values and that of the action chosen, and what is left of the eligibility."""

    def step(
        self, state: QState, model: Model, prediction: Array, example: Step, pull: Callable[[Array], PyTree]
    ) -> tuple[QState, PyTree, Bool[Array, ""], Info]:
        """The update of the last action's value, and the new eligibility."""
        chosen = value_of(prediction, state.action)
        ahead, left = self._ahead(prediction, chosen)
        discount = example.discounted(self.discount)
        # An episode that starts here has no last action to correct.
        error = jnp.where(example.reset, 0.0, example.y + discount * ahead - state.q_tm1)
        gradient = corrected(state.eligibility, error)
        pulled = pull(one_hot(state.action, prediction))
        eligibility = accumulated(state.eligibility, discount * self.trace_decay * left, pulled)
        info = Info(prediction, 0.5 * jnp.square(error), delta=error, action=state.action)
        return QState(chosen, eligibility, state.action), gradient, jnp.asarray(True), info

    def eligibility(self, state: QState, prediction: Array, pull: Callable[[Array], PyTree], delta: Array) -> PyTree:
        """e_{t-1}, that of the last action."""
        return state.eligibility

    def grow(self, state: QState, model: Model) -> QState:
        """Old output weights stay eligible; the new stage starts with nothing."""
        return state._replace(eligibility=grown_eligibility(state.eligibility, nothing_eligible(model)))


class QLambda(AbstractValues):
    """Watkins' Q(lambda) (Watkins, 1989), epsilon-greedy: prediction i is the value of action i.

    With q_t the values at time t, a_t what is chosen by them and y_t the reward that came with x_t:

        delta_t = y_t + discount_t max q_t - q_{t-1}[a_{t-1}]
        descend -delta_t e_{t-1},  then  e_t = discount_t trace_decay c_t e_{t-1} + grad q_t[a_t]

    c_t is 1 where a_t is a best action by q_t and 0 where another is explored: what follows then says nothing about the
    best policy. The credit rule's traces are not cut. q_{t-1}[a_{t-1}] is the value said then, by the weights of then.
    discount_t is the field times `discount` of the step: 0 on the step whose y is the last reward of an episode.
    `exploration` is the share of actions drawn from all alike, a number or a function of the steps so far
    (`optax.linear_schedule(0.1, 0.01, 100_000)`); of equal values the first counts as best.

    Predictions: `Linear(features, actions)`; ValueError for a scalar. Exact where the credit rule is, but that e sums
    gradients by weights that have changed since. `weight` of a step does not count, and a reward that is NaN
    makes the loss NaN and the weights with it, as a target does elsewhere. Cost: as `TDLambda`.
    """

    def _ahead(self, values: Array, chosen: Array) -> tuple[Array, Array | float]:
        best = jnp.max(values)
        return best, chosen >= best


class SarsaLambda(AbstractValues):
    """Sarsa(lambda) (Rummery and Niranjan, 1994), epsilon-greedy: prediction i is the value of action i.

        delta_t = y_t + discount_t q_t[a_t] - q_{t-1}[a_{t-1}]
        descend -delta_t e_{t-1},  then  e_t = discount_t trace_decay e_{t-1} + grad q_t[a_t]

    The values are those of the policy that is followed, exploration included. Fields, predictions, errors and cost as
    of `QLambda`. Exact where the credit rule is, but that e sums gradients by weights that have changed since.
    """

    def _ahead(self, values: Array, chosen: Array) -> tuple[Array, Array | float]:
        return chosen, 1.0
