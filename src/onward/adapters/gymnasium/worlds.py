"""One environment, or several that move together, as rows [x, y, reset, discount] for a compiled step.

As an `AbstractEnvironment` does: one row for each beginning, with `reset` and y = 0, and one for each move, whose y is
its reward. The row that shows the end has a discount of 0, or of 1 where the episode was cut short; the action taken
there is not heard, and the next row begins the next episode.
"""

import abc
import math
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode

from onward.adapters.gymnasium.spaces import Doing, Observations, is_vector, name_of
from onward.errors import NotFinite, OnwardError

# What a row has besides the observation: y, reset, discount.
MORE = 3


class Ended(NamedTuple):
    """An episode that is over: of which environment, the sum of its rewards, and its moves."""

    stream: int
    total: float
    length: int


class World(abc.ABC):
    """What is shown now, and the moves. `row` is (width + 3,), of parallel environments with a leading axis."""

    streams: int | None
    row: np.ndarray

    def __init__(self, env: Any, seen: Observations, doing: Doing):
        self._env, self._name = env, name_of(env)
        self.seen, self.doing = seen, doing
        self.moves = 0

    @property
    def env(self) -> Any:
        """The environment."""
        return self._env

    @abc.abstractmethod
    def begin(self, seed: int | None) -> None:
        """Start an episode, in each environment; `row` shows it."""

    @abc.abstractmethod
    def ended(self) -> list[Ended]:
        """The episodes whose end `row` shows."""

    @abc.abstractmethod
    def go(self, chosen: np.ndarray) -> None:
        """Do what was chosen (streams, numbers); where an episode was over, the next one begins."""

    @abc.abstractmethod
    def unfinished(self) -> tuple[float, int]:
        """The rewards and moves so far of the first environment's episode."""

    def _number(self, reward: Any) -> float:
        try:
            return float(reward)
        except (TypeError, ValueError):
            said = f"{reward!r:.80}"
            raise OnwardError(f"train: {self._name}, {self._when()}: its reward is {said}, not a number") from None

    def _refuse(self, error: Exception) -> OnwardError:
        return OnwardError(f"train: {self._name}, {self._when()}: its observation {error}")

    def _when(self) -> str:
        return f"move {self.moves:,}" if self.moves else "at its first observation"

    def _require_finite(self) -> None:
        # The sum is quicker to look at; it may be infinite where no number is.
        if math.isfinite(self.row.sum()) or np.isfinite(self.row).all():
            return
        rows = np.atleast_2d(self.row)
        stream, place = map(int, np.argwhere(~np.isfinite(rows))[0])
        width = rows.shape[1] - MORE
        what = "the reward" if place >= width else f"number {place} of the observation"
        where = f" of environment {stream}" if self.streams else ""
        raise NotFinite(
            f"train: {self._name}, {self._when()}: {what}{where} is {rows[stream, place]}, which was not learned "
            "from. Put it right in the environment, or in a wrapper around it"
        )


class One(World):
    """A single environment."""

    streams = None

    def __init__(self, env: Any):
        super().__init__(env, Observations(env, env.observation_space), Doing(env, env.action_space))
        self.row = np.zeros(self.seen.width + MORE, np.float32)
        self._over, self._total, self._length = False, 0.0, 0

    def begin(self, seed: int | None) -> None:
        """Start an episode, in each environment; `row` shows it."""
        self._show(self._env.reset(seed=seed)[0], 0.0, reset=True, discount=1.0)
        self._over, self._total, self._length = False, 0.0, 0

    def _show(self, seen: Any, reward: float, *, reset: bool, discount: float) -> None:
        row = self.row
        try:
            row[:-MORE] = self.seen.one(seen)
        except (TypeError, ValueError) as error:
            raise self._refuse(error) from error
        row[-MORE:] = reward, reset, discount
        self._require_finite()

    def ended(self) -> list[Ended]:
        """The episodes whose end `row` shows."""
        return [Ended(0, self._total, self._length)] if self._over else []

    def unfinished(self) -> tuple[float, int]:
        """The rewards and moves so far of the first environment's episode."""
        return self._total, self._length

    def go(self, chosen: np.ndarray) -> None:
        """Do what was chosen (streams, numbers); where an episode was over, the next one begins."""
        if self._over:
            self.begin(None)
            return
        self.moves += 1
        seen, reward, ended, cut, _ = self._env.step(self.doing.one(chosen))
        reward = self._number(reward)
        self._show(seen, reward, reset=False, discount=0.0 if ended else 1.0)
        self._over = bool(ended or cut)
        self._total += reward
        self._length += 1


class Many(World):
    """Parallel environments: after an end, a step of theirs starts the next episode."""

    def __init__(self, env: Any):
        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.NEXT_STEP.value):
            said = "says no autoreset_mode" if mode is None else f"has autoreset_mode {getattr(mode, 'value', mode)}"
            raise OnwardError(
                f"train: the vector environment {name_of(env)} {said}; learning needs the last observation of an "
                "episode and the first of the next one in two steps: make it with "
                "autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP (of gymnasium.make_vec in vector_kwargs)"
            )
        seen = Observations(env, env.single_observation_space, env.observation_space)
        super().__init__(env, seen, Doing(env, env.single_action_space))
        n = self.streams = int(env.num_envs)
        self.row = np.zeros((n, self.seen.width + MORE), np.float32)
        self._over, self._totals, self._lengths = np.zeros(n, bool), np.zeros(n), np.zeros(n, int)

    def begin(self, seed: int | None) -> None:
        """Start an episode, in each environment; `row` shows it."""
        n = len(self.row)
        self._over, self._totals, self._lengths = np.zeros(n, bool), np.zeros(n), np.zeros(n, int)
        self._show(self._env.reset(seed=seed)[0], np.zeros(n), np.ones(n, bool), np.ones(n))

    def _show(self, seen: Any, rewards: np.ndarray, resets: np.ndarray, discounts: np.ndarray) -> None:
        rows = self.row
        try:
            rows[:, :-MORE] = self.seen.many(seen)
        except (TypeError, ValueError) as error:
            raise self._refuse(error) from error
        rows[:, -3], rows[:, -2], rows[:, -1] = rewards, resets, discounts
        self._require_finite()

    def ended(self) -> list[Ended]:
        """The episodes whose end `row` shows."""
        if not self._over.any():
            return []
        which = np.flatnonzero(self._over).tolist()
        return [Ended(i, float(self._totals[i]), int(self._lengths[i])) for i in which]

    def unfinished(self) -> tuple[float, int]:
        """The rewards and moves so far of the first environment's episode."""
        return float(self._totals[0]), int(self._lengths[0])

    def go(self, chosen: np.ndarray) -> None:
        """Do what was chosen (streams, numbers); where an episode was over, the next one begins."""
        fresh = self._over
        self.moves += 1
        seen, rewards, ended, cut, _ = self._env.step(self.doing.many(chosen))
        rewards = np.where(fresh, 0.0, rewards)
        self._totals = np.where(fresh, 0.0, self._totals) + rewards
        self._lengths = np.where(fresh, 0, self._lengths + 1)
        self._over = np.logical_or(ended, cut) & ~fresh
        self._show(seen, rewards, fresh, np.where(np.asarray(ended) & ~fresh, 0.0, 1.0))


def world_of(env: Any) -> World:
    """An environment, or a vector environment, as rows."""
    return Many(env) if is_vector(env) else One(env)
