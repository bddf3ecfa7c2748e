"""A small world in partial sight, a table that learns to act in it, and a record of every step."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import onward as ow
from onward.verify import in_float64
from onward.verify.gradients import quick

SIGHTS = 3
CHOICES = 3
SEEN = (0, 1, 2, 1, 2)


class Corridor(ow.AbstractEnvironment):
    """Five places that look like three: left, stay or right, of which a fifth slips; the right end is worth 1.

    Each move costs a quarter. Ends at the right, and is cut short after 6 moves. `continuous`: the sign of the first of
    two real numbers says where to.
    """

    continuous: bool = eqx.field(default=False, static=True)
    cut_after: int | None = eqx.field(default=6, static=True)

    @property
    def inputs(self):
        return SIGHTS

    @property
    def actions(self):
        return (2,) if self.continuous else CHOICES

    @property
    def limit(self):
        return self.cut_after

    def begin(self, draw):
        return draw.integer(0, 3)

    def move(self, place, action, draw):
        step = jnp.sign(action[0]).astype(int) if self.continuous else action - 1
        place = jnp.clip(place + jnp.where(draw.uniform() < 0.2, -step, step), 0, 4)
        return place, jnp.where(place == 4, 1.0, -0.25), place == 4

    def observe(self, place):
        return (jnp.arange(SIGHTS) == jnp.asarray(SEEN)[place]).astype(jnp.float32)


class _Kernel(ow.AbstractKernel):
    kind = "exact"
    cell: ow.AbstractCell

    def init(self, x, *, key=None):
        return ()

    def advance(self, carry, x, state, *, key=None):
        return self.cell(carry, x, key=key), ()

    def pull(self, state, cotangent):
        return eqx.filter(self.cell, self.cell.trainable())


class Nothing(ow.AbstractCredit):
    """For a cell without parameters, which every other rule refuses."""

    kind = "exact"

    def on(self, cell):
        return _Kernel(cell)

    def init(self, cell, x, *, key=None):
        return ()


class Seen(NamedTuple):
    """A record of all steps, time first: head and objective are those after the step."""

    x: np.ndarray
    y: np.ndarray
    reset: np.ndarray
    discount: np.ndarray
    prediction: np.ndarray
    action: np.ndarray
    delta: np.ndarray
    loss: np.ndarray
    head: ow.Linear
    objective: NamedTuple


def step_in_order(learner, state, example):
    """What `Online.step` does."""
    return learner.step(state, example)


@quick
def _follow(learner, model, task, step, steps):
    world = task.init(jax.random.key(5))
    state = learner.init(model, task.emit(world)[1], key=jax.random.key(6))

    def body(loop, _):
        world, example = task.emit(loop[0])
        state, info = step(learner, loop[1], example)
        of_step = (example.x, example.y, example.reset, example.discount, info.prediction, info.action)
        kept = Seen(*of_step, info.delta, info.loss, state.model.head, state.objective)
        return (task.act(world, info.action), state), kept

    (_, state), seen = jax.lax.scan(body, (world, state), length=steps)
    return state, seen


def follow(learner, model, *, task=None, steps=200, step=step_in_order):
    """The last state, and the record in float64, of a learner in the corridor."""
    with jax.enable_x64(True):
        task = task or Corridor(learner.objective.actions(model.prediction_shape) == (2,))
        return jax.tree.map(
            lambda a: np.asarray(a) if eqx.is_array(a) and not jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a,
            _follow(learner, model, task, step, steps),
        )


def table(outputs):
    """A value of each sight: a linear head over the observation, in float64, of small random numbers."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        head = ow.Linear(SIGHTS, outputs)
        arrays = (jnp.asarray(0.1 * rng.normal(size=head.weight.shape)), jnp.asarray(0.1 * rng.normal(size=outputs)))
        return ow.Model(ow.Echo(SIGHTS), eqx.tree_at(lambda h: (h.weight, h.bias), in_float64(head), arrays))


def tabular(objective, outputs, *, optimiser=None, step_size=0.1, **options):
    """A record of a table that learns by this objective."""
    learner = ow.Online(Nothing(), objective, optimiser or optax.sgd(1.0), step_size)
    _, seen = follow(learner, table(outputs), **options)
    return seen
