"""Episodes of a world that answers to actions."""

import abc
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from onward import random
from onward.tasks.base import AbstractTask
from onward.trees import select
from onward.types import Actions, PyTree, Step

World = TypeVar("World")


class Draw(NamedTuple):
    """The random numbers of one moment; each `lane` is another."""

    seed: UInt32[Array, "2"]
    step: Int[Array, ""]

    def uniform(self, lane: random.Lane = 0) -> Float[Array, "*n"]:
        """In [0, 1), on a grid of 2^-24; an array of lanes gives as many."""
        return random.uniform(self.seed, self.step, lane)

    def integer(self, low: int, high: int, lane: random.Lane = 0) -> Int[Array, "*n"]:
        """Uniform on low..high, both included."""
        return random.integer(self.seed, self.step, lane, low, high)

    def permutation(self, size: int, lane: int = 0) -> Int[Array, " size"]:
        """0 to size - 1 in random order: it takes lanes `lane` to lane + size - 1."""
        lanes = jnp.uint32(lane) + jnp.arange(size, dtype=jnp.uint32)
        return jnp.argsort(random.bits(self.seed, self.step, lanes)).astype(jnp.int32)

    def key(self, lane: int = 0) -> PRNGKeyArray:
        """A key for `jax.random`, which has more distributions and costs more."""
        lanes = jnp.uint32(2 * lane) + jnp.arange(2, dtype=jnp.uint32) + jnp.uint32(1 << 20)
        return jax.random.wrap_key_data(random.bits(self.seed, self.step, lanes))


class EnvironmentState(NamedTuple):
    """The world, and what the next emission says of the last action.

    `fresh`: an episode starts; `over`: it ended, or was cut short (`cut`). `length` and `total` are of this episode.
    """

    seed: UInt32[Array, "2"]
    step: Int[Array, ""]
    world: PyTree
    reward: Float[Array, ""]
    fresh: Bool[Array, ""]
    over: Bool[Array, ""]
    cut: Bool[Array, ""]
    length: Int[Array, ""]
    total: Float[Array, ""]


class Episode(NamedTuple):
    """What an environment emits as `truth`: the rewards and steps of this episode so far, and whether it is over."""

    total: Float[Array, ""]
    length: Int[Array, ""]
    over: Bool[Array, ""]


class AbstractEnvironment(AbstractTask, Generic[World]):
    """A world that begins, shows itself, and moves by actions: one `Step` for each beginning and for each move.

    Say `inputs` and `actions`, and write `begin`, `move` and `observe`; all are pure and run inside the compiled loop.
    The first step of an episode has `reset`, and y = 0; each after it shows the world after the last action, with its
    reward as y. The step that shows the end has a `discount` of 0, and the action taken there is not heard. An episode
    of `limit` moves is cut short: its last step has a discount of 1, so that what would have followed counts.
    """

    @property
    @abc.abstractmethod
    def actions(self) -> Actions:
        """So many choices, 0 and up; or real numbers of this shape."""

    @property
    def limit(self) -> int | None:
        """Moves after which an episode is cut short. Default: None, never."""
        return None

    @abc.abstractmethod
    def begin(self, draw: Draw) -> World:
        """The world at the start of an episode; `draw` gives random numbers."""

    @abc.abstractmethod
    def move(self, world: World, action: Array, draw: Draw) -> tuple[World, Array | float, Array | bool]:
        """The world after an action, the reward for it, and whether the episode has ended with it."""

    @abc.abstractmethod
    def observe(self, world: World) -> Float[Array, " inputs"]:
        """What is seen of the world."""

    def init(self, key: PRNGKeyArray) -> EnvironmentState:
        """Before the first step of the first episode."""
        return self._begun(random.seed_of(key), jnp.zeros((), jnp.int32))

    def _begun(self, seed: UInt32[Array, "2"], step: Int[Array, ""]) -> EnvironmentState:
        false, zero = jnp.zeros((), bool), jnp.zeros(())
        world = jax.tree.map(jnp.asarray, self.begin(Draw(seed, step)))
        return EnvironmentState(seed, step, world, zero, ~false, false, false, jnp.zeros((), jnp.int32), zero)

    def emit(self, state: EnvironmentState) -> tuple[EnvironmentState, Step]:
        """The world as it is now; `truth` is an `Episode`."""
        ended = jnp.where(state.over & ~state.cut, 0.0, 1.0)
        x = jnp.asarray(self.observe(state.world), jnp.float32)
        truth = Episode(state.total, state.length, state.over)
        return state._replace(fresh=jnp.zeros((), bool)), Step(x, state.reward, 1.0, state.fresh, truth, ended)

    def act(self, state: EnvironmentState, action: Array) -> EnvironmentState:
        """The state after an action; after the end of an episode that of the next one's beginning.

        Raises TypeError for an action of another kind or shape, and ValueError for a choice that there is not or a
        number that is not finite; within a compiled program, where its value is not known, only by kind and shape.
        """
        require_action(type(self).__name__, self.actions, action)
        step = state.step + 1
        world, reward, ended = self.move(state.world, action, Draw(state.seed, step))
        reward, length = jnp.asarray(reward, jnp.float32), state.length + 1
        ended = jnp.asarray(ended, bool)
        cut = jnp.zeros((), bool) if self.limit is None else ~ended & (length >= self.limit)
        world = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), world, state.world)
        moved = state._replace(
            step=step,
            world=world,
            reward=reward,
            over=ended | cut,
            cut=cut,
            length=length,
            total=state.total + reward,
        )
        return select(state.over, self._begun(state.seed, step), moved)


def require_action(owner: str, actions: Actions, action: Array) -> None:
    """Refuse what is no action of these."""
    chosen = jnp.asarray(action)
    kind, shape = (jnp.integer, ()) if isinstance(actions, int) else (jnp.floating, actions)
    wanted = f"a whole number from 0 to {actions - 1}" if isinstance(actions, int) else f"real numbers of shape {shape}"
    if not jnp.issubdtype(chosen.dtype, kind) or chosen.shape != shape:
        got = f"shape {chosen.shape} of type {chosen.dtype}"
        raise TypeError(f"{owner}: an action is {wanted}, got an array of {got}")
    if isinstance(chosen, jax.core.Tracer):
        return
    good = 0 <= int(chosen) < actions if isinstance(actions, int) else bool(np.isfinite(np.asarray(chosen)).all())
    if not good:
        raise ValueError(f"{owner}: an action is {wanted}, got {chosen}")
