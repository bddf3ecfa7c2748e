"""Columns: independent scalar recurrent units side by side."""

from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward._tree import lanes
from onward._types import Carry
from onward.cells.base import AbstractColumnar, AbstractGates, States, require_size
from onward.cells.moments import Moments, MomentState

# Rows that one fused sum may add: above this XLA leaves the fast path (measured, see decisions.md).
ROWS_PER_SUM = 15


class ColumnStats(eqx.Module):
    """Running moments of what the columns read and of what they say."""

    inputs: MomentState | None
    features: MomentState | None


class Parameters(NamedTuple):
    """The arrays of `Columns`; any further axis after `columns` counts independent runs."""

    weight: Float[Array, "inputs gates columns"]
    recurrent: Float[Array, "gates columns"]
    bias: Float[Array, "gates columns"]


def preactivation(
    gates: AbstractGates, parameters: Parameters, states: States, z: Float[Array, "inputs 1 1"]
) -> States:
    """W z + u h + b for each column: one (columns,) array per slot of the gates."""
    blocks = [
        _tree_sum([parameters.weight[i] * z[i] for i in range(start, min(start + ROWS_PER_SUM, len(z)))])
        for start in range(0, len(z), ROWS_PER_SUM)
    ]
    return gates.gather(_tree_sum([parameters.bias, *blocks]), parameters.recurrent * states[-1][None])


def _tree_sum(terms: list[Array]) -> Array:
    while len(terms) > 1:
        terms = [sum(terms[i + 1 : i + 2], start=terms[i]) for i in range(0, len(terms), 2)]
    return terms[0]


class Columns(AbstractColumnar):
    """A stage of scalar recurrent columns of any kind of gates (Javed et al., eqs 1-6 for the LSTM).

    Column k reads all inputs and its own last h, and no other column:
    preactivation = W_k z + u_k h_k + b_k, z the (normalised) input. Since d h_j / d theta_k = 0 for
    j != k, real-time recurrent learning needs one trace per parameter and state (`Columnwise`).
    Parameters: columns x gates x (inputs + 2), drawn from U(-spread, spread).

    `normalise_inputs` and `normalise_features` hold running moments (None: leave as is). The
    self-connection is never normalised.

    >>> import jax
    >>> from onward import Columns, LSTMGates
    >>> Columns(LSTMGates(), inputs=12, columns=4, key=jax.random.key(0)).weight.shape
    (12, 4, 4)
    """

    gates: AbstractGates
    weight: Float[Array, "inputs gates columns"]
    recurrent: Float[Array, "gates columns"]
    bias: Float[Array, "gates columns"]
    normalise_inputs: Moments | None
    normalise_features: Moments | None
    spread: float = eqx.field(static=True)

    def __init__(
        self,
        gates: AbstractGates,
        inputs: int,
        columns: int,
        *,
        key: PRNGKeyArray,
        spread: float = 0.01,
        normalise_inputs: Moments | None = None,
        normalise_features: Moments | None = None,
    ):
        require_size("Columns", inputs=inputs, columns=columns)
        weight_key, recurrent_key, bias_key = jax.random.split(key, 3)
        draw = lambda k, *shape: jax.random.uniform(k, shape, minval=-spread, maxval=spread)
        rows, loops = len(gates.input_slots), len(gates.recurrent_slots)
        self.gates = gates
        self.weight = draw(weight_key, inputs, rows, columns)
        self.recurrent = draw(recurrent_key, loops, columns)
        self.bias = gates.initial_bias(draw(bias_key, rows, columns))
        self.normalise_inputs, self.normalise_features = normalise_inputs, normalise_features
        self.spread = spread

    @property
    def inputs(self) -> int:
        """Size of an observation."""
        return self.weight.shape[0]

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.weight.shape[2]

    @property
    def feature_count(self) -> int:
        """Columns: a head reads every h."""
        return self.columns

    def init(self) -> Carry:
        """All zero; moments at mean 0 and variance 1."""
        zero = jnp.zeros_like(self.bias[0])
        start = lambda moments, like: None if moments is None else moments.init(like)
        stats = ColumnStats(
            start(self.normalise_inputs, jnp.zeros(self.inputs, self.bias.dtype)), start(self.normalise_features, zero)
        )
        return Carry((zero,) * self.gates.states, stats)

    def __call__(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> Carry:
        """Read one observation; about gates x (inputs + 2) multiply-adds a column."""
        z, moments = self.read(carry, x)
        step = lanes(lambda p, h, z: self.gates(preactivation(self.gates, p, h, z), h))
        return self.settle(step(self.parameters, carry.hidden, z[:, None, None]), moments, carry)

    @property
    def parameters(self) -> Parameters:
        """The trainable arrays."""
        return Parameters(self.weight, self.recurrent, self.bias)

    def read(self, carry: Carry, x: Float[Array, " inputs"]) -> tuple[Array, MomentState | None]:
        """The normalised input, and its updated moments."""
        if self.normalise_inputs is None:
            return x, None
        moments = self.normalise_inputs.update(carry.stats.inputs, x)
        return self.normalise_inputs(moments, x), moments

    def settle(self, states: States, inputs: MomentState | None, before: Carry) -> Carry:
        """The new carry, with the feature moments brought up to date."""
        moments = None
        if self.normalise_features is not None:
            moments = self.normalise_features.update(before.stats.features, states[-1])
        return Carry(states, ColumnStats(inputs, moments))

    def features(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> Float[Array, " columns"]:
        """The hidden values h, normalised by their running moments if asked."""
        h = carry.hidden[-1]
        return h if self.normalise_features is None else self.normalise_features(carry.stats.features, h)

    def fold(self, stats: ColumnStats) -> "Columns":
        """The same function with the input normalisation, now constant, moved into the weights."""
        if self.normalise_inputs is None:
            return self
        moments = stats.inputs
        assert moments is not None
        weight = self.weight * moments.scale[:, None, None]
        bias = self.bias - jnp.einsum("i,igk->gk", moments.mean, weight)
        return eqx.tree_at(
            lambda c: (c.weight, c.bias, c.normalise_inputs), self, (weight, bias, None), is_leaf=lambda n: n is None
        )

    @property
    def live(self) -> "Columns":
        """All of them."""
        return self

    def feed(self, carry: Carry, x: Float[Array, " inputs"]) -> tuple[Array, Carry, Carry]:
        """Nothing is frozen: the input itself."""
        return x, carry, Carry((), ())

    def join(self, live: Carry, rest: Carry) -> Carry:
        """The live carry is the whole."""
        return live

    def embed(self, live: "Columns") -> Self:  # type: ignore[override]
        """The gradient is the live gradient."""
        return live  # type: ignore[return-value]

    def live_cotangent(self, cotangent: States) -> States:
        """All of it."""
        return cotangent
