"""What a learner is: an example in, a new model out."""

import abc
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from onward.heads.base import AbstractHead
from onward.model import Model
from onward.objectives.base import AbstractObjective
from onward.objectives.supervised import Supervised
from onward.parts import AbstractPart
from onward.trees import apply_scaled
from onward.types import Actions, Info, PyTree, Sequence, Step

Rate = float | Float[Array, ""]
Method = TypeVar("Method", bound=Callable[..., Any])
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class AbstractLearner(AbstractPart):
    """Keeps the model in its state and improves it with every example.

    States are pytrees of arrays: they go through `jit`, `scan` and `vmap`, and `onward.save` writes them.
    """

    @abc.abstractmethod
    def init(self, model: Model, example: Step | Sequence, *, key: PRNGKeyArray) -> PyTree:
        """The state before the first example, whose shapes `example` gives; it has a field `model`."""

    @abc.abstractmethod
    def step(self, state: PyTree, example: Step | Sequence) -> tuple[PyTree, Info]:
        """Predict, then learn: the new state, and the prediction and loss from before the update."""

    def actions(self, model: Model) -> Actions | None:
        """What it chooses from at each step. Default: None, for a learner that does not act."""
        return None


def compiled(method: Method) -> Method:
    """A method that compiles itself where no program around it is being traced.

    Op by op it would be traced and compiled anew at each call. Python numbers in its arguments are made arrays, so
    that their values do not count as other programs.
    """
    alone = eqx.filter_jit(method)
    number = lambda a: jnp.asarray(a) if isinstance(a, bool | int | float) else a

    @wraps(method)
    def call(self: eqx.Module, *arguments: PyTree, **named: PyTree) -> PyTree:
        given = (self, arguments, named)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(given)):
            return method(self, *arguments, **named)
        return alone(self, *jax.tree.map(number, arguments), **jax.tree.map(number, named))

    return call  # type: ignore[return-value]


def inside(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A method as it is within a program that is traced anyhow: of a class, without what `compiled` put around it."""
    return getattr(method, "__wrapped__", method)


class Told(NamedTuple):
    """What a step-size rule may be told beside the gradient, which is -delta times the eligibility."""

    delta: Array
    eligibility: PyTree
    step_size: Rate


def start_optimiser(owner: str, optimiser: optax.GradientTransformation, parameters: PyTree) -> PyTree:
    """The first state of a transformation; TypeError for one that wants more than `descend` can give."""
    state = optimiser.init(parameters)
    if error := _misses(optimiser, state, parameters):
        raise TypeError(
            f"{owner}: the optimiser wants what a learner does not give ({error}); learners give params, value (the "
            "loss) and grad, and Online of one stream delta and eligibility. Take a transformation without a line "
            "search, optax.lbfgs(linesearch=None) or optax.adam"
        ) from None
    return state


def wants_told(optimiser: optax.GradientTransformation, state: PyTree, parameters: PyTree) -> bool:
    """Whether a transformation is a step-size rule that needs delta and eligibility."""
    return bool(_misses(optimiser, state, parameters)) and not _misses(optimiser, state, parameters, told=True)


def _misses(
    optimiser: optax.GradientTransformation, state: PyTree, parameters: PyTree, told: bool = False
) -> TypeError | None:
    """What an update says that it misses; None: nothing."""
    gradient = jax.tree.map(jnp.zeros_like, parameters)
    zero = jnp.zeros(())

    def update(gradient: PyTree, state: PyTree, parameters: PyTree) -> PyTree:
        given = Told(zero, gradient, 1.0) if told else None
        return descend(optimiser, gradient, state, parameters, 1.0, zero, given)

    try:
        jax.eval_shape(update, gradient, state, parameters)
    except TypeError as error:
        if "required keyword-only argument" not in str(error) and "required positional argument" not in str(error):
            raise
        return error
    return None


def descend(
    optimiser: optax.GradientTransformation,
    gradient: PyTree,
    state: PyTree,
    parameters: PyTree,
    step_size: Rate,
    loss: Array,
    told: Told | None = None,
) -> tuple[PyTree, PyTree]:
    """Parameters + step_size * updates, and the transformation's state; `value` and `grad` for those that want them."""
    extra = {"value": loss, "grad": gradient} if isinstance(optimiser, optax.GradientTransformationExtraArgs) else {}
    if told is not None:
        extra |= told._asdict()
    updates, state = optimiser.update(gradient, state, parameters, **extra)
    return apply_scaled(parameters, updates, step_size), state


def require_supervised(owner: str, objective: AbstractObjective) -> None:
    """Refuse an objective whose loss is not that of single instants."""
    if not isinstance(objective, Supervised):
        raise TypeError(
            f"{owner} needs the loss of each instant by itself, Supervised(loss), "
            f"not {objective if isinstance(objective, type) else type(objective).__name__}; that is for Online"
        )


def require_scalar(owner: str, name: str, rate: Rate | None) -> None:
    """Refuse a rate that is an array, traced or not."""
    if rate is not None and jnp.shape(rate) != ():
        raise ValueError(
            f"{owner}: {name} must be a scalar, got an array of shape {jnp.shape(rate)}; make one learner for each "
            "under jax.vmap, or give them to Loop(step_sizes=)"
        )


def require_sequences(owner: str, model: Model, example: Sequence) -> None:
    """Refuse batches that the model cannot read, or whose targets do not cover their last steps."""
    xs, y, mask = example
    if xs.ndim != 3 or xs.shape[2] != model.cell.inputs or 0 in xs.shape:
        raise ValueError(f"{owner} needs xs of shape (time, batch, {model.cell.inputs}), the task gives {xs.shape}")
    if mask.ndim != 2 or not 1 <= len(mask) <= len(xs) or mask.shape[1] != xs.shape[1] or y.shape[:2] != mask.shape:
        raise ValueError(
            f"{owner} needs y and mask of shape (outputs, {xs.shape[1]}, ...), for the last `outputs` of "
            f"{len(xs)} steps; the task gives y {y.shape} and mask {mask.shape}"
        )


def require_rate(owner: str, name: str, rate: Any) -> None:
    """Refuse a rate that is known now and is not a positive, finite number; None stands for a default."""
    if rate is None or isinstance(rate, jax.core.Tracer):
        return
    number = not isinstance(rate, bool | str) and np.issubdtype(np.asarray(rate).dtype, np.number)
    if not number or not bool(np.all((np.asarray(rate) > 0) & np.isfinite(rate))):
        raise ValueError(f"{owner}: {name} must be positive and finite, got {rate}")


def weighted_sum(losses: Array, mask: Array) -> Array:
    """Sum of mask times loss; where the mask is 0 a target may be anything."""
    return jnp.sum(jnp.where(mask != 0, losses, 0) * mask)


def gather_trajectories(head: AbstractHead, features: Float[Array, "rows features"]) -> Array:
    """Features as the head reads them: the trajectories of a sequence, neighbouring rows, on an axis of their own."""
    return features if head.trajectories is None else features.reshape(-1, head.trajectories, features.shape[-1])
