"""Values of actions, learned by temporal differences, and the choice by them."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from onward.model import Model
from onward.objectives.base import AbstractObjective
from onward.objectives.traces import (
    Schedule,
    accumulated,
    corrected,
    grown_eligibility,
    now,
    require_discount,
    require_schedule,
)
from onward.types import Actions, Info, PyTree, Step


class QState(NamedTuple):
    """The value of the last action, the eligibility of each parameter, and what was chosen now."""

    q_tm1: Float[Array, ""]
    eligibility: PyTree
    action: Int[Array, ""]


class QLambda(AbstractObjective):
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
    gradients by weights that have changed since. `weight` of a step does not count. Cost: as `TDLambda`.
    """

    discount: float = eqx.field(default=0.99, static=True)
    trace_decay: float = eqx.field(default=0.9, static=True)
    exploration: Schedule = eqx.field(default=0.05, static=True)

    def __check_init__(self) -> None:
        require_discount("QLambda", self.discount, self.trace_decay)
        require_schedule("QLambda", self.exploration)

    def init(self, model: Model) -> QState:
        """No last value, and no parameter eligible."""
        return start(model)

    def actions(self, outputs: tuple[int, ...]) -> Actions:
        """One for each value."""
        return choices("QLambda", outputs)

    def choose(
        self, state: QState, prediction: Array, steps: Int[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[QState, Int[Array, ""]]:
        """A best action, or with probability `exploration` any."""
        action = epsilon_greedy(prediction, now(self.exploration, steps), key=key)
        return state._replace(action=action), action

    def step(
        self, state: QState, model: Model, prediction: Array, example: Step, pull: Callable[[Array], PyTree]
    ) -> tuple[QState, PyTree, Bool[Array, ""], Info]:
        """The update of the last action's value, and the new eligibility."""
        best = jnp.max(prediction)
        cut = of_action(prediction, state.action) >= best
        return learn(state, prediction, best, example, pull, self.discount, self.trace_decay * cut)

    def eligibility(self, state: QState, prediction: Array, pull: Callable[[Array], PyTree], delta: Array) -> PyTree:
        """e_{t-1}, that of the last action."""
        return state.eligibility

    def grow(self, state: QState, model: Model) -> QState:
        """Old output weights stay eligible; the new stage starts with nothing."""
        return state._replace(eligibility=grown_eligibility(state.eligibility, start(model).eligibility))


class SarsaLambda(AbstractObjective):
    """Sarsa(lambda) (Rummery and Niranjan, 1994), epsilon-greedy: prediction i is the value of action i.

        delta_t = y_t + discount_t q_t[a_t] - q_{t-1}[a_{t-1}]
        descend -delta_t e_{t-1},  then  e_t = discount_t trace_decay e_{t-1} + grad q_t[a_t]

    The values are those of the policy that is followed, exploration included. Fields, predictions, errors and cost as
    of `QLambda`. Exact where the credit rule is, but that e sums gradients by weights that have changed since.
    """

    discount: float = eqx.field(default=0.99, static=True)
    trace_decay: float = eqx.field(default=0.9, static=True)
    exploration: Schedule = eqx.field(default=0.05, static=True)

    def __check_init__(self) -> None:
        require_discount("SarsaLambda", self.discount, self.trace_decay)
        require_schedule("SarsaLambda", self.exploration)

    def init(self, model: Model) -> QState:
        """No last value, and no parameter eligible."""
        return start(model)

    def actions(self, outputs: tuple[int, ...]) -> Actions:
        """One for each value."""
        return choices("SarsaLambda", outputs)

    def choose(
        self, state: QState, prediction: Array, steps: Int[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[QState, Int[Array, ""]]:
        """A best action, or with probability `exploration` any."""
        action = epsilon_greedy(prediction, now(self.exploration, steps), key=key)
        return state._replace(action=action), action

    def step(
        self, state: QState, model: Model, prediction: Array, example: Step, pull: Callable[[Array], PyTree]
    ) -> tuple[QState, PyTree, Bool[Array, ""], Info]:
        """The update of the last action's value, and the new eligibility."""
        chosen = of_action(prediction, state.action)
        return learn(state, prediction, chosen, example, pull, self.discount, self.trace_decay)

    def eligibility(self, state: QState, prediction: Array, pull: Callable[[Array], PyTree], delta: Array) -> PyTree:
        """e_{t-1}, that of the last action."""
        return state.eligibility

    def grow(self, state: QState, model: Model) -> QState:
        """Old output weights stay eligible; the new stage starts with nothing."""
        return state._replace(eligibility=grown_eligibility(state.eligibility, start(model).eligibility))


def start(model: Model) -> QState:
    """No last value, and no parameter eligible."""
    parameters = eqx.filter(model, model.trainable())
    return QState(jnp.zeros(()), jax.tree.map(jnp.zeros_like, parameters), jnp.zeros((), jnp.int32))


def choices(owner: str, outputs: tuple[int, ...]) -> int:
    """The number of actions, by the shape of a prediction; ValueError for one without a value an action."""
    if len(outputs) != 1 or outputs[0] < 2:
        raise ValueError(
            f"{owner} needs a value for each of two actions or more, the head predicts shape {outputs}; use "
            "Linear(features, actions). Actions that are real numbers are for ActorCritic"
        )
    return outputs[0]


def of_action(values: Float[Array, " actions"], action: Int[Array, ""]) -> Float[Array, ""]:
    """The value of one action: a sum, which XLA fuses where it would gather."""
    return jnp.sum(jnp.where(jnp.arange(values.shape[0]) == action, values, 0))


def epsilon_greedy(values: Float[Array, " actions"], epsilon: Array, *, key: PRNGKeyArray) -> Int[Array, ""]:
    """The first best action, or with probability epsilon any of them."""
    explore, which = jax.random.uniform(key, (2,))
    count = values.shape[0]
    drawn = jnp.minimum((which * count).astype(jnp.int32), count - 1)
    return jnp.where(explore < epsilon, drawn, jnp.argmax(values).astype(jnp.int32))


def learn(
    state: QState,
    values: Array,
    ahead: Array,
    example: Step,
    pull: Callable[[Array], PyTree],
    discount: float,
    trace_decay: Array | float,
) -> tuple[QState, PyTree, Bool[Array, ""], Info]:
    """The update of the last action's value towards y + discount `ahead`, and the eligibility with that of now."""
    discounted = example.discounted(discount)
    # An episode that starts here has no last action to correct.
    error = jnp.where(example.reset, 0.0, example.y + discounted * ahead - state.q_tm1)
    gradient = corrected(state.eligibility, error)
    taken = (jnp.arange(values.shape[0]) == state.action).astype(values.dtype)
    eligibility = accumulated(state.eligibility, discounted * trace_decay, pull(taken))
    after = QState(of_action(values, state.action), eligibility, state.action)
    info = Info(values, 0.5 * jnp.square(error), delta=error, action=state.action)
    return after, gradient, jnp.asarray(True), info
