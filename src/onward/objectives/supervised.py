"""The loss of a target that is known now: maximum likelihood, or a loss of one's own."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from onward.heads.base import AbstractHead
from onward.model import Model
from onward.objectives.base import AbstractObjective
from onward.types import Info, PyTree, Step

Loss = Callable[[AbstractHead, Array, Array], Float[Array, ""]]


def negative_log_likelihood(head: AbstractHead, prediction: Array, y: Array) -> Float[Array, ""]:
    """-log p(y | prediction), in nats."""
    return -head.log_prob(prediction, y)


class Supervised(AbstractObjective):
    """weight * loss(head, prediction, y); its gradient is the pull of the loss's cotangent.

    `loss` is a function of the head, one prediction and one target that gives a scalar; the default is maximum
    likelihood. It is written once, for `Online` and, in batches, for `BPTT` and `TPTT`. Instants of weight 0 carry no
    loss and make no update; a negative weight counts as it is given, and moves away from the target. Exact: nothing is
    approximated here.

    >>> import jax.numpy as jnp
    >>> from onward import Supervised
    >>> Supervised(lambda head, prediction, y: jnp.abs(head.mean(prediction) - y)).init(None)
    ()
    """

    loss: Loss = eqx.field(default=negative_log_likelihood, static=True)

    def __check_init__(self) -> None:
        if not callable(self.loss):
            raise TypeError(f"Supervised: loss must be a function (head, prediction, y) -> scalar, got {self.loss!r}")

    def init(self, model: Model) -> tuple[()]:
        """(): an instant needs nothing from those before it."""
        return ()

    def step(
        self, state: tuple[()], model: Model, prediction: Array, example: Step, pull: Callable[[Array], PyTree]
    ) -> tuple[tuple[()], PyTree, Bool[Array, ""], Info]:
        """The gradient of this instant's loss; nothing to learn where the weight is 0."""
        y, weight = jnp.asarray(example.y), jnp.asarray(example.weight)
        counts = weight != 0
        # Where nothing counts a target may be anything, a class that does not exist too.
        lose = lambda p: jnp.where(counts, weight * self.loss_of(model.head, p, y), 0)
        loss, cotangent = jax.value_and_grad(lose)(prediction)
        delta = -cotangent if prediction.shape == () else None
        return (), pull(cotangent), counts, Info(prediction, loss, delta=delta)

    def eligibility(self, state: tuple[()], prediction: Array, pull: Callable[[Array], PyTree], delta: Array) -> PyTree:
        """The gradient of the prediction; TypeError for one that is no scalar."""
        if prediction.shape != ():
            raise TypeError(
                f"Supervised: this optimiser wants the error of a scalar prediction, got shape {prediction.shape}; use "
                "Linear(features), or another optimiser"
            )
        return pull(jnp.ones_like(prediction))

    def loss_of(self, head: AbstractHead, prediction: Array, y: Array) -> Float[Array, ""]:
        """The loss of one prediction; ValueError if it is no scalar."""
        loss = self.loss(head, prediction, y)
        if jnp.shape(loss) != ():
            raise ValueError(f"Supervised: loss must give one number, got shape {jnp.shape(loss)}; sum over outputs")
        return loss

    def grow(self, state: tuple[()], model: Model) -> tuple[()]:
        """(): there is nothing to keep."""
        return ()
