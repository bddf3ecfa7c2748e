"""What every set of experts that answer beside the network has, of classes, of the same row and of rows to come."""

from typing import NamedTuple, Protocol, Self

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from onward.rows.stream.moments import Running


class Sizes(NamedTuple):
    """What the arrays of experts follow from.

    `read`: how many numbers of the network's features least squares reads. `lag`: rows until a target is known; of
    `path` above 1, until all of a path are.
    """

    inputs: int
    classes: int
    targets: int
    read: int
    lag: int
    seed: int
    path: int = 1


class Heard(NamedTuple):
    """What a row brings.

    `rows`: how many there were before. `y`: the targets that stand in it, as they are believed, `arrived`: what an
    answer is judged by; NaN where not known. `step`: how far a level has moved. `at`: where the row lies in time.
    `moments`: those of the targets by which the network answers.
    """

    rows: Int[Array, ""]
    y: Float[Array, " targets"]
    arrived: Float[Array, " targets"]
    step: Float[Array, " targets"]
    at: Int[Array, " width"]
    moments: Running


class Asked(NamedTuple):
    """What an answer is made of.

    `network`, `linear`: what these say of each target, or the probabilities. `x`: the row as it is believed, `columns`
    the same, normalised, `features` what the network makes of it. `base`, `unit`: the value whose change is predicted,
    and its usual change. `awake`: which experts may speak.
    """

    network: Float[Array, " outputs"]
    linear: Float[Array, " outputs"]
    x: Float[Array, " inputs"]
    columns: Float[Array, " inputs"]
    features: Float[Array, " features"]
    base: Float[Array, " targets"]
    unit: Float[Array, " targets"]
    at: Int[Array, " width"]
    moments: Running
    awake: Bool[Array, " experts"]


class AbstractExperts(Protocol):
    """Experts and their mixture: a `NamedTuple` of arrays, a part of the state of a stream.

    With horizon 0 a row is first answered, then heard; else first heard, then what follows it is answered.
    """

    @staticmethod
    def names() -> tuple[str, ...]:
        """In the order of their answers."""

    @classmethod
    def start(cls, sizes: Sizes) -> Self:
        """Nothing known."""

    def answer(self, asked: Asked) -> Self:
        """With what is said of a row."""

    def learn(self, heard: Heard, said: Float[Array, " targets"]) -> tuple[Self, Float[Array, " targets"]]:
        """After one more row; and what the mixture had said of what has arrived: `said` of the network alone."""

    def see(self, heard: Heard) -> Self:
        """After a row from which nothing is learned."""

    def mixed(self, network: Array) -> Array:
        """What the mixture says of the row that was asked last; of nobody, what the network says."""

    def spoken(self) -> tuple[Float[Array, "targets experts"], Float[Array, "targets experts"]]:
        """The share of each in it, and what each says; of classes the class."""

    def enlarge(self, fresh: Self, at: int, more: int) -> Self:
        """With the room that `fresh` has: at place `at` of what is read come `more` inputs, or more classes."""

    @property
    def in_stack(self) -> dict[str, Array]:
        """What each other expert counts for in the stack."""


class NoExperts(NamedTuple):
    """The network alone."""

    @staticmethod
    def names() -> tuple[str, ...]:
        """Nobody."""
        return ()

    @classmethod
    def start(cls, sizes: Sizes) -> Self:
        """Nothing."""
        return cls()

    def answer(self, asked: Asked) -> Self:
        """Nothing is said."""
        return self

    def learn(self, heard: Heard, said: Array) -> tuple[Self, Array]:
        """Nothing is learned."""
        return self, said

    def see(self, heard: Heard) -> Self:
        """Nothing is remembered."""
        return self

    def mixed(self, network: Array) -> Array:
        """What the network says."""
        return network

    def spoken(self) -> tuple[Array, Array]:
        """Nobody speaks."""
        return jnp.zeros((1, 0)), jnp.zeros((1, 0))

    def enlarge(self, fresh: Self, at: int, more: int) -> Self:
        """Nothing grows."""
        return self

    @property
    def in_stack(self) -> dict[str, Array]:
        """There is none."""
        return {}


def shares(weights: Array, answers: Float[Array, "targets experts"]) -> Float[Array, "targets experts"]:
    """The share of each in the mixture of those that have an answer."""
    share = jnp.where(jnp.isfinite(answers), jnp.atleast_2d(weights), 0)
    return share / jnp.maximum(jnp.sum(share, 1, keepdims=True), 1e-30)
