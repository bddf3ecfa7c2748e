"""Targets that come some steps after the prediction they judge."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from onward.cells.base import require_size
from onward.learners.base import AbstractLearner, compiled, inside
from onward.learners.online import Online, OnlineState
from onward.model import Model
from onward.objectives.supervised import Supervised
from onward.trees import remember
from onward.types import Info, PyTree, Step


class LateState(NamedTuple):
    """The learner's state, the predictions it was told of, and the states behind those that wait."""

    online: OnlineState
    age: Array
    rings: PyTree

    @property
    def model(self) -> Model:
        """The network as it is now."""
        return self.online.model

    @property
    def stats(self) -> PyTree:
        """The running moments of the cell."""
        return self.online.stats


class Late(AbstractLearner):
    """An `Online` learner whose targets come `delay` steps late: learn, then read.

    `y` and `weight` of a step belong to the prediction that was made `delay` steps before it; the model learns from
    them first, and then reads `x` and predicts. The state and the credit of every prediction that waits are kept
    (`delay` times both; for a delay of 1 nothing, for there the last state is the one), so the gradient is the one
    that the rule had then, with the head and the error of now. The first `delay` steps have no prediction to learn
    from. Exact or biased as `online` is, and as weights that changed in between are. Only targets of `Supervised` can
    come late: TypeError for other objectives, ValueError for a delay that is no whole number of at least 1.
    """

    online: Online
    delay: int = eqx.field(default=1, static=True)

    def __check_init__(self) -> None:
        if not isinstance(self.online, Online):
            raise TypeError(f"Late takes an Online learner, got {type(self.online).__name__}")
        require_size("Late", delay=self.delay)
        if not isinstance(self.online.objective, Supervised):
            name = type(self.online.objective).__name__
            raise TypeError(f"Late: only targets of Supervised can come late, not those of {name}")

    def init(self, model: Model, example: Step, *, key: PRNGKeyArray) -> LateState:  # type: ignore[override]
        """Start of the stream; `example` gives shapes only."""
        return self._start(self.online.init(model, example, key=key))

    def _start(self, online: OnlineState) -> LateState:
        """Nothing waits."""
        ring = lambda a: jnp.zeros((self.delay, *a.shape), a.dtype)
        rings = jax.tree.map(ring, (online.carry, online.credit)) if self.delay > 1 else ()
        return LateState(online, jnp.zeros((), jnp.int32), rings)

    @compiled
    def read(
        self, state: LateState, x: Float[Array, "*streams inputs"], reset: Bool[Array, "*streams"] | bool = False
    ) -> tuple[LateState, Array]:
        """`Online.read`. A prediction waits for its target from the next `learn` on."""
        online, prediction = inside(Online.read)(self.online, state.online, x, reset)
        return state._replace(online=online), prediction

    @compiled
    def learn(self, state: LateState, example: Step) -> tuple[LateState, Info]:
        """`Online.learn` at the state behind the prediction that was the present one `delay - 1` calls ago.

        `info.prediction` is that of the weights of now at that state.
        """
        online, age, rings = state
        now = (online.carry, online.credit)
        then = now
        if self.delay > 1:
            kept = [remember(ring, age, a) for ring, a in zip(*map(jax.tree.leaves, (rings, now)), strict=True)]
            rings, then = (jax.tree.unflatten(jax.tree.structure(now), part) for part in zip(*kept, strict=True))
        weight = jnp.where(age >= self.delay, example.weight, 0)
        steps = online.steps - (self.delay - 1)
        past = online._replace(carry=then[0], credit=then[1], steps=steps)
        judged, info = inside(Online.learn)(self.online, past, example._replace(weight=weight))
        after = online._replace(model=judged.model, optimiser=judged.optimiser)
        return LateState(after, age + 1, rings), info

    @compiled
    def step(self, state: LateState, example: Step) -> tuple[LateState, Info]:  # type: ignore[override]
        """`learn` from the target of an earlier prediction, then `read`: the loss of that, the prediction of now."""
        state, info = inside(Late.learn)(self, state, example)
        state, prediction = inside(Late.read)(self, state, example.x, example.reset)
        return state, Info(prediction, info.loss)

    def grow(self, state: LateState, example: Step) -> LateState:
        """`Online.grow`; predictions that wait are not learned from."""
        return self._start(self.online.grow(state.online, example))
