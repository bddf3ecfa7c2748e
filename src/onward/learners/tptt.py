"""Target propagation through time: local losses in place of gradients through time."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Int, PRNGKeyArray

from onward.cells.base import require_size
from onward.learners.base import (
    AbstractLearner,
    Rate,
    compiled,
    descend,
    gather_trajectories,
    require_rate,
    require_scalar,
    require_sequences,
    require_supervised,
    start_optimiser,
    weighted_sum,
)
from onward.learners.inverses import AbstractInverse, Transition
from onward.model import Model
from onward.objectives.supervised import Supervised
from onward.types import Carry, Info, PyTree, Sequence


class TPTTState(NamedTuple):
    """The model, its running moments, the inverse model's weights, both optimisers, where random numbers come from."""

    model: Model
    stats: PyTree
    inverse: PyTree
    optimiser: PyTree
    inverse_optimiser: PyTree
    key: PRNGKeyArray
    steps: Int[Array, ""]


class Propagation(NamedTuple):
    """What one way through a batch gives, forward and back.

    `loss` and `gradient` (of the model) are sums over the batch, to be divided by `weight`, the sum of |mask|;
    `inverse_loss` and `inverse_gradient` are sums to be divided by `transitions`. `hidden` and `shifts` (None unless
    kept) are h_t and d_t, (time, rows, ...), where rows are the batch times the trajectories of a row.
    """

    loss: Array
    predictions: PyTree
    stats: PyTree
    weight: Array
    gradient: PyTree
    inverse_loss: Array
    inverse_gradient: PyTree
    transitions: Array
    hidden: PyTree = None
    shifts: PyTree = None


