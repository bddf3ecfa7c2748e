"""How far the traces of a learner lag behind its weights."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from onward.cells.base import AbstractCell
from onward.credit.base import AbstractCredit
from onward.learners.online import Online, OnlineState
from onward.trees import select
from onward.types import Carry, PyTree, Step


class Staleness(NamedTuple):
    """|S - S*| / |S*|, for S = d hidden / d theta as it was carried along and S* replayed with the weights of now.

    whole: over all parameters. leaves: cell-shaped, one number for each array of parameters, None where nothing learns.
    """

    whole: Float[Array, ""]
    leaves: PyTree


def staleness(learner: Online, before: OnlineState, after: OnlineState, examples: Step) -> Staleness:
    """How stale the traces of `after` are: against a replay, with its weights, of all that was read since `before`.

    A trace is exact for weights that stand. Online they move, and what was added to it long ago belongs to the weights
    of then. Here the observations are read once more from the state `before`, with the weights of `after` and the
    learner's own rule, and the two influences are compared in the Frobenius norm.

    examples: all that was read between the two states, in order, with a leading axis of time; x and reset are used.
    `after`: as `read` returns it, the influence from which the gradient of now is pulled; after `learn` one more
    update is counted. What was stale already at `before` counts as exact: begin where an episode begins, or longer ago
    than the network remembers. Nothing is changed; run it beside training, as often as you like.
    Cost: the rule's, once for each example. Memory: |hidden| |theta| numbers, twice.

    Raises TypeError for a learner that is not an `Online` one of a single stream, and ValueError where the states do
    not belong together: another number of examples was read, or the cell has grown.

    >>> import jax, jax.numpy as jnp, optax
    >>> from onward import Columns, Columnwise, GRUGates, Linear, Model, Online, Step, Supervised, staleness
    >>> learner = Online(Columnwise(), Supervised(), optax.sgd(0.1))
    >>> model = Model(Columns(GRUGates(), 3, 5, key=jax.random.key(0)), Linear(5))
    >>> examples = Step(jnp.ones((20, 3)), jnp.ones(20), jnp.ones(20), jnp.arange(20) == 0)
    >>> before = learner.init(model, jax.tree.map(lambda a: a[0], examples), key=jax.random.key(1))
    >>> after, _ = jax.lax.scan(learner.step, before, examples)
    >>> 0 < float(staleness(learner, before, after, examples).whole) < 1
    True
    """
    if not isinstance(learner, Online) or learner.streams is not None:
        what = "with streams" if isinstance(learner, Online) else type(learner).__name__
        raise TypeError(f"staleness looks at an Online learner of one stream, got {what}")
    shapes = [[a.shape for a in jax.tree.leaves(eqx.filter(s.model, eqx.is_array))] for s in (before, after)]
    if shapes[0] != shapes[1]:
        raise ValueError("staleness: the cell has grown between the two states; take both from after it grew")
    xs = jnp.asarray(examples.x)
    read = int(after.steps) - int(before.steps)
    if xs.ndim != 2 or len(xs) != read or read == 0:
        raise ValueError(
            f"staleness: {read} observations were read between the two states, examples.x has shape {xs.shape}; it "
            f"must be ({read}, {after.model.cell.inputs}), one at least, with the axis of time in front"
        )
    return _compare(learner.credit, before, after, xs, jnp.broadcast_to(jnp.asarray(examples.reset), read))


@eqx.filter_jit
def _compare(rule: AbstractCredit, before: OnlineState, after: OnlineState, xs: Array, resets: Array) -> Staleness:
    cell = after.model.cell

    def step(loop: tuple[Carry, PyTree, Array], instant: tuple[Array, Array]) -> tuple[PyTree, None]:
        carry, credit, steps = loop
        x, reset = instant
        key = jax.random.fold_in(before.key, steps)
        fresh = (cell.init().hidden, rule.init(cell, x, key=key))
        hidden, credit = select(reset, fresh, (carry.hidden, credit))
        carry, credit = rule.advance(cell, Carry(hidden, carry.stats), x, credit, key=key)
        return (carry, credit, steps + 1), None

    (_, replayed, _), _ = jax.lax.scan(step, (before.carry, before.credit, before.steps), (xs, resets))
    carried, exact = (_influence(cell, rule, state) for state in (after.credit, replayed))
    off = jax.tree.map(lambda a, b: jnp.sum(jnp.square(a - b)), carried, exact)
    size = jax.tree.map(lambda a: jnp.sum(jnp.square(a)), exact)
    ratio = lambda a, b: jnp.sqrt(a / jnp.where(b > 0, b, 1))
    total = lambda tree: sum(jax.tree.leaves(tree), start=jnp.zeros(()))
    return Staleness(ratio(total(off), total(size)), jax.tree.map(ratio, off, size))


def _influence(cell: AbstractCell, rule: AbstractCredit, state: PyTree) -> PyTree:
    """D hidden / d parameters, cell-shaped, with the numbers of the hidden state in front."""
    hidden, unravel = ravel_pytree(cell.init().hidden)
    return jax.vmap(lambda one: rule.pull(cell, state, unravel(one)))(jnp.eye(hidden.size, dtype=hidden.dtype))
