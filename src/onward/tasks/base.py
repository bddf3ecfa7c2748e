"""Where examples come from."""

import abc

from jaxtyping import PRNGKeyArray

from onward.parts import AbstractPart
from onward.types import PyTree, Sequence, Step


class AbstractTask(AbstractPart):
    """A stream of examples, generated inside the compiled loop: `emit` is pure."""

    @property
    @abc.abstractmethod
    def inputs(self) -> int:
        """Size of an observation: x is an array (inputs,)."""

    @abc.abstractmethod
    def init(self, key: PRNGKeyArray) -> PyTree:
        """The state of the stream before its first example."""

    @abc.abstractmethod
    def emit(self, state: PyTree) -> tuple[PyTree, Step | Sequence]:
        """The state after the next example, and that example: pure, so that it runs inside a compiled loop."""
