"""Exact means exact; and what is not exact is caught."""

import json
import re
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import onward as ow
from onward import verify as v
from onward.credit.base import AbstractCredit, AbstractKernel, Kind
from onward.verify.claims import random_streams
from onward.verify.gradients import gradient_of_seeds, mean_reference

# Every structure once, and every kind of unit; the rest of the matrix is in `make test-slow`.
SOME = ("Elman sparse", "GRU dense", "GRU stack", "GRU cascade", "LSTM sparse", "LSTM columns", "RTU columns")


@pytest.mark.parametrize(
    "cell",
    [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in v.matrix.cells()],
)
def test_every_rule_is_what_it_claims(cell, compile_well):
    rows = v.matrix.rows(only_cells=[cell])
    assert {r.steps for r in rows} == {1, v.matrix.STEPS}
    assert {r.streams for r in rows} == {1, v.matrix.STREAMS}
    claims = {"exact": 0, "unbiased": 0, "biased": 0}
    for row in rows:
        claims[row.claim] += 1
        assert row.ok, row
        assert row.finite_difference < 1e-6
        if row.claim == "exact":
            assert row.relative_error < 1e-9
            assert max(abs(row.ratio_min - 1), abs(row.ratio_max - 1)) < 1e-9
    assert all(claims.values())
    # Over parallel streams a bias is an average, which may be small.
    for rule in {row.rule for row in rows if row.claim == "biased"}:
        assert max(row.relative_error for row in rows if row.rule == rule) > 1e-3, rule


def public_rules():
    parts = [getattr(ow, name) for name in ow.__all__ if not name.startswith("Abstract")]
    return [part for part in parts if isinstance(part, type) and issubclass(part, AbstractCredit)]


def test_the_matrix_has_every_public_rule():
    cells = [v.matrix.cells()[name]()[1] for name in ("Elman sparse", "Elman columns", "Elman stack")]
    rules = {type(r) for cell in cells for r in v.matrix.rules(cell)}
    assert rules == set(public_rules())


def test_docstrings_claim_what_the_matrix_checks():
    for rule in public_rules():
        words = re.findall(r"\b(Exact|Unbiased|Biased)\b", rule.__doc__)
        assert {w.lower() for w in words} == {rule.kind}, f"{rule.__name__} says {words}, it is {rule.kind}"


def test_uoro_s_mean_falls_with_the_root_of_the_seeds(key):
    """Error of the mean over N seeds: 16 times the seeds, a quarter of the error (averaged over blocks, within 15 %)."""
    with jax.enable_x64(True):
        cell = v.in_float64(ow.GRU(3, 4, key=key))
        data = random_streams(cell, 8, 1, key)
        reference = mean_reference(cell, cell.init(), data.xs, data.starts, data.cotangents)
        on = (cell.init(), data.xs, data.starts, data.cotangents)
        take = lambda seed: gradient_of_seeds(cell, ow.UORO(), *on, jax.random.split(jax.random.key(seed), 2000))
        flat = jax.vmap(lambda gradient: ravel_pytree(gradient)[0])
        drawn = np.concatenate([flat(take(seed)) for seed in range(16)])
        truth = np.asarray(ravel_pytree(reference)[0])
    error = lambda n: np.mean(np.linalg.norm(drawn.reshape(-1, n, len(truth)).mean(1) - truth, axis=1))
    np.testing.assert_allclose(error(20) / error(320), 4, rtol=0.15)


class Changed(AbstractCredit):
    """A rule with a planted fault: what its kernel answers is changed."""

    kind: ClassVar[Kind] = "exact"
    rule: AbstractCredit
    advanced: Callable = eqx.field(default=lambda kernel, *given: kernel.advance(*given), static=True)
    pulled: Callable = eqx.field(default=lambda kernel, *given: kernel.pull(*given), static=True)
    begun: Callable = eqx.field(default=lambda state: state, static=True)

    def on(self, cell):
        return _Changed(self.rule.on(cell), self)


