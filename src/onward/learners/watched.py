"""Rules that ride along to be compared."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from onward.cells.base import AbstractCell
from onward.credit.base import AbstractCredit, AbstractKernel, Kind
from onward.credit.rtrl import RTRL
from onward.learners.base import AbstractLearner
from onward.learners.online import Online, OnlineState
from onward.model import Model
from onward.objectives.base import AbstractObjective
from onward.types import Actions, Carry, Info, PyTree, Step


class Watched(AbstractLearner):
    """An `Online` learner, and credit rules that ride along: they see what its cell does and train nothing.

    At each step the gradient of its own rule and that of each of `rules` are compared with the exact one, on the same
    cotangent (of an objective with several, on all together as one long gradient): `info.alignment` holds an array
    (cosine, norm ratio, 1 if there was a gradient) for its own rule first. What is learned is what `online` learns.
    Cost: that of all those rules, and of exact `RTRL`. The state is that of `Online`; its `credit` holds one of each
    rule: its own, the exact one, the others.
    """

    online: Online
    rules: tuple[AbstractCredit, ...]

    def __check_init__(self) -> None:
        if not isinstance(self.online, Online):
            raise TypeError(
                f"Watched takes an Online learner, got {type(self.online).__name__}; rules are not watched where "
                "targets come late"
            )
        for rule in self.rules:
            if not isinstance(rule, AbstractCredit):
                raise TypeError(f"Watched: rules must be credit rules, got {rule!r}")

    @property
    def _together(self) -> Online:
        rules = _Together((self.online.credit, RTRL(), *self.rules))
        return dataclasses.replace(self.online, credit=rules, objective=_Compared(self.online.objective))

    def init(self, model: Model, example: Step, *, key: PRNGKeyArray) -> OnlineState:  # type: ignore[override]
        """Start of the stream; `example` gives shapes only."""
        return self._together.init(model, example, key=key)

    def read(
        self, state: OnlineState, x: Float[Array, "*streams inputs"], reset: Bool[Array, "*streams"] | bool = False
    ) -> tuple[OnlineState, Array]:
        """`Online.read`; all rules move on."""
        return self._together.read(state, x, reset)

    def choose(self, state: OnlineState, prediction: Array) -> tuple[OnlineState, Array | None]:
        """`Online.choose`."""
        return self._together.choose(state, prediction)

    def actions(self, model: Model) -> Actions | None:
        """`Online.actions`."""
        return self.online.actions(model)

    def learn(self, state: OnlineState, example: Step) -> tuple[OnlineState, Info]:
        """`Online.learn`, with `info.alignment`."""
        return self._together.learn(state, example)

    def step(self, state: OnlineState, example: Step) -> tuple[OnlineState, Info]:  # type: ignore[override]
        """`Online.step`, with `info.alignment`."""
        return self._together.step(state, example)

    def grow(self, state: OnlineState, example: Step) -> OnlineState:
        """`Online.grow`; all rules start anew."""
        return self._together.grow(state, example)


class _Together(AbstractCredit):
    """Several rules over one cell."""

    kind: ClassVar[Kind] = "biased"
    rules: tuple[AbstractCredit, ...]

    def on(self, cell: AbstractCell) -> "_Kernels":
        return _Kernels(tuple(rule.on(cell) for rule in self.rules))


class _Kernels(AbstractKernel[tuple[PyTree, ...]]):
    """The kernels of several rules, moved by the first. `pull` gives the gradients of all."""

    kind: ClassVar[Kind] = "biased"
    kernels: tuple[AbstractKernel[Any], ...]

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> tuple[PyTree, ...]:
        own, *others = self.kernels
        keys = [None if key is None else jax.random.fold_in(key, i) for i in range(1, len(self.kernels))]
        return (own.init(x, key=key), *(kernel.init(x, key=k) for kernel, k in zip(others, keys, strict=True)))

    def advance(
        self, carry: Carry, x: Array, state: tuple[PyTree, ...], *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, tuple[PyTree, ...]]:
        pairs = zip(self.kernels, state, strict=True)
        after, states = zip(*[kernel.advance(carry, x, s, key=key) for kernel, s in pairs], strict=True)
        return after[0], states

    def pull(self, state: tuple[PyTree, ...], cotangent: PyTree) -> tuple[PyTree, ...]:
        return tuple(kernel.pull(s, cotangent) for kernel, s in zip(self.kernels, state, strict=True))


class _Compared(AbstractObjective):
    """An objective over `_Together`: it descends the first gradient, and says how each lies to the second."""

    objective: AbstractObjective

    def init(self, model: Model) -> PyTree:
        return self.objective.init(model)

    def step(
        self, state: PyTree, model: Model, prediction: Array, example: Step, pull: Callable[[Array], PyTree]
    ) -> tuple[PyTree, PyTree, Bool[Array, ""], Info]:
        pulled: list[list[PyTree]] = []

        def own(cotangent: Array) -> PyTree:
            gradient = pull(cotangent)
            pulled.append(gradient.cell)
            return Model(gradient.cell[0], gradient.head)

        state, gradient, learn, info = self.objective.step(state, model, prediction, example, own)
        # What was pulled for several cotangents counts as one gradient.
        own_of, exact, *others = zip(*pulled, strict=True)
        return state, gradient, learn, info._replace(alignment=tuple(_compare(g, exact) for g in (own_of, *others)))

    def choose(
        self, state: PyTree, prediction: Array, steps: Array, *, key: PRNGKeyArray
    ) -> tuple[PyTree, Array | None]:
        return self.objective.choose(state, prediction, steps, key=key)

    def actions(self, outputs: tuple[int, ...]) -> Actions | None:
        return self.objective.actions(outputs)

    @property
    def step_sizes(self) -> tuple[float, ...] | None:
        return self.objective.step_sizes

    def eligibility(self, state: PyTree, prediction: Array, pull: Callable[[Array], PyTree], delta: Array) -> PyTree:
        def own(cotangent: Array) -> PyTree:
            gradient = pull(cotangent)
            return Model(gradient.cell[0], gradient.head)

        return self.objective.eligibility(state, prediction, own, delta)

    def grow(self, state: PyTree, model: Model) -> PyTree:
        return self.objective.grow(state, model)


def _compare(gradient: PyTree, exact: PyTree) -> Float[Array, "3"]:
    """Cosine, norm ratio, and whether the exact gradient is not zero (0, 0, 0 where it is)."""
    dot = lambda a, b: sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    size, length = jnp.sqrt(dot(gradient, gradient)), jnp.sqrt(dot(exact, exact))
    there = length > 0
    cosine = dot(gradient, exact) / jnp.where((size > 0) & there, size * length, 1)
    return jnp.stack([cosine, size / jnp.where(there, length, 1), jnp.ones_like(cosine)]) * there
