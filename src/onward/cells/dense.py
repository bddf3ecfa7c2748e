"""A layer of gated units that read one another."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from onward.batching import runs, sum_products
from onward.cells.base import AbstractGated, AbstractGates, Parameters, States, require_gates, require_size
from onward.cells.moments import Moments
from onward.types import Carry

Sources = tuple[tuple[int, ...], ...]


class Dense(AbstractGated):
    """Recurrent layer of any kind of gates whose units read one another, all of them or some.

    preactivation = W z + U h + b, with W (inputs, gates, units) and U (fan_in, gates, units), z the
    (normalised) input; parameters start at U(-spread, spread), by default 1 / sqrt(units).

    `mask` (units, units), true where unit `mask[h, u]` says that u reads h, makes U really sparse: it
    holds the kept weights only, fan_in of them a unit (the largest count; shorter ones are padded with
    weights that nothing reads). None: every unit reads every unit. `normalise_inputs` and
    `normalise_features` hold running moments (None: leave as is).

    >>> import jax, numpy as np
    >>> from onward import Dense, GRUGates
    >>> Dense(GRUGates(), 3, 8, key=jax.random.key(0), mask=np.eye(8, k=1, dtype=bool)).recurrent.shape
    (1, 3, 8)
    """

    gates: AbstractGates
    weight: Float[Array, "inputs rows units"]
    recurrent: Float[Array, "fan_in loops units"]
    bias: Float[Array, "biases units"]
    normalise_inputs: Moments | None
    normalise_features: Moments | None
    sources: Sources | None = eqx.field(static=True)

    def __init__(
        self,
        gates: AbstractGates,
        inputs: int,
        units: int,
        *,
        key: PRNGKeyArray,
        mask: Any = None,
        spread: float | None = None,
        normalise_inputs: Moments | None = None,
        normalise_features: Moments | None = None,
    ):
        require_gates("Dense", gates)
        require_size("Dense", inputs=inputs, units=units)
        weight_key, recurrent_key, bias_key = jax.random.split(key, 3)
        limit = units**-0.5 if spread is None else spread
        draw = lambda k, *shape: jax.random.uniform(k, shape, minval=-limit, maxval=limit)
        rows, loops = len(gates.input_slots), len(gates.recurrent_slots)
        if not loops:
            raise TypeError(
                f"Dense: its units read one another, and {type(gates).__name__} have no recurrent weights "
                "(recurrent_slots is empty); use Columns"
            )
        self.gates = gates
        self.sources = None if mask is None else _sources(mask, units)
        index, valid = wiring(self.sources, units)
        self.weight = draw(weight_key, inputs, rows, units)
        self.recurrent = draw(recurrent_key, len(index), loops, units) * valid[:, None].astype(np.float32)
        bias = draw(bias_key, len(gates.biases), units)
        self.bias = gates.initial_bias(bias, key=jax.random.fold_in(bias_key, 1))
        self.normalise_inputs, self.normalise_features = normalise_inputs, normalise_features

    @property
    def units(self) -> int:
        """How many units the layer has."""
        return self.weight.shape[2]

    def drive(self, z: Float[Array, " inputs"], h: Float[Array, " units"]) -> States:
        """The preactivations W z + U h + b, one array a slot."""
        return runs(preactivation, self.units, self.gates, self.sources)(self.parameters, (h,), z)

    def slots(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> States:
        """The preactivations of the next step."""
        return self.drive(self.read(carry, x)[0], carry.hidden[-1])

    def __call__(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> Carry:
        """Read one observation; units (inputs + fan_in) multiply-adds a gate."""
        z, moments = self.read(carry, x)
        step = runs(_step, self.units, self.gates, self.sources)
        return self.settle(step(self.parameters, carry.hidden, z), moments, carry)


def preactivation(
    gates: AbstractGates, sources: Sources | None, parameters: Parameters, states: States, z: Array
) -> States:
    """W z + U h + b as one (units,) array a slot, in a kernel of `runs`."""
    drive = sum_products(z[:, None, None], parameters.weight)
    return gates.gather(drive, loop(sources, parameters, states[-1]), parameters.bias)


def _step(gates: AbstractGates, sources: Sources | None, parameters: Parameters, states: States, z: Array) -> States:
    return gates(preactivation(gates, sources, parameters, states, z), states)


def loop(sources: Sources | None, parameters: Parameters, h: Float[Array, "units runs"]) -> Array:
    """The recurrent drive U h, (gates, units, runs)."""
    return sum_products(sources_of(sources, h)[:, None], weights_between(parameters))


def weights_between(parameters: Parameters) -> Float[Array, "fan_in loops units runs"]:
    """The recurrent weights, which units of a dense layer always have."""
    assert parameters.recurrent is not None
    return parameters.recurrent


def loop_back(sources: Sources | None, parameters: Parameters, drive: Float[Array, "gates units runs"]) -> Array:
    """The transpose of `loop`: a cotangent on the recurrent drive as one on h."""
    if sources is None:
        weights = weights_between(parameters)
        across = weights.reshape(weights.shape[0], -1, weights.shape[-1])
        return sum_products(jnp.swapaxes(across, 0, 1), drive.reshape(-1, 1, drive.shape[-1]))
    by_edge = jnp.sum(weights_between(parameters) * drive[None], 1)
    index, valid = wiring(sources, drive.shape[-2])
    zero = jnp.zeros_like(drive[0])
    return zero.at[index].add(by_edge * valid[..., None].astype(by_edge.dtype))


def sources_of(sources: Sources | None, h: Array) -> Array:
    """What each recurrent weight multiplies: h itself, (units, 1, runs), or (fan_in, units, runs) if sparse."""
    if sources is None:
        return h[..., None, :]
    index, valid = wiring(sources, h.shape[-2])
    return jnp.take(h, index, -2) * valid[..., None].astype(h.dtype)


@functools.cache
def wiring(sources: Sources | None, units: int) -> tuple[np.ndarray, np.ndarray]:
    """Which unit row r of U reads for unit u, (fan_in, units), and whether there is such a weight."""
    if sources is None:
        return np.tile(np.arange(units, dtype=np.int32)[:, None], (1, units)), np.ones((units, units), bool)
    fan_in = max(map(len, sources))
    index, valid = np.zeros((fan_in, units), np.int32), np.zeros((fan_in, units), bool)
    for unit, read in enumerate(sources):
        index[: len(read), unit], valid[: len(read), unit] = read, True
    return index, valid


def _sources(mask: Any, units: int) -> Sources:
    mask = np.asarray(mask)
    if mask.shape != (units, units) or mask.dtype != bool:
        raise ValueError(
            f"Dense: mask must be an array of bools of shape ({units}, {units}), mask[h, u]: does u read h; "
            f"got {mask.dtype} {mask.shape}"
        )
    if not mask.any():
        raise ValueError("Dense: mask keeps no recurrent weight; a layer needs at least one")
    return tuple(tuple(np.flatnonzero(mask[:, unit]).tolist()) for unit in range(units))
