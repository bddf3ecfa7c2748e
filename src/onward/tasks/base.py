"""Where examples come from."""

import abc

from jaxtyping import Array, PRNGKeyArray

from onward.parts import AbstractPart
from onward.types import Actions, PyTree, Sequence, Step


class AbstractTask(AbstractPart):
    """A stream of examples, generated inside the compiled loop: `emit` is pure."""

    @property
    @abc.abstractmethod
    def inputs(self) -> int:
        """Size of an observation: x is an array (inputs,)."""

    @abc.abstractmethod
    def init(self, key: PRNGKeyArray) -> PyTree:
        """The state of the stream before its first example."""

    @property
    def actions(self) -> Actions | None:
        """What it can be told to do. Default: None, a stream that goes its way."""
        return None

    def act(self, state: PyTree, action: Array) -> PyTree:
        """The state after an action, in answer to what was emitted last. Default: unchanged."""
        return state

    @abc.abstractmethod
    def emit(self, state: PyTree) -> tuple[PyTree, Step | Sequence]:
        """The state after the next example, and that example: pure, so that it runs inside a compiled loop."""
