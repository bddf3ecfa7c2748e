"""What an objective is: from an error and a `pull` to a gradient."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Bool

from onward.model import Model
from onward.types import Info, PyTree, Step


class AbstractObjective(eqx.Module):
    """Turns predictions into a gradient to descend, by pulling cotangents of the prediction."""

    @abc.abstractmethod
    def init(self, model: Model) -> PyTree:
        """The objective's state at the start of an episode."""

    @abc.abstractmethod
    def step(
        self, state: PyTree, model: Model, prediction: Array, example: Step, pull: Callable[[Array], Any]
    ) -> tuple[PyTree, PyTree, Bool[Array, ""], Info]:
        """New state, model-shaped gradient to descend, whether there is anything to learn now, and what to report."""

    @abc.abstractmethod
    def grow(self, state: PyTree, model: Model) -> PyTree:
        """The state for a model that has grown: what is known of its old parts is kept."""
