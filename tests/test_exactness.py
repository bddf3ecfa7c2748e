"""Exact means exact; and what is not exact is caught."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from onward import verify as v
from onward.credit import columnwise
from onward.credit.base import AbstractCredit, Kind


@pytest.mark.parametrize("steps", [1, 30])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("gates", [ow.LSTMGates(), ow.GRUGates()], ids=["lstm", "gru"])
@pytest.mark.parametrize("rule", [ow.Columnwise(), ow.RTRL()], ids=["columnwise", "rtrl"])
def test_exact_rules_agree_with_bptt_and_finite_differences(rule, gates, depth, steps):
    cell, carry = v.cascade(gates, depth, key=jax.random.key(3))
    row = v.verify(cell, rule, steps=steps, carry=carry if steps > 1 else v._warm(cell, carry), streams=2)
    assert row.ok
    assert row.relative_error < 1e-9
    assert abs(row.ratio_min - 1) < 1e-9
    assert abs(row.ratio_max - 1) < 1e-9
    assert row.finite_difference < 1e-6


@pytest.mark.parametrize("make", [ow.LSTM, ow.GRU])
def test_dense_cells(make, key):
    assert v.verify(make(3, 4, key=key), ow.RTRL(), steps=12).ok


class Forgetful(AbstractCredit):
    """A planted fault: exact columns, but nothing is carried from step to step."""

    kind: ClassVar[Kind] = "exact"

    def init(self, cell, x, *, key=None):
        return ow.Columnwise().init(cell, x)

    def advance(self, cell, carry, x, state, *, key=None):
        return ow.Columnwise().advance(cell, carry, x, jax.tree.map(jnp.zeros_like, state))

    def pull(self, cell, state, cotangent):
        return ow.Columnwise().pull(cell, state, cotangent)


def _columns(key, gates=None):
    return ow.Columns(gates or ow.LSTMGates(), 3, 4, key=key, spread=0.7)


def test_a_rule_that_forgets_is_caught(key):
    row = v.verify(_columns(key), Forgetful(), steps=10)
    assert not row.ok
    assert row.relative_error > 1e-3


def test_a_rule_that_forgets_is_exact_for_one_step(key):
    cell = _columns(key)
    assert v.verify(cell, Forgetful(), steps=1, resets=False, carry=v._warm(cell, cell.init())).ok


FAULTS = {
    "doubled gate": lambda new, d: (new, [((d[0][0][0] * 2, *d[0][0][1:]), *d[0][1:]), *d[1:]]),
    "dropped path": lambda new, d: (new, [(d[0][0], (None, *d[0][1][1:]), d[0][2]), *d[1:]]),
    "sign": lambda new, d: (new, [(d[0][0], tuple(None if s is None else -s for s in d[0][1]), d[0][2]), *d[1:]]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault, key, monkeypatch):
    jacobian = ow.LSTMGates.jacobian
    monkeypatch.setattr(ow.LSTMGates, "jacobian", lambda self, a, s: FAULTS[fault](*jacobian(self, a, s)))
    row = v.verify(_columns(key), ow.Columnwise(), steps=10)
    assert not row.ok


def test_reading_h_too_late_is_caught(key, monkeypatch):
    advance = columnwise._advance

    def late(gates, parameters, states, traces, z):
        new, _ = advance(gates, parameters, states, traces, z)
        return new, advance(gates, parameters, new, traces, z)[1]

    monkeypatch.setattr(columnwise, "_advance", late)
    assert not v.verify(_columns(key), ow.Columnwise(), steps=10).ok


def test_verify_on_the_command_line_fails_when_a_trace_is_broken(monkeypatch, capsys):
    from onward import cli

    small = lambda rules=(): [v.verify(_columns(jax.random.key(0)), ow.Columnwise(), steps=5)]
    monkeypatch.setattr(v, "matrix", small)
    assert cli.main(["verify"]) == 0
    assert "1 of 1 comparisons ok" in capsys.readouterr().out
    jacobian = ow.LSTMGates.jacobian
    monkeypatch.setattr(ow.LSTMGates, "jacobian", lambda self, a, s: FAULTS["doubled gate"](*jacobian(self, a, s)))
    jax.clear_caches()
    assert cli.main(["verify", "--json"]) == 1
    assert '"ok": false' in capsys.readouterr().out


def test_a_zero_reference_is_refused():
    with pytest.raises(ValueError, match="zero"):
        v.compare({"a": jnp.ones(2)}, {"a": jnp.zeros(2)})


def test_compare_shows_a_factor_of_two():
    error, cosine, low, high = v.compare({"a": jnp.array([2.0, 4.0])}, {"a": jnp.array([1.0, 2.0])})
    np.testing.assert_allclose((error, cosine, low, high), (1.0, 1.0, 2.0, 2.0))


def test_columns_do_not_read_one_another(key):
    """The independence that Columnwise rests on: the Jacobian of one column by another's weights is zero."""
    cell = _columns(key, ow.GRUGates())
    carry = cell(cell.init(), jnp.ones(3))
    jacobian = jax.jacrev(lambda w: cell.features(eqx.tree_at(lambda c: c.weight, cell, w)(carry, jnp.ones(3))))(
        cell.weight
    )
    off = jacobian * (1 - jnp.eye(4)[:, None, None, :])
    assert float(jnp.abs(off).max()) == 0
    assert float(jnp.abs(jacobian).max()) > 0
