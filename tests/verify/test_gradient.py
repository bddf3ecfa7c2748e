"""`verify.gradient`: what a rule gives for an objective on a stream of one's own, against backpropagation through it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from onward import verify as v
from onward.trees import select

TIME, INPUTS, UNITS = 9, 3, 4


def _model(cell):
    head = ow.Linear(cell.feature_count)
    return ow.Model(cell, eqx.tree_at(lambda h: h.weight, head, jnp.linspace(-1, 1, cell.feature_count)))


def _steps(key):
    a, b = jax.random.split(key)
    resets = jnp.arange(TIME) == 5
    weight = jnp.asarray(np.random.default_rng(0).choice([0.0, 0.5, 1.0], TIME), jnp.float32)
    xs, y = jax.random.normal(a, (TIME, INPUTS)), jax.random.normal(b, (TIME,))
    return ow.Step(x=xs, y=y, weight=weight, reset=resets, truth=y)


@eqx.filter_jit
def _through_time(model, steps):
    """The gradient of the summed loss, by differentiating the whole stream."""
    parameters, rest = eqx.partition(model, model.trainable())

    def loss(parameters):
        model = eqx.combine(parameters, rest)
        start = model.init()

        def step(carry, example):
            hidden = select(example.reset, start.hidden, carry.hidden)
            carry, prediction = model(ow.Carry(hidden, carry.stats), example.x)
            return carry, -example.weight * model.head.log_prob(prediction, example.y)

        return jnp.sum(jax.lax.scan(step, start, steps)[1])

    return jax.grad(loss)(parameters)


MOMENTS = ow.Moments(rate=0.9)
CELLS = {
    "GRU": lambda key: ow.GRU(INPUTS, UNITS, key=key, normalise_inputs=MOMENTS),
    "Columns": lambda key: ow.Columns(ow.LSTMGates(), INPUTS, UNITS, key=key, spread=0.7),
}


@pytest.mark.parametrize(("name", "rule"), [("GRU", ow.RTRL()), ("Columns", ow.Columnwise())])
def test_exact_rules_give_the_gradient(name, rule, key):
    model, steps = _model(CELLS[name](key)), _steps(key)
    given = v.gradient(model, rule, ow.Supervised(), steps, float64=True)
    with jax.enable_x64(True):
        wanted = _through_time(*v.in_float64((model, steps)))
    assert {leaf.dtype for leaf in jax.tree.leaves(given)} == {jnp.dtype("float64")}
    assert jax.tree.structure(given) == jax.tree.structure(eqx.filter(model, model.trainable()))
    error, cosine, low, high = v.compare(given, wanted)
    assert error < 1e-12
    assert max(abs(cosine - 1), abs(low - 1), abs(high - 1)) < 1e-12
    single = v.gradient(model, rule, ow.Supervised(), steps)
    assert {leaf.dtype for leaf in jax.tree.leaves(single)} == {jnp.dtype("float32")}
    assert 0 < v.compare(single, given).relative_error < 1e-4


def test_a_biased_rule_differs_in_the_cell_only(key):
    model, steps = _model(CELLS["GRU"](key)), _steps(key)
    exact, cheap = (v.gradient(model, r, ow.Supervised(), steps, float64=True) for r in (ow.RTRL(), ow.SnAp(1)))
    assert v.compare(cheap.cell, exact.cell).relative_error > 1e-3
    assert 0.5 < v.compare(cheap.cell, exact.cell).cosine < 1
    assert v.compare(cheap.head, exact.head).relative_error == 0


def test_any_objective_is_driven(key):
    """TD(lambda) on a stream without learning: the sum of its updates, by a loop of Python."""
    model, steps = _model(CELLS["Columns"](key)), _steps(key)._replace(reset=False, weight=1.0)
    objective, rule = ow.TDLambda(0.9, 0.8), ow.Columnwise()
    given = v.gradient(model, rule, objective, steps)
    carry, credit, state = model.init(), rule.init(model.cell, steps.x[0]), objective.init(model)
    total = None
    for t in range(TIME):
        example = ow.Step(steps.x[t], steps.y[t], jnp.ones(()), jnp.asarray(False), steps.y[t])
        carry, credit = rule.advance(model.cell, carry, example.x, credit)
        prediction, pullback = model.answer(carry)

        def pull(cotangent, credit=credit, pullback=pullback):
            head, hidden = pullback(cotangent)
            return model.gradient_of(rule.pull(model.cell, credit, hidden), head)

        state, gradient, *_ = objective.step(state, model, prediction, example, pull)
        total = gradient if total is None else jax.tree.map(jnp.add, total, gradient)
    for a, b in zip(*map(jax.tree.leaves, (given, total)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_what_is_refused(key):
    model, steps = _model(CELLS["GRU"](key)), _steps(key)
    give = lambda model, steps: v.gradient(model, ow.RTRL(), ow.Supervised(), steps)
    with pytest.raises(ValueError, match=r"x has 9 steps; every array of steps needs as many, got \[8, 9\]"):
        give(model, steps._replace(y=steps.y[1:]))
    with pytest.raises(ValueError, match=r"reads 3 inputs, the observation has shape \(2,\)"):
        give(model, steps._replace(x=steps.x[:, :2]))
    with pytest.raises(TypeError, match="one trajectory"):
        give(ow.Model(model.cell, ow.MonteCarlo(model.head, 2)), steps)
    gradient = give(model, steps)
    with pytest.raises(ValueError, match="of one model"):
        v.compare(gradient, gradient.cell)
    with pytest.raises(ValueError, match=r"reference gradient of 'cell\.weight' is zero"):
        v.compare(gradient, eqx.tree_at(lambda g: g.cell.weight, gradient, jnp.zeros_like(gradient.cell.weight)))
