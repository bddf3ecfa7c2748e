"""What an objective is: from an error and a `pull` to a gradient."""

import abc
from collections.abc import Callable

from jaxtyping import Array, Bool, Int, PRNGKeyArray

from onward.model import Model
from onward.parts import AbstractPart
from onward.types import Actions, Info, PyTree, Step


class AbstractObjective(AbstractPart):
    """Turns predictions into a gradient to descend, by pulling cotangents of the prediction."""

    @abc.abstractmethod
    def init(self, model: Model) -> PyTree:
        """The objective's state at the start of an episode."""

    @abc.abstractmethod
    def step(
        self, state: PyTree, model: Model, prediction: Array, example: Step, pull: Callable[[Array], PyTree]
    ) -> tuple[PyTree, PyTree, Bool[Array, ""], Info]:
        """What one instant teaches.

        `pull` takes a cotangent, shaped like the prediction, to a model-shaped gradient by the credit rule. Returns the
        new state, the model-shaped gradient to descend (with `step_sizes` a tuple of them), whether there is anything
        to learn now, and what to report.
        """

    def choose(
        self, state: PyTree, prediction: Array, steps: Int[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[PyTree, Array | None]:
        """What to do now, and the state that remembers it for `step`; `steps` counts readings, for schedules.

        Default: nothing is done (None).
        """
        return state, None

    def actions(self, outputs: tuple[int, ...]) -> Actions | None:
        """What it chooses from, by the shape of a prediction; ValueError for one that does not fit. Default: None."""
        return None

    @property
    def step_sizes(self) -> tuple[float, ...] | None:
        """Of an objective with several gradients: the step size of each, relative to the learner's.

        Each gradient has an optimiser state of its own. Default: None, for one gradient.
        """
        return None

    def eligibility(self, state: PyTree, prediction: Array, pull: Callable[[Array], PyTree], delta: Array) -> PyTree:
        """What `info.delta` multiplies: the gradient that `step` gives from this state is -delta times it.

        For step-size rules that are told both apart; with `step_sizes` a tuple. Default: TypeError, for an objective
        without one error.
        """
        raise TypeError(
            f"{type(self).__name__} has no delta and eligibility, which this optimiser wants; use TDLambda, "
            "Supervised with a scalar prediction, or of those that act QLambda, SarsaLambda, ActorCritic or Reinforce"
        )

    def grow(self, state: PyTree, model: Model) -> PyTree:
        """The state for a model that has grown: what is known of its old parts is kept. Default: TypeError."""
        raise TypeError(f"{type(self).__name__} has no grow(state, model): its state does not fit a cell that grows")
