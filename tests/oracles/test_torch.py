"""PyTorch as a foreign oracle: its cells and its backpropagation share no code with ours.

Same weights, same sequence, loss = sum_t c_t . h_t in float64; torch differentiates the unrolled loss,
our rule adds its pulls up step by step. PyTorch has a second bias: it stays zero and is not compared.
"""

import warnings
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from onward.verify import in_float64, stepwise_gradient

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch", reason="PyTorch is an optional oracle (dependency group: oracles)")

INPUTS, UNITS, STEPS = 3, 5, 40
# PyTorch's order of gates -> the row of ours: LSTM (i, f, g, o) from (i, f, o, g), GRU (r, z, n) from (z, r, n).
ORDER = {"LSTM": [0, 1, 3, 2], "GRU": [1, 0, 2], "RNN": [0]}
GATES = {"LSTM": ow.LSTMGates, "GRU": ow.GRUGates}


def ours(cell, rule):
    """Sequence, cotangents, hidden values and the rule's gradient."""
    xs, cotangents = (
        jax.random.normal(jax.random.key(i), (STEPS, n), jnp.float64) for i, n in ((1, cell.inputs), (2, UNITS))
    )

    def step(carry, x):
        carry = cell(carry, x)
        return carry, cell.features(carry)

    @eqx.filter_jit
    def both(cell):
        hidden = jax.lax.scan(step, cell.init(), xs)[1]
        never = jnp.zeros(STEPS, bool)
        return hidden, stepwise_gradient(cell, rule, cell.init(), xs, never, cotangents, key=jax.random.key(3))

    return xs, cotangents, *both(cell)


def pack(array, order):
    """Ours, (from, gates, units), as PyTorch's (gates units, from)."""
    return np.asarray(array)[:, order].transpose(1, 2, 0).reshape(-1, array.shape[0])


def unpack(matrix, order):
    """Back again."""
    cube = np.asarray(matrix).reshape(len(order), UNITS, -1).transpose(2, 0, 1)
    return cube[:, np.argsort(order)]


def theirs(layer, order, weight, recurrent, bias, mask, xs, cotangents):
    """Hidden values and autograd's gradient in our shapes; `mask` says which recurrent weights exist."""
    tensor = lambda a: torch.tensor(np.ascontiguousarray(a), dtype=torch.float64)
    learnt = {
        "weight_ih_l0": tensor(pack(weight, order)),
        "weight_hh_l0": tensor(pack(recurrent, order)),
        "bias_ih_l0": tensor(np.asarray(bias)[order].ravel()),
    }
    for p in learnt.values():
        p.requires_grad_()
    masked = {**learnt, "weight_hh_l0": learnt["weight_hh_l0"] * tensor(pack(mask, order))}
    masked["bias_hh_l0"] = torch.zeros(len(order) * UNITS, dtype=torch.float64)
    hidden, _ = torch.func.functional_call(layer, masked, (tensor(xs),))
    (hidden * tensor(cotangents)).sum().backward()
    w, u, b = (p.grad.numpy() for p in learnt.values())
    return hidden.detach().numpy(), (unpack(w, order), unpack(u, order), unpack(b[:, None], order)[0])


def agree(cell, rule, layer, order, widen: Callable = lambda u: u, narrow: Callable = lambda u: u):
    """`widen`: our recurrent weights as a matrix a gate; `narrow`: the same entries of a gradient."""
    xs, cotangents, hidden, gradient = ours(cell, rule)
    mask = widen(np.ones(cell.recurrent.shape))
    foreign, (w, u, b) = theirs(
        layer, order, cell.weight, widen(cell.recurrent), cell.bias, mask, np.asarray(xs), np.asarray(cotangents)
    )
    assert np.abs(hidden - foreign).max() < 1e-12
    for name, g, r in (
        ("weight", gradient.weight, w),
        ("recurrent", gradient.recurrent, narrow(u)),
        ("bias", gradient.bias, b),
    ):
        assert g.shape == r.shape
        assert np.linalg.norm(r) > 1e-3, f"{name}: nothing to compare"
        error = np.linalg.norm(g - r) / np.linalg.norm(r)
        print(f"{type(cell).__name__} {type(rule).__name__} {name} {error:.1e}")
        assert error < 1e-9, name


def layer(kind, **options):
    return getattr(torch.nn, kind)(INPUTS, UNITS, dtype=torch.float64, **options)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_dense_layer(kind, key):
    with jax.enable_x64(True):
        cell = in_float64(getattr(ow, kind)(INPUTS, UNITS, key=key))
        agree(cell, ow.RTRL(), layer(kind), ORDER[kind])


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_columns_are_a_layer_with_diagonal_recurrent_blocks(kind, key):
    # Ours is (gates, columns); a dense layer's is (from, gates, to), zero off the diagonal from = to.
    widen = lambda u: np.einsum("gu,uh->hgu", u, np.eye(UNITS))
    narrow = lambda u: np.einsum("ugu->gu", u)
    with jax.enable_x64(True):
        cell = in_float64(ow.Columns(GATES[kind](), INPUTS, UNITS, key=key, spread=0.7))
        agree(cell, ow.Columnwise(), layer(kind), ORDER[kind], widen, narrow)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_sparse_layer_is_a_masked_dense_one(kind, key):
    # Ours holds row r of unit u, its source number r; units here have one to three sources.
    mask = np.eye(UNITS, k=1, dtype=bool) | np.eye(UNITS, k=-2, dtype=bool)
    mask[0, [0, 3]] = True
    source, unit = np.nonzero(mask)
    row = np.cumsum(mask, 0)[source, unit] - 1

    def widen(u):
        wide = np.zeros((UNITS, u.shape[1], UNITS))
        wide[source, :, unit] = np.asarray(u)[row, :, unit]
        return wide

    def narrow(wide):
        u = np.zeros((row.max() + 1, wide.shape[1], UNITS))
        u[row, :, unit] = wide[source, :, unit]
        return u

    with jax.enable_x64(True):
        cell = in_float64(ow.Dense(GATES[kind](), INPUTS, UNITS, key=key, mask=mask))
        agree(cell, ow.RTRL(), layer(kind), ORDER[kind], widen, narrow)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_an_elman_layer(activation, key):
    with jax.enable_x64(True):
        cell = in_float64(ow.Elman(INPUTS, UNITS, key=key, activation=activation))
        agree(cell, ow.RTRL(), layer("RNN", nonlinearity=activation), ORDER["RNN"])
