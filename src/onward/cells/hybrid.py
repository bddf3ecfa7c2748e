"""Stochastic units among deterministic ones."""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.base import AbstractCell, AbstractGates, States
from onward.cells.dense import Dense
from onward.random import seed_of, uniform
from onward.types import Carry


class Hybrid(AbstractCell):
    """A dense layer of which a share of the hidden units is binary and random (Manchev & Spratling, eq. 5).

    The carry holds means. A stochastic unit is sampled when it is read, by the recurrent weights and by
    the head alike, each time anew: it says `high` with probability (h - low) / (high - low), else `low`, where
    (low, high) is the range of its kind of unit: (0, 1) for sigmoid units, so that h is the probability of
    firing; (-1, 1) for tanh, GRU and LSTM units. What is read has mean h. A unit's own memory (z h in a GRU,
    f c in an LSTM) is not a reading and stays as it is.

    `share` of the units, the first ones, is stochastic: 0 is the plain layer, bit for bit, and 1 has no
    deterministic unit. `straight_through`: the derivative of a reading by h is taken to be 1, as if the unit were
    deterministic (Bengio et al., 2013; biased); without it nothing flows through a stochastic unit.
    Cost: that of the layer, and one hash a unit and reading. A reading needs `key`.

    >>> import jax
    >>> from onward import Elman, Hybrid
    >>> cell = Hybrid(Elman(1, 4, key=jax.random.key(0), activation="sigmoid"), share=0.5)
    >>> cell.stochastic, cell.features(cell.init(), key=jax.random.key(1)).tolist()
    (2, [0.0, 0.0, 0.0, 0.0])
    """

    cell: Dense
    share: float = eqx.field(default=0.5, static=True)
    straight_through: bool = eqx.field(default=True, static=True)

    def __check_init__(self) -> None:
        if not isinstance(self.cell, Dense):
            raise TypeError(
                f"Hybrid: cell must be a dense layer (Elman, GRU, LSTM, Dense), got {type(self.cell).__name__}"
            )
        if not 0 <= self.share <= 1:
            raise ValueError(f"Hybrid: share must be in [0, 1], got {self.share}")
        if self.stochastic and type(self.cell.gates).features is not AbstractGates.features:
            raise ValueError(
                f"Hybrid: {type(self.cell.gates).__name__} show a head more than h, and only h can be sampled; "
                "choose units whose one feature is h, or share=0"
            )
        if self.stochastic and self.cell.gates.span is None:
            raise ValueError(
                f"Hybrid: {type(self.cell.gates).__name__} does not say between which two values its h lies; "
                "give it a `span`, or choose bounded units such as tanh"
            )

    @property
    def gates(self) -> AbstractGates:
        """The kind of unit of the layer."""
        return self.cell.gates

    @property
    def inputs(self) -> int:
        """Size of an observation, x of shape (inputs,)."""
        return self.cell.inputs

    @property
    def feature_count(self) -> int:
        """Units: a head reads every one."""
        return self.cell.feature_count

    @property
    def stochastic(self) -> int:
        """How many units are stochastic."""
        return round(self.share * self.cell.units)

    def init(self) -> Carry:
        """The state of the layer at its start; a sample is drawn only when it is read."""
        return self.cell.init()

    def read(self, h: Float[Array, " units"], *, key: PRNGKeyArray | None) -> Float[Array, " units"]:
        """What is seen of h: samples of the stochastic units, the others as they are."""
        count = self.stochastic
        if count == 0:
            return h
        if key is None:
            raise ValueError("Hybrid: its units are sampled when they are read; pass key=jax.random.key(...)")
        assert self.gates.span is not None
        low, high = self.gates.span
        drawn = uniform(seed_of(key), jnp.zeros((), jnp.int32), jnp.arange(count, dtype=jnp.uint32)).astype(h.dtype)
        mean = h[:count]
        value = jnp.where(drawn * (high - low) + low < mean, high, low).astype(h.dtype)
        if self.straight_through:
            value = value + (mean - lax.stop_gradient(mean))  # the value exactly, the derivative of the mean
        return jnp.concatenate([value, h[count:]])

    def slots(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> States:
        """The preactivations of the next step, from a sample of the units."""
        return self.cell.drive(self.cell.read(carry, x)[0], self.read(carry.hidden[-1], key=key))

    def __call__(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> Carry:
        """Read one observation, and a sample of the units."""
        if self.stochastic == 0:
            return self.cell(carry, x)
        _, moments = self.cell.read(carry, x)
        return self.cell.settle(self.gates(self.slots(carry, x, key=key), carry.hidden), moments, carry)

    def features(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> Float[Array, " units"]:
        """A sample of the units, normalised if the layer asks for it."""
        seen = self.read(carry.hidden[-1], key=key)
        return self.cell.features(Carry((*carry.hidden[:-1], seen), carry.stats))
