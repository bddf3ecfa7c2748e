"""Whether a learner, its network and its state are such that they can act in an environment; if not, what to do."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from onward.adapters.gymnasium.spaces import name_of
from onward.adapters.gymnasium.worlds import World
from onward.learners.base import AbstractLearner
from onward.model import Model
from onward.types import Actions, PyTree, Step


def require_streams(world: World, learner: Any) -> None:
    """Refuse a learner of another number of environments than there are."""
    streams = getattr(getattr(learner, "online", learner), "streams", None)
    if streams == world.streams:
        return
    if world.streams is None:
        raise ValueError(
            f"train: the learner has {streams} streams and {name_of(world.env)} is one environment: leave streams out, "
            f"or make gymnasium.make_vec(..., num_envs={streams})"
        )
    raise ValueError(
        f"train: {name_of(world.env)} is {world.streams} environments and the learner has "
        f"{'one stream' if streams is None else f'{streams} streams'}: give Online(..., streams={world.streams})"
    )


def require_fit(world: World, learner: AbstractLearner, network: Model) -> None:
    """Refuse a network that reads something else, and an objective that chooses from something else."""
    name, width, wanted = name_of(world.env), world.seen.width, world.doing.actions
    if network.cell.inputs != width:
        raise ValueError(
            f"train: an observation of {name} is {width} numbers, the network reads {network.cell.inputs}: make its "
            f"cell with {width} inputs; one that has learned elsewhere does not fit here"
        )
    given = learner.actions(network)
    if given == wanted:
        return
    start = f"train: {name} takes {_said(wanted)}, and the learner chooses from {_said(given)}"
    if given is None:
        raise TypeError(f"{start}: take an objective that acts, as Online(..., QLambda()) has")
    if isinstance(wanted, int):
        raise ValueError(f"{start}: make the head for {wanted}; one that has learned elsewhere does not fit here")
    raise ValueError(
        f"{start}: take an objective for real numbers, such as ActorCritic, or wrap the environment in "
        "gymnasium.wrappers.DiscretizeAction"
    )


def _said(actions: Actions | None) -> str:
    if actions is None:
        return "nothing: its objective does not act"
    return f"{actions} actions" if isinstance(actions, int) else f"real numbers of shape {actions}"


def require_state(learner: AbstractLearner, state: PyTree, example: Step, key: PRNGKeyArray) -> None:
    """Refuse a state of another learner, or of another number of streams."""
    wanted = eqx.filter_eval_shape(lambda model: learner.init(model, example, key=key), state.model)
    shapes = lambda tree: {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        if hasattr(leaf, "dtype")
    }
    given, needed = shapes(state), shapes(wanted)
    for name in sorted({*given} | {*needed}):
        if given.get(name) != needed.get(name):
            raise ValueError(
                f"train: the state is not one of this learner: {name} is {given.get(name, 'not there')}, "
                f"{needed.get(name, 'nothing of that name')} is needed"
            )
