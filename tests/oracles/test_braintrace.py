"""braintrace as a foreign oracle: another implementation of eligibility traces, from another group.

Its SnAp(n) at or above the diameter of the layer is full RTRL, its SnAp(1) keeps each unit's own
influence, and its D-RTRL also drops the recurrent matrix from the transition, so that it is exact for
columns only. The cells are written here with its `matmul`, `sparse_matmul` and `element_wise`; the
traces are its own. Everything is float64, loss = sum_t c_t . h_t.
"""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from onward.verify import compare, in_float64, stepwise_gradient

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    why = "braintrace is an optional oracle (dependency group: oracles)"
    braintrace = pytest.importorskip("braintrace", reason=why, exc_type=ImportError)
    brainevent = pytest.importorskip("brainevent", reason=why, exc_type=ImportError)
    brainstate = pytest.importorskip("brainstate", reason=why, exc_type=ImportError)

INPUTS, UNITS, STEPS = 3, 5, 40
SEEN = "0.2.6"  # the version whose defect the last test documents


def stream():
    return tuple(jax.random.normal(jax.random.key(i), (STEPS, n), jnp.float64) for i, n in ((1, INPUTS), (2, UNITS)))


@eqx.filter_jit
def ours(cell, rule):
    xs, cotangents = stream()
    never = jnp.zeros(STEPS, bool)
    return stepwise_gradient(cell, rule, cell.init(), xs, never, cotangents, key=jax.random.key(3))


def learn(module, algorithm, **options):
    """The gradient by braintrace, one array dictionary per parameter path, its losses summed one step after another."""
    xs, cotangents = stream()
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        warnings.simplefilter("ignore")  # it says where it widens a neighbourhood to all units
        learner = braintrace.compile(module, algorithm, xs[0], **options)
        step = lambda x, c: jnp.sum(c * learner(x))
        drive = brainstate.transform.jit(lambda xs, cs: learner.etrace_grad(xs, cs, step_fn=step, reduction="sum"))
        return drive(xs, cotangents)


class Foreign(brainstate.nn.Module):
    """An Elman or GRU layer with the weights of ours; columns where these are (gates, columns)."""

    def __init__(self, cell):
        super().__init__()
        parameter = brainstate.ParamState
        self.gates = cell.bias.shape[0]
        for g in range(self.gates):
            setattr(self, f"w{g}", parameter({"weight": cell.weight[:, g], "bias": cell.bias[g]}))
            setattr(self, f"u{g}", parameter(cell.recurrent[..., g, :]))

    def init_state(self, *args, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros(UNITS, jnp.float64))

    def update(self, x):
        h = self.h.value
        both = [(getattr(self, f"w{g}").value, getattr(self, f"u{g}").value) for g in range(self.gates)]
        drive = [braintrace.matmul(x, w["weight"], w["bias"]) for w, _ in both]
        loop = [braintrace.matmul(h, u) if u.ndim == 2 else h * braintrace.element_wise(u) for _, u in both]
        if self.gates == 1:
            self.h.value = jnp.tanh(drive[0] + loop[0])
        else:
            z, r = (jax.nn.sigmoid(drive[g] + loop[g]) for g in (0, 1))
            self.h.value = (1 - z) * jnp.tanh(drive[2] + r * loop[2]) + z * h
        return self.h.value


def theirs(cell, algorithm, **options):
    """braintrace's gradient in our shapes: weight, recurrent, bias."""
    gradient = learn(Foreign(cell), algorithm, **options)
    rows = range(cell.bias.shape[0])
    return (
        np.stack([gradient[f"w{g}",]["weight"] for g in rows], 1),
        np.stack([gradient[f"u{g}",] for g in rows], -2),
        np.stack([gradient[f"w{g}",]["bias"] for g in rows]),
    )


def difference(gradient, foreign):
    error, cosine, low, high = compare((gradient.weight, gradient.recurrent, gradient.bias), foreign)
    print(f"error {error:.1e}, cosine {cosine:.9f}, ratios {low:.9f} - {high:.9f}")
    return error


def dense(kind, key):
    return in_float64(getattr(ow, kind)(INPUTS, UNITS, key=key))


@pytest.mark.parametrize("kind", ["Elman", "GRU"])
def test_saturated_snap_is_our_exact_gradient(kind, key):
    with jax.enable_x64(True):
        cell = dense(kind, key)
        # Every unit reads every unit: two steps reach all of them.
        assert difference(ours(cell, ow.SnAp(2)), theirs(cell, braintrace.SnAp, n=2)) < 1e-9


def test_the_approximations_of_a_dense_layer(key):
    """SnAp(1) is the same one as ours; D-RTRL cuts more and is neither that nor exact."""
    with jax.enable_x64(True):
        cell = dense("GRU", key)
        exact = ours(cell, ow.RTRL())
        one, diagonal = theirs(cell, braintrace.SnAp, n=1), theirs(cell, braintrace.D_RTRL)
        assert difference(exact, one) > 0.01
        assert difference(exact, diagonal) > 0.01
        assert difference(ours(cell, ow.SnAp(1)), one) < 1e-9


