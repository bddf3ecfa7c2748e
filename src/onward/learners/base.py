"""What a learner is: an example in, a new model out."""

import abc

import equinox as eqx
from jaxtyping import PRNGKeyArray

from onward._types import Info, PyTree, Sequence, Step
from onward.model import Model


class AbstractLearner(eqx.Module):
    """Keeps the model in its state and improves it with every example."""

    @abc.abstractmethod
    def init(self, model: Model, example: Step | Sequence, *, key: PRNGKeyArray) -> PyTree:
        """The state before the first example; it has a field `model`."""

    @abc.abstractmethod
    def step(self, state: PyTree, example: Step | Sequence) -> tuple[PyTree, Info]:
        """Predict, then learn."""
