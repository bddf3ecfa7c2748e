"""Maximum likelihood of a target that is known now."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from onward.model import Model
from onward.objectives.base import AbstractObjective
from onward.types import Info, PyTree, Step


class Supervised(AbstractObjective):
    """loss = -weight log p(y | prediction); its gradient is the pull of the loss's cotangent.

    Instants of weight 0 carry no loss and make no update.
    """

    def init(self, model: Model) -> tuple[()]:
        """Nothing to remember."""
        return ()

    def step(
        self, state: tuple[()], model: Model, prediction: Array, example: Step, pull: Callable[[Array], Any]
    ) -> tuple[tuple[()], PyTree, Bool[Array, ""], Info]:
        """The gradient of this instant's loss."""
        # Where nothing counts a target may be anything, a class that does not exist too.
        lose = lambda p: jnp.where(example.weight > 0, -example.weight * model.head.log_prob(p, example.y), 0)
        loss, cotangent = jax.value_and_grad(lose)(prediction)
        return (), pull(cotangent), example.weight > 0, Info(prediction, loss)

    def grow(self, state: tuple[()], model: Model) -> tuple[()]:
        """Nothing to keep."""
        return ()
