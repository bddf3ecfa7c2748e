"""Target propagation through time: local losses in place of gradients through time."""

from typing import Any, NamedTuple

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
    gather_trajectories,
    require_rate,
    require_sequences,
    weighted_sum,
)
from onward.learners.inverses import AbstractInverse, Transition
from onward.model import Model
from onward.trees import apply_scaled
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


class Sweep(NamedTuple):
    """One sweep over a batch, forward and back.

    `loss` and `gradient` (of the model) are sums over the batch, to be divided by `weight`, the sum of the mask;
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

    `optimiser` with `step_size` (alpha_f) trains F and head, `inverse_optimiser` with `inverse_step_size` (alpha_g;
    None: the same as step_size) the inverse; `target_step_size` is alpha_i (None: the same as step_size).
    `inverse_steps` counts updates of the inverse for each of F; 0 leaves it as it starts. It learns from `transitions`
    steps of the batch, drawn at random (None: from all). Targets are set by the weights that the inverse had before its
    last update, as in the paper. With a `Hybrid` cell and a `MonteCarlo` head this is STPTT: each trajectory gets
    targets of its own.

    The batch is swept in blocks of at most `block` rows, whose sums are the batch's. Cost of a sweep with T steps: a
    forward pass, one outer product and one shift a step (linear in T), and the inverse's loss; memory T times the
    states of one block.
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

    def __check_init__(self) -> None:
        for name in ("step_size", "inverse_step_size", "target_step_size"):
            require_rate("TPTT", name, getattr(self, name))
        steps = self.inverse_steps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise ValueError(f"TPTT: inverse_steps must be a whole number of at least 0, got {steps!r}")
        require_size(
            "TPTT", block=self.block, **({} if self.transitions is None else {"transitions": self.transitions})
        )

    def init(self, model: Model, example: Sequence, *, key: PRNGKeyArray) -> TPTTState:  # type: ignore[override]
        """Start; `example` gives shapes only."""
        require_sequences("TPTT", model, example)
        inverse_key, key = jax.random.split(key)
        inverse = self.inverse.init(model.cell, key=inverse_key)
        optimiser = self.optimiser.init(eqx.filter(model, model.trainable()))
        of_inverse = (self.inverse_optimiser or self.optimiser).init(inverse)
        return TPTTState(model, model.cell.init().stats, inverse, optimiser, of_inverse, key, jnp.zeros((), jnp.int32))

    def step(self, state: TPTTState, example: Sequence) -> tuple[TPTTState, Info]:  # type: ignore[override]
        """One batch."""
        require_sequences("TPTT", state.model, example)
        key = jax.random.fold_in(state.key, state.steps)
        for i in range(1, self.inverse_steps):
            swept = self.sweep(state, example, key=jax.random.fold_in(key, i))
            state = self._train_inverse(state, swept)
        swept = self.sweep(state, example, key=key)
        if self.inverse_steps:
            state = self._train_inverse(state, swept)
        parameters, rest = eqx.partition(state.model, state.model.trainable())
        gradient = jax.tree.map(lambda g: g / swept.weight, swept.gradient)
        updates, optimiser = self.optimiser.update(gradient, state.optimiser, parameters)
        model = eqx.combine(apply_scaled(parameters, updates, self.step_size), rest)
        state = state._replace(model=model, stats=swept.stats, optimiser=optimiser, steps=state.steps + 1)
        return state, Info(swept.predictions, swept.loss / swept.weight)

    def _train_inverse(self, state: TPTTState, swept: Sweep) -> TPTTState:
        gradient = jax.tree.map(lambda g: g / swept.transitions, swept.inverse_gradient)
        rule = self.inverse_optimiser or self.optimiser
        updates, optimiser = rule.update(gradient, state.inverse_optimiser, state.inverse)
        rate = self.step_size if self.inverse_step_size is None else self.inverse_step_size
        return state._replace(inverse=apply_scaled(state.inverse, updates, rate), inverse_optimiser=optimiser)

    def sweep(self, state: TPTTState, example: Sequence, *, key: PRNGKeyArray, keep: bool = False) -> Sweep:
        """Forward, targets, and the gradients of all local losses.

        `keep`: hidden states and shifts too, in one block.
        """
        batch = example.xs.shape[1]
        size = batch if keep else min(batch, max(1, self.block // (state.model.head.trajectories or 1)))
        blocks, rest = divmod(batch, size)
        if blocks == 1 and not rest:
            return _sweep(self, state, example, key, 1.0, keep)
        cut = lambda some: jax.tree.map(lambda a: a[:, some], example)
        split = lambda a: jnp.moveaxis(a.reshape(a.shape[0], blocks, size, *a.shape[2:]), 1, 0)
        one = lambda part: _sweep(self, state, part[0], part[1], size / batch, False)
        parts = (jax.tree.map(split, cut(slice(blocks * size))), jax.random.split(key, blocks))
        shapes = jax.eval_shape(one, jax.tree.map(lambda a: a[0], parts))._replace(predictions=None)
        zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)

        def add(total: Sweep, part: Any) -> Any:
            swept = one(part)
            return jax.tree.map(jnp.add, total, swept._replace(predictions=None)), swept.predictions

        total, predictions = lax.scan(add, zero, parts)
        predictions = jnp.moveaxis(predictions, 0, 1)
        predictions = predictions.reshape(predictions.shape[0], blocks * size, *predictions.shape[3:])
        if rest:
            last = _sweep(self, state, cut(slice(blocks * size, None)), key, rest / batch, False)
            total = jax.tree.map(jnp.add, total, last._replace(predictions=None))
            predictions = jnp.concatenate([predictions, last.predictions], 1)
        return total._replace(predictions=predictions)


def _sweep(learner: TPTT, state: TPTTState, example: Sequence, key: PRNGKeyArray, share: float, keep: bool) -> Sweep:
    """One block, which is this share of the batch."""
    model, inverse, weights = state.model, learner.inverse, state.inverse
    cell, copies = model.cell, model.head.trajectories or 1
    time, batch = example.xs.shape[:2]
    outputs, rows = len(example.mask), batch * copies
    parameters, rest = eqx.partition(model, model.trainable())
    step_key, head_key, noise_key = jax.random.split(key, 3)
    keys = jax.random.split(step_key, (time, rows))
    spread = lambda tree: jax.tree.map(lambda a: jnp.broadcast_to(a, (rows, *a.shape)), tree)
    learning = learner.inverse_steps > 0 and time > 1 and bool(jax.tree.leaves(weights))
    everywhere = learning and learner.transitions is None

    def forward(before: Carry, inputs: Any) -> Any:
        x, keys = inputs
        x = jnp.repeat(x, copies, 0)

        def step(parameters: PyTree) -> Any:
            moved = eqx.combine(parameters, rest.cell)
            after = jax.vmap(lambda c, x, k: moved(c, x, key=k))(before, x, keys)
            return after.hidden, after

        # `before` is a constant here: the blame for a step stays in the step.
        _, pull, after = jax.vjp(step, parameters.cell, has_aux=True)
        transition = Transition(before, x, after.hidden, keys)
        return after, (before, pull, jax.vmap(lambda t: inverse.observe(cell, t))(transition))

    start = Carry(spread(cell.init().hidden), spread(state.stats))
    end, (befores, pulls, seen) = lax.scan(forward, start, (example.xs, keys))
    answered = jax.tree.map(lambda a, z: jnp.concatenate([a[time - outputs + 1 :], z[None]]), befores, end)

    def lose(head: PyTree, hidden: PyTree) -> Any:
        head = eqx.combine(head, rest.head)
        read = lambda h, s, k: cell.features(Carry(h, s), key=k)
        features = jax.vmap(jax.vmap(read))(hidden, answered.stats, jax.random.split(head_key, (outputs, rows)))
        predictions = jax.vmap(lambda f: jax.vmap(head)(gather_trajectories(head, f)))(features)
        log_probs = jax.vmap(jax.vmap(head.log_prob))(predictions, example.y)
        return -weighted_sum(log_probs, example.mask), predictions

    loss, pull_loss, predictions = jax.vjp(lose, parameters.head, answered.hidden, has_aux=True)
    head_gradient, first = pull_loss(jnp.ones_like(loss))
    rate = learner.step_size if learner.target_step_size is None else learner.target_step_size
    first = jax.tree.map(lambda g: -rate * g, first)

    def inverse_loss(weights: PyTree, transition: Transition, key: PRNGKeyArray) -> Array:
        keys = jax.random.split(key, len(transition.x))
        return jnp.sum(jax.vmap(lambda t, k: inverse.loss(weights, cell, t, key=k))(transition, keys))

    def backward(loop: Any, inputs: Any) -> Any:
        d, after, gradient, blamed = loop
        t, before, pull, seen, x, keys = inputs
        own = lambda f: jnp.where(t >= time - outputs, f[jnp.maximum(t - time + outputs, 0)], 0)
        d = jax.tree.map(lambda a, f: a + own(f), d, first)
        transition = Transition(before, jnp.repeat(x, copies, 0), after, keys)
        (pulled,) = pull(jax.tree.map(jnp.negative, d))
        gradient = jax.tree.map(jnp.add, gradient, pulled)
        if everywhere:
            found = jax.value_and_grad(inverse_loss)(weights, transition, jax.random.fold_in(noise_key, t))
            blamed = jax.tree.map(lambda a, b: a + jnp.where(t > 0, b, 0), blamed, found)
        back = jax.vmap(lambda t, s, d: inverse.shift(weights, cell, t, s, d))(transition, seen, d)
        return (back, before.hidden, gradient, blamed), d if keep else None

    zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)
    loop = (zeros(end.hidden), end.hidden, zeros(parameters.cell), (jnp.zeros_like(loss), zeros(weights)))
    inputs = (jnp.arange(time), befores, pulls, seen, example.xs, keys)
    (_, _, gradient, blamed), shifts = lax.scan(backward, loop, inputs, reverse=True)
    count = max(1, (time - 1) * rows)
    if learning and not everywhere:
        count = max(1, round((learner.transitions or 1) * share))
        of_time, of_row = jax.random.split(noise_key)
        t = jax.random.randint(of_time, (count,), 1, time)
        row = jax.random.randint(of_row, (count,), 0, rows)
        chosen, x, drawn = jax.tree.map(lambda a: a[t, row], befores), example.xs[t, row // copies], keys[t, row]
        after = jax.vmap(lambda c, x, k: cell(c, x, key=k))(chosen, x, drawn).hidden
        blamed = jax.value_and_grad(inverse_loss)(weights, Transition(chosen, x, after, drawn), noise_key)
    spec = eqx.filter(model, jax.tree.map(lambda _: False, model))
    return Sweep(
        loss=loss,
        predictions=predictions,
        stats=jax.tree.map(lambda a: share * jnp.mean(a, 0), end.stats),
        weight=jnp.sum(example.mask),
        gradient=eqx.tree_at(lambda m: (m.cell, m.head), spec, (gradient, head_gradient)),
        inverse_loss=blamed[0],
        inverse_gradient=blamed[1],
        transitions=jnp.full((), count, loss.dtype),
        hidden=jax.tree.map(lambda a, z: jnp.concatenate([a[1:], z[None]]), befores.hidden, end.hidden)
        if keep
        else None,
        shifts=shifts,
    )
