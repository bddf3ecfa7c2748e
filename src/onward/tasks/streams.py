"""Several streams at once."""

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray

from onward.cells.base import require_size
from onward.tasks.base import AbstractTask
from onward.types import Actions, PyTree, Sequence, Step


class Streams(AbstractTask):
    """`count` independent streams of a task, side by side, for `Online(streams=count)`: every array has a leading axis.

    >>> import jax
    >>> from onward import AnBn, Streams
    >>> task = Streams(AnBn(), 4)
    >>> task.emit(task.init(jax.random.key(0)))[1].x.shape
    (4, 3)
    """

    task: AbstractTask
    count: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        require_size("Streams", count=self.count)

    @property
    def inputs(self) -> int:
        """Size of an observation of one stream."""
        return self.task.inputs

    def init(self, key: PRNGKeyArray) -> PyTree:
        """Every stream from a seed of its own."""
        return jax.vmap(self.task.init)(jax.random.split(key, self.count))

    @property
    def actions(self) -> Actions | None:
        """Those of one stream."""
        return self.task.actions

    def act(self, state: PyTree, action: Array) -> PyTree:
        """One action of each."""
        return jax.vmap(self.task.act)(state, action)

    def emit(self, state: PyTree) -> tuple[PyTree, Step | Sequence]:
        """The next example of each."""
        return jax.vmap(self.task.emit)(state)
