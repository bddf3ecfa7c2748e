"""Temporal-difference learning of a discounted return."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from onward.model import Model
from onward.objectives.base import AbstractObjective
from onward.objectives.traces import accumulated, corrected, grown_eligibility, nothing_eligible, require_discount
from onward.types import Info, PyTree, Step


class TDState(NamedTuple):
    """The prediction of the last step, and the eligibility of each parameter."""

    v_tm1: Float[Array, ""]
    eligibility: PyTree


class TDLambda(AbstractObjective):
    """TD(lambda) with accumulating eligibility traces (Sutton, 1988).

    v_t predicts y_{t+1} + discount y_{t+2} + ...; `y` of a step is the cumulant that arrives with it.

        delta_t = y_t + discount_t v_t - v_{t-1}
        descend -delta_t e_{t-1},  then  e_t = discount_t trace_decay e_{t-1} + grad v_t

    discount_t is the field times `discount` of the step: 0 where an episode ends. v_{t-1} is the prediction made then,
    with the weights of then. `trace_decay` is lambda. The prediction must be a scalar (ValueError); `discount` is in
    [0, 1), `trace_decay` in [0, 1]. Exact where the credit rule is, but that e
    sums gradients by weights that have changed since. `weight` of a step does not count: y belongs to every prediction
    before it. Cost: one more number, and one multiply-add, per parameter.
    """

    discount: float = eqx.field(default=0.9, static=True)
    trace_decay: float = eqx.field(default=0.99, static=True)

    def __check_init__(self) -> None:
        require_discount("TDLambda", self.discount, self.trace_decay)

    def init(self, model: Model) -> TDState:
        """Last prediction 0, and no parameter eligible."""
        return TDState(jnp.zeros(()), nothing_eligible(model))

    def step(
        self, state: TDState, model: Model, prediction: Array, example: Step, pull: Callable[[Array], PyTree]
    ) -> tuple[TDState, PyTree, Bool[Array, ""], Info]:
        """The TD update of the last prediction, and the new eligibility."""
        if prediction.shape != ():
            raise ValueError(f"TDLambda needs a scalar prediction, got shape {prediction.shape}; use Linear(features)")
        discount = example.discounted(self.discount)
        error = example.y + discount * prediction - state.v_tm1
        # An episode that starts here has no last prediction to correct.
        error = jnp.where(example.reset, 0.0, error)
        gradient = corrected(state.eligibility, error)
        pulled = pull(jnp.ones_like(prediction))
        eligibility = accumulated(state.eligibility, discount * self.trace_decay, pulled)
        loss = 0.5 * jnp.square(error)
        return TDState(prediction, eligibility), gradient, jnp.asarray(True), Info(prediction, loss, delta=error)

    def eligibility(self, state: TDState, prediction: Array, pull: Callable[[Array], PyTree], delta: Array) -> PyTree:
        """e_{t-1}, that of the last prediction."""
        return state.eligibility

    def grow(self, state: TDState, model: Model) -> TDState:
        """Old output weights stay eligible; the new stage starts with nothing."""
        return TDState(state.v_tm1, grown_eligibility(state.eligibility, self.init(model).eligibility))
