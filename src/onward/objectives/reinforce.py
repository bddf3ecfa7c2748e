"""The plain policy gradient."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from onward.model import Model
from onward.objectives import policies
from onward.objectives.base import AbstractObjective
from onward.objectives.traces import (
    accumulated,
    corrected,
    grown_eligibility,
    nothing_eligible,
    require_discount,
)
from onward.types import Actions, Info, PyTree, Step


class ReinforceState(NamedTuple):
    """The eligibility of each parameter, and what was chosen now."""

    eligibility: PyTree
    action: Array


class Reinforce(AbstractObjective):
    """REINFORCE (Williams, 1992), at every reward: the policy gradient without a value.

        descend -y_t e_{t-1},  then  e_t = discount_t e_{t-1} + grad log pi_t(a_t)

    The sum over an episode is, for weights that stand still, the Monte-Carlo gradient sum_t G_t grad log pi_t(a_t), G_t
    the discounted sum of the rewards that follow. Nothing is predicted and taken off, so it is noisy where rewards are
    far from 0: `ActorCritic` has a value. An episode that is cut short counts as far as it went. Steps without a reward
    make no update.

    `continuous`: actions are real numbers by a Gaussian, of which the prediction holds the means, then the raw
    logarithms of the deviations r (they are 4 tanh(r / 4), so a deviation is between 0.018 and 55); else they are
    choices, by a softmax of the prediction.

    Predictions: `Linear(features, actions)`, or `Linear(features, 2 * actions)` for real numbers; ValueError for
    another. `info.delta` is the reward, `info.loss` minus the reward. Exact where the credit rule is, but that e sums
    gradients by weights that have changed since. Cost: as `TDLambda`.
    """

    discount: float = eqx.field(default=0.99, static=True)
    continuous: bool = eqx.field(default=False, static=True)

    def __check_init__(self) -> None:
        require_discount("Reinforce", self.discount)

    def init(self, model: Model) -> ReinforceState:
        """No parameter eligible; ValueError for a head that does not fit."""
        actions = self.actions(model.prediction_shape)
        return ReinforceState(nothing_eligible(model), policies.no_action(actions))

    def actions(self, outputs: tuple[int, ...]) -> Actions:
        """One for each logit, or real numbers."""
        return policies.require_policy("Reinforce", outputs, self.continuous)

    def choose(
        self, state: ReinforceState, prediction: Array, steps: Int[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[ReinforceState, Array]:
        """A draw from the policy."""
        action = policies.sample(prediction, self.continuous, key=key)
        return state._replace(action=action), action

    def step(
        self, state: ReinforceState, model: Model, prediction: Array, example: Step, pull: Callable[[Array], PyTree]
    ) -> tuple[ReinforceState, PyTree, Bool[Array, ""], Info]:
        """The update for this reward, and the new eligibility."""
        # An episode that starts here has no last action to reward.
        reward = jnp.where(example.reset, 0.0, example.y)
        gradient = corrected(state.eligibility, reward)
        chosen = pull(jax.grad(policies.log_prob)(prediction, state.action, self.continuous))
        eligibility = accumulated(state.eligibility, example.discounted(self.discount), chosen)
        info = Info(prediction, -reward, delta=reward, action=state.action)
        return ReinforceState(eligibility, state.action), gradient, reward != 0, info

    def eligibility(
        self, state: ReinforceState, prediction: Array, pull: Callable[[Array], PyTree], delta: Array
    ) -> PyTree:
        """e_{t-1}, that of the actions so far."""
        return state.eligibility

    def grow(self, state: ReinforceState, model: Model) -> ReinforceState:
        """Old output weights stay eligible; the new stage starts with nothing."""
        return state._replace(eligibility=grown_eligibility(state.eligibility, nothing_eligible(model)))
