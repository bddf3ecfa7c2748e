"""A task of ours as an environment of Gymnasium."""

from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Float

from onward.devices import must_compute
from onward.tasks.base import AbstractTask
from onward.tasks.environment import Episode
from onward.types import PyTree, Step


class TaskEnv(gymnasium.Env):
    """A task that hears actions (`MemoryChain`, any `AbstractEnvironment`) as an environment of Gymnasium.

    >>> import onward as ow
    >>> from onward.adapters.gymnasium import TaskEnv
    >>> env = TaskEnv(ow.MemoryChain(3))
    >>> seen, _ = env.reset(seed=0)
    >>> seen.shape, env.action_space
    ((3,), Discrete(2))
    >>> [env.step(0)[2] for _ in range(3)]
    [False, False, True]

    Observations are a Box of `task.inputs` floats without bounds, actions `Discrete(n)`, or a Box without bounds. The
    task's `limit` truncates. Episodes are drawn from the seed of `reset`, and from then on one after another. Compiled
    once for all environments of a task; each step is then a compiled call. It does not render.

    Raises TypeError for a task without actions, or without episodes; ValueError for an action that there is not;
    RuntimeError for a step where there is no episode.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, task: AbstractTask):
        must_compute()
        name, actions = type(task).__name__, task.actions
        if actions is None:
            raise TypeError(f"TaskEnv needs a task that hears actions, {name} has none; MemoryChain is one")
        step = eqx.filter_eval_shape(lambda: task.emit(task.init(jax.random.key(0)))[1])
        if not isinstance(step, Step) or not isinstance(step.truth, Episode):
            raise TypeError(f"TaskEnv needs a task of episodes, whose truth is an Episode; {name} has another")
        self.task = task
        self.observation_space = spaces.Box(-np.inf, np.inf, (task.inputs,), np.float32)
        self.action_space: Any = (
            spaces.Discrete(actions) if isinstance(actions, int) else spaces.Box(-np.inf, np.inf, actions, np.float32)
        )
        self._arrays, self._rest = eqx.partition(task, eqx.is_array)
        self._state: PyTree = None
        self._over = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float[np.ndarray, " inputs"], dict[str, Any]]:
        """A new episode: with the seed always the same. `options` are not used."""
        super().reset(seed=seed)
        drawn = np.uint32(self.np_random.integers(2**32, dtype=np.uint64))
        self._state, said = _begun(self._arrays, self._rest, drawn)
        self._over = False
        return np.array(said)[:-3], {}

    def step(self, action: Any) -> tuple[Float[np.ndarray, " inputs"], float, bool, bool, dict[str, Any]]:
        """What is seen after an action, its reward, and whether the episode ended, or was truncated."""
        if self._state is None or self._over:
            what = "the episode is over" if self._over else "there is no episode yet"
            raise RuntimeError(f"{type(self.task).__name__}: {what}; call reset() first")
        space = self.action_space
        given = np.asarray(action)
        if isinstance(space, spaces.Discrete):
            fits = given.shape == () and np.issubdtype(given.dtype, np.integer) and 0 <= given < space.n
        else:
            fits = given.shape == space.shape and bool(np.isfinite(given).all())
        if not fits:
            allowed = f"0 to {space.n - 1}" if isinstance(space, spaces.Discrete) else f"numbers of shape {space.shape}"
            raise ValueError(f"{type(self.task).__name__}: an action is {allowed}, got {action!r:.80}")
        dtype = np.int32 if isinstance(space, spaces.Discrete) else np.float32
        self._state, said = _moved(self._arrays, self._rest, self._state, given.astype(dtype))
        said = np.array(said)
        over, discount = bool(said[-2]), float(said[-1])
        self._over = over
        return said[:-3], float(said[-3]), over and discount == 0, over and discount != 0, {}


def _shown(task: AbstractTask, state: PyTree) -> tuple[PyTree, Array]:
    """The task, and in one array what is seen, the reward, whether the episode is over, and the discount."""
    after, emitted = task.emit(state)
    step: Any = emitted
    more = (step.y, step.truth.over, 1.0 if step.discount is None else step.discount)
    return after, jnp.concatenate([step.x, jnp.stack([jnp.asarray(each, jnp.float32) for each in more])])


@partial(jax.jit, static_argnums=1)
def _begun(arrays: PyTree, rest: AbstractTask, seed: Array) -> tuple[PyTree, Array]:
    task = eqx.combine(arrays, rest)
    return _shown(task, task.init(jax.random.key(seed)))


@partial(jax.jit, static_argnums=1)
def _moved(arrays: PyTree, rest: AbstractTask, state: PyTree, action: Array) -> tuple[PyTree, Array]:
    task = eqx.combine(arrays, rest)
    return _shown(task, task.act(state, action))
