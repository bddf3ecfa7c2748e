"""Where gated units start from: what they respond to, how they mix, how long they remember and how they turn."""

import math
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from onward.cells.base import AbstractGated
from onward.cells.columns import Columns
from onward.cells.dense import Dense
from onward.cells.hybrid import Hybrid

Layer = TypeVar("Layer", Dense, Hybrid)
Units = TypeVar("Units", Columns, Dense, Hybrid)


def orthogonal(cell: Layer, gain: float = 1.0, *, key: PRNGKeyArray, identity: bool = False) -> Layer:
    """Recurrent weights anew, each kind `gain` times a random orthogonal matrix or the identity (Le et al., 2015)."""
    layer = _dense("orthogonal", cell)
    if layer.sources is not None:
        raise TypeError("orthogonal: the layer is sparse; only a full square of weights can be orthogonal")
    units, loops = layer.units, layer.recurrent.shape[1]
    square = lambda k: jnp.eye(units) if identity else jax.random.orthogonal(k, units)
    blocks = [square(k) for k in jax.random.split(key, loops)]
    return _with(cell, recurrent=gain * jnp.stack(blocks, 1))


def knots(cell: Units, low: float = 0.0, high: float = 1.0, *, slope: float = 2.0, key: PRNGKeyArray) -> Units:
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
    row = layer.gates.input_slots[-1]
    if row not in layer.gates.biases:
        raise TypeError(f"knots: {type(layer.gates).__name__} have no bias on their content, which would hold c")
    bias = layer.gates.initial_bias(jnp.zeros_like(layer.bias), key=jax.random.fold_in(key, 1))
    bias = bias.at[layer.gates.biases.index(row)].set(-jnp.sum(content * centres, 0))
    return _with(cell, weight=weight.at[:, -1].set(content), bias=bias)


def chrono(cell: Units, longest: float, *, key: PRNGKeyArray) -> Units:
    """Biases of the memory gates, so that unit i forgets in about u_i steps, log u uniform in 0 .. log(longest).

    After Tallec and Ollivier (2018), who draw u itself uniform: that leaves few fast units where `longest` is
    large, and learns later. For units with a gate of their memory (GRU, LSTM, minimal GRU, element-wise LSTM) or a
    decay of their own (RTU, LRU), in layers and in columns. TypeError for other units. Units that turn get the angle
    they had divided by u_i: they turn once at most while they remember, where units that turn at any speed tell long
    spans apart badly (docs/experiments/trace-conditioning.md).
    """
    layer = _layer("chrono", cell)
    if not 1 <= longest < float("inf"):
        raise ValueError(f"chrono: longest must be at least 1 step and finite, got {longest}")
    log_time = jax.random.uniform(key, layer.bias.shape[-1:]) * jnp.log(longest)
    return _with(cell, bias=layer.gates.remember(layer.bias, log_time))


def ring(
    cell: Units,
    low: float = 0.0,
    high: float = 1.0,
    *,
    phase: float = 2 * math.pi,
    even: bool = False,
    key: PRNGKeyArray,
) -> Units:
    """Decays and angles anew: radii between `low` and `high`, angles between 0 and `phase` (Orvieto et al., 2023).

    Points are spread evenly over that part of the disc: r^2 is uniform in low^2 .. high^2, angles are uniform, or with
    `even` at equal distances, in random order. For units that turn (RTU, LRU): TypeError for others. ValueError unless
    0 <= low < high <= 1 and 0 < phase <= 2 pi.
    """
    layer = _layer("ring", cell)
    if not 0 <= low < high <= 1:
        raise ValueError(f"ring: radii must be 0 <= low < high <= 1, got {low} and {high}")
    if not 0 < phase <= 2 * math.pi:
        raise ValueError(f"ring: phase must be in (0, 2 pi], got {phase}")
    units = layer.bias.shape[-1]
    radius_key, angle_key = jax.random.split(key)
    radius = jnp.sqrt(jax.random.uniform(radius_key, (units,), minval=low**2, maxval=high**2))
    knot = (jax.random.permutation(angle_key, units) + 0.5) / units
    angle = phase * (knot if even else jax.random.uniform(angle_key, (units,)))
    return _with(cell, bias=layer.gates.turn(layer.bias, radius, angle))


def _layer(owner: str, cell: Columns | Dense | Hybrid) -> AbstractGated:
    layer = cell.cell if isinstance(cell, Hybrid) else cell
    if not isinstance(layer, AbstractGated):
        raise TypeError(
            f"{owner}: needs a layer (Elman, GRU, LSTM, Dense), a Hybrid or Columns, got {type(cell).__name__}"
        )
    return layer


def _dense(owner: str, cell: Dense | Hybrid) -> Dense:
    layer = cell.cell if isinstance(cell, Hybrid) else cell
    if not isinstance(layer, Dense):
        raise TypeError(
            f"{owner}: needs a dense layer (Elman, GRU, LSTM, Dense) or a Hybrid, got {type(cell).__name__}"
        )
    return layer


def _with(cell: Units, **arrays: jax.Array) -> Units:
    pick = lambda c: [getattr(c.cell if isinstance(c, Hybrid) else c, name) for name in arrays]
    return eqx.tree_at(pick, cell, list(arrays.values()))
