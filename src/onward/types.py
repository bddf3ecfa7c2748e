"""The values that parts hand to one another."""

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float

PyTree = Any
# What an action is: so many choices, 0 and up, or real numbers of this shape.
Actions = int | tuple[int, ...]


class Carry(NamedTuple):
    """State of a cell.

    `hidden` is differentiated by credit rules and cleared when an episode starts; `stats` holds
    running moments only, is never differentiated and survives a reset.
    """

    hidden: PyTree
    stats: PyTree


class Step(NamedTuple):
    """One instant of a stream.

    `weight` scales the loss at this instant (0: nothing to learn from it, and no update is made; a negative one counts
    as it is given); `reset` says that an episode starts here, before `x` is read; `discount` multiplies that of an
    objective which looks ahead, for what follows this instant (None: 1): 0 where an episode ends, with `y` its last
    reward; an episode that is cut short ends with a discount of 1, and the next `reset`. Metrics only may read `truth`.
    For parallel streams `x` and `y` have a leading axis, and the others too, or one value for all. What `lax.scan` or
    `vmap` runs over needs that axis on every leaf: there build the step inside, or give arrays.

    >>> import jax.numpy as jnp
    >>> Step(jnp.ones(3), y=1.0)[2:]
    (1.0, False, None, None)
    """

    x: Float[Array, " inputs"]
    y: Array | float
    weight: Float[Array, ""] | float = 1.0
    reset: Bool[Array, ""] | bool = False
    truth: PyTree = None
    discount: Float[Array, ""] | float | None = None

    def discounted(self, discount: float) -> Array | float:
        """An objective's discount times that of this step."""
        return discount if self.discount is None else discount * self.discount


class Sequence(NamedTuple):
    """A batch of trajectories, time first.

    Targets `y` and weights `mask` of the loss cover the last `outputs` steps: one of them, or all.
    """

    xs: Float[Array, "time batch inputs"]
    y: Array
    mask: Float[Array, "outputs batch"]


class Info(NamedTuple):
    """What a learner reports of one example: its prediction before the update, and its loss.

    `alignment`: of each watched rule, cosine and norm ratio of its gradient to the exact one, and 1 if there was one.
    `delta`: the error of a scalar prediction, target minus prediction in the objective's sense; None where it has none.
    `action`: what an objective that acts has chosen; None of others.
    """

    prediction: Array
    loss: Float[Array, ""]
    alignment: tuple[Float[Array, "3"], ...] = ()
    delta: Float[Array, ""] | None = None
    action: Array | None = None
