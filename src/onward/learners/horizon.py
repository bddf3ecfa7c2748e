"""How far back a gradient reaches."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from onward.credit.base import AbstractCredit
from onward.model import Model
from onward.trees import select
from onward.types import Carry, PyTree


class Horizon(NamedTuple):
    """Of each age, in steps: what of the gradient is older, and what of the state of then is left.

    beyond: |z - z_a| / |z|, z_a being z without the uses of parameters more than a steps ago. left: the largest
    singular value of d h_T / d h_{T-a}. gradient: z itself, cell-shaped.
    """

    beyond: Float[Array, " ages"]
    left: Float[Array, " ages"]
    gradient: PyTree


def horizon(
    rule: AbstractCredit,
    model: Model,
    xs: Float[Array, "time inputs"],
    ages: Sequence[int],
    *,
    decay: float = 0.0,
    cotangent: Array | None = None,
    key: PRNGKeyArray | None = None,
) -> Horizon:
    """How far back the gradient of the cell reaches that a rule makes of an episode, by weights that stand.

    With g_t what the rule pulls at step t for `cotangent` on the prediction (None: ones), z = g_T + decay g_{T-1} +
    decay^2 g_{T-2} + ...: the eligibility of an objective with discount times lambda of `decay`, at the last step of
    xs. Of a single use of the parameters a steps ago there is left about max(decay, retention)^a where the rule is
    exact, and decay^a where it cuts credit at the step; `left` measures the retention of the network itself.

    xs: all that was read since the start of the episode. ages: whole numbers of 1 to its length. Exact for exact rules;
    for others, what they make of it. Cost: a pass of the rule over xs for each age. Raises ValueError for ages out of
    range, xs of another shape, or a decay outside [0, 1].

    >>> import jax, jax.numpy as jnp
    >>> from onward import Columns, Columnwise, Linear, MinGRUGates, Model, horizon
    >>> model = Model(Columns(MinGRUGates(), 2, 3, key=jax.random.key(0)), Linear(3))
    >>> found = horizon(Columnwise(), model, jnp.ones((20, 2)), [1, 5, 20])
    >>> [round(float(left), 3) for left in found.left], float(found.beyond[-1])
    ([0.501, 0.032, 0.0], 0.0)
    """
    xs = jnp.asarray(xs)
    if xs.ndim != 2 or xs.shape[1] != model.cell.inputs or not len(xs):
        raise ValueError(f"horizon: xs must have shape (steps, {model.cell.inputs}), one at least, got {xs.shape}")
    if not len(ages) or not all(isinstance(age, int) and 1 <= age <= len(xs) for age in ages):
        raise ValueError(f"horizon: ages must be whole numbers of 1 to {len(xs)}, the steps of xs, got {list(ages)}")
    if not 0 <= decay <= 1:
        raise ValueError(f"horizon: decay must be in [0, 1], got {decay}")
    key = jax.random.key(0) if key is None else key
    return _measured(rule, model, xs, jnp.asarray(ages), jnp.asarray(decay, xs.dtype), cotangent, key)


@eqx.filter_jit
def _measured(
    rule: AbstractCredit,
    model: Model,
    xs: Array,
    ages: Array,
    decay: Array,
    cotangent: Array | None,
    key: PRNGKeyArray,
) -> Horizon:
    cell, steps = model.cell, len(xs)
    kernel = rule.on(cell)
    keys = jax.random.split(key, steps)

    def of_age(age: Array) -> Array:
        """The gradient, with credit that begins so many steps before the end."""

        def step(loop: PyTree, instant: tuple[Array, Array, PRNGKeyArray]) -> tuple[PyTree, None]:
            carry, credit, z = loop
            t, x, key = instant
            begins = t <= steps - age
            credit = select(begins, kernel.init(x, key=key), credit)
            carry, credit = kernel.advance(carry, x, credit, key=key)
            prediction, pullback = model.answer(carry, key=key)
            _, hidden = pullback(jnp.ones_like(prediction) if cotangent is None else cotangent)
            pulled, _ = ravel_pytree(kernel.pull(credit, hidden))
            return (carry, credit, pulled + jnp.where(begins, 0, decay) * z), None

        first = kernel.init(xs[0], key=keys[0])
        none = jnp.zeros_like(ravel_pytree(eqx.filter(cell, cell.trainable()))[0])
        (_, _, z), _ = jax.lax.scan(step, (model.init(), first, none), (jnp.arange(steps), xs, keys))
        return z

    whole = of_age(jnp.asarray(steps))
    parts = jax.lax.map(of_age, ages)
    size = jnp.linalg.norm(whole)
    beyond = jnp.linalg.norm(whole[None] - parts, axis=1) / jnp.where(size > 0, size, 1)
    _, unravel = ravel_pytree(eqx.filter(cell, cell.trainable()))
    return Horizon(beyond, _left(model, xs, keys)[steps - ages], unravel(whole))


def _left(model: Model, xs: Array, keys: PRNGKeyArray) -> Float[Array, " time"]:
    """Of each step: the largest singular value of d (last hidden state) / d (hidden state before it)."""
    cell, start = model.cell, model.init()
    hidden, unravel = ravel_pytree(start.hidden)

    def forward(carry: Carry, instant: tuple[Array, PRNGKeyArray]) -> tuple[Carry, Array]:
        x, key = instant

        def after(flat: Array) -> Array:
            return ravel_pytree(cell(Carry(unravel(flat), carry.stats), x, key=key).hidden)[0]

        return cell(carry, x, key=key), jax.jacfwd(after)(ravel_pytree(carry.hidden)[0])

    _, jacobians = jax.lax.scan(forward, start, (xs, keys))
    onward = lambda product, jacobian: (product @ jacobian,) * 2
    _, products = jax.lax.scan(onward, jnp.eye(hidden.size, dtype=hidden.dtype), jacobians, reverse=True)
    return jax.vmap(lambda matrix: jnp.linalg.norm(matrix, ord=2))(products)
