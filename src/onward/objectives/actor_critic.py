"""A policy and its value, learned together at every step."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from onward.model import Model
from onward.objectives import policies
from onward.objectives.base import AbstractObjective
from onward.objectives.exploration import one_hot
from onward.objectives.traces import (
    accumulated,
    corrected,
    grown_eligibility,
    nothing_eligible,
    require_discount,
)
from onward.types import Actions, Info, PyTree, Step


class ActorCriticState(NamedTuple):
    """The last value, the eligibilities of critic and actor, and what was chosen now.

    `entropy`: the gradient of the policy's entropy at the last step, which waits for its sign; () where it counts
    nothing.
    """

    v_tm1: Float[Array, ""]
    critic: PyTree
    actor: PyTree
    entropy: PyTree
    action: Array


class ActorCritic(AbstractObjective):
    """Actor-critic with eligibility traces (Sutton and Barto, 2018, 13.5; entropy as in Elsayed et al., 2024).

    A prediction holds the policy, then one number more, the value v:

        delta_t = y_t + discount_t v_t - v_{t-1}
        z_p <- z_p + entropy sign(delta_t) grad H_{t-1}
        descend -delta_t z_v  and  -delta_t z_p,  then
        z_v <- discount_t trace_decay z_v + grad v_t
        z_p <- discount_t trace_decay z_p + grad log pi_t(a_t)

    H is the policy's entropy. It joins z_p with the sign of the error that followed, which is known one step later, so
    that its first share is entropy |delta_t| grad H_{t-1}: the policy is pulled apart, whatever the sign. discount_t
    is the field times `discount` of the step, 0 where an episode ends. The policy gradient leaves out the factor
    discount^t of a whole episode, as usual.

    Both gradients enter the cell, and each has an optimiser state of its own; `actor_step_size` is the actor's step
    size relative to the learner's, which is the critic's.

    `continuous`: actions are real numbers by a Gaussian, of which the prediction holds the means, then the raw
    logarithms of the deviations r (they are 4 tanh(r / 4), so a deviation is between 0.018 and 55); else they are
    choices, by a softmax. The task cuts real numbers to what it can do. A Gaussian wants a smaller `actor_step_size`
    than a softmax, 1 say: where its steps are too large its deviations run to their bound and stay there.

    Predictions: `Linear(features, actions + 1)`, or `Linear(features, 2 * actions + 1)` for real numbers; ValueError
    for another. Exact where the credit rule is, but that sums hold gradients by weights that have changed since. Cost:
    three pulls, two without entropy, and memory for as many gradients, beside a second optimiser state.
    """

    discount: float = eqx.field(default=0.99, static=True)
    trace_decay: float = eqx.field(default=0.8, static=True)
    entropy: float = eqx.field(default=0.01, static=True)
    actor_step_size: float = eqx.field(default=3.0, static=True)
    continuous: bool = eqx.field(default=False, static=True)

    def __check_init__(self) -> None:
        require_discount("ActorCritic", self.discount, self.trace_decay)
        if not self.entropy >= 0:
            raise ValueError(f"ActorCritic: entropy must be at least 0, got {self.entropy}")
        if not self.actor_step_size > 0:
            raise ValueError(f"ActorCritic: actor_step_size must be positive, got {self.actor_step_size}")

    @property
    def step_sizes(self) -> tuple[float, float]:
        """Of the critic's gradient, and of the actor's."""
        return 1.0, self.actor_step_size

    def init(self, model: Model) -> ActorCriticState:
        """No last value, and no parameter eligible; ValueError for a head that does not fit."""
        actions, none = self.actions(model.prediction_shape), nothing_eligible(model)
        return ActorCriticState(jnp.zeros(()), none, none, none if self.entropy else (), policies.no_action(actions))

    def actions(self, outputs: tuple[int, ...]) -> Actions:
        """One for each logit, or real numbers."""
        return policies.require_policy("ActorCritic", outputs, self.continuous, more=1)

    def choose(
        self, state: ActorCriticState, prediction: Array, steps: Int[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[ActorCriticState, Array]:
        """A draw from the policy."""
        action = policies.sample(prediction[:-1], self.continuous, key=key)
        return state._replace(action=action), action

    def step(
        self, state: ActorCriticState, model: Model, prediction: Array, example: Step, pull: Callable[[Array], PyTree]
    ) -> tuple[ActorCriticState, PyTree, Bool[Array, ""], Info]:
        """The updates of the last value and of the policy, and the new eligibilities."""
        policy, value = prediction[:-1], prediction[-1]
        discount = example.discounted(self.discount)
        # An episode that starts here has no last value to correct.
        error = jnp.where(example.reset, 0.0, example.y + discount * value - state.v_tm1)
        critic, actor = self._signed(state, error)
        gradient = corrected(critic, error), corrected(actor, error)

        fade = discount * self.trace_decay
        pull_policy = lambda cotangent: pull(jnp.append(cotangent, 0))
        chosen = pull_policy(jax.grad(policies.log_prob)(policy, state.action, self.continuous))
        after = ActorCriticState(
            value,
            accumulated(critic, fade, pull(one_hot(len(policy), prediction))),
            accumulated(actor, fade, chosen),
            pull_policy(jax.grad(policies.entropy)(policy, self.continuous)) if self.entropy else (),
            state.action,
        )
        info = Info(prediction, 0.5 * jnp.square(error), delta=error, action=state.action)
        return after, gradient, jnp.asarray(True), info

    def _signed(self, state: ActorCriticState, error: Array) -> tuple[PyTree, PyTree]:
        """The eligibilities of critic and actor, now that the sign of the last step's entropy is known."""
        if not self.entropy:
            return state.critic, state.actor
        return state.critic, accumulated(state.entropy, self.entropy * jnp.sign(error), state.actor)

    def eligibility(
        self, state: ActorCriticState, prediction: Array, pull: Callable[[Array], PyTree], delta: Array
    ) -> tuple[PyTree, PyTree]:
        """z_v and z_p, with the entropy of the last step by the sign of `delta`."""
        return self._signed(state, delta)

    def grow(self, state: ActorCriticState, model: Model) -> ActorCriticState:
        """Old output weights stay eligible; the new stage starts with nothing."""
        none = nothing_eligible(model)
        grown = lambda old: grown_eligibility(old, none)
        entropy = grown(state.entropy) if self.entropy else ()
        return state._replace(critic=grown(state.critic), actor=grown(state.actor), entropy=entropy)
