"""Observations and rewards of running unit size."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.moments import Moments, MomentState
from onward.parts import AbstractPart
from onward.tasks.base import AbstractTask
from onward.tasks.environment import Episode
from onward.types import Actions, PyTree, Step

# Averages over nearly all that was seen, with no floor that matters.
OF_OBSERVATIONS = Moments(rate=0.999999, floor=1e-8, prior=0.0)
OF_RETURNS = Moments(rate=0.999999, floor=1e-8, prior=1.0)


class ReturnState(NamedTuple):
    """The discounted sum of rewards so far in this episode, and its moments over all episodes."""

    sum: Float[Array, ""]
    moments: MomentState


class ReturnScale(AbstractPart):
    """Divide rewards by the running deviation of their discounted sum (Engstrom et al., 2020; Elsayed et al., 2024).

        R <- discount R + r,  anew where an episode starts;    r / sqrt(running variance of R)

    The mean of R is followed, for the variance, and not taken off: that would change which policy is best. ValueError
    for a discount outside [0, 1).
    """

    discount: float = eqx.field(default=0.99, static=True)
    moments: Moments = eqx.field(default=OF_RETURNS, static=True)

    def __check_init__(self) -> None:
        if not 0 <= self.discount < 1:
            raise ValueError(f"ReturnScale: discount must be in [0, 1), got {self.discount}")

    def init(self) -> ReturnState:
        """No reward yet; a variance of 1."""
        return ReturnState(jnp.zeros(()), self.moments.init(jnp.zeros(1)))

    def update(self, state: ReturnState, reward: Array, reset: Array | bool = False) -> ReturnState:
        """The state after one more reward; `reset`: with it an episode starts."""
        total = jnp.where(reset, 0.0, self.discount * state.sum) + reward
        # One value that is no number must not stay in the sum for ever.
        kept = jnp.where(jnp.isfinite(total), total, state.sum)
        return ReturnState(kept, self.moments.update(state.moments, total[None]))

    def __call__(self, state: ReturnState, reward: Array) -> Array:
        """The reward in units of the deviation of now."""
        return reward * state.moments.scale[0]


class NormalisedState(NamedTuple):
    """The state of the task, and of what normalises it (None: nothing does)."""

    task: PyTree
    observations: MomentState | None
    rewards: ReturnState | None


class Normalised(AbstractTask):
    """A stream whose observations have mean 0 and variance 1, and whose rewards are divided by a running deviation.

    `observations`: running moments of each number of x, of the value that is normalised too, as streaming methods do
    (None: as they are). `rewards`: `ReturnScale` for y and with it `truth`, which are then in units of the deviation of
    now (None: as they are); the `Episode` of a world that is acted in stays in units of the task. Both go on over
    episodes. With the default moments a number that was constant for n steps and then is another is sqrt(n) deviations
    off: their `floor` bounds that. A value that is not finite changes no moment and is passed on. For tasks of steps,
    not of sequences; cells that normalise their own inputs (`normalise_inputs`) need no wrapper.

    >>> import jax
    >>> from onward import Normalised, ReturnScale, TracePatterning
    >>> task = Normalised(TracePatterning(), rewards=ReturnScale(0.9))
    >>> task.emit(task.init(jax.random.key(0)))[1].x.shape
    (12,)
    """

    task: AbstractTask
    observations: Moments | None = eqx.field(default=OF_OBSERVATIONS, static=True)
    rewards: ReturnScale | None = None

    @property
    def inputs(self) -> int:
        """Those of the task."""
        return self.task.inputs

    def init(self, key: PRNGKeyArray) -> NormalisedState:
        """The task's start; nothing seen."""
        seen = None if self.observations is None else self.observations.init(jnp.zeros(self.inputs))
        return NormalisedState(self.task.init(key), seen, None if self.rewards is None else self.rewards.init())

    @property
    def actions(self) -> Actions | None:
        """Those of the task."""
        return self.task.actions

    def act(self, state: NormalisedState, action: Array) -> NormalisedState:
        """The task is told."""
        return state._replace(task=self.task.act(state.task, action))

    def emit(self, state: NormalisedState) -> tuple[NormalisedState, Step]:
        """The task's next step, normalised with what it adds to the moments. TypeError for a task of sequences."""
        task, step = self.task.emit(state.task)
        if not isinstance(step, Step):
            raise TypeError(f"Normalised takes a task of steps, {type(self.task).__name__} emits {type(step).__name__}")
        seen, scale = state.observations, state.rewards
        if self.observations is not None and seen is not None:
            seen = self.observations.update(seen, step.x)
            step = step._replace(x=self.observations(seen, step.x))
        if self.rewards is not None and scale is not None:
            scale = self.rewards.update(scale, jnp.asarray(step.y), step.reset)
            step = step._replace(y=self.rewards(scale, jnp.asarray(step.y)))
            if step.truth is not None and not isinstance(step.truth, Episode):
                step = step._replace(truth=self.rewards(scale, jnp.asarray(step.truth)))
        return NormalisedState(task, seen, scale), step
