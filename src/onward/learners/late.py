"""Targets that come some steps after the prediction they judge."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.interpreters.partial_eval import dce_jaxpr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from onward.batching import plain_kernels
from onward.cells.base import require_size
from onward.learners.base import AbstractLearner, compiled, inside
from onward.learners.online import Online, OnlineState
from onward.model import Model
from onward.objectives.supervised import Supervised
from onward.trees import remember
from onward.types import Carry, Info, PyTree, Step


class LateState(NamedTuple):
    """The learner's state, the predictions it was told of, and what a gradient needs of those that wait.

    `rings`: the last `delay` values of each leaf of (carry, credit) that it needs.
    """

    online: OnlineState
    age: Array
    rings: list[Array]

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
    them first, and then reads `x` and predicts. What a gradient needs of the state and the credit of every prediction
    that waits is kept (of an LSTM the sensitivities of the output, not of the cell; for a delay of 1 nothing, for there
    the last state is the one), so the gradient is the one that the rule had then, with the head and the error of now.
    The first `delay` steps have no prediction to learn from. Exact or biased as `online` is, and as weights that
    changed in between are. Memory: `delay` times what is kept, for exact columns about as many numbers as parameters.
    Only targets of `Supervised` can come late: TypeError for other objectives, ValueError for a delay that is no whole
    number of at least 1.
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
        leaves = jax.tree.leaves((online.carry, online.credit))
        rings = [jnp.zeros((self.delay, *leaves[i].shape), leaves[i].dtype) for i in self._needed(online)]
        return LateState(online, jnp.zeros((), jnp.int32), rings)

    def _needed(self, state: OnlineState) -> list[int]:
        """Which leaves of (carry, credit) a prediction and its gradient are made of. Nothing is computed."""
        if self.delay == 1:
            return []
        model, rule = state.model, self.online.credit.on(state.model.cell)
        predict = lambda key, carry: model.head(model.features(carry, key=key))
        of_stream = lambda function: self.online.each(function, state, state.steps)
        # What is not read for a prediction has no part in its gradient.
        used = jax.tree.unflatten(jax.tree.structure(state.carry), _used(of_stream(predict), state.carry))
        read = jax.tree.leaves(used.hidden)

        def judge(key: PRNGKeyArray, carry: Carry, credit: PyTree) -> PyTree:
            prediction, pullback = model.answer(carry, key=key)
            head, hidden = pullback(jax.tree.map(jnp.ones_like, prediction))
            cotangents, structure = jax.tree.flatten(hidden)

            def pull(of_read: list[Array]) -> PyTree:
                parts = iter(of_read)
                every = [next(parts) if is_read else a for a, is_read in zip(cotangents, read, strict=True)]
                return rule.pull(credit, jax.tree.unflatten(structure, every))

            of_read = [a for a, is_read in zip(cotangents, read, strict=True) if is_read]
            return prediction, head, jax.jvp(pull, (of_read,), (of_read,))[1]  # linear: itself, without the others

        used = _used(of_stream(judge), state.carry, state.credit)
        return [i for i, needed in enumerate(used) if needed]

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
        then, structure = jax.tree.flatten((online.carry, online.credit))
        needed, kept = self._needed(online), []
        for i, ring in zip(needed, rings, strict=True):
            ring, then[i] = remember(ring, age, then[i])
            kept.append(ring)
        carry, credit = jax.tree.unflatten(structure, then)
        weight = jnp.where(age >= self.delay, example.weight, 0)
        steps = online.steps - (self.delay - 1)
        past = online._replace(carry=carry, credit=credit, steps=steps)
        judged, info = inside(Online.learn)(self.online, past, example._replace(weight=weight))
        after = online._replace(model=judged.model, optimiser=judged.optimiser)
        return LateState(after, age + 1, kept), info

    @compiled
    def step(self, state: LateState, example: Step) -> tuple[LateState, Info]:  # type: ignore[override]
        """`learn` from the target of an earlier prediction, then `read`: the loss of that, the prediction of now."""
        state, info = inside(Late.learn)(self, state, example)
        state, prediction = inside(Late.read)(self, state, example.x, example.reset)
        return state, Info(prediction, info.loss)

    def grow(self, state: LateState, example: Step) -> LateState:
        """`Online.grow`; predictions that wait are not learned from."""
        return self._start(self.online.grow(state.online, example))


def _used(function: Callable[..., PyTree], *arguments: PyTree) -> list[bool]:
    """Of each array of the arguments: whether a result is made of it. Nothing is computed."""
    with plain_kernels():
        program = jax.make_jaxpr(function)(*arguments).jaxpr
    return dce_jaxpr(program, [True] * len(program.outvars))[1]
