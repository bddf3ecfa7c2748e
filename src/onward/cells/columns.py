"""Columns: independent scalar recurrent units side by side."""

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from onward.batching import lanes, sum_in_blocks
from onward.cells.base import (
    AbstractColumnar,
    AbstractGated,
    AbstractGates,
    Parameters,
    States,
    Stats,
    require_gates,
    require_size,
)
from onward.cells.moments import Moments
from onward.types import Carry


def preactivation(
    gates: AbstractGates, parameters: Parameters, states: States, z: Float[Array, "inputs 1 1"]
) -> States:
    """W z + u h + b for each column: one (columns,) array per slot of the gates."""
    drive = sum_in_blocks([parameters.weight[i] * z[i] for i in range(len(z))])
    loop = None if parameters.recurrent is None else parameters.recurrent * states[-1][None]
    return gates.gather(drive, loop, parameters.bias)


def _step(gates: AbstractGates, parameters: Parameters, states: States, z: Float[Array, "inputs 1 1"]) -> States:
    return gates(preactivation(gates, parameters, states, z), states)


def require_foldable(gates: AbstractGates) -> None:
    """Refuse gates with an input that no bias goes with: a constant mean of it cannot be moved into a bias."""
    if not gates.inputs_have_biases:
        raise TypeError(
            f"{type(gates).__name__} have no bias on their inputs, so a stage that normalises its inputs cannot be "
            "frozen: leave normalise_inputs out, or use units with a bias on every input"
        )


class Columns(AbstractGated, AbstractColumnar):
    """A stage of scalar recurrent columns of any kind of gates (Javed et al., eqs 1-6 for the LSTM).

    Column k reads all inputs and its own last h, and no other column:
    preactivation = W_k z + u_k h_k + b_k, z the (normalised) input. Since d h_j / d theta_k = 0 for
    j != k, real-time recurrent learning needs one trace per parameter and state (`Columnwise`).
    Parameters: columns x gates x (inputs + 2), drawn from U(-spread, spread); units without recurrent weights have
    none (`recurrent` is None), and parameters of their own start as the gates say.

    `normalise_inputs` and `normalise_features` hold running moments (None: leave as is). The
    self-connection is never normalised.

    >>> import jax
    >>> from onward import Columns, LSTMGates
    >>> Columns(LSTMGates(), inputs=12, columns=4, key=jax.random.key(0)).weight.shape
    (12, 4, 4)
    """

    gates: AbstractGates
    weight: Float[Array, "inputs rows columns"]
    recurrent: Float[Array, "loops columns"] | None
    bias: Float[Array, "biases columns"]
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
        require_gates("Columns", gates)
        require_size("Columns", inputs=inputs, columns=columns)
        weight_key, recurrent_key, bias_key = jax.random.split(key, 3)
        draw = lambda k, *shape: jax.random.uniform(k, shape, minval=-spread, maxval=spread)
        rows, loops = len(gates.input_slots), len(gates.recurrent_slots)
        self.gates = gates
        self.weight = draw(weight_key, inputs, rows, columns)
        self.recurrent = draw(recurrent_key, loops, columns) if loops else None
        bias = draw(bias_key, len(gates.biases), columns)
        self.bias = gates.initial_bias(bias, key=jax.random.fold_in(bias_key, 1))
        self.normalise_inputs, self.normalise_features = normalise_inputs, normalise_features
        self.spread = spread

    @property
    def columns(self) -> int:
        """How many columns there are."""
        return self.weight.shape[2]

    def __call__(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> Carry:
        """Read one observation; about gates x (inputs + 2) multiply-adds a column."""
        z, moments = self.read(carry, x)
        step = lanes(_step, self.gates)
        return self.settle(step(self.parameters, carry.hidden, z[:, None, None]), moments, carry)

    def fold(self, stats: Stats) -> "Columns":
        """The same function with the input normalisation, now constant, moved into the weights.

        TypeError for units that have no bias on an input, for then there is nothing that could hold the mean.
        """
        if self.normalise_inputs is None:
            return self
        require_foldable(self.gates)
        moments = stats.inputs
        assert moments is not None
        weight = self.weight * moments.scale[:, None, None]
        shift = jnp.einsum("i,igk->gk", moments.mean, weight)
        rows = np.asarray([self.gates.biases.index(slot) for slot in self.gates.input_slots])
        bias = self.bias - shift if len(shift) == len(self.bias) else self.bias.at[rows].add(-shift)
        return eqx.tree_at(
            lambda c: (c.weight, c.bias, c.normalise_inputs), self, (weight, bias, None), is_leaf=lambda n: n is None
        )

    @property
    def live(self) -> "Columns":
        """All columns learn: the cell itself."""
        return self

    def feed(self, carry: Carry, x: Float[Array, " inputs"]) -> tuple[Array, Carry, Carry]:
        """Nothing is frozen: the input itself."""
        return x, carry, Carry((), ())

    def join(self, live: Carry, rest: Carry) -> Carry:
        """The live carry is the whole."""
        return live

    def embed(self, live: "Columns") -> Self:
        """The gradient is the live gradient."""
        return live  # type: ignore[return-value]

    def live_cotangent(self, cotangent: States) -> States:
        """All of the cotangent falls on live columns."""
        return cotangent
