"""Maximum likelihood of a target that is known now."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Bool

from onward._types import Info, PyTree, Step
from onward.model import Model
from onward.objectives.base import AbstractObjective


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
        loss, cotangent = jax.value_and_grad(lambda p: -example.weight * model.head.log_prob(p, example.y))(prediction)
        return (), pull(cotangent), example.weight > 0, Info(prediction, loss)

    def grow(self, state: tuple[()], model: Model) -> tuple[()]:
        """Nothing to keep."""
        return ()
