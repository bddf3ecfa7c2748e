"""Where a dense layer starts from: what its units respond to, how they mix, and how long they remember."""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from onward.cells.dense import Dense
from onward.cells.hybrid import Hybrid

Layer = TypeVar("Layer", Dense, Hybrid)


def orthogonal(cell: Layer, gain: float = 1.0, *, key: PRNGKeyArray, identity: bool = False) -> Layer:
    """Recurrent weights anew, each kind `gain` times a random orthogonal matrix or the identity (Le et al., 2015)."""
    layer = _layer("orthogonal", cell)
    if layer.sources is not None:
        raise TypeError("orthogonal: the layer is sparse; only a full square of weights can be orthogonal")
    units, loops = layer.units, layer.recurrent.shape[1]
    square = lambda k: jnp.eye(units) if identity else jax.random.orthogonal(k, units)
    blocks = [square(k) for k in jax.random.split(key, loops)]
    return _with(cell, recurrent=gain * jnp.stack(blocks, 1))


def knots(cell: Layer, low: float = 0.0, high: float = 1.0, *, slope: float = 2.0, key: PRNGKeyArray) -> Layer:
    """Input weights of the content (the candidate) anew: unit i sees w_i . (x - c_i).

    w is normal of size `slope` and c uniform in low .. high, so that together the units tell apart every part
    of the inputs' range. The gates' input weights start at 0.1 times a normal.
    """
    layer = _layer("knots", cell)
    if not low < high:
        raise ValueError(f"knots: low must be below high, got {low} and {high}")
    weight_key, centre_key, gate_key = jax.random.split(key, 3)
    content = slope * jax.random.normal(weight_key, layer.weight[:, -1].shape)
    centres = jax.random.uniform(centre_key, content.shape, minval=low, maxval=high)
    weight = 0.1 * jax.random.normal(gate_key, layer.weight.shape)
    bias = jnp.zeros_like(layer.bias).at[-1].set(-jnp.sum(content * centres, 0))
    return _with(cell, weight=weight.at[:, -1].set(content), bias=layer.gates.initial_bias(bias))


def chrono(cell: Layer, longest: float, *, key: PRNGKeyArray) -> Layer:
    """Biases of the memory gates, so that unit i forgets in about u_i steps, log u uniform in 0 .. log(longest).

    After Tallec and Ollivier (2018), who draw u itself uniform: that leaves few fast units where `longest` is
    large, and learns later. For units with a gate of their memory (GRU, LSTM).
    """
    layer = _layer("chrono", cell)
    if not 1 <= longest < float("inf"):
        raise ValueError(f"chrono: longest must be at least 1 step and finite, got {longest}")
    log_time = jax.random.uniform(key, (layer.units,)) * jnp.log(longest)
    return _with(cell, bias=layer.gates.remember(layer.bias, log_time))


def _layer(owner: str, cell: Dense | Hybrid) -> Dense:
    layer = cell.cell if isinstance(cell, Hybrid) else cell
    if not isinstance(layer, Dense):
        raise TypeError(
            f"{owner}: needs a dense layer (Elman, GRU, LSTM, Dense) or a Hybrid, got {type(cell).__name__}"
        )
    return layer


def _with(cell: Layer, **arrays: jax.Array) -> Layer:
    pick = lambda c: [getattr(c.cell if isinstance(c, Hybrid) else c, name) for name in arrays]
    return eqx.tree_at(pick, cell, list(arrays.values()))
