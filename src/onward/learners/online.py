"""Learning at every step of a stream that never ends."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from onward.batching import tree_sum
from onward.cells.cascade import Cascade
from onward.cells.skip import Skip
from onward.credit.base import AbstractCredit
from onward.credit.rtrl import RTRL
from onward.learners.base import AbstractLearner
from onward.model import Model
from onward.objectives.base import AbstractObjective
from onward.objectives.supervised import Supervised
from onward.trees import apply_scaled, remember, select, when
from onward.types import Carry, Info, PyTree, Step

# Up to so many streams their gradients are added one by one.
UNROLLED = 64


class OnlineState(NamedTuple):
    """All that the next step needs."""

    model: Model
    carry: Carry
    credit: PyTree
    objective: PyTree
    optimiser: PyTree
    key: PRNGKeyArray
    steps: Array
    watched: PyTree = ()
    pending: PyTree = ()

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

    `watch` names rules that ride along: they see what the cell does and train nothing. At each step the
    gradient of `credit` and of each of them is compared with the exact one, on the same cotangent:
    `info.alignment` holds (cosine, norm ratio, 1 if there was a gradient) for `credit` first. It costs all
    those rules, and exact RTRL.

    `delay`: targets come late. `y` and `weight` of a step then belong to the prediction that was made `delay` steps
    before it; the model learns from them first, and then reads `x` and predicts. The state and the credit of every
    prediction that waits are kept (`delay` times both), so the gradient is the one that the rule had then, with the
    head and the error of now. The first `delay` steps have no prediction to learn from.
    """

    credit: AbstractCredit
    objective: AbstractObjective
    optimiser: optax.GradientTransformation = eqx.field(static=True)
    step_size: float | Float[Array, ""] = 1.0
    streams: int | None = eqx.field(default=None, static=True)
    watch: tuple[AbstractCredit, ...] = ()
    delay: int = eqx.field(default=0, static=True)

    def __check_init__(self) -> None:
        if isinstance(self.delay, bool) or not isinstance(self.delay, int) or self.delay < 0:
            raise ValueError(f"Online: delay must be a whole number of steps, 0 or more, got {self.delay!r}")
        if self.delay and not isinstance(self.objective, Supervised):
            raise TypeError(
                f"Online: only targets of Supervised can come late, not those of {type(self.objective).__name__}"
            )
        if self.delay and self.watch:
            raise TypeError("Online: rules are not watched where targets come late; leave out watch, or delay")

    def init(self, model: Model, example: Step, *, key: PRNGKeyArray) -> OnlineState:  # type: ignore[override]
        """Start of the stream. `example` gives shapes only."""
        credit_key, key = jax.random.split(key)
        one = example if self.streams is None else jax.tree.map(lambda a: a[0], example)
        if one.x.shape != (model.cell.inputs,):
            raise ValueError(f"the cell reads {model.cell.inputs} inputs, the stream has {one.x.shape}")
        if model.head.trajectories is not None:
            raise TypeError(
                "Online follows one trajectory of the cell: take the head out of its MonteCarlo, or use BPTT or TPTT"
            )
        credit = self.credit.init(model.cell, one.x, key=credit_key)
        stream = (model.init(), credit, self.objective.init(model), self._watched(model, one.x, credit_key))
        if self.streams is not None:
            stream = _copies(stream, self.streams)
        pending = self._pending(stream[:2])
        optimiser = self.optimiser.init(eqx.filter(model, model.trainable()))
        carry, credit, objective, watched = stream
        return OnlineState(model, carry, credit, objective, optimiser, key, jnp.zeros((), jnp.int32), watched, pending)

    def _pending(self, now: PyTree) -> PyTree:
        """Steps so far, and room for the states behind the predictions that wait; of just one, the present state."""
        if not self.delay:
            return ()
        ring = lambda a: jnp.zeros((self.delay, *a.shape), a.dtype)
        return jnp.zeros((), jnp.int32), jax.tree.map(ring, now) if self.delay > 1 else ()

    @property
    def _riders(self) -> tuple[AbstractCredit, ...]:
        """The exact rule, then those that are watched."""
        return (RTRL(), *self.watch) if self.watch else ()

    def _watched(self, model: Model, x: Array, key: PRNGKeyArray) -> PyTree:
        keys = (jax.random.fold_in(key, i) for i in range(1, 2 + len(self.watch)))
        return tuple(rule.init(model.cell, x, key=k) for rule, k in zip(self._riders, keys, strict=False))

    def step(self, state: OnlineState, example: Step) -> tuple[OnlineState, Info]:  # type: ignore[override]
        """One example (or one of each parallel stream)."""
        if self.delay:
            return self._late_step(state, example)
        stream = (state.carry, state.credit, state.objective, state.watched)
        key = jax.random.fold_in(state.key, state.steps)
        if self.streams is None:
            stream, gradient, learn, info = self._assign(state.model, stream, example, key)
        else:
            keys = jax.random.split(key, self.streams)
            assign = lambda s, e, k: self._assign(state.model, s, e, k)
            stream, gradient, learn, info = jax.vmap(assign)(stream, example, keys)
            gradient = jax.tree.map(_mean, gradient)
            learn = jnp.any(learn)
        model, optimiser = self._update(state.model, state.optimiser, gradient, learn)
        carry, credit, objective, watched = stream
        return OnlineState(model, carry, credit, objective, optimiser, state.key, state.steps + 1, watched), info

    def _late_step(self, state: OnlineState, example: Step) -> tuple[OnlineState, Info]:
        """Learn from the target of an earlier prediction, then read and predict."""
        now, (age, rings) = (state.carry, state.credit), state.pending
        then = now
        if self.delay > 1:
            kept = [remember(ring, age, a) for ring, a in zip(*map(jax.tree.leaves, (rings, now)), strict=True)]
            rings, then = (jax.tree.unflatten(jax.tree.structure(now), part) for part in zip(*kept, strict=True))
        example = example._replace(weight=jnp.where(age >= self.delay, example.weight, 0))
        key = jax.random.fold_in(state.key, state.steps)
        each = (lambda f: f) if self.streams is None else jax.vmap
        keys = key if self.streams is None else jax.random.split(key, self.streams)

        def judge(then: Any, example: Step, key: PRNGKeyArray) -> Any:
            carry, credit = then
            prediction, pull = self._pull(state.model, carry, credit, jax.random.fold_in(key, 2))
            _, gradient, learn, info = self.objective.step((), state.model, prediction, example, pull)
            return gradient, learn, info.loss

        gradient, learn, loss = each(judge)(then, example, keys)
        if self.streams is not None:
            gradient, learn = jax.tree.map(_mean, gradient), jnp.any(learn)
        model, optimiser = self._update(state.model, state.optimiser, gradient, learn)

        def read(now: Any, example: Step, key: PRNGKeyArray) -> Any:
            carry, credit = now
            fresh = (model.init().hidden, self.credit.init(model.cell, example.x, key=key))
            hidden, credit = select(example.reset, fresh, (carry.hidden, credit))
            carry, credit = self.credit.advance(model.cell, Carry(hidden, carry.stats), example.x, credit, key=key)
            return carry, credit, model.head(model.features(carry, key=key))

        carry, credit, prediction = each(read)(now, example, keys)
        after = state._replace(model=model, carry=carry, credit=credit, optimiser=optimiser)
        return after._replace(steps=state.steps + 1, pending=(age + 1, rings)), Info(prediction, loss)

    def _pull(self, model: Model, carry: Carry, credit: PyTree, key: PRNGKeyArray) -> tuple[Array, Any]:
        """The prediction of a state, and how a cotangent on it becomes a model-shaped gradient."""
        prediction, pullback = model.answer(carry, key=key)

        def pull(cotangent: Array) -> PyTree:
            head, hidden = pullback(cotangent)
            return _gradient_of(model, self.credit.pull(model.cell, credit, hidden), head)

        return prediction, pull

    def _assign(self, model: Model, stream: Any, example: Step, key: PRNGKeyArray) -> Any:
        """Forward, predict, assign credit: everything of one stream but the update."""
        carry, credit, objective, watched = stream
        cell, x = model.cell, example.x
        fresh = (
            model.init().hidden,
            self.credit.init(cell, x, key=key),
            self.objective.init(model),
            self._watched(model, x, key),
        )
        hidden, credit, objective, watched = select(example.reset, fresh, (carry.hidden, credit, objective, watched))
        before = Carry(hidden, carry.stats)
        carry, credit = self.credit.advance(cell, before, x, credit, key=key)
        watched = tuple(r.advance(cell, before, x, w, key=key)[1] for r, w in zip(self._riders, watched, strict=True))
        prediction, pullback = model.answer(carry, key=key)
        alignment: list[Array] = []

        def pull(cotangent: Array) -> PyTree:
            head, hidden = pullback(cotangent)
            own = self.credit.pull(cell, credit, hidden)
            if watched:
                exact, *others = (r.pull(cell, w, hidden) for r, w in zip(self._riders, watched, strict=True))
                alignment.extend(_compare(g, exact) for g in (own, *others))
            return _gradient_of(model, own, head)

        objective, gradient, learn, info = self.objective.step(objective, model, prediction, example, pull)
        info = info._replace(alignment=tuple(alignment))
        return (carry, credit, objective, watched), gradient, learn, info

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
        of old stages and their running moments go on. Prediction is unchanged by growth itself. Predictions whose
        targets have not come yet (`delay`) are not learned from.
        """
        if not isinstance(state.model.cell, Cascade | Skip):
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
        watched = self._watched(model, one.x, credit_key)
        objective = lambda o: self.objective.grow(o, model)
        if self.streams is not None:
            credit, watched = _copies((credit, watched), self.streams)
            objective = jax.vmap(objective, axis_size=self.streams)
        optimiser = self.optimiser.init(eqx.filter(model, model.trainable()))
        grown = OnlineState(model, carry, credit, objective(state.objective), optimiser, key, state.steps, watched)
        return grown._replace(pending=self._pending((carry, credit)))


def _gradient_of(model: Model, cell: PyTree, head: PyTree) -> PyTree:
    """A model-shaped gradient."""
    nothing = eqx.filter(model, jax.tree.map(lambda _: False, model))
    return eqx.tree_at(lambda m: (m.cell, m.head), nothing, (cell, head))


def _compare(gradient: PyTree, exact: PyTree) -> Float[Array, "3"]:
    """Cosine, norm ratio, and whether the exact gradient is not zero (0, 0, 0 where it is)."""
    dot = lambda a, b: sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    size, length = jnp.sqrt(dot(gradient, gradient)), jnp.sqrt(dot(exact, exact))
    there = length > 0
    cosine = dot(gradient, exact) / jnp.where((size > 0) & there, size * length, 1)
    return jnp.stack([cosine, size / jnp.where(there, length, 1), jnp.ones_like(cosine)]) * there


def _mean(gradients: Float[Array, "streams ..."]) -> Array:
    """Over streams, added one by one: XLA's own sum over a leading axis takes SnAp(1) twelve times as long."""
    many = len(gradients)
    if many > UNROLLED:
        return jnp.mean(gradients, 0)
    return tree_sum([part[0] for part in jnp.split(gradients, many)]) / many


def _copies(tree: PyTree, size: int) -> PyTree:
    return jax.tree.map(lambda a: jnp.stack([a] * size), tree)
