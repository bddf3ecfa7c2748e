"""From what an environment shows to numbers, and from what a learner chose to what an environment takes."""

import math
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import iterate

from onward.errors import OnwardError
from onward.types import Actions


def name_of(env: Any) -> str:
    """What an environment is called in messages."""
    spec = getattr(env, "spec", None)
    return spec.id if spec is not None else type(getattr(env, "unwrapped", env)).__name__


def _parts(space: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The simple spaces within, and where they are."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _parts(part, f"{place}[{key!r}]")
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space.spaces):
            yield from _parts(part, f"{place}[{i}]")
    else:
        yield place, space


class Observations:
    """Observations as vectors: one-hot where they are choices, end to end where there are several.

    Raises OnwardError for an image, and for what has no fixed number of values.
    """

    def __init__(self, env: Any, space: Any, whole: Any = None):
        """`whole`: the space of all parallel environments together; None: there is one."""
        self._name, self._space, self._whole = name_of(env), space, whole
        parts = list(_parts(space, "observation"))
        for place, part in parts:
            if isinstance(part, spaces.Box) and len(part.shape) > 1:
                raise OnwardError(
                    f"train: {self._name}: {place} is an image or a table of shape {part.shape}, and cells read "
                    "vectors: wrap the environment in gymnasium.wrappers.FlattenObservation to read it number by "
                    "number, or in gymnasium.wrappers.TransformObservation with a function that gives a vector"
                )
            if not part.is_np_flattenable:
                raise OnwardError(
                    f"train: {self._name}: {place} is a {type(part).__name__}, which has no fixed number of values: "
                    "wrap the environment in gymnasium.wrappers.TransformObservation with a function that gives a "
                    "vector"
                )
        self._parts = [part for _, part in parts]
        self.width = int(spaces.flatdim(space))
        self._plain = isinstance(space, spaces.Box) and len(space.shape) == 1

    def one(self, seen: Any) -> Any:
        """(width,) numbers. ValueError: the environment shows something else than it promised."""
        if self._plain:
            if np.shape(seen) != self._space.shape:
                raise ValueError(f"has the shape {np.shape(seen)}, its space says {self._space.shape}")
            return seen
        try:
            for value, part in zip(_values(self._space, seen), self._parts, strict=True):
                # A choice below the first would be taken for one from the end.
                if isinstance(part, spaces.Discrete) and not 0 <= value - part.start < part.n:
                    raise ValueError(f"{value} is not in {part}")
            flat: Any = spaces.flatten(self._space, seen)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"is not one of its space, {self._space} ({error})".replace("\n", " ")) from error
        if np.shape(flat) != (self.width,):
            raise ValueError(f"has {np.size(flat)} numbers, its space says {self.width}")
        return flat

    def many(self, seen: Any) -> Any:
        """(streams, width) numbers of parallel environments; ValueError as in `one`."""
        if self._plain:
            if np.shape(seen) != self._whole.shape:
                raise ValueError(f"has the shape {np.shape(seen)}, its space says {self._whole.shape}")
            return seen
        return np.stack([self.one(each) for each in iterate(self._whole, seen)])


def _values(space: Any, seen: Any) -> Iterator[Any]:
    """The values of the simple spaces within, in the order of `_parts`."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _values(part, seen[key])
    elif isinstance(space, spaces.Tuple):
        for part, value in zip(space.spaces, seen, strict=True):
            yield from _values(part, value)
    else:
        yield seen


class Doing:
    """What can be done in an environment, as an objective chooses it: one of so many, or real numbers of a shape.

    `actions`: so many choices, those of several (MultiDiscrete, MultiBinary) taken together; or the shape of a Box, to
    whose bounds numbers are clipped. Raises OnwardError for other spaces.
    """

    def __init__(self, env: Any, space: Any):
        self._space, self._name = space, name_of(env)
        self.actions: Actions
        counts: Any = None
        if isinstance(space, spaces.Discrete):
            self.actions = int(space.n)
        elif isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
            counts = space.nvec if isinstance(space, spaces.MultiDiscrete) else np.full(space.shape, 2)
            self.actions = math.prod(map(int, np.ravel(counts)))
        elif isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
            self.actions = tuple(space.shape)
        else:
            raise OnwardError(
                f"train: {self._name} takes actions of {space}; an objective chooses from Discrete, MultiDiscrete, "
                "MultiBinary or a Box of floats: wrap it in gymnasium.wrappers.TransformAction"
            )
        self._start = getattr(space, "start", 0)
        self._table: Any = None
        if counts is not None:
            self._counts = np.ravel(counts)

    def many(self, chosen: Any) -> Any:
        """Actions of parallel environments, of the choices (streams, numbers)."""
        space = self._space
        if isinstance(self.actions, tuple):
            return np.clip(chosen.reshape(-1, *self.actions), space.low, space.high).astype(space.dtype)
        which = chosen[:, 0].astype(np.int64)
        if not ((which >= 0) & (which < self.actions)).all():
            raise self._astray(which.tolist())
        if isinstance(space, spaces.Discrete):
            return which + int(space.start)
        if self._table is None:
            digits = np.unravel_index(np.arange(self.actions), self._counts)
            self._table = np.stack(digits, -1).reshape(-1, *space.shape).astype(space.dtype) + self._start
        return self._table[which].astype(space.dtype)

    def one(self, chosen: Any) -> Any:
        """The action of a single environment, of the choice (1, numbers)."""
        if not isinstance(self._space, spaces.Discrete):
            return self.many(chosen)[0]
        which = int(chosen[0, 0])
        if not 0 <= which < self._space.n:
            raise self._astray(which)
        return which + int(self._space.start)

    def _astray(self, chosen: Any) -> OnwardError:
        actions: Any = self.actions
        return OnwardError(f"train: {self._name}: the objective chose action {chosen}, there are 0 to {actions - 1}")


def is_vector(env: Any) -> bool:
    """Whether it is several environments that move together. TypeError: it is none of Gymnasium's."""
    if isinstance(env, gymnasium.vector.VectorEnv):
        return True
    if isinstance(env, gymnasium.Env):
        return False
    raise TypeError(
        f"train: an environment of Gymnasium is needed, got {type(env).__module__}.{type(env).__name__}; make one with "
        "gymnasium.make(...), or of a task with TaskEnv(task)"
    )
