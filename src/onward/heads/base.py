"""What a head is: features to a distribution."""

import abc

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from onward.parts import AbstractPart
from onward.types import PyTree


class AbstractHead(AbstractPart):
    """Reads the features of a cell and answers with (the parameters of) a distribution of y."""

    @abc.abstractmethod
    def __call__(self, features: Float[Array, " features"]) -> Array:
        """The prediction: parameters of the distribution of y, in the form that the other methods take."""

    @abc.abstractmethod
    def log_prob(self, prediction: Array, y: Array) -> Float[Array, ""]:
        """Log probability (density) of y, in nats."""

    @abc.abstractmethod
    def mean(self, prediction: Array) -> Array:
        """The expected y: of classes and bits their probabilities."""

    @abc.abstractmethod
    def sample(self, prediction: Array, *, key: PRNGKeyArray) -> Array:
        """One draw of y, shaped like a target."""

    def grow(self, features: int) -> "AbstractHead":
        """The same function of a longer feature vector: the new features weigh zero. Default: TypeError."""
        raise TypeError(f"{type(self).__name__} has no grow(features): it does not fit a cell that grows")

    @property
    def trajectories(self) -> int | None:
        """How many trajectories of its cell a model runs for this head, which then reads them all; None: just one."""
        return None

    def for_evaluation(self) -> "AbstractHead":
        """The head to measure with: itself, or one with more trajectories."""
        return self

    def trainable(self) -> PyTree:
        """A head-shaped tree of bools: every floating array learns."""
        return jax.tree.map(eqx.is_inexact_array, self)