class TPTT(AbstractLearner):
    """Target propagation through time (Manchev & Spratling, 2020 and 2024, eqs 3-4), on batches of sequences.

    Forward, h_t = F(x_t, h_{t-1}); the loss E at the last step(s) sets the first target, and an inverse model the
    others, from last to first, as shifts d_t = target - h_t:

        d_T = -target_step_size dE/dh_T,     d_{t-1} = shift_t(d_t)     (plus the first shift of any step with a loss)

    Then F descends the local losses sum_t |F(x_t, h_{t-1}) - (h_t + d_t)|^2 / 2, the head descends E, and the inverse
    its own loss. Local: h_{t-1} is a constant of step t's loss, and no gradient crosses a step. E counts each row by
    itself, and local losses are averaged over the batch, so rates do not depend on its size. Biased: only an inverse
    whose shift is the transpose of F's Jacobian gives the gradient of BPTT (then with target_step_size 1 exactly it).

    `objective` says what E is at one instant: -log p by default, as for `BPTT`.
    `optimiser` with `step_size` (alpha_f) trains F and head, `inverse_optimiser` with `inverse_step_size` (alpha_g;
    None: the same as step_size) the inverse; `target_step_size` is alpha_i (None: the same as step_size). What an
    optimiser may be: see `Online`.
    `inverse_steps` counts updates of the inverse for each of F; 0 leaves it as it starts. It learns from `transitions`
    steps of the batch, drawn at random (None: from all). Targets are set by the weights that the inverse had before its
    last update, as in the paper. With a `Hybrid` cell and a `MonteCarlo` head this is STPTT: each trajectory gets
    targets of its own.

    The batch is gone through in blocks of at most `block` rows, whose sums are the batch's. Cost with T steps: a
    forward pass, one outer product and one shift a step (linear in T), and the inverse's loss; memory T times the
    states of one block. ValueError for rates that are not positive and finite scalars, and for sizes below 1.
    """

    inverse: AbstractInverse
    optimiser: optax.GradientTransformation = eqx.field(static=True)
    inverse_optimiser: optax.GradientTransformation | None = eqx.field(default=None, static=True)
    step_size: Rate = 1.0
    inverse_step_size: Rate | None = None
    target_step_size: Rate | None = 1.0
    inverse_steps: int = eqx.field(default=1, static=True)
    transitions: int | None = eqx.field(default=None, static=True)
    block: int = eqx.field(default=500, static=True)
    objective: Supervised = Supervised()

    def __check_init__(self) -> None:
        for name in ("step_size", "inverse_step_size", "target_step_size"):
            require_rate("TPTT", name, getattr(self, name))
        steps = self.inverse_steps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise ValueError(f"TPTT: inverse_steps must be a whole number of at least 0, got {steps!r}")
        require_size("TPTT", block=self.block, transitions=1 if self.transitions is None else self.transitions)
        require_supervised("TPTT", self.objective)

    def init(self, model: Model, example: Sequence, *, key: PRNGKeyArray) -> TPTTState:
        """Start; `example` gives shapes only.

        ValueError for shapes that do not fit, TypeError for a cell that the inverse does not fit.
        """
        self._require(model, example)
        inverse_key, key = jax.random.split(key)
        inverse = self.inverse.init(model.cell, key=inverse_key)
        optimiser = start_optimiser("TPTT", self.optimiser, eqx.filter(model, model.trainable()))
        of_inverse = start_optimiser("TPTT", self.inverse_optimiser or self.optimiser, inverse)
        return TPTTState(model, model.cell.init().stats, inverse, optimiser, of_inverse, key, jnp.zeros((), jnp.int32))

    def _require(self, model: Model, example: Sequence) -> None:
        for name in ("step_size", "inverse_step_size", "target_step_size"):
            require_scalar("TPTT", name, getattr(self, name))
        require_sequences("TPTT", model, example)

    @compiled
    def step(self, state: TPTTState, example: Sequence) -> tuple[TPTTState, Info]:
        """One batch: its predictions (outputs, batch, ...) and loss before the update."""
        self._require(state.model, example)
        key = jax.random.fold_in(state.key, state.steps)
        for i in range(1, self.inverse_steps):
            state = self._train_inverse(state, self.propagate(state, example, key=jax.random.fold_in(key, i)))
        passed = self.propagate(state, example, key=key)
        if self.inverse_steps:
            state = self._train_inverse(state, passed)
        parameters, rest = eqx.partition(state.model, state.model.trainable())
        gradient = jax.tree.map(lambda g: g / passed.weight, passed.gradient)
        loss = passed.loss / passed.weight
        parameters, optimiser = descend(self.optimiser, gradient, state.optimiser, parameters, self.step_size, loss)
        model = eqx.combine(parameters, rest)
        inverse = self.inverse.follow(state.inverse, state.model.cell, model.cell)
        state = state._replace(model=model, stats=passed.stats, inverse=inverse, optimiser=optimiser)
        return state._replace(steps=state.steps + 1), Info(passed.predictions, loss)

    def _train_inverse(self, state: TPTTState, passed: Propagation) -> TPTTState:
        gradient = jax.tree.map(lambda g: g / passed.transitions, passed.inverse_gradient)
        rule = self.inverse_optimiser or self.optimiser
        rate = self.step_size if self.inverse_step_size is None else self.inverse_step_size
        loss = passed.inverse_loss / passed.transitions
        inverse, optimiser = descend(rule, gradient, state.inverse_optimiser, state.inverse, rate, loss)
        return state._replace(inverse=inverse, inverse_optimiser=optimiser)

    def propagate(self, state: TPTTState, example: Sequence, *, key: PRNGKeyArray, keep: bool = False) -> Propagation:
        """Forward, targets, and the gradients of all local losses. Nothing is updated.

        `key`: for cells that sample, for the inverse's noise and for the transitions that it learns from. `keep`:
        hidden states and shifts too, in one block.
        """
        batch = example.xs.shape[1]
        size = batch if keep else min(batch, max(1, self.block // (state.model.head.trajectories or 1)))
        blocks, rest = divmod(batch, size)
        if blocks == 1 and not rest:
            return _propagate(self, state, example, key, 1.0, keep)
        cut = lambda some: jax.tree.map(lambda a: a[:, some], example)
        split = lambda a: jnp.moveaxis(a.reshape(a.shape[0], blocks, size, *a.shape[2:]), 1, 0)
        block = lambda part: _propagate(self, state, part[0], part[1], size / batch, False)
        parts = (jax.tree.map(split, cut(slice(blocks * size))), jax.random.split(key, blocks))
        shapes = jax.eval_shape(block, jax.tree.map(lambda a: a[0], parts))._replace(predictions=None)
        zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)

        def add(total: Propagation, part: tuple[Sequence, PRNGKeyArray]) -> tuple[Propagation, PyTree]:
            passed = block(part)
            return jax.tree.map(jnp.add, total, passed._replace(predictions=None)), passed.predictions

        total, predictions = lax.scan(add, zero, parts)
        predictions = jnp.moveaxis(predictions, 0, 1)
        predictions = predictions.reshape(predictions.shape[0], blocks * size, *predictions.shape[3:])
        if rest:
            last = _propagate(self, state, cut(slice(blocks * size, None)), key, rest / batch, False)
            total = jax.tree.map(jnp.add, total, last._replace(predictions=None))
            predictions = jnp.concatenate([predictions, last.predictions], 1)
        return total._replace(predictions=predictions)


class _Forward(NamedTuple):
    """What every step of a block leaves for the way back; all but `end` with time first."""

    end: Carry
    befores: Carry
    pulls: Callable[[PyTree], tuple[PyTree]]
    seen: PyTree
    xs: Array
    keys: PRNGKeyArray


def _propagate(
    learner: TPTT, state: TPTTState, example: Sequence, key: PRNGKeyArray, share: float, keep: bool
) -> Propagation:
    """One block, which is this share of the batch."""
    model, weights = state.model, state.inverse
    time, batch = example.xs.shape[:2]
    rows = batch * (model.head.trajectories or 1)
    step_key, head_key, noise_key = jax.random.split(key, 3)
    passed = _forward(learner, state, example, jax.random.split(step_key, (time, rows)))
    loss, predictions, head_gradient, first = _first_shifts(learner, model, example, passed, head_key)
    learning = learner.inverse_steps > 0 and time > 1 and bool(jax.tree.leaves(weights))
    everywhere = learning and learner.transitions is None

    def inverse_loss(weights: PyTree, transition: Transition, key: PRNGKeyArray) -> Array:
        keys = jax.random.split(key, len(transition.x))
        return jnp.sum(jax.vmap(lambda t, k: learner.inverse.loss(weights, model.cell, t, key=k))(transition, keys))

    blame = jax.value_and_grad(inverse_loss)
    at = (lambda transition, t: blame(weights, transition, jax.random.fold_in(noise_key, t))) if everywhere else None
    gradient, blamed, shifts = _backward(learner, state, passed, first, at, keep)
    count = max(1, (time - 1) * rows)
    if learning and not everywhere:
        count = max(1, round((learner.transitions or 1) * share))
        blamed = blame(weights, _drawn(model, passed, count, noise_key), noise_key)
    ends = lambda a, z: jnp.concatenate([a[1:], z[None]])
    return Propagation(
        loss=loss,
        predictions=predictions,
        stats=jax.tree.map(lambda a: share * jnp.mean(a, 0), passed.end.stats),
        weight=jnp.sum(jnp.abs(example.mask)),
        gradient=Model(gradient, head_gradient),
        inverse_loss=blamed[0],
        inverse_gradient=blamed[1],
        transitions=jnp.full((), count, loss.dtype),
        hidden=jax.tree.map(ends, passed.befores.hidden, passed.end.hidden) if keep else None,
        shifts=shifts,
    )


def _forward(learner: TPTT, state: TPTTState, example: Sequence, keys: PRNGKeyArray) -> _Forward:
    """All steps, and of each the pullback to the cell's parameters."""
    model, cell = state.model, state.model.cell
    copies, rows = model.head.trajectories or 1, keys.shape[1]
    parameters, rest = eqx.partition(cell, model.trainable().cell)
    spread = lambda tree: jax.tree.map(lambda a: jnp.broadcast_to(a, (rows, *a.shape)), tree)

    def forward(before: Carry, inputs: tuple[Array, PRNGKeyArray]) -> tuple[Carry, PyTree]:
        x, keys = inputs
        x = jnp.repeat(x, copies, 0)

        def step(parameters: PyTree) -> tuple[PyTree, Carry]:
            moved = eqx.combine(parameters, rest)
            after = jax.vmap(lambda c, x, k: moved(c, x, key=k))(before, x, keys)
            return after.hidden, after

        # `before` is a constant here: the blame for a step stays in the step.
        _, pull, after = jax.vjp(step, parameters, has_aux=True)
        transition = Transition(before, x, after.hidden, keys)
        return after, (before, pull, jax.vmap(lambda t: learner.inverse.observe(cell, t))(transition))

    start = Carry(spread(cell.init().hidden), spread(state.stats))
    end, (befores, pulls, seen) = lax.scan(forward, start, (example.xs, keys))
    return _Forward(end, befores, pulls, seen, example.xs, keys)


def _first_shifts(
    learner: TPTT, model: Model, example: Sequence, passed: _Forward, key: PRNGKeyArray
) -> tuple[Array, Array, PyTree, PyTree]:
    """The loss, the predictions, the head's gradient, and the shift of each step that has a loss."""
    time, outputs, rows = len(example.xs), len(example.mask), passed.keys.shape[1]
    weights, rest = eqx.partition(model.head, model.trainable().head)
    last = lambda a, z: jnp.concatenate([a[time - outputs + 1 :], z[None]])
    answered = jax.tree.map(last, passed.befores, passed.end)

    def lose(weights: PyTree, hidden: PyTree) -> tuple[Array, Array]:
        head = eqx.combine(weights, rest)
        read = lambda h, s, k: model.cell.features(Carry(h, s), key=k)
        features = jax.vmap(jax.vmap(read))(hidden, answered.stats, jax.random.split(key, (outputs, rows)))
        predictions = jax.vmap(lambda f: jax.vmap(head)(gather_trajectories(head, f)))(features)
        lose_at = lambda p, y: learner.objective.loss_of(head, p, y)
        return weighted_sum(jax.vmap(jax.vmap(lose_at))(predictions, example.y), example.mask), predictions

    loss, pull, predictions = jax.vjp(lose, weights, answered.hidden, has_aux=True)
    head_gradient, first = pull(jnp.ones_like(loss))
    rate = learner.step_size if learner.target_step_size is None else learner.target_step_size
    return loss, predictions, head_gradient, jax.tree.map(lambda g: -rate * g, first)


def _backward(
    learner: TPTT,
    state: TPTTState,
    passed: _Forward,
    first: PyTree,
    blame: Callable[[Transition, Array], tuple[Array, PyTree]] | None,
    keep: bool,
) -> tuple[PyTree, tuple[Array, PyTree], PyTree]:
    """The cell's gradient, the inverse's loss and gradient by `blame` of each transition, and the shifts if kept."""
    cell, copies = state.model.cell, state.model.head.trajectories or 1
    time, outputs = len(passed.xs), len(jax.tree.leaves(first)[0])

    def backward(loop: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
        d, after, gradient, blamed = loop
        t, before, pull, seen, x, keys = inputs
        own = lambda f: jnp.where(t >= time - outputs, f[jnp.maximum(t - time + outputs, 0)], 0)
        d = jax.tree.map(lambda a, f: a + own(f), d, first)
        transition = Transition(before, jnp.repeat(x, copies, 0), after, keys)
        (pulled,) = pull(jax.tree.map(jnp.negative, d))
        gradient = jax.tree.map(jnp.add, gradient, pulled)
        if blame is not None:
            blamed = jax.tree.map(lambda a, b: a + jnp.where(t > 0, b, 0), blamed, blame(transition, t))
        back = jax.vmap(lambda t, s, d: learner.inverse.shift(state.inverse, cell, t, s, d))(transition, seen, d)
        return (back, before.hidden, gradient, blamed), d if keep else None

    zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)
    end = passed.end.hidden
    parameters = eqx.filter(cell, cell.trainable())
    nothing = (jnp.zeros((), jax.tree.leaves(first)[0].dtype), zeros(state.inverse))
    inputs = (jnp.arange(time), passed.befores, passed.pulls, passed.seen, passed.xs, passed.keys)
    loop, shifts = lax.scan(backward, (zeros(end), end, zeros(parameters), nothing), inputs, reverse=True)
    return loop[2], loop[3], shifts


def _drawn(model: Model, passed: _Forward, count: int, key: PRNGKeyArray) -> Transition:
    """So many transitions, of steps and rows at random; the first step, which has nothing before it, is none."""
    copies, (time, rows) = model.head.trajectories or 1, passed.keys.shape[:2]
    of_time, of_row = jax.random.split(key)
    t = jax.random.randint(of_time, (count,), 1, time)
    row = jax.random.randint(of_row, (count,), 0, rows)
    before = jax.tree.map(lambda a: a[t, row], passed.befores)
    x, keys = passed.xs[t, row // copies], passed.keys[t, row]
    after = jax.vmap(lambda c, x, k: model.cell(c, x, key=k))(before, x, keys).hidden
    return Transition(before, x, after, keys)
