"""Learning at every step of a stream that never ends."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from onward._tree import apply_scaled, select, when
from onward._types import Carry, Info, PyTree, Step
from onward.cells.cascade import Cascade
from onward.credit.base import AbstractCredit
from onward.learners.base import AbstractLearner
from onward.model import Model
from onward.objectives.base import AbstractObjective


class OnlineState(NamedTuple):
    """All that the next step needs."""

    model: Model
    carry: Carry
    credit: PyTree
    objective: PyTree
    optimiser: PyTree
    key: PRNGKeyArray
    steps: Array

    @property
    def stats(self) -> PyTree:
        """The running moments of the cell."""
        return self.carry.stats


class Online(AbstractLearner):
    """Predict, then learn, at every step: any credit rule, objective and optax optimiser.

    `step_size` multiplies the optimiser's update and is a traced value, so a sweep over it compiles
    once; give it as an array to vary it over parallel runs. `streams` (None: one stream, no axis)
    learns one model from many parallel streams: every array of an example then has a leading axis
    of that size, and gradients are averaged.
    """

    credit: AbstractCredit
    objective: AbstractObjective
    optimiser: optax.GradientTransformation = eqx.field(static=True)
    step_size: float | Float[Array, ""] = 1.0
    streams: int | None = eqx.field(default=None, static=True)

    def init(self, model: Model, example: Step, *, key: PRNGKeyArray) -> OnlineState:  # type: ignore[override]
        """Start of the stream. `example` gives shapes only."""
        credit_key, key = jax.random.split(key)
        one = example if self.streams is None else jax.tree.map(lambda a: a[0], example)
        if one.x.shape != (model.cell.inputs,):
            raise ValueError(f"the cell reads {model.cell.inputs} inputs, the stream has {one.x.shape}")
        stream = (model.init(), self.credit.init(model.cell, one.x, key=credit_key), self.objective.init(model))
        if self.streams is not None:
            stream = _copies(stream, self.streams)
        optimiser = self.optimiser.init(eqx.filter(model, model.trainable()))
        carry, credit, objective = stream
        return OnlineState(model, carry, credit, objective, optimiser, key, jnp.zeros((), jnp.int32))

    def step(self, state: OnlineState, example: Step) -> tuple[OnlineState, Info]:  # type: ignore[override]
        """One example (or one of each parallel stream)."""
        stream = (state.carry, state.credit, state.objective)
        key = jax.random.fold_in(state.key, state.steps)
        if self.streams is None:
            stream, gradient, learn, info = self._assign(state.model, stream, example, key)
        else:
            keys = jax.random.split(key, self.streams)
            assign = lambda s, e, k: self._assign(state.model, s, e, k)
            stream, gradient, learn, info = jax.vmap(assign)(stream, example, keys)
            gradient = jax.tree.map(lambda g: jnp.mean(g, 0), gradient)
            learn = jnp.any(learn)
        model, optimiser = self._update(state.model, state.optimiser, gradient, learn)
        carry, credit, objective = stream
        return OnlineState(model, carry, credit, objective, optimiser, state.key, state.steps + 1), info

    def _assign(self, model: Model, stream: Any, example: Step, key: PRNGKeyArray) -> Any:
        """Forward, predict, assign credit: everything of one stream but the update."""
        carry, credit, objective = stream
        fresh = (model.init().hidden, self.credit.init(model.cell, example.x, key=key), self.objective.init(model))
        hidden, credit, objective = select(example.reset, fresh, (carry.hidden, credit, objective))
        carry, credit = self.credit.advance(model.cell, Carry(hidden, carry.stats), example.x, credit, key=key)
        prediction, pullback = model.answer(carry, key=key)

        def pull(cotangent: Array) -> PyTree:
            head, hidden = pullback(cotangent)
            gradient = eqx.filter(model, jax.tree.map(lambda _: False, model))
            return eqx.tree_at(
                lambda m: (m.cell, m.head), gradient, (self.credit.pull(model.cell, credit, hidden), head)
            )

        objective, gradient, learn, info = self.objective.step(objective, model, prediction, example, pull)
        return (carry, credit, objective), gradient, learn, info

    def _update(self, model: Model, optimiser: PyTree, gradient: PyTree, learn: Array) -> tuple[Model, PyTree]:
        parameters, rest = eqx.partition(model, model.trainable())

        def update(operand: Any) -> Any:
            parameters, optimiser, gradient, step_size = operand
            updates, optimiser = self.optimiser.update(gradient, optimiser, parameters)
            parameters = apply_scaled(parameters, updates, step_size)
            return parameters, optimiser, gradient, step_size

        operand = (parameters, optimiser, gradient, jnp.asarray(self.step_size))
        parameters, optimiser, _, _ = when(learn, update, operand)
        return eqx.combine(parameters, rest), optimiser

    def grow(self, state: OnlineState, example: Step) -> OnlineState:
        """Freeze the live stage of a `Cascade` and add the next.

        Traces and the optimiser's moments start anew; the eligibility of output weights, the state
        of old stages and their running moments go on. Prediction is unchanged by growth itself.
        """
        if not isinstance(state.model.cell, Cascade):
            raise TypeError(f"only a Cascade grows, got {type(state.model.cell).__name__}")
        key, stage_key, credit_key = jax.random.split(state.key, 3)
        carry = state.carry
        if self.streams is None:
            cell, carry = state.model.cell.grow(carry, key=stage_key)
        else:  # one network for all streams: fold the mean of their moments into its weights
            stats = jax.tree.map(lambda a: jnp.broadcast_to(jnp.mean(a, 0), a.shape), carry.stats)
            grow = lambda c: state.model.cell.grow(c, key=stage_key)
            cells, carry = eqx.filter_vmap(grow)(Carry(carry.hidden, stats))
            cell = jax.tree.map(lambda a: a[0] if eqx.is_array(a) else a, cells)
        model = Model(cell, state.model.head.grow(cell.feature_count))
        one = example if self.streams is None else jax.tree.map(lambda a: a[0], example)
        credit = self.credit.init(cell, one.x, key=credit_key)
        objective = lambda o: self.objective.grow(o, model)
        if self.streams is not None:
            credit = _copies(credit, self.streams)
            objective = jax.vmap(objective)
        optimiser = self.optimiser.init(eqx.filter(model, model.trainable()))
        return OnlineState(model, carry, credit, objective(state.objective), optimiser, key, state.steps)


def _copies(tree: PyTree, size: int) -> PyTree:
    return jax.tree.map(lambda a: jnp.stack([a] * size), tree)
