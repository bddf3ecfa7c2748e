"""Exact means exact; and what is not exact is caught."""

import json
import re
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from onward import verify as v
from onward.credit import columnwise, rtrl, tbptt
from onward.credit.base import AbstractCredit, Kind

# Every structure once, and every kind of unit; the rest of the matrix is in `make test-slow`.
SOME = ("Elman sparse", "GRU dense", "GRU stack", "GRU cascade", "LSTM sparse", "LSTM columns")


@pytest.mark.parametrize(
    "cell",
    [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in v.matrix_cells()],
)
def test_every_rule_is_what_it_claims(cell, compile_well):
    rows = v.matrix(cells=[cell])
    assert {r.steps for r in rows} == {1, v.STEPS}
    assert {r.streams for r in rows} == {1, v.STREAMS}
    claims = {"exact": 0, "unbiased": 0, "biased": 0}
    for row in rows:
        claims[row.claim] += 1
        assert row.ok, row
        assert row.finite_difference < 1e-6
        if row.claim == "exact":
            assert row.relative_error < 1e-9
            assert max(abs(row.ratio_min - 1), abs(row.ratio_max - 1)) < 1e-9
        if row.claim == "biased":
            assert row.relative_error > 1e-3, row
    assert all(claims.values())


def test_the_matrix_has_every_public_rule():
    cells = [v.matrix_cells()[name]()[1] for name in ("Elman sparse", "Elman columns")]
    rules = {type(r) for cell in cells for r in v.matrix_rules(cell)}
    parts = [getattr(ow, name) for name in ow.__all__]
    assert rules == {part for part in parts if isinstance(part, type) and issubclass(part, AbstractCredit)}


def test_docstrings_claim_what_the_matrix_checks():
    for name in ow.__all__:
        rule = getattr(ow, name)
        if isinstance(rule, type) and issubclass(rule, AbstractCredit):
            words = re.findall(r"\b(Exact|Unbiased|Biased)\b", rule.__doc__)
            assert {w.lower() for w in words} == {rule.kind}, f"{name} says {words}, it is {rule.kind}"


def test_uoro_s_mean_falls_with_the_root_of_the_seeds(key):
    """Error of the mean over N seeds: 16 times the seeds, a quarter of the error (averaged over blocks, within 15 %)."""
    with jax.enable_x64(True):
        cell = v.in_float64(ow.GRU(3, 4, key=key))
        data = v._streams(cell, 8, 1, key)
        reference = v._reference(cell, cell.init(), data.xs, data.starts, data.cotangents)
        take = lambda seed: v._gradient_of_seeds(
            cell,
            ow.UORO(),
            cell.init(),
            data.xs,
            data.starts,
            data.cotangents,
            jax.random.split(jax.random.key(seed), 2000),
        )
        chunks = [take(seed) for seed in range(16)]
    drawn = np.concatenate(
        [np.concatenate([np.asarray(g[i]).reshape(2000, -1) for g in map(jax.tree.leaves, chunks)]) for i in range(3)],
        1,
    )
    truth = np.concatenate([np.asarray(r).ravel() for r in jax.tree.leaves(reference)])
    error = lambda n: np.mean(np.linalg.norm(drawn.reshape(-1, n, len(truth)).mean(1) - truth, axis=1))
    np.testing.assert_allclose(error(20) / error(320), 4, rtol=0.15)


def test_a_biased_rule_does_not_pass_as_unbiased(key):
    """The tightness half: with the same seeds and spread, a mean that is a quarter off is found."""

    class Quarter(AbstractCredit):
        kind: ClassVar[Kind] = "unbiased"

        def init(self, cell, x, *, key=None):
            return ow.UORO().init(cell, x, key=key)

        def advance(self, cell, carry, x, state, *, key=None):
            return ow.UORO().advance(cell, carry, x, state, key=key)

        def pull(self, cell, state, cotangent):
            return jax.tree.map(lambda g: 1.25 * g, ow.UORO().pull(cell, state, cotangent))

    row = v.verify(ow.GRU(3, 4, key=key), Quarter(), steps=8)
    assert (row.found, row.ok) == ("biased", False)
    assert v.verify(ow.GRU(3, 4, key=key), ow.UORO(), steps=8).ok


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