class _Changed(AbstractKernel):
    kind: ClassVar[Kind] = "exact"
    kernel: AbstractKernel
    rule: Changed

    def init(self, x, *, key=None):
        return self.rule.begun(self.kernel.init(x, key=key))

    def advance(self, carry, x, state, *, key=None):
        return self.rule.advanced(self.kernel, carry, x, state)

    def pull(self, state, cotangent):
        return self.rule.pulled(self.kernel, state, cotangent)


class Quarter(AbstractCredit):
    """UORO, a quarter too large."""

    kind: ClassVar[Kind] = "unbiased"

    def on(self, cell):
        return ow.UORO().on(cell)

    def pull(self, cell, state, cotangent):
        return jax.tree.map(lambda g: 1.25 * g, ow.UORO().pull(cell, state, cotangent))


def test_a_biased_rule_does_not_pass_as_unbiased(key):
    """The tightness half: with the same seeds and spread, a mean that is a quarter off is found."""
    row = v.verify(ow.GRU(3, 4, key=key), Quarter(), steps=8)
    assert (row.found, row.ok) == ("biased", False)
    assert v.verify(ow.GRU(3, 4, key=key), ow.UORO(), steps=8).ok


def _columns(key, gates=None):
    return ow.Columns(gates or ow.LSTMGates(), 3, 4, key=key, spread=0.7)


def _forget(kernel, carry, x, state):
    return kernel.advance(carry, x, jax.tree.map(jnp.zeros_like, state))


def _read_late(kernel, carry, x, state):
    after, _ = kernel.advance(carry, x, state)
    return after, kernel.advance(after, x, state)[1]


def _keep_read(kernel, carry, x, state):
    after, window = kernel.advance(carry, x, state)
    return after, window._replace(read=state.read)


def _stale(kernel, carry, x, state):
    after, newer = kernel.advance(carry, x, state[1])
    return after, (state[1], newer)


COLUMNWISE_FAULTS = {"forgets": _forget, "reads h too late": _read_late}
DENSE_FAULTS = {
    "window off by one": Changed(ow.TBPTT(6), _keep_read),
    "shorter window": Changed(
        ow.TBPTT(6), pulled=lambda kernel, state, c: kernel.pull(jax.tree.map(lambda a: a[1:], state), c)
    ),
    "stale trace": Changed(
        ow.RTRL(), _stale, lambda kernel, state, c: kernel.pull(state[0], c), begun=lambda state: (state, state)
    ),
    "dropped path": Changed(ow.RFLO()),
    "wrong pattern": Changed(ow.SnAp(1)),
}


@pytest.mark.parametrize("fault", COLUMNWISE_FAULTS)
def test_faulty_traces_of_columns_are_caught(fault, key):
    row = v.verify(_columns(key), Changed(ow.Columnwise(), COLUMNWISE_FAULTS[fault]), steps=10)
    assert not row.ok
    assert row.relative_error > 1e-3


def _as_published(kernel, state, cotangent):
    """The theta gradient of the published RTU code: by theta's exponential, though theta is kept as a logarithm."""
    gradient = kernel.pull(state, cotangent)
    return eqx.tree_at(lambda c: c.bias, gradient, gradient.bias.at[1].divide(jnp.exp(kernel.cell.bias[1])))


def test_the_published_gradient_of_theta_is_caught_and_named(key):
    start = v.matrix.cells()["RTU columns"]()
    rule = Changed(ow.Columnwise(), pulled=_as_published)
    for row, fault in v.matrix.judged("RTU columns", start, [rule], settings=[(10, False, 1)]):
        assert (row.claim, row.found, row.ok) == ("exact", "biased", False)
        assert (fault.of, fault.leaf) == ("rule", "bias")
    ((right, nothing),) = v.matrix.judged("RTU columns", start, [ow.Columnwise()], settings=[(10, False, 1)])
    assert right.ok
    assert nothing is None


def _drop(what):
    """`_along` of the layers with one of its arguments changed."""
    changed = {
        "the layer's own memory": lambda before, linear, *more: (jax.tree.map(jnp.zeros_like, before), linear, *more),
        "the layer below": lambda before, linear, weigh, moves, d: (before, linear, weigh, 0 * moves, d),
        "the weights between": lambda before, linear, weigh, *more: (
            before,
            linear,
            tuple(jnp.roll(w, 1, 0) for w in weigh),
            *more,
        ),
    }
    return changed[what]


