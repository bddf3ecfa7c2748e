"""The mean likelihood of several random trajectories."""

import math
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.base import require_size
from onward.heads.base import AbstractHead


class MonteCarlo(AbstractHead):
    """p(y | x) = 1/M sum_m p(y | h^(m)) over M trajectories of a stochastic network (Manchev & Spratling, eq. 7).

    `head` reads each trajectory; likelihoods are averaged, not predictions:
    log p = logsumexp_m log p(y | h^(m)) - log M. A `Model` with this head runs M independent trajectories of its
    cell, as rows of one matrix product, from the same observations. `samples` is M while learning, `evaluation`
    that of `Model.evaluation()` (None: the same). The log of a mean of M is biased low, by about
    variance / (2 M mean^2): more samples give a better likelihood.

    >>> import jax.numpy as jnp
    >>> from onward import Categorical, MonteCarlo
    >>> head = MonteCarlo(Categorical(3, classes=4), samples=5)
    >>> float(jnp.exp(head.log_prob(head(jnp.ones((5, 3))), jnp.array(2))))
    0.25
    """

    head: AbstractHead
    samples: int = eqx.field(default=20, static=True)
    evaluation: int | None = eqx.field(default=None, static=True)

    def __check_init__(self) -> None:
        require_size("MonteCarlo", samples=self.samples, evaluation=1 if self.evaluation is None else self.evaluation)
        if self.head.trajectories is not None:
            raise ValueError("MonteCarlo: its head runs several trajectories already; give it a plain head")

    @property
    def trajectories(self) -> int:
        """How many trajectories of its cell a model runs: `samples`."""
        return self.samples

    def for_evaluation(self) -> "MonteCarlo":
        """The same head with as many samples as evaluation asks for."""
        return MonteCarlo(self.head, self.evaluation or self.samples)

    def __call__(self, features: Float[Array, "samples features"]) -> Float[Array, "samples ..."]:
        """One prediction for each trajectory, from the features of all."""
        return jax.vmap(self.head)(features)

    def log_prob(self, prediction: Array, y: Array) -> Float[Array, ""]:
        """Log of the mean likelihood over trajectories, in nats."""
        each = jax.vmap(lambda p: self.head.log_prob(p, y))(prediction)
        return jax.nn.logsumexp(each) - math.log(each.shape[0])

    def mean(self, prediction: Array) -> Array:
        """The mean over trajectories of the mean of `head`."""
        return jnp.mean(jax.vmap(self.head.mean)(prediction), 0)

    def sample(self, prediction: Array, *, key: PRNGKeyArray) -> Array:
        """One draw from one trajectory, chosen at random."""
        which, draw = jax.random.split(key)
        chosen = jax.random.randint(which, (), 0, prediction.shape[0])
        return self.head.sample(prediction[chosen], key=draw)

    def grow(self, features: int) -> Self:
        """`head` grows; TypeError if it cannot."""
        return eqx.tree_at(lambda m: m.head, self, self.head.grow(features))
