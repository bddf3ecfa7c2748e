"""Learning at every step of a stream that never ends."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from onward import random
from onward.batching import tree_sum
from onward.cells.base import AbstractCell
from onward.credit.base import AbstractCredit
from onward.learners.base import (
    AbstractLearner,
    Rate,
    Told,
    compiled,
    descend,
    inside,
    require_scalar,
    start_optimiser,
    wants_told,
)
from onward.model import Model
from onward.objectives.base import AbstractObjective
from onward.trees import scaled, select, when
from onward.types import Actions, Carry, Info, PyTree, Step

Result = TypeVar("Result")
# Up to so many streams their gradients are added one by one.
UNROLLED = 64
# Sets the key of a choice apart from that of the reading.
CHOOSES = 1


class OnlineState(NamedTuple):
    """All that the next step needs. With `streams`, carry, credit and objective have a leading axis of that size.

    `steps` counts readings. A key of JAX's own type is in it, which `eqx.tree_serialise_leaves` cannot write;
    `onward.save` and `onward.load` take any state.
    """

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
    """Read, then learn, at every step: any credit rule, objective and optax optimiser.

    Two halves: `read` moves the cell on and predicts, `learn` is told what came of the last prediction and changes the
    weights; `step` is one after the other. An objective that acts has its say in between: `choose`. Predicting without
    learning is `read` alone. `Late` puts `learn` first, for targets that come late; `Watched` compares rules.

    `optimiser` is any optax transformation whose updates are to be added (`optax.adam(1e-3)`, `rms()`); those that
    want `value` or `grad` get the loss (with `streams` its mean) and the gradient; step-size rules such as `obgd` get
    `delta` and `eligibility`, of one stream; those that want more are refused by `init`. `step_size` multiplies its
    updates: a scalar, which may be traced, so that a sweep over it compiles once (under `vmap`, or by `Loop`).
    `streams` (None: one stream, no axis) learns one model from many parallel streams: every array of an example then
    has a leading axis of that size, and gradients are averaged.

    Exact or biased as its credit rule is, and as frozen weights are: they change while the rule's traces stand.
    Cost of a step: that of the rule, of one gradient of the head, and of the optimiser. Called outside `jit` each
    method is compiled by itself, once for each learner and shape, and then costs a millisecond or more a call: a
    `lax.scan` is a hundred times faster.

    >>> import jax, jax.numpy as jnp, optax
    >>> from onward import Columns, Columnwise, GRUGates, Linear, Model, Online, Step, Supervised
    >>> learner = Online(Columnwise(), Supervised(), optax.sgd(0.1))
    >>> model = Model(Columns(GRUGates(), 3, 5, key=jax.random.key(0)), Linear(5))
    >>> example = Step(x=jnp.ones(3), y=1.0)
    >>> state = learner.init(model, example, key=jax.random.key(1))
    >>> state, info = learner.step(state, example)
    >>> state, prediction = learner.read(state, jnp.ones(3))
    >>> float(info.prediction), bool(prediction > 0)
    (0.0, True)
    """

    credit: AbstractCredit
    objective: AbstractObjective
    optimiser: optax.GradientTransformation = eqx.field(static=True)
    step_size: Rate = 1.0
    streams: int | None = eqx.field(default=None, static=True)

    def init(self, model: Model, example: Step, *, key: PRNGKeyArray) -> OnlineState:  # type: ignore[override]
        """Start of the stream; `example` gives shapes only.

        Raises ValueError where the observation does not fit the cell, and TypeError for a model or an optimiser that
        cannot learn online.
        """
        credit_key, key = jax.random.split(key)
        self._require(model, example.x)
        if model.head.trajectories is not None:
            raise TypeError(
                "Online follows one trajectory of the cell: take the head out of its MonteCarlo, or use BPTT or TPTT"
            )
        credit = self.credit.init(model.cell, self._first(example.x), key=credit_key)
        stream = (model.init(), credit, self.objective.init(model))
        if self.streams is not None:
            stream = _copies(stream, self.streams)
        parameters = eqx.filter(model, model.trainable())
        optimiser = self.optimiser.init(parameters)
        if not (self.streams is None and wants_told(self.optimiser, optimiser, parameters)):
            optimiser = start_optimiser("Online", self.optimiser, parameters)
        elif type(self.objective).eligibility is AbstractObjective.eligibility:
            zero = jnp.zeros(())
            self.objective.eligibility((), zero, lambda cotangent: cotangent, zero)  # which says why not
        return OnlineState(model, *stream, self._of_each(optimiser), key, jnp.zeros((), jnp.int32))

    def _of_each(self, optimiser: PyTree) -> PyTree:
        """A state of the optimiser for each gradient of the objective, if it has several."""
        sizes = self.objective.step_sizes
        return optimiser if sizes is None else (optimiser,) * len(sizes)

    def _first(self, x: Array) -> Array:
        """The observation of one stream."""
        return x if self.streams is None else x[0]

    def _require(self, model: Model, x: Array) -> None:
        """Refuse an observation of another shape than the cell reads."""
        require_scalar("Online", "step_size", self.step_size)
        wanted = (model.cell.inputs,) if self.streams is None else (self.streams, model.cell.inputs)
        if jnp.shape(x) != wanted:
            raise ValueError(
                f"Online: the {type(model.cell).__name__} reads {model.cell.inputs} inputs"
                + ("" if self.streams is None else f" in each of {self.streams} streams")
                + f", so x must have shape {wanted}; the stream has {jnp.shape(x)}"
            )

    def each(self, function: Callable[..., Result], state: OnlineState, steps: Array) -> Callable[..., Result]:
        """The function of one stream, of each; its first argument is the key of this step."""
        key = random.fold_in(state.key, steps)
        if self.streams is None:
            return partial(function, key)
        return partial(jax.vmap(function), jax.random.split(key, self.streams))

    def _spread(self, values: Array | float) -> Array:
        """A weight or a reset that was given once for all streams, for each of them."""
        values = jnp.asarray(values)
        return values if self.streams is None or values.ndim else jnp.broadcast_to(values, (self.streams,))

    @compiled
    def read(
        self, state: OnlineState, x: Float[Array, "*streams inputs"], reset: Bool[Array, "*streams"] | bool = False
    ) -> tuple[OnlineState, Array]:
        """Move cell and credit on by one observation, and predict. No weight changes.

        `reset`: an episode starts here, so that hidden state, credit and objective start anew before x is read.
        Costs a step of the credit rule; where only the prediction is used, a compiled program leaves that out.
        """
        model = state.model
        self._require(model, x)
        rule = self.credit.on(model.cell)

        def advance(
            key: PRNGKeyArray, carry: Carry, credit: PyTree, objective: PyTree, x: Array, reset: Array
        ) -> PyTree:
            fresh = (model.init().hidden, rule.init(x, key=key), self.objective.init(model))
            hidden, credit, objective = select(reset, fresh, (carry.hidden, credit, objective))
            carry, credit = rule.advance(Carry(hidden, carry.stats), x, credit, key=key)
            return carry, credit, objective, model.head(model.features(carry, key=key))

        each = self.each(advance, state, state.steps)
        carry, credit, objective, prediction = each(state.carry, state.credit, state.objective, x, self._spread(reset))
        after = state._replace(carry=carry, credit=credit, objective=objective, steps=state.steps + 1)
        return after, prediction

    def actions(self, model: Model) -> Actions | None:
        """What its objective chooses from, given the predictions of this model; ValueError if they do not do."""
        return self.objective.actions(model.prediction_shape)

    @compiled
    def choose(self, state: OnlineState, prediction: Array) -> tuple[OnlineState, Array | None]:
        """What to do now that `read` gave this prediction; None where the objective does not act.

        Between `read` and `learn`, which then learns of this action.
        """

        def act(key: PRNGKeyArray, objective: PyTree, prediction: Array) -> tuple[PyTree, Array | None]:
            return self.objective.choose(objective, prediction, state.steps - 1, key=random.fold_in(key, CHOOSES))

        objective, action = self.each(act, state, state.steps - 1)(state.objective, prediction)
        return state._replace(objective=objective), action

    @compiled
    def learn(self, state: OnlineState, example: Step) -> tuple[OnlineState, Info]:
        """Learn what came of the last prediction: the loss of `example`, at the state that was read last.

        Of `example` only y, weight and, for objectives that look back or ahead, reset and discount are used. An instant
        of weight 0 changes nothing. `info.prediction` is the prediction by the weights of now, before the update.
        """
        model = state.model
        require_scalar("Online", "step_size", self.step_size)
        example = example._replace(weight=self._spread(example.weight), reset=self._spread(example.reset))
        if example.discount is not None:
            example = example._replace(discount=self._spread(example.discount))
        rule = self.credit.on(model.cell)
        parameters = eqx.filter(model, model.trainable())
        first = state.optimiser if self.objective.step_sizes is None else state.optimiser[0]
        tell = self.streams is None and wants_told(self.optimiser, first, parameters)

        def judge(key: PRNGKeyArray, carry: Carry, credit: PyTree, objective: PyTree, example: Step) -> PyTree:
            prediction, pullback = model.answer(carry, key=key)

            def pull(cotangent: Array) -> PyTree:
                head, hidden = pullback(cotangent)
                return Model(rule.pull(credit, hidden), head)

            after, gradient, learn, info = self.objective.step(objective, model, prediction, example, pull)
            if not tell:
                return after, gradient, (), learn, info
            delta = jnp.zeros(()) if info.delta is None else info.delta
            eligibility = self.objective.eligibility(objective, prediction, pull, delta)  # which may say why not
            if info.delta is None:
                raise TypeError(f"{type(self.objective).__name__}: its eligibility goes with no delta in Info(delta=)")
            return after, scaled(eligibility, -delta), eligibility, learn, info

        # The key of the reading: a cell that samples is asked for the features that it was read with.
        each = self.each(judge, state, state.steps - 1)
        objective, gradient, eligibility, learn, info = each(state.carry, state.credit, state.objective, example)
        loss = info.loss
        if self.streams is not None:
            gradient, learn, loss = jax.tree.map(_mean, gradient), jnp.any(learn), jnp.mean(loss)
        told = Told(info.delta, eligibility, jnp.asarray(self.step_size)) if tell else None
        model, optimiser = self._update(model, state.optimiser, gradient, learn, loss, told)
        return state._replace(model=model, objective=objective, optimiser=optimiser), info

    @compiled
    def step(self, state: OnlineState, example: Step) -> tuple[OnlineState, Info]:  # type: ignore[override]
        """One example (or one of each parallel stream): `read` x, `choose` (of objectives that act), then `learn`."""
        state, prediction = inside(Online.read)(self, state, example.x, example.reset)
        state, _ = inside(Online.choose)(self, state, prediction)
        return inside(Online.learn)(self, state, example)

    def _update(
        self, model: Model, optimiser: PyTree, gradient: PyTree, learn: Array, loss: Array, told: Told | None
    ) -> tuple[Model, PyTree]:
        parameters, rest = eqx.partition(model, model.trainable())

        def update(operand: PyTree) -> PyTree:
            parameters, optimiser, gradient, step_size, loss, told = operand
            if (sizes := self.objective.step_sizes) is None:
                moved = descend(self.optimiser, gradient, optimiser, parameters, step_size, loss, told)
                return *moved, gradient, step_size, loss, told
            # All by the weights of before.
            after, optimisers = parameters, []
            for i, size in enumerate(sizes):
                rate = step_size * size
                one = None if told is None else told._replace(eligibility=told.eligibility[i], step_size=rate)
                moved = descend(self.optimiser, gradient[i], optimiser[i], parameters, rate, loss, one)
                after = jax.tree.map(lambda total, new, old: total + (new - old), after, moved[0], parameters)
                optimisers.append(moved[1])
            return after, tuple(optimisers), gradient, step_size, loss, told

        value = loss if isinstance(self.optimiser, optax.GradientTransformationExtraArgs) else ()
        operand = (parameters, optimiser, gradient, jnp.asarray(self.step_size), value, told)
        parameters, optimiser, *_ = when(learn, update, operand)
        return eqx.combine(parameters, rest), optimiser

    def grow(self, state: OnlineState, example: Step) -> OnlineState:
        """Let the cell grow: of a `Cascade`, freeze the live stage and add the next.

        Traces and the optimiser's moments start anew; the eligibility of output weights, the state
        of old stages and their running moments go on. Prediction is unchanged by growth itself.
        TypeError for a cell that does not grow.
        """
        key, stage_key, credit_key = jax.random.split(state.key, 3)
        cell, carry = grown(state.model.cell, state.carry, self.streams, key=stage_key)
        model = Model(cell, state.model.head.grow(cell.feature_count))
        credit = self.credit.init(cell, self._first(example.x), key=credit_key)
        objective = lambda o: self.objective.grow(o, model)
        if self.streams is not None:
            credit = _copies(credit, self.streams)
            objective = jax.vmap(objective, axis_size=self.streams)
        optimiser = self._of_each(self.optimiser.init(eqx.filter(model, model.trainable())))
        return OnlineState(model, carry, credit, objective(state.objective), optimiser, key, state.steps)


def grown(cell: AbstractCell, carry: Carry, streams: int | None, *, key: PRNGKeyArray) -> tuple[AbstractCell, Carry]:
    """The larger cell and its carry; with parallel streams, whose axis leads in `carry`, one cell for all of them.

    TypeError for a cell that does not grow.
    """
    if streams is None:
        return cell.grow(carry, key=key)
    # One network for all streams: fold the mean of their moments into its weights.
    stats = jax.tree.map(lambda a: jnp.broadcast_to(jnp.mean(a, 0), a.shape), carry.stats)
    cells, carry = eqx.filter_vmap(lambda c: cell.grow(c, key=key))(Carry(carry.hidden, stats))
    return jax.tree.map(lambda a: a[0] if eqx.is_array(a) else a, cells), carry


def _mean(gradients: Float[Array, "streams ..."]) -> Array:
    """Over streams, added one by one: XLA's own sum over a leading axis takes SnAp(1) twelve times as long."""
    many = len(gradients)
    if many > UNROLLED:
        return jnp.mean(gradients, 0)
    return tree_sum([part[0] for part in jnp.split(gradients, many)]) / many


def _copies(tree: PyTree, size: int) -> PyTree:
    return jax.tree.map(lambda a: jnp.stack([a] * size), tree)