@pytest.mark.parametrize("what", ["the layer's own memory", "the layer below", "the weights between"])
def test_faulty_traces_across_layers_are_caught(what, key, monkeypatch):
    from onward.credit import columnwise

    cell = v.matrix.two(lambda k, inputs=3: v.matrix.large(ow.LSTMGates(), inputs, 3, key=k), key)
    right, change = columnwise._along, _drop(what)
    for faulty in (True, False):
        monkeypatch.setattr(columnwise, "_along", (lambda *given: right(*change(*given))) if faulty else right)
        jax.clear_caches()
        assert v.verify(cell, ow.Columnwise(), steps=10).ok is not faulty


def test_a_rule_that_forgets_is_exact_for_one_step(key):
    cell = _columns(key)
    carry = v.matrix.warm(cell, cell.init())
    assert v.verify(cell, Changed(ow.Columnwise(), _forget), steps=1, resets=False, carry=carry).ok


@pytest.mark.parametrize("fault", DENSE_FAULTS)
def test_faulty_rules_of_dense_layers_are_caught(fault, key):
    row = v.verify(ow.LSTM(3, 4, key=key), DENSE_FAULTS[fault], steps=6, resets=False)
    assert (row.claim, row.found, row.ok) == ("exact", "biased", False)


FAULTS = {
    "doubled gate": lambda new, d: (new, [((d[0][0][0] * 2, *d[0][0][1:]), *d[0][1:]), *d[1:]]),
    "dropped path": lambda new, d: (new, [(d[0][0], (None, *d[0][1][1:]), d[0][2]), *d[1:]]),
    "sign": lambda new, d: (new, [(d[0][0], tuple(None if s is None else -s for s in d[0][1]), d[0][2]), *d[1:]]),
}


class FaultyGates(ow.LSTMGates):
    """Gates whose derivatives are changed."""

    fault: str = eqx.field(default="", static=True)

    def jacobian(self, preactivation, states):
        return FAULTS[self.fault](*super().jacobian(preactivation, states))


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_derivatives_are_caught(fault, key):
    assert not v.verify(_columns(key, FaultyGates(fault=fault)), ow.Columnwise(), steps=10).ok


@pytest.fixture
def of_few_parts(monkeypatch):
    """`onward verify` of rows that are given, without measuring costs and without the checks of targets."""
    from onward import cli, devices
    from onward.lab import verifying

    def run(rules, cell, *words):
        monkeypatch.setattr(devices, "cache_programs", lambda: None)
        monkeypatch.setattr(v.costs, "measured", list)
        rows = [(v.verify(cell, rule, steps=6, resets=False), None) for rule in rules]
        checks = [v.targets.Check("a", "b", 0.0, "= 0", True)]
        monkeypatch.setattr(verifying, "verified", lambda *_: verifying.Found(rows, checks))
        return cli.main(["verify", *words])

    return run


def test_verify_exits_1_when_a_fault_is_planted(of_few_parts, capsys, key):
    assert of_few_parts([DENSE_FAULTS["stale trace"]], ow.LSTM(3, 4, key=key)) == 1
    assert "FAILED" in capsys.readouterr().out


def test_verify_exits_0_without_a_fault(of_few_parts, capsys, key):
    rules = (ow.RTRL(), ow.TBPTT(6), ow.SnAp(1), ow.TBPTT(5))
    assert of_few_parts(rules, ow.GRU(3, 4, key=key), "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [r["found"] for r in rows] == ["exact", "exact", "biased", "biased"]


def test_the_cost_of_a_rule_is_counted_and_timed(key):
    cost = v.costs.cost_of(ow.SnAp(1), ow.GRU(2, 3, key=key), "GRU, 3 units")
    assert (cost.rule, cost.parameters, cost.floats) == ("SnAp(1)", 54, 54)
    assert cost.multiply_adds > 54
    assert 0 < cost.microseconds < 1e5
    assert "SnAp(1)     GRU, 3 units" in "\n".join(v.tables.as_table([], [cost]))


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