def _window_off_by_one(monkeypatch):
    advance = tbptt._advance

    def late(gates, sources, parameters, states, window, z):
        new, moved = advance(gates, sources, parameters, states, window, z)
        return new, moved._replace(read=window.read)

    monkeypatch.setattr(tbptt, "_advance", late)
    return ow.TBPTT(1)


def _shorter_window(monkeypatch):
    pull = tbptt._pull

    def short(gates, sources, parameters, window, cotangent):
        return pull(gates, sources, parameters, jax.tree.map(lambda a: a[1:], window), cotangent)

    monkeypatch.setattr(tbptt, "_pull", short)
    return ow.TBPTT(1)


def _stale_trace(monkeypatch):
    pull = rtrl.RTRL.pull
    monkeypatch.setattr(
        rtrl.RTRL, "advance", lambda self, c, h, x, s, key=None: (c(h, x), (s[1], _moved(self, c, h, x, s)))
    )
    monkeypatch.setattr(rtrl.RTRL, "init", lambda self, c, x, key=None: (_zero(c, x), _zero(c, x)))
    monkeypatch.setattr(rtrl.RTRL, "pull", lambda self, c, s, g: pull(self, c, s[0], g))
    return ow.RTRL()


INIT, ADVANCE = rtrl.RTRL.init, rtrl.RTRL.advance
_zero = lambda cell, x: INIT(ow.RTRL(), cell, x)
_moved = lambda rule, cell, carry, x, state: ADVANCE(rule, cell, carry, x, state[1])[1]


def _doubled_gate(monkeypatch):
    jacobian = ow.LSTMGates.jacobian
    monkeypatch.setattr(ow.LSTMGates, "jacobian", lambda self, a, s: FAULTS["doubled gate"](*jacobian(self, a, s)))
    return ow.RTRL()


def _dropped_path(monkeypatch):
    through = rtrl._through
    monkeypatch.setattr(rtrl, "_through", lambda *a: through(*a) * 0)
    return ow.RTRL()


def _wrong_pattern(monkeypatch):
    """SnAp(1) that says it leaves nothing out."""
    monkeypatch.setattr(ow.SnAp, "claim", lambda self, cell, steps: "exact")
    return ow.SnAp(1)


PLANTS = [_window_off_by_one, _shorter_window, _stale_trace, _doubled_gate, _dropped_path, _wrong_pattern]


@pytest.mark.parametrize(
    ("plant", "steps"),
    [
        pytest.param(plant, steps, id=plant.__name__, marks=pytest.mark.slow if plant is _window_off_by_one else ())
        for steps, plant in enumerate(PLANTS, 7)
    ],
)
def test_verify_exits_1_when_a_fault_is_planted(plant, steps, monkeypatch, capsys, key):
    """Lengths of their own, so that no compiled program of another test is used, nor this one by another."""
    from onward import cli

    monkeypatch.setattr(cli, "cache_programs", lambda: None)
    monkeypatch.setattr(v, "costs", list)
    rule = plant(monkeypatch)
    if isinstance(rule, ow.TBPTT):
        rule = ow.TBPTT(steps)
    monkeypatch.setattr(v, "matrix", lambda: [v.verify(ow.LSTM(3, 4, key=key), rule, steps=steps, resets=False)])
    assert cli.main(["verify"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_verify_exits_0_without_a_fault(monkeypatch, capsys, key):
    from onward import cli

    monkeypatch.setattr(cli, "cache_programs", lambda: None)
    monkeypatch.setattr(v, "costs", list)
    rules = (ow.RTRL(), ow.TBPTT(6), ow.SnAp(1), ow.TBPTT(5))
    monkeypatch.setattr(v, "matrix", lambda: [v.verify(ow.GRU(3, 4, key=key), r, steps=6, resets=False) for r in rules])
    assert cli.main(["verify", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [r["found"] for r in rows] == ["exact", "exact", "biased", "biased"]


def test_the_cost_of_a_rule_is_counted_and_timed(key):
    cost = v._cost(ow.SnAp(1), ow.GRU(2, 3, key=key), "GRU, 3 units")
    assert (cost.rule, cost.parameters, cost.floats) == ("SnAp(1)", 54, 54)
    assert cost.multiply_adds > 54
    assert 0 < cost.microseconds < 1e5
    assert "SnAp(1)     GRU, 3 units" in "\n".join(v.as_table([], [cost]))


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
