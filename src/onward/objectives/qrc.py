"""Values of actions, learned by temporal differences with a gradient correction."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from onward.batching import pointwise
from onward.heads.linear import Linear
from onward.model import Model
from onward.objectives.base import AbstractObjective
from onward.objectives.exploration import Schedule, epsilon_greedy, one_hot, require_schedule, require_values, value_of
from onward.objectives.traces import accumulated, grown_eligibility, nothing_eligible, require_discount
from onward.types import Actions, Info, PyTree, Step


class QRCState(NamedTuple):
    """What is known of the last action, the three eligibilities, and what was chosen now.

    q, h: value and expected error of the last action; grad_q, grad_h their gradients, the one model-shaped, the other
    head-shaped, as are z_q and z_h; e_h is a number.
    """

    q_tm1: Float[Array, ""]
    h_tm1: Float[Array, ""]
    grad_q: PyTree
    grad_h: PyTree
    z_q: PyTree
    z_h: PyTree
    e_h: Float[Array, ""]
    action: Int[Array, ""]


class QRC(AbstractObjective):
    """QRC(lambda) (Elelimy et al., 2025): Q(lambda) with regularised gradient corrections, epsilon-greedy.

    A prediction holds the values q of all actions, then as many h: what delta is expected to be after each action.
    With q_t, h_t those of the action chosen at t and m_t = max q_t:

        delta_t = y_t + discount_t m_t - q_{t-1}
        descend, for all parameters but the weights of h,
            -(delta_t z_q - h_{t-1} grad q_{t-1} - e_h (discount_t grad m_t - grad q_{t-1}))
        descend, for the weights of h,
            -(delta_t z_h - h_{t-1} grad h_{t-1} - regularisation h's weights)
        then z_q <- discount_t trace_decay c_t z_q + grad q_t, and so z_h with grad h_t and e_h with h_t

    These are their equations (26) to (28), one step late: delta of a step is known at the next, where grad m_t is that
    of the state read just now, and what belongs to the last action waits in the state. h is linear in the features
    that q reads; its error teaches its own weights alone and does not enter the cell (as in the first QRC; Ghiassian et
    al., 2020; the published code of QRC(lambda) gives h a network of its own). c_t cuts as in `QLambda`, before what is
    chosen now is added; the published code lets the error after an explored action go to all actions before it, and
    then clears the traces, its own gradient with them.

    `h_step_size` is the step size of h relative to the learner's (theirs: 0.1); each has an optimiser state of its own.
    `discount`, `trace_decay` and `exploration` as in `QLambda`. `regularisation` 0 is Q(lambda) with plain gradient
    corrections (TDC).

    Predictions: `Linear(features, 2 * actions)`; TypeError for another head, ValueError for another number. Exact where
    the credit rule is, but that sums hold gradients by weights that have changed since. No single eligibility
    multiplies delta: step-size rules that are told both refuse it. Cost: two pulls, and memory for one more gradient
    than `QLambda`, beside a second optimiser state.
    """

    discount: float = eqx.field(default=0.99, static=True)
    trace_decay: float = eqx.field(default=0.8, static=True)
    exploration: Schedule = eqx.field(default=0.05, static=True)
    regularisation: float = eqx.field(default=1.0, static=True)
    h_step_size: float = eqx.field(default=0.1, static=True)

    def __check_init__(self) -> None:
        require_discount("QRC", self.discount, self.trace_decay)
        require_schedule("QRC", self.exploration)
        if not self.regularisation >= 0:
            raise ValueError(f"QRC: regularisation must be at least 0, got {self.regularisation}")
        if not self.h_step_size > 0:
            raise ValueError(f"QRC: h_step_size must be positive, got {self.h_step_size}")

    @property
    def step_sizes(self) -> tuple[float, float]:
        """Of all parameters but the weights of h, and of these."""
        return 1.0, self.h_step_size

    def init(self, model: Model) -> QRCState:
        """No last action, and no parameter eligible. TypeError or ValueError for a head that does not fit."""
        self.actions(model.prediction_shape)
        if not isinstance(model.head, Linear):
            raise TypeError(f"QRC: h has weights of its own in a Linear head, got {type(model.head).__name__}")
        zero, none = jnp.zeros(()), nothing_eligible(model)
        return QRCState(zero, zero, none, none.head, none, none.head, zero, jnp.zeros((), jnp.int32))

    def actions(self, outputs: tuple[int, ...]) -> Actions:
        """One for each two numbers predicted."""
        return require_values("QRC", outputs, each=2)

    def choose(
        self, state: QRCState, prediction: Array, steps: Int[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[QRCState, Int[Array, ""]]:
        """A best action by q, or with probability `exploration` any."""
        q, _ = jnp.split(prediction, 2)
        action = epsilon_greedy(q, self.exploration, steps, key=key)
        return state._replace(action=action), action

    def step(
        self, state: QRCState, model: Model, prediction: Array, example: Step, pull: Callable[[Array], PyTree]
    ) -> tuple[QRCState, PyTree, Bool[Array, ""], Info]:
        """The update for the last action, and the new eligibilities."""
        q, h = jnp.split(prediction, 2)
        count, action, best = len(q), state.action, jnp.max(q)
        discount = example.discounted(self.discount)
        # An episode that starts here has no last action to correct.
        error = jnp.where(example.reset, 0.0, example.y + discount * best - state.q_tm1)
        regularisation = jnp.where(example.reset, 0.0, self.regularisation)

        grad_best = pull(one_hot(jnp.argmax(q), prediction))
        grad_q, grad_h = pull(one_hot(action, prediction)), pull(one_hot(count + action, prediction)).head

        of_q = pointwise(lambda z, g, m, d, h, e, gamma: -(d * z - h * g - e * (gamma * m - g)))
        of_h = pointwise(lambda z, g, w, d, h, beta: -(d * z - h * g - beta * w))
        corrections = (error, state.h_tm1, state.e_h, jnp.asarray(discount))
        main = jax.tree.map(lambda z, g, m: of_q(z, g, m, *corrections), state.z_q, state.grad_q, grad_best)
        its_own = jax.tree.map(
            lambda z, g, w: of_h(z, g, w, error, state.h_tm1, regularisation),
            state.z_h,
            state.grad_h,
            _rows_of_h(model, count),
        )
        gradient = main, eqx.tree_at(lambda m: m.head, jax.tree.map(jnp.zeros_like, main), its_own)

        fade = discount * self.trace_decay * (value_of(q, action) >= best)
        q_t, h_t = value_of(q, action), value_of(h, action)
        after = QRCState(
            q_t,
            h_t,
            grad_q,
            grad_h,
            accumulated(state.z_q, fade, grad_q),
            accumulated(state.z_h, fade, grad_h),
            fade * state.e_h + h_t,
            action,
        )
        info = Info(prediction, 0.5 * jnp.square(error), delta=error, action=action)
        return after, gradient, jnp.asarray(True), info

    def grow(self, state: QRCState, model: Model) -> QRCState:
        """Old output weights stay eligible; the new stage starts with nothing."""
        none = nothing_eligible(model)
        grad_q, z_q = (grown_eligibility(old, none) for old in (state.grad_q, state.z_q))
        # A head alone grows as the head of a model does.
        head = lambda old: grown_eligibility(eqx.tree_at(lambda m: m.head, none, old), none).head
        return state._replace(grad_q=grad_q, z_q=z_q, grad_h=head(state.grad_h), z_h=head(state.z_h))


def _rows_of_h(model: Model, actions: int) -> PyTree:
    """The trainable arrays of the head, with 0 for those of q."""
    weights = eqx.filter(model, model.trainable()).head
    rows = lambda w: (jnp.arange(w.shape[0]) >= actions).reshape(-1, *[1] * (w.ndim - 1))
    return jax.tree.map(lambda w: jnp.where(rows(w), w, 0), weights)
