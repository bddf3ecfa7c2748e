"""An observation that says what was done."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from onward.parts import AbstractPart
from onward.tasks.base import AbstractTask
from onward.types import Actions, PyTree, Step


class LastActionState(NamedTuple):
    """The state of the task, and the last action."""

    task: PyTree
    action: Array


class WithLastAction(AbstractTask):
    """A task whose observation ends with the last action and the reward that came of it.

    x = [x of the task, action, y]: the action one-hot if it is a choice, else its numbers; both are 0 where an episode
    starts, which of choices can be told by it. A bandit cannot be played without. `reward=False` leaves y out: what is
    to be remembered cannot be found by trying then. Wrap the task first, then this:
    `Streams(WithLastAction(task), count)`, `Normalised(WithLastAction(task))` normalises what is added too;
    `WithLastAction(Normalised(task))` does not. TypeError for a task that hears no action.

    >>> from onward import MultiarmedBandit, WithLastAction
    >>> WithLastAction(MultiarmedBandit()).inputs
    13
    """

    task: AbstractTask
    reward: bool = eqx.field(default=True, static=True)

    def __check_init__(self) -> None:
        if not isinstance(self.task, AbstractPart) or self.task.actions is None:
            raise TypeError(f"WithLastAction takes a task that hears actions, {type(self.task).__name__} does not")

    @property
    def inputs(self) -> int:
        """Those of the task, the action's, and the reward's."""
        return self.task.inputs + self._numbers() + self.reward

    @property
    def actions(self) -> Actions | None:
        """Those of the task."""
        return self.task.actions

    def _numbers(self) -> int:
        """Numbers that say an action."""
        actions = self.task.actions
        assert actions is not None
        return actions if isinstance(actions, int) else math.prod(actions)

    def references(self) -> dict[str, float]:
        """Exact levels of the task within."""
        levels: dict[str, float] = self.task.references()  # type: ignore[attr-defined]
        return levels

    def init(self, key: PRNGKeyArray) -> LastActionState:
        """The task's start; nothing done."""
        choice = isinstance(self.task.actions, int)
        nothing = jnp.zeros((), jnp.int32) if choice else jnp.zeros(self.task.actions)
        return LastActionState(self.task.init(key), nothing)

    def act(self, state: LastActionState, action: Array) -> LastActionState:
        """The task is told, and the action kept."""
        return LastActionState(self.task.act(state.task, action), jnp.asarray(action, state.action.dtype))

    def emit(self, state: LastActionState) -> tuple[LastActionState, Step]:
        """The task's next step, with what was done before it. TypeError for several streams, or for sequences."""
        task, step = self.task.emit(state.task)
        if not isinstance(step, Step) or jnp.ndim(step.x) != 1:
            raise TypeError(
                f"WithLastAction takes a task of single steps, {type(self.task).__name__} emits others; "
                "several streams are made of it: Streams(WithLastAction(task), count)"
            )
        choice = isinstance(self.task.actions, int)
        done = jnp.arange(self._numbers()) == state.action if choice else state.action.reshape(-1)
        said = done.astype(step.x.dtype)
        if self.reward:
            said = jnp.append(said, jnp.asarray(step.y, step.x.dtype))
        return state._replace(task=task), step._replace(x=jnp.concatenate([step.x, jnp.where(step.reset, 0.0, said)]))