class ForeignSparse(brainstate.nn.Module):
    """An Elman layer with the kept recurrent weights only, in the order of the mask's true entries."""

    def __init__(self, cell, mask):
        super().__init__()
        source, unit = np.nonzero(mask)
        self.row = np.cumsum(mask, 0)[source, unit] - 1, 0, unit  # where each is in ours, (fan_in, gate, units)
        start = np.concatenate([[0], np.cumsum(mask.sum(1))])
        kept = cell.recurrent[self.row]
        indices, starts = unit.astype(np.int32), start.astype(np.int32)
        self.shape = brainevent.CSR(kept, indices, starts, shape=mask.shape, backend="jax_raw")
        self.w0 = brainstate.ParamState({"weight": cell.weight[:, 0], "bias": cell.bias[0]})
        self.u0 = brainstate.ParamState(kept)

    def init_state(self, *args, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros(UNITS, jnp.float64))

    def update(self, x):
        w = self.w0.value
        loop = braintrace.sparse_matmul(self.h.value, self.u0.value, sparse_mat=self.shape)
        self.h.value = jnp.tanh(braintrace.matmul(x, w["weight"], w["bias"]) + loop)
        return self.h.value


@pytest.mark.parametrize("n", [2, 3])
def test_snap_on_a_sparse_layer(n, key):
    # A ring with self-connections and one more edge: two or three sources a unit; only n = 5 would be full.
    mask = np.eye(UNITS, dtype=bool) | np.roll(np.eye(UNITS, dtype=bool), 1, 1)
    mask[0, 2] = True
    with jax.enable_x64(True):
        cell = in_float64(ow.Elman(INPUTS, UNITS, key=key, mask=mask))
        module = ForeignSparse(cell, mask)
        foreign = learn(module, braintrace.SnAp, n=n)
        recurrent = np.zeros(cell.recurrent.shape)
        recurrent[module.row] = foreign["u0",]
        theirs = np.asarray(foreign["w0",]["weight"])[:, None], recurrent, np.asarray(foreign["w0",]["bias"])[None]
        assert difference(ours(cell, ow.SnAp(n)), theirs) < 1e-9


@pytest.mark.parametrize("gates", ["ElmanGates", "GRUGates"])
def test_diagonal_rtrl_is_exact_for_columns(gates, key):
    with jax.enable_x64(True):
        cell = in_float64(ow.Columns(getattr(ow, gates)(), INPUTS, UNITS, key=key, spread=0.7))
        assert difference(ours(cell, ow.Columnwise()), theirs(cell, braintrace.D_RTRL)) < 1e-9


def test_diagonal_rtrl_of_an_elman_layer_sees_one_step_only(key):
    # Without its recurrent matrix an Elman layer forgets: nothing but the immediate gradient is left.
    with jax.enable_x64(True):
        cell = dense("Elman", key)
        assert difference(ours(cell, ow.TBPTT(1)), theirs(cell, braintrace.D_RTRL)) < 1e-9


@pytest.mark.skipif(braintrace.__version__ != SEEN, reason=f"documents a defect of braintrace {SEEN}")
def test_a_foreign_defect_that_a_cosine_hides_and_a_ratio_shows(key):
    """braintrace counts what reaches the loss through c twice in an LSTM: once in the trace of h, once in c's.

    Where o reads no unit, the gradients of i, f and g are twice the gradient to rounding, and every
    cosine is 1. (Where o reads them, the ratios are near 2 and those of o are wrong too.)
    """
    with jax.enable_x64(True):
        cell = dense("LSTM", key)
        cell = eqx.tree_at(lambda c: c.recurrent, cell, cell.recurrent.at[:, 2].set(0.0))
        module = braintrace.nn.LSTMCell(INPUTS, UNITS)
        names = {"Wi": 0, "Wf": 1, "Wo": 2, "Wg": 3}
        for name, g in names.items():
            weight = jnp.concatenate([cell.weight[:, g], cell.recurrent[:, g]])
            # Its cell adds 1 to the forget gate's bias by itself.
            getattr(module, name).weight.value = {"weight": weight, "bias": cell.bias[g] - (name == "Wf")}
        foreign = learn(module, braintrace.SnAp, n=2)
        gradient = ours(cell, ow.RTRL())
    pairs = [
        (foreign[name, "weight"][part], reference)
        for name, g in names.items()
        if name != "Wo"
        for part, reference in (
            ("weight", np.concatenate([gradient.weight[:, g], gradient.recurrent[:, g]])),
            ("bias", gradient.bias[g]),
        )
    ]
    error, cosine, low, high = compare(*zip(*pairs, strict=True))
    print(f"error {error:.1e}, cosine {cosine:.15f}, ratios {low:.12f} - {high:.12f}")
    assert cosine == pytest.approx(1, abs=1e-12)
    assert error == pytest.approx(1, abs=1e-9)
    assert (low, high) == pytest.approx((2, 2), abs=1e-9)
